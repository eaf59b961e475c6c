"""The plans that come next: the best that differ from the optimum, in order.

The plans beside a given one fall into disjoint sets by where they first deviate from it, and the best of each set
is a search of its own (Lawler 1972, after Yen 1971 and Murty 1968). Where plans are paths without budgets, one pass
from the front over what conforms and one from the back over everything give the best of all sets at once; with
budgets these values, at Lagrangian prices, are bounds, and only sets whose bound comes up are searched.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from planner.graph import BoolArray, Graph, IntArray
from planner.question import Found, Question

Distinct = Literal["devices", "cuts", "variants"]
DISTINCT: tuple[Distinct, ...] = ("devices", "cuts", "variants")

_CONFORMS = -1


class _Kind:
    """What makes two plans different: a place per element of a path, and where an arc deviates from a path.

    "devices": of some layer. "cuts": devices or bundles. "variants": anything, codecs and routes too.
    An element's place is its layer, its first boundary, or its first node. ``begin`` and ``end``: the places an arc
    reaches over; an arc that makes no difference begins beyond all places.
    """

    def __init__(self, graph: Graph, distinct: Distinct) -> None:
        self.graph, self.distinct = graph, distinct
        stages, beyond = graph.way >= 0, np.iinfo(np.int64).max
        anything = distinct == "variants"
        self.begin = graph.tail if anything else np.where(stages, graph.start, beyond)
        self.end = graph.head if anything else np.where(stages, graph.stop, beyond)

    def deviates(self, path: IntArray) -> IntArray:
        """For each arc the first place at which it differs from the path; -1 where it conforms."""
        graph = self.graph
        if self.distinct == "variants":
            first: IntArray = graph.tail.copy()
            first[path] = _CONFORMS
            return first
        stages = path[graph.way[path] >= 0]
        if self.distinct == "cuts":
            first = np.where(graph.way >= 0, graph.start, _CONFORMS)
            for arc in stages.tolist():
                first[self.element(arc, int(graph.start[arc]))] = _CONFORMS
            return first
        layers = len(graph.model.chain)
        placed = np.empty(layers, dtype=np.int64)
        for arc in stages.tolist():
            placed[graph.start[arc] : graph.stop[arc]] = graph.device[arc]
        # By device: the first layer from each on that is placed elsewhere.
        devices = len(graph.model.fleet.devices)
        differs = np.full((devices, layers + 1), layers)
        for layer in reversed(range(layers)):
            differs[:, layer] = differs[:, layer + 1]
            differs[np.arange(devices) != placed[layer], layer] = layer
        first = np.where(graph.way >= 0, differs[graph.device, graph.start], layers)
        return np.where((graph.way >= 0) & (first < graph.stop), first, _CONFORMS)

    def element(self, arc: int, place: int) -> BoolArray:
        """The arcs that are the same as this one at a place."""
        graph = self.graph
        if self.distinct == "variants":
            alone: BoolArray = np.arange(graph.arcs) == arc
            return alone
        same: BoolArray = graph.device == graph.device[arc]
        if self.distinct == "cuts":
            same &= (graph.start == place) & (graph.stop == graph.stop[arc])
        else:
            same &= (graph.start <= place) & (place < graph.stop)
        return same

    def at(self, path: IntArray, place: int) -> int:
        """The arc of the path that reaches over a place."""
        over = (self.begin[path] <= place) & (place < self.end[path])
        return int(path[np.flatnonzero(over)[0]])


def runners_up(question: Question, distinct: Distinct = "cuts") -> Iterator[Found]:
    """The best path that is distinct from the question's best, then the next, distinct from both, and so on."""
    graph, kind, ticket = question.problem.graph, _Kind(question.problem.graph, distinct), itertools.count()
    weight, spared = question.priced, question.spared
    behind = graph.behind(weight)
    # (bound, ticket, found; or how to find it: base path, place of deviation, paths whose element is excluded there)
    heap: list[tuple[float, int, Found | None, IntArray, int, tuple[IntArray, ...]]] = []

    def branch(path: IntArray, value: float, least: int, taken: tuple[IntArray, ...]) -> None:
        first = kind.deviates(path)
        ahead = graph.ahead(np.where(first == _CONFORMS, weight, np.inf))
        through = ahead[graph.tail] + weight + behind[graph.head] - spared
        for other in taken:
            through[kind.element(kind.at(other, least), least)] = np.inf
        arcs = np.flatnonzero((first >= least) & np.isfinite(through))
        places, group = np.unique(first[arcs], return_inverse=True)
        bounds = np.full(places.size, np.inf)
        np.minimum.at(bounds, group, through[arcs])
        for place, bound in zip(places.tolist(), bounds.tolist(), strict=True):
            excluded = taken if place == least else ()
            heapq.heappush(heap, (max(bound, value), next(ticket), None, path, place, excluded))

    branch(question.best.arcs, question.best.value, 0, ())
    while heap:
        _, _, found, base, place, taken = heapq.heappop(heap)
        if found is None:
            found = question.restricted(_keep(kind, base, place, taken))
            if found is not None:
                heapq.heappush(heap, (found.value, next(ticket), found, base, place, taken))
            continue
        yield found
        branch(found.arcs, found.value, place, (*taken, base))


def _keep(kind: _Kind, base: IntArray, place: int, taken: tuple[IntArray, ...]) -> BoolArray:
    """The arcs of the paths that are as ``base`` before a place and differ from it and from ``taken`` there."""
    first = kind.deviates(base)
    keep: BoolArray = (kind.begin > place) | ((first == _CONFORMS) & (kind.end <= place)) | (first == place)
    for other in taken:
        keep &= ~(kind.element(kind.at(other, place), place) & (kind.begin <= place))
    return keep
