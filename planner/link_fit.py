"""What a measured link costs: one-way times from four time stamps, and latency + bytes / bandwidth fitted.

::

    source clock   sent                              returned
                     │  ── frame of nbytes ──►          ▲
    target clock          received ─► replied  ── ack ──┘

    round trip   = (returned - sent) - (replied - received)           needs no common clock
    offset       = ((received - sent) + (replied - returned)) / 2     target's clock less the source's
    one way      = received - sent - offset

The offset is NTP's (RFC 5905, section 8): exact if both ways take equally long, and off by at most half
the round trip whatever they take. A line through the quickest quarter of the exchanges gives it over
time, because two clocks also run at different rates. Devices that share one clock need none of it.

The fit takes the median of each size, so that a few slow frames do not count, and minimises, with
latency >= 0, the sum over sizes of weight x (fitted / time + time / fitted - 2). That is 4 sinh^2 of half
the log of their ratio: a relative error that minds half the time as much as twice the time, and it is
convex in both unknowns, so the minimum is one (damped Newton: Boyd and Vandenberghe 2004, section 9.5).
Least squares of (fitted - time) / time would not do: it never charges an underestimate more than 1, and
so follows the small frames where a network lets bursts pass. The weight is 1 over the square of the
median's precision, 2 % at best, as no path is quite a line; sizes weigh alike where one is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.documents import document
from planner.errors import PlanningError

FloatArray = NDArray[np.float64]

_QUICK_SHARE = 0.25
_CONFIDENCE = 0.95
_LEAST_PRECISION = 0.02
_MAX_STEPS = 200


@document()
class Exchanges:
    """Frames sent one at a time and acknowledged: column k of each tuple is exchange k.

    ``nbytes``: tensor bytes sent. The rest are monotonic nanoseconds: ``sent_ns`` and ``returned_ns`` on
    the source's clock, ``received_ns`` and ``replied_ns`` on the target's.
    """

    nbytes: tuple[int, ...]
    sent_ns: tuple[int, ...]
    received_ns: tuple[int, ...]
    replied_ns: tuple[int, ...]
    returned_ns: tuple[int, ...]

    def __post_init__(self) -> None:
        columns = (self.nbytes, self.sent_ns, self.received_ns, self.replied_ns, self.returned_ns)
        if len(set(map(len, columns))) != 1:
            raise ValueError(f"columns differ in length: {', '.join(str(len(one)) for one in columns)}")
        for place, (count, sent, received, replied, returned) in enumerate(zip(*columns, strict=True)):
            if count < 1:
                raise ValueError(f"exchange {place}: nbytes must be at least 1, found {count}")
            if not 0 <= replied - received <= returned - sent:
                raise ValueError(f"exchange {place}: it ends before it begins")

    def __len__(self) -> int:
        return len(self.nbytes)

    @property
    def round_trip_s(self) -> FloatArray:
        """Seconds there and back, without the time in the target: shape (exchanges,)."""
        sent, received, replied, returned = self._stamps()
        return np.asarray(((returned - sent) - (replied - received)) / 1e9)

    def _stamps(self) -> tuple[NDArray[np.int64], ...]:
        columns = self.sent_ns, self.received_ns, self.replied_ns, self.returned_ns
        return tuple(np.array(column, dtype=np.int64) for column in columns)


@document()
class ClockOffset:
    """The target's clock less the source's: ``offset_s`` at the first exchange, growing by ``drift`` s/s.

    ``error_s`` bounds the error of the offset: half the least round trip, or 0 where the two devices
    read one clock (``shared``), which is then used as it is.
    """

    offset_s: float
    drift: float
    error_s: float
    shared: bool


def clock_offset(exchanges: Exchanges, shared: bool) -> ClockOffset:
    """The offset by NTP's estimate, or 0 if the clock is ``shared`` and the estimate does not refute it."""
    sent, received, replied, returned = exchanges._stamps()
    round_trip_s = exchanges.round_trip_s
    error_s = float(round_trip_s.min()) / 2
    # In integers until it is small: stamps of two machines may be years apart.
    base = int(received[0] - sent[0])
    offset_s = ((received - sent - base) + (replied - returned - base)) / 2e9
    if shared and abs(base / 1e9 + float(offset_s[round_trip_s.argmin()])) <= error_s:
        return ClockOffset(0.0, 0.0, 0.0, True)
    at_s = (sent - sent[0]) / 1e9
    quick = np.argsort(round_trip_s, kind="stable")[: max(math.ceil(len(exchanges) * _QUICK_SHARE), 1)]
    start, drift = float(offset_s[quick[0]]), 0.0
    if len(quick) >= 8 and np.ptp(at_s[quick]) > 0:
        drift, start = (float(value) for value in np.polyfit(at_s[quick], offset_s[quick], 1))
    return ClockOffset(base / 1e9 + start, drift, error_s, False)


def one_way_s(exchanges: Exchanges, clock: ClockOffset) -> FloatArray:
    """Seconds from source to target: shape (exchanges,)."""
    sent, received, _, _ = exchanges._stamps()
    base = int(received[0] - sent[0])
    offset_s = clock.offset_s - base / 1e9 + clock.drift * (sent - sent[0]) / 1e9
    return np.asarray((received - sent - base) / 1e9 - offset_s)


@document()
class SizeFit:
    """The frames of one size: how many, their times, and ``error``: fitted over median, less one."""

    nbytes: int
    n: int
    median_s: float
    p5_s: float
    p95_s: float
    error: float


@document()
class LinkFit:
    """A frame of b bytes takes ``latency_s`` + b / ``bandwidth_bytes_per_s``, in the median.

    ``jitter_s``: mean absolute difference between successive times of the smallest frames (RFC 3550's
    D). ``sizes``: what the fit covers, in ascending order.
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    jitter_s: float
    sizes: tuple[SizeFit, ...]

    @property
    def n(self) -> int:
        return sum(size.n for size in self.sizes)

    @property
    def worst_error(self) -> float:
        """The relative error of the size that fits worst, with its sign."""
        return max((size.error for size in self.sizes), key=abs)

    def time_s(self, nbytes: int) -> float:
        return self.latency_s + nbytes / self.bandwidth_bytes_per_s


def fit_link(nbytes: Sequence[int], seconds: Sequence[float] | FloatArray) -> LinkFit:
    """Fit samples of one direction, in the order they were taken; ``nbytes[k]`` took ``seconds[k]``.

    Raises ``PlanningError`` where they do not determine a latency and a bandwidth: fewer than two sizes,
    times that are not above 0, or that do not grow with the bytes.
    """
    taken, times = np.asarray(nbytes), np.asarray(seconds, dtype=np.float64)
    groups = {int(size): times[taken == size] for size in np.unique(taken)}
    if len(groups) < 2:
        found = ", ".join(f"{size} B" for size in groups) or "none"
        raise PlanningError(f"a fit needs frames of two sizes or more, found {found}", "pass more --sizes")
    sizes = np.array(list(groups), dtype=np.float64)
    medians = np.array([np.median(group) for group in groups.values()])
    if not (np.isfinite(medians).all() and medians.min() > 0):
        raise PlanningError(
            f"frames of {sizes[medians.argmin()]:.0f} B took {medians.min() * 1e3:.4g} ms in the median",
            "the clocks of the two devices run unevenly: measure again",
        )
    precisions = np.array([median_precision(group) for group in groups.values()])
    known = np.maximum(precisions, _LEAST_PRECISION) if np.isfinite(precisions).all() else np.ones(len(sizes))
    latency_s, per_byte_s = _fit_line(sizes, medians, 1 / known**2)
    if not per_byte_s * sizes[-1] > 1e-9 * medians[-1]:
        raise PlanningError(
            f"times do not grow from {sizes[0]:.0f} to {sizes[-1]:.0f} B, so they tell no bandwidth",
            "pass larger --sizes",
        )
    fitted = latency_s + sizes * per_byte_s
    smallest = groups[int(sizes[0])]
    return LinkFit(
        latency_s=latency_s,
        bandwidth_bytes_per_s=1 / per_byte_s,
        jitter_s=float(np.abs(np.diff(smallest)).mean()) if len(smallest) > 1 else 0.0,
        sizes=tuple(
            SizeFit(size, len(group), float(median), *_p5_p95(group), float(guess / median - 1))
            for (size, group), median, guess in zip(groups.items(), medians, fitted, strict=True)
        ),
    )


def _fit_line(sizes: FloatArray, times: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Latency (s, >= 0) and seconds per byte (0 where times do not grow) of the least loss: see above."""
    w = weights / weights.sum()
    # Where only one of the two is left, the minimum is in closed form; the other's slope there tells
    # whether it is 0 in the best line too.
    per_byte = math.sqrt((w @ (times / sizes)) / (w @ (sizes / times)))
    if w @ (1 / times - times / (per_byte * sizes) ** 2) >= 0:
        return 0.0, per_byte
    latency = math.sqrt((w @ times) / (w @ (1 / times)))
    if (w * sizes) @ (1 / times - times / latency**2) >= 0:
        return latency, 0.0
    line = np.array([latency, per_byte]) / 2
    for _ in range(_MAX_STEPS):
        # In shares of either unknown, which are of one order.
        parts = np.stack([np.full_like(sizes, line[0]), line[1] * sizes])
        fitted = parts.sum(axis=0)
        gradient = parts @ (w * (1 / times - times / fitted**2))
        hessian = (parts * (2 * w * times / fitted**3)) @ parts.T
        step = -np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        # Both stay above 0, and the loss falls.
        share = min(1.0, 0.9 / max(-step.min(), 1e-300))
        while share > 1e-9 and _loss((1 + share * step) @ parts, times, w) > _loss(fitted, times, w):
            share /= 2
        line = line * (1 + share * step)
        if np.abs(step).max() < 1e-12:
            break
    return float(line[0]), float(line[1])


def _loss(fitted: FloatArray, times: FloatArray, weights: FloatArray) -> float:
    return float(weights @ ((fitted - times) ** 2 / (fitted * times)))


def _p5_p95(times: FloatArray) -> tuple[float, float]:
    low, high = np.percentile(times, [5, 95])
    return float(low), float(high)


def median_precision(times: Sequence[float] | FloatArray) -> float:
    """Half the width of the median's 95 % confidence interval over the median; infinite below 6 times.

    The interval lies between order statistics and holds for any distribution (David and Nagaraja, Order
    Statistics, 2003, section 7.1): rank r and n + 1 - r, with P(Binomial(n, 1/2) < r) at most 2.5 %.
    """
    ordered = np.sort(np.asarray(times, dtype=np.float64))
    n, rank, tail = len(ordered), 0, 0.0
    while (tail := tail + math.comb(n, rank) / 2**n) <= (1 - _CONFIDENCE) / 2:
        rank += 1
    middle = float(np.median(ordered)) if n else 0.0
    if rank == 0 or middle <= 0:
        return math.inf
    return float(ordered[n - rank] - ordered[rank - 1]) / 2 / middle
