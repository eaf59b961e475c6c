"""What is assumed of devices and links, from what requests measured."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.watch import HOLD_S, LEAST, SLACK_S, WARM_UP, WINDOW, Watch

EDGE, SERVER = ("edge",), ("server",)
FORECAST_S = 0.1


def watching(*places: tuple[str, ...], forecast_s: float = FORECAST_S) -> Watch:
    watch = Watch()
    watch.begin(dict.fromkeys(places, forecast_s), 0.0)
    return watch


def feed(watch: Watch, ratios: list[float], place: tuple[str, ...] = EDGE, now_s: float = 0.0) -> None:
    for ratio in ratios:
        watch.add({place: (ratio * FORECAST_S, FORECAST_S)}, now_s)


def assumed(watch: Watch, now_s: float = 0.0) -> dict[tuple[str, ...], float]:
    return dict(watch.factors(now_s))


@given(st.lists(st.floats(1 / 1.2, 1.2), max_size=100))
def test_what_stays_within_the_threshold_changes_nothing(ratios: list[float]) -> None:
    watch = watching(EDGE)
    feed(watch, ratios)
    assert assumed(watch) == {}


@given(st.sampled_from([0.1, 0.5, 0.8, 1.3, 2.0, 30.0]), st.integers(0, 2**32), st.floats(0, 0.2))
def test_a_step_is_seen_through_outliers_within_a_window(factor: float, seed: int, outliers: float) -> None:
    numbers = random.Random(seed)

    def noisy(level: float) -> float:
        return level * numbers.uniform(0.98, 1.02)

    watch = watching(EDGE)
    feed(watch, [noisy(1.0) for _ in range(WARM_UP + WINDOW)])
    assert assumed(watch) == {}
    wild = set(numbers.sample(range(WINDOW), int(outliers * WINDOW)))
    feed(watch, [noisy(100.0 if place in wild else factor) for place in range(WINDOW)])
    assert assumed(watch)[EDGE] == pytest.approx(factor, rel=0.03)
    feed(watch, [noisy(1.0) for _ in range(WINDOW)])
    assert assumed(watch) == {}


def test_single_requests_change_nothing() -> None:
    """A burst as long as a quarter of the window is an outlier."""
    watch = watching(EDGE)
    feed(watch, ([1.0] * (WINDOW - WINDOW // 4) + [9.0] * (WINDOW // 4)) * 9)
    assert assumed(watch) == {}


@given(st.floats(1.0, 1.3), st.integers(0, 2**32))
def test_noise_around_the_threshold_moves_it_once(level: float, seed: int) -> None:
    numbers, watch = random.Random(seed), watching(EDGE)
    found = []
    for _ in range(400):
        feed(watch, [level * numbers.lognormvariate(0, 0.05)])
        found.append(assumed(watch).get(EDGE, 1.0))
    assert len(set(found)) <= 2
    assert sorted(found) == found


def test_the_first_requests_of_a_plan_do_not_count() -> None:
    watch = watching(EDGE)
    feed(watch, [50.0] * WARM_UP + [1.0] * (LEAST - 1) + [3.0])
    assert assumed(watch) == {}


def test_what_is_next_to_nothing_may_take_longer() -> None:
    """A hop of 0.05 ms that takes 0.4 ms says nothing of the link; one that takes 50 ms does."""
    tiny = SLACK_S / 10
    watch = watching(EDGE, forecast_s=tiny)
    for measured_s, expected in ((8 * tiny, {}), (1000 * tiny, {EDGE: pytest.approx(1000)})):
        for _ in range(WARM_UP + WINDOW):
            watch.add({EDGE: (measured_s, tiny)}, 0.0)
        assert assumed(watch) == expected


def test_what_is_not_used_is_forgotten_and_each_futile_return_is_later() -> None:
    watch, now_s, waits = watching(EDGE, SERVER), 0.0, []
    for _ in range(4):
        feed(watch, [3.0] * (WARM_UP + WINDOW), SERVER, now_s)
        assert assumed(watch, now_s) == {SERVER: pytest.approx(3.0)}
        watch.begin({EDGE: FORECAST_S}, now_s)  # the plan without the server
        begun_s = now_s
        while assumed(watch, now_s):
            feed(watch, [1.0], EDGE, now_s)
            now_s += HOLD_S / 10
        waits.append(round((now_s - begun_s) / HOLD_S, 3))
        watch.begin({EDGE: FORECAST_S, SERVER: FORECAST_S}, now_s)
    assert waits == pytest.approx([1.1, 2.1, 4.1, 8.1], abs=0.11)
    feed(watch, [1.0] * (WARM_UP + WINDOW), SERVER, now_s)  # all is well again, and so is its credit
    feed(watch, [3.0] * WINDOW, SERVER, now_s)
    watch.begin({EDGE: FORECAST_S}, now_s)
    assert assumed(watch, now_s + 0.9 * HOLD_S)
    assert not assumed(watch, now_s + 1.1 * HOLD_S)


def test_what_is_in_use_is_never_forgotten() -> None:
    watch = watching(EDGE)
    feed(watch, [3.0] * (WARM_UP + WINDOW))
    assert assumed(watch, 1e9) == {EDGE: pytest.approx(3.0)}


def test_a_threshold_is_above_0() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Watch(0.0)
