"""What searches hand on: the arcs that are left of a problem, and what came of looking among them."""

from __future__ import annotations

from dataclasses import dataclass

from planner.cost import FloatArray
from planner.graph import BoolArray, IntArray
from planner.labels import Bound, Labelled
from planner.problem import Problem


@dataclass(frozen=True, eq=False)
class Part:
    """A problem over some of the arcs; ``arcs`` are their places in the whole one."""

    problem: Problem
    weight: FloatArray
    arcs: IntArray

    def kept(self, keep: BoolArray) -> Part:
        if keep.all():
            return self
        return Part(self.problem.restricted(keep), self.weight[keep], self.arcs[keep])


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of a guess: the part that was left, its labels and their bounds. ``tied``: nothing is lighter than the
    best path known, but which of those as light is best by what breaks ties is not settled."""

    part: Part
    most: float
    labelled: Labelled
    bounds: list[Bound]
    prices: FloatArray
    tied: bool = False
