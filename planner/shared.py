"""Several streams on one fleet as arithmetic: a path each through its own layered graph, and common rows.

minimise    sum of weight[a] over all paths, or the level t where it is balanced
subject to  one path from first to last in the graph of each part
            sum over the paths of load[row, a] <= ceiling[row] + level[row] x t
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array

from planner.cost import ROUNDING, FloatArray
from planner.fleet import Fleet
from planner.graph import BoolArray, Graph, IntArray
from planner.limits import Limits
from planner.period import busy_s
from planner.placement import memory_ceiling
from planner.problem import Problem, Resource

# The limit that the rows of devices' and links' time are named after.
UTILISATION = "max_utilisation"
# A path's arcs for each part.
Paths = tuple[IntArray, ...]
Entry = tuple[IntArray, FloatArray]


@dataclass(frozen=True, eq=False)
class Part:
    """One stream: its problem, what its arcs weigh, and ``loads``, shape (rows, arcs), what they add to each row."""

    problem: Problem
    weight: FloatArray
    loads: csc_array

    @functools.cached_property
    def by_row(self) -> csr_array:
        rows: csr_array = self.loads.tocsr()
        return rows

    @property
    def graph(self) -> Graph:
        return self.problem.graph

    def restricted(self, keep: BoolArray) -> Part:
        return Part(self.problem.restricted(keep), self.weight[keep], self.loads[:, np.flatnonzero(keep)])

    def used(self, arcs: IntArray) -> FloatArray:
        """What a path adds to each row."""
        return np.asarray(self.loads[:, arcs].sum(axis=1), dtype=float).ravel()

    def clocks(self) -> list[tuple[str, float | None]]:
        """The device and frequency of each number in ``problem.clock``."""
        ways = self.graph.model.ways
        return list(dict.fromkeys((way.device, way.variant.frequency_hz) for way in ways))


@dataclass(frozen=True, eq=False)
class Shared:
    """``level``: by row, how much one unit of the level allows; all 0 where weights are minimised."""

    parts: tuple[Part, ...]
    rows: tuple[Resource, ...]
    ceilings: FloatArray
    level: FloatArray

    @staticmethod
    def of(
        fleet: Fleet,
        problems: Sequence[Problem],
        weights: Sequence[FloatArray],
        rates_per_s: Sequence[float],
        *,
        max_utilisation: float = 1.0,
        balanced: bool = False,
        memory: bool = True,
    ) -> Shared:
        """``weights``: of every arc, by problem. ``memory``: whether the devices' memory is a limit."""
        rows: list[Resource] = []
        entries: list[dict[int, Entry]] = []
        for resource, by_part in _shared_rows(fleet, problems, rates_per_s, max_utilisation, memory):
            rows.append(resource)
            entries.append(by_part)
        for place, problem in enumerate(problems):
            for index, resource in enumerate(problem.resources):
                if memory or resource.limit != "max_memory_bytes":
                    row = problem.loads[[index]].tocoo()
                    rows.append(resource)
                    entries.append({place: (row.col, row.data)})
        parts = tuple(
            Part(problem, np.zeros(weight.size) if balanced else weight, _loads(entries, place, weight.size))
            for place, (problem, weight) in enumerate(zip(problems, weights, strict=True))
        )
        level = np.array([float(balanced and row.limit == UTILISATION) for row in rows])
        ceilings = np.array([row.ceiling for row in rows]) * (1 - level)
        return Shared(parts, tuple(rows), ceilings, level)

    @property
    def balanced(self) -> bool:
        return bool(self.level.any())

    @property
    def arcs(self) -> int:
        return sum(part.graph.arcs for part in self.parts)

    def restricted(self, keep: Sequence[BoolArray]) -> Shared:
        parts = tuple(part.restricted(mine) for part, mine in zip(self.parts, keep, strict=True))
        return replace(self, parts=parts)

    def overload(self) -> Shared:
        """The question by how much, relative to its ceiling, the worst hard row is exceeded at the least."""
        hard = self.level == 0
        parts = tuple(replace(part, weight=np.zeros(part.weight.size)) for part in self.parts)
        return Shared(
            parts, self.rows, np.where(hard, self.ceilings, math.inf), np.where(hard, self.units, 0.0)
        )

    @functools.cached_property
    def units(self) -> FloatArray:
        """A size of each row: its ceiling, or the largest load where that is 0."""
        largest = np.max([abs(part.loads).max(axis=1).toarray().ravel() for part in self.parts], axis=0)
        sizes = np.where(self.ceilings == 0, largest, np.abs(self.ceilings))
        return np.where(sizes == 0, 1.0, sizes)

    def most(self, level: float) -> FloatArray:
        """What each row may come to where the level is at most so much."""
        allowed = np.zeros(self.level.size)
        allowed[self.level > 0] = self.level[self.level > 0] * level
        return self.ceilings + allowed

    def fitting(self, level: float = math.inf) -> list[BoolArray]:
        """By part, marks the arcs that fit within each row: with the least that a path through them adds to it,
        and the least that the other parts do."""
        keep = [np.ones(part.graph.arcs, dtype=bool) for part in self.parts]
        for row, most in enumerate(self.most(level) * (1 + ROUNDING)):
            loads = [part.by_row[[row]].toarray().ravel() for part in self.parts]
            if not math.isfinite(most) or min(load.min(initial=0.0) for load in loads) < 0:
                continue
            # Hops can nearly always be avoided, so for links the arc's own load tells as much.
            device = "->" not in self.rows[row].item
            through = [
                part.graph.through(load) if device and load.any() else load
                for part, load in zip(self.parts, loads, strict=True)
            ]
            least = [float(each.min(initial=math.inf)) for each in through]
            for mine, each, own in zip(keep, through, least, strict=True):
                mine &= each <= most - (sum(least) - own)
        return keep

    def used(self, paths: Paths) -> FloatArray:
        pairs = zip(self.parts, paths, strict=True)
        total: FloatArray = np.sum([part.used(arcs) for part, arcs in pairs], axis=0)
        return total

    def value(self, paths: Paths) -> float:
        """The sum of weights, or the level."""
        if self.balanced:
            return float(self.used(paths)[self.level > 0].max())
        return math.fsum(float(part.weight[arcs].sum()) for part, arcs in zip(self.parts, paths, strict=True))

    def kept(self, paths: Paths) -> bool:
        """Whether the paths keep every hard row, and one clock on devices that must."""
        hard = self.level == 0
        if (
            self.used(paths)[hard] > self.ceilings[hard] * (1 + np.sign(self.ceilings[hard]) * ROUNDING)
        ).any():
            return False
        clocks = set()
        for part, arcs in zip(self.parts, paths, strict=True):
            numbers, names = part.problem.clock[arcs], part.clocks()
            clocks |= {names[number] for number in numbers[numbers >= 0]}
        return len({device for device, _ in clocks}) == len(clocks)


def _shared_rows(
    fleet: Fleet,
    problems: Sequence[Problem],
    rates_per_s: Sequence[float],
    max_utilisation: float,
    memory: bool,
) -> list[tuple[Resource, dict[int, Entry]]]:
    """The rows that several parts add to, and by part the arcs that do."""
    busy = [_busy(problem.graph) for problem in problems]
    names = [device.name for device in fleet.devices] + ["->".join(link.pair) for link in fleet.links]
    found: list[tuple[Resource, dict[int, Entry]]] = []
    for name in names:
        by_part = {
            place: (arcs[name][0], arcs[name][1] * rates_per_s[place])
            for place, arcs in enumerate(busy)
            if name in arcs
        }
        if by_part:
            found.append((Resource(UTILISATION, name, "", max_utilisation), by_part))
    for device in fleet.devices if memory else ():
        most = memory_ceiling(fleet, Limits(), device.name)
        if math.isfinite(most) and len(problems) > 1:
            taken = {place: _memory(problem.graph, device.name) for place, problem in enumerate(problems)}
            found.append((Resource("max_memory_bytes", device.name, "bytes", most), taken))
    return found


def _busy(graph: Graph) -> dict[str, Entry]:
    """By device and link, the arcs that keep it busy, and for how many seconds."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for arc in np.flatnonzero(graph.hop >= 0).tolist():
        for name, time in busy_s(graph.model.fleet, (), [graph.hops[graph.hop[arc]]]).items():
            arcs, times = found.setdefault(name, ([], []))
            arcs.append(arc)
            times.append(time)
    entries = {name: (np.array(arcs), np.array(times)) for name, (arcs, times) in found.items()}
    for place, device in enumerate(graph.model.fleet.devices):
        mine = np.flatnonzero(graph.device == place)
        if mine.size:
            more = entries.get(device.name, (np.zeros(0, dtype=np.int64), np.zeros(0)))
            computing = graph.weight["latency"][mine]
            entries[device.name] = np.concatenate([mine, more[0]]), np.concatenate([computing, more[1]])
    return entries


def _memory(graph: Graph, device: str) -> Entry:
    names = [each.name for each in graph.model.fleet.devices]
    mine = np.flatnonzero(graph.device == names.index(device))
    return mine, graph.model.memory_bytes[graph.way[mine], graph.start[mine], graph.stop[mine]]


def _loads(entries: Sequence[dict[int, Entry]], place: int, arcs: int) -> csc_array:
    mine = [(row, *by_part[place]) for row, by_part in enumerate(entries) if place in by_part]
    rows = np.concatenate([np.zeros(0, int), *(np.full(each.size, row) for row, each, _ in mine)])
    columns = np.concatenate([np.zeros(0, int), *(each for _, each, _ in mine)])
    values = np.concatenate([np.zeros(0), *(each for *_, each in mine)])
    loads: csc_array = coo_array((values, (rows, columns)), shape=(len(entries), arcs)).tocsc()
    return loads
