"""Bounds that are exact in one sum but for rounding: shares of its ceiling rounded down to so many sizes, so one small
array per node.

What is ahead of a node is a row, by the sizes that are left there, and an arc moves a row by its own size: the
time and memory of a bound are known, and it is quick enough to choose prices over all arcs before anything is fixed.

The layers' potentials are rounded at the boundaries, so that this costs a visit one size at most, however many
bundles it has; of a bundle only what it takes beyond them is rounded down by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from planner.cost import FloatArray
from planner.graph import BoolArray, Graph, IntArray
from planner.tally import WIDER, Tally

# Of sizes: less than what a ceiling is widened by, more than what arithmetic loses.
_SLACK = 1e-10


@dataclass(frozen=True, eq=False)
class GridAhead:
    """The least priced weight ``ahead`` of each node by the sizes that are left there: shape (places, grain + 1), and
    the ``place`` of each node; ``spare``: what rounding took off the node's potential, in sizes.

    ``value``: what no path within the limits undercuts at these ``prices``, that of the lightest ``path``. ``row``: of
    each node the resource that is summed there, -1 for none; ``units``: of each resource what its use is told
    in, and ``credit`` what the ceilings take off.
    """

    value: float
    path: IntArray
    prices: FloatArray
    credit: float
    units: FloatArray
    row: IntArray
    place: IntArray
    spare: FloatArray
    ahead: FloatArray

    def least(self, node: IntArray, value: FloatArray, use: FloatArray) -> FloatArray:
        """As ``labels.Bound``. What a device has left of its memory is less what all visits so far took."""
        row, grain = self.row[node], self.ahead.shape[1] - 1
        used = np.where(row < 0, 0.0, use[np.arange(node.size), row] / self.units[row])
        left = np.floor(np.clip(1 - used, -1, 1) * grain + self.spare[node] + _SLACK).astype(np.int64)
        ahead = np.where(left < 0, np.inf, self.ahead[self.place[node], np.clip(left, 0, grain)])
        least: FloatArray = value + use @ self.prices + ahead - self.credit
        return least


@dataclass(frozen=True, eq=False)
class Grid:
    """The arcs of a problem by the sizes that each takes of a sum."""

    tally: Tally
    grain: int
    size: IntArray
    spare: FloatArray

    @staticmethod
    def of(tally: Tally, grain: int, *, up: bool = False) -> Grid:
        """``up``: rounded up, so the sums of a path keep their ceilings, but what is found is no bound."""
        graph, scale = tally.problem.graph, grain + up  # potentials rounded down may hide one size of a sum
        potential = tally.potential * scale
        whole, within = np.floor(potential), ~tally.fresh
        beyond = tally.share * scale
        beyond[within] -= (potential[graph.head] - potential[graph.tail])[within]
        beyond = np.ceil(beyond - _SLACK) if up else np.floor(beyond + _SLACK)
        beyond[within] += (whole[graph.head] - whole[graph.tail])[within]
        size = np.where(tally.share > 1, grain + 1, np.clip(beyond, -grain, grain + 1))
        return Grid(tally, grain, size.astype(np.int64), potential - whole)

    @property
    def _graph(self) -> Graph:
        return self.tally.problem.graph

    @functools.cached_property
    def _start(self) -> IntArray:
        """Where an arc's window of a row begins: a new sum has all sizes left."""
        return np.where(self.tally.fresh, self.grain, np.clip(self.grain - self.size, 0, None))

    @functools.cached_property
    def _place(self) -> IntArray:
        """Rows are for nodes that arcs touch: the place of each, the first of none."""
        touched = np.zeros(int(self._graph.levels[-1]), dtype=bool)
        touched[self._graph.tail] = touched[self._graph.head] = True
        touched[[self._graph.first, self._graph.last]] = True
        place: IntArray = np.clip(np.cumsum(touched) - 1, 0, None)
        return place

    def ahead(self, weight: FloatArray, prices: FloatArray) -> GridAhead | None:
        """The bound at ``prices`` per unit of each resource; None where no path is left."""
        problem, graph = self.tally.problem, self._graph
        priced = self._priced(weight, prices)
        order, spans = graph.by_tail
        rows = self._rows(graph.last, graph.head, priced, order, reversed(spans))
        credit = float(prices @ problem.ceilings)
        value = float(rows[self._place[graph.first], -1]) - credit
        if not np.isfinite(value):
            return None
        units = np.where(problem.ceilings > 0, problem.ceilings * WIDER, 1.0)
        path, ahead = self._path(rows, priced), rows[:, self.grain : 2 * self.grain + 1]
        return GridAhead(value, path, prices, credit, units, self.tally.row, self._place, self.spare, ahead)

    def through(self, weight: FloatArray, found: GridAhead) -> FloatArray:
        """Of each arc what the paths through it that keep the limits weigh at least."""
        graph, grain, place = self._graph, self.grain, self._place
        priced = self._priced(weight, found.prices)
        before = self._rows(graph.first, graph.tail, priced, np.arange(graph.arcs), graph.spans)
        before = before[:, grain : 2 * grain + 1][:, ::-1]
        rows = self._empty()
        self._fill(rows, slice(None), found.ahead)
        windows = sliding_window_view(rows, grain + 1, axis=1)
        through = np.empty(graph.arcs)
        for span, _, _ in graph.spans:
            both = self._moved(windows, place[graph.head[span]], self._start[span], self.tally.fresh[span])
            both += before[place[graph.tail[span]]]
            through[span] = both.min(axis=1)
        through += priced - found.credit
        return through

    def _priced(self, weight: FloatArray, prices: FloatArray) -> FloatArray:
        priced = weight + self.tally.problem.loads.T @ prices
        return np.where(self.size > self.grain, np.inf, priced)

    def _rows(
        self,
        end: int,
        other: IntArray,
        priced: FloatArray,
        order: IntArray,
        spans: Iterable[tuple[slice, IntArray, IntArray]],
    ) -> FloatArray:
        """Of each place the least weight to the ``end`` by the sizes that are left."""
        grain, place = self.grain, self._place
        rows = self._empty()
        rows[place[end], grain:] = 0.0
        windows = sliding_window_view(rows, grain + 1, axis=1)
        others, start, fresh, priced = (
            place[other[order]],
            self._start[order],
            self.tally.fresh[order],
            priced[order],
        )
        for span, groups, nodes in spans:
            values = self._moved(windows, others[span], start[span], fresh[span])
            values += priced[span, None]
            self._fill(rows, place[nodes], np.minimum.reduceat(values, groups, axis=0))
        return rows

    def _empty(self) -> FloatArray:
        """Rows behind as many sizes that are out of reach, and before as many as an arc may give back."""
        width = 2 * self.grain + 1 + max(0, -int(self.size.min(initial=0)))
        return np.full((int(self._place[-1]) + 1, width), np.inf)

    def _fill(self, rows: FloatArray, places: IntArray | slice, values: FloatArray) -> None:
        rows[places, self.grain : 2 * self.grain + 1] = values
        rows[places, 2 * self.grain + 1 :] = values[:, -1:]

    @staticmethod
    def _moved(windows: FloatArray, place: IntArray, start: IntArray, fresh: BoolArray) -> FloatArray:
        """The rows of these places as they look from before the arcs."""
        moved: FloatArray = windows[place, start]
        moved[fresh] = moved[fresh, -1:]
        return moved

    def _path(self, rows: FloatArray, priced: FloatArray) -> IntArray:
        graph, grain = self._graph, self.grain
        order, _ = graph.by_tail
        tails = graph.tail[order]
        node, left, arcs = graph.first, grain, []
        while node != graph.last:
            out = order[slice(*np.searchsorted(tails, [node, node + 1]))]
            place = np.where(self.tally.fresh[out], 2 * grain, self._start[out] + left)
            arcs.append(int(out[np.argmin(priced[out] + rows[self._place[graph.head[out]], place])]))
            left = grain if self.tally.fresh[arcs[-1]] else min(left - int(self.size[arcs[-1]]), grain)
            node = int(graph.head[arcs[-1]])
        return np.array(arcs, dtype=np.int64)
