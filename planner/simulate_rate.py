"""How fast a device or link works over time: a step function, and when an amount of work is done."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.documents import document, read_text, unit_remedy
from planner.errors import DocumentError


@dataclass(frozen=True)
class Rate:
    """``values[i]`` holds from ``times_s[i]`` until the next time; the first time is 0, the last value stays.

    Of a device: seconds of its work done per second; of a link: bytes per second.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    @staticmethod
    def constant(value: float) -> Rate:
        return Rate((0.0,), (value,))

    @staticmethod
    def zero_within(start_s: float, stop_s: float) -> Rate:
        """1 except from ``start_s`` to ``stop_s``, where it is 0; a factor."""
        if start_s == 0:
            return Rate((0.0, stop_s), (0.0, 1.0))
        return Rate((0.0, start_s, stop_s), (1.0, 0.0, 1.0))

    def at(self, time_s: float) -> float:
        return self.values[bisect_right(self.times_s, time_s) - 1]

    def times(self, factor: Rate) -> Rate:
        """The product of both, at every time."""
        steps = sorted({*self.times_s, *factor.times_s})
        return Rate(tuple(steps), tuple(self.at(time_s) * factor.at(time_s) for time_s in steps))

    def finish_s(self, start_s: float, amount: float) -> float:
        """When ``amount`` of work begun at ``start_s`` is done; infinite where it never is."""
        if amount <= 0:
            return start_s
        place = bisect_right(self.times_s, start_s) - 1
        for value, stop_s in zip(self.values[place:-1], self.times_s[place + 1 :], strict=True):
            done = value * (stop_s - start_s)
            if done >= amount:
                return start_s + amount / value
            amount, start_s = amount - done, stop_s
        return start_s + amount / self.values[-1] if self.values[-1] else math.inf

    def spans(self, start_s: float, stop_s: float) -> list[tuple[float, float]]:
        """The parts of ``start_s`` to ``stop_s`` in which it is above 0."""
        found = []
        for place in range(bisect_right(self.times_s, start_s) - 1, len(self.times_s)):
            last = place + 1 == len(self.times_s)
            begin_s = max(start_s, self.times_s[place])
            end_s = stop_s if last else min(stop_s, self.times_s[place + 1])
            if begin_s >= stop_s:
                break
            if self.values[place] > 0:
                found.append((begin_s, end_s))
        return found

    def mean(self, stop_s: float) -> float:
        """Mean value from 0 to ``stop_s``, which is above 0."""
        ends = np.minimum(np.append(self.times_s, np.inf), stop_s)
        return float(np.diff(ends) @ np.array(self.values) / stop_s)


@document()
class LinkTrace:
    """What a link carries over time: each bandwidth holds from its time on, the last one stays.

    ``latency_s`` likewise; empty is the fleet's latency. The first time is 0.
    """

    source: str
    target: str
    time_s: tuple[float, ...]
    bandwidth_bytes_per_s: tuple[float, ...]
    latency_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_times(self.time_s)
        if self.time_s[0] != 0:
            raise ValueError(f"the first time is {self.time_s[0]:g} s: subtract it from all, so that it is 0")
        for name, values in (
            ("bandwidth_bytes_per_s", self.bandwidth_bytes_per_s),
            ("latency_s", self.latency_s or (0.0,) * len(self.time_s)),
        ):
            if len(values) != len(self.time_s):
                raise ValueError(f"{len(self.time_s)} times, but {len(values)} values of {name}")
            for time_s, value in zip(self.time_s, values, strict=True):
                if not 0 <= value < math.inf:
                    raise ValueError(f"at {time_s:g} s: {name} must be at least 0 and finite, found {value}")
        if not any(self.bandwidth_bytes_per_s):
            raise ValueError("the bandwidth is 0 for ever: nothing would ever arrive")

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.target


def check_times(times_s: tuple[float, ...], again: bool = False) -> None:
    """Refuse (``ValueError``) times that are none, below 0 or go back; ``again``: the same may come again."""
    if not times_s:
        raise ValueError("it has no rows")
    before = -math.inf
    for number, time_s in enumerate(times_s, start=1):
        if not 0 <= time_s < math.inf:
            raise ValueError(f"row {number}: a time must be at least 0 and finite, found {time_s}")
        if time_s < before or (time_s == before and not again):
            raise ValueError(f"row {number}: time goes from {before:g} s to {time_s:g} s")
        before = time_s


def read_link_trace(file: Path, pair: tuple[str, str]) -> LinkTrace:
    """The trace in a CSV file. Raises ``DocumentError``."""
    columns = _read_columns(file, ("time_s", "bandwidth_bytes_per_s"), "latency_s")
    try:
        return LinkTrace(*pair, *columns)
    except ValueError as error:
        raise DocumentError(file, "", str(error)) from None


def read_times(file: Path) -> tuple[float, ...]:
    """When requests arrive, from a CSV file with the column ``time_s``. Raises ``DocumentError``."""
    (times_s,) = _read_columns(file, ("time_s",))
    try:
        check_times(times_s, again=True)
    except ValueError as error:
        raise DocumentError(file, "", str(error)) from None
    return times_s


def _read_columns(file: Path, names: tuple[str, ...], optional: str = "") -> list[tuple[float, ...]]:
    """The columns ``names`` of a CSV file of numbers, and ``optional`` where it is there."""
    try:
        rows = [row for row in csv.reader(read_text(file).splitlines()) if row]
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    wanted = (*names, optional) if optional and optional in header else names
    if sorted(header) != sorted(wanted):
        strange = [name for name in header if name not in wanted]
        remedy = next(filter(None, map(unit_remedy, strange)), f"the header is {','.join(names)}")
        found = f"found {','.join(header)!r:.120}" if header else "found an empty file"
        raise DocumentError(file, "line 1", f"expected the columns {','.join(names)}, {found}", remedy)
    places = [header.index(name) for name in wanted]
    values = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            if len(row) != len(header):
                raise ValueError(f"expected {len(header)} cells, found {len(row)}")
            values.append([float(row[place]) for place in places])
        except ValueError as error:
            raise DocumentError(file, f"row {number}", str(error)) from None
    return [tuple(column) for column in zip(*values, strict=True)] or [() for _ in names]
