"""Where a plan stands on the latency-energy front of its question."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from planner.front import Front, front
from planner.front_points import Point
from planner.plan import Plan
from planner.table import ProfileTable
from runtime.reports.case import Case
from runtime.reports.finding import Finding, Missing
from runtime.reports.front_files import front_rows
from runtime.reports.front_plots import Place, front_figure
from runtime.reports.theme import rounded

_TITLE = "Latency against energy"
_SAME = 1e-6


def front_finding(case: Case, table: ProfileTable) -> Finding | Missing:
    """The front within the plan's limits, without what it allows of latency and energy. Raises ``EdgecutError``."""
    name, plan = f"{case.stem}front", case.plan
    if not any(device.battery for device in plan.fleet.devices):
        return Missing(
            name, _TITLE, "No device of the fleet has battery = true, so every plan uses 0 J. Set it where energy "
            "counts, and active_power_w where no meter was used.",
        )  # fmt: skip
    limits = replace(plan.limits, max_latency_s=None, max_energy_j=None)
    found = front(
        *(plan.chain, plan.fleet, table),
        limits=limits, batch=plan.batch, codecs=plan.origin.codecs,
        statistic=plan.proof.statistic, time_limit_s=case.most_s,
    )  # fmt: skip
    place = place_of(found, plan)
    rows = pd.DataFrame(front_rows(found, [""] * len(found.points))).drop(columns="file")
    rows.insert(1, "this_plan", [point is place.point for point in found.points])
    notes = found.notes
    if place.point is None:
        notes = (
            *notes,
            f"The plan itself minimises {plan.proof.objective}: others beat it in latency and energy.",
        )
    return Finding(
        name,
        _said(found, place),
        lambda: front_figure(found, place),
        rows,
        case.asking("front"),
        notes,
        ("point", "this_plan", "latency_s", "energy_j", "period_s", "knee", "plan"),
    )


def place_of(found: Front, plan: Plan) -> Place:
    """The plan's own point, by what it costs, and the points before and after it."""
    points, cost = found.at(found.budgets[0]), plan.cost
    own = next(
        (
            point
            for point in points
            if math.isclose(point.cost.latency_s, cost.latency_s, rel_tol=_SAME)
            and math.isclose(point.cost.energy_j, cost.energy_j, rel_tol=_SAME)
        ),
        None,
    )
    others = [point for point in points if point is not own]
    faster = [point for point in others if point.cost.latency_s <= cost.latency_s]
    slower = [point for point in others if point.cost.latency_s > cost.latency_s]
    return Place(
        *(plan.stages, plan.hops, cost, own),
        faster[-1] if faster else None,
        slower[0] if slower else None,
    )


def _said(found: Front, place: Place) -> str:
    latency_s, energy_j = place.cost.latency_s, place.cost.energy_j
    here = f"This plan takes {rounded(latency_s * 1e3)} ms and {rounded(energy_j * 1e3)} mJ"
    if len(found.points) == 1 and place.point is not None:
        return f"{here}; no other plan is better in either"
    knee = found.knee
    if place.point is None:
        return f"{here}, off the front of {found.all_points} plans, whose knee takes {_against(knee, place)}"
    if place.point is knee:
        return f"{here}: the knee of a front of {found.all_points} plans"
    return f"{here}, on a front of {found.all_points} plans, whose knee takes {_against(knee, place)}"


def _against(knee: Point, place: Place) -> str:
    """The knee's cost beside the plan's."""
    changes = (
        ("latency", knee.cost.latency_s, place.cost.latency_s),
        ("energy", knee.cost.energy_j, place.cost.energy_j),
    )
    return " and ".join(
        f"{abs(there / here - 1) * 100:.2g} % {'more' if there > here else 'less'} {what}"
        for what, there, here in changes
        if here > 0
    )
