"""The question that a plan answers, asked again: with arcs left out, other limits or other prices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.cost import CostModel, FloatArray
from planner.dual import Dual
from planner.errors import InfeasibleError
from planner.fleet import Fleet
from planner.graph import BoolArray, Graph, IntArray
from planner.limits import Criterion, Limits
from planner.placement import without
from planner.plan import Baseline, Hop, Outcome, Stage, described
from planner.problem import Problem
from planner.search import search

# Relative difference up to which two plans cost the same.
EQUAL = 1e-9

_ROUNDS = 200  # of looking for better multipliers
# Of the optimum: what the best of some paths is tried to weigh at most.
_GUESSES = (1.01, 1.05, 1.25)


@dataclass(frozen=True, eq=False)
class Found:
    """A path: its ``arcs`` in the graph it was found in, and whether it is proven to be the lightest."""

    arcs: IntArray
    value: float
    proven: bool = True


@dataclass(frozen=True, eq=False)
class Question:
    """A problem with its best path ``best``. ``fleet`` is the whole fleet, excluded links included."""

    model: CostModel
    fleet: Fleet
    limits: Limits
    weights: dict[Criterion, float]
    problem: Problem
    best: Found
    time_limit_s: float
    solver: str

    @staticmethod
    def of(
        model: CostModel,
        fleet: Fleet,
        limits: Limits,
        weights: dict[Criterion, float],
        *,
        prefer: Callable[[Graph], IntArray | None],
        time_limit_s: float = 60.0,
        solver: str = "cbc",
    ) -> Question:
        """``prefer``: a path that is taken for the best if none is better. Raises as ``search``."""
        problem = Problem.of(model, limits)
        found = search(problem, weights, time_limit_s=time_limit_s, solver=solver)
        value = float(problem.weight(weights)[found.arcs].sum())
        best = Found(found.arcs, value, found.outcome is Outcome.OPTIMAL)
        wanted = prefer(problem.graph)
        if wanted is not None and problem.kept(wanted):
            asked = float(problem.weight(weights)[wanted].sum())
            if asked <= value * (1 + EQUAL):
                best = Found(wanted, asked, best.proven)
        return Question(model, fleet, limits, weights, problem, best, time_limit_s, solver)

    @functools.cached_property
    def weight(self) -> FloatArray:
        return self.problem.weight(self.weights)

    @property
    def limited(self) -> bool:
        """Whether a limit counts time, energy or price, which grow where a part is slower."""
        timed = {"max_latency_s", "max_energy_j", "max_price", "max_period_s", "max_share"}
        return any(resource.limit in timed for resource in self.problem.resources)

    @functools.cached_property
    def _dual(self) -> Dual:
        dual = Dual.of(self.problem, self.weight)
        dual.improve(_ROUNDS)
        return dual

    @property
    def prices(self) -> FloatArray:
        """The multiplier of each resource, in weight per its unit."""
        return self._dual.prices / self._dual.unit

    @functools.cached_property
    def priced(self) -> FloatArray:
        """The weight of each arc, what it uses of the limits included. Less ``spared``, a path's is a lower bound on
        what the best within the limits weighs of those that share its arcs."""
        return self._dual.priced(self._dual.prices)

    @property
    def spared(self) -> float:
        """What the limits' ceilings are worth."""
        return self._dual.credit(self._dual.prices)

    @functools.cached_property
    def through(self) -> FloatArray:
        """Of each arc what no path through it that keeps the limits undercuts."""
        through: FloatArray = self.problem.graph.through(self.priced) - self.spared
        return through

    def restricted(self, keep: BoolArray, most: float = math.inf) -> Found | None:
        """The best path over the arcs that ``keep`` marks; None where none keeps the limits, or none of at most
        ``most``."""
        path = self.problem.graph.path(np.where(keep, self.weight, np.inf))
        if path is None or self.problem.kept(path):
            return None if path is None else Found(path, float(self.weight[path].sum()))
        # What a path of at most so much can use is little; if there is one, it is the best.
        for guess in [min(each * self.best.value, most) for each in _GUESSES] if self.best.value > 0 else []:
            found = self._over(self.problem, keep & (self.through <= guess * (1 + EQUAL)))
            if guess == most or (found is not None and found.value <= guess):
                return found
        return self._over(self.problem, keep)

    def slowed(self, grows: FloatArray, factor: float) -> Found | None:
        """The best path where every arc weighs ``(factor - 1) * grows`` more; limits count as before."""
        added = (factor - 1) * grows
        path = self.problem.graph.path(self.weight + added)
        if path is None or self.problem.kept(path):
            return None if path is None else Found(path, float(self.weight[path].sum()))
        graph, (criterion, unit) = self.problem.graph, next(iter(self.weights.items()))
        dearer = {**graph.weight, criterion: graph.weight[criterion] + added / unit}
        # Slower, no path weighs less than it does now, and the best one no more than the optimum then.
        most = self.best.value + float(added[self.best.arcs].sum())
        keep = self.through <= most + EQUAL * abs(most)
        keep[self.best.arcs] = True
        return self._over(replace(self.problem, graph=replace(graph, weight=dearer)), keep)

    def _over(self, problem: Problem, keep: BoolArray) -> Found | None:
        found = self.solve(problem.restricted(keep))
        return found and replace(found, arcs=np.flatnonzero(keep)[found.arcs])

    def solve(self, problem: Problem) -> Found | None:
        """The best path of another problem; None where no path keeps its limits. The search decides only where the
        shortest path breaks a limit."""
        weight = problem.weight(self.weights)
        path = problem.graph.path(weight)
        if path is None:
            return None
        if problem.kept(path):  # the lightest of all paths; without limits, always
            return Found(path, float(weight[path].sum()))
        try:
            found = search(problem, self.weights, time_limit_s=self.time_limit_s, solver=self.solver)
        except InfeasibleError:
            return None
        return Found(found.arcs, float(weight[found.arcs].sum()), found.outcome is Outcome.OPTIMAL)

    def under(self, limits: Limits, fleet: Fleet | None = None) -> tuple[Problem, Found] | None:
        """The problem of other limits, or another fleet's links, and its best path."""
        model = replace(self.model, fleet=without(fleet or self.fleet, limits))
        problem = Problem.of(model, limits)
        found = self.solve(problem)
        return None if found is None else (problem, found)

    def better(self, value: float, than: float | None = None) -> bool:
        """Whether a value is less than another, the optimum's if not given, by more than rounding."""
        than = self.best.value if than is None else than
        return value < than - EQUAL * abs(than)

    def differs(self, graph: Graph, arcs: IntArray) -> str:
        """A path in words, as it differs from the optimum; empty where it is the optimum."""
        stages, hops = graph.decode(arcs)
        best = self.optimum
        if [each.cost for each in hops] == [each.cost for each in best.hops] and stages == best.stages:
            return ""
        return difference(stages, best.stages)

    @functools.cached_property
    def optimum(self) -> Baseline:
        stages, hops = self.problem.graph.decode(self.best.arcs)
        return Baseline("the optimum", stages, hops, self.model.price(stages, hops))


def arcs_of(graph: Graph, stages: tuple[Stage, ...], hops: tuple[Hop, ...]) -> IntArray | None:
    """The arcs of a path given by its stages and hops; None where it is no path of the graph."""
    ways = {way: place for place, way in enumerate(graph.model.ways)}
    named = {(hop.boundary, hop.route, hop.codec): place for place, hop in enumerate(graph.hops)}
    wanted: list[tuple[int, BoolArray]] = []
    for stage in stages:
        way = next((p for (device, v), p in ways.items() if (device, v) == (stage.device, stage.variant)), -2)
        match = (graph.way == way) & (graph.start == stage.bundle.start) & (graph.stop == stage.bundle.stop)
        wanted.append((2 * stage.bundle.start + 1, match))
    for hop in hops:
        place = named.get((hop.boundary, hop.route, hop.codec), -2)
        wanted.append((2 * hop.boundary, graph.hop == place))
    chosen = []
    for _, match in sorted(wanted, key=lambda part: part[0]):
        found = np.flatnonzero(match)
        if found.size != 1:
            return None
        chosen.append(int(found[0]))
    free = (graph.way < 0) & (graph.hop < 0)
    keep = free.copy()
    keep[chosen] = True
    # The free arcs between two parts are the only way from one to the other.
    path = graph.path(np.where(keep, np.where(free, 0.0, -1.0), np.inf))
    if path is None or set(chosen) - set(path.tolist()):
        return None
    return path


def difference(stages: Sequence[Stage], than: Sequence[Stage]) -> str:
    """``described``, or what else differs where devices and bundles are the same."""
    if [(s.device, s.bundle) for s in stages] != [(s.device, s.bundle) for s in than]:
        return described(stages)
    changed = [
        f"{one.variant} for {one.device} {one.bundle}"
        for one, other in zip(stages, than, strict=True)
        if one.variant != other.variant
    ]
    return ", ".join(changed) or "other hops"
