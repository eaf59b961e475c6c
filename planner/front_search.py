"""Every plan that no other beats in both latency and energy, within the limits.

Two phases (Ulungu and Teghem 1995). First the points that are least for some weighing, by halving: weigh so that
two neighbours are equal, and see whether a third plan is less (Aneja and Nair 1979). Between neighbours remains a
triangle; arcs through which no path can end in one are left out. Then all that is inside, by label setting, once
coarsely, for more known points and so fewer arcs, and once in full. Limits on sums are more sums of the labels; then
the coarse labels come first.
Where the labels grow too many, or devices must keep to one clock, the solver finds the weighings' points and sweeps
each triangle instead: the least latency of what needs less energy than the last point found.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from planner.cost import ROUNDING, FloatArray
from planner.errors import PlanningError, SolverError
from planner.front_dominance import TooManyLabelsError
from planner.front_labels import Open, Value, paths
from planner.front_points import hull
from planner.graph import IntArray
from planner.limits import Criterion
from planner.plan import Outcome
from planner.problem import Problem, Resource
from planner.search import Search, search

MOST_LABELS = 2_000_000
PAIR: tuple[Criterion, Criterion] = ("latency", "energy")
# The coarse labels divide the range of each criterion in so many.
_GRAINS = 300
# The finer ones keep so many at each node by what they have used up of the limits.
_CLASSES = 16


@dataclass(frozen=True, eq=False)
class Path:
    """Arcs, places in the problem's graph, and their sums of latency (s) and energy (J)."""

    arcs: IntArray
    value: Value


def non_dominated(problem: Problem, *, time_limit_s: float = 60.0, solver: str = "cbc") -> list[Path]:
    """In order of latency; of plans equal in both, one. Values closer than 1e-9, relatively, count as equal.

    ``time_limit_s``: of each call of the solver, which is needed where sums are limited. Raises as ``search``, and
    ``SolverError`` where it proved no optimum.
    """
    solve = functools.partial(search, time_limit_s=time_limit_s, solver=solver)
    whole = _Part(_binding(problem), np.arange(problem.graph.arcs), solve)
    try:
        found = [] if problem.clock_device.size else whole.by_labels()
    except TooManyLabelsError:
        found = []
    return found or whole.by_solver()


def merged(found: list[Path]) -> list[Path]:
    """Those that no other beats, by latency."""
    front: list[Path] = []
    for path in sorted(found, key=lambda path: path.value):
        if front and path.value[1] >= front[-1].value[1] * (1 - ROUNDING):
            continue
        if front and path.value[0] <= front[-1].value[0] * (1 + ROUNDING):
            front.pop()
        front.append(path)
    return front


def _binding(problem: Problem) -> Problem:
    """Without the resources that no path can use up."""
    graph = problem.graph
    most = [-graph.ahead(-_load(problem, place))[graph.last] for place in range(len(problem.resources))]
    binds = [place for place, ceiling in enumerate(problem.ceilings) if most[place] > ceiling]
    resources = tuple(problem.resources[place] for place in binds)
    return replace(problem, resources=resources, loads=problem.loads[binds])


def _load(problem: Problem, place: int) -> FloatArray:
    load: FloatArray = problem.loads[[place]].toarray().ravel()
    return load


def _values(paths: list[Path]) -> list[Value]:
    return [path.value for path in paths]


@dataclass(frozen=True, eq=False)
class _Part:
    """The problem over some of its arcs; ``kept``: their places in all of it."""

    problem: Problem
    kept: IntArray
    solve: Callable[[Problem, dict[Criterion, float]], Search]

    @functools.cached_property
    def free(self) -> bool:
        """No limit is left, so that a lightest path is the optimum."""
        return not self.problem.resources and not self.problem.clock_device.size

    @property
    def weights(self) -> tuple[FloatArray, FloatArray]:
        return self.problem.graph.weight[PAIR[0]], self.problem.graph.weight[PAIR[1]]

    @functools.cached_property
    def through(self) -> tuple[FloatArray, FloatArray]:
        graph = self.problem.graph
        return graph.through(self.weights[0]), graph.through(self.weights[1])

    def path(self, arcs: IntArray) -> Path:
        one, other = (float(weight[arcs].sum()) for weight in self.weights)
        return Path(self.kept[arcs], (one, other))

    def by_labels(self) -> list[Path]:
        """The front; empty where there is no path. Raises ``TooManyLabelsError``."""
        if not np.isfinite(self.through[0]).any():
            return []
        ends = self._relaxed(0), self._relaxed(1)
        ranges = np.maximum(np.ptp(_values([*ends]), axis=0), 0.01 * np.max(_values([*ends]), axis=0))
        if self.free and ends[1].value[1] >= ends[0].value[1] * (1 - ROUNDING):
            return [ends[0]]
        corners = self.supported(ends) if self.free else []
        found = corners
        for classes in (1, None) if self.free else (1, _CLASSES, None):  # ever more finely, None in full
            if not self.free and found:
                corners = [found[place] for place in sorted(hull(np.array(_values(found))))]
            where = Open.between(_values(corners), _values(found), beyond=not self.free)
            part = self.inside(where)
            grain = None if classes is None else part.grain(ranges, classes)
            found = merged(found + part.labelled(where, grain))
        return found

    def by_solver(self) -> list[Path]:
        """The front, each point found and proved by the solver."""
        one, other = (self.path(self._proven(self.problem, {name: 1.0})) for name in PAIR)
        if other.value[1] >= one.value[1] * (1 - ROUNDING):
            return [one]
        corners = self.supported((one, other))
        return merged(corners + self.swept(corners))

    def inside(self, where: Open) -> _Part:
        """The arcs that may be part of a new point within the limits."""
        graph = self.problem.graph
        keep = where.reached(*self.through, lambda cell: graph.through(cell.weigh(*self.weights)))
        for place, ceiling in enumerate(self.problem.ceilings):
            keep &= graph.through(_load(self.problem, place)) <= ceiling
        return _Part(self.problem.restricted(keep), self.kept[keep], self.solve)

    def _relaxed(self, criterion: int) -> Path:
        """The least in one criterion and, of those, in the other, whatever the limits."""
        through = self.through[criterion]
        tight = through <= through.min() * (1 + 1e-12)
        arcs = self.problem.graph.restricted(tight).path(self.weights[1 - criterion][tight])
        assert arcs is not None
        return self.path(np.flatnonzero(tight)[arcs])

    def supported(self, ends: tuple[Path, Path]) -> list[Path]:
        """The points from end to end that are least for some weighing, in order."""
        found = list(ends)
        part = self.inside(Open.between(_values(found), _values(found)))
        pairs = deque([ends])
        while pairs:
            left, right = pairs.popleft()
            (one, other), (third, fourth) = left.value, right.value
            weights = other - fourth, third - one
            arcs = part._least(weights)
            if arcs is None:
                continue
            middle = part.path(arcs)
            value, level = (
                weights[0] * each[0] + weights[1] * each[1] for each in (middle.value, left.value)
            )
            between = one < middle.value[0] < third and other > middle.value[1] > fourth
            if value < level * (1 - ROUNDING) and between:
                found.append(middle)
                pairs += [(left, middle), (middle, right)]
        return sorted(found, key=lambda path: path.value)

    def _least(self, weights: Value) -> IntArray | None:
        """A path that is least in this weighing; None where there is none."""
        if self.free:
            return self.problem.graph.path(weights[0] * self.weights[0] + weights[1] * self.weights[1])
        return self._maybe(self.problem, dict(zip(PAIR, weights, strict=True)))

    def grain(self, ranges: FloatArray, classes: int) -> FloatArray:
        """Of the criteria and of the limited sums: what coarse labels take for equal."""
        most = np.abs(self.problem.ceilings)
        grain = np.append(ranges / _GRAINS, most / int(classes ** (1 / max(most.size, 1))))
        return np.where(grain > 0, grain, 1.0)

    def labelled(self, where: Open, grain: FloatArray | None) -> list[Path]:
        """What is open, by label setting; with a ``grain`` some of it, quickly."""
        costs = np.concatenate([np.array(self.weights), self.problem.loads.toarray()])
        most = MOST_LABELS if self.free else MOST_LABELS // 4  # comparing more sums takes longer
        found = paths(self.problem.graph, costs, self.problem.ceilings, where, most, grain)
        return [self.path(arcs) for arcs in found]

    def swept(self, corners: list[Path]) -> list[Path]:
        """What lies between the corners, each found by the solver: the least latency below an energy."""
        found = []
        for pair in itertools.pairwise(corners):
            part = self.inside(Open.between(_values([*pair]), _values([*pair])))
            last = pair[0]
            while True:
                below = Resource("max_energy_j", "", "J", last.value[1] * (1 - 2 * ROUNDING))
                arcs = part._maybe(part.problem.also(below, part.weights[1]), {PAIR[0]: 1.0})
                if arcs is None:
                    break
                last = part.path(arcs)
                found.append(last)
        return found

    def _maybe(self, problem: Problem, weights: dict[Criterion, float]) -> IntArray | None:
        try:
            return self._proven(problem, weights)
        except SolverError:
            raise
        except PlanningError:  # no path is left
            return None

    def _proven(self, problem: Problem, weights: dict[Criterion, float]) -> IntArray:
        answer = self.solve(problem, weights)
        if answer.outcome is not Outcome.OPTIMAL:
            problem_text = "the solver proved no optimum in time, so the front is not known"
            raise SolverError(problem_text, "give it more time, or fewer limits")
        return answer.arcs
