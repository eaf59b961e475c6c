"""What an active profile looks for: one objective, one under limits, or the whole latency-energy front."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from planner.active_note import ActiveObjective
from planner.active_paths import Request, Route, Router
from planner.active_state import Prices, State
from planner.conflict import explain_conflict
from planner.cost import CostModel, Way
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.limits import Criterion, Limits
from planner.plan import Cost
from planner.problem import Problem
from planner.search import search

Weights = tuple[float, float]
_WEIGHTS: dict[Criterion, Weights] = {"latency": (1.0, 0.0), "energy": (0.0, 1.0)}
# Values this close, relatively, are the same: sums in another order differ by about 1e-15.
_SAME = 1e-9
_TIME_LIMIT_S = 60.0


@dataclass(frozen=True)
class Step:
    """Value of the best measured plan and its bound, their relative gap, and what to measure next.

    ``points``: of a front, at the bounds.
    """

    value: float
    bound: float
    gap: float
    wanted: tuple[Request, ...]
    points: tuple[Cost, ...] = ()


class Goal(Protocol):
    def step(self, state: State, width: int) -> Step:
        """Where the search stands; asks for about ``width`` bundles. Raises ``PlanningError``."""

    def hopeless(self, state: State) -> list[Way]:
        """Ways that no plan would use even if bundles nothing is known of cost nothing."""


def goal_of(objective: ActiveObjective, limits: Limits, router: Router) -> Goal:
    if objective == "front":
        return Front(router)
    return Limited(objective, limits) if limits != Limits() else Single(objective, router)


@dataclass(frozen=True)
class Single:
    """The least of one objective."""

    objective: Criterion
    router: Router

    def step(self, state: State, width: int) -> Step:
        optimistic, expected = (_model(state, prices) for prices in state.foretold())
        if self.objective == "energy":
            _check_metered(optimistic)
        weights = _WEIGHTS[self.objective]
        best = self.router.route(_model(state, state.measured()), weights)
        first = route = self.router.route(optimistic, weights)
        wanted: list[Request] = []
        # What is chosen counts at its expected price while more is chosen for the same round.
        while new := [request for request in _unsettled(state, route) if request not in wanted]:
            wanted += new
            if len(wanted) >= width:
                break
            for cell in map(state.cell, new):
                optimistic.latency_s[cell] = expected.latency_s[cell]
                optimistic.energy_j[cell] = expected.energy_j[cell]
            route = self.router.route(optimistic, weights)
            if route.value >= best.value:
                break
        return Step(best.value, first.value, _gap(best.value, first.value), tuple(wanted))

    def hopeless(self, state: State) -> list[Way]:
        weights = _WEIGHTS[self.objective]
        best = self.router.route(_model(state, state.measured()), weights)
        free = self.router.route(_model(state, state.foretold()[0]), weights)
        through = free.through.min(axis=(1, 2))
        return [way for way, least in zip(state.ways, through, strict=True) if least > best.value]


@dataclass(frozen=True)
class Limited:
    """The least of one objective within limits, by the solver itself."""

    objective: Criterion
    limits: Limits

    def step(self, state: State, width: int) -> Step:
        model = _model(state, state.foretold()[0])
        if self.objective == "energy" or self.limits.max_energy_j is not None:
            _check_metered(model)
        bound, path = self._solve(model)
        wanted = [request for request in path if not state.settled(request)]
        if not wanted:
            return Step(bound, bound, 0.0, ())
        try:
            value, _ = self._solve(_model(state, state.measured()))
        except SolverError:
            raise
        except PlanningError:  # nothing measured keeps the limits yet
            value = math.inf
        return Step(value, bound, _gap(value, bound), tuple(wanted))

    def _solve(self, model: CostModel) -> tuple[float, tuple[Request, ...]]:
        problem = Problem.of(model, self.limits)
        weights: dict[Criterion, float] = {self.objective: 1.0}
        try:
            answer = search(problem, weights, time_limit_s=_TIME_LIMIT_S)
        except InfeasibleError as error:
            raise explain_conflict(model, self.limits) or error from None
        stages, _ = problem.graph.decode(answer.arcs)
        value = float(problem.weight(weights)[answer.arcs].sum())
        path = tuple((Way(stage.device, stage.variant), stage.bundle) for stage in stages)
        return min(answer.bound, value), path

    def hopeless(self, state: State) -> list[Way]:
        return []


@dataclass(frozen=True)
class Front:
    """Every plan that is best for some weighing of latency against energy.

    The weights are found by halving: between two neighbouring plans on the front, weigh so that both are
    equal, and see whether a third is better (Aneja and Nair 1979).
    """

    router: Router

    def step(self, state: State, width: int) -> Step:
        optimistic, measured = _model(state, state.foretold()[0]), _model(state, state.measured())
        _check_metered(optimistic)
        wanted: dict[Request, None] = {}
        worst = Step(math.inf, 0.0, 0.0, ())

        def sought(weights: Weights) -> tuple[Cost, float]:
            nonlocal worst
            route = self.router.route(optimistic, weights)
            best = self.router.route(measured, weights).value
            gap = _gap(best, route.value)
            if gap:
                wanted.update(dict.fromkeys(_unsettled(state, route)))
            if gap > worst.gap or not math.isfinite(worst.value):
                worst = Step(best, route.value, gap, ())
            return route.cost, route.value

        if not self.router.route(optimistic, (1.0, 0.0)).path:
            return worst
        # A little weight on the other criterion: of equals, the one that is better there.
        scale = sought((1.0, 0.0))[0]
        ratio = scale.latency_s / scale.energy_j if scale.energy_j else 1.0
        ends = [sought((1.0, 1e-6 * ratio))[0], sought((1e-6 / ratio, 1.0))[0]]
        points = set(ends)
        pairs = [(ends[0], ends[1])]
        while pairs:
            left, right = pairs.pop()
            weights = left.energy_j - right.energy_j, right.latency_s - left.latency_s
            if min(weights) <= 0:
                continue
            level = weights[0] * left.latency_s + weights[1] * left.energy_j
            point, value = sought(weights)
            if value < level * (1 - _SAME) and point not in points:
                points.add(point)
                pairs += [(left, point), (point, right)]
        ordered = tuple(sorted(points, key=lambda cost: cost.latency_s))
        return Step(worst.value, worst.bound, worst.gap, tuple(wanted), ordered)

    def hopeless(self, state: State) -> list[Way]:
        return []


def _model(state: State, prices: Prices) -> CostModel:
    return state.model.repriced(prices.latency_s, prices.metered_j)


def _check_metered(model: CostModel) -> None:
    """Refuse to minimise an energy that nothing measures."""
    if model.unmetered:
        raise PlanningError(
            f"the energy of {', '.join(model.unmetered)} is unknown: the profile has none metered",
            f"set active_power_w in [device.{model.unmetered[0]}] of the fleet",
        )


def _unsettled(state: State, route: Route) -> list[Request]:
    return [request for request in route.path if not state.settled(request)]


def _gap(value: float, bound: float) -> float:
    """By how much, relatively, a plan may be better than the best measured one."""
    if not math.isfinite(value):
        return 1.0 if math.isfinite(bound) else 0.0
    gap = (value - bound) / value if value > 0 else 0.0
    return gap if gap > _SAME else 0.0
