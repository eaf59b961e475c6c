"""The rows of DIME's files, as they stand there: no unit is changed but the clock's."""

from __future__ import annotations

import ast
import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.documents import read_text
from planner.errors import DocumentError
from planner.imports.units import infer_frequency

_LONGEST_CELL = 100_000


@dataclass(frozen=True)
class Entry:
    """One row of a file, ``durs`` in the file's unit.

    ``span_s``: seconds of wall clock in which the row's runs lie; ``span_shared``: in which all runs of
    its iteration lie.
    """

    place: str
    layers: str
    durs: tuple[float, ...]
    frequency_hz: float | None
    iteration: int | None
    span_s: float | None
    span_shared: bool
    energy_uj: float | None


def read_entries(file: Path, frequency_hz: float | None, refused: list[str]) -> Iterator[Entry]:
    """The rows of a CSV or Parquet file; what is no row is added to ``refused`` with its place.

    Raises ``DocumentError``.
    """
    records = _parquet(file) if file.suffix == ".parquet" else _csv(file)
    named = re.search(r"(?:^|[^0-9.])(\d{5,})$", file.stem)
    for place, record in records:
        try:
            given = record.get("frequency")
            if given not in (None, ""):
                clock = infer_frequency(_number(given, "frequency"))
            else:
                clock = infer_frequency(float(named[1])) if frequency_hz is None and named else frequency_hz
            iteration = record.get("iter")
            energy = record.get("run_energy")
            yield Entry(
                place,
                str(record["layers"]),
                _durations(record["durs"]),
                clock,
                int(_number(iteration, "iter")) if iteration not in (None, "") else None,
                *_span(record),
                _number(energy, "run_energy") if energy not in (None, "") else None,
            )
        except ValueError as error:
            refused.append(f"{place}: {error}")


def _csv(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        rows = list(csv.reader(read_text(file).splitlines()))
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    columns = [name.strip() for name in rows[0]] if rows else []
    _check_columns(file, columns)
    for number, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(columns):
            cells = [*cells, *[""] * (len(columns) - len(cells))]
        yield f"{file.name} line {number}", dict(zip(columns, cells, strict=False))


def _parquet(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pandas as pd
    from pyarrow.lib import ArrowException

    if not file.is_file():
        raise DocumentError(file, "", "no such file", "check the path")
    try:
        frame = pd.read_parquet(file)
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise DocumentError(file, "", f"is no readable Parquet file: {error!s:.200}") from None
    _check_columns(file, [str(name) for name in frame.columns])
    for number, record in enumerate(frame.to_dict("records"), start=1):
        cells = {str(name): value for name, value in record.items()}
        yield f"{file.name} row {number}", {k: None if _missing(v) else v for k, v in cells.items()}


def _missing(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    lacking = [name for name in ("layers", "durs") if name not in columns]
    if lacking:
        found = ", ".join(columns)[:200] or "nothing"
        raise DocumentError(
            file, "line 1", f"no column {' and '.join(lacking)}; found {found}", "is this a DIME timing file?"
        )


def _durations(cell: object) -> tuple[float, ...]:
    """A number, or a Python list of numbers, also as text. Raises ``ValueError``."""
    if isinstance(cell, str) and cell.strip().startswith("["):
        if len(cell) > _LONGEST_CELL:
            raise ValueError(f"durs is a list of {len(cell)} characters, at most {_LONGEST_CELL} are read")
        try:
            cell = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError("durs is no list of numbers") from None
    values = _items(cell)
    numbers = tuple(_number(value, "durs") for value in values)
    if not numbers:
        raise ValueError("durs is an empty list")
    if min(numbers) <= 0:
        raise ValueError(f"a duration of {min(numbers):g} is not above 0")
    return numbers


def _items(cell: Any) -> Iterable[Any]:
    return (
        cell if isinstance(cell, list) or (hasattr(cell, "tolist") and hasattr(cell, "__len__")) else [cell]
    )


def _number(value: Any, name: str) -> float:
    """Raises ``ValueError``."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r:.40}, not a number")
    return number


def _span(record: Mapping[str, Any]) -> tuple[float | None, bool]:
    """``Entry.span_s`` and ``span_shared``, from Unix times in s or ns."""
    for first, last, shared in (("starts", "ends", False), ("iter_start", "iter_end", True)):
        try:
            begin, end = min(_durations(record.get(first))), max(_durations(record.get(last)))
        except ValueError:
            continue
        scale = next((scale for scale in (1.0, 1e-9) if 1e9 <= begin * scale < 1e10), None)
        if scale and end > begin:
            return (end - begin) * scale, shared
    return None, False
