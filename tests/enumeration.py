"""Small instances solved by trying everything, written without the planner's pricing or graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from strategies import Instance

from planner.plan import Variant
from planner.table import ProfileRow

# Latency, energy, noise, and the parts: a device's name for a stage, "" for a hop.
Enumerated = tuple[float, float, float, tuple[str, ...]]


def every_plan(instance: Instance) -> list[Enumerated]:
    chain, fleet = instance.chain, instance.fleet
    links = {link.pair: link for link in fleet.links}

    def energy(time: float, powers: dict[str, float]) -> float:
        """Joules of the battery devices over ``time``; those not in ``powers`` idle."""
        return sum(
            powers.get(device.name, device.idle_power_w) * time for device in fleet.devices if device.battery
        )

    def busy_power(name: str) -> float:
        """Watts of a device that encodes or decodes."""
        metered = [row for row in instance.table.rows if row.device == name and row.energy_j is not None]
        power = fleet.device(name).active_power_w
        if power is None:
            power = sum(row.energy_j or 0 for row in metered) / sum(row.latency_s for row in metered)
        return power

    def stage(row: ProfileRow) -> tuple[float, float, float]:
        power = fleet.device(row.device).active_power_w or 0.0
        if row.energy_j is not None:
            power = row.energy_j / row.latency_s
        noise = 0.0
        if row.variant.precision != "fp32":
            noise = 1.0 if row.sqnr_db is None else 10 ** (-row.sqnr_db / 10)
        return row.latency_s, energy(row.latency_s, {row.device: power}), noise

    def ways_to_send(boundary: int, route: tuple[str, ...]) -> list[tuple[float, float, float]]:
        """Raw, and each codec that both ends were measured with."""
        found = [(*route_cost(chain.boundaries[boundary].nbytes, route), 0.0)]
        ends = [
            {
                row.codec: row
                for row in instance.table.codecs
                if (row.device, row.boundary) == (name, boundary)
            }
            for name in (route[0], route[-1])
        ]
        for codec in ends[0].keys() & ends[1].keys():
            sent, times = ends[0][codec], (ends[0][codec].encode_s, ends[1][codec].decode_s)
            latency, joules = route_cost(sent.wire_bytes, route)
            for name, time in zip((route[0], route[-1]), times, strict=True):
                joules += energy(time, {name: busy_power(name)})
            noise = 0.0 if sent.sqnr_db is None else 10 ** (-sent.sqnr_db / 10)
            found.append((latency + sum(times), joules, noise))
        return found

    def route_cost(size: int, route: tuple[str, ...]) -> tuple[float, float]:
        latency, joules = 0.0, 0.0
        for pair in itertools.pairwise(route):
            link = links[pair]
            time = size / link.bandwidth_bytes_per_s
            latency += link.latency_s + time
            radio = {link.source: link.send_power_w, link.target: link.receive_power_w}
            joules += energy(time, radio) + energy(link.latency_s, {})
        return latency, joules

    def routes(source: str, target: str) -> list[tuple[str, ...]]:
        if (source, target) in links:
            return [(source, target)]
        between = [device.name for device in fleet.devices if device.name not in (source, target)]
        candidates = [
            (source, *relays, target)
            for count in range(1, len(between) + 1)
            for relays in itertools.permutations(between, count)
        ]
        return [route for route in candidates if all(pair in links for pair in itertools.pairwise(route))]

    names = [device.name for device in fleet.devices]
    hops = {
        (boundary, source, target): [
            way for route in routes(source, target) for way in ways_to_send(boundary, route)
        ]
        for boundary in range(len(chain) + 1)
        for source, target in itertools.permutations(names, 2)
    }
    stages = [(row, *stage(row)) for row in instance.table.rows]

    def onward(boundary: int, device: str, last: Variant | None, moved: bool) -> Iterator[Enumerated]:
        """Everything that can follow once the tensors at ``boundary`` are on ``device``."""
        if boundary == len(chain) and device == fleet.sink:
            yield 0.0, 0.0, 0.0, ()
        if not moved:
            for target in names:
                for latency, joules, noise in hops.get((boundary, device, target), []):
                    for rest in onward(boundary, target, None, True):
                        yield latency + rest[0], joules + rest[1], noise + rest[2], ("", *rest[3])
        for row, latency, joules, noise in stages:
            if (row.bundle.start, row.device) == (boundary, device) and row.variant != last:
                for rest in onward(row.bundle.stop, device, row.variant, False):
                    yield latency + rest[0], joules + rest[1], noise + rest[2], (device, *rest[3])

    return list(onward(0, fleet.source, None, False))
