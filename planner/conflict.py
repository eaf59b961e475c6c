"""Why no plan keeps the limits: a smallest set of them in conflict, and the nearest value of each that would do.

Deletion filter (Chinneck and Dravnieks, "Locating minimal infeasible constraint sets in linear programs", 1991) over
whole limits: each is left out in turn, and stays out if the others are still in conflict. Limits that not even the plan
made for them alone keeps are named first. The nearest value of a limit is the least that plans within others take of
it; what a remedy says was reached by a plan that keeps all the rest. Where time does not suffice to prove it the
least, it is called one that was found, beside a bound.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from planner.conflict_words import Least, apart, impossible, others
from planner.cost import ROUNDING, CostModel, FloatArray
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.period import period_s
from planner.placement import without
from planner.plan import Baseline, Outcome
from planner.problem import Problem
from planner.rules import CRITERION, Rule, only, rules, taken
from planner.search import Search, search
from planner.throughput import least_period_plan

# Where the least of a limit is found by halving, it is exact to this share.
_PRECISION = 1e-4
# Of the time that is left, what one search may take.
_SHARE = 0.2


class _OutOfTimeError(Exception):
    """Neither a plan nor a proof that there is none."""


class _Lightest(NamedTuple):
    """No plan weighs less by more than ``gap``."""

    plan: Baseline
    gap: float
    proven: bool


def explain_conflict(
    model: CostModel,
    limits: Limits,
    *,
    fleet: Fleet | None = None,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> InfeasibleError | None:
    """The error to raise where no plan keeps the limits; None where there is no plan even without them.

    ``fleet``: with the links that ``limits`` exclude; the model's has none of them. What time does not suffice for is
    left out: then the set may not be minimal, but a remedy holds all the same. Raises ``SolverError`` where a plan
    does keep the limits.
    """
    return _Conflict(model, fleet or model.fleet, limits, time_limit_s, solver).explain()


class _Conflict:
    def __init__(
        self, model: CostModel, fleet: Fleet, limits: Limits, time_limit_s: float, solver: str
    ) -> None:
        self.model, self.fleet, self.limits = model, fleet, limits
        self.rules = rules(fleet, limits)
        self.solver = solver
        self.known: dict[tuple[Rule, frozenset[Rule]], Least | None] = {}
        self.deadline, self.hurried = time.perf_counter() + time_limit_s, False

    def explain(self) -> InfeasibleError | None:
        if self._plan(()) is None:
            return None
        alone: Sequence[Rule] = self.rules
        if len(self.rules) > 1 or not self.rules[0].valued:
            self._check_conflict()
            alone = [rule for rule in self.rules if not self._possible([rule])]
        core = alone or self._filtered(self.rules)
        remedies: dict[Rule, Least] = {}
        for rule in core:
            found = self._least(rule, others(self.rules, rule))
            if found is None:
                continue
            if rule.valued and rule.keeps(found.taken):
                raise self._no_conflict()
            remedies[rule] = found
        single = alone or len(core) == 1
        message = self._too_tight(core, remedies) if single else self._apart(core, remedies)
        if self.hurried:
            message += "; there was no time to prove that these are all and the nearest"
        options = [rule.easing(found.taken) for rule, found in remedies.items()]
        return InfeasibleError(message, ", or ".join(options) or self._together(core))

    def _too_tight(self, alone: Sequence[Rule], remedies: dict[Rule, Least]) -> str:
        """Limits that no plan keeps, each on its own."""
        clauses = []
        for rule in alone:
            least = self._least(rule, ())
            clauses.append(
                impossible(rule, least, remedies.get(rule))
                if rule.valued and least is not None
                else f"no plan keeps {rule}"
            )
        return "; ".join(clauses)

    def _apart(self, core: Sequence[Rule], remedies: dict[Rule, Least]) -> str:
        """Limits that each have plans, but none together: how near those that keep the others come."""
        nearest = [(rule, self._least(rule, others(core, rule))) for rule in reversed(core) if rule.valued]
        clauses = [
            apart(rule, least, core, remedies.get(rule)) for rule, least in nearest if least is not None
        ]
        which = {2: "both limits", 3: "all three limits"}.get(len(core), f"all {len(core)} limits")
        if not all(rule.valued for rule in core):
            which += f" ({', '.join(map(str, core))})"
        return f"no plan keeps {which}" + (": " + "; ".join(clauses) if clauses else "")

    def _check_conflict(self) -> None:
        """Refuse to explain what is none; where time does not suffice to tell, it is one."""
        try:
            found = self._plan(self.rules)
        except _OutOfTimeError:
            return
        if found is not None:
            raise self._no_conflict()

    def _no_conflict(self) -> SolverError:
        return SolverError(
            f"{self.solver} found no plan within the limits, yet there is one",
            "raise --time-limit, or try another --solver",
        )

    def _filtered(self, kept: Sequence[Rule]) -> list[Rule]:
        """A smallest set of these rules that is still in conflict: none of it can be left out."""
        core = list(kept)
        for rule in kept:
            if not self._possible(others(core, rule)):
                core.remove(rule)
        return core

    def _possible(self, kept: Sequence[Rule]) -> bool:
        try:
            return self._plan(kept) is not None
        except _OutOfTimeError:
            self.hurried = True
            return True

    def _together(self, core: Sequence[Rule]) -> str:
        """What to ease at once where no single limit would do; each to its least, the ones before it eased."""
        loose = [core[-1]]
        while not self._possible(rest := [rule for rule in self.rules if rule not in loose]):
            loose.append(self._filtered(rest)[-1])
        kept, remedies = [rule for rule in self.rules if rule not in loose], []
        for rule in loose:
            least = self._least(rule, kept)
            if least is None:  # out of time
                return "loosen one of them"
            remedies.append(rule.easing(least.taken))
            eased = rule.eased(least.taken)
            kept += [eased] if eased else []
        return ", and ".join(remedies)

    # The least of one limit within others ----------------------------------------------------------

    def _least(self, rule: Rule, kept: Sequence[Rule]) -> Least | None:
        """The least that a plan within the rules ``kept`` takes of one; None where there is none, or no time for it."""
        key = rule, frozenset(kept)
        if key not in self.known:
            self.known[key] = self._sought(rule, kept)
        return self.known[key]

    def _sought(self, rule: Rule, kept: Sequence[Rule]) -> Least | None:
        try:
            if rule.field in CRITERION or rule.field == "max_memory_bytes":
                return self._least_sum(rule, kept)
            if rule.field == "max_period_s":
                return self._least_period(kept)
            return self._least_by_halving(rule, kept)
        except _OutOfTimeError:
            self.hurried = True
            return None

    def _least_sum(self, rule: Rule, kept: Sequence[Rule]) -> Least | None:
        problem = self._problem(kept)
        if rule.field in CRITERION:
            weight = problem.graph.weight[CRITERION[rule.field]]
        else:
            device = [each.name for each in self.fleet.devices].index(rule.item)
            graph = problem.graph
            memory = self.model.memory_bytes[graph.way, graph.start, graph.stop]
            weight = np.where(graph.device == device, memory, 0.0)
        found = self._lightest(problem, weight)
        if found is None:
            return None
        amount = taken(rule, self.fleet, self.limits, found.plan)
        return Least(amount, amount - found.gap, found.proven)

    def _least_period(self, kept: Sequence[Rule]) -> Least | None:
        fleet, limits = only(self.fleet, self.limits, kept, len(self.model.chain))
        model = replace(self.model, fleet=without(fleet, limits))
        left_s = self.deadline - time.perf_counter()
        if left_s <= 0:
            raise _OutOfTimeError
        try:
            found = least_period_plan(
                model, limits, several=not limits.once, time_limit_s=left_s * _SHARE, solver=self.solver
            )
        except SolverError:
            raise _OutOfTimeError from None
        except PlanningError:
            return None
        amount = period_s(model.fleet, *found.parts)
        return Least(amount, min(found.bound_s, amount), found.outcome is Outcome.OPTIMAL)

    def _least_by_halving(self, rule: Rule, kept: Sequence[Rule]) -> Least | None:
        plan = self._plan(kept)
        if plan is None or not rule.valued:
            return None if plan is None else Least(0.0, 0.0, proven=True)
        proven, bad, good = True, rule.asked, taken(rule, self.fleet, self.limits, plan)
        while abs(good - bad) > (1 if rule.kind.counts else _PRECISION * good):
            middle = (bad + good) // 2 if rule.kind.counts else (bad + good) / 2
            try:
                plan = self._plan([*kept, replace(rule, asked=middle)])
            except _OutOfTimeError:
                proven = False
                break
            if plan is None:
                bad = middle
            else:
                good = taken(rule, self.fleet, self.limits, plan)
        return Least(good, bad, proven)

    # Plans within rules ----------------------------------------------------------------------------

    def _plan(self, kept: Sequence[Rule]) -> Baseline | None:
        """Some plan that keeps these rules."""
        problem = self._problem(kept)
        weight = np.array(problem.graph.parts)
        for load, ceiling in _sums(problem):
            weight += load / (ceiling or load.max() or 1.0)
        found = self._lightest(problem, weight)
        return None if found is None else found.plan

    def _problem(self, kept: Sequence[Rule]) -> Problem:
        return self._build(tuple(sorted(kept, key=self._place)))

    def _place(self, rule: Rule) -> int:
        return [(each.field, each.item) for each in self.rules].index((rule.field, rule.item))

    @functools.lru_cache(maxsize=2)  # noqa: B019 - lives as long as the explanation
    def _build(self, kept: tuple[Rule, ...]) -> Problem:
        fleet, limits = only(self.fleet, self.limits, kept, len(self.model.chain))
        return Problem.of(replace(self.model, fleet=without(fleet, limits)), limits)

    def _lightest(self, problem: Problem, weight: FloatArray) -> _Lightest | None:
        """The lightest path that keeps every limit; None where there is none: the shortest where that keeps them."""
        graph, gap, proven = problem.graph, 0.0, True
        arcs = graph.path(weight)
        if arcs is not None and not problem.kept(arcs):
            found = self._searched(problem, weight)
            arcs = None if found is None else found.arcs
            if found is not None:
                gap, proven = float(weight[found.arcs].sum()) - found.bound, found.outcome is Outcome.OPTIMAL
        if arcs is None:
            return None
        stages, hops = graph.decode(arcs)
        return _Lightest(Baseline("", stages, hops, graph.model.price(stages, hops)), gap, proven)

    def _searched(self, problem: Problem, weight: FloatArray) -> Search | None:
        for load, ceiling in _sums(problem):
            if problem.graph.ahead(load)[problem.graph.last] > ceiling * (1 + ROUNDING):
                return None
        begun = time.perf_counter()
        limit_s = (self.deadline - begun) * _SHARE
        if limit_s <= 0:
            raise _OutOfTimeError
        try:
            return search(problem, weight, time_limit_s=limit_s, solver=self.solver)
        except SolverError:
            if time.perf_counter() - begun > limit_s / 2:
                raise _OutOfTimeError from None
            raise
        except PlanningError:
            return None


def _sums(problem: Problem) -> Iterable[tuple[FloatArray, float]]:
    """The loads, shape (arcs,), and ceilings of the resources to which nothing adds a negative amount."""
    for place, resource in enumerate(problem.resources):
        load = problem.loads[[place]].toarray().ravel()
        if (load >= 0).all():
            yield load, resource.ceiling
