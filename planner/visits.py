"""Bounds by visits: each visit of a device keeps the device's memory by itself, prices keep the sum of its visits.

A Lagrangian bound alone mixes plans that each use one device beyond its memory, as if hops were free. Here a path
keeps the ceiling from where it arrives at a device until it leaves, for all devices at once, since it is at one
at a time: one sum, which begins anew with each hop (as the resources of a vehicle's tour do at a depot; Irnich and
Desaulniers 2005). Paths that come back may still take too much; their prices see to that.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from planner.cost import ROUNDING, FloatArray
from planner.graph import BoolArray, IntArray
from planner.labels import Bound, Walk
from planner.problem import Problem, Resource

MEMORY = "max_memory_bytes"
# Of the keys, which tell shares of a ceiling apart to about a billionth.
_SLACK = 1e-9
_SCALE = 4.0
# Sizes that coarse shares are rounded to.
_GRAIN = 64.0
# Labels beyond which a bound is not worth its memory.
_MOST = 600_000


class ExhaustedError(Exception):
    """Labels or time ran out, so it is not known what a bound is."""


@dataclass(frozen=True, eq=False)
class Ahead:
    """The least priced weight ahead of each node as a function of the share of memory that a visit has left.

    ``value``: of the lightest ``path`` at these prices, which no path within the limits undercuts. ``keys``:
    ascending, node + share / scale, and the weight of each; ``first`` of each node. ``row``: of each node the
    resource that is its device's memory, -1 for none; ``units``: of each resource what its use is told in, and
    ``credit`` what the ceilings take off.
    """

    value: float
    path: IntArray
    prices: FloatArray
    credit: float
    units: FloatArray
    row: IntArray
    keys: FloatArray
    weights: FloatArray
    first: IntArray

    def least(self, node: IntArray, value: FloatArray, use: FloatArray) -> FloatArray:
        """As ``labels.Bound``: what a device has left is less what all visits so far took."""
        row = self.row[node]
        used = np.where(row < 0, 0.0, use[np.arange(node.size), row] / self.units[row])
        left = np.clip(1 - used, -1.0, 1.0) / _SCALE
        place = np.searchsorted(self.keys, node + left + _SLACK, side="right") - 1
        ahead = np.where(place >= self.first[node], self.weights[place], np.inf)
        least: FloatArray = value + use @ self.prices + ahead - self.credit
        return least


@dataclass(frozen=True, eq=False)
class Visits:
    """A problem, and its paths by what each visit takes: ``share`` of each arc in its device's memory."""

    problem: Problem
    share: FloatArray
    row: IntArray

    @staticmethod
    def of(problem: Problem) -> Visits:
        names = [device.name for device in problem.graph.model.fleet.devices]
        row, share = np.full(len(names), -1), np.zeros(problem.graph.arcs)
        for place, resource in enumerate(problem.resources):
            if resource.limit == MEMORY and resource.ceiling > 0:
                row[names.index(resource.item)] = place
                share += problem.loads[[place]].toarray().ravel() / resource.ceiling
        return Visits(problem, share, row[problem.graph.node_device])

    def restricted(self, keep: BoolArray) -> Visits:
        return Visits(self.problem.restricted(keep), self.share[keep], self.row)

    def coarse(self) -> Visits:
        """The same with shares rounded down to a few sizes: a lower bound still, and far fewer labels."""
        return Visits(self.problem, np.floor(self.share * _GRAIN) / _GRAIN, self.row)

    @functools.cached_property
    def _alone(self) -> Problem:
        """The problem over the one sum."""
        resource = Resource(MEMORY, "", "", 1 + ROUNDING)
        loads = csr_array(self.share.reshape(1, -1))
        return replace(self.problem.any_clock(), resources=(resource,), loads=loads)

    @functools.cached_property
    def _mirrored(self) -> tuple[Problem, IntArray]:
        return self._alone.mirrored()

    def ahead(self, weight: FloatArray, prices: FloatArray, most: float, deadline: float) -> Ahead | None:
        """The bound at ``prices`` per unit of each resource; None where no path comes to at most ``most``.
        Raises ``ExhaustedError``."""
        problem, (backward, order) = self.problem, self._mirrored
        credit = float(prices @ problem.ceilings)
        priced = weight + problem.loads.T @ prices
        walk = _walked(backward, priced[order], most + credit, (), deadline)
        path = walk.best()
        if path is None:
            return None
        path = order[path[::-1]]
        nodes = int(problem.graph.levels[-1])
        node = nodes - 1 - np.repeat(np.arange(nodes), walk.count)
        before = np.cumsum(walk.count) - walk.count
        labels = np.repeat(walk.first - before, walk.count) + np.arange(node.size)
        share, ahead = walk.use[labels, 0], walk.value[labels]
        sort = np.lexsort((share, node))
        node, share, ahead = node[sort], share[sort], ahead[sort]
        first = np.searchsorted(node, np.arange(nodes))
        value = float(priced[path].sum()) - credit
        units = np.where(problem.ceilings > 0, problem.ceilings, 1.0)
        keys = node + share / _SCALE
        return Ahead(value, path, prices, credit, units, self.row, keys, ahead, first)

    def within(self, weight: FloatArray, ahead: Ahead, most: float, deadline: float) -> BoolArray:
        """Marks the arcs through which paths that keep the limits may come to at most ``most``. Raises
        ``ExhaustedError``."""
        row = np.where(ahead.row < 0, -1, 0)
        one = replace(ahead, prices=np.zeros(1), credit=0.0, units=np.ones(1), row=row)
        priced = weight + self.problem.loads.T @ ahead.prices
        return _walked(self._alone, priced, most + ahead.credit, (one,), deadline).passed


def _walked(
    alone: Problem, weight: FloatArray, most: float, bounds: Sequence[Bound], deadline: float
) -> Walk:
    """Labels over the one sum, which begins anew with each hop. Raises ``ExhaustedError``."""
    only, fresh = np.zeros(1, dtype=np.int64), alone.graph.hop >= 0
    walk = Walk(alone, weight, most, bounds, only, only, clip=False, fresh=fresh, most_labels=_MOST)
    if not walk.run(deadline):
        raise ExhaustedError
    return walk
