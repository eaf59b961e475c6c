"""What a pipeline's period hangs on: how much slower its devices and links may be, and what would shorten it.

A period is the most of many sums, so nothing here is a straight line that passes over a graph could price. Every answer
is a least period found anew, with something slower, faster or looser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from planner.cost import CostModel, ceilings
from planner.explanation import Endurance, ShadowPrice, Step
from planner.parametric import Bandwidth, Load
from planner.period import busy_s
from planner.period_question import Least, PeriodQuestion
from planner.pipeline import Parts
from planner.placement import without
from planner.plan import Cost
from planner.question import EQUAL, difference
from planner.rules import only, rules, taken

# What counts as however slow; and what devices and links are made faster, and limits looser, by.
_SLOWEST = 1e3
FASTER, LOOSENED = (0.1, 1.0), (0.01, 0.1, 0.5)
# Beside a factor at which two plans are equal; closer, both are the same to a solver.
_BESIDE = 1e-5


def slowed(model: CostModel, name: str, factor: float) -> CostModel:
    """Prices where a device (all that it computes and codes) or a link "a->b" takes ``factor`` times as long."""
    if "->" in name:
        link = Bandwidth.of(model.fleet, [name])
        return link.at(model, link.now(model.fleet) / factor)
    rows = {
        key: replace(row, encode_s=row.encode_s * factor, decode_s=row.decode_s * factor)
        if key[0] == name
        else row
        for key, row in model.codecs.items()
    }
    return replace(Load(name).at(model, factor), codecs=rows)


def endurance(question: PeriodQuestion, best: Least, name: str) -> Endurance:
    """How much slower a device or link may be before another plan has a lesser period, or the plan breaks a limit.

    A plan's period is the most of a constant and a line in the factor: from a plan that is better at some factor, go
    back to where the two meet, until none is better beside that. Raises ``OutOfTimeError``.
    """
    kind = "link" if "->" in name else "device"
    shown = name.replace("->", " → ")
    own = _pair(question, best.parts, name)
    if not own[1]:
        return Endurance(kind, shown, None, "", best.proven)
    limit, why = _breaks(question, best.parts, name)
    factor, at, until, proven = math.inf, min(limit, _SLOWEST), "", best.proven
    while at > 1:
        beside = at * (1 - _BESIDE) if at == limit else at
        rival = question.least(slowed(question.model, name, beside))
        proven = proven and (rival is None or rival.proven)
        if rival is None or rival.value >= max(own[0], own[1] * beside) * (1 - _BESIDE / 10):
            break
        rest, _ = _pair(question, rival.parts, name)
        factor = max(rest / own[1], 1.0)
        until = _path(rival.parts, best.parts)
        at = factor * (1 + _BESIDE)
        if at >= beside:
            break
    if limit < factor and limit < _SLOWEST:
        factor, until = limit, f"it breaks {why}"
    exact = proven and not question.limits.max_share
    return Endurance(kind, shown, factor if math.isfinite(factor) else None, until, exact)


def _path(parts: Parts, best: Parts) -> str:
    """A plan in words, as it differs from the optimum; empty where it is the same, whatever it costs now."""

    def ways(each: Parts) -> list[tuple[object, ...]]:
        return [(s.device, s.bundle, s.variant) for s in each[0]] + [(h.route, h.codec) for h in each[1]]

    return difference(parts[0], best[0]) if ways(parts) != ways(best) else ""


def _pair(question: PeriodQuestion, parts: Parts, name: str) -> tuple[float, float]:
    """The most that anything else is busy, and how long this device or link is."""
    busy = busy_s(question.model.fleet, *parts)
    mine = busy.pop(name, 0.0)
    return max(busy.values(), default=0.0), mine


def _breaks(question: PeriodQuestion, parts: Parts, name: str) -> tuple[float, str]:
    """The factor at which the plan itself breaks a limit on a sum, and which."""
    now, twice = (_priced(slowed(question.model, name, factor), parts) for factor in (1.0, 2.0))
    first = math.inf, ""
    for criterion, most in ceilings(question.limits).items():
        growth = twice.of(criterion) - now.of(criterion)
        if growth > 0 and math.isfinite(most):
            first = min(first, (1 + max(most - now.of(criterion), 0.0) / growth, f"its limit on {criterion}"))
    return first


def _priced(model: CostModel, parts: Parts) -> Cost:
    stages = tuple(model.stage(each.device, each.bundle, each.variant) for each in parts[0])
    return model.price(stages, tuple(model.hop(each.boundary, each.route, each.codec) for each in parts[1]))


def what_helps(question: PeriodQuestion, best: Least) -> Iterable[ShadowPrice]:
    """Of the devices and links in use: the least period where one is faster; then of each limit, where it is looser.

    Raises ``OutOfTimeError``.
    """
    for name in busy_s(question.model.fleet, *best.parts):
        now = Bandwidth.of(question.fleet, [name]).now(question.fleet) if "->" in name else 1.0
        found = [
            (now * (1 + more), question.least(slowed(question.model, name, 1 / (1 + more))))
            for more in FASTER
        ]
        kind = "bandwidth" if "->" in name else "speed"
        yield _price(kind, name, now, None, best, found)
    everything = rules(question.fleet, question.limits)
    for rule in everything:
        if rule.field == "max_period_s":
            continue  # a plan of least period asks nothing of it
        others = [each for each in everything if each != rule]
        looser: list[float | None] = [None]
        if rule.valued and rule.kind.at_most and not rule.kind.counts:
            looser = [*(rule.asked * (1 + more) for more in LOOSENED), None]
        answers: list[tuple[float | None, Least | None]] = []
        for value in looser:
            kept = others if value is None else [*others, replace(rule, asked=value)]
            fleet, limits = only(question.fleet, question.limits, kept, len(question.model.chain))
            model = replace(question.model, fleet=without(fleet, limits))
            answers.append((value, question.least(model, limits)))
        used = None
        if rule.valued:
            used = taken(rule, question.fleet, question.limits, question.entry("", best.parts))
            used = Cost(0.0, 0.0, used).sqnr_db if rule.field == "min_sqnr_db" else used
        item = rule.item if rule.valued else rule.shown
        yield _price(rule.field, item, rule.asked if rule.valued else None, used, best, answers)


def _price(
    limit: str,
    item: str,
    allowed: float | None,
    used: float | None,
    best: Least,
    found: Sequence[tuple[float | None, Least | None]],
) -> ShadowPrice:
    steps = tuple(Step(value, each.value, _path(each.parts, best.parts)) for value, each in found if each)
    proven = best.proven and all(each.proven for _, each in found if each)
    binds = any(step.value < best.value * (1 - EQUAL) for step in steps)
    used = None if used is None or not math.isfinite(used) else used
    return ShadowPrice(limit, item, allowed, used, binds, None, steps, None, proven)
