"""A plan beside what one would have tried by hand, and its forecast beside what a run measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from planner.documents import to_data
from planner.plan import Baseline, Hop, Plan, Stage
from planner.run import Comparison, Run
from planner.verdict import verdict
from runtime.reports.finding import Finding
from runtime.reports.theme import (
    COLOURS,
    FORECAST,
    HOP_COLOUR,
    INK,
    PAPER,
    colours_of,
    new_figure,
    sentence,
    short,
)


def baselines_finding(name: str, plan: Plan, command: str) -> Finding:
    said = sentence(verdict(plan))
    notes = ["Hatched: communication. Baselines that the tables or the limits rule out are not there."]
    table = pd.DataFrame(_baseline_rows(plan))
    columns = ("plan", "part", "where", "start", "stop", "how", "latency_s", "energy_j", "wire_bytes")
    return Finding(name, said, lambda: _draw_baselines(plan), table, command, tuple(notes), columns)


def _baseline_rows(plan: Plan) -> Iterator[dict[str, object]]:
    entries = [("this plan", plan.stages, plan.hops)]
    entries += [(baseline.name, baseline.stages, baseline.hops) for baseline in plan.baselines]
    for name, stages, hops in entries:
        for stage in stages:
            yield {
                "plan": name,
                "part": "stage",
                "where": stage.device,
                "start": stage.bundle.start,
                "stop": stage.bundle.stop,
                "how": str(stage.variant),
                "wire_bytes": None,
                **to_data(stage.cost),
                "encode_s": None,
                "decode_s": None,
            }
        for hop in hops:
            yield {
                "plan": name,
                "part": "hop",
                "where": " > ".join(hop.route),
                "start": hop.boundary,
                "stop": hop.boundary,
                "how": hop.codec,
                "wire_bytes": hop.wire_bytes,
                **to_data(hop.cost),
                "encode_s": hop.encode_s,
                "decode_s": hop.decode_s,
            }


def _draw_baselines(plan: Plan) -> Figure:
    """Computing per device, and communication."""
    entries = [Baseline("this plan", plan.stages, plan.hops, plan.cost), *plan.baselines]
    energy = plan.proof.objective == "energy"
    unit = "mJ" if energy else "ms"
    figure, axes = new_figure(9.5, 0.5 * len(entries) + 1.5)
    colours = colours_of([device.name for device in plan.fleet.devices])
    for place, entry in enumerate(entries):
        left = 0.0
        for part in _in_order(entry):
            cost = (part.cost.energy_j if energy else part.cost.latency_s) * 1e3
            stage = isinstance(part, Stage)
            axes.barh(
                place, cost, left=left, height=0.62, edgecolor=PAPER, linewidth=0.6,
                color=colours[part.device] if isinstance(part, Stage) else HOP_COLOUR, hatch=None if stage else "///",
            )  # fmt: skip
            left += cost
        axes.annotate(
            f"{left:.4g} {unit}", (left, place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(entries)), [short(entry.name, 34) for entry in entries])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(f"forecast {'energy' if energy else 'latency'} per inference [{unit}]")
    used = dict.fromkeys(stage.device for entry in entries for stage in entry.stages)
    handles = [Patch(color=colours[name], label=f"computing on {short(name)}") for name in used]
    handles.append(Patch(facecolor=HOP_COLOUR, hatch="///", edgecolor=PAPER, label="communication"))
    figure.legend(
        handles=handles, frameon=False, fontsize=9, ncols=min(len(handles), 3), loc="outside lower left"
    )
    return figure


def _in_order(entry: Baseline) -> list[Stage | Hop]:
    placed: list[tuple[int, Stage | Hop]] = [(2 * stage.bundle.start + 1, stage) for stage in entry.stages]
    placed += [(2 * hop.boundary, hop) for hop in entry.hops]
    return [part for _, part in sorted(placed, key=lambda each: each[0])]


def forecast_finding(name: str, run: Run, command: str) -> Finding:
    """Raises ``DocumentError`` for a run that lacks the rows of a part."""
    parts = run.comparisons()
    rows = [
        {
            "part": part.kind,
            "label": part.label,
            "forecast_s": part.forecast_s,
            "measured_median_s": part.measured_s,
            "measured_p5_s": part.low_s,
            "measured_p95_s": part.high_s,
            "error": part.error,
            "queue_median_s": part.queue_s,
        }
        for part in parts
    ]
    worst = max(parts[:-1], key=lambda part: abs(part.measured_s - part.forecast_s))
    notes = [
        "Measured: median, and from the 5th to the 95th percentile. Waiting for a busy device or link is not in it.",
        f"{short(worst.label, 60)} is furthest off: {(worst.measured_s - worst.forecast_s) * 1e3:+.3g} ms.",
    ]
    said, table = sentence(run.verdict()), pd.DataFrame(rows)
    return Finding(name, said, lambda: _draw_forecast(parts), table, command, tuple(notes))


def _draw_forecast(parts: Sequence[Comparison]) -> Figure:
    """Each stage, each hop, and the total."""
    figure, axes = new_figure(9.5, 0.56 * len(parts) + 1.4)
    forecast = [part.forecast_s * 1e3 for part in parts]
    measured = [part.measured_s * 1e3 for part in parts]
    spread = [
        [(part.measured_s - part.low_s) * 1e3 for part in parts],
        [(part.high_s - part.measured_s) * 1e3 for part in parts],
    ]
    places = np.arange(len(parts))
    axes.barh(places - 0.19, forecast, height=0.36, color=FORECAST, label="forecast")
    axes.barh(
        places + 0.19, measured, height=0.36, color=COLOURS[0], xerr=spread,
        error_kw={"ecolor": INK, "capsize": 3, "elinewidth": 1},
        label="measured: median, 5th to 95th percentile",
    )  # fmt: skip
    for place, part in enumerate(parts):
        end = max(part.forecast_s, part.high_s) * 1e3
        text = f"{part.forecast_s * 1e3:.4g} → {part.measured_s * 1e3:.4g} ms ({part.error * 100:+.1f} %)"
        axes.annotate(text, (end, place), (7, 0), textcoords="offset points", va="center", fontsize=8.5)
    names = [f"{'hop ' if part.kind == 'hop' else ''}{short(part.label, 38)}" for part in parts]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("time [ms]")
    figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside lower left")
    return figure
