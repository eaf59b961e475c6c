"""All paths between known points of a front, by label setting over the layered graph (Martins 1984).

A label is a path from the first node, with its sums. The graph is walked level by level; at each node stay the
labels that no other beats in every sum, and of these the ones that may still end in a ``Cell``: between two
neighbouring known points, better than both ends say. What remains to the last node counts with its least in each
sum, and with its least in the weighing of the cell (the lower bound of Aneja and Nair's first phase).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.cost import ROUNDING, FloatArray
from planner.front_dominance import TooManyLabelsError, roughly_undominated, undominated
from planner.graph import BoolArray, Graph, IntArray

Value = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """What lies between two points of the front that are least for some weighing: a new point is below ``most`` in
    both criteria, and below ``corner`` in ``weights``, for which both points are equal."""

    most: Value
    weights: Value
    corner: float

    def weigh(self, one: FloatArray, other: FloatArray) -> FloatArray:
        return self.weights[0] * one + self.weights[1] * other


@dataclass(frozen=True)
class Open:
    """Where points may still be found: in one of the cells, and where no known point is as good. What differs only by
    rounding is not better. ``known``: shape (2, points), rising in the first criterion, falling in the other."""

    cells: list[Cell]
    known: FloatArray

    @staticmethod
    def between(corners: list[Value], known: list[Value], *, beyond: bool = False) -> Open:
        """``known``: all points, in order; ``corners``: those at the ends of cells, in order; ``beyond``: also
        before the first and after the last point."""
        points = np.array(known).reshape(-1, 2).T * (1 - ROUNDING)
        cells = []
        for left, right in itertools.pairwise(corners):
            weights = left[1] - right[1], right[0] - left[0]
            inside = slice(known.index(left), known.index(right) + 1)
            levels = weights[0] * points[0, inside][1:] + weights[1] * points[1, inside][:-1]
            most = right[0] * (1 - ROUNDING), left[1] * (1 - ROUNDING)
            cells.append(Cell(most, weights, float(levels.max())))
        if beyond:
            least = (points[0, 0], points[1, -1]) if known else (math.inf, math.inf)
            cells += [
                Cell((least[0], math.inf), (1.0, 0.0), math.inf),
                Cell((math.inf, least[1]), (0.0, 1.0), math.inf),
            ]
        return Open(cells, points)

    def beaten(self, one: FloatArray, other: FloatArray) -> BoolArray:
        """Whether a known point is as good as what costs at least this."""
        place = np.searchsorted(self.known[0], one, side="right")
        least = np.append(math.inf, self.known[1])  # before the first point nothing is beaten
        beaten: BoolArray = least[place] <= other
        return beaten

    def reached(self, one: FloatArray, other: FloatArray, weighed: Callable[[Cell], FloatArray]) -> BoolArray:
        """Whether what costs at least this in each criterion, and ``weighed`` in a cell's weighing, may be new."""
        reached = np.zeros(one.size, dtype=bool)
        for cell in self.cells:
            inside = (one < cell.most[0]) & (other < cell.most[1])
            reached |= inside & (weighed(cell) < cell.corner)
        return reached & ~self.beaten(one, other)


def paths(
    graph: Graph,
    costs: FloatArray,
    ceilings: FloatArray,
    where: Open,
    most_labels: int,
    grain: FloatArray | None = None,
) -> list[IntArray]:
    """The arcs of every non-dominated path that lies in ``where`` and keeps the ceilings.

    ``costs``: shape (sums, arcs), the two criteria first; ``ceilings``: of the other sums. Paths equal in both
    criteria, or worse in them and better in the other sums, may be among them. ``grain``: of every sum, what counts
    as equal at a node; then some paths are found, not all. Raises ``TooManyLabelsError``.
    """
    behind = np.array([graph.behind(cost) for cost in costs])
    rest = {cell: graph.behind(cell.weigh(costs[0], costs[1])) for cell in where.cells}
    store = _Store(len(costs), graph.levels[-1], most_labels)
    store.add(np.array([graph.first]), np.zeros((len(costs), 1)), np.array([-1]), np.array([-1]))
    edges = np.searchsorted(graph.head, graph.levels)
    for low, high in itertools.pairwise(edges):
        parent, arc = store.onward(graph.tail[low:high])
        arc += low
        if not arc.size:
            continue
        sums, head = store.sums[:, parent] + costs[:, arc], graph.head[arc]
        least = sums + behind[:, head]

        def weighed(cell: Cell, sums: FloatArray = sums, head: IntArray = head) -> FloatArray:
            return cell.weigh(sums[0], sums[1]) + rest[cell][head]

        alive = where.reached(least[0], least[1], weighed)
        alive &= (least[2:] <= ceilings[:, None]).all(axis=0)
        found = np.flatnonzero(alive)
        if grain is None:
            best = undominated(head[found], sums[:, found], most_labels)
        else:
            best = roughly_undominated(head[found], np.floor(sums[:, found] / grain[:, None]))
        found = found[best]
        store.add(head[found], sums[:, found], parent[found], arc[found])
    return store.traced(graph.last)


class _Store:
    """Labels in the order of their nodes, each with its sums, the label before it and the arc between."""

    def __init__(self, sums: int, nodes: int, most: int) -> None:
        self.most, self.count = most, 0
        self.sums = np.empty((sums, 1024))
        self.parent, self.arc = (np.empty(1024, dtype=np.int64) for _ in range(2))
        self.first, self.number = (np.zeros(nodes, dtype=np.int64) for _ in range(2))

    def add(self, nodes: IntArray, sums: FloatArray, parent: IntArray, arc: IntArray) -> None:
        begin, end = self.count, self.count + nodes.size
        if end > self.most:
            raise TooManyLabelsError("too many labels")
        if end > self.arc.size:
            more = max(end, 2 * self.arc.size) - self.arc.size
            self.sums = np.pad(self.sums, ((0, 0), (0, more)))
            self.parent, self.arc = np.pad(self.parent, (0, more)), np.pad(self.arc, (0, more))
        self.sums[:, begin:end], self.parent[begin:end], self.arc[begin:end] = sums, parent, arc
        here, place, number = np.unique(nodes, return_index=True, return_counts=True)
        self.first[here], self.number[here] = begin + place, number
        self.count = end

    def onward(self, tails: IntArray) -> tuple[IntArray, IntArray]:
        """Each label at a tail with each arc from there: labels, and places in ``tails``."""
        number = self.number[tails]
        if number.sum() > 20 * self.most:
            raise TooManyLabelsError("too many labels")
        arc = np.repeat(np.arange(tails.size), number)
        within = np.arange(arc.size) - np.repeat(np.cumsum(number) - number, number)
        return self.first[tails[arc]] + within, arc

    def traced(self, node: int) -> list[IntArray]:
        """The arcs of each label at a node."""
        found = []
        for label in range(self.first[node], self.first[node] + self.number[node]):
            arcs = []
            while self.parent[label] >= 0:
                arcs.append(self.arc[label])
                label = self.parent[label]
            found.append(np.array(arcs[::-1], dtype=np.int64))
        return found
