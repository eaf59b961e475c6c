"""Watching what devices and links take while a plan runs, over what their tables say.

::

    measured / forecast of each request, per device (computing, encoding, decoding) and directed link
        |  a window of the last requests, the first of a plan left out
        v
    all but a quarter of the window beyond the threshold from what is assumed?   no: nothing changes
        |  yes
        v
    the window's median is assumed from now on; within the threshold of the table, the table

So a quarter of the window may be outliers, noise around the threshold changes nothing, and what is assumed moves only
in steps larger than the threshold.

A place that the running plan does not use, or for too short a time to tell, is not seen. What was last known of it is
assumed for ``HOLD_S``, then forgotten: it counts as profiled again, or nothing would ever return to it. If it is then
found as far off as before, the next time it is believed twice as long, up to ``MOST_HOLD_S``: futile returns grow with
the logarithm of time only. Once it is seen to be as profiled, the first patience holds again.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.simulate_scenario import Place

THRESHOLD = 0.2
WINDOW = 15  # requests
LEAST = 8  # of them, before anything is concluded
WARM_UP = 3  # requests of a plan that are not looked at
# A device or link may take so much longer, or less long, before it counts: what sending, scheduling and the clock
# add to parts that take next to nothing.
SLACK_S = 0.5e-3
# A place of which more than this share is slack shows large drifts only, and never that one is over.
_TELLS = 0.5
HOLD_S = 60.0
MOST_HOLD_S = 3600.0


@dataclass
class _Seen:
    """What is known of one place. ``slack``: of the ratios, what does not count. ``left_s``: since when nothing
    has shown what is assumed."""

    slack: float = 0.0
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    assumed: float = 1.0
    left_s: float = -math.inf
    hold_s: float = HOLD_S
    forgotten: bool = False


class Watch:
    """``threshold``: relative, at which what is assumed of a place changes. Times are in seconds of any clock."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, found {threshold}")
        self._most = 1 + threshold
        self._seen: dict[Place, _Seen] = {}
        self._used: set[Place] = set()
        self._skip = 0

    def begin(self, forecast_s: Mapping[Place, float], now_s: float) -> None:
        """Another plan begins, which is forecast to keep these places busy for so long per request."""
        for place in self._used - {*forecast_s}:
            self._seen[place].left_s = now_s
        self._used = {*forecast_s}
        for place, busy_s in forecast_s.items():
            seen = self._seen.setdefault(place, _Seen())
            seen.ratios.clear()
            seen.slack = SLACK_S / busy_s if busy_s > 0 else math.inf
            seen.left_s = now_s
        self._skip = WARM_UP

    def add(self, times: Mapping[Place, tuple[float, float]], now_s: float) -> None:
        """One request of the running plan: seconds measured and forecast, by place, waiting not included."""
        if self._skip:
            self._skip -= 1
            return
        for place, (measured_s, forecast_s) in times.items():
            if place in self._used and min(measured_s, forecast_s) > 0:
                self._seen[place].ratios.append(measured_s / forecast_s)
                self._conclude(self._seen[place], now_s)

    def _conclude(self, seen: _Seen, now_s: float) -> None:
        ratios = sorted(seen.ratios)
        quarter = len(ratios) // 4
        if len(ratios) < LEAST:
            return
        low, middle, high = ratios[quarter], ratios[len(ratios) // 2], ratios[-1 - quarter]
        drifted = middle - seen.slack > self._most or middle + seen.slack < 1 / self._most
        if drifted:
            seen.left_s = now_s
        if low - seen.slack > seen.assumed * self._most or high + seen.slack < seen.assumed / self._most:
            seen.assumed = middle if drifted else 1.0
            if drifted and seen.forgotten:
                seen.hold_s = min(2 * seen.hold_s, MOST_HOLD_S)
            seen.forgotten = False
        if len(ratios) == WINDOW and not drifted:
            seen.hold_s, seen.forgotten = HOLD_S, False

    def factors(self, now_s: float) -> tuple[tuple[Place, float], ...]:
        """By how much each place takes longer than its table says, as far as that is assumed now; sorted."""
        for place, seen in self._seen.items():
            tells = place in self._used and seen.slack <= _TELLS
            if seen.assumed != 1 and not tells and now_s - seen.left_s >= seen.hold_s:
                seen.assumed, seen.forgotten = 1.0, True
        return tuple(sorted((place, seen.assumed) for place, seen in self._seen.items() if seen.assumed != 1))
