"""A plan's question asked again while it runs, under other conditions."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.conditions import Conditions
from planner.cost import CostModel
from planner.errors import PlanningError
from planner.limits import Limits
from planner.override import limits_kept, priced_override
from planner.period import period_s
from planner.placement import without
from planner.plan import Plan
from planner.pricing import priced
from planner.solver import objective_of, solve_priced, value_of
from planner.table import ProfileTable

TIME_LIMIT_S = 10.0


class Replanner:
    """Answers a plan's question again under other conditions: same objective, statistic, batch, codecs and limits.

    ``time_limit_s``: of each search. Raises as ``solve``, and ``InputError`` for a table without what the plan runs.
    """

    def __init__(self, plan: Plan, table: ProfileTable, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.plan, self._table, self._time_limit_s = plan, table, time_limit_s
        self._model, self._medians = self._priced(plan.proof.statistic), self._priced("median")
        self.value(plan, Conditions())

    def _priced(self, statistic: str) -> CostModel:
        """Prices over the whole fleet, links that the limits exclude included."""
        plan = self.plan
        question = objective_of(plan.proof), plan.limits, plan.batch, plan.origin.codecs, statistic
        model, _ = priced(plan.chain, plan.fleet, self._table, *question, plan.origin.partial)
        return replace(model, fleet=plan.fleet)

    def best(self, conditions: Conditions) -> Plan:
        """The exact optimum under the conditions; its costs are those that hold then, its fleet is the plan's.

        Raises ``PlanningError`` where there is none, with the reason.
        """
        fleet = self.plan.fleet
        needed = sorted(conditions.devices & {fleet.source, fleet.sink})
        if needed:
            role = "source" if needed[0] == fleet.source else "sink"
            raise PlanningError(
                f"no plan does without {needed[0]}, the {role}", f"start the agent of {needed[0]}"
            )
        limits = conditions.limits(self.plan.limits)
        model = conditions.applied(self._model)
        model = replace(model, fleet=without(model.fleet, limits))
        notes = (f"made while running: {conditions}",) if conditions != Conditions() else ()
        proof = self.plan.proof
        return solve_priced(
            *(model, fleet, self._table, notes, self.plan.origin), objective=objective_of(proof), limits=limits,
            statistic=proof.statistic, several=not limits.once, time_limit_s=self._time_limit_s,
        )  # fmt: skip

    def value(self, plan: Plan, conditions: Conditions) -> float:
        """What the plan would come to in the objective; infinite where it uses what is gone or breaks a limit."""
        if conditions.used_by(plan):
            return math.inf
        model, limits, weights = conditions.applied(self._model), self.plan.limits, self.plan.proof.weights
        entry = priced_override(model, limits, weights, plan)
        if not all(each.kept for each in limits_kept(model.fleet, limits, entry)):
            return math.inf
        if not weights:
            return period_s(model.fleet, entry.stages, entry.hops)
        return value_of(entry.cost, weights)

    def medians(self, plan: Plan) -> Plan:
        """The plan with the medians of the tables as its forecast, to set beside medians that were measured."""
        entry = priced_override(self._medians, Limits(), {}, plan)
        return replace(plan, stages=entry.stages, hops=entry.hops, cost=entry.cost)

    def shown(self, value: float) -> str:
        """A value of the objective in people's unit."""
        unit = {"latency": "ms", "period": "ms", "energy": "mJ"}.get(self.plan.proof.objective)
        return f"{value * 1e3:.4g} {unit}" if unit else f"{value:.4g}"
