"""The pictures of a report. Each function draws one figure and saves it as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from planner.chain import Chain
from planner.plan import Baseline, Hop, Plan, Stage
from planner.run import Run
from planner.table import ProfileRow
from planner.verdict import verdict
from runtime.reports.theme import COLOURS, HOP_COLOUR, colours_of, new_figure, save_figure

if TYPE_CHECKING:
    from profiler.bench import BenchRow


def draw_chain(chain: Chain, plan: Plan | None, file: Path) -> None:
    """Bytes at every boundary, layers below; with a plan, layers coloured by device and cuts marked."""
    layers = len(chain)
    batch = plan.batch if plan else 1
    sizes = np.array([chain.wire_bytes(k, batch) for k in range(layers + 1)]) / 1e6
    figure, axes = new_figure(min(max(8.0, 0.36 * layers + 3), 16), 5.2)
    cuts = {hop.boundary for hop in plan.hops} if plan else set()
    bars = axes.bar(range(layers + 1), sizes, width=0.62, color="#C8CDD3", zorder=3)
    for k in cuts:
        bars[k].set_color("#B3261E")
    axes.set_ylim(0, max(sizes) * 1.16)
    for k, size in enumerate(sizes):
        if layers <= 24 or k in cuts:
            text = f"{size:.3g}"
            axes.text(k, size + max(sizes) * 0.015, text, ha="center", fontsize=8, zorder=4)
    labels = ["input", *(_short(layer.name) for layer in chain.layers)]
    places = range(0, layers + 1, -(-layers // 40))
    few = layers <= 12
    axes.set_xticks(
        places, [labels[k] for k in places],
        rotation=40 if few else 90, ha="right" if few else "center", fontsize=8,
    )  # fmt: skip
    axes.set_xlim(-0.6, layers + 0.6)
    axes.set_ylabel(f"tensors after the layer [MB{', batch ' + str(batch) if batch > 1 else ''}]")
    legend: list[Patch] = []
    if plan:
        colours = colours_of(plan.devices)
        for stage in plan.stages:
            left, right = stage.bundle.start + 0.5, stage.bundle.stop + 0.5
            axes.axvspan(left, right, color=colours[stage.device], alpha=0.16, linewidth=0, zorder=0)
        used = dict.fromkeys(stage.device for stage in plan.stages)
        legend = [Patch(color=colours[name], alpha=0.3, label=f"runs on {name}") for name in used]
    if cuts:
        legend.append(Patch(color="#B3261E", label="crosses a link"))
        moved = sum(chain.wire_bytes(hop.boundary, batch) for hop in plan.hops) / 1e6 if plan else 0
        title = f"{chain.source.name}: {len(cuts)} hops move {moved:.3g} MB per inference"
    elif plan:
        title = f"{chain.source.name}: stays on {plan.stages[0].device}"
    else:
        least = int(np.argmin(sizes[1:-1])) + 1 if layers > 1 else layers
        finding = f"boundary {least} is the smallest inside ({sizes[least]:.3g} MB)"
        title = f"{chain.source.name}: {layers} layers; {finding}"
    axes.set_title(title, loc="left")
    if legend:
        figure.legend(handles=legend, frameon=False, ncols=min(len(legend), 4), loc="outside lower left")
    save_figure(figure, file)


def _short(name: str, most: int = 24) -> str:
    """The end of a long layer name, which tells it apart from its neighbours."""
    return name if len(name) <= most else "…" + name[1 - most :]


def draw_bundles(chain: Chain, rows: Sequence[ProfileRow], file: Path) -> None:
    """Latency of every bundle of one device, one triangle per variant (rows of one batch)."""
    layers = len(chain)
    variants = list(dict.fromkeys(row.variant for row in rows))
    side = min(max(4.4, 0.5 * layers), 7.0)
    figure, grid = plt.subplots(
        1, len(variants), figsize=(side * len(variants) + 1.2, side), layout="constrained", squeeze=False
    )
    top = max(row.latency_s for row in rows) * 1e3
    shown = None
    for axes, variant in zip(grid[0], variants, strict=True):
        shown = _triangle(axes, layers, [row for row in rows if row.variant == variant], top)
        axes.set_title(str(variant), loc="left", fontsize=10)
        axes.set_xlabel("bundle stops before layer")
    grid[0][0].set_ylabel("bundle starts at layer")
    assert shown is not None
    figure.colorbar(shown, ax=list(grid[0]), label="latency [ms]", shrink=0.85)
    whole = {row.variant: row for row in rows if (row.bundle.start, row.bundle.stop) == (0, layers)}
    best = min(whole.values(), key=lambda row: row.latency_s, default=None)
    finding = f": all {layers} layers in {best.latency_s * 1e3:.3g} ms ({best.variant})" if best else ""
    figure.suptitle(
        f"{chain.source.name} on {rows[0].device}, batch {rows[0].batch}{finding}", x=0.01, ha="left"
    )
    save_figure(figure, file)


def _triangle(axes: Axes, layers: int, rows: Sequence[ProfileRow], top: float):  # type: ignore[no-untyped-def]
    values = np.full((layers, layers), np.nan)
    for row in rows:
        values[row.bundle.start, row.bundle.stop - 1] = row.latency_s * 1e3
    shown = axes.imshow(values, cmap="viridis_r", vmin=0, vmax=top)
    if layers <= 14:
        for (start, stop), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "white" if value > 0.55 * top else "black"
                axes.text(stop, start, f"{value:.3g}", ha="center", va="center", color=colour, fontsize=7.5)
    step = max(1, layers // 14)
    axes.set_xticks(range(0, layers, step), [str(stop + 1) for stop in range(0, layers, step)])
    axes.set_yticks(range(0, layers, step))
    axes.spines[["top", "right"]].set_visible(False)
    return shown


def draw_baselines(plan: Plan, file: Path) -> None:
    """The plan beside what one would have tried by hand: computing per device, and communication."""
    entries = [Baseline("this plan", plan.stages, plan.hops, plan.cost), *plan.baselines]
    energy = plan.proof.objective == "energy"
    unit, scale = ("mJ", 1e3) if energy else ("ms", 1e3)
    figure, axes = new_figure(9, 0.62 * len(entries) + 1.9)
    colours = colours_of([device.name for device in plan.fleet.devices])
    for place, entry in enumerate(entries):
        left = 0.0
        for part in _in_order(entry):
            cost = part.cost.energy_j if energy else part.cost.latency_s
            colour = colours[part.device] if isinstance(part, Stage) else HOP_COLOUR
            hatch = None if isinstance(part, Stage) else "///"
            axes.barh(
                place,
                cost * scale,
                left=left * scale,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                height=0.62,
            )
            left += cost
        axes.text(left * scale, place, f"  {left * scale:.4g} {unit}", va="center", fontsize=9)
    axes.set_yticks(range(len(entries)), [entry.name for entry in entries])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel(f"forecast {'energy' if energy else 'latency'} per inference [{unit}]")
    handles = [
        Patch(color=colours[device.name], label=f"computing on {device.name}")
        for device in plan.fleet.devices
    ]
    handles.append(Patch(facecolor=HOP_COLOUR, hatch="///", edgecolor="white", label="communication"))
    figure.legend(handles=handles, frameon=False, ncols=min(len(handles), 3), loc="outside lower left")
    axes.set_title(f"{plan.chain.source.name}: {verdict(plan)}", loc="left", fontsize=11)
    save_figure(figure, file)


def _in_order(entry: Baseline) -> list[Stage | Hop]:
    placed: list[tuple[int, Stage | Hop]] = [(2 * stage.bundle.start + 1, stage) for stage in entry.stages]
    placed += [(2 * hop.boundary, hop) for hop in entry.hops]
    return [part for _, part in sorted(placed, key=lambda each: each[0])]


def draw_forecast(run: Run, file: Path) -> None:
    """Forecast and measured median of each stage, each hop, and the total, with the measured spread."""
    parts = run.comparisons()
    figure, axes = new_figure(9, 0.72 * len(parts) + 1.7)
    forecast = [part.forecast_s * 1e3 for part in parts]
    measured = [part.measured_s * 1e3 for part in parts]
    spread = [
        [(part.measured_s - part.low_s) * 1e3 for part in parts],
        [(part.high_s - part.measured_s) * 1e3 for part in parts],
    ]
    places = np.arange(len(parts))
    axes.barh(places - 0.19, forecast, height=0.36, color="#B9C6D3", label="forecast")
    axes.barh(
        places + 0.19, measured, height=0.36, color="#0072B2", xerr=spread,
        error_kw={"ecolor": "#222222", "capsize": 3, "elinewidth": 1},
        label="measured: median, 5th to 95th percentile",
    )  # fmt: skip
    for place, part in enumerate(parts):
        end = max(part.forecast_s, part.high_s) * 1e3
        text = f"  {part.forecast_s * 1e3:.4g} → {part.measured_s * 1e3:.4g} ms ({part.error * 100:+.1f} %)"
        axes.text(end, place, text, va="center", fontsize=8.5)
    names = [f"{'hop ' if part.kind == 'hop' else ''}{part.label}" for part in parts]
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("time [ms]")
    figure.legend(frameon=False, ncols=2, loc="outside lower left")
    axes.set_title(f"{run.info.plan.chain.source.name}: {run.verdict()}", loc="left", fontsize=11)
    save_figure(figure, file)


def draw_bench(model: str, rows: Sequence[BenchRow], file: Path) -> None:
    """Latency over batch for each variant, both axes logarithmic; bars where there is one batch."""
    variants = list(dict.fromkeys(each.row.variant for each in rows))
    batches = sorted({each.row.batch for each in rows})
    fastest = min(rows, key=lambda each: each.row.latency_s / each.row.batch)
    figure, axes = new_figure(9.0, max(3.0, 1.6 + 0.42 * len(rows)) if len(batches) == 1 else 5.2)
    if len(batches) == 1:
        ordered = sorted(rows, key=lambda each: -each.row.latency_s)
        values = [each.row.latency_s * 1e3 for each in ordered]
        axes.barh([str(each.row.variant) for each in ordered], values, color=COLOURS[0], height=0.62)
        for place, each in enumerate(ordered):
            speed_up = "" if each.speed_up is None else f"  {each.speed_up:.2f} x"
            axes.text(values[place], place, f" {values[place]:.3g}{speed_up}", va="center", fontsize=9)
        axes.set_xlim(0, max(values) * 1.18)
        axes.set_xlabel(f"latency of a batch of {batches[0]}, ms")
    else:
        for place, variant in enumerate(variants):
            mine = [each.row for each in rows if each.row.variant == variant]
            axes.plot(
                [row.batch for row in mine],
                [row.samples_per_s for row in mine],
                marker="o",
                color=COLOURS[place % len(COLOURS)],
                linestyle=("-", "--", ":")[place // len(COLOURS) % 3],
                label=str(variant),
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.grid(axis="y", alpha=0.3)
        axes.set_xlabel("batch")
        axes.set_ylabel("samples per second")
        axes.legend(fontsize=8, frameon=False)
    gain = fastest.speed_up or 1.0
    finding = f"{fastest.row.variant} is fastest per sample, {gain:.2f} times PyTorch fp32"
    if gain <= 1:
        finding = "nothing is faster than PyTorch fp32"
    title = textwrap.fill(f"{model}: {finding}", 72)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    save_figure(figure, file)
