"""At which bandwidths, or loads of a device, the optimum changes, and what it is in between.

Times over a link are bytes / bandwidth, so what a plan costs is a straight line in 1 / bandwidth; likewise in the
factor by which a load stretches a device's computing. The least of straight lines is concave, with a break point
wherever another plan takes over. All are found by halving (Eisner and Severance 1976): where the lines of the two
ends meet, solve; if nothing is below that point, it is the only break point between them, else the new plan parts
the interval in two. A limit that itself moves with the parameter takes plans away on the way, so then nothing of
this holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.chain import Bundle
from planner.cost import CostModel
from planner.errors import InputError, PlanningError, SolverError, UnknownNameError
from planner.fleet import Fleet
from planner.graph import IntArray
from planner.limits import Criterion, Limits, Placement
from planner.plan import Cost, Hop, Outcome, Stage
from planner.problem import Problem
from planner.search import search
from planner.solver import NO_LIMITS, value_of

# Relative; values of one plan, taken from its line and priced, differ by less.
_SAME = 1e-9


@dataclass(frozen=True)
class Bandwidth:
    """``links`` (source, target) scaled together; the parameter is the bandwidth of the first, in bytes per second."""

    links: tuple[tuple[str, str], ...]

    @staticmethod
    def of(fleet: Fleet, names: list[str]) -> Bandwidth:
        """``a->b`` each, or ``all``, of which the slowest is the parameter. Raises ``UnknownNameError``."""
        known = {"->".join(link.pair): link for link in fleet.links}
        if "all" in names:
            by_speed = sorted(fleet.links, key=lambda link: link.bandwidth_bytes_per_s)
            if not by_speed:
                raise InputError("the fleet has no links", "add one")
            return Bandwidth(tuple(link.pair for link in by_speed))
        for name in names:
            if name not in known:
                raise UnknownNameError("link", name, [*known, "all"])
        return Bandwidth(tuple(known[name].pair for name in dict.fromkeys(names)))

    def __str__(self) -> str:
        others = f", {len(self.links) - 1} more in proportion" if len(self.links) > 1 else ""
        return f"bandwidth of {'->'.join(self.links[0])}{others}"

    def now(self, fleet: Fleet) -> float:
        link = fleet.link(*self.links[0])
        assert link is not None
        return link.bandwidth_bytes_per_s

    def at(self, model: CostModel, value: float) -> CostModel:
        factor = value / self.now(model.fleet)
        links = tuple(
            replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * factor)
            if link.pair in self.links
            else link
            for link in model.fleet.links
        )
        return replace(model, fleet=replace(model.fleet, links=links))

    def slope(self, value: float) -> float:
        """In what costs are straight lines."""
        return 1 / value

    def moves(self, limits: Limits) -> list[str]:
        """The limits on what changes with it."""
        return _set(limits, ("max_latency_s", "max_energy_j", "max_period_s", "max_share"))


@dataclass(frozen=True)
class Load:
    """The parameter is the factor by which a ``device`` computes more slowly than was measured; the energy of its
    computing grows alike. What it encodes and decodes keeps its time."""

    device: str

    @staticmethod
    def of(fleet: Fleet, name: str) -> Load:
        return Load(fleet.device(name).name)

    def __str__(self) -> str:
        return f"load of {self.device}"

    def now(self, fleet: Fleet) -> float:
        return 1.0

    def at(self, model: CostModel, value: float) -> CostModel:
        mine = np.array([value if way.device == self.device else 1.0 for way in model.ways]).reshape(-1, 1, 1)
        return replace(model, latency_s=model.latency_s * mine, energy_j=model.energy_j * mine)

    def slope(self, value: float) -> float:
        return value

    def moves(self, limits: Limits) -> list[str]:
        return _set(limits, ("max_latency_s", "max_energy_j", "max_period_s", "max_share", "max_price"))


def _set(limits: Limits, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(limits, name) not in (None, {})]


Parameter = Bandwidth | Load


@dataclass(frozen=True)
class Interval:
    """``low`` to ``high`` of the parameter: one plan, what it costs at both ends, and its objective there."""

    low: float
    high: float
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    costs: tuple[Cost, Cost]
    values: tuple[float, float]
    proven: bool

    @property
    def name(self) -> str:
        """Such as ``edge [0, 3) > server [3, 8)``."""
        return " > ".join(f"{stage.device} {stage.bundle}" for stage in self.stages)


@dataclass(frozen=True)
class _Line:
    """A plan and its objective, from ``slope`` of the parameter."""

    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    base: float
    rise: float
    proven: bool

    def at(self, slope: float) -> float:
        return self.base + self.rise * slope

    def same(self, other: _Line) -> bool:
        return (self.stages, self.hops) == (other.stages, other.hops) or (
            math.isclose(self.base, other.base, rel_tol=_SAME)
            and math.isclose(self.rise, other.rise, rel_tol=_SAME)
        )


def break_even(
    model: CostModel,
    parameter: Parameter,
    low: float,
    high: float,
    *,
    weights: Mapping[Criterion, float],
    limits: Limits = NO_LIMITS,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> tuple[Interval, ...]:
    """The optimum everywhere from ``low`` to ``high`` of the parameter, by intervals in rising order.

    ``weights``: of latency, energy, price, ...; the objective is their sum. Raises ``InputError`` for a range that is
    none, ``PlanningError`` for a limit on what the parameter changes, and as ``search``.
    """
    if not 0 < low < high < math.inf:
        raise InputError(
            f"a range from {low:g} to {high:g}", "give two ends, the first above 0 and below the second"
        )
    moving = parameter.moves(limits)
    if moving:
        raise PlanningError(
            f"{', '.join(moving)} keeps other plans at each value of the parameter, so break points do not follow",
            "leave it out and give both criteria weights, or solve at the values of interest",
        )
    ends = parameter.at(model, low), parameter.at(model, high)

    def line(value: float) -> _Line:
        """The optimum at one value, as a function of the parameter."""
        problem = Problem.of(parameter.at(model, value), limits)
        arcs, proven = _least(problem, dict(weights), time_limit_s, solver)
        stages, hops = problem.graph.decode(arcs)
        values = [value_of(end.price(stages, hops), weights) for end in ends]
        slopes = [parameter.slope(each) for each in (low, high)]
        rise = (values[1] - values[0]) / (slopes[1] - slopes[0])
        return _Line(stages, hops, values[0] - rise * slopes[0], rise, proven)

    def cost(line: _Line, value: float) -> Cost:
        return parameter.at(model, value).price(line.stages, line.hops)

    return tuple(
        Interval(
            *(start, stop, each.stages, each.hops, (cost(each, start), cost(each, stop))),
            *((each.at(parameter.slope(start)), each.at(parameter.slope(stop))), proven),
        )
        for each, start, stop, proven in _lower_envelope(line, parameter.slope, low, high)
    )


def alone(
    model: CostModel, parameter: Parameter, low: float, high: float, *, weights: Mapping[Criterion, float]
) -> dict[str, tuple[Interval, ...]]:
    """The same with everything on one device in one bundle, for each device that can; limits do not count."""
    whole = Bundle(0, len(model.chain))
    found = {}
    for device in dict.fromkeys(way.device for way in model.ways):
        limits = Limits(pins=(Placement(device, whole, whole=True),))
        try:
            found[device] = break_even(model, parameter, low, high, weights=weights, limits=limits)
        except SolverError:
            raise
        except PlanningError:  # it cannot run all of it, or no route leads there and back
            continue
    return found


def _least(
    problem: Problem, weights: dict[Criterion, float], time_limit_s: float, solver: str
) -> tuple[IntArray, bool]:
    """The arcs of the optimum, and whether it is proven; without sums to limit, a shortest path is."""
    if not problem.resources and not problem.clock_device.size:
        arcs = problem.graph.path(problem.weight(weights))
        if arcs is not None:
            return arcs, True
    found = search(problem, weights, time_limit_s=time_limit_s, solver=solver)
    return found.arcs, found.outcome is Outcome.OPTIMAL


def _lower_envelope(
    line: Callable[[float], _Line], slope: Callable[[float], float], low: float, high: float
) -> list[tuple[_Line, float, float, bool]]:
    """The least of all lines over low..high: line, where it starts and stops, whether that is proven.

    ``line`` gives the least at a value, ``slope`` what it is straight in (and, of that, the value).
    """
    found: list[tuple[_Line, float, float, bool]] = []

    def add(each: _Line, start: float, stop: float, proven: bool) -> None:
        if found and found[-1][0].same(each):
            _, start, _, before = found.pop()
            proven = proven and before
        found.append((each, start, stop, proven))

    def between(left: _Line, start: float, right: _Line, stop: float) -> None:
        ends, proven = (slope(start), slope(stop)), left.proven and right.proven
        # Concave, so what is least at both ends is least between them.
        if right.at(ends[0]) <= left.at(ends[0]) * (1 + _SAME):
            add(right, start, stop, proven)
        elif left.at(ends[1]) <= right.at(ends[1]) * (1 + _SAME):
            add(left, start, stop, proven)
        else:
            meet = slope((right.base - left.base) / (left.rise - right.rise))
            middle = line(meet)
            if middle.at(slope(meet)) >= left.at(slope(meet)) * (1 - _SAME):
                add(left, start, meet, proven and middle.proven)
                add(right, meet, stop, proven and middle.proven)
            else:
                between(left, start, middle, meet)
                between(middle, meet, right, stop)

    between(line(low), low, line(high), high)
    return found
