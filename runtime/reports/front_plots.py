"""The pictures of fronts and break-even tables. Each function draws one figure and saves it as PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from planner.cost import FloatArray
from planner.front import Front
from planner.front_points import Point
from planner.parametric import Bandwidth, Interval, Parameter
from runtime.reports.front_files import budget_name, plan_name
from runtime.reports.theme import COLOURS, colours_of, new_figure, save_figure

_INK = "#222222"
# Marks this many times as far out as the front's best make an axis logarithmic.
_FAR = 4.0


def draw_front(front: Front, file: Path) -> None:
    """Latency against energy: the points, the knee, and what one would have tried by hand."""
    figure, axes = new_figure(9.5, 5.6)
    several = len(front.budgets) > 1
    for place, budget in enumerate(front.budgets):
        points = front.at(budget)
        name = f"at least {budget_name(budget)} dB" if budget is not None else "any precision"
        if budget is not None and budget_name(budget) == "exact":
            name = "exact arithmetic only"
        if not several:
            name = f"the front: {front.all_points} plans"
        colour = COLOURS[place % len(COLOURS)]
        latency, energy = _ms_mj(points)
        size = (4.5 if len(points) < 80 else 3) + 2 * (len(front.budgets) - 1 - place)  # one behind another
        axes.step(latency, energy, where="post", color=colour, linewidth=1.2, alpha=0.55)
        axes.plot(latency, energy, "o", color=colour, markersize=size, label=name)
    marks = _marks(front)
    for (name, x, y), marker in zip(marks, "sDPX^v<>" * 9, strict=False):
        axes.plot(x, y, marker, color="#8A8A8A" if name != "best single split" else _INK, markersize=8)
    knee = front.knee
    x, y = knee.cost.latency_s * 1e3, knee.cost.energy_j * 1e3
    axes.plot(
        x, y, "o", markersize=12, markerfacecolor="none", markeredgecolor="#B3261E", markeredgewidth=1.8
    )
    _frame(axes, front, marks)
    found = [(point.cost.latency_s * 1e3, point.cost.energy_j * 1e3) for point in front.points]
    name = f"knee: {plan_name(knee.stages)}\n{x:.3g} ms, {y:.3g} mJ"
    _label(figure, axes, [(name, x, y), *marks], found)
    axes.set_xlabel("forecast latency per inference [ms]")
    axes.set_ylabel("forecast energy per inference [mJ]")
    axes.grid(alpha=0.25)
    if several:
        figure.legend(frameon=False, fontsize=9, ncols=min(len(front.budgets), 5), loc="outside lower left")
    axes.set_title(_finding(front), loc="left", fontsize=11)
    save_figure(figure, file)


def _ms_mj(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.cost.latency_s * 1e3 for point in points], [point.cost.energy_j * 1e3 for point in points]


def _finding(front: Front) -> str:
    loosest = front.at(front.budgets[0])
    first, last = loosest[0].cost, loosest[-1].cost
    name = front.chain.source.name
    if first == last:
        return f"{name}: one plan is best in both latency and energy"
    less = 1 - last.energy_j / first.energy_j
    return (
        f"{name}: from {first.latency_s * 1e3:.3g} ms to {less * 100:.0f} % less energy at "
        f"{last.latency_s * 1e3:.3g} ms"
    )


def _marks(front: Front) -> list[tuple[str, float, float]]:
    return [(each.name, each.cost.latency_s * 1e3, each.cost.energy_j * 1e3) for each in front.baselines]


def _frame(axes: Axes, front: Front, marks: Sequence[tuple[str, float, float]]) -> None:
    """Logarithmic axes where marks lie so far out that the front would be a dot."""
    latency, energy = _ms_mj(front.points)
    by_hand = [mark[1] for mark in marks], [mark[2] for mark in marks]
    for values, more, logarithmic in (
        (latency, by_hand[0], axes.set_xscale),
        (energy, by_hand[1], axes.set_yscale),
    ):
        every = [*values, *more]
        if min(every) > 0 and max(every) > _FAR * min(every):
            logarithmic("log")
    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
            axis.set_tick_params(which="both", labelsize=8.5)
    axes.margins(0.1)


def _label(
    figure: Figure,
    axes: Axes,
    marks: Sequence[tuple[str, float, float]],
    points: Sequence[tuple[float, float]],
) -> None:
    """A text beside each mark, to the left in the right third, as near in height as other texts and points let it."""
    figure.draw_without_rendering()
    box, points_per_pixel = axes.get_window_extent(), 72 / figure.dpi
    taken = [(x - 5, x + 5, y, 10.0) for x, y in (axes.transData.transform(point) for point in points)]
    for name, x, y in marks:
        px, py = axes.transData.transform((x, y))
        lines = name.split("\n")
        width = max(len(line) for line in lines) * 5.2 / points_per_pixel
        height = 12.5 * len(lines) / points_per_pixel
        left = px + width > box.x1
        low_x = px - width - 14 if left else px + 14

        near = [
            (at, (height + other) / 2) for x0, x1, at, other in taken if low_x < x1 and low_x + width > x0
        ]
        shifts = [
            shift
            for shift in sorted(range(-400, 401, 4), key=abs)
            if box.y0 + height / 2 < py + shift < box.y1 - height / 2
            and all(abs(py + shift - at) >= room for at, room in near)
        ]
        shift = shifts[0] if shifts else 0
        taken.append((low_x, low_x + width, py + shift, height))
        knee = len(lines) > 1
        axes.annotate(
            name, (x, y), ((-10 if left else 10), shift * points_per_pixel), textcoords="offset points",
            ha="right" if left else "left", va="center", fontsize=8.5, zorder=6,
            fontweight="bold" if knee else "normal", color="#B3261E" if knee else "#444444",
        )  # fmt: skip


def draw_break_even(
    title: str,
    parameter: Parameter,
    objective: str,
    intervals: Sequence[Interval],
    alone: Mapping[str, Sequence[Interval]],
    now: float,
    file: Path,
) -> None:
    """The objective over the parameter: the optimum with its break points, and each device on its own."""
    bandwidth = isinstance(parameter, Bandwidth)
    figure, axes = new_figure(12.0, 5.8)
    scale = 8e-6 if bandwidth else 1.0
    unit, factor = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}.get(objective, ("", 1.0))
    for (device, lines), colour in zip(alone.items(), colours_of(list(alone)).values(), strict=True):
        xs, ys = _curve(parameter, lines)
        axes.plot(
            xs * scale, ys * factor, "--", color=colour, linewidth=1.4, label=f"all on {device}", zorder=2
        )
    xs, ys = _curve(parameter, intervals)
    axes.plot(xs * scale, ys * factor, color=_INK, linewidth=2.4, label="the optimum", zorder=4)
    axes.set_xscale("log")
    low, high = intervals[0].low * scale, intervals[-1].high * scale
    axes.set_xlim(low, high)
    _heights(
        axes, ys * factor, [min(min(each.values) for each in lines) * factor for lines in alone.values()]
    )
    level = axes.get_xaxis_transform()
    for each in intervals[1:]:
        at = each.low * scale
        axes.axvline(at, color="#B3261E", linewidth=0.9, alpha=0.7, zorder=1)
        axes.plot(at, each.values[0] * factor, "o", color="#B3261E", markersize=5, zorder=5)
        axes.text(
            at, 0.012, f"{at:.3g}", color="#B3261E", fontsize=8, rotation=90, ha="right", transform=level
        )
    if low < now * scale < high:
        axes.axvline(now * scale, color="#0072B2", linewidth=1.1, linestyle=":", zorder=1)
        axes.text(
            now * scale, 0.05, "now", color="#0072B2", fontsize=8.5, rotation=90, ha="right", transform=level
        )
    named = [_name_interval(axes, place, each, scale) for place, each in enumerate(intervals)]
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"{parameter} [Mbit/s]" if bandwidth else f"{parameter}: times as slow as measured")
    axes.set_ylabel(f"{objective} per inference" + (f" [{unit}]" if unit else ""))
    figure.legend(frameon=False, fontsize=9, ncols=min(len(alone) + 1, 5), loc="outside lower left")
    blank = [Line2D([], [], linestyle="none") for _ in named]
    wrapped = [textwrap.fill(name, 38, subsequent_indent="    ") for name in named]
    figure.legend(
        blank, wrapped, frameon=False, fontsize=8.5, handlelength=0, labelspacing=0.8,
        loc="outside right upper", title="the plan in each interval", title_fontsize=9, alignment="left",
    )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=11)
    save_figure(figure, file)


def _curve(parameter: Parameter, intervals: Sequence[Interval]) -> tuple[FloatArray, FloatArray]:
    """Values of the parameter and of the objective, finely spaced; it is straight in the parameter's slope."""
    xs, ys = [], []
    for each in intervals:
        at = np.geomspace(each.low, each.high, 60)
        slopes = np.array([parameter.slope(value) for value in at])
        xs.append(at)
        share = (slopes - slopes[0]) / (slopes[-1] - slopes[0])
        ys.append(each.values[0] + share * (each.values[1] - each.values[0]))
    return np.concatenate(xs), np.concatenate(ys)


def _heights(axes: Axes, optimum: FloatArray, alone: Sequence[float]) -> None:
    """All of the optimum, and of each device alone at least its best; a logarithmic axis where that is far up."""
    low, high = float(optimum.min()), float(optimum.max())
    top = max([high, *alone])
    if low > 0 and top > _FAR * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, top * 2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="both", labelsize=8.5)
    else:
        axes.set_ylim(0, top * 1.3)


def _name_interval(axes: Axes, place: int, each: Interval, scale: float) -> str:
    """Number it at the top, and say which plan that is."""
    middle = (each.low * each.high) ** 0.5 * scale
    axes.text(
        middle, 0.985, str(place + 1), ha="center", va="top", fontsize=9, fontweight="bold", color=_INK,
        transform=axes.get_xaxis_transform(),
    )  # fmt: skip
    return f"{place + 1}: {plan_name(each.stages, each.hops)}"
