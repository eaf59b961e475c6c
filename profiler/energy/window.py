"""Energy of a bundle and of an idle machine, through windows that are long enough for the meter.

::

    meter.start()                                          meter.stop()
        ├─ run ─ run ─ run ─ run ─ run ─ run ─ run ─ run ─ run ─┤    energy of a run = energy / runs
        ├───┬───┬───┬───┬───┬───┬───┬───┬───┬───┬───┬───┬───┬───┤    at least min_samples samples

A meter with something new every P seconds knows the two ends of a window of N P to within P each, at random:
a standard error of sqrt(2/12) / N, which is 2 % of a steady power at N = 20.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from planner.errors import EnergyError
from profiler.energy.meter import Meter, Reading

MIN_SAMPLES = 20
# A window that fell short is made longer by this much more than what was missing.
_MARGIN = 1.2
_ATTEMPTS = 3


@dataclass(frozen=True)
class EnergyMeasurement:
    """Energy of one run, all that the meter's domain draws meanwhile included; idle power is not subtracted.

    Where ``valid`` is false, ``reason`` says why and ``energy_j`` and ``power_w`` are NaN. ``window_s``,
    ``runs`` and ``samples``: the window behind it.
    """

    energy_j: float
    power_w: float
    runs: int
    window_s: float
    samples: int
    valid: bool
    reason: str


def measure_energy(
    meter: Meter,
    run: Callable[[], object],
    *,
    latency_s: float,
    min_samples: int = MIN_SAMPLES,
    min_window_s: float = 0.2,
    max_window_s: float = 10.0,
) -> EnergyMeasurement:
    """Repeat ``run``, which takes about ``latency_s``, until one window holds ``min_samples`` of the meter.

    The window is about ``min_window_s`` long or longer, and ends at the first run that reaches
    ``max_window_s``; a single run may be longer than that. If it held too few samples, because runs are
    faster than said or the meter slower, a longer one is tried. What ``run``
    raises passes through, and the meter can be used again.
    """
    window_s = max(min_window_s, min_samples * meter.period_s * _MARGIN)
    attempts = 0
    while True:
        attempts += 1
        window_s = min(window_s, max_window_s)
        runs = max(1, math.ceil(window_s / latency_s)) if latency_s > 0 else 1
        done, reading = _window(meter, run, runs, max_window_s)
        short = reading.valid and reading.samples < min_samples
        if not short or window_s >= max_window_s or attempts == _ATTEMPTS:
            break
        window_s = reading.duration_s * _MARGIN * min_samples / max(1, reading.samples)
        latency_s = reading.duration_s / done
    reason = reading.reason
    if short:
        reason = f"{reading.samples} samples in {reading.duration_s:.3f} s, {min_samples} needed"
    valid = reading.valid and not short
    return EnergyMeasurement(
        energy_j=reading.energy_j / done if valid else math.nan,
        power_w=reading.power_w if valid else math.nan,
        runs=done,
        window_s=reading.duration_s,
        samples=reading.samples,
        valid=valid,
        reason=reason,
    )


def _window(meter: Meter, run: Callable[[], object], runs: int, max_window_s: float) -> tuple[int, Reading]:
    """So many runs, fewer if ``max_window_s`` is reached first; how many there were."""
    done = 0
    meter.start()
    try:
        start_s = time.monotonic()
        while done < runs and (done == 0 or time.monotonic() - start_s < max_window_s):
            run()
            done += 1
    except BaseException:
        meter.stop()
        raise
    return done, meter.stop()


def idle_power(meter: Meter, window_s: float = 2.0, min_samples: int = MIN_SAMPLES) -> float:
    """Mean power in watts while this process sleeps, over ``window_s`` or as long as the meter needs.

    Raises ``EnergyError`` where the meter gives no valid reading.
    """
    window_s = max(window_s, min_samples * meter.period_s * _MARGIN)
    _, reading = _window(meter, lambda: time.sleep(window_s), runs=1, max_window_s=window_s)
    if not reading.valid or reading.samples < min_samples:
        reason = reading.reason or f"{reading.samples} samples, {min_samples} needed"
        raise EnergyError(f"idle power cannot be measured with {meter.name}: {reason}")
    return reading.power_w
