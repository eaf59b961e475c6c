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
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.branch_begin import Begun, ExhaustedError, grain
from planner.branch_node import Branch
from planner.completion import Priced, staircase, within
from planner.cost import ROUNDING, FloatArray
from planner.graph import IntArray
from planner.grid import Grid
from planner.labels import MOST_LABELS, Bound, Labelled, lightest
from planner.part import Part, Tried
from planner.tally import MEMORY, Tally

_BEAM = 12
# Labels up to which a branch is decided by them.
_FEW_LABELS = 30_000
# Rounds of prices between two fixings, and the share of arcs that must go for another.
_ROUNDS, _WORTH = 6, 0.3
# Arcs beyond which labels are too many, to begin with, and by how much fewer it must be after a failure.
_TOO_MANY, _FEWER = 30_000, 0.75
# Arcs up to which bounds on other sums are not rounded.
_FEW_ARCS = 20_000


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A branch that labels decided: ``arcs`` of it, and ``labelled`` in places among those."""

    arcs: IntArray
    labelled: Labelled
    prices: FloatArray


class Branching(Begun):
    """``leaf``: where the lightest path was found; ``lower``: what no path within the limits undercuts, unless it is
    above ``most``."""

    def __init__(
        self,
        part: Part,
        most: float,
        prices: FloatArray,
        order: Sequence[FloatArray],
        deadline: float,
        known: tuple[float, float],
    ) -> None:
        super().__init__(part, most, prices, deadline, known)
        self.order = order
        self.leaf: _Leaf | None = None
        self.labels, self.too_many = 0, _TOO_MANY
        resources = self.problem.resources
        self.memories = np.flatnonzero([each.limit == MEMORY for each in resources]).astype(np.int64)
        self.totals: IntArray = np.zeros(0, dtype=np.int64)

    def run(self) -> Tried | None:
        """The part that holds the optimum, its labels incomplete where time ran out; None where nothing is as light
        as ``most``."""
        number = itertools.count()
        queue = [(self.root.bound, next(number), self.root)]
        while queue and queue[0][0] <= self.most:
            self.lower = max(self.lower, queue[0][0])
            if self.lower >= self.value * (1 - ROUNDING):
                return self._unsettled(tied=True)
            branch = heapq.heappop(queue)[-1]
            try:
                further = self._explored(branch)
            except ExhaustedError:
                self.lower = max(self.lower, min([branch.bound, *(each[0] for each in queue)]))
                return self._unsettled(tied=False)
            for each in further:
                heapq.heappush(queue, (each.bound, next(number), each))
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
        visits = self.among(self.leaf.arcs)
        grid = Grid.of(visits, grain(self.leaf.arcs.size))
        ahead = grid.ahead(self.weight[self.leaf.arcs], self.leaf.prices / self.unit)
        assert ahead is not None
        keep = grid.through(self.weight[self.leaf.arcs], ahead) <= self.most
        arcs = self.leaf.arcs[keep]
        visits = visits.restricted(keep)
        found = self._labelled(visits, arcs, (self._plain(visits, arcs, self.leaf.prices), ahead))
        if found.arcs is not None and found.complete and visits.problem.kept(found.arcs):
            self.leaf = _Leaf(arcs, found, self.leaf.prices)

    def _explored(self, branch: Branch) -> list[Branch]:
        """What is left to look at of a branch. Raises ``ExhaustedError`` where time ran out."""
        visits = self.among(branch.arcs)
        try:
            settled = self._settled(branch, visits)
            if settled is None:
                return []
            visits, bounds, strong = settled
            for place in strong if branch.arcs.size <= _FEW_ARCS else ():
                visits, stairs = self._exactly(branch, visits, place)
                if not branch.arcs.size:
                    return []
                bounds += [stairs] if stairs else []
            if branch.arcs.size <= self.too_many:
                if self._decided(branch, visits, bounds, _FEW_LABELS):
                    return []
                self.too_many = min(self.too_many, int(_FEWER * branch.arcs.size))
        except ExhaustedError:
            if time.perf_counter() > self.deadline:
                raise
            visits = self.among(branch.arcs)
        further = branch.split(visits.problem.graph, self.problem.graph.arcs)
        if not further and not self._decided(branch, visits, (), MOST_LABELS):
            raise ExhaustedError  # the bundles are settled, the hops are not
        return further

    def _settled(self, branch: Branch, visits: Tally) -> tuple[Tally, list[Bound], list[int]] | None:
        """Better prices, bounds and fewer arcs by turns, until they are not worth the while; and the resources whose
        own bounds leave arcs out. None where nothing is left."""
        while True:
            before, grid = branch.arcs.size, Grid.of(visits, grain(branch.arcs.size))
            found = self.priced(branch, grid, _ROUNDS, self.most)
            bounds: list[Bound] = []
            strong = []
            for place in (None, *self.others(branch)):
                if place is not None:
                    total = self.total(branch, visits, place)
                    if total is None:
                        continue
                    grid, found = total
                if found is None or found.value > self.most:
                    return None
                bounds.append(found)
                if place is not None and found.value < 2 * branch.bound - self.most:
                    branch.weak |= {place}
                    continue
                branch.bound = max(branch.bound, found.value)
                visits = self.reached(branch, visits, grid.through(self.weight[branch.arcs], found))
                if not branch.arcs.size:
                    return None
                strong += [] if place is None else [place]
            if branch.arcs.size > (1 - _WORTH) * before:
                return visits, bounds, strong

    def _exactly(self, branch: Branch, visits: Tally, place: int) -> tuple[Tally, Bound | None]:
        """The same without rounding, by labels."""
        weight, prices = self.weight[branch.arcs], branch.prices / self.unit
        stairs = staircase(visits.problem, weight, self.most, place, prices, self.deadline)
        if stairs is None:
            return visits, None
        start = np.array([visits.problem.graph.first])
        if stairs.least(start, np.zeros(1), np.zeros((1, self.unit.size)))[0] > self.most:
            branch.arcs = branch.arcs[:0]
            return visits, None
        keep = within(visits.problem, weight, self.most, stairs, self.deadline)
        if keep is not None:
            visits, branch.arcs = visits.restricted(keep), branch.arcs[keep]
        return visits, stairs

    def _decided(self, branch: Branch, visits: Tally, bounds: Sequence[Bound], labels: int) -> bool:
        """Whether labels settle the branch. A beam looks for a path first."""
        problem = visits.problem
        self.totals = np.union1d(self.totals, np.flatnonzero(branch.prices > 0))
        plain = self._plain(visits, branch.arcs, branch.prices)
        few = self._labelled(visits, branch.arcs, (plain, *bounds), beam=_BEAM)
        if few.arcs is not None:
            self.meet(branch.arcs[few.arcs])
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
            self.totals = np.union1d(self.totals, over)
        path = branch.arcs[found.arcs]
        self.meet(path)
        if self._better(path):
            self.leaf = _Leaf(branch.arcs, found, branch.prices)
        return True

    def _plain(self, visits: Tally, arcs: IntArray, prices: FloatArray) -> Bound:
        problem, prices = visits.problem, prices / self.unit
        ahead = problem.graph.behind(self.weight[arcs] + problem.loads.T @ prices)
        return Priced(prices, ahead, float(prices @ problem.ceilings))

    def _labelled(
        self,
        visits: Tally,
        arcs: IntArray,
        bounds: Sequence[Bound],
        beam: int | None = None,
        labels: int = MOST_LABELS,
    ) -> Labelled:
        return lightest(
            visits.problem, self.weight[arcs], self.most, bounds, order=[each[arcs] for each in self.order],
            tracked=np.union1d(self.totals, self.memories), beam=beam, deadline=self.deadline,
            anew=np.setdiff1d(self.memories, self.totals) if beam is None else None, most_labels=labels,
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
