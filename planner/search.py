"""The search over the layered graph: the optimum within the limits, proved.

    all arcs ──> dominance ──> guess an upper bound ──> prices, fixing ──> beam ──> labels ──> CBC
                                  ^      ^                                  │         │
                                  │      └──────── a plan: guess its weight ┘         │
                                  └──────────── none so light: guess more ────────────┘

Each step only drops arcs that no path as light as the optimum needs. A path of at most the guessed weight uses
only arcs whose Lagrangian bound is below the guess; where no such path keeps the limits, the guess itself is a
lower bound, and the next one is higher. Label setting tracks the resources that prices do not keep down by
themselves, more of them as its paths break limits (decremental state space relaxation, Righini and Salani
2008). CBC decides and proves on the arcs of all labels that are left, and both must agree.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from planner.completion import completions
from planner.cost import ROUNDING, FloatArray
from planner.deadline import left_s
from planner.dominance import undominated
from planner.dual import Dual
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.graph import BoolArray, IntArray
from planner.ilp import Answer, minimise
from planner.labels import Bound, Labelled, lightest
from planner.limits import Criterion
from planner.plan import Outcome
from planner.problem import Problem
from planner.solvers import NoAnswer

# Upper bounds to try, by how much they exceed the lower bound; after them, the heaviest path there is.
_GUESSES = (1e-6, 0.01, 0.02, 0.04, 0.06, 0.085, 0.115, 0.15, 0.2, 0.27, 0.36, 0.5, 0.75, 1.2, 3.0)
# Relative difference up to which two prices of one plan, or two optima, are the same.
AGREEMENT = 1e-6
_BEAM = 12
# Share of the time limit after which labels give up; what is left is CBC's.
_LABELS_SHARE = 0.85
# Arcs of which CBC proves nothing in a minute.
_MANY = 20_000


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


@dataclass(frozen=True, eq=False)
class _Part:
    """A problem over some of the arcs; ``arcs`` are their places in the whole one."""

    problem: Problem
    weight: FloatArray
    arcs: IntArray

    def kept(self, keep: BoolArray) -> _Part:
        if keep.all():
            return self
        return _Part(self.problem.restricted(keep), self.weight[keep], self.arcs[keep])


@dataclass(frozen=True, eq=False)
class _Tried:
    """What came of a guess: the part that was left, its labels and their bounds."""

    part: _Part
    most: float
    labelled: Labelled
    bounds: list[Bound]
    prices: FloatArray


class _Searching:
    def __init__(
        self, problem: Problem, weight: FloatArray, second: FloatArray, time_limit_s: float, solver: str
    ) -> None:
        self.problem, self.weight, self.second, self.solver = problem, weight, second, solver
        self.time_limit_s, begun = left_s(time_limit_s, problem), time.perf_counter()
        self.deadline = begun + self.time_limit_s
        self.labels_deadline = begun + _LABELS_SHARE * self.time_limit_s
        self.phases: defaultdict[str, float] = defaultdict(float)
        self.tracked: IntArray = np.zeros(0, dtype=np.int64)
        self.incumbent: IntArray | None = None
        self.lower = -math.inf
        heaviest = -float(problem.graph.ahead(-weight)[problem.graph.last])
        if math.isinf(heaviest):
            raise PlanningError(
                "the bundles that the devices can run do not join into a whole network",
                "profile another backend or precision too, or loosen where layers may run",
            )
        self.heaviest = heaviest * (1 + ROUNDING)

    def run(self) -> Search:
        tried = self._guess()
        if tried is None:
            raise self._nothing(proven=True)
        if not tried.labelled.complete:
            return self._unproven(tried)
        tried = self._narrowed(tried)
        return self._decided(tried)

    def plain(self) -> Search:
        """CBC over all arcs."""
        with self._phase("CBC"):
            answer = minimise(self.problem, self.weight, time_limit_s=self.time_limit_s, solver=self.solver)
        if not isinstance(answer, Answer):
            raise self._nothing(proven=answer is NoAnswer.INFEASIBLE)
        arcs = self.problem.graph.arcs
        return Search(answer.outcome, answer.arcs, answer.bound, arcs, "not checked: nothing was reduced")

    def _guess(self) -> _Tried | None:
        """The lightest path, by guesses: the first that is not too low holds it. None where there is none."""
        with self._phase("dominance"):
            keep = undominated(self.problem, self.weight, self.second)
            whole = _Part(self.problem, self.weight, np.arange(keep.size)).kept(keep)
        with self._phase("bounds"):
            dual = Dual.of(whole.problem, whole.weight)
            dual.improve(24)
            self._remember(whole, dual.best)
        self.lower = dual.bound
        if whole.problem.resources and self.incumbent is None:
            self._first(whole, dual)
        guesses = [(1 + guess) * dual.bound for guess in _GUESSES if dual.bound > 0]
        for guess in [*guesses, self.heaviest]:
            most = min(guess, self._best() * (1 + ROUNDING), self.heaviest)
            if most < self.lower:
                continue
            tried = self._tried(whole, dual, most)
            if tried is not None:
                return tried
            self.lower = max(self.lower, most)
        return None

    def _first(self, whole: _Part, dual: Dual) -> None:
        """A plan to begin with, however good: it keeps the guesses from going too far."""
        for most in (1.3 * self.lower, 2 * self.lower, self.heaviest):
            most = min(most, self.heaviest)
            part = whole.kept(dual.within(most))
            bounds = completions(part.problem, part.weight, most, dual.prices, self.tracked, self.deadline)
            self._remember(part, self._lightest(part, most, bounds, _BEAM).arcs)
            if self.incumbent is not None:
                return

    def _tried(self, whole: _Part, dual: Dual, most: float) -> _Tried | None:
        """The lightest path that weighs at most ``most``; None where there is none."""
        prices = dual.prices
        with self._phase("bounds"):
            part = whole.kept(dual.within(most))
            for _ in range(4):
                narrower = Dual.of(part.problem, part.weight, prices)
                if not narrower.improve(8) or narrower.bound > most:
                    return None
                prices, before = narrower.prices, part.arcs.size
                self._remember(part, narrower.best)
                part = part.kept(narrower.within(most))
                if part.arcs.size > 0.9 * before:
                    break
        self.tracked = np.union1d(self.tracked, np.flatnonzero(prices > 0))
        bounds = self._completions(part, prices, most)
        if narrower.bound < 0.97 * most:
            found = self._lightest(part, most, bounds, _BEAM)
            self._remember(part, found.arcs)
            if self._best() < 0.999 * most:
                return self._tried(whole, dual, self._best() * (1 + ROUNDING))
        while True:
            found = self._lightest(part, most, bounds)
            if found.arcs is None:
                return None if found.complete else _Tried(part, most, found, bounds, prices)
            over = np.flatnonzero(part.problem.used(found.arcs) > part.problem.ceilings)
            if not over.size:
                self._remember(part, found.arcs)
                return _Tried(part, most, found, bounds, prices)
            self.tracked = np.union1d(self.tracked, over)
            bounds = self._completions(part, prices, most)

    def _narrowed(self, tried: _Tried) -> _Tried:
        """The same with the optimum itself as the most."""
        most = self._best() * (1 + ROUNDING)
        if tried.most <= most * (1 + ROUNDING):
            return tried
        dual = Dual.of(tried.part.problem, tried.part.weight, tried.prices)
        part = tried.part.kept(dual.within(most))
        bounds = self._completions(part, tried.prices, most)
        found = self._lightest(part, most, bounds)
        return _Tried(part, most, found, bounds, tried.prices) if found.arcs is not None else tried

    def _decided(self, tried: _Tried) -> Search:
        """CBC's word on the arcs of the labels; both must find the same."""
        keep = np.zeros(tried.part.arcs.size, dtype=bool)
        keep[tried.labelled.used] = True
        part, chosen = tried.part.kept(keep), tried.part.arcs[tried.labelled.arcs]
        best = float(self.weight[chosen].sum())
        with self._phase("CBC"):
            left_s = max(self.deadline - time.perf_counter(), 1.0)
            answer = minimise(part.problem, part.weight, time_limit_s=left_s, solver=self.solver)
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

    def _unproven(self, tried: _Tried) -> Search:
        """Where labels ran out: the best plan known, or CBC's, and what is known of the optimum."""
        part, bound = tried.part, self.lower
        answer: Answer | NoAnswer = NoAnswer.OUT_OF_TIME
        if self.incumbent is None or part.arcs.size < _MANY:
            with self._phase("CBC"):
                left_s = max(self.deadline - time.perf_counter(), 1.0)
                answer = minimise(part.problem, part.weight, time_limit_s=left_s, solver=self.solver)
        if isinstance(answer, Answer):
            self._remember(part, answer.arcs)
            bound = max(bound, min(answer.bound, tried.most))
        if self.incumbent is None:
            raise self._nothing(proven=answer is NoAnswer.INFEASIBLE and tried.most >= self.heaviest)
        best = self._best()
        outcome = Outcome.OPTIMAL if bound >= best * (1 - ROUNDING) else Outcome.FEASIBLE
        check = f"not checked: label setting gave up after {tried.labelled.labels:,} labels"
        return Search(outcome, self.incumbent, min(bound, best), part.arcs.size, check)

    def _nothing(self, *, proven: bool) -> PlanningError:
        if proven:
            return InfeasibleError("no plan keeps the limits", "loosen one of them")
        problem = f"no plan within the limits was found in {self.time_limit_s:g} s, nor that there is none"
        return SolverError(problem, "raise --time-limit, or loosen a limit")

    def _lightest(
        self, part: _Part, most: float, bounds: Sequence[Bound], beam: int | None = None
    ) -> Labelled:
        order = (self.second[part.arcs], part.problem.graph.parts)
        with self._phase("labels" if beam is None else "beam"):
            return lightest(
                part.problem, part.weight, most, bounds, order=order, tracked=self.tracked, beam=beam,
                deadline=self.labels_deadline,
            )  # fmt: skip

    def _completions(self, part: _Part, prices: FloatArray, most: float) -> list[Bound]:
        with self._phase("bounds"):
            return completions(part.problem, part.weight, most, prices, self.tracked, self.labels_deadline)

    def _remember(self, part: _Part, path: IntArray | None) -> None:
        """A path that keeps every limit."""
        if path is not None and float(part.weight[path].sum()) < self._best():
            self.incumbent = part.arcs[path]

    def _best(self) -> float:
        return math.inf if self.incumbent is None else float(self.weight[self.incumbent].sum())

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] += time.perf_counter() - begun
