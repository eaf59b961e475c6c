"""The picture of a break-even table: the objective over a bandwidth or a load, and which plan is best where."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from planner.cost import FloatArray
from planner.fleet import Fleet
from planner.parametric import Bandwidth, Interval, Parameter
from runtime.reports.front_files import plan_name
from runtime.reports.theme import ALARM, COLOURS, INK, colours_of, logarithmic, new_figure, rounded, short

# Values this many times the least make the axis logarithmic.
_FAR = 4.0
_APART = 0.018  # of the axis: texts nearer to each other go into rows
_MOST_NAMED = 12


def break_even_figure(
    parameter: Parameter,
    objective: str,
    intervals: Sequence[Interval],
    alone: Mapping[str, Sequence[Interval]],
    fleet: Fleet,
) -> Figure:
    """The objective over the parameter: the optimum with its break points, and each device on its own."""
    now, colours = parameter.now(fleet), colours_of([each.name for each in fleet.devices])
    bandwidth = isinstance(parameter, Bandwidth)
    figure, axes = new_figure(11.0, 5.4)
    scale = 8e-6 if bandwidth else 1.0
    unit, factor = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}.get(objective, ("", 1.0))
    for device, lines in alone.items():
        xs, ys = _curve(parameter, lines)
        axes.plot(
            xs * scale,
            ys * factor,
            "--",
            color=colours[device],
            linewidth=1.4,
            label=f"all on {short(device)}",
            zorder=2,
        )
    xs, ys = _curve(parameter, intervals)
    axes.plot(xs * scale, ys * factor, color=INK, linewidth=2.4, label="the optimum", zorder=4)
    axes.set_xscale("log")
    low, high = intervals[0].low * scale, intervals[-1].high * scale
    axes.set_xlim(low, high)
    _heights(
        axes, ys * factor, [min(min(each.values) for each in lines) * factor for lines in alone.values()]
    )
    level = axes.get_xaxis_transform()

    def along(value: float) -> float:
        """Where it is on the axis, from 0 to 1."""
        return math.log(value * scale / low) / math.log(high / low)

    for each, row in zip(intervals[1:], _rows([along(each.low) for each in intervals[1:]]), strict=True):
        at = each.low * scale
        axes.axvline(at, color=ALARM, linewidth=0.9, alpha=0.7, zorder=1)
        axes.plot(at, each.values[0] * factor, "o", color=ALARM, markersize=5, zorder=5)
        axes.text(
            at,
            0.012 + 0.08 * row,
            f"{at:.3g}",
            color=ALARM,
            fontsize=8,
            rotation=90,
            ha="right",
            transform=level,
        )
    present = next((place for place, each in enumerate(intervals) if each.low <= now <= each.high), None)
    if low < now * scale < high:
        axes.axvline(now * scale, color=COLOURS[0], linewidth=1.3, linestyle=":", zorder=1)
        axes.text(
            now * scale, 0.6, f"now {rounded(now * scale)}", color=COLOURS[0], fontsize=8.5, rotation=90, ha="right",
            transform=level,
        )  # fmt: skip
    middles = [(each.low * each.high) ** 0.5 for each in intervals]
    for place, row in enumerate(_rows([along(value) for value in middles])):
        axes.text(
            middles[place] * scale, 0.985 - 0.045 * row, str(place + 1), ha="center", va="top", fontsize=9,
            fontweight="bold", color=COLOURS[0] if place == present else INK, transform=level,
        )  # fmt: skip
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel(f"{parameter} [Mbit/s]" if bandwidth else f"{parameter}: times as slow as measured")
    axes.set_ylabel(f"{objective} per inference" + (f" [{unit}]" if unit else ""))
    figure.legend(frameon=False, fontsize=9, ncols=min(len(alone) + 1, 5), loc="outside lower left")
    _name_intervals(axes, intervals, present)
    return figure


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
        logarithmic(axes, "y")
        axes.set_ylim(low / 1.5, top * 2)
    elif top > 0:
        axes.set_ylim(0, top * 1.3)


def _rows(places: Sequence[float]) -> list[int]:
    """In which row each text goes, so that none covers another; ``places`` from 0 to 1, rising."""
    rows, last = [], [-1.0]
    for place in places:
        row = next((k for k, before in enumerate(last) if place - before >= _APART), len(last))
        last[row : row + 1] = [place]
        rows.append(row)
    return rows


def _name_intervals(axes: Axes, intervals: Sequence[Interval], present: int | None) -> None:
    """Which plan each number is, beside the picture; of very many those about the present one."""
    first = max(min((present or 0) - _MOST_NAMED // 2, len(intervals) - _MOST_NAMED), 0)
    shown = range(first, min(first + _MOST_NAMED, len(intervals)))
    named = [
        textwrap.fill(
            f"{place + 1}: {short(plan_name(intervals[place].stages, intervals[place].hops), 110)}",
            38, subsequent_indent="    ",
        )
        for place in shown
    ]  # fmt: skip
    title = (
        "the plan in each interval" if len(shown) == len(intervals) else "plans about now; the table has all"
    )
    legend = axes.legend(
        [Line2D([], [], linestyle="none") for _ in named], named, frameon=False, fontsize=8.5, handlelength=0,
        handletextpad=0, labelspacing=0.8, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderpad=0,
        title=title, title_fontsize=9, alignment="left",
    )  # fmt: skip
    for place, text in zip(shown, legend.get_texts(), strict=True):
        if place == present:
            text.set(color=COLOURS[0], fontweight="bold")
