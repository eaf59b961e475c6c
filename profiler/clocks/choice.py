"""Which clocks to measure at: from what was asked for, and what this machine offers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from planner.errors import InputError
from planner.plan import Variant
from profiler import backends
from profiler.clocks.domain import Clock, hertz
from profiler.clocks.nvml import nvml_clock
from profiler.clocks.session import SAME
from profiler.clocks.sysfs import cpu_clock, jetson_gpu_clock

_ROOT = Path("/")
_UNITS = {"": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6, "ghz": 1e9}
# Slower than any clock here: a number without its unit.
_LEAST_HZ = 1e6


def find(backend: str, root: Path = _ROOT, cpus: tuple[int, ...] | None = None) -> Clock | None:
    """The clock that decides how fast ``backend`` runs; None where this machine offers none.

    GPU backends: the GPU's; the others: that of the processors ``cpus``, or of all. Raises
    ``UnknownNameError`` for a backend that does not exist.
    """
    if backends.entry(backend).gpu:
        return jetson_gpu_clock(root) or nvml_clock(root)
    return cpu_clock(root, cpus)


def parse(spec: str) -> tuple[float, ...]:
    """Frequencies joined by commas (800MHz, 1.2GHz, 1479000000) in Hz; none for "all" and "max".

    Raises ``InputError``.
    """
    if spec in ("all", "max"):
        return ()
    found = []
    for part in spec.split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([kmg]?hz)?", part.strip(), re.IGNORECASE)
        hz = float(match[1]) * _UNITS[(match[2] or "").lower()] if match else 0.0
        if match is None or not _LEAST_HZ <= hz < 1e12:
            raise InputError(
                f"{part.strip()!r} is no frequency of a processor or GPU",
                "write all, max, or frequencies such as 800MHz,1.2GHz,1479000000",
            )
        found.append(hz)
    return tuple(dict.fromkeys(found))


def choose(spec: str, clock: Clock) -> tuple[float, ...]:
    """The frequencies of ``clock`` that ``spec`` asks for: "all", "max", or a list as ``parse`` takes it.

    A frequency given in round figures is the one offered within 0.25 %. Raises ``InputError`` for one
    that is not offered, and lists those that are.
    """
    chosen, unknown = _matched(spec, clock)
    if unknown:
        raise _not_offered(unknown, [clock])
    return chosen


def _matched(spec: str, clock: Clock) -> tuple[tuple[float, ...], list[float]]:
    """What the clock offers of ``spec``, and what it does not."""
    wanted, offered = parse(spec), clock.frequencies_hz()
    if not offered:
        return (), list(wanted)
    if not wanted:
        return (offered if spec == "all" else offered[-1:]), []
    chosen, unknown = [], []
    for hz in wanted:
        nearest = min(offered, key=lambda each: abs(each - hz))
        if abs(nearest - hz) <= SAME * hz:
            chosen.append(nearest)
        elif clock.continuous and offered[0] <= hz <= offered[-1]:
            chosen.append(hz)
        else:
            unknown.append(hz)
    return tuple(dict.fromkeys(chosen)), unknown


def _not_offered(unknown: Sequence[float], clocks: Sequence[Clock]) -> InputError:
    offers = []
    for clock in clocks:
        offered = clock.frequencies_hz()
        shown = ", ".join(hertz(hz) for hz in offered) or "none"
        if clock.continuous and offered:
            shown = f"anything from {hertz(offered[0])} to {hertz(offered[-1])}"
        offers.append(f"{clock.name}: {shown}")
    what = ", ".join(hertz(hz) for hz in unknown)
    return InputError(f"no clock here offers {what}", "; ".join(offers))


def plan_frequencies(
    variants: Sequence[Variant],
    spec: str | None,
    root: Path = _ROOT,
    cpus: tuple[int, ...] | None = None,
) -> tuple[tuple[Variant, ...], tuple[str, ...]]:
    """Every variant at every clock that ``spec`` asks for, and what must be told, once each.

    A list may name clocks of the processors and of the GPU: each takes those that it offers. A variant
    whose clock cannot be set here keeps None, the clock as found. Raises ``InputError`` for a frequency
    that none of the clocks offers.
    """
    if spec is None:
        return tuple(variants), ()
    wanted = parse(spec)
    notes: dict[str, None] = {}
    clocks: dict[bool, Clock | None] = {}
    chosen: dict[bool, tuple[float, ...]] = {}
    unknown = dict.fromkeys(wanted, 0)
    for gpu, variant in {backends.entry(each.backend).gpu: each for each in variants}.items():
        clock = clocks[gpu] = find(variant.backend, root, cpus)
        name = "gpu" if gpu else "cpu"
        if clock is None:
            notes[
                f"--frequency: this machine offers no {name} clock to set; measured at the clock as found"
            ] = None
            continue
        if found := clock.obstacle():
            what = f"--frequency: {found.problem}; measured at the {name} clock as found"
            notes[f"{what} (try: {found.remedy})"] = None
            continue
        chosen[gpu], missing = _matched(spec, clock)
        for hz in missing:
            unknown[hz] += 1
    settable = [clock for gpu, clock in clocks.items() if clock and gpu in chosen]
    nowhere = [hz for hz, count in unknown.items() if settable and count == len(settable)]
    if nowhere:
        raise _not_offered(nowhere, settable)
    for gpu, frequencies in chosen.items():
        if not frequencies:
            name = "gpu" if gpu else "cpu"
            notes[f"--frequency: the {name} clock offers none of {spec}; measured at the clock as found"] = (
                None
            )
    expanded = [
        replace(variant, frequency_hz=hz)
        for variant in variants
        for hz in chosen.get(backends.entry(variant.backend).gpu) or (None,)
    ]
    return tuple(dict.fromkeys(expanded)), tuple(notes)
