"""Lagrangian bounds: limits priced into the weight of each arc.

For prices p >= 0 per unit of each resource, no path within the limits weighs less than the lightest path by
weight + p x load, less p x ceilings. The best prices are found by cutting planes (Kelley 1960), each point
taken half way to the best one known (Ben-Ameur and Neto 2007). Prices that were good once stay useful: each
set gives another bound on every arc.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog  # type: ignore[attr-defined]

from planner.cost import FloatArray
from planner.graph import BoolArray, IntArray
from planner.problem import Problem

_ENOUGH = 1e-4
_DEAREST = 1e3


@dataclass(eq=False)
class Dual:
    """Bounds for one problem and weight; ``scale`` is what one unit of each resource counts as.

    ``bound``: what no path within the limits undercuts. ``best``: the lightest path within the limits met on
    the way, None for none, and its ``best_value``. Prices are in units of weight per ceiling.
    """

    problem: Problem
    weight: FloatArray
    prices: FloatArray
    bound: float = -np.inf
    best: IntArray | None = None
    best_value: float = np.inf
    cuts: list[tuple[float, FloatArray]] = field(default_factory=list)

    @staticmethod
    def of(problem: Problem, weight: FloatArray, prices: FloatArray | None = None) -> Dual:
        count = len(problem.resources)
        return Dual(problem, weight, np.zeros(count) if prices is None else prices)

    @functools.cached_property
    def unit(self) -> FloatArray:
        """What the prices are per: the ceiling, or the largest load where that is 0."""
        sizes = np.abs(self.problem.ceilings)
        for place in np.flatnonzero(sizes == 0):
            row = self.problem.loads[[place]]
            sizes[place] = np.abs(row.data).max(initial=0.0) or 1.0
        return sizes

    def priced(self, prices: FloatArray) -> FloatArray:
        """The weight of every arc with its loads priced in."""
        if not prices.any():
            return self.weight
        added: FloatArray = self.problem.loads.T @ (prices / self.unit)
        return self.weight + added

    def credit(self, prices: FloatArray) -> float:
        """What the ceilings take off a priced path's weight."""
        return float(prices @ (self.problem.ceilings / self.unit))

    def improve(self, rounds: int) -> bool:
        """Look for better prices, at most ``rounds`` times. False where no path is left at all."""
        if not self.cuts and not self._cut(self.prices):
            return False
        for _ in range(rounds if self.problem.resources else 0):
            wanted, most = self._master()
            if most - self.bound <= _ENOUGH * abs(most) or self.best_value <= self.bound:
                break
            self._cut(0.5 * (wanted + self.prices))
            if most - self.bound > _ENOUGH * abs(most):
                self._cut(wanted)
        return True

    def _cut(self, prices: FloatArray) -> bool:
        path = self.problem.graph.path(self.priced(prices))
        if path is None:
            return False
        value = float(self.weight[path].sum())
        over = (self.problem.used(path) - self.problem.ceilings) / self.unit
        self.cuts.append((value, over))
        if value + prices @ over > self.bound:
            self.bound, self.prices = float(value + prices @ over), prices
        if value < self.best_value and self.problem.kept(path):
            self.best, self.best_value = path, value
        return True

    def _master(self) -> tuple[FloatArray, float]:
        """The prices that look best by the paths known, and the bound that they promise at most."""
        values = np.array([value for value, _ in self.cuts])
        overs = np.array([over for _, over in self.cuts])
        size = max(values.max(), 1e-300)
        rows = np.column_stack([np.ones(values.size), -overs])
        answer = linprog(
            np.append(-1.0, np.zeros(overs.shape[1])), A_ub=rows, b_ub=values / size,
            bounds=[(None, None), *[(0, _DEAREST)] * overs.shape[1]], method="highs",
        )  # fmt: skip
        if answer.x is None:
            return self.prices, self.bound
        return answer.x[1:] * size, float(answer.x[0] * size)

    def within(self, most: float) -> BoolArray:
        """Marks the arcs through which a path within the limits may weigh at most ``most``."""
        through = self.problem.graph.through(self.priced(self.prices)) - self.credit(self.prices)
        return through <= most
