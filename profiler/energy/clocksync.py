"""Clocks: a meter's against the host's that logs it, and one host's against another's.

::

    host - device                                    one step: the clocks are fitted piece by piece
        │  ·     ·                      ·   ·
        │ · ·· ··  · ·               ·_______·__     A line is never read before it was sent, so what
        │__·_____·___·_              ·               the two clocks differ by lies on the lower
        │                                            envelope of what was seen; delays lie above it.
        └──────────────────────────────────────── device's time
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import numpy as np
import pandas as pd

from planner.cost import FloatArray
from planner.errors import EnergyError
from profiler.energy.log_file import IntArray, PowerLog
from profiler.energy.power import PowerTrace
from profiler.energy.smartpower3 import WRAP_MS

_STEP_S = 0.05  # a change of the clocks' difference from here on is a jump
_HORIZON_S = 30.0  # ... if it lasts that long: a host that reads late catches up sooner
_FIT_DRIFT_S = 10.0  # shorter pieces do not show a drift
_MOST_DRIFT = 1e-3  # no quartz is that far off
_MOST_JUMPS = 1000
_GAP = 5.0  # a pause of so many sampling periods is a gap


@dataclass(frozen=True)
class ClockFit:
    """Host time (s) = ``offset_s`` + (1 + ``drift``) x device time (s).

    ``error_s``: the median delay of a line above the quickest ones, and the device's own resolution of 1 ms.
    The delay of the quickest line cannot be seen: 81 bytes take 7 ms at 115,200 baud, 0.9 ms at 921,600.
    """

    offset_s: float
    drift: float
    error_s: float

    def host_s(self, device_s: FloatArray) -> FloatArray:
        return self.offset_s + (1 + self.drift) * device_s


class Lack(Enum):
    """Why the energy of a window is not known."""

    COVERAGE = "the power log does not cover the run"
    GAP = "the power log has a gap in the run"
    SAMPLES = "the run holds too few samples of power"


@dataclass(frozen=True)
class Window:
    """Energy between two times; where it is not known, ``energy_j`` is None and ``lack`` says why."""

    samples: int
    energy_j: float | None = None
    lack: Lack | None = None


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of a power log in which no clock jumped: its power on the host's clock."""

    trace: PowerTrace
    fit: ClockFit
    period_s: float

    def window(self, start_s: float, stop_s: float, min_samples: int) -> Window | None:
        """The energy between two times; None if they do not both lie in this piece."""
        if not self.trace.time_s[0] <= start_s <= stop_s <= self.trace.time_s[-1]:
            return None
        samples = self.trace.samples_in(start_s, stop_s)
        if _gap_around_s(self.trace, start_s, stop_s) > _GAP * self.period_s:
            return Window(samples, lack=Lack.GAP)
        if samples < min_samples:
            return Window(samples, lack=Lack.SAMPLES)
        return Window(samples, self.trace.energy_j(start_s, stop_s))


@dataclass(frozen=True)
class AlignedPower:
    """Power on one host's clock, from one log or several."""

    pieces: tuple[Piece, ...]

    def window(self, start_s: float, stop_s: float, min_samples: int) -> Window:
        """The energy between two times of the host, if enough samples without a gap tell it."""
        for piece in self.pieces:
            found = piece.window(start_s, stop_s, min_samples)
            if found:
                return found
        return Window(0, lack=Lack.COVERAGE)

    def shifted(self, offset_s: float) -> AlignedPower:
        """The same on a clock that is ``offset_s`` ahead of this one."""
        return AlignedPower(
            tuple(
                replace(each, trace=PowerTrace(each.trace.time_s + offset_s, each.trace.power_w))
                for each in self.pieces
            )
        )


def _gap_around_s(trace: PowerTrace, start_s: float, stop_s: float) -> float:
    """The longest time between samples that touch a window; those just outside count, they bound it."""
    first = max(int(np.searchsorted(trace.time_s, start_s, "right")) - 1, 0)
    last = int(np.searchsorted(trace.time_s, stop_s, "left"))
    around = trace.time_s[first : last + 1]
    return float(np.diff(around).max()) if len(around) > 1 else 0.0


def align(log: PowerLog) -> AlignedPower:
    """The log's power on its host's clock. Raises ``EnergyError`` for a log whose clocks cannot be used."""
    if len(log) < 2:
        raise EnergyError(f"{log.source} holds {len(log)} samples of power", "log for longer")
    device_s, host_s = _unwrap(log.device_ms) / 1e3, log.host_ns / 1e9
    steps_s = np.diff(device_s)
    forward = steps_s[steps_s > 0]
    if not forward.size:
        raise EnergyError(f"the clock of {log.source} stands still", "restart the meter")
    period_s = float(np.median(forward))
    pieces = []
    for start, stop in split_at_jumps(device_s, host_s, period_s):
        # A clock of whole milliseconds may repeat itself.
        keep = np.concatenate(([True], np.diff(np.maximum.accumulate(device_s[start:stop])) > 0))
        device, host = device_s[start:stop][keep], host_s[start:stop][keep]
        fit = fit_clock(device, host)
        trace = PowerTrace(fit.host_s(device), log.power_w[start:stop][keep])
        pieces.append(Piece(trace, fit, period_s))
    return AlignedPower(tuple(pieces))


def _unwrap(device_ms: IntArray) -> IntArray:
    """The device's milliseconds without the step back at 2^32."""
    wraps = np.cumsum(np.diff(device_ms, prepend=device_ms[:1]) < -WRAP_MS // 2)
    return device_ms + wraps.astype(np.int64) * WRAP_MS


def split_at_jumps(device_s: FloatArray, host_s: FloatArray, period_s: float) -> list[tuple[int, int]]:
    """The pieces [start, stop) within which neither clock jumped: set, restarted, or stopped for a while.

    The least difference host - device before and after each sample is compared, so that lines that are
    read late, one or many, are no jump. Raises ``EnergyError`` beyond 1000 jumps.
    """
    difference_s = host_s - device_s
    span = max(2, round(_HORIZON_S / period_s))
    pieces: list[tuple[int, int]] = []
    start = 0
    while len(pieces) <= _MOST_JUMPS:
        jump = _first_jump(difference_s[start:], span)
        if jump is None:
            return [*pieces, (start, len(difference_s))]
        pieces.append((start, start + jump))
        start += jump
    raise EnergyError(f"the clocks of the power log jump more than {_MOST_JUMPS} times", "log it anew")


def _first_jump(difference_s: FloatArray, span: int) -> int | None:
    """The first sample after a jump, or None."""
    series = pd.Series(difference_s)
    before = series.rolling(span, min_periods=1).min().to_numpy()[:-1]
    after = series[::-1].rolling(span, min_periods=1).min().to_numpy()[::-1][1:]
    step_s = after - before
    found = np.flatnonzero(np.abs(step_s) > _STEP_S)
    if not found.size:
        return None
    first = int(found[0])
    if step_s[first] > 0:
        return first + 1
    # Downwards, what lies ahead is low long before the jump: it is where the last of these is.
    others = np.flatnonzero(step_s[first:] > -_STEP_S)
    return first + int(others[0]) if others.size else len(difference_s) - 1


def fit_clock(device_s: FloatArray, host_s: FloatArray) -> ClockFit:
    """Host against device by the lower envelope.

    The line below all points with the least distance from them is the edge of their lower convex hull
    over their mean (Moon, Skelly, Towsley: Estimation and removal of clock skew from network delay
    measurements, INFOCOM 1999). Times shape (n,), n at least 1, the device's strictly increasing.
    """
    origin = float(device_s[0])
    base = float(host_s[0]) - origin
    x, y = device_s - origin, (host_s - device_s) - base  # small numbers: Unix time leaves few digits
    drift, height = 0.0, float(y.min())
    if x[-1] >= _FIT_DRIFT_S:
        (x0, y0), (x1, y1) = _hull_edge(x, y, float(x.mean()))
        slope = (y1 - y0) / (x1 - x0)
        if abs(slope) <= _MOST_DRIFT:
            drift, height = slope, y0 - slope * x0
    error_s = float(np.median(y - (height + drift * x))) + 1e-3
    return ClockFit(base + height - drift * origin, drift, error_s)


def _hull_edge(x: FloatArray, y: FloatArray, middle: float) -> tuple[tuple[float, float], ...]:
    """The edge of the lower convex hull above ``middle`` (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1 and _turns_right(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return next((left, right) for left, right in pairwise(hull) if right[0] >= middle)


def _turns_right(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])


@dataclass(frozen=True)
class ClockOffset:
    """What to add to the other host's clock to have this one's, and how far that may be off."""

    offset_s: float
    error_s: float


def measure_offset(
    ask_ns: Callable[[], int], rounds: int = 20, clock_ns: Callable[[], int] = time.time_ns
) -> ClockOffset:
    """How another host's clock differs, by ``rounds`` requests that it answers with its time in ns.

    The quickest answer counts. It was given at some moment of its round trip: in the middle if both ways
    take equally long, and never further from it than half the round trip (as NTP has it, RFC 5905).
    """
    return min(_round_trips(ask_ns, rounds, clock_ns), key=lambda found: found.error_s)


def _round_trips(
    ask_ns: Callable[[], int], rounds: int, clock_ns: Callable[[], int]
) -> Iterator[ClockOffset]:
    for _ in range(rounds):
        sent_ns = clock_ns()
        answer_ns = ask_ns()
        received_ns = clock_ns()
        # Whole nanoseconds up to here: Unix time as a float has lost some.
        yield ClockOffset((sent_ns + received_ns - 2 * answer_ns) / 2e9, (received_ns - sent_ns) / 2e9)
