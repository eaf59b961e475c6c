"""The search over the layered graph: the optimum within the limits, proved.

    all arcs ──> dominance ──> guess an upper bound ──> prices, fixing ──> beam ──> labels ──> CBC
                                  ^      ^                                  │         │
                                  │      └──────── a plan: guess its weight ┘         │
                                  └──────────── none so light: guess more ────────────┘

Where memory is limited, `branch.py` takes the place of beam and labels: bounds by visits, and branches;
`branch_begin.py` finds the first plan.

Each step only drops arcs that no path as light as the optimum needs. A path of at most the guessed weight uses
only arcs whose Lagrangian bound is below the guess; where no such path keeps the limits, the guess itself is a
lower bound, and the next one is higher. Label setting tracks the resources that prices do not keep down by
themselves, more of them as its paths break limits (decremental state space relaxation, Righini and Salani
2008). CBC decides and proves on the arcs of all labels that are left, and both must agree.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np

from planner.attempts import Attempts
from planner.cost import ROUNDING, FloatArray
from planner.dominance import undominated
from planner.dual import Dual
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.graph import IntArray
from planner.ilp import Answer, minimise
from planner.limits import Criterion
from planner.part import Part, Tried
from planner.plan import Outcome
from planner.problem import Problem, Resource
from planner.solvers import NoAnswer
from planner.tally import MEMORY, TIE

# Upper bounds to try, by how much they exceed the lower bound; after them, the heaviest path there is.
_GUESSES = (1e-6, 0.01, 0.02, 0.04, 0.06, 0.085, 0.115, 0.15, 0.2, 0.27, 0.36, 0.5, 0.75, 1.2, 3.0)
# The same where memory is limited, as shares of the gap between the lower bound and the first plan.
_BETWEEN = (0.5, 0.75)
# What breaks ties: one search more for each.
_TIES = 2
# Relative difference up to which two prices of one plan, or two optima, are the same.
AGREEMENT = 1e-6
# Arcs of which CBC proves nothing in a minute.
_MANY = 20_000
# Arcs of which writing the programme takes gigabytes.
_MOST = 250_000


@dataclass(eq=False)
class Search:
    """How a search went: ``arcs`` of the answer, places in the problem's graph, and a ``bound`` on every plan."""

    outcome: Outcome
    arcs: IntArray
    bound: float
    arcs_after: int
    check: str
    phases_s: dict[str, float] = field(default_factory=dict)


def search(
    problem: Problem,
    weights: dict[Criterion, float] | FloatArray,
    *,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
    reduce: bool = True,
) -> Search:
    """The path of least weight (of criteria, or given for each arc) within the limits; of equals, the least energy
    (latency, where energy is minimised), then the fewest parts. ``reduce``: drop arcs before the solver sees them;
    without, CBC is given all and ties are as it leaves them. Raises ``PlanningError`` where bundles do not join,
    ``InfeasibleError`` where no path keeps the limits, ``SolverError`` where the solver failed or had no time.
    """
    energy = isinstance(weights, dict) and set(weights) == {"energy"}
    second = problem.graph.weight["latency" if energy else "energy"]
    searching = _Searching(problem, problem.weight(weights), second, time_limit_s, solver)
    found = searching.run() if reduce else searching.plain()
    found.phases_s = dict(searching.phases)
    return found


class _Searching(Attempts):
    def run(self) -> Search:
        tried = self._guess()
        if tried is None:
            raise self._nothing(proven=True)
        if tried.tied and self.ties < _TIES:
            return self._lightest_of_equals(tried)
        if not tried.labelled.complete:
            return self._unproven(tried)
        tried = self.narrowed(tried)
        return self._decided(tried)

    def plain(self) -> Search:
        """CBC over all arcs."""
        with self.phase("CBC"):
            answer = minimise(self.problem, self.weight, time_limit_s=self.time_limit_s, solver=self.solver)
        if not isinstance(answer, Answer):
            raise self._nothing(proven=answer is NoAnswer.INFEASIBLE)
        arcs = self.problem.graph.arcs
        return Search(answer.outcome, answer.arcs, answer.bound, arcs, "not checked: nothing was reduced")

    def _guess(self) -> Tried | None:
        """The lightest path, by guesses: the first that is not too low holds it. None where there is none."""
        with self.phase("dominance"):
            keep = undominated(self.problem, self.weight, self.second)
            whole = Part(self.problem, self.weight, np.arange(keep.size)).kept(keep)
        with self.phase("bounds"):
            dual = Dual.of(whole.problem, whole.weight)
            dual.improve(24)
            self.remember(whole, dual.best)
        self.lower = dual.bound
        visits = any(resource.limit == MEMORY for resource in whole.problem.resources)
        if visits:
            whole, dual = self.begun(whole, dual)
        if whole.problem.resources and self.incumbent is None:
            self.first(whole, dual)
        attempt = self.branched if visits else self.tried
        guesses = [(1 + guess) * self.lower for guess in _GUESSES if self.lower > 0]
        if visits and self.incumbent is not None:
            guesses = [self.lower + share * (self.best() - self.lower) for share in _BETWEEN]
        for guess in [*guesses, self.heaviest]:
            if visits and guess > self.best() * (1 - AGREEMENT):
                guess = math.inf  # all that is as light as the best must be among what is looked at
            most = min(guess, self.best() * (1 + ROUNDING), self.heaviest)
            if most < self.lower:
                continue
            tried = attempt(whole, dual, most)
            if tried is not None:
                return tried
            self.lower = max(self.lower, most)
        return None

    def _decided(self, tried: Tried) -> Search:
        """CBC's word on the arcs of the labels; both must find the same."""
        keep = np.zeros(tried.part.arcs.size, dtype=bool)
        keep[tried.labelled.used] = True
        part, chosen = tried.part.kept(keep), tried.part.arcs[tried.labelled.arcs]
        best = float(self.weight[chosen].sum())
        answer = self._minimised(part)
        found = f"label setting finds the same ({tried.labelled.labels:,} labels"
        if not isinstance(answer, Answer):
            check = f"label setting found it; the solver {answer.value}"
            return Search(Outcome.FEASIBLE, chosen, self.lower, part.arcs.size, check)
        part.problem.graph.decode(answer.arcs)  # refuses what is no path
        value = float(part.weight[answer.arcs].sum())
        difference = abs(value - best) / max(abs(value), abs(best), math.ulp(0.0))
        if difference > AGREEMENT and (answer.outcome is Outcome.OPTIMAL or value < best):
            raise SolverError(f"the solver's optimum is {value:g}, label setting's {best:g}")
        if answer.outcome is not Outcome.OPTIMAL:
            bound, check = max(self.lower, answer.bound), f"{found}); the solver ran out of time"
            return Search(answer.outcome, chosen, bound, part.arcs.size, check)
        check = f"{found}, relative difference {difference:.1g})"
        # Label setting's breaks ties the same way for any solver.
        return Search(answer.outcome, chosen, min(answer.bound, best), part.arcs.size, check)

    def _lightest_of_equals(self, tried: Tried) -> Search:
        """Of the paths as light as the best, the one that is best by what breaks ties: a search of its own."""
        best, part = self.best(), tried.part
        equals = part.problem.also(Resource(TIE, "", "", best * (1 + ROUNDING)), part.weight)
        parts = part.problem.graph.parts
        second = self.second[part.arcs]
        further = _Searching(equals, second, parts, self._left_s, self.solver, ties=self.ties + 1)
        try:
            found = further.run()
        except PlanningError:
            return self._unproven(tried)
        for name, seconds in further.phases.items():
            self.phases[name] += seconds
        chosen = part.arcs[found.arcs]
        value = float(self.weight[chosen].sum())
        check = f"bounds meet it; of equals: {found.check}"
        return Search(Outcome.OPTIMAL, chosen, min(self.lower, value), found.arcs_after, check)

    def _unproven(self, tried: Tried) -> Search:
        """Where labels ran out: the best plan known, or CBC's, and what is known of the optimum."""
        part, bound = tried.part, self.lower
        answer: Answer | NoAnswer = NoAnswer.OUT_OF_TIME
        if part.arcs.size < (_MANY if self.incumbent is not None else _MOST):
            answer = self._minimised(part)
        if isinstance(answer, Answer):
            self.remember(part, answer.arcs)
            bound = max(bound, min(answer.bound, tried.most))
        if self.incumbent is None:
            raise self._nothing(proven=answer is NoAnswer.INFEASIBLE and tried.most >= self.heaviest)
        best = self.best()
        outcome = Outcome.OPTIMAL if bound >= best * (1 - ROUNDING) else Outcome.FEASIBLE
        check = f"not checked: label setting gave up after {tried.labelled.labels:,} labels"
        return Search(outcome, self.incumbent, min(bound, best), part.arcs.size, check)

    def _nothing(self, *, proven: bool) -> PlanningError:
        if proven:
            return InfeasibleError("no plan keeps the limits", "loosen one of them")
        problem = f"no plan within the limits was found in {self.time_limit_s:g} s, nor that there is none"
        return SolverError(problem, "raise --time-limit, or loosen a limit")

    def _minimised(self, part: Part) -> Answer | NoAnswer:
        with self.phase("CBC"):
            return minimise(part.problem, part.weight, time_limit_s=self._left_s, solver=self.solver)

    @property
    def _left_s(self) -> float:
        return max(self.deadline - time.perf_counter(), 1.0)
