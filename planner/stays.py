"""Stays: what a device computes between two hops, in one bundle or in several of it in a row.

Whoever only counts time needs to know of a device, of all its variants, how long it takes from one
boundary to another at best. With r rounds a stay has at most r bundles::

    D1[v,i,j] = time of bundle [i,j) in variant v
    Dr[v,i,j] = min(D1[v,i,j], min over k, u of Dr-1[u,i,k] + D1[v,k,j])    u not v, or any where bundles may join

(Bellman 1957). Without a limit on bundles one round in the order of j does, for what comes before j is final.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.chain import Bundle
from planner.cost import CostModel, FloatArray, Way
from planner.graph import BoolArray, IntArray
from planner.limits import Limits
from planner.plan import Stage, Variant


@dataclass(frozen=True, eq=False)
class Stays:
    """``time_s``: shape (devices that compute, layers, layers + 1), the least time of a stay by start and stop,
    inf where there is none. A stay keeps to one clock where ``limits`` say so, and to at most as many bundles as
    they let a device run; both are of one stay here, not of all that a device has. Every bundle counts ``part_s``
    more than it takes, too little to matter, so that of equal stays the one of fewest bundles is the least."""

    model: CostModel
    usable: BoolArray
    limits: Limits
    devices: tuple[str, ...]
    time_s: FloatArray

    @staticmethod
    def of(model: CostModel, usable: BoolArray, limits: Limits, devices: tuple[str, ...]) -> Stays:
        """``usable``: bundles by way, start and stop."""
        layers = len(model.chain)
        time_s = np.full((len(devices), layers, layers + 1), np.inf)
        stays = Stays(model, usable, limits, devices, time_s)
        for place, device in enumerate(devices):
            for ways in stays._groups(device):
                least = _least(stays._times(ways), stays._joins, stays._most)
                np.minimum(time_s[place], least[:-1], out=time_s[place])
        return stays

    def stages(self, device: str, start: int, stop: int) -> tuple[Stage, ...]:
        """The bundles of the least stay; of equals, the fewest."""
        best: tuple[float, list[tuple[int, int]]] = np.inf, []
        for ways in self._groups(device):
            most = None if self._most is None else int(self._most[start, stop])
            time_s, path = _trace(self._times(ways)[:, start:, start:], self._joins, most, stop - start)
            if time_s < best[0]:
                best = time_s, [(int(ways[way]), start + end) for way, end in path]
        edges = [start, *(end for _, end in best[1])]
        return tuple(
            self.model.stage(device, Bundle(low, high), self.model.ways[way].variant)
            for (way, _), (low, high) in zip(best[1], itertools.pairwise(edges), strict=True)
        )

    @functools.cached_property
    def part_s(self) -> float:
        """What a part of a plan counts more than it takes: 1e-13 of what the whole network takes at its fastest."""
        layers = np.arange(len(self.model.chain))
        single = np.s_[:, layers, layers + 1]
        fastest = np.where(self.usable[single], self.model.latency_s[single], np.inf).min(axis=0)
        return 1e-13 * float(fastest[np.isfinite(fastest)].sum())

    @property
    def _joins(self) -> bool:
        return self.limits.max_bundle_layers is not None

    @functools.cached_property
    def _most(self) -> IntArray | None:
        """The most bundles of a stay by start and stop; None where there is no limit."""
        limits, layers = self.limits, len(self.model.chain)
        if limits.max_bundles is None and not limits.ceil_rule:
            return None
        start, stop = np.indices((layers + 1, layers + 1))
        most = np.full(start.shape, limits.max_bundles or layers)
        if limits.ceil_rule and limits.max_bundle_layers is not None:
            most = np.minimum(most, -(-np.maximum(stop - start, 1) // limits.max_bundle_layers))
        return most

    def _groups(self, device: str) -> Iterator[IntArray]:
        """The ways of a device that one stay may mix."""
        groups: dict[float | None, list[int]] = {}
        for place, way in enumerate(self.model.ways):
            if way.device == device:
                clock = way.variant.frequency_hz if self.limits.one_clock else None
                groups.setdefault(clock, []).append(place)
        yield from (np.array(ways, dtype=np.int64) for ways in groups.values())

    def _times(self, ways: IntArray) -> FloatArray:
        """By way, start and stop (both up to the number of layers), inf where a bundle cannot be used."""
        layers = len(self.model.chain)
        times = np.full((ways.size, layers + 1, layers + 1), np.inf)
        times[:, :-1] = np.where(self.usable[ways], self.model.latency_s[ways], np.inf)
        times[:, np.tri(layers + 1, dtype=bool)] = np.inf
        return times + self.part_s


def stays_model(stays: Stays, model: CostModel, like: dict[str, str]) -> CostModel:
    """The model in which a device computes a stay as one bundle; only its time, price and uploads mean anything.

    ``like``: of each device of ``model`` the one of ``stays.devices`` whose stays it has too."""
    places = [stays.devices.index(like[device.name]) for device in model.fleet.devices]
    time_s = stays.time_s[places]
    nothing = np.where(np.isfinite(time_s), 0.0, np.inf)
    ways = tuple(Way(device.name, Variant("stay")) for device in model.fleet.devices)
    return replace(
        model, ways=ways, latency_s=time_s, energy_j=nothing, noise=nothing, memory_bytes=nothing
    )  # fmt: skip


def _others(times: FloatArray, joins: bool) -> FloatArray:
    """For each way the least over the ways that may come before it: the others, or all; along axis 0."""
    if joins:
        return np.array(np.broadcast_to(times.min(axis=0), times.shape))
    if len(times) == 1:
        return np.full_like(times, np.inf)
    two = np.partition(times, 1, axis=0)[:2]
    first = times.argmin(axis=0)
    own = np.arange(len(times)).reshape(-1, *[1] * (times.ndim - 1)) == first
    least: FloatArray = np.where(own, two[1], two[0])
    return least


def _least(times: FloatArray, joins: bool, most: IntArray | None) -> FloatArray:
    """The least time of a stay by start and stop, of at most ``most`` bundles. ``times``: shape (ways, n, n)."""
    best, size = times.copy(), times.shape[1]
    if most is None:
        _extend(best, times, joins, in_order=True)
    found: FloatArray = best.min(axis=0)
    for count in range(2, 0 if most is None else min(int(most.max()), size) + 1):
        assert most is not None
        before = best.copy()
        _extend(best, times, joins, in_order=False)
        found = np.where(most >= count, best.min(axis=0), found)
        if (best == before).all():
            break
    return found


def _extend(best: FloatArray, times: FloatArray, joins: bool, *, in_order: bool) -> None:
    """One bundle more, in place; ``in_order``: any number of bundles more."""
    before = _others(best, joins)
    for stop in range(2, times.shape[1]):
        last = times[:, None, 1:stop, stop]
        if np.isfinite(last).any():
            longer = (before[:, : stop - 1, 1:stop] + last).min(axis=2)
            np.minimum(best[:, : stop - 1, stop], longer, out=best[:, : stop - 1, stop])
        if in_order:
            before[:, :, stop] = _others(best[:, :, stop], joins)


def _trace(
    times: FloatArray, joins: bool, most: int | None, stop: int
) -> tuple[float, list[tuple[int, int]]]:
    """The least time from 0 to ``stop`` and its bundles, each as way and stop; of equals, the fewest bundles."""
    rounds = [times[:, 0, : stop + 1]]
    inner = times[:, : stop + 1, : stop + 1]
    while len(rounds) < min(stop, most or stop):
        longer = (_others(rounds[-1], joins)[:, :, None] + inner).min(axis=1)
        rounds.append(np.minimum(rounds[0], longer))
        if (rounds[-1] == rounds[-2]).all():
            break
    ends = np.array([each[:, stop].min() for each in rounds])
    count = int(np.argmax(ends <= ends.min() * (1 + 1e-12)))
    path, way = [], int(rounds[count][:, stop].argmin())
    end = stop
    while True:
        path.append((way, end))
        if count == 0 or rounds[count][way, end] == times[way, 0, end]:
            return float(ends.min()), path[::-1]
        count -= 1
        before = _others(rounds[count], joins)[way] + inner[way, :, end]
        cut = int(before.argmin())
        into = rounds[count][:, cut].copy()
        if not joins:
            into[way] = np.inf
        way, end = int(into.argmin()), cut
