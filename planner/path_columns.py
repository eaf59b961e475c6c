"""Bounds on plans that share rows, and mixtures of plans, by column generation (Dantzig and Wolfe 1960).

With a price p >= 0 per unit of each row, each part's best path is a shortest path of its own, by
weight + p x load; together they weigh, less p x ceilings, no more than any paths that keep the rows. The best
prices come from a linear programme over the paths met so far (its dual: Kelley's cutting planes, 1960), each
point taken half way to the best one known (Ben-Ameur and Neto 2007). Its own solution mixes paths: where the
requests of a stream may be dealt out over several plans, that mixture is the optimum.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog  # type: ignore[attr-defined]

from planner.cost import ROUNDING, FloatArray
from planner.errors import InfeasibleError, SolverError
from planner.graph import BoolArray, IntArray
from planner.shared import Paths, Shared

# Relative distance of bound and mixture at which the prices are good enough.
ENOUGH = 1e-6
_BEAM = 400
_WIDEST = 40


@dataclass(frozen=True, eq=False)
class Column:
    """A path of one part: its weight, and what it adds to each row."""

    arcs: IntArray
    weight: float
    used: FloatArray


class PathColumns:
    """The paths met so far, by part, and what they tell.

    ``bound``: what no choice of paths, mixed or not, undercuts; ``prices`` give it. ``value`` and ``shares``: of
    the best mixture of the columns, each part's shares summing to 1.
    """

    def __init__(self, shared: Shared, known: Sequence[Sequence[IntArray]] = ()) -> None:
        """``known``: paths of each part to begin with. Raises ``InfeasibleError`` where a part has no path at all."""
        self.shared = shared
        self.bound = -math.inf
        self.value = math.inf
        self.shares: list[FloatArray] = []
        self.columns: list[list[Column]] = [[] for _ in shared.parts]
        self._seen: list[set[bytes]] = [set() for _ in shared.parts]
        for place, paths in enumerate(known):
            for arcs in paths:
                self._add(place, arcs)
        self.prices = shared.level / max(float(shared.level @ shared.level), 1e-300)
        self.price(self.prices)

    def price(self, prices: FloatArray) -> None:
        """Each part's best path at these prices joins the columns; the bound that they give may be better."""
        prices = prices / max(1.0, float(prices @ self.shared.level))
        finite = prices > 0
        bound = -float(prices[finite] @ self.shared.ceilings[finite])
        for place, part in enumerate(self.shared.parts):
            weight = part.weight + part.loads.T @ prices
            arcs = part.graph.path(weight)
            if arcs is None:
                raise InfeasibleError("no path is left within the limits", "loosen one")
            bound += float(weight[arcs].sum())
            self._add(place, arcs)
        if bound > self.bound:
            self.bound, self.prices = bound, prices

    def _add(self, place: int, arcs: IntArray) -> None:
        if arcs.tobytes() not in self._seen[place]:
            self._seen[place].add(arcs.tobytes())
            part = self.shared.parts[place]
            self.columns[place].append(Column(arcs, float(part.weight[arcs].sum()), part.used(arcs)))

    def improve(self, rounds: int, stop_at: float = -math.inf) -> bool:
        """Look for better prices and mixtures, at most ``rounds`` times, or until a mixture's value is at most
        ``stop_at``. Whether bound and mixture met."""
        for _ in range(rounds):
            wanted = self._mix()
            if self.value <= stop_at or self.met:
                break
            self.price(0.5 * (wanted + self.prices))
            if not self.met:
                self.price(wanted)
        return self.met

    @property
    def met(self) -> bool:
        return self.value - self.bound <= ENOUGH * abs(self.value)

    def _mix(self) -> FloatArray:
        """The best mixture of the columns, and the prices that it puts on the rows."""
        shared = self.shared
        counts = [len(mine) for mine in self.columns]
        weights = np.array([column.weight for mine in self.columns for column in mine])
        used = np.array([column.used for mine in self.columns for column in mine]).T
        hard = (shared.level == 0) & np.isfinite(shared.ceilings)
        leading = shared.level > 0
        one_each = np.repeat(np.eye(len(counts)), counts, axis=1)
        # Rows in units of their ceilings, the value in units of the columns' own: the solver's tolerances are absolute.
        units = shared.units
        size = float(np.abs(weights).max(initial=0.0)) or 1.0
        if leading.any():
            relative = (used[leading] - shared.ceilings[leading, None]) / shared.level[leading, None]
            size = float(np.abs(relative).max()) or 1.0
            units = np.where(leading, shared.level * size, units)
        rows = hard | leading
        tables = np.column_stack([used[rows] / units[rows, None], -(shared.level * size / units)[rows]])
        answer: Any = linprog(
            np.append(weights / size, float(leading.any())),
            A_ub=tables if rows.any() else None,
            b_ub=shared.ceilings[rows] / units[rows] if rows.any() else None,
            A_eq=np.column_stack([one_each, np.zeros(len(counts))]),
            b_eq=np.ones(len(counts)),
            bounds=[(0, None)] * weights.size + [(None, None)],
            method="highs",
        )  # fmt: skip
        if answer.x is None:
            raise SolverError(f"the linear programme over plans failed: {answer.message}")
        self.value = float(answer.fun) * size
        self.shares = np.split(answer.x[:-1], np.cumsum(counts)[:-1])
        prices = np.zeros(shared.level.size)
        if rows.any():
            prices[rows] = np.maximum(-answer.ineqlin.marginals, 0.0) * size / units[rows]
        return prices

    def slacks(self) -> list[FloatArray]:
        """By part and arc, by how much paths through it exceed ``bound`` at the least."""
        slacks = []
        for part in self.shared.parts:
            through = part.graph.through(part.weight + part.loads.T @ self.prices)
            slacks.append(through - through.min(initial=math.inf))
        return slacks

    def within(self, most: float) -> list[BoolArray]:
        """By part, marks the arcs through which paths that keep the rows may come to at most ``most``."""
        return [slack <= most - self.bound for slack in self.slacks()]

    def whole(self) -> Paths | None:
        """One column of each part, together within the rows and of little value: a beam search over the parts,
        in the order of what columns weigh at the prices. None where it finds none."""
        shared = self.shared
        most = shared.most(math.inf)
        grows = np.min([part.loads.min(axis=1).toarray().ravel() for part in shared.parts], axis=0) >= 0
        ranks, used, choices = np.zeros(1), np.zeros((1, most.size)), np.zeros((1, 0), dtype=np.int64)
        for columns in self.columns:
            priced = np.array([column.weight + self.prices @ column.used for column in columns])
            best = np.argsort(priced, kind="stable")[:_WIDEST]
            ranks = np.add.outer(ranks, priced[best]).ravel()
            used = (used[:, None] + np.array([columns[place].used for place in best])).reshape(-1, most.size)
            choices = np.column_stack(
                [np.repeat(choices, best.size, axis=0), np.tile(best, choices.shape[0])]
            )
            fits = np.flatnonzero((used[:, grows] <= most[grows]).all(axis=1))
            fits = fits[np.argsort(ranks[fits], kind="stable")[:_BEAM]]
            ranks, used, choices = ranks[fits], used[fits], choices[fits]
        hard = shared.level == 0
        fits = (used[:, hard] <= most[hard] * (1 + np.sign(most[hard]) * ROUNDING)).all(axis=1)
        values = used[:, ~hard].max(axis=1) if shared.balanced else self._weights(choices)
        for place in np.argsort(np.where(fits, values, math.inf), kind="stable")[: np.count_nonzero(fits)]:
            chosen = zip(self.columns, choices[place].tolist(), strict=True)
            paths = tuple(columns[each].arcs for columns, each in chosen)
            if shared.kept(paths):  # clocks too
                return paths
        return None

    def _weights(self, choices: IntArray) -> FloatArray:
        """Of each choice of columns, a row with a place for each part."""
        each = [
            np.array([column.weight for column in columns])[mine]
            for columns, mine in zip(self.columns, choices.T, strict=True)
        ]
        total: FloatArray = np.sum(each, axis=0)
        return total
