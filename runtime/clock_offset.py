"""One clock for several hosts: what to add to another host's stamps, and how far that may be off.

::

    here     sent ─┐               ┌─► received
    there          └──► stamp ─────┘

The stamp was taken at some moment of the round trip, so what the clock here is ahead by lies between
``sent - stamp`` and ``received - stamp``, however the round trip divides into its two ways. Such intervals
of several pings intersect (Marzullo and Owicki, "Maintaining the time in a distributed system", PODC 1983);
the quickest ping bounds the result by half its round trip, as in NTP (RFC 5905). Between pings two clocks
part by at most ``MAX_DRIFT``; estimates taken again and again tell by how much they do.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

PINGS = 8
KEPT = 16
# A kernel steers its clock by at most 500 ppm, two by twice that; quartz itself is within 100 ppm.
MAX_DRIFT = 1e-3

Ping = Callable[[], int]


@dataclass(frozen=True)
class Offset:
    """What to add to a stamp there to have it on the clock here.

    The true value at ``at_ns`` (here) is within ``error_ns`` of ``offset_ns``; it changes by ``drift``
    ns per ns, which is within ``drift_error``.
    """

    offset_ns: int
    error_ns: int
    at_ns: int = 0
    drift: float = 0.0
    drift_error: float = MAX_DRIFT

    def here_ns(self, there_ns: int) -> int:
        """A stamp of the other host on the clock here."""
        # The offset is a line over the time here, which is what is asked for.
        since_ns = there_ns + self.offset_ns - self.at_ns
        return there_ns + self.offset_ns + round(self.drift / (1 - self.drift) * since_ns)

    def bound_ns(self, there_ns: int) -> int:
        """How far ``here_ns(there_ns)`` may be off, at most."""
        since_ns = abs(self.here_ns(there_ns) - self.at_ns)
        # Again the line is over the time here, itself that uncertain.
        return math.ceil((self.error_ns + self.drift_error * since_ns) / (1 - 2 * MAX_DRIFT)) + 1


def estimate(
    ping: Ping, pings: int = PINGS, *, shared: bool = False, clock_ns: Ping = time.monotonic_ns
) -> Offset:
    """The offset of another host's clock by ``pings`` requests, each answered with its stamp in ns.

    ``shared``: both say that they read one clock (see ``link_probe.clock_name``), which is then used as it
    is unless a ping refutes it. The true offset is always within the stated error, unless a clock jumped.
    """
    taken = []
    for _ in range(pings):
        sent_ns = clock_ns()
        stamp_ns = ping()
        taken.append((sent_ns, stamp_ns, clock_ns()))
    at_ns = taken[-1][2]
    intervals = [_widened(sent - stamp, received - stamp, at_ns - sent) for sent, stamp, received in taken]
    found = _intersection(intervals) or _intersection(intervals[-1:])
    assert found  # one interval is never empty: time does not run backwards here
    if shared and found.offset_ns - found.error_ns <= 0 <= found.offset_ns + found.error_ns:
        return Offset(0, 0, at_ns, 0.0, 0.0)
    return replace(found, at_ns=at_ns)


def combined(estimates: Sequence[Offset]) -> Offset:
    """What several estimates, in the order they were taken, say together, drift included.

    Holds as long as the two clocks' rates stayed the same; where the estimates contradict that, a clock
    jumped or was steered, and only the newest counts.
    """
    newest = estimates[-1]
    if len(estimates) < 2 or newest.drift_error == 0:  # one clock
        return newest
    least, most = -MAX_DRIFT, MAX_DRIFT
    for place, later in enumerate(estimates):
        for earlier in estimates[:place]:
            apart_ns = later.at_ns - earlier.at_ns
            if apart_ns > 0:
                change_ns, error_ns = later.offset_ns - earlier.offset_ns, later.error_ns + earlier.error_ns
                least = max(least, (change_ns - error_ns) / apart_ns)
                most = min(most, (change_ns + error_ns) / apart_ns)
    intervals = []
    for each in estimates:
        since_ns = newest.at_ns - each.at_ns
        low, high = each.offset_ns - each.error_ns, each.offset_ns + each.error_ns
        intervals.append((low + math.floor(least * since_ns), high + math.ceil(most * since_ns)))
    found = _intersection(intervals)
    if least > most or found is None:
        return newest
    drift, drift_error = (least + most) / 2, (most - least) / 2
    return replace(found, at_ns=newest.at_ns, drift=drift, drift_error=drift_error)


class HostClock:
    """Another host's clock, estimated again at every ``update``; ``offset`` is the newest there is."""

    def __init__(self, ping: Ping, *, shared: bool = False, clock_ns: Ping = time.monotonic_ns) -> None:
        self._ping, self._shared, self._clock_ns = ping, shared, clock_ns
        self._estimates: deque[Offset] = deque(maxlen=KEPT)
        self.update()

    def update(self) -> Offset:
        """Ping the host anew. Whatever a ping raises is raised, and the offset stays as it was."""
        self._estimates.append(estimate(self._ping, shared=self._shared, clock_ns=self._clock_ns))
        self.offset = combined(tuple(self._estimates))
        return self.offset


def _widened(low: int, high: int, since_ns: int) -> tuple[int, int]:
    """The interval after ``since_ns`` more nanoseconds; stamps are whole ones."""
    drift_ns = math.ceil(MAX_DRIFT * since_ns) + 1
    return low - drift_ns, high + drift_ns


def _intersection(intervals: Sequence[tuple[int, int]]) -> Offset | None:
    """The middle of what all intervals share; None where they share nothing, as a clock jumped."""
    low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
    middle = (low + high) // 2
    return Offset(middle, max(high - middle, middle - low)) if low <= high else None
