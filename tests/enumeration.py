"""Small instances solved by trying everything, written without the planner's pricing or graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from strategies import Instance

from planner.plan import Variant
from planner.table import ProfileRow

Enumerated = tuple[float, float, tuple[str, ...]]


def every_plan(instance: Instance) -> list[Enumerated]:
    """Latency, energy and parts of every plan: a device's name for a stage, "" for a hop."""
    chain, fleet = instance.chain, instance.fleet
    links = {link.pair: link for link in fleet.links}

    def energy(time: float, powers: dict[str, float]) -> float:
        """Joules of the battery devices over ``time``; those not in ``powers`` idle."""
        return sum(
            powers.get(device.name, device.idle_power_w) * time for device in fleet.devices if device.battery
        )

    def stage(row: ProfileRow) -> tuple[float, float]:
        power = fleet.device(row.device).active_power_w or 0.0
        if row.energy_j is not None:
            power = row.energy_j / row.latency_s
        return row.latency_s, energy(row.latency_s, {row.device: power})

    def route_cost(boundary: int, route: tuple[str, ...]) -> tuple[float, float]:
        latency, joules = 0.0, 0.0
        for pair in itertools.pairwise(route):
            link = links[pair]
            time = chain.boundaries[boundary].nbytes / link.bandwidth_bytes_per_s
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
        (boundary, source, target): [route_cost(boundary, route) for route in routes(source, target)]
        for boundary in range(len(chain) + 1)
        for source, target in itertools.permutations(names, 2)
    }
    stages = [(row, *stage(row)) for row in instance.table.rows]

    def onward(boundary: int, device: str, last: Variant | None, moved: bool) -> Iterator[Enumerated]:
        """Everything that can follow once the tensors at ``boundary`` are on ``device``."""
        if boundary == len(chain) and device == fleet.sink:
            yield 0.0, 0.0, ()
        if not moved:
            for target in names:
                for latency, joules in hops.get((boundary, device, target), []):
                    for rest in onward(boundary, target, None, True):
                        yield latency + rest[0], joules + rest[1], ("", *rest[2])
        for row, latency, joules in stages:
            if (row.bundle.start, row.device) == (boundary, device) and row.variant != last:
                for rest in onward(row.bundle.stop, device, row.variant, False):
                    yield latency + rest[0], joules + rest[1], (device, *rest[2])

    return list(onward(0, fleet.source, None, False))
