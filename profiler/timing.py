"""How bundles are timed: side by side, in rounds, until each is known well enough.

::

    open ──► warm-up ─────────► round 1 ──► round 2 ──► ... ───────────────► statistics
             until three runs   a visit to every bundle and variant          trimmed mean, its
             agree to 10 %      that has not settled                         interval, median, p95

    a visit   first run ──► at least 4 runs and 0.1 s, each on the next stored feature map; at most a
              kept apart    tenth of ``max_runs``, so that quick bundles too are seen at ten moments
              (the caches held another bundle's data)

    a run     host array ──► runner ──► host array       wall clock around it, CPU clock beside it

    settled   at least 5 visits, and the 95 % interval of the trimmed mean within 2 % of it: stable;
              or ``max_runs`` runs: not stable

Because a round visits them all, drift of the machine hits all alike instead of the bundle in hand. A run
is timed from host array to host array, so a number in a table is the cost of what the runtime does with
the same runner. Garbage is collected before visits, never during them.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from planner.documents import document
from planner.statistics import TRIMMED, trimmed_mean
from profiler.runner import Array, Runner

_AGREE = 1.1
_WARM_RUNS, _MOST_WARM_RUNS = 3, 50


@document()
class Protocol:
    """How long to measure; see the drawing above. ``precision`` is relative to the trimmed mean."""

    precision: float = 0.02
    max_runs: int = 200
    rounds: int = 5
    visit_runs: int = 4
    visit_s: float = 0.1
    warmup_max_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise ValueError(f"precision must lie between 0 and 1, found {self.precision}")
        if min(self.max_runs, self.rounds, self.visit_runs) < 1:
            raise ValueError("max_runs, rounds and visit_runs must be at least 1")

    @property
    def visit_max_runs(self) -> int:
        """The most runs of one visit: what is quick to run is seen in twice ``rounds`` visits, too."""
        return max(self.visit_runs, self.max_runs // (2 * self.rounds))


@dataclass(frozen=True)
class Visit:
    """Consecutive runs of one bundle. ``start_ns`` and ``stop_ns``: wall clock (Unix time) around them."""

    samples_s: tuple[float, ...]
    first_s: float
    cpu_time_s: float
    start_ns: int
    stop_ns: int


@dataclass(frozen=True)
class Measurement:
    """All visits to one bundle, and their statistics. All in seconds."""

    visits: tuple[Visit, ...]

    @property
    def samples_s(self) -> tuple[float, ...]:
        return tuple(sample for visit in self.visits for sample in visit.samples_s)

    @property
    def latency_s(self) -> float:
        return trimmed_mean(self.samples_s)

    @property
    def ci_s(self) -> float | None:
        return trimmed_mean_interval([visit.samples_s for visit in self.visits])

    @property
    def median_s(self) -> float:
        return float(np.median(self.samples_s))

    @property
    def p95_s(self) -> float:
        return float(np.percentile(self.samples_s, 95))

    @property
    def std_s(self) -> float:
        return float(np.std(self.samples_s, ddof=1)) if len(self.samples_s) > 1 else 0.0

    @property
    def cpu_time_s(self) -> float:
        """Processor time per run."""
        return math.fsum(visit.cpu_time_s for visit in self.visits) / len(self.samples_s)

    def stable(self, protocol: Protocol) -> bool:
        """Whether the interval of the trimmed mean is as narrow as asked for."""
        interval = self.ci_s
        enough = len(self.visits) >= protocol.rounds
        return enough and interval is not None and interval <= protocol.precision * self.latency_s

    def settled(self, protocol: Protocol) -> bool:
        """Whether no further visit is needed or allowed."""
        return bool(self.visits) and (
            self.stable(protocol) or len(self.samples_s) + protocol.visit_runs > protocol.max_runs
        )


def trimmed_mean_interval(visits: Sequence[Sequence[float]], share: float = TRIMMED) -> float | None:
    """Half the 95 % confidence interval of the trimmed mean of all samples; None for a single visit.

    Runs of one visit resemble each other, so the visits are what is independent: the method of batch
    means (Law, Simulation Modeling and Analysis, ch. 9) over samples winsorised as the standard error of
    a trimmed mean asks for (Tukey and McLaughlin 1963).
    """
    if len(visits) < 2:
        return None
    ranked = sorted(sample for visit in visits for sample in visit)
    cut = int(len(ranked) * share)
    low, high = ranked[cut], ranked[len(ranked) - cut - 1]
    means = [float(np.mean(np.clip(visit, low, high))) for visit in visits]
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) / (1 - 2 * cut / len(ranked))
    return student_quantile(len(means) - 1) * error


def student_quantile(freedom: int) -> float:
    """The 97.5 % point of Student's t distribution: Abramowitz and Stegun 26.7.5, exact below 3."""
    if freedom < 3:
        return {1: 12.7062, 2: 4.3027}[freedom]
    z, found = 1.959964, 0.0
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    for power, term in enumerate(terms, start=1):
        found += term / float(freedom) ** power
    return z + found


def warm_up(runner: Runner, inputs: Sequence[tuple[Array, ...]], protocol: Protocol) -> None:
    """Run until the last three times agree to 10 %, at most 50 times or ``warmup_max_s``."""
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _WARM_RUNS or max(times[-_WARM_RUNS:]) > _AGREE * min(times[-_WARM_RUNS:]):
        begin = time.perf_counter()
        runner(inputs[len(times) % len(inputs)])
        times.append(time.perf_counter() - begin)
        if time.perf_counter() - started > protocol.warmup_max_s or len(times) == _MOST_WARM_RUNS:
            return


def visit(runner: Runner, inputs: Sequence[tuple[Array, ...]], done: int, protocol: Protocol) -> Visit:
    """One visit; ``done`` runs before it say which feature map comes next. Raises ``BundleError``."""
    samples: list[float] = []
    with collector_off():
        begin = time.perf_counter()
        runner(inputs[done % len(inputs)])
        first_s = time.perf_counter() - begin
        start_ns, cpu_time, started = time.time_ns(), time.process_time(), time.perf_counter()
        while len(samples) < protocol.visit_runs or (
            time.perf_counter() - started < protocol.visit_s and len(samples) < protocol.visit_max_runs
        ):
            arrays = inputs[(done + len(samples)) % len(inputs)]
            begin = time.perf_counter()
            runner(arrays)
            samples.append(time.perf_counter() - begin)
        cpu_time, stop_ns = time.process_time() - cpu_time, time.time_ns()
    return Visit(tuple(samples), first_s, cpu_time, start_ns, stop_ns)


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
