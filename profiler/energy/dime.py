"""DIME's timing tables and a power log, merged into the layout of its ``latency_and_energy.parquet``.

A timing table has ``layers``, ``durs``, and when that was: ``starts`` and ``ends`` (Unix time), of each run or
of each iteration of several runs, as lists in a cell or one row a run; or ``iter_start`` and ``iter_end``.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.documents import read_text, write_text
from planner.errors import DocumentError, StorageError
from profiler.energy.clocksync import AlignedPower, Lack
from profiler.energy.merge import MIN_SAMPLES

COLUMNS = ("layers", "frequency", "durs", "iter", "run", "run_energy")
NO_FREQUENCY = -1
# Unix time of these decades, by the unit it is counted in.
_UNITS = ((1e9, 1e10, 1.0), (1e12, 1e13, 1e-3), (1e15, 1e16, 1e-6), (1e18, 1e19, 1e-9))


@dataclass(frozen=True)
class DimeRun:
    """One run: ``duration`` in the table's own unit; within ``start_s`` to ``stop_s``, perhaps among others."""

    layers: str
    iteration: int
    run: int
    duration: float
    start_s: float
    stop_s: float


@dataclass(frozen=True)
class DimeMerged:
    """Each run and its energy (µJ, None where it is not known), and what was left out."""

    runs: tuple[tuple[DimeRun, float | None], ...]
    lacks: Counter[Lack]
    bad_rows: int


def frequency_in(name: str) -> int:
    """The clock in a file's name, as DIME writes it: ``..._1200000.csv``; -1 if there is none."""
    found = re.search(r"_(\d+)\.csv$", name)
    return int(found[1]) if found else NO_FREQUENCY


def read_runs(file: Path) -> tuple[list[DimeRun], int]:
    """The runs of a timing table, and how many rows are none. Raises ``DocumentError``."""
    try:
        reader = csv.DictReader(read_text(file).splitlines())
        names = set(reader.fieldnames or ())
        ends = ("starts", "ends") if {"starts", "ends"} <= names else ("iter_start", "iter_end")
        missing = [name for name in ("layers", "durs", *ends) if name not in names]
        if missing:
            problem = f"no timing table of DIME with times; missing columns: {', '.join(missing)}"
            raise DocumentError(file, "line 1", problem, "record starts and ends, or iter_start and iter_end")
        runs: list[DimeRun] = []
        bad = 0
        counts: Counter[str] = Counter()
        for cells in reader:
            try:
                found = list(_runs(cells, ends, counts))
            except (ValueError, TypeError, ZeroDivisionError, RecursionError):
                bad += 1
            else:
                counts[cells["layers"]] += len(found)
                runs += found
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    if not runs:
        raise DocumentError(file, "", f"holds no run ({bad} rows cannot be read)")
    return runs, bad


def _runs(cells: dict[str, str], ends: tuple[str, str], counts: Counter[str]) -> Iterator[DimeRun]:
    """The runs in one row. Raises ``ValueError`` or ``TypeError`` if it is not understood."""
    layers = cells["layers"]
    durations, starts, stops = (_numbers(cells[name]) for name in ("durs", *ends))
    if not layers or len(starts) != len(stops) or len(durations) % len(starts):
        raise ValueError("lists of different lengths")
    each = len(durations) // len(starts)  # runs in a window
    listed = cells["durs"].lstrip().startswith("[")
    for place, duration in enumerate(durations):
        start_s, stop_s = (times[place // each] * _unit(times[place // each]) for times in (starts, stops))
        if not (start_s < stop_s and 0 < duration < math.inf):
            raise ValueError("an end before its start, or no duration")
        if listed:
            iteration, run = (place // each + 1, place % each + 1) if each > 1 else (1, place + 1)
        else:
            iteration = int(float(cells.get("iter") or 1))
            run = int(float(cells.get("run") or counts[layers] + 1))
        yield DimeRun(layers, iteration, run, duration, start_s, stop_s)


def _numbers(cell: str) -> list[float]:
    data = json.loads(cell)
    numbers = data if isinstance(data, list) else [data]
    if not numbers or not all(isinstance(each, (int, float)) for each in numbers):
        raise ValueError("no numbers")
    return numbers


def _unit(moment: float) -> float:
    """Seconds in the unit of a Unix time. Raises ``ValueError`` if it is none."""
    for low, high, seconds in _UNITS:
        if low <= moment < high:
            return seconds
    raise ValueError("no Unix time")


def merge_runs(
    runs: Sequence[DimeRun], bad_rows: int, power: AlignedPower, min_samples: int = MIN_SAMPLES
) -> DimeMerged:
    """The energy of each run.

    Runs that share a window share its energy by their durations. A run that is too short for
    ``min_samples`` samples gets the mean power of the runs that follow each other without a pause.
    """
    sharing: dict[tuple[str, float, float], float] = defaultdict(float)
    for run in runs:
        sharing[run.layers, run.start_s, run.stop_s] += run.duration
    stretch = _stretches(runs)
    merged: list[tuple[DimeRun, float | None]] = []
    lacks: Counter[Lack] = Counter()
    for run in runs:
        window = run.layers, run.start_s, run.stop_s
        found, share = power.window(run.start_s, run.stop_s, min_samples), run.duration / sharing[window]
        if found.lack is Lack.SAMPLES:
            start_s, stop_s = stretch[window]
            found = power.window(start_s, stop_s, min_samples)
            share *= (run.stop_s - run.start_s) / (stop_s - start_s)
        if found.lack:
            lacks[found.lack] += 1
        merged.append((run, None if found.energy_j is None else found.energy_j * share * 1e6))
    return DimeMerged(tuple(merged), lacks, bad_rows)


def _stretches(runs: Sequence[DimeRun]) -> dict[tuple[str, float, float], tuple[float, float]]:
    """By window: from when to when runs of its layers followed each other, no pause longer than a run."""
    found: dict[tuple[str, float, float], tuple[float, float]] = {}
    together: list[tuple[str, float, float]] = []
    for window in [*sorted({(run.layers, run.start_s, run.stop_s) for run in runs}), None]:
        if together:
            layers, start_s, stop_s = together[-1]
            if window is None or window[0] != layers or window[1] - stop_s > stop_s - start_s:
                found.update(dict.fromkeys(together, (together[0][1], max(each[2] for each in together))))
                together = []
        if window:
            together.append(window)
    return found


def write_merged(tables: Sequence[tuple[int, DimeMerged]], output: Path) -> None:
    """Write ``(frequency, merged)`` in DIME's layout: CSV, or parquet if ``output`` ends so.

    Durations keep the unit of the timing table; ``run_energy`` is in µJ and empty where it is not known.
    Raises ``StorageError``.
    """
    rows = [
        (run.layers, frequency, run.duration, run.iteration, run.run, energy_uj)
        for frequency, merged in tables
        for run, energy_uj in merged.runs
    ]
    if output.suffix != ".parquet":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        write_text(output, text.getvalue())
        return
    import pandas as pd

    try:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(output, index=False)
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error}", "choose another path") from error
