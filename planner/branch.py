"""The lightest path within limits, memory among them, by branching on which device computes a layer.

    all arcs ──> bounds by visits, better prices, fixing ──> few enough labels? ──> the lightest path of this branch
                                                                   │ no
                                                                   └──> a branch for each device of one layer

Each path computes a layer on one device, so the branches cover all paths. The branch of the least bound comes
first. The layer is the one over which the mixture of paths that gives the prices disagrees most (Ryan and Foster
1981); the labels of a branch prove what is lightest in it.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.branch_node import Branch, Cut
from planner.completion import Priced, staircase, within
from planner.cost import ROUNDING, FloatArray
from planner.dual import Dual
from planner.graph import IntArray
from planner.labels import MOST_LABELS, Bound, Labelled, lightest
from planner.part import Part, Tried
from planner.visits import MEMORY, Ahead, ExhaustedError, Visits

_BEAM = 12
# Labels up to which a branch is decided by them.
_FEW_LABELS = 30_000
# Arcs beyond which a coarse bound comes first.
_MANY_ARCS = 50_000
# Rounds of prices between two fixings, and the share of the gap that they must close to go on.
_ROUNDS = 4
_WORTH = 0.08
# Prices move at most by these factors in a round, and by this share of the bound.
_LESS, _MORE, _STEP = 0.4, 2.5, 0.03


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A branch that labels decided: ``arcs`` of it, and ``labelled`` in places among those."""

    arcs: IntArray
    labelled: Labelled
    prices: FloatArray


class Branching:
    """``most``: nothing heavier is looked for. ``best``: the lightest path met, in places of ``problem``; ``leaf``
    where it was found; ``lower``: what no path within the limits undercuts, unless it is above ``most``."""

    def __init__(
        self,
        part: Part,
        most: float,
        prices: FloatArray,
        order: Sequence[FloatArray],
        deadline: float,
    ) -> None:
        problem, weight = part.problem, part.weight
        self.part = part
        visits = Visits.of(problem)
        self.visits, self.problem, self.weight, self.order = visits, problem, weight, order
        self.unit = Dual.of(problem, weight).unit
        self.limit, self.deadline = most, deadline
        self.best: IntArray | None = None
        self.value = math.inf
        self.leaf: _Leaf | None = None
        self.lower, self.branches, self.labels = -math.inf, 0, 0
        self.tracked = np.array(
            [place for place, each in enumerate(problem.resources) if each.limit == MEMORY], dtype=np.int64
        )
        self.root = Branch(np.arange(problem.graph.arcs), prices, -math.inf)

    @property
    def most(self) -> float:
        return min(self.limit, self.value * (1 + ROUNDING))

    def run(self) -> Tried | None:
        """The part that holds the optimum, its labels incomplete where time ran out; None where nothing is as light
        as ``most``."""
        number = itertools.count()
        queue = [(self.root.bound, next(number), self.root)]
        while queue and queue[0][0] <= self.most:
            self.lower = max(self.lower, queue[0][0])
            branch = heapq.heappop(queue)[-1]
            try:
                further = self._explored(branch)
            except ExhaustedError:
                self.lower = max(self.lower, min([branch.bound, *(each[0] for each in queue)]))
                return self._unsettled(tied=False)
            for each in further:
                heapq.heappush(queue, (each.bound, next(number), each))
            if queue and queue[0][0] >= self.value * (1 - ROUNDING):
                self.lower = max(self.lower, queue[0][0])
                return self._unsettled(tied=True)
        self.lower = max(self.lower, self.most)
        self._narrow()
        if self.leaf is None:
            return None
        keep = np.zeros(self.part.arcs.size, dtype=bool)
        keep[self.leaf.arcs] = True
        return Tried(self.part.kept(keep), self.most, self.leaf.labelled, [], self.leaf.prices)

    def _unsettled(self, *, tied: bool) -> Tried:
        none = Labelled(None, self.labels, False, np.zeros(0, dtype=np.int64))
        return Tried(self.part, self.most, none, [], self.root.prices, tied)

    def _narrow(self) -> None:
        """The leaf's labels once more, with the optimum itself as the most."""
        if self.leaf is None:
            return
        visits = self._among(self.leaf.arcs)
        try:
            ahead = self._ahead(visits, self.leaf.arcs, self.leaf.prices)
            assert ahead is not None
            keep = visits.within(self.weight[self.leaf.arcs], ahead, self.most, self.deadline)
        except ExhaustedError:
            return
        arcs = self.leaf.arcs[keep]
        visits = visits.restricted(keep)
        found = self._labelled(visits, arcs, (self._plain(visits, arcs, self.leaf.prices), ahead))
        if found.arcs is not None and found.complete:
            self.leaf = _Leaf(arcs, found, self.leaf.prices)

    def _among(self, arcs: IntArray) -> Visits:
        keep = np.zeros(self.problem.graph.arcs, dtype=bool)
        keep[arcs] = True
        return self.visits.restricted(keep)

    def _ahead(self, visits: Visits, arcs: IntArray, prices: FloatArray) -> Ahead | None:
        return visits.ahead(self.weight[arcs], prices / self.unit, self.most, self.deadline)

    def _explored(self, branch: Branch) -> list[Branch]:
        """What is left to look at of a branch. Raises ``ExhaustedError`` where time ran out."""
        self.branches += 1
        visits = self._among(branch.arcs)
        try:
            settled = self._settled(branch, visits)
            if settled is None:
                return []
            visits, ahead = settled
            visits, stairs = self._narrower(branch, visits)
            if not branch.arcs.size or self._decided(branch, visits, (ahead, *stairs), _FEW_LABELS):
                return []
        except ExhaustedError:
            if time.perf_counter() > self.deadline:
                raise
            visits = self._among(branch.arcs)
        further = branch.split(visits.problem.graph, self.problem.graph.arcs)
        if not further and not self._decided(branch, visits, (), MOST_LABELS):
            raise ExhaustedError  # the bundles are settled, the hops are not
        return further

    def _settled(self, branch: Branch, visits: Visits) -> tuple[Visits, Ahead] | None:
        """Better prices and fewer arcs by turns, until neither is worth the while; None where nothing is left."""
        if branch.arcs.size > _MANY_ARCS:
            visits = self._coarsely(branch, visits)
        best, wanted = self._ahead(visits, branch.arcs, branch.prices), branch.prices
        rounds = 0
        while best is not None:
            before, last = branch.bound, best
            for _ in range(rounds):
                found = self._ahead(visits, branch.arcs, wanted)
                if found is None:
                    return None
                if found.value > best.value:
                    best, branch.prices = found, wanted
                wanted = self._met(branch, visits, found)
            if not rounds:
                wanted = self._met(branch, visits, best)
            branch.bound = max(branch.bound, best.value)
            if best is not last or not rounds:
                keep = visits.within(self.weight[branch.arcs], best, self.most, self.deadline)
                if not keep.any():
                    return None
                visits, branch.arcs = visits.restricted(keep), branch.arcs[keep]
            if rounds and branch.bound - before <= _WORTH * (self.most - before):
                return visits, best
            rounds = _ROUNDS
        return None

    def _coarsely(self, branch: Branch, visits: Visits) -> Visits:
        """What is left of many arcs by a bound that is quick."""
        coarse = visits.coarse()
        ahead = self._ahead(coarse, branch.arcs, branch.prices)
        keep = np.zeros(branch.arcs.size, dtype=bool)
        if ahead is not None:
            keep = coarse.within(self.weight[branch.arcs], ahead, self.most, self.deadline)
        branch.arcs = branch.arcs[keep]
        return visits.restricted(keep)

    def _narrower(self, branch: Branch, visits: Visits) -> tuple[Visits, list[Bound]]:
        """Bounds that are exact in a sum other than memory, for each that has a price, and what they leave."""
        found: list[Bound] = []
        others = [
            place for place in np.flatnonzero(branch.prices > 0)
            if self.problem.resources[place].limit != MEMORY
        ]  # fmt: skip
        for place in others:
            if not branch.arcs.size:
                break
            weight, prices = self.weight[branch.arcs], branch.prices / self.unit
            stairs = staircase(visits.problem, weight, self.most, int(place), prices, self.deadline)
            if stairs is None:
                continue
            keep = within(visits.problem, weight, self.most, stairs, self.deadline)
            if keep is not None:
                visits, branch.arcs = visits.restricted(keep), branch.arcs[keep]
            found.append(stairs)
        return visits, found

    def _met(self, branch: Branch, visits: Visits, found: Ahead) -> FloatArray:
        """A path that a bound found joins the cuts; the prices that look better with it, half way from the best."""
        path = branch.arcs[found.path]
        over = (visits.problem.used(found.path) - visits.problem.ceilings) / self.unit
        self._meet(path)
        branch.cuts.append(Cut(path, float(self.weight[path].sum()), over))
        return branch.wanted()

    def _decided(self, branch: Branch, visits: Visits, bounds: Sequence[Bound], labels: int) -> bool:
        """Whether labels settle the branch. A beam looks for a path first."""
        problem = visits.problem
        self.tracked = np.union1d(self.tracked, np.flatnonzero(branch.prices > 0))
        plain = self._plain(visits, branch.arcs, branch.prices)
        few = self._labelled(visits, branch.arcs, (plain, *bounds), beam=_BEAM)
        if few.arcs is not None:
            self._meet(branch.arcs[few.arcs])
        while True:
            found = self._labelled(visits, branch.arcs, (plain, *bounds), labels=labels)
            self.labels += found.labels
            if not found.complete:
                if time.perf_counter() > self.deadline:
                    raise ExhaustedError
                return False
            if found.arcs is None:
                return True
            over = np.flatnonzero(problem.used(found.arcs) > problem.ceilings)
            if not over.size:
                break
            self.tracked = np.union1d(self.tracked, over)
        path = branch.arcs[found.arcs]
        self._meet(path)
        if self._better(path):
            self.leaf = _Leaf(branch.arcs, found, branch.prices)
        return True

    def _plain(self, visits: Visits, arcs: IntArray, prices: FloatArray) -> Bound:
        problem, prices = visits.problem, prices / self.unit
        ahead = problem.graph.behind(self.weight[arcs] + problem.loads.T @ prices)
        return Priced(prices, ahead, float(prices @ problem.ceilings))

    def _labelled(
        self,
        visits: Visits,
        arcs: IntArray,
        bounds: Sequence[Bound],
        beam: int | None = None,
        labels: int = MOST_LABELS,
    ) -> Labelled:
        return lightest(
            visits.problem, self.weight[arcs], self.most, bounds, order=[each[arcs] for each in self.order],
            tracked=self.tracked, beam=beam, deadline=self.deadline, most_labels=labels,
        )  # fmt: skip

    def _better(self, path: IntArray) -> bool:
        """Whether a path is as light as the best one known, and before that of the leaf in what breaks ties."""
        if self.weight[path].sum() > self.value * (1 + ROUNDING):
            return False
        if self.leaf is None or self.leaf.labelled.arcs is None:
            return True
        other = self.leaf.arcs[self.leaf.labelled.arcs]
        if self.weight[other].sum() > self.value * (1 + ROUNDING):
            return True
        mine, theirs = ([each[arcs].sum() for each in self.order] for arcs in (path, other))
        return mine < theirs

    def _meet(self, path: IntArray) -> None:
        if self.problem.kept(path) and self.weight[path].sum() < self.value:
            self.best, self.value = path, float(self.weight[path].sum())
