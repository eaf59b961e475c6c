"""Bounds on what a label's path still weighs: they decide which labels are worth extending."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost import FloatArray
from planner.dual import Dual
from planner.graph import BoolArray, IntArray
from planner.labels import Bound, Walk
from planner.problem import Problem

# Of the keys of a staircase, which tell uses apart to about a billionth of the ceiling.
_SLACK = 1e-9
# How much dearer than at the best prices a resource may be where it runs short.
_DEARER = 4.0


@dataclass(frozen=True, eq=False)
class Priced:
    """A Lagrangian bound: ``prices`` per unit of each resource, the least priced weight ``ahead`` of each node,
    and what the ceilings take off."""

    prices: FloatArray
    ahead: FloatArray
    credit: float

    def least(self, node: IntArray, value: FloatArray, use: FloatArray) -> FloatArray:
        least: FloatArray = value + use @ self.prices + self.ahead[node] - self.credit
        return least


@dataclass(frozen=True, eq=False)
class Staircase:
    """The least priced weight ahead of each node as a function of what is left of one resource: exact in that
    resource (``column``), the others priced.

    ``keys``: ascending, node + use / scale, and the weight of each; ``first`` of each node.
    """

    column: int
    ceiling: float
    scale: float
    keys: FloatArray
    weights: FloatArray
    first: IntArray
    prices: FloatArray
    credit: float

    def least(self, node: IntArray, value: FloatArray, use: FloatArray) -> FloatArray:
        left = np.clip((self.ceiling - use[:, self.column]) / self.scale, 0.0, 0.5)
        place = np.searchsorted(self.keys, node + left + _SLACK, side="right") - 1
        ahead = np.where(place >= self.first[node], self.weights[place], np.inf)
        least: FloatArray = value + use @ self.prices + ahead - self.credit
        return least


def completions(
    problem: Problem,
    weight: FloatArray,
    most: float,
    prices: FloatArray,
    tracked: IntArray,
    deadline: float,
) -> list[Bound]:
    """Bounds for paths of at most ``most``: by the best prices, by dearer ones for each resource, which are right
    where it runs short, and, where several resources are tracked, one exact in each of them."""
    dual = Dual.of(problem, weight)
    pool = [prices]
    for place in np.flatnonzero(prices > 0) if prices.size > 1 else ():
        pool.append(prices.copy())
        pool[-1][place] *= _DEARER
    bounds: list[Bound] = [
        Priced(each / dual.unit, problem.graph.behind(dual.priced(each)), dual.credit(each)) for each in pool
    ]
    if tracked.size > 1:
        found = (
            staircase(problem, weight, most, int(each), prices / dual.unit, deadline) for each in tracked
        )
        bounds += [each for each in found if each]
    return bounds


def staircase(
    problem: Problem, weight: FloatArray, most: float, column: int, prices: FloatArray, deadline: float
) -> Staircase | None:
    """None where labels ran out. They are set from the last node backwards, for paths of at most ``most``."""
    ceiling = float(problem.ceilings[column])
    if ceiling <= 0 or problem.loads[[column]].min() < 0:
        return None
    others = prices.copy()
    others[column] = 0.0
    credit = float(others @ problem.ceilings)
    backward, order = problem.tracking(np.array([column])).any_clock().mirrored()
    priced = (weight + problem.loads.T @ others)[order]
    only = np.zeros(1, dtype=np.int64)
    walk = Walk(backward, priced, most + credit, (), only, only, clip=False)
    if not walk.run(deadline):
        return None
    nodes = int(problem.graph.levels[-1])
    node = nodes - 1 - np.repeat(np.arange(nodes), walk.count)
    before = np.cumsum(walk.count) - walk.count
    labels = np.repeat(walk.first - before, walk.count) + np.arange(node.size)
    use, value = walk.use[labels, 0], walk.value[labels]
    order = np.lexsort((use, node))
    node, use, value = node[order], use[order], value[order]
    scale = 4 * ceiling
    first = np.searchsorted(node, np.arange(nodes))
    return Staircase(column, ceiling, scale, node + use / scale, value, first, others, credit)


def within(
    problem: Problem, weight: FloatArray, most: float, stairs: Staircase, deadline: float
) -> BoolArray | None:
    """Marks the arcs through which paths that keep the limits may come to at most ``most``, exact in the resource of
    the ``stairs``; None where labels ran out."""
    alone = problem.tracking(np.array([stairs.column])).any_clock()
    only = np.zeros(1, dtype=np.int64)
    bound = replace(stairs, column=0, prices=np.zeros(1), credit=0.0)
    priced = weight + problem.loads.T @ stairs.prices
    walk = Walk(alone, priced, most + stairs.credit, (bound,), only, only)
    return walk.passed if walk.run(deadline) else None
