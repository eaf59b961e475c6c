"""Latency of every bundle of one device: a triangle per variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from planner.chain import Bundle
from planner.columns import FloatArray
from planner.plan import Plan, Variant
from planner.table import ProfileTable
from runtime.reports.finding import Finding
from runtime.reports.theme import ON_DARK, ON_LIGHT, short

# Layers up to which each cell has its number; latencies this far apart are coloured by their logarithm.
_FEW, _FAR = 14, 20.0
_ACROSS = 3
_COLUMNS = (
    "start",
    "stop",
    "backend",
    "precision",
    "frequency_hz",
    "fused",
    "latency_s",
    "latency_p95_s",
    "energy_j",
)


@dataclass(frozen=True)
class _Triangle:
    """``latency_s`` has the shape (layers, layers): from layer ``row`` up to and with ``column``; NaN: not measured."""

    variant: Variant
    latency_s: FloatArray
    chosen: tuple[Bundle, ...]

    @property
    def whole_s(self) -> float:
        return float(self.latency_s[0, -1])


def bundle_findings(
    table: ProfileTable, plans: Sequence[Plan], prefix: str, command: str
) -> Iterator[Finding]:
    """One finding per device and batch; bundles that ``plans`` chose there are marked."""
    frame, layers = table.frame(), len(table.chain)
    for batch in table.columns.batches():
        for device in table.columns.devices_of(batch):
            rows = frame[(frame["device"] == device) & (frame["batch"] == batch)]
            triangles = _triangles(table, device, batch, plans)
            columns = [name for name in _COLUMNS if rows[name].notna().any()]
            if not rows["fused"].any():
                columns.remove("fused")
            yield Finding(
                f"{prefix}bundles-{device}" + (f"-batch{batch}" if batch > 1 else ""),
                _title(device, batch, layers, triangles),
                lambda triangles=triangles: _draw(layers, triangles),  # type: ignore[misc]
                rows,
                command,
                tuple(_notes(layers, triangles)),
                tuple(columns),
            )


def _triangles(table: ProfileTable, device: str, batch: int, plans: Sequence[Plan]) -> list[_Triangle]:
    columns, layers = table.columns, len(table.chain)
    mine = (columns.device == columns.devices.index(device)) & (columns.batch == batch)
    stages = [
        stage for plan in plans if plan.batch == batch for stage in plan.stages if stage.device == device
    ]
    found = []
    for code, variant in enumerate(columns.variants):
        rows = mine & (columns.variant == code)
        if rows.any():
            latency_s = np.full((layers, layers), np.nan)
            latency_s[columns.start[rows], columns.stop[rows] - 1] = columns.latency_s[rows]
            chosen = dict.fromkeys(stage.bundle for stage in stages if stage.variant == variant)
            found.append(_Triangle(variant, latency_s, tuple(chosen)))
    return sorted(found, key=lambda each: str(each.variant))


def _title(device: str, batch: int, layers: int, triangles: Sequence[_Triangle]) -> str:
    where = short(device, 40) + (f", batch {batch}" if batch > 1 else "")
    whole = sorted((each for each in triangles if not np.isnan(each.whole_s)), key=lambda each: each.whole_s)
    if not whole:
        return f"{where}: no variant was measured over all {layers} layers at once"
    best, worst = whole[0], whole[-1]
    title = (
        f"{where}: all {layers} layers take {best.whole_s * 1e3:.3g} ms with {short(str(best.variant), 60)}"
    )
    if best is not worst:
        title += f", {worst.whole_s / best.whole_s:.2g} times as fast as {short(str(worst.variant), 60)}"
    return title


def _notes(layers: int, triangles: Sequence[_Triangle]) -> Iterator[str]:
    if any(each.chosen for each in triangles):
        yield "A white frame marks a bundle that the plan runs there."
    every = layers * (layers + 1) // 2
    for each in triangles:
        lacking = every - int(np.isfinite(each.latency_s).sum())
        if lacking:
            yield f"{lacking:,} of {every:,} bundles with {each.variant} were not measured and stay blank."


def _draw(layers: int, triangles: Sequence[_Triangle]) -> Figure:
    across = min(len(triangles), _ACROSS)
    down = -(-len(triangles) // across)
    side = {1: 5.4, 2: 4.3}.get(across, 3.1)
    figure = Figure(figsize=(side * across + 1.1, (side + 0.35) * down + 0.3), layout="compressed")
    grid = figure.subplots(down, across, squeeze=False)
    times_ms = np.concatenate([each.latency_s[np.isfinite(each.latency_s)] for each in triangles]) * 1e3
    low, high = float(times_ms.min()), float(times_ms.max())
    norm = LogNorm(low, high) if high > _FAR * low else Normalize(0, high)
    for place, axes in enumerate(grid.flat):
        if place >= len(triangles):
            axes.set_visible(False)
            continue
        each = triangles[place]
        shown = _draw_triangle(axes, each, norm, 7.5 if across == 1 or layers <= 8 else 5.5)
        axes.set_title(short(str(each.variant), 40), loc="left", fontsize=9.5)
        if place + across >= len(triangles):
            axes.set_xlabel("stops before layer", fontsize=9)
        if place % across == 0:
            axes.set_ylabel("starts at layer", fontsize=9)
    bar = figure.colorbar(shown, ax=list(grid.flat), label="latency [ms]", shrink=0.85, aspect=30)
    if high < 100 * low and isinstance(norm, LogNorm):
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter("{x:,g}")
    bar.ax.yaxis.set_minor_formatter("")
    bar.outline.set_visible(False)
    return figure


def _draw_triangle(axes: Axes, triangle: _Triangle, norm: Normalize, size: float) -> AxesImage:
    """One pixel a bundle, so that the file stays small however many there are."""
    values = triangle.latency_s * 1e3
    layers = len(values)
    shown = axes.imshow(values, cmap="viridis_r", norm=norm, interpolation="none")
    if layers <= _FEW:
        for (start, stop), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = ON_DARK if norm(value) > 0.55 else ON_LIGHT
                axes.text(stop, start, f"{value:.3g}", ha="center", va="center", color=colour, fontsize=size)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, layers) if layers / step <= 12)
    stops = range(step, layers + 1, step)
    axes.set_xticks([stop - 1 for stop in stops], [str(stop) for stop in stops], fontsize=8)
    axes.set_yticks(range(0, layers, step), [str(start) for start in range(0, layers, step)], fontsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    side = max(1.0, layers / 28)  # large enough to be seen
    for bundle in triangle.chosen:
        corner = (bundle.stop - 1 - side / 2, bundle.start - side / 2)
        for colour, width in ((ON_LIGHT, 3.2), (ON_DARK, 1.4)):  # seen on any ground
            axes.add_patch(
                Rectangle(
                    corner, side, side, fill=False, edgecolor=colour, linewidth=width, clip_on=False, zorder=5
                )
            )
    return shown
