"""The pipeline of least period when several devices may run one stage by turns.

The dynamic programme of `planner.replica_stages` says which devices run which stage. How requests are dealt out
over them is a linear programme: every request takes one ordinary plan through the stages, and the shares of the
plans keep every device and link within the period (`planner.path_columns`); of equal period, the least mean latency.
The bound holds for all ways of dealing requests out over plans, or is the dynamic programme's where that is higher.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.chain import Bundle
from planner.codec_table import CodecName
from planner.cost import ROUNDING, CostModel
from planner.errors import InputError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.fleet_plan import FleetPlan, Share, Stream, utilisation
from planner.graph import BoolArray, Graph, IntArray
from planner.origin import Origin
from planner.path_columns import PathColumns
from planner.period import period_s
from planner.placement import memory_ceiling
from planner.plan import Outcome, Plan, Proof
from planner.pricing import priced
from planner.problem import Problem
from planner.replica_stages import Stages, Times, best_stages
from planner.shared import Shared
from planner.solver import AGREEMENT, NO_LIMITS
from planner.table import ProfileTable

_ROUNDS = 400
# Shares below this are rounding.
_SMALLEST = 1e-7


def replicate(
    fleet: Fleet,
    table: ProfileTable,
    *,
    max_replicas: int | None = None,
    batch: int | None = None,
    statistic: str = "mean",
    codecs: Sequence[CodecName] | None = None,
) -> FleetPlan:
    """Stages, each on one or more devices, of least period: one stream at the highest rate, dealt out over plans.

    A device runs one stage at most, in its fastest variant. ``max_replicas``: of a stage. The others as in
    ``planner.solver.solve``. The proof is optimal where the devices of every stage are alike, and wherever else
    the bound is met. Raises ``InputError`` and ``PlanningError`` as ``solve`` does.
    """
    if max_replicas is not None and max_replicas < 1:
        raise InputError(f"max_replicas is {max_replicas}", "give 1 or more")
    begun = time.perf_counter()
    model, notes = priced(table.chain, fleet, table, "latency", NO_LIMITS, batch, codecs, statistic)
    problem = Problem.of(model, NO_LIMITS)
    built = time.perf_counter()
    found = pipeline(problem, max_replicas)
    found.phases_s = {"build": built - begun, **found.phases_s}
    if found.replicas is not None:
        notes += (
            f"the search allowed at most {found.replicas} replicas of a stage: there are too many devices",
        )
    return _document(fleet, table, found, statistic, notes, Origin.of(table.files, codecs))


@dataclass(eq=False)
class Pipeline:
    """Paths (in ``problem``, which holds the arcs of the stages only) and the share of the requests that takes each.

    ``bound``: no pipeline has a lesser period. ``replicas``: None where as many were tried as asked for.
    """

    problem: Problem
    shares: list[tuple[IntArray, float]]
    period_s: float
    bound: float
    replicas: int | None
    arcs: int
    phases_s: dict[str, float]


def pipeline(problem: Problem, max_replicas: int | None = None) -> Pipeline:
    """Stages and shares of least period. Raises ``PlanningError`` where no stages lead to the sink."""
    begun = time.perf_counter()
    found = best_stages(Times.of(problem.graph.model), max_replicas)
    if not found.stages:
        raise PlanningError(
            "no stages lead from the source to the sink, each on devices of its own",
            "profile another backend or precision too, or raise memory_bytes in the fleet",
        )
    staged = time.perf_counter()
    mixtures = []
    for stages in found.stages:
        kept = problem.restricted(_through(problem.graph, stages))
        mixtures.append((_mixture(kept), kept))
        if mixtures[-1][0].value <= found.bound * (1 + AGREEMENT):
            break
    best, kept = min(mixtures, key=lambda each: each[0].value)
    shares = _shares(kept, best)
    dealt = time.perf_counter()
    bound = max(_mixture(problem).bound, found.bound if found.complete else 0.0)
    phases = {"stages": staged - begun, "shares": dealt - staged, "bound": time.perf_counter() - dealt}
    replicas = None if found.complete else found.replicas
    return Pipeline(kept, shares, best.value, bound, replicas, problem.graph.arcs, phases)


def _through(graph: Graph, stages: Stages) -> BoolArray:
    """Marks the arcs that run these stages, each device in its fastest variant, and those that join them."""
    model, fleet = graph.model, graph.model.fleet
    keep = (graph.way < 0) & (graph.hop < 0)
    ends = {0: ((fleet.source,), stages[0][1]), len(model.chain): (stages[-1][1], (fleet.sink,))}
    for (_, devices), (bundle, following) in itertools.pairwise(stages):
        ends[bundle.start] = devices, following
    joins = [
        hop.boundary in ends
        and hop.route[0] in ends[hop.boundary][0]
        and hop.route[-1] in ends[hop.boundary][1]
        for hop in graph.hops
    ]
    keep |= (graph.hop >= 0) & np.array([*joins, False])[graph.hop]
    for bundle, devices in stages:
        for device in devices:
            ways = [place for place, way in enumerate(model.ways) if way.device == device]
            fits = [_time_s(model, way, bundle) for way in ways]
            way = ways[int(np.argmin(fits))]
            keep |= (graph.way == way) & (graph.start == bundle.start) & (graph.stop == bundle.stop)
    return keep


def _time_s(model: CostModel, way: int, bundle: Bundle) -> float:
    """Seconds of a bundle; inf where it does not fit the memory."""
    place = way, bundle.start, bundle.stop
    most = memory_ceiling(model.fleet, NO_LIMITS, model.ways[way].device)
    return float(model.latency_s[place]) if model.memory_bytes[place] <= most else math.inf


def _mixture(problem: Problem) -> PathColumns:
    """The mixture of paths of least period; memory does not count here."""
    latency = problem.weight({"latency": 1.0})
    shared = Shared.of(problem.graph.model.fleet, [problem], [latency], [1.0], balanced=True, memory=False)
    columns = PathColumns(shared)
    columns.improve(_ROUNDS)
    return columns


def _shares(problem: Problem, least: PathColumns) -> list[tuple[IntArray, float]]:
    """Paths and shares of that period which have the least mean latency."""
    latency = problem.weight({"latency": 1.0})
    shared = Shared.of(
        problem.graph.model.fleet, [problem], [latency], [1.0],
        max_utilisation=least.value * (1 + ROUNDING), memory=False,
    )  # fmt: skip
    columns = PathColumns(shared, [[column.arcs for column in least.columns[0]]])
    columns.improve(_ROUNDS)
    pairs = zip(columns.columns[0], columns.shares[0].tolist(), strict=True)
    taken = [(column.arcs, share) for column, share in pairs if share > _SMALLEST]
    whole = math.fsum(share for _, share in taken)
    return [(arcs, share / whole) for arcs, share in taken]


def _document(
    fleet: Fleet, table: ProfileTable, found: Pipeline, statistic: str, notes: tuple[str, ...], origin: Origin
) -> FleetPlan:
    """The plans and shares, priced anew, at the highest rate that they can serve."""
    graph, model = found.problem.graph, found.problem.graph.model

    def proof(value: float, check: str) -> Proof:
        bound = min(found.bound, value)
        outcome = Outcome.OPTIMAL if value <= bound * (1 + AGREEMENT) else Outcome.FEASIBLE
        return Proof(
            "dynamic programme, HiGHS (SciPy)", outcome, "period", value, bound, (value - bound) / value,
            found.arcs, graph.arcs, found.phases_s, check, {}, statistic,
        )  # fmt: skip

    parts = []
    for arcs, share in sorted(found.shares, key=lambda each: -each[1]):
        stages, hops = graph.decode(arcs)
        own = proof(period_s(model.fleet, stages, hops), "one of several plans; the bound is theirs together")
        recipes = {each.device: table.recipes[each.device] for each in stages if each.device in table.recipes}
        cost = model.price(stages, hops)
        plan = Plan(
            *(table.chain, fleet, model.batch, NO_LIMITS, stages, hops, cost, own),
            notes=notes, recipes=recipes, origin=origin,
        )  # fmt: skip
        parts.append(Share(plan, share))
    stream = Stream(table.chain.source.name, 1.0, 1.0, tuple(parts))
    period = max(sum(by_stream.values()) for by_stream in utilisation([stream]).values())
    if not math.isclose(period, found.period_s, rel_tol=AGREEMENT):
        raise SolverError(
            f"the plans have a period of {period} s when priced anew, but {found.period_s} s by the solver"
        )
    stream = replace(stream, rate_per_s=1 / period)
    return FleetPlan(
        fleet, 1.0, (stream,), utilisation([stream]), proof(period, "priced anew: the same period"), notes
    )
