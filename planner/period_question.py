"""The question that a plan of least period answers, asked again: with other prices or limits, or without a stage."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from planner.cost import CostModel
from planner.errors import PlanningError, SolverError
from planner.explanation import Rival
from planner.fleet import Fleet
from planner.limits import Limits
from planner.period import period_s
from planner.pipeline import Parts
from planner.plan import Baseline, Outcome
from planner.question import EQUAL
from planner.rules import broken
from planner.throughput import least_period_plan


class OutOfTimeError(Exception):
    """A search found nothing in the time there was."""


@dataclass(frozen=True, eq=False)
class Least:
    """A plan of least period."""

    parts: Parts
    value: float
    proven: bool


@dataclass(frozen=True, eq=False)
class PeriodQuestion:
    """``fleet``: with the links that the limits exclude. ``ends``: when searches are to end, by `perf_counter`."""

    model: CostModel
    fleet: Fleet
    limits: Limits
    ends: float
    solver: str

    def least(self, model: CostModel | None = None, limits: Limits | None = None) -> Least | None:
        """None where there is no plan. Raises ``OutOfTimeError``."""
        left_s = self.ends - time.perf_counter()
        if left_s <= 0:
            raise OutOfTimeError
        try:
            return self._least(model or self.model, limits or self.limits, left_s)
        except SolverError:
            raise OutOfTimeError from None
        except PlanningError:
            return None

    def optimum(self) -> Least:
        """Raises as `throughput.least_period_plan`."""
        left_s = max(self.ends - time.perf_counter(), 1.0)
        return self._least(self.model, self.limits, left_s)

    def _least(self, model: CostModel, limits: Limits, time_limit_s: float) -> Least:
        found = least_period_plan(
            model, limits, several=not limits.once, time_limit_s=time_limit_s, solver=self.solver
        )
        proven = found.outcome is Outcome.OPTIMAL
        return Least(found.parts, period_s(model.fleet, *found.parts), proven)

    def entry(self, name: str, parts: Parts) -> Baseline:
        return Baseline(name, *parts, self.model.price(*parts))

    def rival(self, name: str, parts: Parts, best: Least, *, source: str = "", proven: bool = True) -> Rival:
        entry, value = self.entry(name, parts), period_s(self.model.fleet, *parts)
        return Rival(
            *(name, *parts, entry.cost, value, value - best.value),
            equal=math.isclose(value, best.value, rel_tol=EQUAL),
            breaks=broken(self.fleet, self.limits, entry), source=source, proven=proven,
        )  # fmt: skip


def next_periods(question: PeriodQuestion, best: Least, distinct: str) -> Iterator[Least]:
    """The plans of the next periods, of equal ones those of less latency first.

    Whatever differs from a plan lacks a stage of it (or, for "devices", has a layer elsewhere): so beside each plan
    found stand the best ones without each of its stages (after Murty 1968, whose sets are disjoint; here plans that
    turn up again are dropped). Raises ``OutOfTimeError``.
    """
    count = itertools.count()
    seen = {_kind(best.parts, distinct)}
    model = question.model
    waiting: list[tuple[float, float, int, Least, CostModel]] = []

    def branch(found: Least, model: CostModel) -> None:
        for narrower in _lacking(model, found.parts, distinct):
            other = question.least(narrower)
            if other is not None:
                latency = question.model.price(*other.parts).latency_s
                heapq.heappush(waiting, (other.value, latency, next(count), other, narrower))

    branch(best, model)
    while waiting:
        *_, found, model = heapq.heappop(waiting)
        kind = _kind(found.parts, distinct)
        if kind not in seen:
            seen.add(kind)
            yield found
        branch(found, model)


def _kind(parts: Parts, distinct: str) -> tuple[object, ...]:
    stages = parts[0]
    if distinct == "devices":
        return tuple(stage.device for stage in stages for _ in range(len(stage.bundle)))
    if distinct == "cuts":
        return tuple((stage.device, stage.bundle) for stage in stages)
    return tuple((stage.device, stage.bundle, stage.variant) for stage in stages)


def _lacking(model: CostModel, parts: Parts, distinct: str) -> Iterator[CostModel]:
    """The prices without each stage of a plan, or for "devices" without each layer where it is."""
    layers = len(model.chain)
    start, stop = np.indices((layers, layers + 1))
    for stage in parts[0]:
        mine = np.array(
            [
                way.device == stage.device and (distinct != "variants" or way.variant == stage.variant)
                for way in model.ways
            ]
        )
        cells = [(start == stage.bundle.start) & (stop == stage.bundle.stop)]
        if distinct == "devices":
            span = range(stage.bundle.start, stage.bundle.stop)
            cells = [(start <= layer) & (stop > layer) for layer in span]
        for cell in cells:
            gone = mine.reshape(-1, 1, 1) & cell
            yield replace(model, latency_s=np.where(gone, np.inf, model.latency_s))
