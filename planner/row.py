"""Rows of profile tables: one measured bundle each, and their text as lines of CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from planner.chain import Bundle
from planner.documents import document, from_data, to_data, unit_remedy
from planner.errors import DocumentError
from planner.plan import MOST_BATCH, Variant

MOST_COUNT = 2**62  # of bytes or runs: what columns of integers hold
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
            *OPTIONAL - {"frequency_hz", "sqnr_db"},
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, found {value}")
            if isinstance(value, int) and value > MOST_COUNT:
                raise ValueError(f"{name} must be at most {MOST_COUNT}, found {value}")
        if max(self.runs, self.bundle.stop) > MOST_COUNT:
            raise ValueError(f"runs and layers must be at most {MOST_COUNT}")
        if not 1 <= self.batch <= MOST_BATCH or self.runs < 1:
            raise ValueError(f"batch must be 1 to {MOST_BATCH} and runs at least 1")

    @property
    def key(self) -> tuple[str, Bundle, Variant, int]:
        """What it measures: device, bundle, variant, batch."""
        return self.device, self.bundle, self.variant, self.batch

    @property
    def samples_per_s(self) -> float:
        """Throughput: samples per second when one run follows the other."""
        return self.batch / self.latency_s


OPTIONAL = {
    "frequency_hz", "latency_ci_s", "peak_memory_bytes", "artifact_bytes", "weight_bytes", "sqnr_db",
    "max_error", "energy_j",
}  # fmt: skip
_DERIVED = "samples_per_s"
_FIELDS = tuple(ProfileRow.__dataclass_fields__)
COLUMNS = (*KEY, *_FIELDS[_FIELDS.index("latency_s") :], _DERIVED)
_INTEGERS = {
    "start", "stop", "batch", "runs", "peak_memory_bytes", "artifact_bytes", "weight_bytes",
}  # fmt: skip
TEXT = {"device", "backend", "precision"}
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
            if name in TEXT:
                data[name] = cell
            elif cell == "" and name in OPTIONAL:
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
