"""Which devices run which stage, several of them by turns: a dynamic programme.

A stage is a bundle on a set of devices that deal its requests out among them; no device is in two stages. State:
the boundary reached, the devices used, and those of the last stage; devices that are alike are only counted.
This is PipeDream's recurrence (Narayanan et al. 2019) with links in place of its hierarchy, and with unlike
devices in one stage.

A stage takes 1 / the sum of its devices' rates, each no higher than what its links from the stage before carry
(for the last stage, to the sink). That is exact with one device in each stage, and with devices that are alike and
have links alike; otherwise it is a lower bound, as a device's share must suit the links on both its sides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.chain import Bundle
from planner.cost import ROUNDING, CostModel, FloatArray
from planner.graph import IntArray
from planner.limits import Limits
from planner.placement import memory_ceiling
from planner.plan import Hop

Stages = tuple[tuple[Bundle, tuple[str, ...]], ...]
# Steps that take some seconds; beyond, stages get fewer replicas.
_MOST_STEPS = 1_500_000_000


@dataclass(frozen=True, eq=False)
class Times:
    """``stage_s``: shape (devices, layers, layers + 1), the fastest variant's, inf where it cannot run or does not
    fit the memory. ``hop_s``: shape (layers + 1, devices, devices), of the slowest link between them, 0 on one
    device. ``devices``: those that can run something, the source and the sink."""

    devices: tuple[str, ...]
    stage_s: FloatArray
    hop_s: FloatArray
    source: int
    sink: int

    @staticmethod
    def of(model: CostModel) -> Times:
        fleet, layers = model.fleet, len(model.chain)
        runs = {way.device for way in model.ways} | {fleet.source, fleet.sink}
        names = tuple(device.name for device in fleet.devices if device.name in runs)
        stage_s = np.full((len(names), layers, layers + 1), math.inf)
        for way, time, memory in zip(model.ways, model.latency_s, model.memory_bytes, strict=True):
            fits = np.isfinite(time) & (memory <= memory_ceiling(fleet, Limits(), way.device))
            mine = names.index(way.device)
            stage_s[mine] = np.minimum(stage_s[mine], np.where(fits, time, math.inf))
        rates = np.zeros((layers + 1, len(names), len(names)))
        for boundary, (place, name) in itertools.product(range(layers + 1), enumerate(names)):
            routes: dict[tuple[str, ...], float] = {}
            for hop in model.hops(boundary, name):
                if hop.route[-1] in runs:
                    routes[hop.route] = max(
                        routes.get(hop.route, 0.0), 1 / max(_slowest_s(model, hop), 1e-300)
                    )
            for route, rate in routes.items():
                rates[boundary, place, names.index(route[-1])] += rate
        with np.errstate(divide="ignore"):
            hop_s = 1 / rates
        hop_s[:, np.arange(len(names)), np.arange(len(names))] = 0.0
        return Times(names, stage_s, hop_s, names.index(fleet.source), names.index(fleet.sink))

    def alike(self) -> list[list[int]]:
        """Devices that compute, in groups of which any two may change places."""
        groups: list[list[int]] = []
        for device in np.flatnonzero(np.isfinite(self.stage_s).any(axis=(1, 2))).tolist():
            home = next((group for group in groups if self._swappable(group[0], device)), None)
            if home is None:
                groups.append([device])
            else:
                home.append(device)
        return groups

    def _swappable(self, one: int, other: int) -> bool:
        if {one, other} & {self.source, self.sink} or not np.array_equal(
            self.stage_s[one], self.stage_s[other]
        ):
            return False
        order = np.arange(len(self.devices))
        order[[one, other]] = other, one
        return np.array_equal(self.hop_s, self.hop_s[:, order][:, :, order])


def _slowest_s(model: CostModel, hop: Hop) -> float:
    links = (model.fleet.link(*pair) for pair in itertools.pairwise(hop.route))
    return max(link.transfer_s(hop.wire_bytes) for link in links if link is not None)


@dataclass(frozen=True, eq=False)
class Found:
    """``bound``: no stages have a lesser period. ``stages``: the most promising, the best first. ``replicas``: most
    that a stage was allowed; ``complete``: as many as were asked for."""

    bound: float
    stages: tuple[Stages, ...]
    replicas: int = 0
    complete: bool = True


def best_stages(times: Times, max_replicas: int | None = None, most: int = 12) -> Found:
    """Stages of least period; of equals, on fewest devices. ``stages`` is empty where none lead to the sink."""
    groups = times.alike()
    if not groups:
        return Found(math.inf, ())
    counts = [len(group) for group in groups]
    asked = allowed = min(max_replicas or sum(counts), sum(counts))
    one_each = _Programme(times, groups, _Space(counts, 1), math.inf).run(1)
    if asked == 1 or not one_each.stages:
        return replace(one_each, replicas=1, complete=asked == 1)
    layers = times.stage_s.shape[1]
    while True:
        space = _Space(counts, allowed)
        if space.steps * layers**2 / 2 <= _MOST_STEPS or allowed == 2:
            break
        allowed -= 1
    found = _Programme(times, groups, space, one_each.bound * (1 + ROUNDING)).run(most)
    return Found(found.bound, (*found.stages, *one_each.stages), allowed, allowed == asked)


class _Space:
    """The sets of devices as counts, and the steps from one pair (used, last) to another."""

    def __init__(self, counts: Sequence[int], allowed: int) -> None:
        self.counts = np.array(counts)
        every = np.array(list(itertools.product(*(range(count + 1) for count in counts))))
        sizes = every.sum(axis=1)
        self.sets = every[(sizes > 0) & (sizes <= allowed)]
        fits = [np.flatnonzero((used + self.sets <= self.counts).all(axis=1)) for used in every]
        # A pair is what was used before the last set, and the last set.
        pairs = [(before, last) for before, mine in enumerate(fits) for last in mine.tolist()]
        self.last = np.array([last for _, last in pairs], dtype=np.int64)
        self.used = np.array([every[before] + self.sets[last] for before, last in pairs])
        radix = np.append(np.cumprod((self.counts + 1)[::-1])[::-1][1:], 1)
        used_at = self.used @ radix
        self.steps = int(sum(fits[used].size for used in used_at))
        self.pair = {pair: place for place, pair in enumerate(pairs)}
        self.fits, self.used_at = fits, used_at
        self.first = np.array([self.pair[0, last] for last in range(len(self.sets))], dtype=np.int64)

    def arrivals(self) -> tuple[IntArray, IntArray]:
        """Steps as the pair left and the pair reached, ordered by the pair reached."""
        left = np.repeat(np.arange(self.last.size), [self.fits[used].size for used in self.used_at])
        reached = np.array(
            [self.pair[used, last] for used in self.used_at.tolist() for last in self.fits[used].tolist()],
            dtype=np.int64,
        )
        order = np.argsort(reached, kind="stable")
        return left[order], reached[order]


class _Programme:
    """``values``: by boundary and pair, the least period up to there; inf where it is not below ``most_s``."""

    def __init__(self, times: Times, groups: list[list[int]], space: _Space, most_s: float) -> None:
        self.space, self.groups, self.names, self.most_s = space, groups, times.devices, most_s
        self.sets = space.sets.astype(float)
        leaders, others = [group[0] for group in groups], [group[-1] for group in groups]
        hops = np.maximum(times.hop_s, 1e-300)
        self.stage_rates = 1 / times.stage_s[leaders]
        between = 1 / hops[:, leaders][:, :, others]
        for place, group in enumerate(groups):
            if len(group) == 1:
                between[:, place, place] = 0.0  # a device is in one stage
        # What one device of a kind can receive from all of a set, or from the source; what it can send to the sink.
        self.received = np.einsum("sg,kgh->ksh", self.sets, between)
        self.from_source, self.to_sink = 1 / hops[0, times.source, leaders], 1 / hops[-1, leaders, times.sink]
        self.left, self.reached = space.arrivals()
        self.layers = times.stage_s.shape[1]
        shape = self.layers + 1, space.last.size
        self.values, self.starts = np.full(shape, math.inf), np.zeros(shape, dtype=np.int64)

    def first(self, stop: int) -> FloatArray:
        """Of each set, the time of a first stage up to ``stop``."""
        return self.time(np.minimum(self.stage_rates[:, 0, stop], self.from_source), stop)

    def next(self, start: int, stop: int) -> FloatArray:
        """Of each two sets, the time of the second's stage, which receives from the first."""
        return self.time(np.minimum(self.stage_rates[:, start, stop], self.received[start]), stop)

    def time(self, rates: FloatArray, stop: int) -> FloatArray:
        if stop == self.layers:
            rates = np.minimum(rates, self.to_sink)
        with np.errstate(divide="ignore"):
            times: FloatArray = 1 / (rates @ self.sets.T)
        return times

    def run(self, most: int) -> Found:
        space, last = self.space, self.space.last
        for stop in range(1, self.layers + 1):
            self.values[stop][space.first] = self.first(stop)
        for start in range(1, self.layers):
            before = self.values[start][self.left]
            able = np.flatnonzero(before < self.most_s)
            before, reached = before[able], self.reached[able]
            if not able.size:
                continue
            firsts = np.flatnonzero(np.diff(reached, prepend=-1))
            pairs, sets = reached[firsts], last[self.left[able]] * len(self.sets) + last[reached]
            for stop in range(start + 1, self.layers + 1):
                stage = self.next(start, stop).ravel().take(sets)
                value = np.minimum.reduceat(np.maximum(stage, before, out=stage), firsts)
                better = value < self.values[stop][pairs]
                self.values[stop][pairs[better]] = value[better]
                self.starts[stop][pairs[better]] = start
        ended = self.values[-1]
        bound = float(ended.min())
        if not math.isfinite(bound):
            return Found(bound, ())
        devices = space.used.sum(axis=1)
        order = np.lexsort((devices, np.maximum(ended, bound * (1 + 1e-9))))[:most]
        return Found(bound, tuple(self.traced(int(pair)) for pair in order if math.isfinite(ended[pair])))

    def traced(self, pair: int) -> Stages:
        """The stages that led to a pair at the end of the chain."""
        free = [list(group) for group in self.groups]
        stages: list[tuple[Bundle, tuple[str, ...]]] = []
        stop = self.layers
        while True:
            start, mine = int(self.starts[stop][pair]), self.space.last[pair]
            taken = [
                free[group].pop() for group, count in enumerate(self.space.sets[mine]) for _ in range(count)
            ]
            stages.insert(0, (Bundle(start, stop), tuple(self.names[place] for place in sorted(taken))))
            if start == 0:
                return tuple(stages)
            left = self.left[self.reached == pair]
            value = np.maximum(self.values[start][left], self.next(start, stop)[self.space.last[left], mine])
            pair, stop = int(left[np.argmin(value)]), start
