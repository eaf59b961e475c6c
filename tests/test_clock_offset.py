"""Clocks of several hosts: whatever the delays of the two ways, the true offset is within the stated error."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.clock_offset import KEPT, MAX_DRIFT, PINGS, HostClock, Offset, combined, estimate

MS = 1_000_000
delays = st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(0, 50 * MS)), min_size=1, max_size=20)
offsets = st.integers(-(10**18), 10**18)
drifts = st.integers(-900, 900).map(lambda ppm: ppm / 1e6)


class TwoHosts:
    """Simulated clocks: the one here tells the time, the one there is ``offset_ns`` behind and drifts."""

    def __init__(self, offset_ns: int, drift: float, delays_ns: list[tuple[int, int]]) -> None:
        self.offset_ns, self.drift, self.now_ns = offset_ns, drift, 5 * 10**12
        self.start_ns = self.now_ns
        self._delays = itertools.cycle(delays_ns)

    def here(self) -> int:
        return self.now_ns

    def there(self, here_ns: int) -> int:
        return here_ns - self.offset_ns - round(self.drift * (here_ns - self.start_ns))

    def ping(self) -> int:
        forth_ns, back_ns = next(self._delays)
        self.now_ns += forth_ns
        stamp_ns = self.there(self.now_ns)
        self.now_ns += back_ns
        return stamp_ns

    def check(self, found: Offset, here_ns: int) -> None:
        there_ns = self.there(here_ns)
        # One nanosecond for the rounding of the simulation itself.
        assert abs(found.here_ns(there_ns) - here_ns) <= found.bound_ns(there_ns) + 1


@given(offsets, drifts, delays, st.integers(1, 20), st.integers(-(10**9), 10**9))
def test_the_true_offset_is_within_the_stated_error(
    offset_ns: int, drift: float, delays_ns: list[tuple[int, int]], pings: int, later_ns: int
) -> None:
    hosts = TwoHosts(offset_ns, drift, delays_ns)
    found = estimate(hosts.ping, pings, clock_ns=hosts.here)
    hosts.check(found, hosts.now_ns)
    hosts.check(found, hosts.now_ns + later_ns)


@given(offsets, delays)
def test_the_error_is_at_most_half_the_quickest_round_trip(
    offset_ns: int, delays_ns: list[tuple[int, int]]
) -> None:
    hosts = TwoHosts(offset_ns, 0.0, delays_ns)
    found = estimate(hosts.ping, clock_ns=hosts.here)
    used = list(itertools.islice(itertools.cycle(delays_ns), PINGS))
    elapsed_ns = sum(map(sum, used))
    assert found.error_ns <= min(map(sum, used)) / 2 + MAX_DRIFT * elapsed_ns + 3


@given(offsets, drifts, delays, st.lists(st.integers(1, 20 * 10**9), min_size=1, max_size=2 * KEPT))
def test_repeated_estimates_find_the_drift_and_stay_true(
    offset_ns: int, drift: float, delays_ns: list[tuple[int, int]], pauses_ns: list[int]
) -> None:
    hosts = TwoHosts(offset_ns, drift, delays_ns)
    clock = HostClock(hosts.ping, clock_ns=hosts.here)
    for pause_ns in pauses_ns:
        hosts.now_ns += pause_ns
        alone = estimate(hosts.ping, clock_ns=hosts.here)
        found = clock.update()
        assert abs(found.drift - drift) <= found.drift_error + 1e-12
        assert found.drift_error <= MAX_DRIFT
        for here_ns in (hosts.now_ns, hosts.now_ns - pause_ns, hosts.now_ns + 10**9):
            hosts.check(found, here_ns)
        hosts.check(alone, hosts.now_ns)


def test_drift_is_learnt_well_enough_for_a_stamp_a_minute_away() -> None:
    hosts = TwoHosts(7 * 10**15, 80e-6, [(300_000, 100_000), (2 * MS, 50_000), (100_000, 900_000)])
    clock = HostClock(hosts.ping, clock_ns=hosts.here)
    for _ in range(20):
        hosts.now_ns += 10**9
        clock.update()
    assert abs(clock.offset.drift - 80e-6) < 20e-6
    stamp = hosts.there(hosts.now_ns + 60 * 10**9)
    assert clock.offset.bound_ns(stamp) < 2 * MS  # undrifted, a bound of 60 ms


@given(offsets.filter(lambda value: abs(value) > 10**9), delays)
def test_one_clock_is_used_as_it_is_unless_refuted(offset_ns: int, delays_ns: list[tuple[int, int]]) -> None:
    same = TwoHosts(0, 0.0, delays_ns)
    assert estimate(same.ping, shared=True, clock_ns=same.here).bound_ns(same.now_ns) <= 1
    other = TwoHosts(offset_ns, 0.0, delays_ns)  # a container may have a clock of its own
    found = estimate(other.ping, shared=True, clock_ns=other.here)
    other.check(found, other.now_ns)
    assert found.drift_error == MAX_DRIFT


@given(offsets, offsets, delays)
def test_after_a_jump_the_newest_estimate_counts(
    before_ns: int, after_ns: int, delays_ns: list[tuple[int, int]]
) -> None:
    assume(abs(before_ns - after_ns) > 10**10)
    hosts = TwoHosts(before_ns, 0.0, delays_ns)
    clock = HostClock(hosts.ping, clock_ns=hosts.here)
    hosts.now_ns += 10**9
    hosts.offset_ns = after_ns  # the other host started anew
    hosts.check(clock.update(), hosts.now_ns)


def test_estimates_of_one_moment_are_no_drift() -> None:
    one = Offset(100, 10, at_ns=5)
    assert combined([one, Offset(105, 10, at_ns=5)]).drift == 0.0
    assert combined([one]) == one


def test_a_ping_that_fails_leaves_the_offset_as_it_was() -> None:
    hosts = TwoHosts(42, 0.0, [(1000, 1000)])
    fail = False

    def ping() -> int:
        if fail:
            raise ConnectionError("gone")
        return hosts.ping()

    clock = HostClock(ping, clock_ns=hosts.here)
    kept, fail = clock.offset, True
    with pytest.raises(ConnectionError):
        clock.update()
    assert clock.offset == kept


@pytest.mark.parametrize("shift_ns", [0, 10**15])
def test_the_clock_of_this_host(shift_ns: int) -> None:
    ping: Callable[[], int] = lambda: time.monotonic_ns() - shift_ns  # noqa: E731
    found = estimate(ping)
    assert abs(found.offset_ns - shift_ns) <= found.error_ns
