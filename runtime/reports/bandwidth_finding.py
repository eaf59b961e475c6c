"""At which bandwidths of its most important link a plan stops being the best."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from planner.limits import Criterion
from planner.notebook import path_text
from planner.parametric import Bandwidth, Interval, alone, break_even
from planner.plan import Plan
from planner.pricing import priced
from planner.table import ProfileTable
from runtime.reports.break_even_plots import break_even_figure
from runtime.reports.case import Case
from runtime.reports.finding import Finding, Missing
from runtime.reports.front_files import break_even_rows, plan_name
from runtime.reports.theme import rounded, short

_MBPS = 125e3  # bytes per second
_LEAST, _MOST = 0.1, 1000.0  # Mbit/s
_AROUND = 30.0  # times the present bandwidth to show at least, to either side


def bandwidth_finding(case: Case, table: ProfileTable) -> Finding | Missing:
    """Break-even points of the link on which the plan spends most time. Raises ``EdgecutError``."""
    plan, name = case.plan, f"{case.stem}bandwidth"
    if not plan.fleet.links:
        return Missing(name, "Latency against bandwidth", "The fleet has no link. Add one to it.")
    # What a pipeline minimises is no straight line in 1 / bandwidth; its latency is.
    weights: dict[Criterion, float] = dict(plan.proof.weights) or {"latency": 1.0}
    link = busiest_link(plan)
    parameter = Bandwidth.of(plan.fleet, [link])
    now = parameter.now(plan.fleet)
    low, high = (float(f"{each:.3g}") for each in _range(now / _MBPS))
    limits = replace(plan.limits, max_period_s=None) if not plan.proof.weights else plan.limits
    model, notes = priced(
        *(plan.chain, plan.fleet, table, weights, limits, plan.batch, plan.origin.codecs),
        plan.proof.statistic, plan.origin.partial,
    )  # fmt: skip
    intervals = break_even(
        model,
        parameter,
        low * _MBPS,
        high * _MBPS,
        weights=weights,
        limits=limits,
        time_limit_s=case.most_s,
    )
    by_device = alone(model, parameter, low * _MBPS, high * _MBPS, weights=weights)
    if not plan.proof.weights:
        notes = ("The plan minimises the period; break-even points are those of the least latency.", *notes)
    if not all(each.proven for each in intervals):
        notes = ("Not every plan was proven in time; see the column proven.", *notes)
    objective = " + ".join(each if factor == 1 else f"{factor:g} {each}" for each, factor in weights.items())
    options = ["--link", link, "--from-mbps", f"{low:g}", "--to-mbps", f"{high:g}"]
    if set(weights.items()) & {("latency", 1.0), ("energy", 1.0)} and len(weights) == 1:
        options += ["--objective", objective]
    else:
        options += [word for each, factor in weights.items() for word in ("--weigh", f"{each}={factor!r}")]
    return Finding(
        name,
        _said(plan, parameter, intervals, now),
        lambda: break_even_figure(parameter, objective, intervals, by_device, plan.fleet),
        pd.DataFrame(break_even_rows(parameter, objective, intervals)),
        case.asking("break-even", *options),
        notes,
    )


def busiest_link(plan: Plan) -> str:
    """The link ("a->b") that the plan's hops keep busy longest; "all" for a plan without hops."""
    busy: dict[tuple[str, str], float] = {}
    for hop in plan.hops:
        for pair in itertools.pairwise(hop.route):
            link = plan.fleet.link(*pair)
            assert link is not None, pair
            busy[pair] = busy.get(pair, 0.0) + link.transfer_s(hop.wire_bytes)
    if not busy:
        return "all"
    source, target = max(busy, key=busy.__getitem__)
    return f"{source}->{target}"


def _range(now_mbps: float) -> tuple[float, float]:
    return min(_LEAST, now_mbps / _AROUND), max(_MOST, now_mbps * _AROUND)


def _said(plan: Plan, parameter: Bandwidth, intervals: Sequence[Interval], now: float) -> str:
    """Between which bandwidths the plan that is the best today stays it, and what is beyond."""
    place = next((k for k, each in enumerate(intervals) if now <= each.high), len(intervals) - 1)
    here, last = intervals[place], place == len(intervals) - 1
    mine = path_text(here.stages, here.hops) == path_text(plan.stages, plan.hops)
    who = "This plan" if mine else f"Not this plan, but {_named(here)}"
    what = " → ".join(parameter.links[0]) if not parameter.links[1:] else "all links in proportion"
    what += f" ({rounded(now / _MBPS)} now)"
    low, high = rounded(here.low / _MBPS), rounded(here.high / _MBPS)
    if place == 0 and last:
        return f"{who} is the best from {low} to {high} Mbit/s of {what}"
    if last:
        return f"{who} is the best above {low} Mbit/s of {what}; below, {_named(intervals[place - 1])}"
    above = _named(intervals[place + 1])
    if place == 0:
        return f"{who} is the best up to {high} Mbit/s of {what}; above, {above}"
    below = _named(intervals[place - 1])
    return f"{who} is the best from {low} to {high} Mbit/s of {what}; below, {below}; above, {above}"


def _named(interval: Interval) -> str:
    return short(plan_name(interval.stages, interval.hops), 50)
