"""A deployment while it runs, on a terminal: its devices and links at work, forecast beside measurement."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import ConsoleDimensions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runtime.console import milliseconds, percent
from runtime.live import plain
from runtime.live_tables import BAR, WIDE, Column, Section, bar_column, bars, clock, ends, stacked
from runtime.monitor import Monitor
from runtime.monitor_state import PartState, State

_CLOSE, _FAR = 0.05, 0.2  # errors of a forecast that are good, and that are not
_LEAST_BAR = 8


class DeployView:
    """``title``: what runs where. ``stopping``: whether it was asked to end."""

    def __init__(self, monitor: Monitor, title: str, stopping: Callable[[], bool] = lambda: False) -> None:
        self._monitor, self._title, self._stopping = monitor, plain(title), stopping

    def drawn(self, size: ConsoleDimensions) -> RenderableType:
        state = self._monitor.state()
        wide = size.width >= WIDE
        sections = [_devices(state, wide), _links(state, wide), _parts(state, wide)]
        return stacked([self._top(state), _progress(state, size.width), _figures(state)], sections, size)

    def line(self) -> str:
        state = self._monitor.state()
        if state.median_s is None:
            return f"{self._title}: {state.doing or 'no answer yet'}, {clock(state.elapsed_s)}"
        busy = ", ".join(f"{each.name} {each.busy:.0%}" for each in state.devices)
        return f"{self._title}: {counted(state)}, {_figures(state).plain.replace('  ', ', ')}; busy: {busy}"

    def _top(self, state: State) -> RenderableType:
        doing = "finishing what is on its way (Ctrl-C: stops at once)" if self._stopping() else state.doing
        return ends(Text(self._title, style="bold"), Text(f"{doing}  {clock(state.elapsed_s)}".strip()))


def _bar_line(done: str, share: float | None, left_s: float | None, width: int) -> RenderableType:
    """What is done, a bar where there is room, and the time left."""
    if share is None or left_s is None:
        return Text(done, no_wrap=True, overflow="ellipsis")
    left = f"{share:.0%}, {clock(left_s)} left"
    length = min(width - len(done) - len(left) - 4, 2 * BAR)
    if length < _LEAST_BAR:
        return Text(f"{done}  {left}", no_wrap=True, overflow="ellipsis")
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_row(
        done, ProgressBar(1.0, share, width=length, complete_style="cyan", finished_style="cyan"), left
    )
    return row


def counted(state: State) -> str:
    of = f" of {state.total:,}" if state.total is not None else ""
    return f"{state.answered:,}{of} requests"


def _progress(state: State, width: int) -> RenderableType:
    if not state.total:
        return Text(counted(state))
    left = max(state.total - state.answered - state.refused, 0)
    left_s = left / state.requests_per_s if state.requests_per_s else None
    return _bar_line(counted(state), state.answered / state.total, left_s, width)


def _figures(state: State) -> Text:
    figures = []
    if state.median_s is not None and state.p95_s is not None:
        figures = [
            f"{state.requests_per_s:,.1f} requests/s",
            f"median {milliseconds(state.median_s)} ms",
            f"p95 {milliseconds(state.p95_s)} ms",
        ]
    figures.append(f"{state.in_flight} in flight")
    for count, what in (
        (state.refused, "refused"),
        (state.failed, "failed"),
        (state.switches, "changes of plan"),
    ):
        figures += [f"{count:,} {what}"] if count else []
    return Text("  ".join(figures), no_wrap=True, overflow="ellipsis")


def _devices(state: State, wide: bool) -> Section:
    metered = any(each.power_w is not None for each in state.devices)
    rate = Column("requests/s", 10) if wide else Column("/s", 6)
    columns = [Column("busy", 5), Column("queue", 6), rate, *[Column("W", 5)] * metered]
    rows: list[tuple[RenderableType, ...]] = []
    for each in state.devices:
        cells = [f"{each.busy:.0%}", f"{each.queue:.1f}", f"{each.requests_per_s:,.1f}"]
        cells += ["-" if each.power_w is None else f"{each.power_w:.1f}"] * metered
        rows.append((each.name, *bars(each.busy, wide), *cells))
    return Section("device", [*bar_column(wide), *columns], rows, rank=0)


def _links(state: State, wide: bool) -> Section:
    columns = [Column("use", 5), Column("queue", 6), Column("Mbit/s", 10 if wide else 6)]
    rows: list[tuple[RenderableType, ...]] = []
    for each in state.links:
        rate = f"{each.bytes_per_s * 8 / 1e6:,.2f}"
        cells = (f"{each.use:.0%}", f"{each.queue:.1f}", rate)
        rows.append((f"{each.source} → {each.target}", *bars(each.use, wide), *cells))
    return Section("link", [*bar_column(wide), *columns], rows, rank=2)


def _parts(state: State, wide: bool) -> Section:
    # Their right edges are those of the tables above.
    columns = [Column("forecast", BAR if wide else 8), Column("measured", 13 if wide else 8)]
    columns.append(Column("error", 10 if wide else 8))
    unit = " ms" if wide else ""
    rows = [
        (
            each.label,
            milliseconds(each.forecast_s) + unit,
            "-" if each.measured_s is None else milliseconds(each.measured_s) + unit,
            _error(each),
        )
        for each in state.parts
    ]
    return Section("part" if wide else "part, ms", columns, rows, rank=1, last=True)


def _error(part: PartState) -> Text:
    if part.error is None:
        return Text("-")
    far = abs(part.error)
    return Text(percent(part.error), style="green" if far < _CLOSE else "yellow" if far < _FAR else "red")
