"""What a plan costs: the only place that prices anything.

latency of a plan = sum of its stages + sum of its hops
    stage   the measured mean of the bundle in that variant
    hop     for each link of its route: latency_s + wire bytes / bandwidth (store and forward)

energy of a plan = what the battery devices use meanwhile; other devices do not count
    stage   the metered energy of the device that computes, or active power x time where nothing
            metered it; every other battery device idles
    hop     for each link: send power x transfer time at its source, receive power x transfer time
            at its target; every other battery device idles, and all of them during latency_s

Seconds and joules throughout.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle, Chain
from planner.errors import PlanningError, UnknownNameError
from planner.fleet import Fleet, Link
from planner.plan import Cost, Hop, Limits, Stage, Variant
from planner.sidecar import LeftOut
from planner.table import ProfileRow

FloatArray = NDArray[np.float64]
Objective = Literal["latency", "energy"]

# Relative; sums taken in another order differ by about 1e-15, which must not decide over a limit.
ROUNDING = 1e-9


class Way(NamedTuple):
    """One way to compute: a variant on a device."""

    device: str
    variant: Variant


def ceilings(limits: Limits) -> dict[Objective, float]:
    """The most latency (s) and energy (J) a plan may cost, rounding allowed for; inf for no limit."""
    most: dict[Objective, float | None] = {"latency": limits.max_latency_s, "energy": limits.max_energy_j}
    return {name: math.inf if value is None else value * (1 + ROUNDING) for name, value in most.items()}


@dataclass(frozen=True, eq=False)
class CostModel:
    """Prices for one chain, fleet and batch.

    ``latency_s`` and ``energy_j`` have the shape (ways, layers, layers + 1), indexed by way, start
    and stop, NaN where start >= stop, infinite where that way cannot run the bundle. ``unmetered``:
    battery devices with neither metered energy nor
    ``active_power_w``; their stages are charged 0 J, so energy means nothing while there is one.
    """

    chain: Chain
    fleet: Fleet
    batch: int
    ways: tuple[Way, ...]
    latency_s: FloatArray
    energy_j: FloatArray
    unmetered: tuple[str, ...]

    @staticmethod
    def of(
        chain: Chain,
        fleet: Fleet,
        rows: Iterable[ProfileRow],
        batch: int,
        left_out: Mapping[str, Sequence[LeftOut]] | None = None,
        incomplete: Container[str] = (),
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
        metered_j = np.full_like(latency_s, np.nan)
        for row in rows:
            cell = ways[Way(row.device, row.variant)], row.bundle.start, row.bundle.stop
            latency_s[cell] = row.latency_s
            metered_j[cell] = np.nan if row.energy_j is None else row.energy_j
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

        energy_j, unmetered = _energy(fleet, ways, latency_s, metered_j)
        latency_s[cannot] = energy_j[cannot] = np.inf
        return CostModel(chain, fleet, batch, tuple(ways), latency_s, energy_j, unmetered)

    def repriced(self, latency_s: FloatArray, metered_j: FloatArray) -> CostModel:
        """The same with other times and metered energies (J, NaN where nothing metered it) of the bundles;
        those of infinite time cannot be used."""
        unusable = np.isinf(latency_s)
        energy_j, unmetered = _energy(self.fleet, self.ways, np.where(unusable, 0.0, latency_s), metered_j)
        energy_j[unusable] = np.inf
        return replace(self, latency_s=latency_s, energy_j=energy_j, unmetered=unmetered)

    def stage(self, device: str, bundle: Bundle, variant: Variant) -> Stage:
        place = self.ways.index(Way(device, variant)), bundle.start, bundle.stop
        cost = Cost(float(self.latency_s[place]), float(self.energy_j[place]))
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

    def hop(self, boundary: int, route: tuple[str, ...]) -> Hop:
        """The hop along ``route``, every link of which is in the fleet."""
        wire_bytes = self.chain.wire_bytes(boundary, self.batch)
        cost = Cost(0.0, 0.0)
        for pair in itertools.pairwise(route):
            link = self.fleet.link(*pair)
            assert link is not None, pair
            cost += self.link(link, wire_bytes)
        return Hop(boundary, route, "raw", wire_bytes, cost)

    def hops(self, boundary: int, source: str) -> list[Hop]:
        """Every hop that may be worth taking from ``source``: the direct link to each device where
        there is one, else each route that no other beats in both latency and energy.

        Routes by label setting with two criteria (Martins 1984): popped in order of latency, a route
        stays if it needs less energy than all before it to the same device.
        """
        direct = {link.target for link in self.fleet.links if link.source == source}
        found = [self.hop(boundary, (source, target)) for target in direct]
        if len(direct) + 1 == len(self.fleet.devices):
            return sorted(found, key=lambda hop: hop.route)
        wire_bytes = self.chain.wire_bytes(boundary, self.batch)
        priced = [(link, self.link(link, wire_bytes)) for link in self.fleet.links]
        least_j: dict[str, float] = {}
        queue: list[tuple[float, float, int, tuple[str, ...]]] = [(0.0, 0.0, 0, (source,))]
        while queue:
            latency_s, energy_j, links, route = heapq.heappop(queue)
            here = route[-1]
            if energy_j >= least_j.get(here, math.inf):
                continue
            least_j[here] = energy_j
            if here != source and here not in direct:
                found.append(self.hop(boundary, route))
            for link, cost in priced:
                if link.source == here:
                    heapq.heappush(
                        queue,
                        (
                            latency_s + cost.latency_s,
                            energy_j + cost.energy_j,
                            links + 1,
                            (*route, link.target),
                        ),
                    )
        return sorted(found, key=lambda hop: hop.route)

    def price(self, stages: Iterable[Stage], hops: Iterable[Hop]) -> Cost:
        """The cost of a whole path, computed anew from the table and the fleet."""
        costs = [self.stage(stage.device, stage.bundle, stage.variant).cost for stage in stages]
        costs += [self.hop(hop.boundary, hop.route).cost for hop in hops]
        return Cost(math.fsum(cost.latency_s for cost in costs), math.fsum(cost.energy_j for cost in costs))


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
