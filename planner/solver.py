"""The best plan for a fleet and its profile tables, with its proof.

The ILP decides. What it decides is priced anew from the table, and an independent dynamic programme
must find the same optimum; a plan that fails either is an error, never an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pulp.constants import VERSION

from planner.baselines import baselines
from planner.chain import Chain
from planner.codec_table import CodecName
from planner.conflict import explain_conflict
from planner.cost import CostModel, ceilings
from planner.errors import InputError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.graph import IntArray
from planner.limits import CRITERIA, UNITS, Criterion, Limits, Objective
from planner.origin import Origin
from planner.partial import described, gain, missing_bundles, optimistic
from planner.period_plan import solve_period
from planner.plan import Cost, Plan, Proof
from planner.pricing import priced
from planner.problem import Problem
from planner.search import search
from planner.table import ProfileTable

NO_LIMITS = Limits()

# Relative difference up to which two prices of one plan, or two optima, are the same.
AGREEMENT = 1e-6


def solve(
    chain: Chain,
    fleet: Fleet,
    table: ProfileTable,
    *,
    objective: Objective | Mapping[Criterion, float] = "latency",
    limits: Limits = NO_LIMITS,
    batch: int | None = None,
    codecs: Sequence[CodecName] | None = None,
    statistic: str = "mean",
    partial: bool = False,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
    several: bool = False,
) -> Plan:
    """The plan that is least in the objective, or in a weighted sum of criteria, within the limits.

    Of equals, it is the one of least energy (latency, where energy is minimised), then the one of fewer parts.
    For the period each device computes once, unless ``several``; of equals, it is the plan of least latency.
    ``batch`` may be left out where the table has only one. ``codecs``: those that hops may use; left out,
    all with ``limits.min_sqnr_db``, without it the lossless ones. ``statistic``: of the table's times, to plan
    with, see ``measured.times_of``. ``partial``: bundles that no table has are not used, and a note says what
    measuring them could gain at best. ``solver``: one that PuLP knows. Raises ``MismatchError`` for a table of
    another chain, ``UnknownNameError`` for one of another fleet, ``PlanningError`` where the table
    does not suffice or no route leads over a profiled device, ``InfeasibleError`` where no plan keeps
    the limits, with the nearest values that would do, and ``SolverError`` where the solver fails, finds
    nothing in time, or gives an answer that does not hold.
    """
    begun = time.perf_counter()
    model, notes = priced(chain, fleet, table, objective, limits, batch, codecs, statistic, partial)
    how: dict[str, Any] = {"time_limit_s": time_limit_s, "solver": solver, "several": several}
    how |= {"objective": objective, "limits": limits, "statistic": statistic, "begun": begun}
    return solve_priced(model, fleet, table, notes, Origin.of(table.files, codecs, partial=partial), **how)


def solve_priced(
    model: CostModel,
    fleet: Fleet,
    table: ProfileTable,
    notes: tuple[str, ...],
    origin: Origin,
    *,
    objective: Objective | Mapping[Criterion, float],
    limits: Limits,
    statistic: str = "mean",
    time_limit_s: float = 60.0,
    solver: str = "cbc",
    several: bool = False,
    begun: float | None = None,
) -> Plan:
    """``solve`` at the prices of ``model``, whose fleet lacks the links that ``limits`` exclude; ``fleet`` is the
    plan's. ``begun``: when building the prices began, by `time.perf_counter`."""
    begun = time.perf_counter() if begun is None else begun
    if objective == "period":
        how: dict[str, Any] = {"several": several, "time_limit_s": time_limit_s, "solver": solver}
        return solve_period(model, fleet, table, limits, notes, statistic=statistic, origin=origin, **how)
    problem = Problem.of(model, limits)
    built = time.perf_counter()
    weights = weights_of(objective)
    missing = missing_bundles(model, table.left_out, table.active)
    try:
        found = search(problem, weights, time_limit_s=time_limit_s, solver=solver)
    except SolverError:
        raise
    except PlanningError as error:
        why = explain_conflict(model, limits, fleet=fleet, time_limit_s=time_limit_s, solver=solver) or error
        why.message += f"; {described(model, missing)}" if missing.any() else ""
        raise why from None

    stages, hops = problem.graph.decode(found.arcs)
    cost = model.price(stages, hops)
    value = value_of(cost, weights)
    claimed = float(problem.weight(weights)[found.arcs].sum())
    if not _agree(value, claimed):
        raise SolverError(f"the plan costs {value} when priced anew, but {claimed} by the solver's sum")
    _check_kept(problem, found.arcs, cost, limits)
    bound = min(found.bound, value)
    proof = Proof(
        solver=f"{'CBC' if solver == 'cbc' else solver} (PuLP {VERSION})",
        outcome=found.outcome,
        objective=objective if isinstance(objective, str) else _shown(weights),
        objective_value=value,
        bound=bound,
        gap=(value - bound) / value if value else 0.0,
        arcs=problem.graph.arcs,
        arcs_after=found.arcs_after,
        phases_s={"build": built - begun, **found.phases_s},
        check=found.check,
        weights=weights,
        statistic=statistic,
    )
    if missing.any():
        best = Problem.of(optimistic(model, missing), limits)
        try:
            bound = search(best, weights, time_limit_s=time_limit_s, solver=solver).bound
        except SolverError:
            bound = 0.0
        notes += (f"{described(model, missing)}; {gain(value, bound)}",)
    by_hand = baselines(model, weights)
    recipes = {stage.device: table.recipes[stage.device] for stage in stages if stage.device in table.recipes}
    return Plan(
        *(model.chain, fleet, model.batch, limits, stages, hops, cost, proof, by_hand, notes, recipes, origin)
    )


def solve_again(
    plan: Plan,
    table: ProfileTable,
    *,
    fleet: Fleet | None = None,
    limits: Limits | None = None,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> Plan:
    """The best plan by the question that ``plan`` answers, its objective, batch, statistic and codecs, of these tables;
    with another fleet or other limits where they are given. Raises as ``solve``."""
    limits = plan.limits if limits is None else limits
    return solve(
        plan.chain,
        fleet or plan.fleet,
        table,
        objective=objective_of(plan.proof),
        limits=limits,
        batch=plan.batch,
        codecs=plan.origin.codecs,
        statistic=plan.proof.statistic,
        partial=plan.origin.partial,
        time_limit_s=time_limit_s,
        solver=solver,
        several=not limits.once,  # a plan of least period says so where devices compute once
    )


def objective_of(proof: Proof) -> Objective | dict[Criterion, float]:
    """What was minimised, as ``solve`` takes it."""
    known: dict[str, Objective] = {name: name for name in get_args(Objective)}
    return known.get(proof.objective, proof.weights)


def weights_of(objective: Objective | Mapping[Criterion, float]) -> dict[Criterion, float]:
    """What a weighted sum weighs; a criterion alone weighs 1. Raises ``InputError``."""
    if objective == "period":
        return {}
    if isinstance(objective, str):
        return {objective: 1.0}
    if "period" in objective:
        problem = "the period is the most of many sums and cannot be weighed against others"
        raise InputError(problem, "minimise it alone, and limit the others: --max-latency-ms, ...")
    for criterion, factor in objective.items():
        if criterion not in CRITERIA or not 0 <= factor < math.inf:
            raise InputError(f"weight {factor} of {criterion!r}", f"weigh {', '.join(CRITERIA)} from 0 up")
    if not any(objective.values()):
        raise InputError("every weight is 0", "weigh at least one criterion")
    return {criterion: float(objective[criterion]) for criterion in CRITERIA if objective.get(criterion)}


def value_of(cost: Cost, weights: Mapping[Criterion, float]) -> float:
    return math.fsum(factor * cost.of(criterion) for criterion, factor in weights.items())


def _shown(weights: Mapping[Criterion, float]) -> str:
    """The weights as they were given: per ms, mJ, ..."""
    return " + ".join(f"{factor / UNITS[name].per_si:g} {name}" for name, factor in weights.items())


def _check_kept(problem: Problem, arcs: IntArray, cost: Cost, limits: Limits) -> None:
    """Refuse a plan that breaks a limit, by the problem's sums or when priced anew."""
    broken = [name for name, most in ceilings(limits).items() if cost.of(name) > most * (1 + AGREEMENT)]
    if broken or not problem.kept(arcs):
        raise SolverError(f"the solver's plan costs {cost} and breaks {limits}")


def _agree(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=AGREEMENT, abs_tol=1e-12)
