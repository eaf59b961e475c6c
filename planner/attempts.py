"""One guess of an upper bound at a time: the lightest path below it, or the proof that there is none."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from planner.branch import Branching
from planner.completion import completions
from planner.cost import ROUNDING, FloatArray
from planner.deadline import left_s
from planner.dual import Dual
from planner.errors import PlanningError
from planner.graph import IntArray
from planner.labels import Bound, Labelled, lightest
from planner.part import Part, Tried
from planner.problem import Problem

_BEAM = 12
# Share of the time limit after which labels give up; what is left is CBC's.
_LABELS_SHARE = 0.92


class Attempts:
    """What is known so far of one question: the best path met (``incumbent``), and what none undercuts (``lower``)."""

    def __init__(
        self,
        problem: Problem,
        weight: FloatArray,
        second: FloatArray,
        time_limit_s: float,
        solver: str,
        *,
        ties: int = 0,
    ) -> None:
        self.ties = ties
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

    def first(self, whole: Part, dual: Dual) -> None:
        """A plan to begin with, however good: it keeps the guesses from going too far."""
        for most in (1.3 * self.lower, 2 * self.lower, self.heaviest):
            most = min(most, self.heaviest)
            part = whole.kept(dual.within(most))
            bounds = completions(part.problem, part.weight, most, dual.prices, self.tracked, self.deadline)
            self.remember(part, self._lightest(part, most, bounds, _BEAM).arcs)
            if self.incumbent is not None:
                return

    def begun(self, whole: Part, dual: Dual) -> tuple[Part, Dual]:
        """The same where memory is limited, with a bound by visits; what may be lighter is left."""
        for most in (1.3 * self.lower, self.heaviest):
            most = min(most, self.best() * (1 + ROUNDING), self.heaviest)
            part = whole.kept(dual.within(most))
            tree = self._tree(part, most, dual.prices)
            with self.phase("grid"):
                tree.begin()
            self.remember(part, tree.best)
            self.lower = max(self.lower, min(tree.root.bound, tree.most))
            if tree.root.bound < math.inf:
                dual.prices = tree.root.prices
            if self.best() <= most:  # nothing that is better is outside of this part
                keep = np.zeros(part.arcs.size, dtype=bool)
                keep[tree.root.arcs] = True
                part = part.kept(keep)
                return part, Dual.of(part.problem, part.weight, dual.prices)
        return whole, dual

    def _tree(self, part: Part, most: float, prices: FloatArray) -> Branching:
        order = (self.second[part.arcs], part.problem.graph.parts)
        return Branching(part, most, prices, order, self.labels_deadline, (self.lower, self.best()))

    def tried(self, whole: Part, dual: Dual, most: float) -> Tried | None:
        """The lightest path that weighs at most ``most``; None where there is none."""
        prices = dual.prices
        with self.phase("bounds"):
            part = whole.kept(dual.within(most))
            for _ in range(4):
                narrower = Dual.of(part.problem, part.weight, prices)
                if not narrower.improve(8) or narrower.bound > most:
                    return None
                prices, before = narrower.prices, part.arcs.size
                self.remember(part, narrower.best)
                part = part.kept(narrower.within(most))
                if part.arcs.size > 0.9 * before:
                    break
        self.tracked = np.union1d(self.tracked, np.flatnonzero(prices > 0))
        bounds = self._completions(part, prices, most)
        if narrower.bound < 0.97 * most:
            found = self._lightest(part, most, bounds, _BEAM)
            self.remember(part, found.arcs)
            if self.best() < 0.999 * most:
                return self.tried(whole, dual, self.best() * (1 + ROUNDING))
        while True:
            found = self._lightest(part, most, bounds)
            if found.arcs is None:
                return None if found.complete else Tried(part, most, found, bounds, prices)
            over = np.flatnonzero(part.problem.used(found.arcs) > part.problem.ceilings)
            if not over.size:
                self.remember(part, found.arcs)
                return Tried(part, most, found, bounds, prices)
            self.tracked = np.union1d(self.tracked, over)
            bounds = self._completions(part, prices, most)

    def branched(self, whole: Part, dual: Dual, most: float) -> Tried | None:
        """The same with limits on memory."""
        tree = self._tree(whole.kept(dual.within(most)), most, dual.prices)
        with self.phase("branches"):
            tried = tree.run()
        self.remember(tree.part, tree.best)
        self.lower = max(self.lower, tree.lower)
        if tree.root.bound > -math.inf:
            dual.prices = tree.root.prices
        return tried

    def narrowed(self, tried: Tried) -> Tried:
        """The same with the optimum itself as the most."""
        most = self.best() * (1 + ROUNDING)
        if tried.most <= most * (1 + ROUNDING):
            return tried
        dual = Dual.of(tried.part.problem, tried.part.weight, tried.prices)
        part = tried.part.kept(dual.within(most))
        bounds = self._completions(part, tried.prices, most)
        found = self._lightest(part, most, bounds)
        return Tried(part, most, found, bounds, tried.prices) if found.arcs is not None else tried

    def _lightest(
        self, part: Part, most: float, bounds: Sequence[Bound], beam: int | None = None
    ) -> Labelled:
        order = (self.second[part.arcs], part.problem.graph.parts)
        with self.phase("labels" if beam is None else "beam"):
            return lightest(
                part.problem, part.weight, most, bounds, order=order, tracked=self.tracked, beam=beam,
                deadline=self.labels_deadline,
            )  # fmt: skip

    def _completions(self, part: Part, prices: FloatArray, most: float) -> list[Bound]:
        with self.phase("bounds"):
            return completions(part.problem, part.weight, most, prices, self.tracked, self.labels_deadline)

    def remember(self, part: Part, path: IntArray | None) -> None:
        """A path that keeps every limit."""
        if path is not None and float(part.weight[path].sum()) < self.best():
            self.incumbent = part.arcs[path]

    def best(self) -> float:
        return math.inf if self.incumbent is None else float(self.weight[self.incumbent].sum())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] += time.perf_counter() - begun
