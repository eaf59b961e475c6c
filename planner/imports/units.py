"""Telling a file's units from its numbers, inside bounds that are stated with the answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from planner.errors import InputError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
LEAST_S, MOST_S = 1e-6, 1e3  # one run of a bundle
BOUND = "a bundle takes 1 us to 1000 s"
_TYPICAL_S = 0.05  # a single layer seldom takes longer
_LEAST_HZ, _MOST_HZ = 1e7, 1e10


def plausible_s(value: float) -> bool:
    return LEAST_S <= value <= MOST_S


def infer_time_unit(
    durations: Sequence[float], spans: Iterable[tuple[float, float]], single: Sequence[float]
) -> tuple[str, str]:
    """The unit of ``durations`` among s, ms and ns, and why, in words.

    ``spans``: the sum of some durations, and the seconds of wall clock they lie in; these decide where
    there are any. ``single``: durations of single layers. Raises ``InputError`` where no unit fits.
    """
    spans = [(total, span) for total, span in spans if total > 0 and span > 0]
    for unit in ("s", "ms", "ns") if spans else ():
        if all(total * SECONDS[unit] <= span * 1.01 + 1e-3 for total, span in spans):
            return unit, f"{unit}: the longest unit in which the runs fit between their timestamps"
    usable = sorted(value for value in durations if 0 < value < math.inf)
    if not usable:
        raise InputError("no duration is above 0", "is durs the column of durations?")
    # Single outliers must not decide: all but the outermost hundredth have to fit.
    low, high = usable[len(usable) // 100], usable[-1 - len(usable) // 100]
    fitting = [
        unit
        for unit in ("s", "ms", "ns")
        if plausible_s(low * SECONDS[unit]) and plausible_s(high * SECONDS[unit])
    ]
    if not fitting:
        raise InputError(
            f"durations from {low:g} to {high:g} fit no unit among s, ms and ns where {BOUND}", "pass --unit"
        )
    if len(fitting) == 1:
        return fitting[0], f"{fitting[0]}: the only one of s, ms and ns where {BOUND}"
    layers = sorted(value for value in single if value > 0) or usable
    median = layers[len(layers) // 2]
    unit = next((unit for unit in fitting if median * SECONDS[unit] <= _TYPICAL_S), fitting[-1])
    others = " or ".join(other for other in fitting if other != unit)
    return unit, (
        f"{unit}, assumed: a layer's median is then {median * SECONDS[unit] * 1e3:.3g} ms; {others} would also keep "
        f"to the bound ({BOUND}), pass --unit {fitting[0] if fitting[0] != unit else fitting[1]} if so"
    )


def infer_frequency(value: float) -> float | None:
    """A clock in Hz from Hz or kHz, which cannot be confused between 10 MHz and 10 GHz; None for -1 (no clock).

    Raises ``ValueError``.
    """
    if value == -1:
        return None
    for factor in (1.0, 1e3):
        if _LEAST_HZ <= value * factor < _MOST_HZ:
            return value * factor
    raise ValueError(f"frequency {value:g} is neither Hz nor kHz of a clock between 10 MHz and 10 GHz")
