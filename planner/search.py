"""The search over the layered graph: the optimum within the limits, and what to say where there is none."""

from __future__ import annotations

import math
import time
from decimal import ROUND_CEILING, Context

import numpy as np

from planner.cost import ROUNDING, Objective, ceilings
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.graph import Graph, IntArray
from planner.ilp import Answer, minimise
from planner.plan import Limits, Outcome

# Among plans of equal cost the one of fewer stages and hops: each counts as 1 ns or 1 nJ.
_TIE_BREAK = 1e-9

_OTHER: dict[Objective, Objective] = {"latency": "energy", "energy": "latency"}
_UNIT: dict[Objective, str] = {"latency": "ms", "energy": "mJ"}
_LIMIT: dict[Objective, str] = {"latency": "max_latency", "energy": "max_energy"}
_OPTION: dict[Objective, str] = {"latency": "--max-latency-ms", "energy": "--max-energy-mj"}


def search(graph: Graph, objective: Objective, limits: Limits, time_limit_s: float) -> Answer:
    """The best path within the limits; of equals, the least in the other criterion, then in parts.

    ``InfeasibleError``: no plan keeps the limits; it names the nearest values that would do.
    ``SolverError``: CBC failed or found nothing in time.
    """
    return _Search(graph, limits, time_limit_s).run(objective)


class _Search:
    def __init__(self, graph: Graph, limits: Limits, time_limit_s: float) -> None:
        self.graph, self.time_limit_s = graph, time_limit_s
        self.deadline = time.perf_counter() + time_limit_s
        self.given: dict[Objective, float | None] = {
            "latency": limits.max_latency_s,
            "energy": limits.max_energy_j,
        }
        self.most = ceilings(limits)
        self.through = {name: graph.least_through(name) for name in self.most}

    def run(self, objective: Objective) -> Answer:
        least = {name: float(through.min()) for name, through in self.through.items()}
        if math.isinf(least[objective]):
            raise PlanningError(
                "the bundles that the devices can run do not join into a whole network",
                "profile another backend or precision too",
            )
        too_tight = [name for name in least if least[name] > self.most[name]]
        if too_tight:
            raise self._infeasible({name: least[name] for name in too_tight})
        # The limit on the objective itself is left to the end. So there is always a path to find,
        # and CBC's word on infeasibility, which it also gives when time runs out, is never needed.
        best = self._least(objective)
        value = float(self.graph.weight[objective][best.arcs].sum())
        if value > self.most[objective]:
            if best.bound <= self.most[objective]:
                raise self._out_of_time()
            raise self._conflict(objective, value)
        return self._prefer(objective, best, value) if best.outcome is Outcome.OPTIMAL else best

    def _least(self, objective: Objective) -> Answer:
        """The least of ``objective`` within the limit on the other criterion."""
        other = _OTHER[objective]
        budgets = [(self.graph.weight[other], self.most[other])]
        answer = minimise(
            self.graph,
            self._within({other: self.most[other]}),
            self.graph.weight[objective],
            budgets,
            time_limit_s=self._seconds_left(),
        )
        if answer is None:
            raise self._out_of_time()
        return answer

    def _prefer(self, objective: Objective, best: Answer, value: float) -> Answer:
        """Among the paths that cost no more than ``best``, the least in the other criterion and parts."""
        other = _OTHER[objective]
        most = {objective: value * (1 + ROUNDING), other: self.most[other]}
        arcs = self._within(most)
        if arcs.size == best.arcs.size or time.perf_counter() > self.deadline:
            return best
        weight = self.graph.weight
        preference = weight[other] + _TIE_BREAK * (np.arange(self.graph.tail.size) < self.graph.parts)
        budgets = [(weight[name], most[name]) for name in most]
        equal = minimise(self.graph, arcs, preference, budgets, time_limit_s=self._seconds_left())
        proven = equal is not None and equal.outcome is Outcome.OPTIMAL
        return Answer(best.outcome, equal.arcs, best.bound) if equal and proven else best

    def _within(self, most: dict[Objective, float]) -> IntArray:
        """The arcs that a path within these ceilings can contain."""
        keep = np.isfinite(self.through["latency"])
        for name, ceiling in most.items():
            keep &= self.through[name] <= ceiling
        return np.flatnonzero(keep)

    def _seconds_left(self) -> float:
        return max(self.deadline - time.perf_counter(), 1.0)

    def _out_of_time(self) -> SolverError:
        return SolverError(
            f"CBC found no plan within the limits in {self.time_limit_s:g} s", "raise --time-limit"
        )

    def _infeasible(self, least: dict[Objective, float]) -> InfeasibleError:
        """Limits that not even the plan made for them alone can keep."""
        problems = [
            f"no plan {'takes' if name == 'latency' else 'uses'} at most {self._limit(name)}; "
            f"the least possible is {_rounded_up(value)} {_UNIT[name]}"
            for name, value in least.items()
        ]
        raised = [f"{_OPTION[name]} to {_rounded_up(value)}" for name, value in least.items()]
        return InfeasibleError("; ".join(problems), f"raise {' and '.join(raised)} or more")

    def _conflict(self, objective: Objective, value: float) -> InfeasibleError:
        """Limits that can be kept one at a time only; ``value`` is the least of the objective."""
        other = _OTHER[objective]
        answer = self._least(other)
        # Short of a proof this is still the value of a plan, so raising the limit to it does help.
        nearest = {objective: value, other: float(self.graph.weight[other][answer.arcs].sum())}
        problems = [
            f"within {self._limit(_OTHER[name])} the least {name} is {_rounded_up(value)} {_UNIT[name]}"
            for name, value in nearest.items()
        ]
        raised = [f"{_OPTION[name]} to {_rounded_up(value)}" for name, value in nearest.items()]
        return InfeasibleError(
            f"no plan keeps both limits: {'; '.join(problems)}", f"raise {' or '.join(raised)} or more"
        )

    def _limit(self, name: Objective) -> str:
        given = self.given[name] or 0.0
        return f"{given * 1e3:.6g} {_UNIT[name]} ({_LIMIT[name]})"


def _rounded_up(value: float) -> str:
    """Thousandths to four digits, never less than ``value`` (s or J): as a limit it can be kept."""
    digits = Context(prec=4, rounding=ROUND_CEILING).create_decimal(f"{value * 1e3:.10g}")
    return f"{digits:f}"
