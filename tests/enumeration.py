"""Small instances solved by trying everything, written without the planner's pricing, graph or limits."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from strategies import Instance

from planner.fleet import Link
from planner.limits import Limits
from planner.plan import Plan, Variant
from planner.table import ProfileRow

# Latency, energy, noise, and the parts: a device's name for a stage, "" for a hop.
Enumerated = tuple[float, float, float, tuple[str, ...]]


@dataclass
class Part:
    """A stage (``device``, ``start``, ``stop``, ``variant``) or a hop (``route``, ``codec``, at ``start``)."""

    key: tuple[object, ...]
    device: str = ""
    start: int = 0
    stop: int = 0
    variant: Variant | None = None
    route: tuple[str, ...] = ()
    latency: float = 0.0
    energy: float = 0.0
    noise: float = 0.0
    price: float = 0.0
    upload: float = 0.0
    memory: float = 0.0
    busy: tuple[tuple[str, float], ...] = ()  # seconds of devices (by name) and links ("a->b")


class Tried:
    """A plan and all that an objective or a limit can count of it."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self.stages = [part for part in parts if part.device]
        self.hops = [part for part in parts if not part.device]
        self.latency = sum(part.latency for part in parts)
        self.energy = sum(part.energy for part in parts)
        self.noise = sum(part.noise for part in parts)
        self.price = sum(part.price for part in parts)
        self.upload = sum(part.upload for part in parts)
        self.busy: dict[str, float] = defaultdict(float)
        for part in parts:
            for name, time in part.busy:
                self.busy[name] += time
        self.memory: dict[str, float] = defaultdict(float)  # of the stages, without the worker
        self.bundles: dict[str, int] = defaultdict(int)
        self.layers: dict[str, int] = defaultdict(int)
        self.visits: dict[str, int] = defaultdict(int)
        self.clocks: dict[str, set[float | None]] = defaultdict(set)
        at = None
        for part in parts:
            if part.device:
                self.memory[part.device] += part.memory
                self.bundles[part.device] += 1
                self.layers[part.device] += part.stop - part.start
                self.visits[part.device] += at != part.device
                self.clocks[part.device].add(part.variant.frequency_hz)
            at = part.device
        self.routed = {name for hop in self.hops for name in hop.route}
        self.links = {"->".join(pair) for hop in self.hops for pair in itertools.pairwise(hop.route)}

    @property
    def period(self) -> float:
        return max(self.busy.values())

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from every other plan."""
        return tuple(part.key for part in self.parts)


def key_of(plan: Plan) -> tuple[object, ...]:
    """``Tried.key`` of a plan of the planner."""
    stages = [
        (stage.bundle.start, 1, stage.device, stage.bundle.stop, stage.variant) for stage in plan.stages
    ]
    hops = [(hop.boundary, 0, hop.route, hop.codec) for hop in plan.hops]
    return tuple(sorted((*stages, *hops), key=lambda part: part[:2]))


def every_plan(instance: Instance) -> list[Enumerated]:
    """What plans cost without limits."""
    return [
        (plan.latency, plan.energy, plan.noise, tuple(part.device for part in plan.parts))
        for plan in everything(instance)
    ]


def everything(instance: Instance, limits: Limits | None = None) -> list[Tried]:
    """Every plan; with limits, every one that a search may consider: whether it keeps them, ``keeps`` says."""
    limits = limits or Limits()
    chain, fleet = instance.chain, instance.fleet
    links = {
        link.pair: link
        for link in fleet.links
        if "->".join(link.pair) not in limits.without_links and not {*link.pair} & {*limits.without_devices}
    }
    stages = [_stage(instance, row) for row in instance.table.rows]
    names = [device.name for device in fleet.devices]
    hops = {
        (boundary, source, target): [
            hop
            for route in _routes(names, links, source, target)
            for hop in _hops(instance, links, boundary, route)
        ]
        for boundary in range(len(chain) + 1)
        for source, target in itertools.permutations(names, 2)
    }
    joins = limits.max_bundle_layers is not None

    def onward(boundary: int, device: str, last: Variant | None, moved: bool) -> Iterator[tuple[Part, ...]]:
        """Everything that can follow once the tensors at ``boundary`` are on ``device``."""
        if boundary == len(chain) and device == fleet.sink:
            yield ()
        if not moved:
            for target in names:
                for hop in hops.get((boundary, device, target), []):
                    for rest in onward(boundary, target, None, True):
                        yield (hop, *rest)
        for stage in stages:
            if (stage.start, stage.device) == (boundary, device) and (joins or stage.variant != last):
                for rest in onward(stage.stop, device, stage.variant, False):
                    yield (stage, *rest)

    return [Tried(parts) for parts in onward(0, fleet.source, None, False)]


def _energy(instance: Instance, time: float, powers: dict[str, float]) -> float:
    """Joules of the battery devices over ``time``; those not in ``powers`` idle."""
    devices = instance.fleet.devices
    return sum(powers.get(each.name, each.idle_power_w) * time for each in devices if each.battery)


def _stage(instance: Instance, row: ProfileRow) -> Part:
    device, bundle, chain = instance.fleet.device(row.device), row.bundle, instance.chain
    power = device.active_power_w or 0.0
    if row.energy_j is not None:
        power = row.energy_j / row.latency_s
    noise = 0.0
    if row.variant.precision != "fp32":
        noise = 1.0 if row.sqnr_db is None else 10 ** (-row.sqnr_db / 10)
    memory: float
    if row.peak_memory_bytes is not None:
        memory = row.peak_memory_bytes
    else:
        weights = row.weight_bytes
        if weights is None:
            weights = sum(chain.layers[place].weight_bytes for place in range(bundle.start, bundle.stop))
        memory = weights + chain.boundaries[bundle.start].nbytes + chain.boundaries[bundle.stop].nbytes
    return Part(
        key=(bundle.start, 1, row.device, bundle.stop, row.variant),
        device=row.device,
        start=bundle.start,
        stop=bundle.stop,
        variant=row.variant,
        latency=row.latency_s,
        energy=_energy(instance, row.latency_s, {row.device: power}),
        noise=noise,
        price=device.price_per_s * row.latency_s,
        memory=memory,
        busy=((row.device, row.latency_s),),
    )


def _coding_power(instance: Instance, name: str) -> float:
    """Watts of a device that encodes or decodes."""
    metered = [row for row in instance.table.rows if row.device == name and row.energy_j is not None]
    power = instance.fleet.device(name).active_power_w
    if power is None and metered:
        power = sum(row.energy_j or 0 for row in metered) / sum(row.latency_s for row in metered)
    return power or 0.0


def _routes(
    names: list[str], links: dict[tuple[str, str], Link], source: str, target: str
) -> list[tuple[str, ...]]:
    """The direct link, or else every way round."""
    if (source, target) in links:
        return [(source, target)]
    between = [name for name in names if name not in (source, target)]
    candidates = [
        (source, *relays, target)
        for count in range(1, len(between) + 1)
        for relays in itertools.permutations(between, count)
    ]
    return [route for route in candidates if all(pair in links for pair in itertools.pairwise(route))]


def _hops(
    instance: Instance, links: dict[tuple[str, str], Link], boundary: int, route: tuple[str, ...]
) -> Iterator[Part]:
    """The tensors as they are, and in each codec that both ends were measured with."""
    fleet, ends = instance.fleet, (route[0], route[-1])
    rows = {(row.device, row.codec): row for row in instance.table.codecs if row.boundary == boundary}
    for codec in ("raw", *sorted({codec for _, codec in rows})):
        latency = energy = noise = price = 0.0
        busy: list[tuple[str, float]] = []
        size = instance.chain.boundaries[boundary].nbytes
        if codec != "raw":
            if any((end, codec) not in rows for end in ends):
                continue
            first, last = (rows[end, codec] for end in ends)
            size = first.wire_bytes
            noise = 0.0 if first.sqnr_db is None else 10 ** (-first.sqnr_db / 10)
            for name, time in ((ends[0], first.encode_s), (ends[1], last.decode_s)):
                latency += time
                energy += _energy(instance, time, {name: _coding_power(instance, name)})
                price += fleet.device(name).price_per_s * time
                busy.append((name, time))
        for pair in itertools.pairwise(route):
            link = links[pair]
            time = size / link.bandwidth_bytes_per_s
            latency += link.latency_s + time
            radio = {link.source: link.send_power_w, link.target: link.receive_power_w}
            energy += _energy(instance, time, radio) + _energy(instance, link.latency_s, {})
            price += link.price_per_byte * size
            busy.append(("->".join(pair), time))
        upload = size if route[0] == fleet.source else 0.0
        yield Part(
            *((boundary, 0, route, codec), "", boundary, boundary, None, route),
            *(latency, energy, noise, price, upload, 0.0, tuple(busy)),
        )
