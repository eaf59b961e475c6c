"""The best plans for several streams that share a fleet.

    arcs that fit ──> prices of rows ──> paths that fit ──> guess an upper bound ──> fixing ──> CBC ──> optimum, or
                                                             ^                                           none below
                                                             └───────────────────────────────────────────────┘

Fixing drops the arcs through which nothing below the guess leads: by the prices' bound, and by what each row
can hold. So it never drops an arc of the optimum once the guess is above it. Where nothing is below a guess, the
guess is a lower bound, and the next one is higher. No guess is above the best paths that are known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.cost import ROUNDING
from planner.errors import InfeasibleError, SolverError
from planner.graph import BoolArray, IntArray
from planner.joint_ilp import decide
from planner.path_columns import PathColumns
from planner.plan import Outcome
from planner.shared import Paths, Shared

# A first guess is this much above the lower bound; each further one is twice as far.
_FIRST_STEP = 0.002
_ROUNDS = 200
# Relative overload below which the mixtures' bound counts as none.
_NONE_OVER = 1e-9
# Arcs up to which it pays to ask CBC: beyond, writing and reading the programme takes longer than there is.
_MOST_ARCS = 60_000
# The arcs among which CBC looks for first paths, and the share of the time that it has.
_FEW_ARCS = 2_000
_FIRST_SHARE = 0.15


@dataclass(eq=False)
class Choice:
    """A path of each part. ``bound``: no choice is below it. ``arcs_after``: what the solver was given at last."""

    outcome: Outcome
    paths: Paths
    value: float
    bound: float
    arcs_after: int
    phases_s: dict[str, float] = field(default_factory=dict)


def choose(shared: Shared, *, time_limit_s: float = 60.0, solver: str = "cbc") -> Choice:
    """The paths of least value within all rows.

    Raises ``PlanningError`` where a part has no path, ``InfeasibleError`` where no paths keep the rows, which
    is proven, and ``SolverError`` where the solver fails or found nothing in time.
    """
    return _Choosing(shared, time.perf_counter(), time_limit_s, solver).run()


def priced(shared: Shared) -> PathColumns:
    """The prices of the rows. Raises ``InfeasibleError`` where not even mixtures of plans keep them."""
    if not all(part.graph.arcs for part in shared.parts):
        raise InfeasibleError("no path is left within the limits", "loosen one")
    known: list[list[IntArray]] = []
    if (shared.level == 0).any():
        over = PathColumns(shared.overload())
        over.improve(_ROUNDS, stop_at=0.0)
        if over.bound > _NONE_OVER:
            raise InfeasibleError("no plans keep all limits together", "loosen one")
        known = [[column.arcs for column in mine] for mine in over.columns]
    columns = PathColumns(shared, known)
    columns.improve(_ROUNDS)
    return columns


@dataclass(eq=False)
class _Choosing:
    shared: Shared
    begun: float
    time_limit_s: float
    solver: str
    best: Paths | None = None
    value: float = math.inf
    bound: float = -math.inf
    after: int = 0
    known: tuple[list[BoolArray], PathColumns] | None = None

    def run(self) -> Choice:
        last = _heaviest(self.shared) * (1 + 1e-6) or 1.0
        keep, columns = self._priced(last)
        part = columns.shared
        self.bound = columns.bound
        self._meet(keep, columns.whole())
        if not self.proven and part.arcs > _FEW_ARCS:
            self._first(part, keep, columns, last)
        bounded = time.perf_counter()
        step = _FIRST_STEP if part.arcs > _FEW_ARCS else math.inf
        while not self.proven:
            guess = self.bound * (1 + step) if self.bound > 0 and step < 4 else last
            step *= 2
            if not self._decided(min(guess, self.value)):
                break
            if self.best is None and guess >= last:
                raise InfeasibleError("no plans keep all limits together", "loosen one")
        if self.best is None:
            raise SolverError(
                f"no plans were found in {self.time_limit_s:g} s", "allow more time, or lower the rates"
            )
        phases = {"prices": bounded - self.begun, "solve": time.perf_counter() - bounded}
        outcome = Outcome.OPTIMAL if self.proven else Outcome.FEASIBLE
        bound = min(self.bound, self.value)
        return Choice(outcome, self.best, self.value, bound, self.after, phases)

    @property
    def proven(self) -> bool:
        return self.value <= self.bound * (1 + ROUNDING)

    @property
    def left_s(self) -> float:
        return self.time_limit_s - (time.perf_counter() - self.begun)

    def _priced(self, most: float) -> tuple[list[BoolArray], PathColumns]:
        """The arcs that fit below ``most``, and the prices over them. Where weights are minimised, what fits does
        not depend on it."""
        if self.known is not None and not self.shared.balanced:
            return self.known
        keep = self.shared.fitting(most)
        self.known = keep, priced(self.shared.restricted(keep))
        return self.known

    def _decided(self, most: float) -> bool:
        """Whether it is settled what lies below ``most``: nothing, or the optimum, which is kept. Where time or
        size did not allow to tell, what was found and bounded is kept all the same."""
        try:
            keep, columns = self._priced(most)
        except InfeasibleError:
            self.bound = max(self.bound, most)
            return True
        if columns.bound > most:
            self.bound = max(self.bound, most)
            return True
        self.bound = max(self.bound, columns.bound)
        self._meet(keep, columns.whole())
        most = min(most, self.value)
        keep = _both(keep, columns.within(most * (1 + ROUNDING)))
        part = self.shared.restricted(keep)
        self.after = part.arcs
        if part.arcs > _MOST_ARCS or self.left_s <= 0:
            return False
        found = decide(part, most, least=self.bound, time_limit_s=self.left_s, solver=self.solver)
        self._meet(keep, found.paths)
        self.bound = max(self.bound, min(found.bound, most))
        return found.proven

    def _first(self, part: Shared, keep: list[BoolArray], columns: PathColumns, last: float) -> None:
        """Paths that fit, from the arcs of the columns and those of least reduced cost, by CBC."""
        slacks = columns.slacks()
        near = np.zeros(part.arcs, dtype=bool)
        near[np.argsort(np.concatenate(slacks), kind="stable")[:_FEW_ARCS]] = True
        few = np.split(near, np.cumsum([slack.size for slack in slacks])[:-1])
        for mine, paths in zip(few, columns.columns, strict=True):
            for column in paths:
                mine[column.arcs] = True
        found = decide(
            part.restricted(few), min(self.value, last), least=self.bound, solver=self.solver,
            time_limit_s=_FIRST_SHARE * self.time_limit_s,
        )  # fmt: skip
        self._meet(_both(keep, few), found.paths)

    def _meet(self, keep: Sequence[BoolArray], paths: Paths | None) -> None:
        """Paths over the kept arcs: are they the best so far?"""
        if paths is None:
            return
        found = tuple(np.flatnonzero(mine)[arcs] for mine, arcs in zip(keep, paths, strict=True))
        if not self.shared.kept(found):
            raise SolverError("the solver's plans break a limit that they share")
        if self.shared.value(found) < self.value:
            self.best, self.value = found, self.shared.value(found)


def _both(keep: Sequence[BoolArray], further: Sequence[BoolArray]) -> list[BoolArray]:
    """``further`` marks some of the arcs that ``keep`` marks: which of all."""
    marked = []
    for mine, more in zip(keep, further, strict=True):
        both = mine.copy()
        both[mine] = more
        marked.append(both)
    return marked


def _heaviest(shared: Shared) -> float:
    """No paths come to more."""
    if not shared.balanced:
        return sum(-float(part.graph.ahead(-part.weight)[part.graph.last]) for part in shared.parts)
    most = np.zeros(shared.level.size)
    for part in shared.parts:
        for row in np.flatnonzero(shared.level > 0):
            load = part.by_row[[row]].toarray().ravel()
            most[row] -= part.graph.ahead(-load)[part.graph.last]
    return float(most.max())
