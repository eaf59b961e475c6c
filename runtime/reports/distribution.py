"""How long the requests of a run took: their spread, and how it went over the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planner.cost import FloatArray
from planner.run import Run
from planner.run_rows import RunRow
from runtime.reports.case import Case
from runtime.reports.finding import Finding, Missing
from runtime.reports.simulation_plot import scale_latencies
from runtime.reports.theme import ALARM, COLOURS, INK, PAPER, rounded

_SHARES = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100)
_NAMED = (50, 95, 99)
_DRIFT = 0.05  # of the median, from the first third of a run to the last
_FEWEST = 9  # requests of which thirds say anything


def distribution_finding(case: Case, run: Run) -> Finding | Missing:
    """Latencies from input to output, waiting included, by the plan that answered."""
    name, totals = f"{case.stem}latency", [row for row in run.rows if row.kind == "total"]
    if not totals:
        reason = "No request of the run was answered. Deploy the plan again."
        return Missing(name, "Latency of the requests", reason)
    values = _seconds(totals)
    rows = []
    for number in sorted({row.plan for row in totals}):
        mine = [row for row in totals if row.plan == number]
        for share, value in zip(_SHARES, np.percentile(_seconds(mine), _SHARES), strict=True):
            rows.append(
                {
                    "plan": number, "requests": len(mine), "share": share / 100, "latency_s": float(value),
                    "forecast_s": mine[0].forecast_s,
                }
            )  # fmt: skip
    return Finding(
        name,
        _said(run, values),
        lambda: _figure(run, totals),
        pd.DataFrame(rows),
        case.report,
        tuple(_notes(run, totals)),
    )


def _seconds(rows: Sequence[RunRow]) -> FloatArray:
    return np.array([row.measured_s for row in rows])


def _said(run: Run, values: FloatArray) -> str:
    middle, most = np.percentile(values, (50, 95)) * 1e3
    forecast = run.info.plan.cost.latency_s * 1e3
    waits = f"; {run.info.concurrency} in flight wait for each other" if run.info.concurrency > 1 else ""
    return (
        f"Half of {len(values):,} requests took at most {rounded(middle, 4)} ms, 95 % at most {rounded(most, 4)} ms; "
        f"forecast of one alone {rounded(forecast, 4)} ms{waits}"
    )


def _notes(run: Run, totals: Sequence[RunRow]) -> list[str]:
    notes = []
    third = len(totals) // 3
    if len(totals) >= _FEWEST:
        first, last = np.median(_seconds(totals[:third])), np.median(_seconds(totals[-third:]))
        change = last / first - 1 if first else 0.0
        word = "drifted" if abs(change) > _DRIFT else "held"
        notes.append(
            f"It {word}: the median of the last third of the run is {change * 100:+.1f} % against the first."
        )
    notes += [f"{each.at}: plan {each.plan} took over, {each.stages}: {each.reason}" for each in run.switches]
    return notes


def _figure(run: Run, totals: Sequence[RunRow]) -> Figure:
    """Left, the share of requests answered within a latency; right, each request's latency, changes of plan marked."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    spread, course = figure.subplots(1, 2, width_ratios=(1, 1.4), sharex=False)
    timed = all(row.begin_s is not None for row in totals)
    at = np.array([row.begin_s if timed else row.request for row in totals], dtype=float)
    plans = sorted({row.plan for row in totals})
    for number in plans:
        mine = np.array([row.plan == number for row in totals])
        values, colour = _seconds(totals)[mine] * 1e3, COLOURS[number % len(COLOURS)]
        label = f"plan {number}" if len(plans) > 1 else "measured"
        shares = np.arange(1, len(values) + 1) / len(values)
        spread.step(
            np.concatenate([[values.min()], np.sort(values)]), np.concatenate([[0], shares]), where="post",
            color=colour, linewidth=1.8, label=label,
        )  # fmt: skip
        course.scatter(
            at[mine], values, s=16 if len(totals) <= 500 else 6, color=colour, alpha=0.55, linewidths=0,
            rasterized=len(totals) > 500,
        )  # fmt: skip
        forecast = next(row.forecast_s for row in totals if row.plan == number) * 1e3
        label = "forecast of one request alone" if number == plans[0] else ""
        spread.axvline(forecast, color=colour, linestyle=":", linewidth=1.6, label=label)
        course.axhline(forecast, color=colour, linestyle=":", linewidth=1.6)
    _mark_changes(course, totals, at)
    scale_latencies(spread, course, list(_seconds(totals) * 1e3))
    if len(plans) == 1:
        _name_percentiles(spread, _seconds(totals) * 1e3)
    spread.set(xlabel="latency [ms]", ylabel="share of requests", ylim=(0, 1.02))
    course.set(xlabel="begin of the request [s]" if timed else "request", ylabel="latency [ms]")
    for axes in (spread, course):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.legend(frameon=False, fontsize=9, ncols=4, loc="outside lower left")
    return figure


def _mark_changes(axes: Axes, totals: Sequence[RunRow], at: FloatArray) -> None:
    """A line where another plan gives the answers."""
    for place in range(1, len(totals)):
        if totals[place].plan != totals[place - 1].plan:
            axes.axvline(at[place], color=ALARM, linewidth=0.9, alpha=0.7)
            axes.annotate(
                f"plan {totals[place].plan}", (at[place], 0.98), (3, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", fontsize=8, color=ALARM, va="top",
            )  # fmt: skip


def _name_percentiles(axes: Axes, values: FloatArray) -> None:
    """Points on the curve, and what they are where the picture is empty: above the curve, or below."""
    at = np.percentile(values, _NAMED)
    axes.plot(at, np.array(_NAMED) / 100, "o", color=INK, markersize=4.5, zorder=4)
    middle, _ = axes.transAxes.inverted().transform(axes.transData.transform((at[0], 0.5)))
    above = middle > 0.5
    names = ["median" if share == 50 else f"p{share}" for share in _NAMED]
    axes.text(
        0.03 if above else 0.97, 0.95 if above else 0.06,
        "\n".join(f"{name}  {rounded(value, 4)} ms" for name, value in zip(names, at, strict=True)),
        transform=axes.transAxes, fontsize=9, color=INK, linespacing=1.5,
        ha="left" if above else "right", va="top" if above else "bottom",
        bbox={"facecolor": PAPER, "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )  # fmt: skip
