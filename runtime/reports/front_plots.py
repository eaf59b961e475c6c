"""The picture of a latency-energy front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from planner.front import Front
from planner.front_points import Point
from planner.plan import Cost, Hop, Stage
from runtime.reports.front_files import budget_name, plan_name
from runtime.reports.theme import (
    ALARM,
    COLOURS,
    HOP_COLOUR,
    INK,
    PAPER,
    SOFT,
    logarithmic,
    new_figure,
    rounded,
    short,
)

_FAR = 4.0  # values so many times the least make an axis logarithmic
_LEADER_PT = 14.0  # a text farther from its mark is joined to it by a line
_CHOSEN = COLOURS[5]


@dataclass(frozen=True)
class Place:
    """Where a plan stands beside a front: on its ``point`` (None: on none), between its neighbours by latency."""

    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    cost: Cost
    point: Point | None
    faster: Point | None
    slower: Point | None


@dataclass(frozen=True)
class _Label:
    """``name`` stands beside the mark, ``plan`` in the legend."""

    name: str
    x: float
    y: float
    colour: str = SOFT
    bold: bool = False
    plan: str = ""

    @property
    def entry(self) -> str:
        return f"{self.name}: {self.plan}{self.plan and ', '}{rounded(self.x, 4)} ms, {rounded(self.y, 4)} mJ"


def front_figure(front: Front, chosen: Place | None = None) -> Figure:
    """Latency against energy: the points, the knee, what one would have tried by hand, and a plan's place."""
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
    latencies, energies = _ms_mj(front.points)
    labels, beyond = _named(front, chosen), list[tuple[str, str, str]]()
    for baseline, marker in zip(front.baselines, "sDPX^v<>" * 9, strict=False):
        mark = _Label(baseline.name, *_at(baseline.cost))
        colour = INK if mark.name == "best single split" else HOP_COLOUR
        if len(front.points) == 1 or (_near(mark.x, latencies) and _near(mark.y, energies)):
            axes.plot(mark.x, mark.y, marker, color=colour, markersize=8, zorder=1)
            if all((mark.x, mark.y) != (each.x, each.y) for each in labels):
                labels.append(mark)
        else:
            beyond.append((marker, colour, f"beyond the picture, {short(mark.entry, 60)}"))
    for label in labels:
        if label.bold:
            axes.plot(
                *(label.x, label.y, "o"), markersize=12, markerfacecolor="none",
                markeredgecolor=label.colour, markeredgewidth=1.8, zorder=5,
            )  # fmt: skip
    _scale(axes)
    _write(figure, axes, labels, [_at(point.cost) for point in front.points])
    axes.set_xlabel("forecast latency per inference [ms]")
    axes.set_ylabel("forecast energy per inference [mJ]")
    axes.grid(alpha=0.25)
    budgets = axes.get_legend_handles_labels()[0] if several else []
    marks = [("o", label.colour, label.entry) for label in labels if label.plan] + beyond
    handles = [
        Line2D(
            [], [], color=colour, marker=marker, linestyle="none", markersize=7, label=text,
            markerfacecolor="none" if marker == "o" else colour, markeredgewidth=1.6 if marker == "o" else 1,
        )
        for marker, colour, text in marks
    ]  # fmt: skip
    figure.legend(
        handles=[*budgets, *handles], frameon=False, fontsize=8.5, ncols=2, loc="outside lower left"
    )
    return figure


def front_title(front: Front) -> str:
    """What the front says in a sentence."""
    loosest = front.at(front.budgets[0])
    first, last = loosest[0].cost, loosest[-1].cost
    name = front.chain.source.name
    if first == last:
        return f"{name}: one plan is best in both latency and energy"
    less = 1 - last.energy_j / first.energy_j
    return (
        f"{name}: from {rounded(first.latency_s * 1e3)} ms to {less * 100:.0f} % less energy at "
        f"{rounded(last.latency_s * 1e3)} ms"
    )


def _at(cost: Cost) -> tuple[float, float]:
    return cost.latency_s * 1e3, cost.energy_j * 1e3


def _ms_mj(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.cost.latency_s * 1e3 for point in points], [point.cost.energy_j * 1e3 for point in points]


def _named(front: Front, chosen: Place | None) -> list[_Label]:
    """The labels of the knee, of the plan and of its neighbours, each point once."""

    def label(what: str, at: Point | Place, colour: str = SOFT) -> _Label:
        return _Label(what, *_at(at.cost), colour, colour != SOFT, short(plan_name(at.stages, at.hops), 50))

    knee, found = front.knee, []
    if chosen is not None:
        what = "this plan, the knee" if chosen.point is knee else "this plan"
        found.append(label(what, chosen, _CHOSEN))
    if chosen is None or chosen.point is not knee:
        found.append(label("knee", knee, ALARM))
    for what, point in (("next faster", chosen.faster), ("next slower", chosen.slower)) if chosen else ():
        if point is not None and point is not knee:
            found.append(label(what, point))
    return found


def _near(value: float, values: Sequence[float]) -> bool:
    """Whether a mark may be shown without making the front a dot: no farther from it than the front is long."""
    room = max(max(values) - min(values), 0.1 * max(values))
    return min(values) - room <= value <= max(values) + room


def _scale(axes: Axes) -> None:
    axes.margins(0.12)
    (left, right), (low, high) = axes.dataLim.intervalx, axes.dataLim.intervaly
    if left > 0 and right > _FAR * left:
        logarithmic(axes, "x")
    if low > 0 and high > _FAR * low:
        logarithmic(axes, "y")


def _write(
    figure: Figure, axes: Axes, labels: Sequence[_Label], points: Sequence[tuple[float, float]]
) -> None:
    """A text beside each mark, to the left in the right third, as near in height as other texts and points let it."""
    figure.draw_without_rendering()
    box, points_per_pixel = axes.get_window_extent(), 72 / figure.dpi
    taken = [(x - 5, x + 5, y, 10.0) for x, y in (axes.transData.transform(point) for point in points)]
    for label in labels:
        px, py = axes.transData.transform((label.x, label.y))
        width = len(label.name) * (5.8 if label.bold else 5.2) / points_per_pixel
        height = 12.5 / points_per_pixel
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
        far = abs(shift) * points_per_pixel > _LEADER_PT
        annotated = axes.annotate(
            label.name, (label.x, label.y), ((-10 if left else 10), shift * points_per_pixel),
            textcoords="offset points", ha="right" if left else "left", va="center", fontsize=8.5, zorder=6,
            fontweight="bold" if label.bold else "normal", color=label.colour,
            bbox={"facecolor": PAPER, "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
            arrowprops={
                "arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkB": 5,
                "relpos": (1.0 if left else 0.0, 0.5),
            } if far else None,
        )  # fmt: skip
        annotated.set_in_layout(False)
