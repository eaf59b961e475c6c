"""What a monitor counts with: durations so far, and amounts over the last seconds; in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

# Buckets of durations: from a microsecond up, 64 to each doubling, so that a quantile is right to half a percent.
LEAST_S = 1e-6
PER_DOUBLING = 64
_MOST = 64 * PER_DOUBLING
# Amounts per time: kept in slots, over a window that may lie so far back.
SLOT_S = 0.25
WINDOW_S = 5.0
MOST_LAG_S = 30.0


class Durations:
    """How many there were of which length. ``count`` and ``sum_s`` are exact."""

    def __init__(self) -> None:
        self.count, self.sum_s = 0, 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, duration_s: float) -> None:
        """Negative ones count as 0."""
        duration_s = max(duration_s, 0.0)
        self.count += 1
        self.sum_s += duration_s
        place = math.ceil(PER_DOUBLING * math.log2(duration_s / LEAST_S)) if duration_s > LEAST_S else 0
        self._buckets[min(place, _MOST)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that ``share`` of them do not exceed, to half a percent; None where there were none."""
        rank, seen = share * (self.count - 1), 0
        for place in sorted(self._buckets):
            seen += self._buckets[place]
            if seen > rank:
                return LEAST_S * 2 ** ((place - 0.5) / PER_DOUBLING) if place else 0.0
        return None

    def cumulative(self, doublings: range) -> list[tuple[float, int]]:
        """Bounds (seconds), ``LEAST_S`` doubled so often, and how many are not longer."""
        found, seen, rest = [], 0, sorted(self._buckets.items(), reverse=True)
        for doubling in doublings:
            while rest and rest[-1][0] <= doubling * PER_DOUBLING:
                seen += rest.pop()[1]
            found.append((LEAST_S * 2**doubling, seen))
        return found


class Windowed:
    """An amount that comes over time, and how fast it came lately. ``total``: all of it.

    Times are seconds of one clock. Work is told of when its request is answered, so the window ends ``lag_s`` before
    now: by then everything has been told.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._slots: dict[int, float] = {}

    def add(self, at_s: float, amount: float = 1.0) -> None:
        self.total += amount
        self._put(math.floor(at_s / SLOT_S), amount)

    def spread(self, begin_s: float, end_s: float, amount: float | None = None) -> None:
        """An amount (default: the seconds themselves) that came evenly between two times."""
        took_s = end_s - begin_s
        amount = max(took_s, 0.0) if amount is None else amount
        if took_s <= 0:
            self.add(end_s, amount)
            return
        self.total += amount
        last = math.floor(end_s / SLOT_S)
        first = max(math.floor(begin_s / SLOT_S), last - _KEPT)
        for slot in range(first, last + 1):
            inside_s = min(end_s, (slot + 1) * SLOT_S) - max(begin_s, slot * SLOT_S)
            self._put(slot, amount * inside_s / took_s)

    def rate(self, now_s: float, since_s: float, lag_s: float = 0.0) -> float:
        """Per second, over the whole slots of the window; what came before ``since_s`` is not looked at."""
        end = math.floor((now_s - min(lag_s, MOST_LAG_S)) / SLOT_S)
        begin = max(end - round(WINDOW_S / SLOT_S), math.ceil(since_s / SLOT_S))
        if end <= begin:
            return 0.0
        return sum(self._slots.get(slot, 0.0) for slot in range(begin, end)) / ((end - begin) * SLOT_S)

    def _put(self, slot: int, amount: float) -> None:
        self._slots[slot] = self._slots.get(slot, 0.0) + amount
        while len(self._slots) > _KEPT:
            del self._slots[min(self._slots)]


_KEPT = round((WINDOW_S + MOST_LAG_S) / SLOT_S) + 2
