"""Which backends work on this machine in which precisions: tried, not assumed.

::

    backend, precision ──► obstacle? ──yes──► lacking: why, and what mends it
                              │no
                              └──► a small network in a process of its own ──► works: its error against fp32
                                                                          └──► lacking: what went wrong
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from profiler import backends
from profiler.capability import gpu_obstacle, missing_library, note, obstacle

# Less than this is not rounding: the outputs are wrong.
LEAST_SQNR_DB = {"fp32": 50.0, "fp16": 35.0, "bf16": 20.0, "int8": 10.0, "mixed": 10.0}
# The first trial also loads the libraries; inductor may compile for a minute on a small board.
_TIMEOUT_S = 300.0


class State(str, Enum):
    """``builds``: engines can be made here, to be run elsewhere. ``untried``: nothing is in the way."""

    WORKS = "works"
    BUILDS = "builds"
    UNTRIED = "untried"
    LACKING = "lacking"


@dataclass(frozen=True)
class Finding:
    """One backend in one precision.

    ``sqnr_db``: signal-to-quantisation-noise ratio against fp32, None where not run or nothing differs.
    ``prepare_s``: seconds to export, compile and load. ``latency_s``: of one run of the small network.
    """

    backend: str
    precision: str
    state: State
    detail: str
    remedy: str = ""
    sqnr_db: float | None = None
    prepare_s: float | None = None
    latency_s: float | None = None


def examine(
    names: Sequence[str] = backends.NAMES,
    *,
    quick: bool = False,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Finding]:
    """Every precision of the backends named; with ``quick``, nothing is run.

    ``progress`` is told each variant before it is looked at. No failure of a backend is an exception; an
    unknown name is (``UnknownNameError``).
    """
    variants = [(name, precision) for name in names for precision in backends.entry(name).precisions]
    found: dict[tuple[str, str], Finding] = {}
    to_try: list[tuple[str, str]] = []
    for name, precision in variants:
        lacking = obstacle(name, precision)
        if lacking is None or _builds_only(name):
            to_try.append((name, precision))
        else:
            progress(f"{name} {precision}")
            found[name, precision] = Finding(name, precision, State.LACKING, lacking.problem, lacking.remedy)
    if quick:
        outcomes: Iterator[dict[str, Any]] = ({} for _ in to_try)
    else:
        requests = [f"{name}:{precision}" + ":build" * _builds_only(name) for name, precision in to_try]
        outcomes = run_trials(requests)
    for name, precision in to_try:
        progress(f"{name} {precision}")
        found[name, precision] = _finding(name, precision, next(outcomes), quick)
    return [found[variant] for variant in variants]


def _builds_only(name: str) -> bool:
    """TensorRT-RTX makes engines where there is no GPU to run them."""
    return name == "tensorrt-rtx" and missing_library(name) is None and gpu_obstacle() is not None


def _finding(name: str, precision: str, outcome: dict[str, Any], quick: bool) -> Finding:
    elsewhere = "builds engines ahead of time; running needs an NVIDIA GPU"
    lacking = gpu_obstacle() if _builds_only(name) else None
    if quick:
        if lacking:
            return Finding(name, precision, State.UNTRIED, elsewhere, lacking.remedy)
        return Finding(name, precision, State.UNTRIED, note(name, precision))
    if "problem" in outcome:
        remedy = outcome["remedy"] or "use another backend"
        return Finding(name, precision, State.LACKING, outcome["problem"], remedy)
    if lacking:
        return Finding(
            name, precision, State.BUILDS, elsewhere, lacking.remedy, prepare_s=outcome["prepare_s"]
        )
    sqnr_db, least_db = outcome["sqnr_db"], LEAST_SQNR_DB[precision]
    measured = {key: outcome[key] for key in ("sqnr_db", "prepare_s", "latency_s")}
    if sqnr_db is not None and sqnr_db < least_db:
        problem = f"runs, but its outputs are wrong: {sqnr_db:.1f} dB, at least {least_db:.0f} are expected"
        return Finding(
            name, precision, State.LACKING, problem, "use another precision or backend", **measured
        )
    return Finding(name, precision, State.WORKS, note(name, precision), **measured)


def run_trials(requests: Sequence[str], timeout_s: float = _TIMEOUT_S) -> Iterator[dict[str, Any]]:
    """The outcome of each request to ``profiler.trial``, in order.

    Raises nothing: a crash and a hang are outcomes with a ``problem``, and the rest goes to a new process.
    """
    rest = list(requests)
    while rest:
        # Warnings of libraries are not this machine's.
        command = [sys.executable, "-W", "ignore", "-m", "profiler.trial", *rest]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout is not None
        try:
            while rest:
                line, late = _read_line(process, timeout_s)
                rest.pop(0)
                if not line.endswith("\n"):
                    process.kill()
                    problem = f"not done after {timeout_s:.0f} s" if late else _end(process.wait())
                    yield {"problem": problem, "remedy": ""}
                    break
                yield json.loads(line)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _read_line(process: subprocess.Popen[str], timeout_s: float) -> tuple[str, bool]:
    """The next line, empty where the process ends before it; and whether it was ended for taking too long."""
    assert process.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        return process.stdout.readline(), late.is_set()
    finally:
        timer.cancel()


def _end(code: int) -> str:
    """How a process ended, by its exit code: negative is the signal that ended it."""
    if code >= 0:
        return f"it ended the process that tried it, exit code {code}"
    return f"it crashed the process that tried it: {signal.strsignal(-code)}"
