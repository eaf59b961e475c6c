"""The best order of devices, each visited once: a dynamic programme over sets of devices.

    stayed[S,e,j] = least over k of   arrived[S,e,k] with the stay of e from k to j
    arrived[S+f,f,j] = least over e of  stayed[S,e,j] with the hop from e to f at j

(Bellman 1962 and Held and Karp 1962 for the travelling salesman). S counts the devices of each kind, so those
of one kind cost no more states than their number. Two ways to put parts together: the maximum (the busiest
part, a period) or the sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planner.cost import FloatArray
from planner.errors import PlanningError
from planner.graph import IntArray

Combine = Callable[[FloatArray, FloatArray], FloatArray]
_MOST_BYTES = 1.5e9


@dataclass(frozen=True, eq=False)
class Steps:
    """What the parts of a journey weigh, inf where there is none.

    A point is a boundary and the codec that the tensors there are in: boundary x ``codecs`` + codec, up to
    ``points`` in all. ``capacity``: devices of each kind. ``start``: shape (kinds, points), of arriving first.
    ``stay``: shape (kinds, points, points). ``hop``: shape (kinds, kinds, points). ``end``: shape (kinds,
    points), of ending there.
    """

    capacity: tuple[int, ...]
    codecs: int
    start: FloatArray
    stay: FloatArray
    hop: FloatArray
    end: FloatArray


@dataclass(frozen=True)
class Visit:
    """A device of this kind computes from one point to another."""

    kind: int
    arrives: int
    leaves: int


def best_order(steps: Steps, combine: Combine) -> tuple[float, list[Visit]]:
    """The least journey, and its weight; inf and no visits where there is none.

    ``combine``: ``np.maximum`` or ``np.add``. Raises ``PlanningError`` where the states do not fit in memory.
    """
    return _Journeys(steps, combine).best()


class _Journeys:
    def __init__(self, steps: Steps, combine: Combine) -> None:
        self.steps, self.combine = steps, combine
        sizes = np.array(steps.capacity, dtype=np.int64) + 1
        states = math.prod(sizes.tolist())
        kinds, points = steps.start.shape
        if states * kinds * points * 8 > _MOST_BYTES:
            raise PlanningError(
                f"{states} sets of devices are too many to look at each",
                "leave devices out, or allow several stages of a device",
            )
        self.counts = np.stack(np.unravel_index(np.arange(states), sizes), axis=1)
        self.place = np.array(
            [math.prod(sizes[kind + 1 :].tolist()) for kind in range(kinds)], dtype=np.int64
        )
        self.arrived = np.full((states, kinds, points), np.inf)

    def best(self) -> tuple[float, list[Visit]]:
        """Set by set, in the order of their sizes."""
        steps = self.steps
        for kind in np.flatnonzero(np.array(steps.capacity)).tolist():
            self.arrived[self.place[kind], kind] = steps.start[kind]
        least, ending = math.inf, (0, 0, 0)
        for states in self._by_size():
            for kind in range(len(steps.capacity)):
                inside = states[self.counts[states, kind] > 0]
                arrived = self.arrived[inside, kind]
                arrived[arrived >= least] = np.inf
                some = np.isfinite(arrived).any(axis=1)
                if not some.any():
                    continue
                inside = inside[some]
                stayed = self._stayed(arrived[some], kind)
                ends = self.combine(stayed, steps.end[kind])
                if ends.min() < least:
                    row, point = divmod(int(ends.argmin()), ends.shape[1])
                    least, ending = float(ends[row, point]), (int(inside[row]), kind, point)
                for after in range(len(steps.capacity)):
                    room = self.counts[inside, after] < steps.capacity[after]
                    if room.any() and np.isfinite(steps.hop[kind, after]).any():
                        target = inside[room] + self.place[after]
                        moved = self.combine(stayed[room], steps.hop[kind, after])
                        self.arrived[target, after] = np.minimum(self.arrived[target, after], moved)
        return (least, self._visits(*ending)) if math.isfinite(least) else (math.inf, [])

    def _by_size(self) -> Iterator[IntArray]:
        sizes = self.counts.sum(axis=1)
        order = np.argsort(sizes, kind="stable")
        edges = np.searchsorted(sizes[order], np.arange(1, sizes.max() + 2))
        for low, high in itertools.pairwise(edges.tolist()):
            yield order[low:high]

    def _stayed(self, arrived: FloatArray, kind: int) -> FloatArray:
        """The least for leaving at each point; ``arrived``: shape (states, points)."""
        stay, codecs = self.steps.stay[kind], self.steps.codecs
        stayed = np.full_like(arrived, np.inf)
        for point in np.flatnonzero(np.isfinite(arrived).any(axis=0)).tolist():
            onwards = slice((point // codecs + 1) * codecs, None)
            reached = self.combine(arrived[:, point, None], stay[point, onwards])
            np.minimum(stayed[:, onwards], reached, out=stayed[:, onwards])
        return stayed

    def _visits(self, state: int, kind: int, leaves: int) -> list[Visit]:
        """The visits that end so, found again from what arrives."""
        visits = []
        while True:
            ways = self.combine(self.arrived[state, kind], self.steps.stay[kind][:, leaves])
            arrives = int(ways.argmin())
            visits.append(Visit(kind, arrives, leaves))
            state -= int(self.place[kind])
            if state == 0:
                return visits[::-1]
            into = np.full(len(self.steps.capacity), np.inf)
            for before in np.flatnonzero(self.counts[state]).tolist():
                stayed = self.combine(self.arrived[state, before], self.steps.stay[before][:, arrives])
                into[before] = self.combine(stayed.min(), self.steps.hop[before, kind, arrives])
            kind, leaves = int(into.argmin()), arrives
