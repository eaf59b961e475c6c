"""The lightest path within limits by label setting (Martins 1984), boundary by boundary.

A label is a path from the first node to another: its weight and what it takes of each resource. At a node
those are dropped that another beats or equals in all of these, and those that no completion can save: the
least that lies ahead of a node, in every resource and in Lagrangian weight, is known before (completion
bounds, Dumitrescu and Boland 2003).
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.cost import ROUNDING, FloatArray
from planner.graph import BoolArray, IntArray
from planner.problem import Problem

MOST_LABELS = 1_500_000
_EQUAL, _EDGE = 1e-10, 0.382
_LARGEST = 1e300
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Labelled:
    """``arcs`` of the best path, None where none is within the limits; ``complete`` is False where labels ran
    out and that is not known. ``used``: the arcs of all labels, with which every path that is worth keeping, or
    one as good, can be made."""

    arcs: IntArray | None
    labels: int
    complete: bool
    used: IntArray


class Bound(Protocol):
    """What a completion of a label must weigh."""

    def least(self, node: IntArray, value: FloatArray, use: FloatArray) -> FloatArray:
        """What a path within the limits weighs at least that begins with these labels."""


def lightest(
    problem: Problem,
    weight: FloatArray,
    most: float,
    bounds: Sequence[Bound] = (),
    *,
    order: Sequence[FloatArray] = (),
    tracked: IntArray | None = None,
    anew: IntArray | None = None,
    beam: int | None = None,
    deadline: float = math.inf,
    most_labels: int = MOST_LABELS,
) -> Labelled:
    """The lightest path that weighs at most ``most`` and keeps the limits on the resources that are ``tracked``.

    Left out, all are. Of paths of the same weight (to a ten billionth) it is the least by the first of ``order``,
    which hold one number for every arc, then by the next. ``beam``: keep all limits, but only so many labels at
    each node, those with the best prospects, and compare them by the tracked resources: quick, and any path
    found keeps the limits, but there may be better ones. ``anew``: tracked resources whose sums begin anew with each
    hop, so only what one visit takes of them is limited. ``deadline``: on the clock of ``time.perf_counter``.
    """
    every = np.arange(len(problem.resources))
    compared = every if tracked is None else tracked
    checked = compared if beam is None else every
    walk = Walk(
        problem, weight, most, bounds, checked, compared, order=order, beam=beam, anew=anew,
        most_labels=most_labels,
    )  # fmt: skip
    complete = walk.run(deadline)
    return Labelled(walk.best() if complete else None, walk.size, complete and not walk.cut, walk.used())


class Walk:
    """Labels at nodes; ``checked``: the resources whose ceilings hold, ``compared``: those that tell labels apart."""

    def __init__(
        self,
        problem: Problem,
        weight: FloatArray,
        most: float,
        bounds: Sequence[Bound],
        checked: IntArray,
        compared: IntArray,
        *,
        order: Sequence[FloatArray] = (),
        beam: int | None = None,
        clip: bool = True,
        anew: IntArray | None = None,
        most_labels: int = MOST_LABELS,
    ) -> None:
        """``anew``: resources whose sums begin anew with each hop. ``clip``: another sum that can no longer break its
        ceiling counts as the most that cannot."""
        graph = problem.graph
        nodes, resources = int(graph.levels[-1]), len(problem.resources)
        self.graph, self.weight, self.most = graph, weight, most
        self.loads: FloatArray = np.ascontiguousarray(problem.loads.toarray().T)
        self.ceilings = np.full(resources, np.inf)
        self.ceilings[checked] = problem.ceilings[checked]
        self.rest, room = np.zeros((nodes, resources)), np.full((nodes, resources), -np.inf)
        for place in checked if anew is None else np.setdiff1d(checked, anew):
            self.rest[:, place] = graph.behind(self.loads[:, place])
            room[:, place] = graph.behind(-self.loads[:, place])
        # What a resource can still take at most: a label with more room than that has room enough.
        room[~np.isfinite(room)] = -_LARGEST
        self.enough = problem.ceilings + room - ROUNDING * np.abs(room) if clip else None
        self.behind = graph.behind(weight)
        self.bounds, self.compared, self.beam, self.cut = bounds, compared, beam, False
        self.anew, self.most_labels = anew, most_labels
        self.passed = np.zeros(graph.arcs, dtype=bool)
        self.clock, self.clock_device = problem.clock, problem.clock_device
        devices = int(self.clock_device.max(initial=-1)) + 1
        self.first, self.count = np.zeros(nodes, dtype=np.int64), np.zeros(nodes, dtype=np.int64)
        self.count[graph.first] = 1
        self.size = 1
        self.value = np.zeros(1)
        self.order = np.column_stack(order) if order else np.zeros((graph.arcs, 0))
        self.rank = np.zeros((1, self.order.shape[1]))
        # Weights are told apart in steps; what is equal but for rounding must not lie at the edge of one.
        self.step_weight = abs(most) * _EQUAL or 1.0
        self.use = np.zeros((1, resources))
        self.clocks = np.full((1, devices), -1, dtype=np.int64)
        self.parent = np.full(1, -1)
        self.arc = np.full(1, -1)

    def run(self, deadline: float) -> bool:
        """Walk all levels; False where labels or time ran out."""
        for span, _, _ in self.graph.spans:
            self.step(span)
            if self.size > self.most_labels or time.perf_counter() > deadline:
                return False
        return True

    def step(self, span: slice) -> None:
        """Extend the labels over the arcs into one level."""
        counts = self.count[self.graph.tail[span]]
        total = int(counts.sum())
        if not total:
            return
        arcs = np.repeat(np.arange(span.start, span.stop), counts)
        parents = np.repeat(self.first[self.graph.tail[span]] - (np.cumsum(counts) - counts), counts)
        parents += np.arange(total)
        head = self.graph.head[arcs]
        value = self.value[parents] + self.weight[arcs]
        keep = value + self.behind[head] <= self.most
        arcs, parents, head, value = arcs[keep], parents[keep], head[keep], value[keep]
        use = self.use[parents] + self.loads[arcs]
        if self.anew is not None:
            use[np.ix_(self.graph.hop[arcs] >= 0, self.anew)] = 0.0
        keep = (use + self.rest[head] <= self.ceilings).all(axis=1)
        for each in self.bounds:
            keep[keep] = each.least(head[keep], value[keep], use[keep]) <= self.most
        clocks = self.clocks[parents]
        if clocks.shape[1]:
            keep &= self._choose(clocks, arcs)
        chosen = np.flatnonzero(keep)
        if not chosen.size:
            return
        self.passed[arcs[chosen]] = True
        if self.enough is not None:
            use = np.maximum(use, self.enough[head])
        rank = self.rank[parents] + self.order[arcs]
        against = use[chosen][:, self.compared]
        steps = np.floor(value[chosen] / self.step_weight + _EDGE)
        keys = (*against.T[::-1], *rank[chosen].T[::-1], steps, *clocks[chosen].T, head[chosen])
        order = np.lexsort(keys)
        against, order = against[order], chosen[order]
        kept = order[_unbeaten(head[order], clocks[order], against)]
        if self.beam is not None:
            kept = self._best_prospects(kept, head, value, use)
        self._store(head[kept], value[kept], rank[kept], use[kept], clocks[kept], parents[kept], arcs[kept])

    def _best_prospects(
        self, places: IntArray, head: IntArray, value: FloatArray, use: FloatArray
    ) -> IntArray:
        head, value, use = head[places], value[places], use[places]
        hoped = value + self.behind[head]
        for each in self.bounds:
            hoped = np.maximum(hoped, each.least(head, value, use))
        order = np.lexsort((hoped, head))
        first = np.searchsorted(head[order], head[order])
        near = np.arange(order.size) - first < (self.beam or 0)
        self.cut |= not near.all()
        return places[np.sort(order[near])]

    def _choose(self, clocks: IntArray, arcs: IntArray) -> BoolArray:
        """Enter the clocks of the arcs' devices; marks those that do not contradict."""
        clock = self.clock[arcs]
        chosen = np.flatnonzero(clock >= 0)
        device = self.clock_device[clock[chosen]]
        before = clocks[chosen, device]
        clocks[chosen, device] = clock[chosen]
        fits = np.ones(arcs.size, dtype=bool)
        fits[chosen] = (before < 0) | (before == clock[chosen])
        return fits

    def _store(
        self,
        head: IntArray,
        value: FloatArray,
        rank: FloatArray,
        use: FloatArray,
        clocks: IntArray,
        parent: IntArray,
        arc: IntArray,
    ) -> None:
        nodes, first, count = np.unique(head, return_index=True, return_counts=True)
        self.first[nodes], self.count[nodes] = self.size + first, count
        while self.size + head.size > self.value.size:  # grow by doubling
            self.value, self.parent, self.arc = (np.append(a, a) for a in (self.value, self.parent, self.arc))
            self.use, self.rank = np.vstack([self.use, self.use]), np.vstack([self.rank, self.rank])
            self.clocks = np.vstack([self.clocks, self.clocks])
        new = slice(self.size, self.size + head.size)
        self.value[new], self.use[new], self.clocks[new], self.rank[new] = value, use, clocks, rank
        self.parent[new], self.arc[new] = parent, arc
        self.size += head.size

    def used(self) -> IntArray:
        return np.unique(self.arc[1 : self.size])

    def best(self) -> IntArray | None:
        last = self.graph.last
        if not self.count[last]:
            return None
        ends = slice(self.first[last], self.first[last] + self.count[last])
        steps = np.floor(self.value[ends] / self.step_weight + _EDGE)
        label = int(ends.start + np.lexsort((*self.rank[ends].T[::-1], steps))[0])
        arcs = []
        while self.parent[label] >= 0:
            arcs.append(int(self.arc[label]))
            label = int(self.parent[label])
        return np.array(arcs[::-1], dtype=np.int64)


def _unbeaten(head: IntArray, clocks: IntArray, use: FloatArray) -> IntArray:
    """Places of the labels that no other of the same node and clocks beats or equals; of equals, the first.

    They come ordered by node, clocks, weight and use.
    """
    new = np.append(True, (head[1:] != head[:-1]) | (clocks[1:] != clocks[:-1]).any(axis=1))
    starts = np.flatnonzero(new)
    resources = use.shape[1]
    if resources == 0:
        return starts
    if resources == 1:
        # The running minimum within each group: ranks are offset so that each group starts afresh.
        group = np.cumsum(new)
        rank = np.empty(head.size)
        rank[np.argsort(use[:, 0], kind="stable")] = np.arange(head.size)
        rank -= group * float(head.size)
        lowest = np.minimum.accumulate(rank)
        better = np.append(True, rank[1:] < lowest[:-1])
        # Equal use ranks by place, so an equal label after a lighter one is not better.
        return np.flatnonzero(better)
    kept = [
        low + _front(use[low:high])
        for low, high in zip(starts, np.append(starts[1:], head.size), strict=True)
    ]
    return np.concatenate(kept)


def _front(use: FloatArray) -> IntArray:
    """Places of the rows that no earlier row beats or equals in every column."""
    if len(use) == 1:
        return np.zeros(1, dtype=np.int64)
    kept: IntArray = np.zeros(0, dtype=np.int64)
    for begin in range(0, len(use), _CHUNK):
        rows = np.arange(begin, min(begin + _CHUNK, len(use)))
        if kept.size:
            beaten = (use[kept][:, None, :] <= use[rows][None, :, :]).all(axis=2).any(axis=0)
            rows = rows[~beaten]
        less = (use[rows][:, None, :] <= use[rows][None, :, :]).all(axis=2)
        rows = rows[~np.triu(less, k=1).any(axis=0)]
        kept = np.concatenate([kept, rows])
    return kept
