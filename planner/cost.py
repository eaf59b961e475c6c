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

Seconds and joules throughout; noise is power over the signal's, without a unit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle, Chain
from planner.codec_table import CODECS, CodecName, CodecRow
from planner.errors import PlanningError, UnknownNameError
from planner.fleet import Fleet, Link
from planner.plan import Cost, Hop, Limits, Stage, Variant
from planner.routes import routes_from, undominated
from planner.sidecar import LeftOut
from planner.table import ProfileRow

FloatArray = NDArray[np.float64]
Objective = Literal["latency", "energy"]
Criterion = Literal["latency", "energy", "noise"]

# Relative; sums taken in another order differ by about 1e-15, which must not decide over a limit.
ROUNDING = 1e-9


class Way(NamedTuple):
    """One way to compute: a variant on a device."""

    device: str
    variant: Variant


def ceilings(limits: Limits) -> dict[Criterion, float]:
    """The most latency (s), energy (J) and noise a plan may cost, rounding allowed for; inf for no limit."""
    noise = None if limits.min_sqnr_db is None else noise_of(limits.min_sqnr_db)
    most: dict[Criterion, float | None] = {
        "latency": limits.max_latency_s,
        "energy": limits.max_energy_j,
        "noise": noise,
    }
    return {name: math.inf if value is None else value * (1 + ROUNDING) for name, value in most.items()}


def noise_of(sqnr_db: float | None) -> float:
    """Noise-to-signal power of a signal-to-noise ratio in dB; None is no noise."""
    return 0.0 if sqnr_db is None else 10 ** min(-sqnr_db / 10, 300.0)


@dataclass(frozen=True, eq=False)
class CostModel:
    """Prices for one chain, fleet and batch.

    ``latency_s``, ``energy_j`` and ``noise`` have the shape (ways, layers, layers + 1), indexed by way,
    start and stop, NaN where start >= stop, infinite where that way cannot run the bundle. ``codecs``: the
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
    codecs: Mapping[tuple[str, int, CodecName], CodecRow]
    active_power_w: Mapping[str, float]
    unmetered: tuple[str, ...]
    unrated: tuple[Way, ...]

    @staticmethod
    def of(
        chain: Chain,
        fleet: Fleet,
        rows: Iterable[ProfileRow],
        batch: int,
        left_out: Mapping[str, Sequence[LeftOut]] | None = None,
        incomplete: Container[str] = (),
        codecs: Iterable[CodecRow] = (),
    ) -> CostModel:
        """Price these rows, those of other batches left aside.

        ``left_out``: what each device cannot run. ``incomplete``: devices of which bundles are missing on
        purpose; a plan does without them. ``UnknownNameError``: a row of a device that is not in
        the fleet. ``PlanningError``: a way of which some bundles are neither measured nor left out.
        """
        rows = [row for row in rows if row.batch == batch]
        ways = {way: place for place, way in enumerate(dict.fromkeys(Way(r.device, r.variant) for r in rows))}
        _check_devices(fleet, ways)
        latency_s = np.full((len(ways), len(chain), len(chain) + 1), np.nan)
        metered_j, noise = np.full_like(latency_s, np.nan), np.full_like(latency_s, np.nan)
        unrated = {}
        for row in rows:
            cell = ways[Way(row.device, row.variant)], row.bundle.start, row.bundle.stop
            latency_s[cell] = row.latency_s
            metered_j[cell] = np.nan if row.energy_j is None else row.energy_j
            rated = _stage_noise(row)
            noise[cell] = 1.0 if rated is None else rated
            if rated is None:
                unrated[Way(row.device, row.variant)] = True
        cannot = np.zeros(latency_s.shape, dtype=bool)
        for name, entries in (left_out or {}).items():
            for entry in entries:
                row_way = Way(name, entry.variant)
                if row_way in ways and entry.batch == batch:
                    cannot[ways[row_way], entry.bundle.start, entry.bundle.stop] = True
        for way, place in ways.items():
            cannot[place] |= (way.device in incomplete) & np.triu(np.ones(cannot.shape[1:], dtype=bool), k=1)
        cannot &= np.isnan(latency_s)
        _check_complete(chain, batch, ways, np.isnan(latency_s) & ~cannot)

        priced = {(row.device, row.boundary, row.codec): row for row in codecs if row.batch == batch}
        powers = _active_powers(fleet, rows)
        coding = {device for device, _, _ in priced}
        mute = [
            device.name
            for device in fleet.devices
            if device.battery and device.name in coding and device.name not in powers
        ]
        energy_j, unmetered = _energy(fleet, ways, latency_s, metered_j)
        latency_s[cannot] = energy_j[cannot] = noise[cannot] = np.inf
        return CostModel(
            *(chain, fleet, batch, tuple(ways), latency_s, energy_j, noise),
            *(priced, powers, tuple(dict.fromkeys((*mute, *unmetered))), tuple(unrated)),
        )

    def repriced(self, latency_s: FloatArray, metered_j: FloatArray) -> CostModel:
        """The same with other times and metered energies (J, NaN where nothing metered it) of the bundles;
        those of infinite time cannot be used."""
        unusable = np.isinf(latency_s)
        energy_j, unmetered = _energy(self.fleet, self.ways, np.where(unusable, 0.0, latency_s), metered_j)
        energy_j[unusable] = np.inf
        return replace(self, latency_s=latency_s, energy_j=energy_j, unmetered=unmetered)

    def stage(self, device: str, bundle: Bundle, variant: Variant) -> Stage:
        place = self.ways.index(Way(device, variant)), bundle.start, bundle.stop
        cost = Cost(float(self.latency_s[place]), float(self.energy_j[place]), float(self.noise[place]))
        return Stage(device, bundle, variant, cost)

    def link(self, link: Link, wire_bytes: int) -> Cost:
        """What sending ``wire_bytes`` over one link costs."""
        time = link.transfer_s(wire_bytes)
        radio_w = _idle_power_w(self.fleet, *link.pair)
        if self.fleet.device(link.source).battery:
            radio_w += link.send_power_w
        if self.fleet.device(link.target).battery:
            radio_w += link.receive_power_w
        return Cost(link.latency_s + time, radio_w * time + _idle_power_w(self.fleet) * link.latency_s)

    def coding(self, device: str, time_s: float) -> Cost:
        """What encoding or decoding for ``time_s`` on a device costs."""
        power_w = self.active_power_w.get(device, 0.0) + _idle_power_w(self.fleet, device)
        return Cost(time_s, power_w * time_s)

    def hop(self, boundary: int, route: tuple[str, ...], codec: CodecName = "raw") -> Hop:
        """The hop along ``route``, every link of which is in the fleet; ``codec`` is raw or was measured
        at both its ends."""
        wire_bytes, cost = self._wire_bytes(boundary, route[0], codec), Cost(0.0, 0.0)
        encode_s = decode_s = 0.0
        if codec != "raw":
            sent = self.codecs[route[0], boundary, codec]
            encode_s, decode_s = sent.encode_s, self.codecs[route[-1], boundary, codec].decode_s
            cost = self.coding(route[0], encode_s) + self.coding(route[-1], decode_s)
            cost += Cost(0.0, 0.0, noise_of(sent.sqnr_db))
        for pair in itertools.pairwise(route):
            link = self.fleet.link(*pair)
            assert link is not None, pair
            cost += self.link(link, wire_bytes)
        return Hop(boundary, route, codec, wire_bytes, cost, encode_s, decode_s)

    def hops(self, boundary: int, source: str) -> list[Hop]:
        """Every hop that may be worth taking from ``source``: to each device, over routes and in codecs,
        what no other beats in latency, energy and noise together."""
        found: list[Hop] = []
        for codec in CODECS:
            if codec == "raw" or (source, boundary, codec) in self.codecs:
                found += self._hops_in(boundary, source, codec)
        if any(hop.codec != "raw" for hop in found):
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
        return Cost(
            *(math.fsum(getattr(cost, name) for cost in costs) for name in ("latency_s", "energy_j", "noise"))
        )


def _stage_noise(row: ProfileRow) -> float | None:
    """Noise of a bundle as measured; None where nothing measured it. Differences in fp32 are rounding."""
    if row.variant.precision == "fp32" or (row.sqnr_db is None and row.max_error == 0):
        return 0.0
    return None if row.sqnr_db is None else noise_of(row.sqnr_db)


def _active_powers(fleet: Fleet, rows: Sequence[ProfileRow]) -> dict[str, float]:
    """Watts of the battery devices while they compute: as the fleet says, else the mean of what was metered."""
    powers = {}
    for device in fleet.devices:
        metered = [row for row in rows if row.device == device.name and row.energy_j is not None]
        if device.battery and device.active_power_w is not None:
            powers[device.name] = device.active_power_w
        elif device.battery and metered:
            joules = math.fsum(row.energy_j or 0.0 for row in metered)
            powers[device.name] = joules / math.fsum(row.latency_s for row in metered)
    return powers


def _energy(
    fleet: Fleet, ways: Iterable[Way], latency_s: FloatArray, metered_j: FloatArray
) -> tuple[FloatArray, tuple[str, ...]]:
    """What computing costs the battery devices, like ``latency_s`` by way and bundle, and the unmetered ones."""
    energy_j = np.empty_like(latency_s)
    unmetered = {}
    for place, way in enumerate(ways):
        device, time = fleet.device(way.device), latency_s[place]
        own = np.zeros_like(time)
        if device.battery:
            power = np.nan if device.active_power_w is None else device.active_power_w
            own = np.where(np.isnan(metered_j[place]), power * time, metered_j[place])
            lacking = np.isnan(own) & ~np.isnan(time)
            own[lacking] = 0.0
            if lacking.any():
                unmetered[way.device] = True
        energy_j[place] = own + _idle_power_w(fleet, way.device) * time
    return energy_j, tuple(unmetered)


def _idle_power_w(fleet: Fleet, *busy: str) -> float:
    """Watts of the battery devices that wait while ``busy`` work."""
    return sum(device.idle_power_w for device in fleet.devices if device.battery and device.name not in busy)


def _check_devices(fleet: Fleet, ways: Iterable[Way]) -> None:
    known = [device.name for device in fleet.devices]
    for way in ways:
        if way.device not in known:
            remedy = f"the fleet's devices are {', '.join(known)}; pass the fleet that was profiled"
            raise UnknownNameError("device in the profile table", way.device, known, remedy)


def _check_complete(chain: Chain, batch: int, ways: dict[Way, int], lacking: NDArray[np.bool_]) -> None:
    starts, stops = np.triu_indices(len(chain), k=1, m=len(chain) + 1)
    for way, place in ways.items():
        missing = np.flatnonzero(lacking[place, starts, stops])
        if missing.size:
            first = Bundle(int(starts[missing[0]]), int(stops[missing[0]]))
            raise PlanningError(
                f"{way.device}, {way.variant}, batch {batch}: {missing.size} of {starts.size} bundles are "
                f"not measured, the first is {first}",
                f"run the same `{profile_command(chain, way.device)} ...` again: it resumes",
            )


def profile_command(chain: Chain, device: str) -> str:
    """The command that measures ``chain`` on ``device``."""
    return f"edgecut profile {chain.source.arguments} --device {device}"
