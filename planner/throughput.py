"""The plan of least period: of a full pipeline, the seconds between two answers.

Where each device has one stay, every set of devices is looked at (`pipeline`). What that leaves out of account,
and plans in which a device computes several times, is decided by an ILP (`period_ilp`) that starts from there.
Of equal periods the least latency is taken, then the fewest parts.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field, replace

import numpy as np
from pulp.constants import VERSION

from planner.cost import ROUNDING, CostModel
from planner.errors import PlanningError, SolverError
from planner.graph import BoolArray, Graph, IntArray
from planner.ilp import Answer
from planner.limits import Limits
from planner.period import period_s
from planner.period_ilp import least_period, promising
from planner.pipeline import Parts, Pipelines
from planner.placement import check_names, memory_ceiling, usable
from planner.plan import Outcome, Proof
from planner.problem import Problem
from planner.search import search
from planner.stays import stays_model

# Limits of sums over a whole plan: those that the fastest stays keep if any do, and those that others may keep
# where they do not (a longer latency raises what a share of it is).
_SUMS = ("max_latency_s", "max_price", "max_upload_bytes")
_DETAILS = ("max_energy_j", "min_sqnr_db", "max_memory_bytes", "max_share")
_TIES_S = 20.0
_MOST_ARCS = 150_000  # more take minutes to write down for a solver


@dataclass(eq=False)
class Pipelined:
    """A plan and what is known of the least period: no plan's is below ``bound_s``."""

    parts: Parts
    outcome: Outcome
    bound_s: float
    solver: str
    check: str
    arcs: int = 0
    arcs_after: int = 0
    phases_s: dict[str, float] = field(default_factory=dict)

    def proof(self, model: CostModel, statistic: str) -> Proof:
        """``SolverError`` where the plan, priced anew, has a period below the bound on every plan."""
        value = period_s(model.fleet, *self.parts)
        if value < self.bound_s * (1 - 1e-6):
            raise SolverError(
                f"the plan has a period of {value} s priced anew, but {self.bound_s} s is a bound"
            )
        bound = min(self.bound_s, value)
        gap = (value - bound) / value if value else 0.0
        if self.outcome is Outcome.OPTIMAL and gap > 1e-6:
            raise SolverError(
                f"the plan has a period of {value} s priced anew, but {bound} s by the solver's sum"
            )
        return Proof(
            *(self.solver, self.outcome, "period", value, bound, gap, self.arcs, self.arcs_after),
            *(self.phases_s, self.check, {}, statistic),
        )


def least_period_plan(
    model: CostModel,
    limits: Limits,
    *,
    several: bool = False,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> Pipelined:
    """The plan of least period within the limits, ``max_period_s`` aside; each device computes once, unless
    ``several`` stages of one are allowed.

    Raises ``UnknownNameError``, ``PlanningError``, ``InfeasibleError`` and ``SolverError`` as `search` does.
    """
    begun = time.perf_counter()
    limits = replace(limits, max_period_s=None)
    asked = limits if several else replace(limits, once=True)
    check_names(model, limits)
    can = usable(model, limits) & _fits(model, limits)
    pipelines = Pipelines.of(model, can, replace(limits, once=True))
    built = time.perf_counter()
    least_s, parts = _by_sets(pipelines)
    fastest = True
    if _summed(model, limits, _SUMS + _DETAILS):
        if parts is not None and not _keeps(model, asked, parts):
            # With stays of one bundle each, what fits alone fits.
            single = Pipelines.of(model, can, replace(limits, once=True, max_bundles=1))
            parts, fastest = _by_sets(single)[1], False
        if parts is not None and not _keeps(model, asked, parts):
            parts = None
    phases = {"build": built - begun, "sets": time.perf_counter() - built}
    arcs, after = int(np.count_nonzero(_runs(model, can))) + len(pipelines.hops), pipelines.arcs
    proven = parts is not None and period_s(model.fleet, *parts) <= least_s * (1 + ROUNDING)
    if asked.once and parts is not None and proven and fastest:
        check = "the period is the same when priced anew"
        return Pipelined(parts, Outcome.OPTIMAL, least_s, "set dynamic programme", check, arcs, after, phases)
    found = _by_ilp(pipelines, asked, parts, least_s if asked.once else 0.0, time_limit_s, solver)
    found.phases_s = {**phases, **found.phases_s}
    if not _keeps(model, asked, found.parts):
        raise SolverError(f"the solver's plan breaks {limits}")
    return found


def _by_sets(pipelines: Pipelines) -> tuple[float, Parts | None]:
    """As ``Pipelines.least_period``, but 0 and None where there are too many sets of devices."""
    try:
        return pipelines.least_period()
    except PlanningError:
        return 0.0, None


def _by_ilp(
    pipelines: Pipelines, limits: Limits, seed: Parts | None, least_s: float, time_limit_s: float, solver: str
) -> Pipelined:
    """``seed``: a plan that keeps the limits; ``least_s``: a bound on every plan."""
    begun, model = time.perf_counter(), pipelines.model
    ends = begun + time_limit_s
    compact = not _detailed(model, limits)
    if compact:
        model = stays_model(
            pipelines.stays, model, {name: kind[0] for kind in pipelines.kinds for name in kind}
        )
        kept = {name: getattr(limits, name) for name in _SUMS}
        limits = Limits(**kept, once=limits.once)

    def parts_of(graph: Graph, arcs: IntArray) -> Parts:
        stages, hops = graph.decode(arcs)
        return (pipelines.expanded(stages) if compact else stages), hops

    name = "bounds"
    if seed is None:
        problem = Problem.of(model, limits)
        keep = promising(problem, np.inf)
        found = search(problem.restricted(keep), {"latency": 1.0}, time_limit_s=time_limit_s, solver=solver)
        seed = parts_of(problem.graph, np.flatnonzero(keep)[found.arcs])
    most_s = period_s(model.fleet, *seed)
    problem = Problem.of(model, replace(limits, max_period_s=most_s))
    best, outcome, bound_s = seed, Outcome.FEASIBLE, max(least_s, _bound_s(problem))
    arcs_after = int(np.count_nonzero(promising(problem, most_s)))
    if bound_s < most_s * (1 - ROUNDING) and arcs_after <= _MOST_ARCS:
        left_s = max(ends - time.perf_counter(), 1.0)
        name = f"{'CBC' if solver == 'cbc' else solver} (PuLP {VERSION})"
        answer = least_period(problem, bound_s, most_s, time_limit_s=left_s, solver=solver)
        if isinstance(answer, Answer):
            candidate = parts_of(problem.graph, answer.arcs)
            best = min((candidate, seed), key=lambda parts: period_s(model.fleet, *parts))
            outcome, bound_s = answer.outcome, max(bound_s, answer.bound)
    if bound_s >= period_s(model.fleet, *best) * (1 - ROUNDING):
        outcome = Outcome.OPTIMAL
    solved = time.perf_counter()
    left_s = min(max(ends - solved, 1.0), _TIES_S)
    problem = Problem.of(model, replace(limits, max_period_s=period_s(model.fleet, *best)))
    tied = _least_latency(problem, left_s, solver)
    check = "the period is the same when priced anew"
    if tied is not None:
        best = parts_of(problem.graph, tied)
    else:
        check += "; of equal periods, another may have less latency"
    phases = {"ilp": solved - begun, "ties": time.perf_counter() - solved}
    return Pipelined(best, outcome, bound_s, name, check, problem.graph.arcs, arcs_after, phases)


def _least_latency(problem: Problem, time_limit_s: float, solver: str) -> IntArray | None:
    """Of the paths that keep the limits, the period's ceiling among them, the fastest; None where time ran out."""
    keep = promising(problem, np.inf)
    try:
        found = search(problem.restricted(keep), {"latency": 1.0}, time_limit_s=time_limit_s, solver=solver)
    except SolverError:
        return None
    return np.flatnonzero(keep)[found.arcs] if found.outcome is Outcome.OPTIMAL else None


def _bound_s(problem: Problem) -> float:
    """No period is below the least that some part of every path keeps a device or link busy, nor below an
    equal share of the least that all devices and links together are busy."""
    timed = [place for place, each in enumerate(problem.resources) if each.limit == "max_period_s"]
    loads = problem.loads[timed]
    together = problem.graph.ahead(np.asarray(loads.sum(axis=0)).ravel())[problem.graph.last] / len(timed)
    longest = loads.max(axis=0).toarray().ravel()
    values = np.unique(longest)
    low, high = 0, values.size - 1
    while low < high:  # the least value up to which parts join into a path
        middle = (low + high) // 2
        linked = problem.graph.restricted(longest <= values[middle])
        if np.isfinite(linked.ahead(np.zeros(linked.arcs))[linked.last]):
            high = middle
        else:
            low = middle + 1
    return max(float(together), float(values[low]))


def _detailed(model: CostModel, limits: Limits) -> bool:
    """Whether the least time of each stay does not tell whether a plan keeps the limits."""
    per_device = limits.max_bundles is not None or limits.ceil_rule or limits.one_clock
    return _summed(model, limits, _DETAILS) or (per_device and not limits.once)


def _summed(model: CostModel, limits: Limits, names: tuple[str, ...]) -> bool:
    own = any(getattr(limits, name) not in (None, {}) for name in names)
    memory = (memory_ceiling(model.fleet, limits, device.name) for device in model.fleet.devices)
    return own or ("max_memory_bytes" in names and any(map(np.isfinite, memory)))


def _keeps(model: CostModel, limits: Limits, parts: Parts) -> bool:
    """Whether a plan keeps the limits."""
    stages, hops = parts
    problem = _of_plan(model, limits, parts)
    graph = problem.graph
    chosen = {(stage.device, stage.bundle.start, stage.bundle.stop, stage.variant) for stage in stages}
    taken = {(hop.boundary, hop.route, hop.codec) for hop in hops}
    keep = (graph.way < 0) & (graph.hop < 0)
    for arc in np.flatnonzero(graph.way >= 0).tolist():
        way = graph.model.ways[graph.way[arc]]
        keep[arc] = (way.device, int(graph.start[arc]), int(graph.stop[arc]), way.variant) in chosen
    for arc in np.flatnonzero(graph.hop >= 0).tolist():
        hop = graph.hops[graph.hop[arc]]
        keep[arc] = (hop.boundary, hop.route, hop.codec) in taken
    linked = graph.restricted(keep)
    path = linked.path(linked.weight["latency"])
    return path is not None and problem.kept(np.flatnonzero(keep)[path])


def _of_plan(model: CostModel, limits: Limits, parts: Parts) -> Problem:
    """The problem over the variants and links that a plan uses."""
    stages, hops = parts
    taken = {pair for hop in hops for pair in itertools.pairwise(hop.route)}
    links = tuple(link for link in model.fleet.links if link.pair in taken)
    used = {(stage.device, stage.variant) for stage in stages}
    ways = [place for place, way in enumerate(model.ways) if (way.device, way.variant) in used]
    arrays = {name: getattr(model, name)[ways] for name in ("latency_s", "energy_j", "noise", "memory_bytes")}
    chosen = tuple(model.ways[place] for place in ways)
    return Problem.of(replace(model, fleet=replace(model.fleet, links=links), ways=chosen, **arrays), limits)


def _fits(model: CostModel, limits: Limits) -> BoolArray:
    """Which bundles alone fit into the memory of their devices."""
    most = np.array([memory_ceiling(model.fleet, limits, way.device) for way in model.ways])
    fits: BoolArray = ~(model.memory_bytes > most.reshape(-1, 1, 1))
    return fits


def _runs(model: CostModel, can: BoolArray) -> BoolArray:
    runs: BoolArray = np.isfinite(model.latency_s) & can
    return runs
