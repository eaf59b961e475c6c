"""The best plans for several streams on one fleet, with their proof."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pulp.constants import VERSION

from planner.codec_table import CodecName
from planner.cost import ROUNDING, CostModel
from planner.errors import (
    EdgecutError,
    InfeasibleError,
    InputError,
    OverloadError,
    PlanningError,
    SolverError,
)
from planner.fleet import Fleet
from planner.fleet_plan import FleetPlan, Share, Stream, check_names, check_rate, utilisation
from planner.graph import IntArray
from planner.joint import Choice, choose
from planner.limits import Criterion, Limits, Objective
from planner.origin import Origin
from planner.plan import Outcome, Plan, Proof
from planner.pricing import priced
from planner.problem import Problem
from planner.search import search
from planner.shared import UTILISATION, Shared
from planner.solver import AGREEMENT, NO_LIMITS, value_of, weights_of
from planner.table import ProfileTable


@dataclass(frozen=True)
class Demand:
    """A stream to plan for: ``rate_per_s`` requests of ``batch`` samples of the table's model.

    ``weight``: what its objective counts in the sum. ``source``, ``sink``: where its inputs start and its
    outputs end, the fleet's unless given. The others as in ``planner.solver.solve``.
    """

    name: str
    table: ProfileTable
    rate_per_s: float
    objective: Objective | Mapping[Criterion, float] = "latency"
    weight: float = 1.0
    limits: Limits = NO_LIMITS
    source: str | None = None
    sink: str | None = None
    batch: int | None = None
    statistic: str = "mean"
    codecs: Sequence[CodecName] | None = None

    def __post_init__(self) -> None:
        check_rate(self.name, self.rate_per_s, self.weight)


@dataclass(frozen=True, eq=False)
class _Stream:
    """A demand on its fleet: prices, problem, and what a unit of each criterion weighs."""

    demand: Demand
    fleet: Fleet
    model: CostModel
    problem: Problem
    weights: dict[Criterion, float]
    notes: tuple[str, ...]


def solve_many(
    fleet: Fleet,
    demands: Sequence[Demand],
    *,
    max_utilisation: float = 1.0,
    balanced: bool = False,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> FleetPlan:
    """A plan for each demand, such that no device or link is busy more than ``max_utilisation`` of the time and
    the devices' memory holds all stages; the weighted sum of the demands' objectives is least, or the largest
    utilisation where ``balanced``.

    The proof holds the bound and the gap where time did not suffice. Raises ``InputError`` for demands that
    cannot be used, ``PlanningError`` as ``solve`` does, with the demand's name, ``InfeasibleError`` where no plans
    fit, with what is overloaded and the share of the rates that can be served, and ``SolverError``.
    """
    if not 0 < max_utilisation <= 1:
        raise InputError(f"max_utilisation is {max_utilisation}", "give a share above 0 and at most 1")
    try:
        check_names(demand.name for demand in demands)
    except ValueError as error:
        raise InputError(str(error), "give each stream a name of its own") from None
    begun = time.perf_counter()
    streams = [_prepared(fleet, demand) for demand in demands]
    question = _question(fleet, streams, max_utilisation, balanced=balanced)
    built = time.perf_counter()
    try:
        found = choose(question, time_limit_s=time_limit_s, solver=solver)
    except InfeasibleError:
        _explain(fleet, streams, max_utilisation, time_limit_s, solver)
        raise
    if balanced and found.value > max_utilisation * (1 + AGREEMENT):
        raise _overloaded(question, found, max_utilisation)
    found.phases_s = {"build": built - begun, **found.phases_s}
    return _document(fleet, streams, question, found, max_utilisation, solver)


def _prepared(fleet: Fleet, demand: Demand) -> _Stream:
    with _named(demand):
        source, sink = demand.source or fleet.source, demand.sink or demand.source or fleet.sink
        own = replace(fleet, source=fleet.device(source).name, sink=fleet.device(sink).name)
        weights = weights_of(demand.objective)
        if not weights:
            raise InputError(
                "a stream's objective is no period", "minimise the largest utilisation: balanced"
            )
        model, notes = priced(
            demand.table.chain, own, demand.table, demand.objective, demand.limits,
            demand.batch, demand.codecs, demand.statistic,
        )  # fmt: skip
        problem = Problem.of(model, demand.limits)
        if not math.isfinite(problem.graph.ahead(problem.weight(weights))[problem.graph.last]):
            raise PlanningError(
                "the bundles that the devices can run do not join into a whole network",
                "profile another backend or precision too, or loosen where layers may run",
            )
    return _Stream(demand, own, model, problem, weights, notes)


def _question(
    fleet: Fleet, streams: Sequence[_Stream], max_utilisation: float, *, balanced: bool, memory: bool = True
) -> Shared:
    return Shared.of(
        fleet,
        [each.problem for each in streams],
        [each.problem.weight(each.weights) * each.demand.weight for each in streams],
        [each.demand.rate_per_s for each in streams],
        max_utilisation=max_utilisation,
        balanced=balanced,
        memory=memory,
    )


def _document(
    fleet: Fleet, streams: Sequence[_Stream], question: Shared, found: Choice, most: float, solver: str
) -> FleetPlan:
    """The plans, priced anew, with what is proven of them."""
    name = f"{'CBC' if solver == 'cbc' else solver} (PuLP {VERSION})"
    shares = tuple(
        Stream(
            each.demand.name,
            each.demand.rate_per_s,
            each.demand.weight,
            (Share(_plan(each, arcs, name), 1.0),),
        )
        for each, arcs in zip(streams, found.paths, strict=True)
    )
    table = utilisation(shares)
    busiest = max(sum(by_stream.values()) for by_stream in table.values())
    value = busiest
    if not question.balanced:
        value = math.fsum(
            stream.weight * value_of(stream.shares[0].plan.cost, each.weights)
            for stream, each in zip(shares, streams, strict=True)
        )
    if not math.isclose(value, found.value, rel_tol=AGREEMENT, abs_tol=1e-12):
        raise SolverError(f"the plans cost {value} when priced anew, but {found.value} by the solver's sum")
    if busiest > most * (1 + AGREEMENT) and not question.balanced:
        raise SolverError(
            f"the solver's plans keep a device or link busy {busiest} of the time, above {most}"
        )
    wanted = "largest utilisation" if question.balanced else " + ".join(map(_objective, streams))
    bound = min(found.bound, value)
    proof = Proof(
        name, found.outcome, wanted, value, bound, (value - bound) / value if value else 0.0,
        question.arcs, found.arcs_after, found.phases_s, "priced anew: the same value and utilisation",
    )  # fmt: skip
    notes = tuple(dict.fromkeys(f"{each.demand.name}: {note}" for each in streams for note in each.notes))
    return FleetPlan(fleet, most, shares, table, proof, notes)


def _objective(stream: _Stream) -> str:
    weighed = " + ".join(
        f"{factor * stream.demand.weight:g} {name}" for name, factor in stream.weights.items()
    )
    return f"{weighed} of {stream.demand.name}"


def _plan(stream: _Stream, arcs: IntArray, solver: str) -> Plan:
    """One stream's own plan. Its bound is what the stream would need without limits and without the others."""
    demand, graph = stream.demand, stream.problem.graph
    stages, hops = graph.decode(arcs)
    cost = stream.model.price(stages, hops)
    value = value_of(cost, stream.weights)
    bound = min(float(graph.ahead(stream.problem.weight(stream.weights))[graph.last]), value)
    proof = Proof(
        solver, Outcome.OPTIMAL if bound == value else Outcome.FEASIBLE,
        demand.objective if isinstance(demand.objective, str) else "weighted sum", value, bound,
        (value - bound) / value if value else 0.0, graph.arcs, graph.arcs, {},
        "part of the plans of a fleet; the bound is this stream's own without limits",
        stream.weights, demand.statistic,
    )  # fmt: skip
    known = demand.table.recipes
    recipes = {stage.device: known[stage.device] for stage in stages if stage.device in known}
    return Plan(
        demand.table.chain, stream.fleet, stream.model.batch, demand.limits, stages, hops, cost, proof,
        notes=stream.notes, recipes=recipes, origin=Origin.of(demand.table.files, demand.codecs),
    )  # fmt: skip


def _explain(fleet: Fleet, streams: Sequence[_Stream], most: float, time_limit_s: float, solver: str) -> None:
    """Raise why no plans keep the limits: a stream's own, the time of devices and links, or their memory."""
    for each in streams:
        alone = _question(each.fleet, [each], most, balanced=True)
        try:
            choose(alone, time_limit_s=time_limit_s, solver=solver)
        except InfeasibleError:
            with _named(each.demand):
                search(each.problem, each.weights, time_limit_s=time_limit_s, solver=solver)
    question = _question(fleet, streams, most, balanced=True)
    try:
        raise _overloaded(question, choose(question, time_limit_s=time_limit_s, solver=solver), most)
    except InfeasibleError as error:
        if isinstance(error, OverloadError):
            raise
    without = _question(fleet, streams, most, balanced=True, memory=False)
    choose(without, time_limit_s=time_limit_s, solver=solver)
    limited = [device.name for device in fleet.devices if device.memory_bytes is not None]
    raise InfeasibleError(
        f"the stages of all streams together do not fit the memory of {', '.join(limited)}",
        "raise memory_bytes in the fleet, or leave out a stream",
    )


def _overloaded(question: Shared, found: Choice, most: float) -> OverloadError:
    """``found``: the plans of least largest utilisation."""
    used = question.used(found.paths)
    names = [
        row.item
        for row, value in zip(question.rows, used, strict=True)
        if row.limit == UTILISATION and value >= found.value * (1 - AGREEMENT)
    ]
    factor, at_most = most / found.value, most / found.bound if found.bound > 0 else math.inf
    served = f"{math.floor(factor * 1e4 * (1 + ROUNDING)) / 1e4:g}"
    if found.outcome is not Outcome.OPTIMAL:
        served += f" (found in time; no more than {at_most:.4g} is possible)"
    return OverloadError(
        f"the demand is above capacity: at best {', '.join(names)} would be busy {found.value * 100:.1f} % of the "
        f"time, and {most * 100:g} % is allowed",
        f"multiply every rate by {served}, add a device, or profile a faster variant",
    )


@contextmanager
def _named(demand: Demand) -> Iterator[None]:
    """Errors say which stream they are about."""
    try:
        yield
    except EdgecutError as error:
        error.message = f"{demand.name}: {error.message}"
        raise
