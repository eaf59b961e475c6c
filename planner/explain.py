"""Why a plan: what comes next, what others would do, what its limits cost, and which measurements it hangs on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

from planner.baselines import baselines
from planner.chain import Bundle
from planner.codec_table import CodecName
from planner.errors import InputError, SolverError
from planner.explain_limits import shadow_prices
from planner.explain_noise import Key, Noise
from planner.explain_parts import Part, challengers, endurance, parts
from planner.explain_period import explain_period
from planner.explain_runners import DISTINCT, Distinct, runners_up
from planner.explain_words import drift, summary
from planner.explanation import Challenger, Endurance, Explanation, Rival
from planner.override import priced_override
from planner.peers import peers
from planner.plan import Baseline, Hop, Plan, Stage
from planner.pricing import priced
from planner.question import EQUAL, Question, arcs_of
from planner.rules import broken
from planner.solver import value_of
from planner.table import ProfileTable


def explain(
    plan: Plan,
    table: ProfileTable,
    *,
    count: int = 5,
    distinct: Distinct = "cuts",
    codecs: Sequence[CodecName] | None = None,
    partial: bool = False,
    dime_layers: int | None = None,
    measurements_only: bool = False,
    time_limit_s: float = 60.0,
    solver: str = "cbc",
) -> Explanation:
    """Explain the optimum of a plan's question by the tables given, and how the plan compares with it.

    ``count``: of runners-up and of bundles that come close. ``distinct``: what makes a runner-up another plan:
    "devices" of some layer, "cuts" (devices or bundles), "variants" (anything, codecs and routes too). ``codecs``:
    that hops may use; left out, as the plan was solved. ``partial``: over tables from which bundles are missing, too.
    ``measurements_only``: what the plan hangs on, without plans beside it and without what limits cost.
    ``time_limit_s``: of each search. Raises ``MismatchError`` for tables of
    another chain, ``InputError`` for tables without what the plan runs, else as ``solve``.
    """
    if distinct not in DISTINCT or count < 0:
        raise InputError(
            f"cannot list {count} plans distinct in {distinct!r}", f"one of {', '.join(DISTINCT)}"
        )
    weights, codecs = plan.proof.weights, plan.origin.codecs if codecs is None else codecs
    partial = partial or plan.origin.partial
    if not weights:
        return explain_period(
            *(plan, table), count=count, distinct=distinct, codecs=codecs, partial=partial,
            measurements_only=measurements_only, time_limit_s=time_limit_s, solver=solver,
        )  # fmt: skip
    model, left_out = priced(
        *(plan.chain, plan.fleet, table, weights, plan.limits, plan.batch, codecs),
        statistic=plan.proof.statistic, partial=partial,
    )  # fmt: skip
    given = priced_override(replace(model, fleet=plan.fleet), plan.limits, weights, plan)
    stages, hops, cost = given.stages, given.hops, given.cost
    question = Question.of(
        *(model, plan.fleet, plan.limits, weights),
        prefer=lambda graph: arcs_of(graph, stages, hops), time_limit_s=time_limit_s, solver=solver,
    )  # fmt: skip
    best = question.optimum
    value = value_of(cost, weights)
    found = Explanation(
        summary="",
        plan=plan,
        value=value,
        optimum=best,
        optimum_value=question.best.value,
        holds=(best.stages, best.hops) == (stages, hops),
        proven=question.best.proven,
        distinct=distinct,
        baselines=() if measurements_only else _baselines(question, dime_layers),
        limits=() if measurements_only else shadow_prices(question),
        notes=(*drift(plan, cost), *left_out),
    )
    found = _measured(found, question, table, count, distinct, measurements_only)
    return replace(found, summary=summary(found))


def _measured(
    found: Explanation,
    question: Question,
    table: ProfileTable,
    count: int,
    distinct: Distinct,
    measurements_only: bool,
) -> Explanation:
    """With what depends on single measurements, beside their noise; if only that is asked for, what there is time
    for."""
    graph, best = question.problem.graph, found.optimum
    plans = 0 if measurements_only else count
    following = [
        _rival(question, f"{place}.", *graph.decode(each.arcs), proven=each.proven)
        for place, each in enumerate(itertools.islice(runners_up(question, distinct), plans), start=2)
    ]
    slower: list[tuple[Part, Endurance]] = []
    close: list[tuple[int, Challenger]] = []
    notes = found.notes
    try:
        for part in parts(question):
            slower.append((part, endurance(question, part)))
        close = challengers(question, count)
    except SolverError as error:
        if not measurements_only:
            raise
        notes = (*notes, f"not all of what the choice hangs on was looked at: {error.message}")

    def key(arc: int) -> Key:
        way = graph.model.ways[graph.way[arc]]
        return way.device, Bundle(int(graph.start[arc]), int(graph.stop[arc])), way.variant

    keys = [key(arc) for arc, _ in close]
    noise = Noise(
        found.plan, table, [*best.stages, *(stage for each in following for stage in each.stages)], keys
    )
    of_stages = iter([(stage.device, stage.bundle, stage.variant) for stage in best.stages])
    return replace(
        found,
        runners_up=tuple(noise.rival(each, best.stages) for each in following),
        slower=tuple(
            noise.slower(each, next(of_stages) if part.kind == "stage" else None) for part, each in slower
        ),
        quicker=tuple(noise.quicker(each, named) for (_, each), named in zip(close, keys, strict=True)),
        remeasure=noise.commands(),
        notes=notes,
    )


def _rival(
    question: Question,
    name: str,
    stages: tuple[Stage, ...],
    hops: tuple[Hop, ...],
    *,
    source: str = "",
    expected: float | None = None,
    proven: bool = True,
) -> Rival:
    cost = question.model.price(stages, hops)
    value, best = value_of(cost, question.weights), question.best.value
    plan = Baseline(name, stages, hops, cost)
    return Rival(
        *(name, stages, hops, cost, value, value - best),
        equal=math.isclose(value, best, rel_tol=EQUAL),
        breaks=broken(question.fleet, question.limits, plan),
        source=source,
        expected=expected,
        proven=proven,
    )


def _baselines(question: Question, dime_layers: int | None) -> tuple[Rival, ...]:
    """What others would do, best first."""
    devices = list(dict.fromkeys(stage.device for stage in question.optimum.stages))
    found = [
        _rival(question, each.name, each.stages, each.hops, source="by hand")
        for each in baselines(question.model, question.weights)
    ]
    found += [
        _rival(question, each.name, each.stages, each.hops, source=each.source, expected=each.expected)
        for each in peers(
            *(question.model, question.weights, question.limits, devices),
            dime_layers=dime_layers, time_limit_s=question.time_limit_s,
        )
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda each: each.value))
