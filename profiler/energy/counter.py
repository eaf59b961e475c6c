"""Meters that count energy: a window is the difference of two readings, and costs nothing in between."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.errors import EnergyError
from profiler.energy.meter import Meter, Reading

# More than any one counter's domain draws: above it, a counter was reset or went round more than once.
_MAX_POWER_W = 2000.0
# A counter that moves in steps may show, in a short window, what was drawn before it.
_LONGEST_STEP_S = 1.0
# To find the period of a counter: steps to see, and how often to look.
_STEPS, _POLL_S = 4, 0.0005


@dataclass(frozen=True)
class Counter:
    """One energy counter. ``read_j`` raises ``EnergyError`` when it cannot be read.

    ``range_j``: where it starts again from zero; infinite if it never does.
    """

    name: str
    read_j: Callable[[], float]
    range_j: float = math.inf

    def energy_j(self, before_j: float, after_j: float, duration_s: float) -> float:
        """What was counted between two readings. Raises ``EnergyError`` if they cannot tell."""
        most_j = _MAX_POWER_W * (duration_s + _LONGEST_STEP_S)
        if most_j > self.range_j:
            raise EnergyError(f"{self.name} may have wrapped more than once in {duration_s:.1f} s")
        counted_j = after_j - before_j
        if counted_j < 0 and math.isfinite(self.range_j):
            counted_j += self.range_j
        if counted_j < 0 or counted_j > most_j:
            raise EnergyError(
                f"{self.name} went from {before_j:.6f} J to {after_j:.6f} J in {duration_s:.3f} s"
            )
        return counted_j


def update_period_s(counter: Counter, limit_s: float = 3.0) -> float:
    """How often a counter moves: the median of a few steps. Raises ``EnergyError`` if it stands still."""
    moved_s: list[float] = []
    last_j, start_s = counter.read_j(), time.monotonic()
    while len(moved_s) < _STEPS + 1 and time.monotonic() - start_s < limit_s:
        time.sleep(_POLL_S)
        now_j = counter.read_j()
        if now_j != last_j:
            moved_s.append(time.monotonic())
            last_j = now_j
    if len(moved_s) < 2:
        raise EnergyError(f"{counter.name} stands still", "is the device asleep? run something on it first")
    return statistics.median(later - sooner for sooner, later in itertools.pairwise(moved_s))


class CounterMeter(Meter):
    """Energy of several counters whose domains do not overlap.

    ``period_s``: how often the counters move. Each end of a window is uncertain by up to that.
    """

    def __init__(self, name: str, domain: str, counters: Sequence[Counter], period_s: float) -> None:
        self.name = name
        self.domain = domain
        self.period_s = period_s
        self._counters = tuple(counters)
        self._before: tuple[float, list[float]] | None = None
        self._fault = ""

    def start(self) -> None:
        if self._before is not None:
            raise EnergyError(f"meter {self.name}: a window is open already")
        self._fault, readings_j = "", []
        try:
            readings_j = [counter.read_j() for counter in self._counters]
        except EnergyError as error:
            self._fault = error.message
        self._before = time.monotonic(), readings_j

    def stop(self) -> Reading:
        """Invalid where a counter vanished, stood still, or went backwards without a wrap to explain it."""
        if self._before is None:
            raise EnergyError(f"meter {self.name}: no window is open")
        (start_s, before_j), self._before = self._before, None
        stop_s, energy_j, fault = time.monotonic(), math.nan, self._fault
        duration_s = stop_s - start_s
        if not fault:
            try:
                after_j = [counter.read_j() for counter in self._counters]
                counted_j = [
                    counter.energy_j(before, after, duration_s)
                    for counter, before, after in zip(self._counters, before_j, after_j, strict=True)
                ]
            except EnergyError as error:
                fault = error.message
            else:
                energy_j = sum(counted_j)
        if energy_j == 0 and duration_s >= 2 * self.period_s:
            energy_j, fault = math.nan, f"the counters of {self.name} stood still for {duration_s:.3f} s"
        samples = 0 if fault else int(duration_s / self.period_s + 1e-6)
        return Reading(energy_j, duration_s, samples, not fault, fault, start_s, stop_s)
