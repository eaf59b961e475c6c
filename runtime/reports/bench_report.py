"""What a bench shows: a table, the four-mode matrix, a CSV file and a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from planner.chain import ModelSource
from planner.errors import StorageError
from planner.table import COLUMNS, row_cells
from profiler.bench import Bench, BenchRow
from runtime.console import console, megabytes, milliseconds, table
from runtime.reports.bench_picture import draw_bench

_OWN = ("speed_up", "top1_agreement", "accuracy", "predicted")
_UNUSED = {"device", "start", "stop"}


def show_bench(source: ModelSource, found: Bench) -> None:
    """Print the table; columns that nothing filled are left out."""
    columns: dict[str, Callable[[BenchRow], str]] = {
        "how": lambda each: str(each.row.variant),
        "batch": lambda each: str(each.row.batch),
        "latency ms": lambda each: milliseconds(each.row.latency_s),
        "p95 ms": lambda each: milliseconds(each.row.latency_p95_s),
        "samples/s": lambda each: f"{each.row.samples_per_s:,.1f}",
        "speed-up": lambda each: _optional(each.speed_up, "{:.2f} x"),
        "peak MB": lambda each: _megabytes(each.row.peak_memory_bytes),
        "size MB": lambda each: _megabytes(each.row.artifact_bytes),
        "load s": lambda each: f"{each.row.load_s:.2f}",
        "build s": lambda each: f"{each.row.build_s:.2f}",
        "mJ": lambda each: "" if each.row.energy_j is None else milliseconds(each.row.energy_j),
        "SQNR dB": lambda each: _optional(each.row.sqnr_db, "{:.1f}"),
        "agreement": lambda each: _optional(each.top1_agreement, "{:.0%}"),
        "accuracy": lambda each: _optional(each.accuracy, "{:.0%}"),
    }
    cells = [[write(each) for write in columns.values()] for each in found.rows]
    shown = [place for place in range(len(columns)) if any(row[place] for row in cells)]
    names = [list(columns)[place] for place in shown]
    title = f"{source.name}: {found.samples} samples, beside PyTorch fp32"
    out = console()
    out.print(table(title, names, [[row[place] for place in shown] for row in cells]))
    by_class: dict[str, list[str]] = {}
    for each in found.rows:
        if each.predicted:
            by_class.setdefault(each.predicted, []).append(f"{each.row.variant}, batch {each.row.batch}")
    for predicted, by in by_class.items():
        who = "all" if len(by_class) == 1 else "; ".join(by)
        out.print(f"first sample, {found.first_sample}: {predicted} ({who})", soft_wrap=True)


def show_matrix(found: Bench) -> None:
    """Print latency by fusion and backend, with the speed-up over PyTorch without fusion."""
    for batch in dict.fromkeys(each.row.batch for each in found.rows):
        rows = [each for each in found.rows if each.row.batch == batch]
        ways = list(dict.fromkeys((each.row.variant.backend, each.row.variant.precision) for each in rows))
        cells = []
        for fused in (False, True):
            line = {
                (each.row.variant.backend, each.row.variant.precision): each
                for each in rows
                if each.row.variant.fused == fused
            }
            cells.append([f"fusion {'on' if fused else 'off'}", *(_mode(line.get(way)) for way in ways)])
        names = [f"{backend} {precision}, ms" for backend, precision in ways]
        console().print(table(f"four modes, batch {batch}", ["", *names], cells))


def _mode(each: BenchRow | None) -> str:
    if each is None:
        return "left out"
    return f"{milliseconds(each.row.latency_s)}{_optional(each.speed_up, ' ({:.2f} x)')}"


def write_bench(source: ModelSource, found: Bench, folder: Path) -> list[Path]:
    """Write ``bench.csv`` and ``bench.png``. Raises ``StorageError``."""
    if not found.rows:
        return []
    names = [name for name in COLUMNS if name not in _UNUSED]
    files = [folder / "bench.csv", folder / "bench.png"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files[0].open("w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["model", *names, *_OWN])
            for each in found.rows:
                cells = row_cells(each.row)
                own = [getattr(each, name) for name in _OWN]
                writer.writerow(
                    [source.name, *(cells[name] for name in names), *("" if v is None else v for v in own)]
                )
        draw_bench(source.name, found.rows, files[1])
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error}", "pass another --output") from error
    return files


def _optional(value: float | None, text: str) -> str:
    return "" if value is None else text.format(value)


def _megabytes(count: int | None) -> str:
    return "" if count is None else megabytes(count)
