"""The plan of least period with its proof: as `solver.solve`, for a pipeline."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.baselines import baselines
from planner.conflict import explain_conflict
from planner.cost import ROUNDING, CostModel
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.origin import Origin
from planner.partial import described, gain, missing_bundles, optimistic
from planner.plan import Plan, Proof
from planner.table import ProfileTable
from planner.throughput import least_period_plan


def solve_period(
    model: CostModel,
    fleet: Fleet,
    table: ProfileTable,
    limits: Limits,
    notes: tuple[str, ...],
    *,
    several: bool,
    statistic: str,
    origin: Origin,
    time_limit_s: float,
    solver: str,
) -> Plan:
    """Each device computes once, unless ``several`` stages of one are allowed. ``model`` and ``notes``: of
    `pricing.priced`; ``fleet``: with the links that the limits exclude. Raises as `solver.solve`."""
    limits = limits if several else replace(limits, once=True)
    missing = missing_bundles(model, table.left_out, table.active)
    try:
        found = least_period_plan(model, limits, several=several, time_limit_s=time_limit_s, solver=solver)
    except SolverError:
        raise
    except PlanningError as error:
        rest = replace(limits, max_period_s=None)
        why = explain_conflict(model, rest, fleet=fleet, time_limit_s=time_limit_s, solver=solver) or error
        why.message += f"; {described(model, missing)}" if missing.any() else ""
        raise why from None
    proof = found.proof(model, statistic)
    _check_period(proof, limits.max_period_s)
    if missing.any():
        best = optimistic(model, missing)
        try:
            bound_s = least_period_plan(
                best, limits, several=several, time_limit_s=time_limit_s, solver=solver
            ).bound_s
        except SolverError:
            bound_s = 0.0
        notes += (f"{described(model, missing)}; {gain(proof.objective_value, bound_s)}",)
    stages, hops = found.parts
    recipes = {stage.device: table.recipes[stage.device] for stage in stages if stage.device in table.recipes}
    cost, by_hand = model.price(stages, hops), baselines(model, {})
    return Plan(
        *(table.chain, fleet, model.batch, limits, stages, hops, cost, proof, by_hand, notes, recipes, origin)
    )


def _check_period(proof: Proof, most_s: float | None) -> None:
    if most_s is None or proof.objective_value <= most_s * (1 + ROUNDING):
        return
    asked, bound = f"{most_s * 1e3:.4g} ms", proof.bound * 1e3
    if proof.bound <= most_s * (1 + ROUNDING):
        found = f"found in time; none is below {bound:.4g} ms"
        raise SolverError(f"no plan with a period of at most {asked} {found}", "raise --time-limit")
    least = math.ceil(bound * 10 ** (k := 3 - math.floor(math.log10(bound)))) / 10**k
    raise InfeasibleError(
        f"no plan has a period of at most {asked} (max_period); the least possible with the other limits is "
        f"{least:g} ms",
        f"raise --max-period-ms to {least:g} or more",
    )
