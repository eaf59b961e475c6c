"""Points of latency-energy fronts: which of several budgets' are beaten, which to show, which are on the hull."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost import ROUNDING, FloatArray
from planner.plan import Cost, Hop, Stage


@dataclass(frozen=True)
class Point:
    """A plan that no other beats. ``min_sqnr_db``: the strictest of the budgets asked for that it keeps.
    ``supported``: it is the least for some weighing of latency against energy among the points of its budget."""

    cost: Cost
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    min_sqnr_db: float | None = None
    supported: bool = True


def unbeaten(fronts: list[list[Point]]) -> list[Point]:
    """The points of several budgets, the loosest first, without those that a stricter budget's point beats."""

    kept: list[list[Point]] = []
    stricter = np.empty((0, 2))
    for points in sorted(fronts, key=lambda points: _strictness(points[0].min_sqnr_db), reverse=True):
        found = values(points)
        slack = stricter * (1 - ROUNDING)
        beaten = (slack[:, None] <= found).all(axis=2).any(axis=0)
        kept.append([point for point, out in zip(points, np.atleast_1d(beaten), strict=True) if not out])
        stricter = np.concatenate([stricter, found])
    return [point for points in kept[::-1] for point in points]


def within(points: Sequence[Point], min_sqnr_db: float | None) -> list[Point]:
    """Those of this or a stricter budget that no other of these beats, by latency."""
    kept: list[Point] = []
    asked = [point for point in points if _strictness(point.min_sqnr_db) >= _strictness(min_sqnr_db)]
    for point in sorted(asked, key=lambda point: (point.cost.latency_s, point.cost.energy_j)):
        if not kept or point.cost.energy_j < kept[-1].cost.energy_j * (1 - ROUNDING):
            kept.append(point)
    return kept


def _strictness(min_sqnr_db: float | None) -> float:
    return -math.inf if min_sqnr_db is None else min_sqnr_db


def values(points: Sequence[Point]) -> FloatArray:
    """Shape (points, 2): s and J."""
    return np.array([(point.cost.latency_s, point.cost.energy_j) for point in points])


def normalised(points: Sequence[Point]) -> FloatArray:
    """Both axes from 0 to 1."""
    found = values(points)
    ranges = np.ptp(found, axis=0)
    scaled: FloatArray = (found - found.min(axis=0)) / np.where(ranges > 0, ranges, 1.0)
    return scaled


def spread(points: Sequence[Point], count: int) -> list[Point]:
    """So many of a front's points, both ends among them, nearest to even spacing along it: along the line through all
    points, both axes scaled from 0 to 1."""
    if len(points) <= count:
        return list(points)
    steps = np.linalg.norm(np.diff(normalised(points), axis=0), axis=1)
    along = np.append(0.0, np.cumsum(steps))
    chosen: list[int] = []
    for place, wanted in enumerate(np.linspace(0, along[-1], count)):
        # What is left must suffice for those still to come.
        free = range(chosen[-1] + 1 if chosen else 0, len(points) - (count - 1 - place))
        chosen.append(min(free, key=lambda each: (abs(along[each] - wanted), each)))
    return [points[each] for each in chosen]


def hull(points: FloatArray) -> set[int]:
    """The places of points, shape (points, 2) in order, on the lower convex hull (Andrew's monotone chain)."""
    found: list[int] = []
    scaled = points / np.abs(points).max(axis=0, initial=1e-300)
    for place, value in enumerate(scaled):
        while len(found) > 1:
            one, other = scaled[found[-1]] - scaled[found[-2]], value - scaled[found[-2]]
            if one[0] * other[1] - one[1] * other[0] >= -ROUNDING:
                break
            found.pop()
        found.append(place)
    return set(found)
