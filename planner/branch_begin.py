"""The branches begin with bounds on grids: prices for all arcs, and a first plan for the whole search.

    all arcs ──> prices on a coarse grid ──> a plan near that bound ──> arcs that are left

The plan is looked for by visits rounded up, which keep their ceilings, with prices of its own for the other limits.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import time

import numpy as np

from planner.branch_node import Branch, Cut
from planner.cost import ROUNDING, FloatArray
from planner.dual import Dual
from planner.graph import IntArray
from planner.grid import Grid, GridAhead
from planner.labels import lightest
from planner.part import Part
from planner.tally import MEMORY, TIE, Tally

# What is no longer worth a round of prices.
_LITTLE = 1e-4
# Sizes of a grid at least and at most, and over all arcs: what takes about a tenth of a second.
_COARSE, _FINE, _MOST_SIZES = 64, 1024, 8e6
# What sums over whole paths take beside, for hops round them too.
_FINER = 4
# Rounds of prices to begin with.
_FIRST_ROUNDS = 14
# Where a first plan is looked for: among how many arcs, with how many labels at each node, and beyond which gap.
_PLANS = ((50_000, 3, 0.0), (150_000, 3, 0.04), (500_000, 3, math.inf), (50_000, 12, 0.02))


class ExhaustedError(Exception):
    """Labels or time ran out, so it is not known what a bound is."""


def grain(arcs: int) -> int:
    """Sizes that a device's memory is divided into: the fewer arcs, the more."""
    return int(np.clip(2 ** math.floor(math.log2(_MOST_SIZES / max(arcs, 1))), _COARSE, _FINE))


class Begun:
    """``most``: nothing heavier is looked for; ``value``: of the lightest path known, ``best`` in places of ``problem``
    where it was met here; ``root``: the branch of all arcs."""

    def __init__(
        self, part: Part, most: float, prices: FloatArray, deadline: float, known: tuple[float, float]
    ) -> None:
        """``known``: what no path undercuts, and what the lightest one weighs that is known."""
        self.part, self.problem, self.weight = part, part.problem, part.weight
        self.visits = Tally.visits(part.problem)
        self.unit = Dual.of(part.problem, part.weight).unit
        self.limit, self.deadline = most, deadline
        self.best: IntArray | None = None
        self.lower, self.value = known
        self.root = Branch(np.arange(part.arcs.size), prices, self.lower)

    @property
    def most(self) -> float:
        return min(self.limit, self.value * (1 + ROUNDING))

    def among(self, arcs: IntArray) -> Tally:
        keep = np.zeros(self.problem.graph.arcs, dtype=bool)
        keep[arcs] = True
        return self.visits.restricted(keep)

    def priced(self, branch: Branch, grid: Grid, rounds: int, most: float) -> GridAhead | None:
        """The best of some rounds of prices on a grid; None where no path comes to at most ``most``. Raises
        ``ExhaustedError``."""
        best, wanted = None, branch.prices
        for _ in range(rounds):
            if time.perf_counter() > self.deadline:
                raise ExhaustedError
            found = grid.ahead(self.weight[branch.arcs], wanted / self.unit)
            if found is None or found.value > most:
                return None
            last = best
            if best is None or found.value > best.value:
                best, branch.prices = found, wanted
            wanted = self._met(branch, grid.tally, found)
            if last is not None and 0 <= found.value - last.value < _LITTLE * abs(found.value):
                break
        return best

    def reached(self, branch: Branch, visits: Tally, through: FloatArray) -> Tally:
        """What is left where no path is lighter than what each arc lies on."""
        keep = through <= self.most
        branch.arcs = branch.arcs[keep]
        return visits.restricted(keep)

    def others(self, branch: Branch) -> list[int]:
        """The resources other than memory that have a price, or are of whole plans."""
        return [
            place
            for place, each in enumerate(self.problem.resources)
            if each.limit not in (MEMORY, TIE) and (branch.prices[place] > 0 or not each.item)
            if place not in branch.weak
        ]

    def total(self, branch: Branch, tally: Tally, place: int) -> tuple[Grid, GridAhead | None] | None:
        """A bound that is exact in one resource over whole paths; None where that is not to be had. Half of its price
        makes up for what rounding loses."""
        total = Tally.total(tally.problem, place)
        if total is None:
            return None
        prices = branch.prices / self.unit
        prices[place] *= 0.5
        grid = Grid.of(total, min(_FINER * grain(branch.arcs.size), _FINE))
        return grid, grid.ahead(self.weight[branch.arcs], prices)

    def begin(self) -> None:
        """A first plan, prices and a bound for the root, whose arcs that are left are all that lighter plans use."""
        root, grid = self.root, Grid.of(self.visits, _COARSE)
        try:
            found = self.priced(root, grid, _FIRST_ROUNDS, math.inf)
            if found is None:
                root.bound, root.arcs = math.inf, root.arcs[:0]
                return
            root.bound = max(root.bound, found.value)
            through = grid.through(self.weight[root.arcs], found)
            self._plan(found.value, through)
            self.reached(root, self.visits, through)
        except ExhaustedError:
            return

    def _plan(self, bound: float, through: FloatArray) -> None:
        """A plan, and perhaps a better one, among the arcs that look best. Raises ``ExhaustedError``."""
        last = 0
        for arcs, beam, good in _PLANS:
            some = min(arcs, int((through <= self.most).sum()))
            found = math.isfinite(self.value)
            if (found and self.value > bound + good * abs(bound)) or (not found and some > last):
                self._near(through, some, beam)
            last = some

    def _near(self, through: FloatArray, arcs: int, beam: int) -> None:
        """A plan by visits rounded up, among so many arcs and with so many labels at a node. Raises
        ``ExhaustedError``."""
        if not arcs:
            return
        near = np.flatnonzero(through <= np.partition(through, arcs - 1)[arcs - 1])
        branch = Branch(near, self.root.prices, -math.inf)
        tally = self.among(near)
        guide = self.priced(branch, Grid.of(tally, grain(near.size), up=True), _FIRST_ROUNDS, math.inf)
        others = self.others(branch)
        totals = [self.total(branch, tally, place) for place in others]
        if guide is None or any(found and found[1] is None for found in totals):
            return
        few = lightest(
            tally.problem, self.weight[near], self.most, [guide, *(found[1] for found in totals if found and found[1])],
            tracked=np.union1d(np.flatnonzero(branch.prices > 0), others).astype(np.int64), beam=beam,
            deadline=self.deadline,
        )  # fmt: skip
        if few.arcs is not None:
            self.meet(near[few.arcs])

    def _met(self, branch: Branch, visits: Tally, found: GridAhead) -> FloatArray:
        """A path that a bound found joins the cuts; the prices that look better with it, half way from the best."""
        path = branch.arcs[found.path]
        over = (visits.problem.used(found.path) - visits.problem.ceilings) / self.unit
        self.meet(path)
        branch.cuts.append(Cut(path, float(self.weight[path].sum()), over))
        return branch.wanted()

    def meet(self, path: IntArray) -> None:
        if self.problem.kept(path) and self.weight[path].sum() < self.value:
            self.best, self.value = path, float(self.weight[path].sum())
