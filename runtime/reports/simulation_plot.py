"""The picture of a simulation: how latencies are spread, and how they go over time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from planner.simulate_result import Latencies, Request, Simulation
from runtime.reports.theme import COLOURS, logarithmic, save_figure

_ALARM = "#B3261E"


def draw_simulation(found: Simulation, requests: Sequence[Sequence[Request]], file: Path) -> None:
    """Left, the share of requests answered within a latency; right, each request's latency when it arrived.

    Latencies are on a logarithmic axis where the largest is more than ten times the least.
    """
    figure = Figure(figsize=(12, 4.9), layout="constrained")
    spread, course = figure.subplots(1, 2, width_ratios=(1, 1.5))
    for place, (stream, each) in enumerate(zip(found.streams, requests, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        answered = [request for request in each if not request.dropped]
        if answered:
            label = f"{stream.model}, {stream.arrivals}"
            _draw_stream(spread, course, answered, colour, label)
        forecast_ms = found.plans[place].cost.latency_s * 1e3
        label = "forecast of one request alone" if place == 0 else ""
        spread.axvline(forecast_ms, color=colour, linestyle=":", linewidth=1.4, label=label)
        course.axhline(forecast_ms, color=colour, linestyle=":", linewidth=1.4)
    dropped = [request.arrived_s for each in requests for request in each if request.dropped]
    if dropped:
        course.plot(
            dropped, [0.015] * len(dropped), "|", color=_ALARM, markersize=9, clip_on=False,
            transform=course.get_xaxis_transform(), label=f"{len(dropped):,} dropped",
        )  # fmt: skip
    if found.scenario.deadline_s:
        deadline_ms = found.scenario.deadline_s * 1e3
        spread.axvline(deadline_ms, color=_ALARM, linewidth=1.2, label="deadline")
        course.axhline(deadline_ms, color=_ALARM, linewidth=1.2)
    for place, outage in enumerate(found.scenario.outages):
        label = "outage" if place == 0 else ""
        course.axvspan(outage.start_s, outage.stop_s, color=_ALARM, alpha=0.12, linewidth=0, label=label)
    course.set_xlim(-0.01 * found.duration_s, 1.01 * found.duration_s)
    spread.set(xlabel="latency [ms]", ylabel="share of answers", ylim=(0, 1.02))
    course.set(xlabel="arrival [s]", ylabel="latency [ms]")
    scale_latencies(
        spread, course, [each.latency_s * 1e3 for stream in requests for each in stream if not each.dropped]
    )
    if len(found.streams) == 1 and found.streams[0].latency:  # of several the texts would cover each other
        _name_percentiles(spread, found.streams[0].latency)
    for axes in (spread, course):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.legend(frameon=False, ncols=4, loc="outside lower left")
    title = textwrap.fill(found.verdict(), 125)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    save_figure(figure, file)


def _draw_stream(spread: Axes, course: Axes, answered: Sequence[Request], colour: str, label: str) -> None:
    arrived = np.array([each.arrived_s for each in answered])
    values = np.array([each.latency_s for each in answered]) * 1e3
    size = 14 if len(values) <= 1000 else 5
    course.scatter(arrived, values, s=size, color=colour, alpha=0.4, linewidths=0, rasterized=True)
    shares = np.arange(1, len(values) + 1) / len(values)
    spread.step(np.sort(values), shares, where="post", color=colour, label=label)
    for share in (50, 95, 99):
        spread.plot(np.percentile(values, share), share / 100, "o", color=colour, markersize=4)


def scale_latencies(spread: Axes, course: Axes, values: Sequence[float]) -> None:
    """Axes of latencies from 0 on; logarithmic where the largest is more than ten times the least."""
    least, most = min(values, default=0.0), max(values, default=1.0)
    if least > 0 and most / least > 10:
        logarithmic(spread, "x")
        logarithmic(course, "y")
    else:
        spread.set_xlim(0, max(spread.get_xlim()[1], most * 1.1))
        course.set_ylim(0, max(course.get_ylim()[1], most * 1.1))


def _name_percentiles(axes: Axes, latency: Latencies) -> None:
    """Beside the points, on the side where there is room."""
    for share, value_s in ((50, latency.median_s), (95, latency.p95_s), (99, latency.p99_s)):
        at = value_s * 1e3
        x, _ = axes.transAxes.inverted().transform(axes.transData.transform((at, share / 100)))
        left = x > 0.4
        axes.annotate(
            f"{share} %: {at:,.4g} ms", (at, share / 100), (-7 if left else 7, -3 if left else -10),
            textcoords="offset points", fontsize=8, color="#444444", ha="right" if left else "left",
        )  # fmt: skip
