"""When each device and link worked for requests of a run: one of median latency, the slowest, several at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import pandas as pd

from planner.plan import Plan
from planner.run import Run
from planner.run_rows import RunRow
from runtime.reports.case import Case
from runtime.reports.finding import Finding, Missing
from runtime.reports.theme import rounded, short
from runtime.reports.timeline_plot import Bar, Gantt, timeline_figure

_WINDOW = 8  # requests that begin in the part of a run that is shown, at most


def timeline_findings(case: Case, run: Run) -> list[Finding | Missing]:
    """A request of median latency and the slowest; with several in flight, the middle of the run."""
    name, title = f"{case.stem}timeline", "Timeline of the run"
    requests: dict[int, list[RunRow]] = {}
    for row in run.rows:
        requests.setdefault(row.request, []).append(row)
    plans = (run.info.plan, *run.others)
    totals = [row for row in run.rows if row.kind == "total" and len(requests[row.request]) > 1]
    if not any(row.plan == 0 for row in totals):
        return [Missing(name, title, "The run's plan answered no request. Deploy it again.")]
    if any(row.begin_s is None for row in run.rows):
        reason = "The run does not say when its parts began. Deploy the plan again: runs of this version do."
        return [Missing(name, title, reason)]
    devices = [device.name for device in run.info.plan.fleet.devices]

    def of(total: RunRow) -> tuple[Bar, ...]:
        return tuple(bars_of(plans[total.plan], requests[total.request]))

    ranked = sorted((row for row in totals if row.plan == 0), key=lambda row: row.measured_s)
    chosen = {"median latency": ranked[(len(ranked) - 1) // 2], "the slowest": ranked[-1]}
    panels = [_panel(what, total, of(total)) for what, total in chosen.items()][: len(ranked)]
    lanes = list(dict.fromkeys(bar.lane for panel in panels for bar in panel.bars))
    alone = Finding(
        name,
        _said(panels),
        lambda: timeline_figure(panels, lanes, devices, forecast=True),
        _table(panels),
        case.report,
        ("A request's wait is pale, its work full; outlines: the forecast, nothing waiting.",),
    )
    if run.info.concurrency == 1 or len(totals) < 2:
        return [alone]
    window = _window(sorted(totals, key=_begin), run.info.concurrency, of)
    several = Finding(
        f"{name}-window",
        _pace(window, run.info.concurrency),
        lambda: timeline_figure([window], lanes, devices, forecast=False),
        _table([window]),
        case.report,
        ("Bars are numbered by request. Strips below them: requests that wait, darker where several do.",),
    )
    return [alone, several]


def bars_of(plan: Plan, rows: Sequence[RunRow]) -> Iterator[Bar]:
    """The parts of one request in running order; a hop in a codec as its encoding, wire and decoding."""
    found = {(row.kind, row.index): row for row in rows}
    at_s = found["total", 0].begin_s or 0.0
    parts: list[tuple[int, str, int, str, str, str]] = [
        (2 * stage.bundle.start + 1, "stage", k, stage.device, stage.device, str(stage.bundle))
        for k, stage in enumerate(plan.stages)
    ]
    for k, hop in enumerate(plan.hops):
        first, link, last = hop.route[0], " → ".join(hop.route), hop.route[-1]
        wire = (
            2 * hop.boundary,
            "hop" if hop.codec == "raw" else "wire",
            k,
            link,
            "",
            f"hop at {hop.boundary}",
        )
        if hop.codec == "raw":
            parts.append(wire)
        else:
            encode = (2 * hop.boundary, "encode", k, first, first, f"encode {hop.codec}")
            parts += [encode, wire, (2 * hop.boundary, "decode", k, last, last, f"decode {hop.codec}")]
    for _, kind, index, lane, device, part in sorted(parts, key=lambda each: each[0]):
        row = found.get((kind, index))  # type: ignore[arg-type]
        if row is None:  # half-written, or of another plan
            continue
        begin_s = row.begin_s or 0.0
        yield Bar(row.request, lane, device, part, begin_s, row.measured_s, row.queue_s, at_s, row.forecast_s)
        at_s += row.forecast_s


def _begin(total: RunRow) -> float:
    return total.begin_s or 0.0


def _panel(what: str, total: RunRow, bars: tuple[Bar, ...]) -> Gantt:
    measured, forecast = total.measured_s * 1e3, total.forecast_s * 1e3
    title = f"request {total.request}, {what}: {rounded(measured, 4)} ms (forecast {rounded(forecast, 4)} ms)"
    return Gantt(title, _begin(total), _begin(total) + total.measured_s, bars)


def _window(totals: Sequence[RunRow], concurrency: int, of: Callable[[RunRow], tuple[Bar, ...]]) -> Gantt:
    """The middle of the run, in which about twice as many requests begin as are in flight, at most ``_WINDOW``."""
    count = min(2 * concurrency, _WINDOW, len(totals) - 1)
    first = (len(totals) - count) // 2
    begin_s = _begin(totals[first])
    end_s = max(_begin(totals[first + count]), begin_s + totals[first].measured_s * count / concurrency)
    bars = (
        bar
        for total in totals
        if _begin(total) < end_s and _begin(total) + total.measured_s > begin_s
        for bar in of(total)
    )
    inside = tuple(bar for bar in bars if bar.begin_s - bar.queue_s < end_s and bar.end_s > begin_s)
    return Gantt(f"{end_s - begin_s:.3g} s of the run, from {begin_s:.4g} s on", begin_s, end_s, inside)


def _said(panels: Sequence[Gantt]) -> str:
    """Where the time of the typical request goes, and what the slowest lost."""
    lanes: defaultdict[str, float] = defaultdict(float)
    for bar in panels[0].bars:
        lanes[bar.lane] += bar.queue_s + bar.work_s
    took_s = panels[0].end_s - panels[0].begin_s
    most = max(lanes, key=lanes.__getitem__)
    said = f"{short(most)} takes {rounded(lanes[most] * 1e3)} of the {rounded(took_s * 1e3)} ms of a median request"
    if len(panels) > 1:
        late = max(panels[1].bars, key=lambda bar: bar.late_s)
        slowest_s = panels[1].end_s - panels[1].begin_s
        said += (
            f"; the slowest took {rounded(slowest_s * 1e3)} ms, {rounded(late.late_s * 1e3)} ms above the forecast in "
            f"{short(late.part)} on {short(late.lane)}"
        )
    return said


def _pace(window: Gantt, concurrency: int) -> str:
    """Which lane is busy most of the time."""
    busy: defaultdict[str, float] = defaultdict(float)
    for bar in window.bars:
        busy[bar.lane] += max(min(bar.end_s, window.end_s) - max(bar.begin_s, window.begin_s), 0.0)
    most = max(busy, key=busy.__getitem__)
    share = min(busy[most] / (window.end_s - window.begin_s), 1.0)
    return f"With {concurrency} requests in flight, {short(most)} is busy {share * 100:.0f} % of the time"


def _table(panels: Sequence[Gantt]) -> pd.DataFrame:
    rows: list[dict[str, object]] = [
        {"shown": panel.title, **asdict(bar)} for panel in panels for bar in panel.bars
    ]
    found: pd.DataFrame = pd.DataFrame(rows)
    return found
