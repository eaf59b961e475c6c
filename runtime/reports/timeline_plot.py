"""The picture of a timeline: a lane per device and link, panels of requests one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from runtime.reports.theme import HOP_COLOUR, INK, ON_DARK, SOFT, colours_of, on, short

_WIDTH_IN = 10.5
_CHARACTER_IN = 0.072  # width of one in a bar
_PALE = 0.3


@dataclass(frozen=True)
class Bar:
    """A part of a request in the lane of a device or link ("a → b"). Times are since the run's first request.

    Its wait is ``[begin_s - queue_s, begin_s]``, its work ``[begin_s, begin_s + work_s]``; ``forecast_begin_s``:
    where nothing waits and every part takes its forecast.
    """

    request: int
    lane: str
    device: str
    part: str
    begin_s: float
    work_s: float
    queue_s: float
    forecast_begin_s: float
    forecast_s: float

    @property
    def end_s(self) -> float:
        return self.begin_s + self.work_s

    @property
    def late_s(self) -> float:
        """How much longer than forecast it took, its wait included."""
        return self.queue_s + self.work_s - self.forecast_s


@dataclass(frozen=True)
class Gantt:
    """The bars of one panel, from ``begin_s`` to ``end_s``."""

    title: str
    begin_s: float
    end_s: float
    bars: tuple[Bar, ...]


def timeline_figure(
    panels: Sequence[Gantt], lanes: Sequence[str], devices: Sequence[str], *, forecast: bool
) -> Figure:
    """A panel each, from its own begin. With ``forecast`` its outlines, and parts named; else requests numbered.

    ``lanes``: their order, from above; others follow. ``devices``: of the fleet, for their colours.
    """
    used = dict.fromkeys(bar.lane for panel in panels for bar in panel.bars)
    order = [lane for lane in dict.fromkeys([*lanes, *used]) if lane in used]
    colours = colours_of(devices)
    height = 1.0 + len(panels) * (0.5 + 0.34 * len(order))
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    longest_ms = max(panel.end_s - panel.begin_s for panel in panels) * 1e3
    stacked = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(stacked, panels, strict=True):
        axes.set_xlim(0, longest_ms * (1.02 if forecast else 1.0))
        for bar in panel.bars:
            colour = colours.get(bar.device, HOP_COLOUR)
            (_draw_alone if forecast else _draw_among)(
                axes, bar, panel.begin_s, order.index(bar.lane), colour
            )
        axes.set_yticks(range(len(order)), [short(lane, 30) for lane in order], fontsize=8.5)
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=9)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.set_title(panel.title, loc="left", fontsize=9.5, color=SOFT)
    since = "begin of the request" if forecast else "begin of the window"
    stacked[-1].set_xlabel(f"since the {since} [ms]")
    busy = [name for name in devices if any(bar.device == name for panel in panels for bar in panel.bars)]
    handles = [Patch(color=colours[name], label=short(name)) for name in busy]
    handles += [Patch(color=HOP_COLOUR, label="on a link"), Patch(color=SOFT, alpha=_PALE, label="waits")]
    if forecast:
        handles.append(Patch(facecolor="none", edgecolor=INK, linestyle="--", label="forecast"))
    figure.legend(
        handles=handles, frameon=False, fontsize=8.5, ncols=min(len(handles), 7), loc="outside lower left"
    )
    return figure


def _draw_alone(axes: Axes, bar: Bar, begin_s: float, lane: int, colour: str) -> None:
    """Its wait, its work and its forecast; named where there is room."""
    begin, wait = (bar.begin_s - begin_s) * 1e3, bar.queue_s * 1e3
    axes.barh(lane, wait, left=begin - wait, height=0.54, color=colour, alpha=_PALE, linewidth=0)
    axes.barh(lane, bar.work_s * 1e3, left=begin, height=0.54, color=colour, edgecolor=colour, linewidth=0.5)
    axes.barh(
        lane, bar.forecast_s * 1e3, left=(bar.forecast_begin_s - begin_s) * 1e3, height=0.8,
        facecolor="none", edgecolor=INK, linestyle="--", linewidth=0.9, zorder=3,
    )  # fmt: skip
    _name(axes, short(bar.part), begin, bar.work_s * 1e3, lane, colour)


def _draw_among(axes: Axes, bar: Bar, begin_s: float, lane: int, colour: str) -> None:
    """Its work, numbered where there is room; its wait as a strip below, darker where several wait."""
    begin, wait = (bar.begin_s - begin_s) * 1e3, bar.queue_s * 1e3
    axes.barh(lane + 0.38, wait, left=begin - wait, height=0.16, color=SOFT, alpha=_PALE, linewidth=0)
    axes.barh(lane, bar.work_s * 1e3, left=begin, height=0.56, color=colour, edgecolor=ON_DARK, linewidth=0.5)
    _name(axes, str(bar.request), begin, bar.work_s * 1e3, lane, colour)


def _name(axes: Axes, text: str, begin: float, width: float, lane: int, colour: str) -> None:
    low, high = axes.get_xlim()
    seen, end = max(begin, low), min(begin + width, high)
    room_in = (end - seen) / (high - low) * _WIDTH_IN * 0.8  # the lanes' names aside
    if len(text) * _CHARACTER_IN < room_in:
        axes.text(
            (seen + end) / 2, lane, text, ha="center", va="center", fontsize=8, color=on(colour), zorder=4
        )  # fmt: skip
