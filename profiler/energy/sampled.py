"""Meters that tell power: a thread samples it through the window, and its integral is the energy.

::

    start()                                            stop()
       │ one sample, by the caller                        │ one sample, by the caller
       ├────●────●────●────●────   ──●────●────●────●─────┤
       0  a thread of its own, one sample every period    window

The samples at both ends are taken outside the window, so that it is covered from end to end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import numpy as np

from planner.errors import EnergyError
from profiler.energy.meter import Meter, Reading
from profiler.energy.power import PowerTrace

# Of the time of one processor, at most this share goes into sampling.
SAMPLING_SHARE = 0.005
# A sensor that is read without waiting for the next conversion gives nothing new any sooner, as a rule.
SHORTEST_PERIOD_S = 0.02
# The longest time without a sample, as a share of the window, and how many samples may fail.
_LONGEST_GAP, _FAILED_SHARE = 0.25, 0.1
_TRIES = 3
_TRIALS = 5  # readings whose cost is measured when the meter is opened


class SampledMeter(Meter):
    """Integrates ``read_w``, which gives the power now and raises ``EnergyError`` when it cannot.

    ``period_s``: how often the sensor has something new. Sampling is no faster than that, and slower where it
    would take more than ``SAMPLING_SHARE`` of one processor's time; that is measured here and in every window,
    since a reading between the runs of a network, which empties the caches, costs several times more.
    Raises ``EnergyError`` if the sensor cannot be read now.
    """

    def __init__(self, name: str, domain: str, read_w: Callable[[], float], period_s: float) -> None:
        self.name = name
        self.domain = domain
        self._read_w = read_w
        self._shortest_s = max(period_s, SHORTEST_PERIOD_S)
        self.period_s = max(self._shortest_s, _cost_s(read_w) / SAMPLING_SHARE)
        self._samples: list[tuple[float, float]] = []
        self._failures: list[str] = []
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._start_s = math.nan

    def start(self) -> None:
        if self._thread is not None:
            raise EnergyError(f"meter {self.name}: a window is open already")
        self._samples, self._failures = [], []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._collect, name=f"meter {self.name}", daemon=True)
        self._sample_at_end()
        self._thread.start()
        self._start_s = time.monotonic()

    def stop(self) -> Reading:
        """Invalid where the sensor vanished, too many samples failed, or too long a time passed without one."""
        if self._thread is None:
            raise EnergyError(f"meter {self.name}: no window is open")
        stop_s = time.monotonic()
        self._ended.set()
        self._thread.join()
        self._thread = None
        self._sample_at_end()
        return self._reading(self._start_s, stop_s)

    def close(self) -> None:
        if self._thread is not None:
            self.stop()

    def _collect(self) -> None:
        count, due_s = 0, time.monotonic()
        while True:
            # What was missed while the machine was busy is left out, not made up for in a burst.
            now_s = time.monotonic()
            due_s = max(due_s + self.period_s, now_s)
            if self._ended.wait(due_s - now_s):
                return
            self._sample()
            count += 1
            cost_s = time.thread_time() / count  # of this thread, all that it did so far
            self.period_s = max(self._shortest_s, cost_s / SAMPLING_SHARE)

    def _sample(self) -> bool:
        before_s = time.monotonic()
        try:
            power_w = self._read_w()
        except EnergyError as error:
            self._failures.append(error.message)
            return False
        # A sensor takes its time; the value belongs somewhere within it.
        self._samples.append(((before_s + time.monotonic()) / 2, power_w))
        return True

    def _sample_at_end(self) -> None:
        """Without a sample at each end there is no window, so one that fails is tried again."""
        any(self._sample() for _ in range(_TRIES))

    def _reading(self, start_s: float, stop_s: float) -> Reading:
        duration_s, energy_j, fault, count = stop_s - start_s, math.nan, "", 0
        rows = dict(self._samples)  # of two samples in one tick of the clock, the later one
        trace = PowerTrace(np.array(list(rows)), np.array(list(rows.values())))
        tried = len(self._samples) + len(self._failures)
        try:
            count = trace.samples_in(start_s, stop_s)
            energy_j = trace.energy_j(start_s, stop_s)
            gap_s = trace.longest_gap_s(start_s, stop_s)
        except EnergyError as error:
            fault = self._failures[-1] if self._failures else error.message
        else:
            if len(self._failures) > _FAILED_SHARE * tried:
                fault = f"{len(self._failures)} of {tried} samples failed: {self._failures[-1]}"
            elif gap_s > max(_LONGEST_GAP * duration_s, 2 * self.period_s):
                fault = f"{gap_s:.3f} s of {duration_s:.3f} s passed without a sample"
        if fault:
            energy_j = math.nan
        return Reading(energy_j, duration_s, count, not fault, fault, start_s, stop_s)


def _cost_s(read_w: Callable[[], float]) -> float:
    """Processor time of one reading, by this thread's clock: waiting for the sensor costs nothing."""
    read_w()  # the first has to find its way
    before_s = time.thread_time()
    for _ in range(_TRIALS):
        read_w()
    return (time.thread_time() - before_s) / _TRIALS
