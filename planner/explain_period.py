"""Why a pipeline: the device or link that its period waits for, the plans that come next, and what would change it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from planner.baselines import baselines
from planner.codec_table import CodecName
from planner.errors import PlanningError
from planner.explain_period_parts import endurance, what_helps
from planner.explain_words import drift, summary
from planner.explanation import Explanation, Rival
from planner.override import priced_override
from planner.peers import Peers
from planner.period import busy_s, period_s
from planner.period_question import Least, OutOfTimeError, PeriodQuestion, next_periods
from planner.plan import Plan
from planner.pricing import priced
from planner.problem import Problem
from planner.question import EQUAL
from planner.rules import broken
from planner.search import search
from planner.table import ProfileTable

T = TypeVar("T")


def explain_period(
    plan: Plan,
    table: ProfileTable,
    *,
    count: int,
    distinct: str,
    codecs: Sequence[CodecName] | None,
    partial: bool,
    measurements_only: bool,
    time_limit_s: float,
    solver: str,
) -> Explanation:
    """As `explain.explain`, of a plan of least period. ``time_limit_s``: of the optimum, and of each table; what there
    was no time for is left out, and a note says so."""
    model, left_out = priced(
        *(plan.chain, plan.fleet, table, "period", plan.limits, plan.batch, codecs),
        plan.proof.statistic,
        partial,
    )
    given = priced_override(replace(model, fleet=plan.fleet), plan.limits, {}, plan)
    stages, hops = given.stages, given.hops
    question = PeriodQuestion(model, plan.fleet, plan.limits, time.perf_counter() + time_limit_s, solver)
    value, best = period_s(plan.fleet, stages, hops), question.optimum()
    keeps = not broken(plan.fleet, plan.limits, given)
    if keeps and value <= best.value * (1 + EQUAL):  # of equal periods, the plan itself
        best = Least((stages, hops), value, best.proven)
    busy = busy_s(model.fleet, *best.parts)
    notes: list[str] = []

    def within_time(what: str, found: Callable[[PeriodQuestion], Iterable[T]]) -> tuple[T, ...]:
        """As many of these as there is time for."""
        rows = []
        try:
            for row in found(replace(question, ends=time.perf_counter() + time_limit_s)):
                rows.append(row)
        except OutOfTimeError:
            notes.append(f"there was no time for all of {what}: raise --time-limit")
        return tuple(rows)

    if measurements_only:
        count = 0
    following = within_time(
        "the plans that come next",
        lambda asked: (
            asked.rival(f"{place}.", each.parts, best, proven=each.proven)
            for place, each in enumerate(
                itertools.islice(next_periods(asked, best, distinct), count), start=2
            )
        ),
    )
    slower = within_time(
        "what the choice hangs on", lambda asked: (endurance(asked, best, name) for name in _busiest(busy))
    )
    limits = (
        () if measurements_only else within_time("what would help", lambda asked: what_helps(asked, best))
    )
    found = Explanation(
        summary="",
        plan=plan,
        value=value,
        optimum=question.entry("the optimum", best.parts),
        optimum_value=best.value,
        holds=best.parts == (stages, hops),
        proven=best.proven,
        distinct=distinct,
        runners_up=following,
        baselines=() if measurements_only else _others_ways(question, best, time_limit_s),
        limits=limits,
        slower=slower,
        notes=(*notes, *drift(plan, given.cost), *left_out),
        busy_s={name: busy[name] for name in _busiest(busy)},
    )
    return replace(found, summary=summary(found))


def _busiest(busy: dict[str, float]) -> list[str]:
    return sorted(busy, key=lambda name: -busy[name])


def _others_ways(question: PeriodQuestion, best: Least, time_limit_s: float) -> tuple[Rival, ...]:
    """What one would do by hand, and the plan of least latency, best first."""
    model, source = question.model, "by hand"
    found = [
        question.rival(each.name, (each.stages, each.hops), best, source=source)
        for each in baselines(model, {})
    ]
    by, devices = Peers(model, {}), list(dict.fromkeys(stage.device for stage in best.parts[0]))
    found += [
        question.rival(each.name, (each.stages, each.hops), best, source=each.source)
        for each in (*by.equal_layers(devices), *by.equal_work(devices))
    ]
    problem = Problem.of(model, question.limits)
    try:
        arcs = search(problem, {"latency": 1.0}, time_limit_s=time_limit_s, solver=question.solver).arcs
    except PlanningError:  # in time; there is a plan
        pass
    else:
        found.append(
            question.rival("least latency", problem.graph.decode(arcs), best, source="edgecut solve")
        )
    return tuple(sorted(found, key=lambda each: each.value))
