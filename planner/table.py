"""Profile tables: what was measured, one row per device x bundle x variant x batch.

``NAME.csv`` holds the rows, ``NAME.json`` the sidecar (device, chain, environment),
``NAME.samples.jsonl`` every raw sample. All units are SI and stand in the column names.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from planner.active_note import ActiveNote
from planner.chain import Bundle, Chain
from planner.codec_table import CodecRow, codec_file, load_codec_rows
from planner.documents import (
    document,
    from_data,
    read_text,
    to_data,
    unit_remedy,
    write_text,
)
from planner.errors import DocumentError, MismatchError
from planner.plan import MOST_BATCH, Variant
from planner.recipe import Recipe
from planner.sidecar import Environment, LeftOut, Sidecar

KEY = ("device", "start", "stop", "backend", "precision", "frequency_hz", "fused", "batch")


@document()
class ProfileRow:
    """One measured bundle.

    ``latency_s``: mean trimmed by rank, 10 % at each end; ``latency_ci_s``: half its 95 % confidence
    interval. ``stable``: that interval is as narrow as was asked for. ``cpu_time_s``: processor time per run.
    ``load_s`` and ``build_s``: loading the bundle, and compiling or building it before that; both lie
    outside the timing. ``peak_memory_bytes``: the bundle with its weights while it runs.
    ``artifact_bytes``: the file that a device receives. ``sqnr_db`` (signal to quantisation noise) and
    ``max_error`` (relative to the largest value) compare the outputs with the stored fp32 feature maps.
    None is what nothing measured.
    """

    device: str
    bundle: Bundle
    variant: Variant
    batch: int
    latency_s: float
    latency_median_s: float
    latency_p95_s: float
    latency_std_s: float
    cpu_time_s: float
    runs: int
    load_s: float
    latency_ci_s: float | None = None
    stable: bool = False
    build_s: float = 0.0
    peak_memory_bytes: int | None = None
    artifact_bytes: int | None = None
    weight_bytes: int | None = None
    sqnr_db: float | None = None
    max_error: float | None = None
    energy_j: float | None = None

    def __post_init__(self) -> None:
        for name in ("latency_s", "latency_median_s", "latency_p95_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, found {getattr(self, name)}")
        for name in (
            "latency_std_s",
            "cpu_time_s",
            "load_s",
            "build_s",
            *_OPTIONAL - {"frequency_hz", "sqnr_db"},
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, found {value}")
        if not 1 <= self.batch <= MOST_BATCH or self.runs < 1:
            raise ValueError(f"batch must be 1 to {MOST_BATCH} and runs at least 1")

    @property
    def key(self) -> tuple[str, Bundle, Variant, int]:
        return self.device, self.bundle, self.variant, self.batch

    @property
    def samples_per_s(self) -> float:
        """Throughput: samples per second when one run follows the other."""
        return self.batch / self.latency_s


_OPTIONAL = {
    "frequency_hz", "latency_ci_s", "peak_memory_bytes", "artifact_bytes", "weight_bytes", "sqnr_db",
    "max_error", "energy_j",
}  # fmt: skip
_DERIVED = "samples_per_s"
_FIELDS = tuple(ProfileRow.__dataclass_fields__)
COLUMNS = (*KEY, *_FIELDS[_FIELDS.index("latency_s") :], _DERIVED)
_INTEGERS = {
    "start", "stop", "batch", "runs", "peak_memory_bytes", "artifact_bytes", "weight_bytes",
}  # fmt: skip
_TEXT = {"device", "backend", "precision"}
_FLAGS = {"fused", "stable"}


def row_cells(row: ProfileRow) -> dict[str, str]:
    """The row as text by column; numbers are written so that they read back exactly."""
    cells = {
        **{name: getattr(row, name) for name in COLUMNS if hasattr(row, name)},
        "start": row.bundle.start,
        "stop": row.bundle.stop,
        **to_data(row.variant),
    }
    return {
        name: "" if cells[name] is None else str(int(cells[name]) if name in _FLAGS else cells[name])
        for name in COLUMNS
    }


def format_row(row: ProfileRow) -> str:
    """The row as one line of CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(row_cells(row).values())
    return buffer.getvalue()


def header() -> str:
    return ",".join(COLUMNS) + "\n"


def parse_rows(text: str, file: object, *, repair: bool = False) -> list[ProfileRow]:
    """The rows in a table's text.

    With ``repair`` a half-written last line (a profile was killed) is left out; otherwise it is
    refused like every other fault, by line.
    """
    lines = text.split("\n")
    cut_off = lines.pop()
    if not lines:
        lines, cut_off = [cut_off], ""
    _check_header(next(iter(read_cells(lines[:1], file)), []), file)
    if cut_off and not repair:
        problem = "the last row is half-written: the profile was cut off"
        raise DocumentError(
            file, f"line {len(lines) + 1}", problem, "run the same profile command again; it resumes"
        )
    rows = []
    seen: dict[object, int] = {}
    for number, cells in enumerate(read_cells(lines[1:], file), start=2):
        row = _parse_row(cells, file, f"line {number}")
        if row.key in seen:
            raise DocumentError(
                file, f"line {number}", f"measures the same bundle as line {seen[row.key]}", "remove one"
            )
        seen[row.key] = number
        rows.append(row)
    return rows


def read_cells(lines: Sequence[str], file: object) -> list[list[str]]:
    """The cells of each line of CSV. Raises ``DocumentError``."""
    try:
        return list(csv.reader(lines))
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None


def _check_header(found: Sequence[str], file: object) -> None:
    for name in found:
        if name not in COLUMNS:
            raise DocumentError(file, "line 1", f"unknown column {name!r}", unit_remedy(name) or "remove it")
    missing = [name for name in COLUMNS if name not in found]
    if missing or tuple(found) != COLUMNS:
        problem = f"missing columns: {', '.join(missing)}" if missing else "the columns are in another order"
        raise DocumentError(file, "line 1", problem, f"the header is {','.join(COLUMNS)}")


def _parse_row(cells: list[str], file: object, place: str) -> ProfileRow:
    if len(cells) != len(COLUMNS):
        raise DocumentError(
            file, place, f"expected {len(COLUMNS)} cells, found {len(cells)}", "was the row cut off?"
        )
    data: dict[str, object] = {}
    for name, cell in zip(COLUMNS, cells, strict=True):
        try:
            if name in _TEXT:
                data[name] = cell
            elif cell == "" and name in _OPTIONAL:
                data[name] = None
            elif name in _FLAGS:
                data[name] = {"0": False, "1": True}[cell]
            else:
                data[name] = int(cell) if name in _INTEGERS else float(cell)
        except (ValueError, KeyError):
            raise DocumentError(file, f"{place}, column {name}", f"not a number: {cell!r}") from None
    data["bundle"] = {name: data.pop(name) for name in ("start", "stop")}
    data["variant"] = {name: data.pop(name) for name in ("backend", "precision", "frequency_hz", "fused")}
    stated = data.pop(_DERIVED)
    row = from_data(ProfileRow, data, f"{file}: {place}")
    if stated != row.samples_per_s:
        problem = f"{stated} is not batch / latency_s, which is {row.samples_per_s}"
        raise DocumentError(file, f"{place}, column {_DERIVED}", problem, "was the table edited?")
    return row


def save_table(file: Path, sidecar: Sidecar, rows: Iterable[ProfileRow]) -> None:
    """Write one device's whole table at once; a profile that grows is ``profiler.journal``'s."""
    sidecar.save(file.with_suffix(".json"))
    write_text(file, header() + "".join(map(format_row, rows)))


@dataclass(frozen=True)
class ProfileTable:
    """Rows of one chain, from one or several devices, and how each device's were measured."""

    chain: Chain
    rows: tuple[ProfileRow, ...]
    environments: Mapping[str, Environment] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    left_out: Mapping[str, tuple[LeftOut, ...]] = field(default_factory=dict)
    active: Mapping[str, ActiveNote] = field(default_factory=dict)
    codecs: tuple[CodecRow, ...] = ()

    def frame(self) -> pd.DataFrame:
        """The table as pandas sees it: the columns of the CSV."""
        text = header() + "".join(format_row(row) for row in self.rows)
        return pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_TEXT, str))

    def missing(self, device: str, variant: Variant, batch: int) -> list[Bundle]:
        """The bundles this device and variant has no row for."""
        have = {
            row.bundle
            for row in self.rows
            if (row.device, row.variant, row.batch) == (device, variant, batch)
        }
        return [bundle for bundle in self.chain.bundles() if bundle not in have]

    @staticmethod
    def load(files: Iterable[Path]) -> ProfileTable:
        """Read and join the tables of several devices; they must be of one chain."""
        tables = []
        for file in files:
            sidecar = Sidecar.load(file.with_suffix(".json"))
            rows = parse_rows(read_text(file), file)
            for number, row in enumerate(rows, start=2):
                if row.device != sidecar.device:
                    problem = f"device {row.device!r} in a table of {sidecar.device!r}"
                    raise DocumentError(file, f"line {number}", problem, "keep one table per device")
                if row.bundle.stop > len(sidecar.chain):
                    problem = f"bundle {row.bundle} of a chain of {len(sidecar.chain)} layers"
                    raise DocumentError(file, f"line {number}", problem)
            tables.append((file, sidecar, rows))
        if not tables:
            raise MismatchError(
                "no profile table was given", "pass the CSV files that `edgecut profile` wrote"
            )
        first_file, first, _ = tables[0]
        devices: dict[str, Path] = {}
        environments = {sidecar.device: sidecar.environment for _, sidecar, _ in tables}
        for file, sidecar, _ in tables:
            if sidecar.chain.digest != first.chain.digest:
                raise MismatchError(
                    f"{file} was measured on {sidecar.chain.source.label} {sidecar.chain.digest[:12]}, "
                    f"{first_file} on {first.chain.source.label} {first.chain.digest[:12]}",
                    "profile one model, with the same weights and granularity, on every device",
                )
            if sidecar.device in devices:
                raise MismatchError(
                    f"{file} and {devices[sidecar.device]} both measure device {sidecar.device!r}", "pass one"
                )
            devices[sidecar.device] = file
        recipes = {sidecar.device: sidecar.recipe for _, sidecar, _ in tables if sidecar.recipe}
        joined = tuple(row for _, _, rows in tables for row in rows)
        left_out = {sidecar.device: sidecar.left_out for _, sidecar, _ in tables}
        active = {sidecar.device: sidecar.active for _, sidecar, _ in tables if sidecar.active}
        codecs = tuple(row for file, sidecar, _ in tables for row in _codecs(file, sidecar))
        return ProfileTable(first.chain, joined, environments, recipes, left_out, active, codecs)


def _codecs(table: Path, sidecar: Sidecar) -> list[CodecRow]:
    """The rows beside a table, none where no codec was measured."""
    file = codec_file(table)
    if not file.exists():
        return []
    rows = load_codec_rows(file)
    for row in rows:
        if row.device != sidecar.device or row.boundary > len(sidecar.chain):
            problem = f"{row.codec} of device {row.device!r} at boundary {row.boundary}"
            remedy = f"it stands beside a table of {sidecar.device!r}, {len(sidecar.chain)} layers"
            raise DocumentError(file, "", problem, remedy)
    return rows
