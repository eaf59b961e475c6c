"""What a plan costs: the only place that prices anything.

latency of a plan = sum of its stages + sum of its hops
    stage   the measured mean of the bundle in that variant
    hop     encode at its first device
            + for each link of its route: latency_s + wire bytes / bandwidth (store and forward)
            + decode at its last device

energy of a plan = what the battery devices use meanwhile; other devices do not count
    stage   the metered energy of the device that computes, or active power x time where nothing
            metered it; every other battery device idles
    hop     active power x time of the device that encodes or decodes; every other battery device idles
            for each link: send power x transfer time at its source, receive power x transfer time
            at its target; every other battery device idles, and all of them during latency_s

noise of a plan = sum of 10^(-sqnr_db / 10) over its stages and hops
    A first-order model: errors that do not depend on each other add in power, and what a network makes
    of an error on the way is taken to be what it makes of its signal. fp32 and lossless codecs add none.

price of a plan = price_per_s x time of each device that computes, encodes or decodes, and price_per_byte of
    each link

upload of a plan = wire bytes of the hops that start at the source

period of a plan = the most that one device computes, encodes and decodes, or one directed link transfers, per
    inference: a pipeline answers no faster

Seconds, joules and bytes throughout; noise is power over the signal's, without a unit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle, Chain
from planner.codec_table import CODECS, CodecName, CodecRow
from planner.columns import Columns
from planner.errors import UnknownNameError
from planner.fleet import Fleet, Link
from planner.limits import Criterion, Limits
from planner.measured import Way as Way
from planner.measured import measured
from planner.plan import Cost, Hop, Stage, Variant
from planner.power import active_powers, idle_power_w, stage_energy
from planner.routes import routes_from, undominated
from planner.sidecar import LeftOut
from planner.table import ProfileRow

FloatArray = NDArray[np.float64]

# Relative; sums taken in another order differ by about 1e-15, which must not decide over a limit.
ROUNDING = 1e-9


def ceilings(limits: Limits) -> dict[Criterion, float]:
    """The most of each criterion that a plan may cost, rounding allowed for; inf for no limit."""
    noise = None if limits.min_sqnr_db is None else noise_of(limits.min_sqnr_db)
    most: dict[Criterion, float | None] = {
        "latency": limits.max_latency_s,
        "energy": limits.max_energy_j,
        "noise": noise,
        "price": limits.max_price,
        "upload": limits.max_upload_bytes,
    }
    return {name: math.inf if value is None else value * (1 + ROUNDING) for name, value in most.items()}


def noise_of(sqnr_db: float | None) -> float:
    """Noise-to-signal power of a signal-to-noise ratio in dB; None is no noise."""
    return 0.0 if sqnr_db is None else 10 ** min(-sqnr_db / 10, 300.0)


@dataclass(frozen=True, eq=False)
class CostModel:
    """Prices for one chain, fleet and batch.

    ``latency_s``, ``energy_j``, ``noise`` and ``memory_bytes`` have the shape (ways, layers, layers + 1), indexed by
    way, start and stop, NaN where start >= stop, infinite where that way cannot run the bundle. ``codecs``: the
    rows by device, boundary and codec. ``active_power_w``: watts of the battery devices while they compute.
    ``unmetered``: battery devices with neither metered energy nor ``active_power_w``; what they compute is
    charged 0 J, so energy means nothing while there is one. ``unrated``: ways below fp32 whose error nothing
    measured; each of their stages counts as much noise as signal.
    """

    chain: Chain
    fleet: Fleet
    batch: int
    ways: tuple[Way, ...]
    latency_s: FloatArray
    energy_j: FloatArray
    noise: FloatArray
    memory_bytes: FloatArray
    codecs: Mapping[tuple[str, int, CodecName], CodecRow]
    active_power_w: Mapping[str, float]
    unmetered: tuple[str, ...]
    unrated: tuple[Way, ...]

    @staticmethod
    def of(
        chain: Chain,
        fleet: Fleet,
        rows: Iterable[ProfileRow] | Columns,
        batch: int,
        left_out: Mapping[str, Sequence[LeftOut]] | None = None,
        incomplete: Container[str] = (),
        codecs: Iterable[CodecRow] = (),
        statistic: str = "mean",
    ) -> CostModel:
        """Price these rows, those of other batches left aside.

        The other arguments are those of ``measured``, which see. ``UnknownNameError``: a row of a device that is
        not in the fleet. ``PlanningError``: a way of which some bundles are neither measured nor left out.
        """
        columns = rows if isinstance(rows, Columns) else Columns.of(rows)
        _check_devices(fleet, columns.devices_of(batch))
        known = measured(chain, columns, batch, left_out, incomplete, statistic)
        priced = {(row.device, row.boundary, row.codec): row for row in codecs if row.batch == batch}
        powers = active_powers(fleet, known.metered_w)
        coding = {device for device, _, _ in priced}
        mute = [
            device.name
            for device in fleet.devices
            if device.battery and device.name in coding and device.name not in powers
        ]
        energy_j, unmetered = stage_energy(fleet, _devices(known.ways), known.latency_s, known.metered_j)
        for each in (known.latency_s, energy_j, known.noise, known.memory_bytes):
            each[known.cannot] = np.inf
        return CostModel(
            *(chain, fleet, batch, known.ways, known.latency_s, energy_j, known.noise, known.memory_bytes),
            *(priced, powers, tuple(dict.fromkeys((*mute, *unmetered))), known.unrated),
        )

    def repriced(self, latency_s: FloatArray, metered_j: FloatArray) -> CostModel:
        """The same with other times and metered energies (J, NaN where nothing metered it) of the bundles;
        those of infinite time cannot be used."""
        unusable = np.isinf(latency_s)
        energy_j, unmetered = stage_energy(
            self.fleet, _devices(self.ways), np.where(unusable, 0.0, latency_s), metered_j
        )
        energy_j[unusable] = np.inf
        return replace(self, latency_s=latency_s, energy_j=energy_j, unmetered=unmetered)

    def bundle_cost(self, criterion: Criterion) -> FloatArray:
        """What bundles cost, like ``latency_s`` by way, start and stop."""
        zeros: FloatArray = np.broadcast_to(0.0, self.latency_s.shape)
        if criterion == "price":
            rates = np.array([self.fleet.device(way.device).price_per_s for way in self.ways])
            if not rates.any():
                return zeros
            # Free is free, also where a bundle cannot run.
            usable = np.where(np.isfinite(self.latency_s), self.latency_s, 0.0)
            price: FloatArray = usable * rates.reshape(-1, 1, 1)
            return price
        own: dict[Criterion, FloatArray] = {
            "latency": self.latency_s,
            "energy": self.energy_j,
            "noise": self.noise,
        }
        return own.get(criterion, zeros)

    def stage(self, device: str, bundle: Bundle, variant: Variant) -> Stage:
        """The bundle in that variant, priced; infinite where it cannot run. ``ValueError``: an unknown way."""
        place = self.ways.index(Way(device, variant)), bundle.start, bundle.stop
        time = float(self.latency_s[place])
        price = self.fleet.device(device).price_per_s * time
        cost = Cost(time, float(self.energy_j[place]), float(self.noise[place]), price)
        return Stage(device, bundle, variant, cost, float(self.memory_bytes[place]))

    def link(self, link: Link, wire_bytes: int) -> Cost:
        """What sending ``wire_bytes`` over one link costs."""
        time = link.transfer_s(wire_bytes)
        radio_w = idle_power_w(self.fleet, *link.pair)
        if self.fleet.device(link.source).battery:
            radio_w += link.send_power_w
        if self.fleet.device(link.target).battery:
            radio_w += link.receive_power_w
        energy_j = radio_w * time + idle_power_w(self.fleet) * link.latency_s
        return Cost(link.latency_s + time, energy_j, 0.0, link.price_per_byte * wire_bytes)

    def coding(self, device: str, time_s: float) -> Cost:
        """What encoding or decoding for ``time_s`` on a device costs."""
        power_w = self.active_power_w.get(device, 0.0) + idle_power_w(self.fleet, device)
        return Cost(time_s, power_w * time_s, 0.0, self.fleet.device(device).price_per_s * time_s)

    def hop(self, boundary: int, route: tuple[str, ...], codec: CodecName = "raw") -> Hop:
        """The hop along ``route``, every link of which is in the fleet; ``codec`` is raw or was measured
        at both its ends."""
        wire_bytes = self._wire_bytes(boundary, route[0], codec)
        cost = Cost(0.0, 0.0, upload_bytes=wire_bytes if route[0] == self.fleet.source else 0.0)
        encode_s = decode_s = 0.0
        if codec != "raw":
            sent = self.codecs[route[0], boundary, codec]
            encode_s, decode_s = sent.encode_s, self.codecs[route[-1], boundary, codec].decode_s
            cost += self.coding(route[0], encode_s) + self.coding(route[-1], decode_s)
            cost += Cost(0.0, 0.0, noise_of(sent.sqnr_db))
        for pair in itertools.pairwise(route):
            link = self.fleet.link(*pair)
            assert link is not None, pair
            cost += self.link(link, wire_bytes)
        return Hop(boundary, route, codec, wire_bytes, cost, encode_s, decode_s)

    def hops(self, boundary: int, source: str, *, every_codec: bool = False) -> list[Hop]:
        """Every hop that may be worth taking from ``source``: to each device, over routes and in codecs,
        what no other beats in every criterion and in the time of every device and link. ``every_codec``: those
        that others beat too."""
        found: list[Hop] = []
        for codec in CODECS:
            if codec == "raw" or (source, boundary, codec) in self.codecs:
                found += self._hops_in(boundary, source, codec)
        if not every_codec and any(hop.codec != "raw" for hop in found):
            found = undominated(found)
        return sorted(found, key=lambda hop: hop.route)

    def _hops_in(self, boundary: int, source: str, codec: CodecName) -> list[Hop]:
        wire_bytes = self._wire_bytes(boundary, source, codec)
        routes = routes_from(self.fleet, source, lambda link: self.link(link, wire_bytes))
        return [
            self.hop(boundary, route, codec)
            for route in routes
            if codec == "raw" or (route[-1], boundary, codec) in self.codecs
        ]

    def _wire_bytes(self, boundary: int, source: str, codec: CodecName) -> int:
        if codec == "raw":
            return self.chain.wire_bytes(boundary, self.batch)
        return self.codecs[source, boundary, codec].wire_bytes

    def price(self, stages: Iterable[Stage], hops: Iterable[Hop]) -> Cost:
        """The cost of a whole path, computed anew from the table and the fleet."""
        costs = [self.stage(stage.device, stage.bundle, stage.variant).cost for stage in stages]
        costs += [self.hop(hop.boundary, hop.route, hop.codec).cost for hop in hops]
        return Cost(*(math.fsum(values) for values in zip(*(cost.values for cost in costs), strict=True)))


def _devices(ways: Iterable[Way]) -> list[str]:
    return [way.device for way in ways]


def _check_devices(fleet: Fleet, names: Iterable[str]) -> None:
    known = [device.name for device in fleet.devices]
    for name in names:
        if name not in known:
            remedy = f"the fleet's devices are {', '.join(known)}; pass the fleet that was profiled"
            raise UnknownNameError("device in the profile table", name, known, remedy)
