"""How far measurements may be off before another plan is better, as a tornado."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from planner.errors import SolverError
from planner.explain import explain
from planner.explanation import Explanation
from planner.table import ProfileTable
from runtime.reports.case import Case
from runtime.reports.finding import Finding, Missing
from runtime.reports.theme import ALARM, COLOURS, INK, new_figure, rounded, short

_COUNT = 5  # bundles outside the plan to look at
_SHOWN = 16
_SLOWEST = 10.0  # a change as large counts as never in the picture
_NARROWEST = 0.02
_LINEAR = 0.01
_TICKS = (-0.9, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0)
_COLOURS = {
    "stage": COLOURS[0], "hop": COLOURS[4], "bundle": COLOURS[1], "device": COLOURS[2], "link": COLOURS[3],
}  # fmt: skip
_KINDS = {
    "stage": "stage of the plan", "hop": "hop of the plan", "bundle": "bundle outside the plan",
    "device": "all of a device", "link": "all of a link",
}  # fmt: skip


@dataclass(frozen=True)
class _Bar:
    """A measurement: at ``factor`` times its time the plan changes (None: never); ``noise`` is relative."""

    kind: str
    what: str
    factor: float | None
    then: str
    exact: bool
    noise: float | None

    @property
    def reach(self) -> float:
        """How far that is from what was measured, alike for quicker and slower."""
        return math.inf if self.factor is None else abs(math.log(max(self.factor, 1e-9)))

    @property
    def unsure(self) -> bool:
        """Whether the noise of the measurement reaches as far."""
        return self.noise is not None and self.factor is not None and abs(self.factor - 1) <= self.noise


def sensitivity_finding(case: Case, table: ProfileTable) -> Finding | Missing:
    """What `edgecut explain` says of the measurements. Raises ``EdgecutError``."""
    name, plan = f"{case.stem}sensitivity", case.plan
    found = explain(plan, table, count=_COUNT, measurements_only=True, time_limit_s=case.most_s)
    bars = _bars(found)
    if not bars:
        raise SolverError("nothing was found in time")
    shown = _telling(bars)[:_SHOWN]
    rows = pd.DataFrame([{**asdict(each), "within_noise": each.unsure} for each in bars])
    notes = (
        "Bars end where the plan changes: a part of it slower than measured, or a bundle outside it quicker.",
        *(
            [f"The picture leaves out {len(bars) - len(shown)} of the table."]
            if len(shown) < len(bars)
            else []
        ),
        *([] if found.holds else [found.summary]),
        *(f"Within the noise; to settle it: {command}" for command in found.remeasure),
        *found.notes,
    )
    return Finding(name, _said(bars), lambda: _figure(shown), rows, case.explaining(), notes)


def _bars(found: Explanation) -> list[_Bar]:
    """The parts of the plan and the bundles beside it, those that matter soonest first."""
    bars = [
        _Bar(each.kind, each.what, each.factor, each.until, each.exact, each.noise) for each in found.slower
    ]
    bars += [
        _Bar("bundle", f"{each.device} {each.what}", each.factor, each.path, each.exact, each.noise)
        for each in found.quicker
    ]
    return sorted(bars, key=lambda each: each.reach)


def _telling(bars: Sequence[_Bar]) -> list[_Bar]:
    """Without a device or link of which one stage or hop says the same."""
    single = {each.factor for each in bars if each.kind in ("stage", "hop")}
    return [each for each in bars if each.kind not in ("device", "link") or each.factor not in single]


def _said(bars: Sequence[_Bar]) -> str:
    """Which measurement the choice hangs on most. A device's or link's is none, unless there are no others."""
    single = [each for each in bars if each.kind in ("stage", "hop", "bundle")] or bars
    first = single[0]
    if first.factor is None:
        return "However slow a part of the plan were, no other plan would be better"
    what = f"{first.kind} {short(first.what, 60)}"
    noise = f", within its noise of {(first.noise or 0) * 100:.2g} %" if first.unsure else ""
    change = abs(first.factor - 1)
    if first.kind == "bundle":
        return (
            f"The choice hangs most on {what}: {change * 100:.2g} % quicker, it would be in the plan{noise}"
        )
    if first.then.startswith("it breaks"):
        return f"The choice hangs most on {what}: {change * 100:.2g} % slower, {first.then}{noise}"
    return f"The choice hangs most on {what}: {change * 100:.2g} % slower, another plan is better{noise}"


def _figure(bars: Sequence[_Bar]) -> Figure:
    """A bar each from 0 to the change at which the plan changes; whiskers: the noise of the measurement."""
    figure, axes = new_figure(9.5, 1.5 + 0.31 * len(bars))
    changes = [each.factor - 1 for each in bars if each.factor is not None]
    slower = min(max([each for each in changes if each > 0], default=0.0) * 1.3, _SLOWEST)
    slower = _SLOWEST if any(each.factor is None for each in bars) else max(slower, _NARROWEST)
    quicker = max(-min(changes, default=0.0) * 1.3, _NARROWEST)
    for place, each in enumerate(bars):
        end = slower if each.factor is None else min(each.factor - 1, slower)
        axes.barh(
            place,
            end,
            height=0.62,
            color=_COLOURS[each.kind],
            alpha=0.25 if each.factor is None else 0.9,
            zorder=2,
        )
        right = end >= 0
        beside = max(abs(end), each.noise or 0.0) * (1 if right else -1)  # of the whisker, too
        axes.annotate(
            "never" if each.factor is None else f"{_signed(each.factor - 1)} %", (beside, place),
            ((5 if right else -5), 0), textcoords="offset points", va="center",
            ha="left" if right else "right", fontsize=8.5, color=ALARM if each.unsure else INK,
        )  # fmt: skip
        if each.noise:
            axes.plot(
                [-each.noise, each.noise], [place] * 2, "|-", color=INK, linewidth=1.2, markersize=7, zorder=3
            )
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.6)
    axes.set_xlim(-quicker * 3, slower * 3)
    axes.xaxis.set_major_locator(FixedLocator([each for each in _TICKS if -quicker <= each <= slower]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda change, _: _signed(change)))
    axes.set_yticks(range(len(bars)), [short(f"{each.kind} {each.what}", 46) for each in bars], fontsize=8.5)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("change of its measured time at which the plan changes [%], logarithmic beyond 1 %")
    axes.grid(axis="x", alpha=0.25)
    kinds = [kind for kind in _KINDS if any(each.kind == kind for each in bars)]
    handles: list[Patch | Line2D] = [Patch(color=_COLOURS[kind], label=_KINDS[kind]) for kind in kinds]
    if any(each.noise for each in bars):
        handles.append(
            Line2D([], [], color=INK, marker="|", linewidth=1.2, label="noise of its measurement (95 %)")
        )
    figure.legend(handles=handles, frameon=False, fontsize=8.5, ncols=3, loc="outside lower left")
    return figure


def _signed(change: float) -> str:
    """In per cent."""
    return ("+" if change > 0 else "") + rounded(change * 100)
