"""Reading a table's CSV into columns: Arrow parses, numpy checks every value.

Whatever Arrow and ``planner.row`` might read differently, and every fault, goes to the latter, row by row:
it alone decides what a table means, and its messages name line and column.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.columns import KINDS, BoolArray, Columns, IntArray
from planner.documents import read_text
from planner.errors import DocumentError
from planner.plan import MOST_BATCH, Variant
from planner.row import COLUMNS, MOST_COUNT, OPTIONAL, header, parse_rows

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES = ("device", "backend", "precision", "frequency_hz")  # few different texts: read as codes
_POSITIVE = ("latency_s", "latency_median_s", "latency_p95_s")
_SCAN_BYTES, _BLOCK_BYTES = 1 << 18, 1 << 22
# Bundles take neither eleven days nor less than light takes across a chip.
_LONGEST_S, _SHORTEST_S = 1e6, 1e-12


def read_columns(file: Path, device: str, layers: int) -> Columns:
    """The table of one device, of a chain of so many layers. Raises ``DocumentError``."""
    parsed = _parsed(file)
    if parsed is None:
        columns = Columns.of(parse_rows(read_text(file), file), file)
    else:
        columns, faulty = parsed
        if faulty.any() or _repeats(columns):
            columns = _refused(file, columns, faulty)
    _check_belongs(columns, file, device, layers)
    _check_times(columns, file)
    return columns


def _refused(file: Path, columns: Columns, faulty: BoolArray) -> Columns:
    """Raises what the row parser says of the first fault, with the places of all."""
    try:
        rows = parse_rows(read_text(file), file)
    except DocumentError as error:
        count = int(faulty.sum())
        if count > 1:
            error.message += f"; {count} rows hold such values: {columns.named(faulty)}"
        raise
    return Columns.of(rows, file)


def _check_belongs(columns: Columns, file: Path, device: str, layers: int) -> None:
    other = np.array([name != device for name in columns.devices], dtype=bool)
    wrong = np.flatnonzero(other[columns.device] | (columns.stop > layers))
    if not wrong.size:
        return
    row = int(wrong[0])
    found, place = columns.devices[columns.device[row]], f"line {row + 2}"
    if found != device:
        problem = f"device {found!r} in a table of {device!r}"
        raise DocumentError(file, place, problem, "keep one table per device")
    raise DocumentError(file, place, f"bundle {columns.bundle(row)} of a chain of {layers} layers")


def _check_times(columns: Columns, file: Path) -> None:
    for name in _POSITIVE:
        times = getattr(columns, name)
        absurd = (times > _LONGEST_S) | (times < _SHORTEST_S)
        if absurd.any():
            row, count = int(absurd.argmax()), int(absurd.sum())
            problem = f"{times[row]:g} s is no time of a bundle"
            problem += f"; {count} rows hold such times: {columns.named(absurd)}" if count > 1 else ""
            remedy = f"times are in seconds, from {_SHORTEST_S:g} to {_LONGEST_S:g}"
            raise DocumentError(file, f"line {row + 2}, column {name}", problem, remedy)


def _repeats(columns: Columns) -> bool:
    """Whether two rows of one device measure the same."""
    key = columns.variant
    for each in (columns.device, columns.batch, columns.start, columns.stop):
        key = key * (int(each.max(initial=0)) + 1) + each
    return bool(pd.unique(key).size < key.size)


def _parsed(file: Path) -> tuple[Columns, BoolArray] | None:
    """The columns, and which rows hold a value that no measurement gives; None where only the row parser
    knows what the text means."""
    import pyarrow as pa
    from pyarrow import csv

    kinds = {name: pa.from_numpy_dtype(np.dtype(kind)) for name, kind in KINDS.items()}
    kinds |= dict.fromkeys(_NAMES, pa.dictionary(pa.int32(), pa.string()))
    kinds |= {"fused": pa.bool_(), "samples_per_s": pa.float64()}
    try:
        if not _plain(file):
            return None
        table = csv.read_csv(
            str(file),
            csv.ReadOptions(column_names=COLUMNS, skip_rows=1, block_size=_BLOCK_BYTES),
            csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            csv.ConvertOptions(column_types=kinds, null_values=[""], true_values=["1"], false_values=["0"]),
        )
    except (OSError, pa.ArrowException):
        return None
    return _converted(table, file)


def _plain(file: Path) -> bool:
    """Whether the text is our header and whole lines, without quotes, and without hexadecimal numbers, which
    Arrow alone would read."""
    block = bytearray(_SCAN_BYTES + 1)  # the first byte is the last of the block before
    letters = np.frombuffer(block, dtype=np.uint8)
    with file.open("rb") as stream:
        if stream.readline().rstrip(b"\r\n") != header().strip().encode():
            return False
        block[0] = ord("\n")
        while found := stream.readinto(memoryview(block)[1:]):
            size = found + 1
            hexadecimal = (letters[: size - 1] == ord("0")) & (letters[1:size] | 32 == ord("x"))
            if hexadecimal.any() or any(block.find(mark, 0, size) >= 0 for mark in (b'"', b"\0")):
                return False
            block[0] = block[size - 1]
    return block[0] == ord("\n")


def _converted(table: pa.Table, file: Path) -> tuple[Columns, BoolArray] | None:
    arrays: dict[str, NDArray[Any]] = {}
    faulty = np.zeros(table.num_rows, dtype=bool)
    for name in (*KINDS, "fused", "samples_per_s"):
        if name in ("device", "variant"):
            continue
        column = table[name]
        if column.null_count and name not in OPTIONAL:
            return None
        if column.null_count:
            nothing = np.nan if KINDS[name] is float else -1
            arrays[name] = column.fill_null(nothing).to_numpy()
            faulty |= _outside(name, arrays[name]) & column.is_valid().to_numpy()
        else:
            arrays[name] = column.to_numpy()
            faulty |= _outside(name, arrays[name])
    with np.errstate(all="ignore"):
        faulty |= arrays.pop("samples_per_s") != arrays["batch"] / arrays["latency_s"]
    faulty |= arrays["start"] >= arrays["stop"]
    device, devices = _coded(table["device"])
    try:
        variant, variants = _variants(table, arrays.pop("fused"))
    except ValueError:
        return None
    files = ((str(file), table.num_rows),)
    return Columns(tuple(devices), variants, device, variant, **arrays, files=files), faulty


def _outside(name: str, values: NDArray[Any]) -> BoolArray:
    """Which values ``ProfileRow`` refuses."""
    if values.dtype == bool:
        return np.zeros(values.size, dtype=bool)
    if name == "sqnr_db":
        unreal: BoolArray = ~np.isfinite(values)
        return unreal
    if values.dtype != float:
        most = MOST_BATCH if name == "batch" else MOST_COUNT
        least = 1 if name in ("batch", "runs") else 0
        refused: BoolArray = (values < least) | (values > most)
        return refused
    enough: BoolArray = (values > 0) if name in _POSITIVE else (values >= 0)
    return ~(enough & (values < np.inf))


def _coded(column: pa.ChunkedArray) -> tuple[IntArray, list[str]]:
    """Texts as codes, and the texts in the order of the codes, each once."""
    column = column.unify_dictionaries()
    codes = np.concatenate([np.zeros(0, np.int64), *(each.indices.to_numpy() for each in column.chunks)])
    return codes, column.chunk(0).dictionary.to_pylist() if column.num_chunks else []


def _variants(table: pa.Table, fused: BoolArray) -> tuple[IntArray, tuple[Variant, ...]]:
    """The variant of each row, and the variants in the order of their first row. ``ValueError`` for a clock
    that is no number."""
    parts = [_coded(table[name]) for name in ("backend", "precision", "frequency_hz")]
    parts.append((fused.astype(np.int64), ["0", "1"]))
    mixed = parts[0][0]
    for codes, texts in parts[1:]:
        mixed = mixed * len(texts) + codes
    found, first = pd.factorize(mixed)
    kinds = []
    for code in first.tolist():
        chosen = []
        for _, texts in reversed(parts):
            code, place = divmod(code, len(texts))
            chosen.append(texts[place])
        flag, clock, precision, backend = chosen
        kinds.append(Variant(backend, precision, _clock(clock), flag == "1"))
    variants = tuple(dict.fromkeys(kinds))  # 1e9 and 1000000000.0 are one clock
    return np.array([variants.index(each) for each in kinds], dtype=np.int64)[found], variants


def _clock(text: str) -> float | None:
    clock = float(text) if text else None
    if clock is not None and not np.isfinite(clock):
        raise ValueError(text)
    return clock
