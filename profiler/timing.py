"""How a bundle is timed.

::

    load ──► warm-up ──────────────► timed runs ────────────────────────────► statistics
             at least 3 runs and     at least 20 runs and 1 s, at most        trimmed mean, median,
             0.05 s                  500; each on the next stored map         p95, deviation; all
                                                                              samples kept
    one run:   host array ──► runner ──► host array        wall clock around it, CPU clock beside it

A run is timed from host array to host array, so a number in a table is the cost of what the runtime
does with the same runner. Garbage is collected before the runs, never during them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from profiler.runner import Array, Runner


@dataclass(frozen=True)
class Protocol:
    """How long to measure one bundle; see the drawing above."""

    warmup_runs: int = 3
    warmup_s: float = 0.05
    min_runs: int = 20
    min_s: float = 1.0
    max_runs: int = 500


@dataclass(frozen=True)
class Measurement:
    """Raw samples of one bundle, and their statistics. All in seconds."""

    samples_s: tuple[float, ...]
    cpu_time_s: float

    @property
    def latency_s(self) -> float:
        return trimmed_mean(self.samples_s)

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples_s))

    @property
    def p95_s(self) -> float:
        return float(np.percentile(self.samples_s, 95))

    @property
    def std_s(self) -> float:
        return float(np.std(self.samples_s, ddof=1)) if len(self.samples_s) > 1 else 0.0


def trimmed_mean(samples: Sequence[float], share: float = 0.1) -> float:
    """Mean without the ``share`` lowest and the ``share`` highest samples, by rank."""
    cut = int(len(samples) * share)
    return float(np.mean(sorted(samples)[cut : len(samples) - cut]))


def measure(runner: Runner, inputs: Sequence[tuple[Array, ...]], protocol: Protocol) -> Measurement:
    """Time ``runner`` on ``inputs`` in turn. Raises ``BundleError`` if the bundle cannot run."""
    gc.collect()
    with collector_off():
        started = time.perf_counter()
        warm = 0
        while warm < protocol.warmup_runs or time.perf_counter() - started < protocol.warmup_s:
            runner(inputs[warm % len(inputs)])
            warm += 1
        samples: list[float] = []
        cpu_time, started = time.process_time(), time.perf_counter()
        while len(samples) < protocol.max_runs and (
            len(samples) < protocol.min_runs or time.perf_counter() - started < protocol.min_s
        ):
            arrays = inputs[len(samples) % len(inputs)]
            begin = time.perf_counter()
            runner(arrays)
            samples.append(time.perf_counter() - begin)
        cpu_time = time.process_time() - cpu_time
    return Measurement(tuple(samples), cpu_time / len(samples))


@contextmanager
def collector_off() -> Iterator[None]:
    """Python's garbage collector switched off."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
