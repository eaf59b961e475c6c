"""Every plan of a small instance, and how long it keeps each device and link busy: written without the planner's
pricing or graph."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from strategies import Instance

from planner.limits import Limits
from planner.table import ProfileRow


@dataclass(frozen=True)
class Sent:
    boundary: int
    source: str
    target: str
    nbytes: int
    encode_s: float = 0.0
    decode_s: float = 0.0
    noise: float = 0.0


Part = ProfileRow | Sent


def paths(instance: Instance, joins: bool) -> Iterator[tuple[Part, ...]]:
    """Every way from the source to the sink, all of whose devices are linked directly."""
    chain, fleet, table = instance.chain, instance.fleet, instance.table
    names = [device.name for device in fleet.devices]

    def sent(boundary: int, source: str, target: str) -> Iterator[Sent]:
        yield Sent(boundary, source, target, chain.boundaries[boundary].nbytes)
        rows = {(row.device, row.codec): row for row in table.codecs if row.boundary == boundary}
        for (name, codec), row in rows.items():
            if name == source and (target, codec) in rows:
                noise = 0.0 if row.sqnr_db is None else 10 ** (-row.sqnr_db / 10)
                decode_s = rows[target, codec].decode_s
                yield Sent(boundary, source, target, row.wire_bytes, row.encode_s, decode_s, noise)

    def onward(boundary: int, device: str, last: Part | None) -> Iterator[tuple[Part, ...]]:
        if boundary == len(chain) and device == fleet.sink:
            yield ()
        if not isinstance(last, Sent):
            for target in names:
                for hop in sent(boundary, device, target) if target != device else ():
                    yield from ((hop, *rest) for rest in onward(boundary, target, hop))
        for row in table.rows:
            same = isinstance(last, ProfileRow) and row.variant == last.variant
            if (row.bundle.start, row.device) == (boundary, device) and (joins or not same):
                yield from ((row, *rest) for rest in onward(row.bundle.stop, device, row))

    return onward(0, fleet.source, None)


class Known:
    """What a path costs, by hand."""

    def __init__(self, instance: Instance, path: tuple[Part, ...]) -> None:
        self.instance = instance
        self.rows = [part for part in path if isinstance(part, ProfileRow)]
        self.sent = [part for part in path if isinstance(part, Sent)]
        self.links = {link.pair: link for link in instance.fleet.links}
        self.wire = {
            hop: hop.nbytes / self.links[hop.source, hop.target].bandwidth_bytes_per_s for hop in self.sent
        }
        busy: defaultdict[str, float] = defaultdict(float)
        for row in self.rows:
            busy[row.device] += row.latency_s
        for hop in self.sent:
            busy[hop.source] += hop.encode_s
            busy[hop.target] += hop.decode_s
            busy[f"{hop.source}->{hop.target}"] += self.wire[hop]
        self.busy = busy
        self.period = max(busy.values())
        hops = sum(
            self.wire[hop] + hop.encode_s + hop.decode_s + self.links[hop.source, hop.target].latency_s
            for hop in self.sent
        )
        self.latency = sum(row.latency_s for row in self.rows) + hops
        self.parts = len(path)

    @property
    def energy(self) -> float:
        devices = {device.name: device for device in self.instance.fleet.devices if device.battery}

        def joules(time: float, powers: dict[str, float]) -> float:
            return sum(powers.get(name, device.idle_power_w) * time for name, device in devices.items())

        total = 0.0
        for row in self.rows:
            power = self.instance.fleet.device(row.device).active_power_w or 0.0
            if row.energy_j is not None:
                power = row.energy_j / row.latency_s
            total += joules(row.latency_s, {row.device: power})
        for hop in self.sent:
            link = self.links[hop.source, hop.target]
            total += joules(self.wire[hop], {hop.source: link.send_power_w, hop.target: link.receive_power_w})
            total += joules(link.latency_s, {})
            for name, time in ((hop.source, hop.encode_s), (hop.target, hop.decode_s)):
                total += joules(time, {name: self.instance.fleet.device(name).active_power_w or 0.0})
        return total

    @property
    def price(self) -> float:
        rate = {device.name: device.price_per_s for device in self.instance.fleet.devices}
        total = sum(rate[row.device] * row.latency_s for row in self.rows)
        for hop in self.sent:
            total += rate[hop.source] * hop.encode_s + rate[hop.target] * hop.decode_s
            total += self.links[hop.source, hop.target].price_per_byte * hop.nbytes
        return total

    @property
    def upload(self) -> float:
        return sum(hop.nbytes for hop in self.sent if hop.source == self.instance.fleet.source)

    @property
    def noise(self) -> float:
        stages = (
            0.0
            if row.variant.precision == "fp32"
            else 1.0
            if row.sqnr_db is None
            else 10 ** (-row.sqnr_db / 10)
            for row in self.rows
        )
        return sum(stages) + sum(hop.noise for hop in self.sent)

    def memory(self, device: str) -> float:
        """Weights of 4 bytes a layer, and the tensors at both ends."""
        sizes = [boundary.nbytes for boundary in self.instance.chain.boundaries]
        own = [row.bundle for row in self.rows if row.device == device]
        each = (4 * len(bundle) + sizes[bundle.start] + sizes[bundle.stop] for bundle in own)
        return sum(each) + (self.instance.fleet.device(device).worker_memory_bytes if own else 0)

    def keeps(self, limits: Limits) -> bool:
        names = [device.name for device in self.instance.fleet.devices]
        own = {name: [row for row in self.rows if row.device == name] for name in names}
        stays = [name for name, _ in itertools.groupby(row.device for row in self.rows)]
        longest = limits.max_bundle_layers
        sums = [
            (self.latency, limits.max_latency_s), (self.energy, limits.max_energy_j), (self.price, limits.max_price),
            (self.upload, limits.max_upload_bytes), (self.period, limits.max_period_s),
            (self.noise, None if limits.min_sqnr_db is None else 10 ** (-limits.min_sqnr_db / 10)),
            *((self.memory(name), most) for name, most in limits.max_memory_bytes.items()),
            *((self.busy[name], share * self.latency) for name, share in limits.max_share.items()),
        ]  # fmt: skip
        return (
            all(most is None or value <= most * (1 + 1e-9) for value, most in sums)
            and (not limits.once or len(set(stays)) == len(stays))
            and all(limits.max_bundles is None or len(rows) <= limits.max_bundles for rows in own.values())
            and (longest is None or all(len(row.bundle) <= longest for row in self.rows))
            and not (limits.ceil_rule and longest and any(
                len(rows) > math.ceil(sum(len(row.bundle) for row in rows) / longest) for rows in own.values()
            ))
            and (not limits.one_clock or all(
                len({row.variant.frequency_hz for row in rows}) <= 1 for rows in own.values()
            ))
            and all(row.device == self.instance.fleet.source for row in self.rows
                    if row.bundle.start < limits.private_layers)
            and all(self.on(layer) == pin.device for pin in limits.pins
                    for layer in range(pin.bundle.start, pin.bundle.stop))
            and not any(self.on(layer) == each.device for each in limits.forbidden
                        for layer in range(each.bundle.start, each.bundle.stop))
        )  # fmt: skip

    def on(self, layer: int) -> str:
        return next(row.device for row in self.rows if row.bundle.start <= layer < row.bundle.stop)
