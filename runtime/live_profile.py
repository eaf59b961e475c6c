"""A profile while it runs, on a terminal: what each device measures, and how much is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rich.console import ConsoleDimensions, RenderableType
from rich.text import Text

from runtime.live import plain
from runtime.live_tables import WIDE, Column, Section, bar_column, bars, clock, ends, stacked
from runtime.profile_progress import Advance

_NOTE = 28


class ProfileView:
    """``tell`` it how far a device is, from any thread. ``title``: what is profiled where."""

    def __init__(
        self, title: str, devices: Sequence[str], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._title, self._now_s, self._began_s = plain(title), now_s, now_s()
        self._lock = threading.Lock()
        self._devices = dict.fromkeys(devices, Advance(0.0, "waiting"))
        self._since: dict[str, tuple[float, float]] = {}  # when a device's work began, and the share before

    def tell(self, device: str, advance: Advance) -> None:
        with self._lock:
            if advance.left is None:
                # It says what it does; the figures stay.
                last = self._devices[device]
                advance = Advance(advance.share, advance.note, last.done, 0 if advance.share == 1 else last.left,
                                  last.power_w)  # fmt: skip
            elif device not in self._since:
                self._since[device] = self._now_s(), advance.share
            self._devices[device] = advance

    def drawn(self, size: ConsoleDimensions) -> RenderableType:
        wide = size.width >= WIDE
        with self._lock:
            devices = dict(self._devices)
        metered = any(each.power_w is not None for each in devices.values())
        columns = [Column("", 4), Column("done", 6), Column("left", 6), Column("time left", 9)]
        columns += [Column("W", 6)] * metered
        note = max(
            min(size.width - 12 - sum(2 + each.width for each in [*bar_column(wide), *columns]) - 2, _NOTE), 0
        )
        rows: list[tuple[RenderableType, ...]] = []
        for name, each in devices.items():
            cells = [f"{each.share:.0%}", _count(each.done), _count(each.left), self._left(name, each)]
            cells += ["-" if each.power_w is None else f"{each.power_w:.1f}"] * metered
            rows.append((name, *bars(each.share, wide), *cells, *[Text(plain(each.note))] * (note > 8)))
        columns = [*bar_column(wide), *columns, *[Column("now", note, "left")] * (note > 8)]
        top = ends(Text(self._title, style="bold"), Text(clock(self._now_s() - self._began_s)))
        return stacked([top], [Section("device", columns, rows, rank=0)], size)

    def line(self) -> str:
        with self._lock:
            devices = dict(self._devices)
        said = []
        for name, each in devices.items():
            left = f", {each.left:,} bundles left" if each.left is not None else ""
            note = f" ({each.note})" if each.note else ""
            said.append(f"{name} {each.share:.0%}{left}{note}")
        return f"{self._title}: {'; '.join(said)}"

    def _left(self, device: str, advance: Advance) -> str:
        """The time left, at the pace so far."""
        if device not in self._since or not advance.left:
            return "-"
        since_s, before = self._since[device]
        done = advance.share - before
        if done <= 0:
            return "-"
        return clock((self._now_s() - since_s) * (1 - advance.share) / done)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
