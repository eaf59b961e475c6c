"""A SmartPower3 as a meter: a thread collects its lines, and a window of the host's time is cut from them."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np

from planner.errors import EnergyError
from profiler.energy.clocksync import align
from profiler.energy.log_file import PowerLog, Stamped
from profiler.energy.meter import Meter, Reading
from profiler.energy.smartpower3 import describe
from profiler.energy.sources import Recorder, Source, parse_source

_KEPT = 5_000  # records before a window that show how the clocks run
_FIRST_RECORDS = 5
_PAUSE_S = 0.1  # a serial port's buffer of 4 KB holds 0.25 s of the fastest lines
_LATE_S = 0.5  # how long a line may take to arrive
_MIN_SAMPLES = 5


def open_smartpower3(argument: str, root: Path) -> Meter:
    """The meter of ``smartpower3:ARGUMENT``; see ``SourceSpec``. ``root`` stands for the file system."""
    spec = parse_source(argument or str(root / "dev/ttyUSB0"))
    return LogMeter(spec.open(), spec.channel)


class LogMeter(Meter):
    """The energy that one channel of a source delivered."""

    def __init__(self, source: Source, channel: str) -> None:
        """Raises ``EnergyError`` if no power comes within some seconds; the source is then closed."""
        self.name = f"smartpower3:{source.name}@{channel}"
        self.domain = f"channel {channel} of a SmartPower3" if channel != "input" else "SmartPower3's input"
        self._channel = channel
        self._records: deque[Stamped] = deque()
        self._arrived = threading.Condition()
        self._start_ns: int | None = None
        self._recorder = Recorder(source, self._collect, time.monotonic_ns, _PAUSE_S)
        try:
            self._recorder.wait_first()
            with self._arrived:
                enough = self._arrived.wait_for(self._can_begin, 2 * _LATE_S + _FIRST_RECORDS)
                if not enough or self._recorder.failure:
                    raise self._recorder.failure or EnergyError(f"{source.name} fell silent")
                times_ms = [each.record.time_ms for each in self._records]
            self.period_s = float(np.median(np.diff(times_ms))) / 1e3
        except BaseException:
            self._recorder.close()
            raise

    def _can_begin(self) -> bool:
        return len(self._records) >= _FIRST_RECORDS or self._recorder.ended.is_set()

    def _collect(self, records: list[Stamped]) -> None:
        with self._arrived:
            self._records.extend(records)
            while self._start_ns is None and len(self._records) > _KEPT:
                self._records.popleft()
            self._arrived.notify_all()

    def start(self) -> None:
        if self._start_ns is not None:
            raise EnergyError(f"{self.name} is measuring already")
        with self._arrived:
            while len(self._records) > _KEPT:
                self._records.popleft()
            self._start_ns = time.monotonic_ns()

    def stop(self) -> Reading:
        stop_ns = time.monotonic_ns()
        if self._start_ns is None:
            raise EnergyError(f"{self.name} is not measuring")
        start_s, stop_s = self._start_ns / 1e9, stop_ns / 1e9
        self._recorder.hurry.set()
        with self._arrived:
            # A sample beyond the end tells the power up to it; its line is on the way for a while.
            late_s = _LATE_S + 3 * self.period_s
            self._arrived.wait_for(lambda: self._knows_until(stop_ns), late_s)
            records = list(self._records)
            self._start_ns = None
        if not self._recorder.ended.is_set():
            self._recorder.hurry.clear()
        try:
            window = align(PowerLog.of(records, self._channel, self.name)).window(
                start_s, stop_s, _MIN_SAMPLES
            )
        except EnergyError as error:
            return Reading(math.nan, stop_s - start_s, 0, False, error.message, start_s, stop_s)
        if window.energy_j is None:
            reasons = [window.lack.value] if window.lack else []
            if self._recorder.failure:
                reasons.append(self._recorder.failure.message)
            if self._recorder.source.faults:
                reasons.append(describe(self._recorder.source.faults))
            said = "; ".join(reasons)
            return Reading(math.nan, stop_s - start_s, window.samples, False, said, start_s, stop_s)
        return Reading(window.energy_j, stop_s - start_s, window.samples, True, "", start_s, stop_s)

    def _knows_until(self, stop_ns: int) -> bool:
        """Whether a sample has come that was surely taken after ``stop_ns``."""
        period_ns = self.period_s * 1e9
        known = bool(self._records) and self._records[-1].host_ns > stop_ns + 2 * period_ns
        return known or self._recorder.ended.is_set()

    def close(self) -> None:
        self._recorder.close()
