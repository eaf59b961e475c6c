"""What codecs cost: one row per device x boundary x codec x batch, in ``NAME.codecs.csv`` beside a table.

A codec says how the tensors at a boundary travel: ``raw`` as they are, ``zstd`` compressed without loss,
``fp16`` and ``int8`` in fewer bits, ``int8-zstd`` in fewer bits and compressed. ``raw`` costs nothing but
its bytes, so it has no rows.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from planner.documents import document, from_data, read_text, unit_remedy
from planner.errors import DocumentError, InputError, StorageError, UnknownNameError

CodecName = Literal["raw", "zstd", "fp16", "int8", "int8-zstd"]
CODECS: tuple[CodecName, ...] = get_args(CodecName)
LOSSLESS: tuple[CodecName, ...] = ("raw", "zstd")
MEASURED = CODECS[1:]


def codecs_named(text: str) -> tuple[CodecName, ...]:
    """The codecs that ``all``, ``none`` or a list such as ``zstd,int8`` asks for, ``raw`` always first.

    Raises ``UnknownNameError`` for a codec there is not, ``InputError`` for an empty list.
    """
    if text == "all":
        return CODECS
    names = [name.strip() for name in text.split(",")] if text != "none" else []
    if not all(names):
        raise InputError(f"codecs {text!r} leaves a name empty", f"all, none, or some of {','.join(CODECS)}")
    for name in names:
        if name not in CODECS:
            raise UnknownNameError("codec", name, [*CODECS, "all", "none"])
    return tuple(codec for codec in CODECS if codec in names or codec == "raw")


@document()
class CodecRow:
    """One codec on the tensors at one boundary, measured on one device.

    ``encode_s`` and ``decode_s``: means trimmed by rank, 10 % at each end. ``wire_bytes``: mean over the
    stored feature maps, ``wire_bytes_max`` their largest. ``sqnr_db`` (signal to quantisation noise, over
    all of them) is None where nothing differs; ``max_error`` is relative to the largest value.
    """

    device: str
    boundary: int
    codec: CodecName
    batch: int
    encode_s: float
    decode_s: float
    runs: int
    wire_bytes: int
    wire_bytes_max: int
    sqnr_db: float | None = None
    max_error: float = 0.0

    def __post_init__(self) -> None:
        if self.codec == "raw":
            raise ValueError("raw is sent as it is and has no row")
        for name in ("encode_s", "decode_s", "max_error"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, found {getattr(self, name)}")
        if self.boundary < 0 or self.batch < 1 or self.runs < 1:
            raise ValueError("boundary is at least 0, batch and runs at least 1")
        if not 0 < self.wire_bytes <= self.wire_bytes_max:
            raise ValueError(f"wire_bytes must be 1 to wire_bytes_max, found {self.wire_bytes}")
        if self.codec in LOSSLESS and (self.sqnr_db is not None or self.max_error):
            raise ValueError(f"{self.codec} loses nothing, found sqnr_db or max_error")

    @property
    def key(self) -> tuple[str, int, CodecName, int]:
        """What it measures: device, boundary, codec, batch."""
        return self.device, self.boundary, self.codec, self.batch


COLUMNS = tuple(CodecRow.__dataclass_fields__)
_TEXT = {"device", "codec"}
_REAL = {"encode_s", "decode_s", "sqnr_db", "max_error"}


def codec_file(table: Path) -> Path:
    """Where the codecs of the profile table ``NAME.csv`` are."""
    return table.with_suffix(".codecs.csv")


def codec_header() -> str:
    return ",".join(COLUMNS) + "\n"


def format_codec_row(row: CodecRow) -> str:
    """The row as one line of CSV; numbers are written so that they read back exactly."""
    buffer = io.StringIO()
    cells = ["" if getattr(row, name) is None else str(getattr(row, name)) for name in COLUMNS]
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def load_codec_rows(file: Path) -> list[CodecRow]:
    """Read the rows; a half-written last one (the profile was killed) is left out.

    Raises ``DocumentError`` with file, line and remedy.
    """
    text = read_text(file)
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines and codec_header().startswith(text):
        return []
    try:
        cells = list(csv.reader(lines))
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    _check_header(cells[0] if cells else text.split(",", 20), file)
    rows: list[CodecRow] = []
    seen: dict[object, int] = {}
    for number, each in enumerate(cells[1:], start=2):
        row = _parse(each, file, f"line {number}")
        if row.key in seen:
            problem = f"measures the same codec as line {seen[row.key]}"
            raise DocumentError(file, f"line {number}", problem, "remove one")
        seen[row.key] = number
        rows.append(row)
    return rows


def append_codec_row(file: Path, row: CodecRow) -> None:
    """Add a row and see it on disk, or leave the file as it was. Raises ``StorageError``.

    A half-written last line is replaced.
    """
    try:
        with file.open("a+b") as stream:
            stream.seek(0)
            text = stream.read()
            whole = text.rfind(b"\n") + 1
            line = format_codec_row(row)
            stream.truncate(whole)
            try:
                stream.write((line if whole else codec_header() + line).encode())
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                os.truncate(file, whole)
                raise
    except OSError as error:
        problem = f"cannot write {file}: {error.strerror or error}; the rows before it are safe"
        raise StorageError(problem, "free space and run the same command again; it resumes") from error


def _check_header(found: Sequence[str], file: Path) -> None:
    for name in found:
        if name not in COLUMNS:
            remedy = unit_remedy(name) or "remove it"
            raise DocumentError(file, "line 1", f"unknown column {name!r:.80}", remedy)
    if tuple(found) != COLUMNS:
        missing = [name for name in COLUMNS if name not in found]
        problem = f"missing columns: {', '.join(missing)}" if missing else "the columns are in another order"
        raise DocumentError(file, "line 1", problem, f"the header is {','.join(COLUMNS)}")


def _parse(cells: list[str], file: Path, place: str) -> CodecRow:
    if len(cells) != len(COLUMNS):
        raise DocumentError(file, place, f"expected {len(COLUMNS)} cells, found {len(cells)}")
    data: dict[str, object] = {}
    for name, cell in zip(COLUMNS, cells, strict=True):
        try:
            if name in _TEXT:
                data[name] = cell
            elif name == "sqnr_db" and not cell:
                data[name] = None
            else:
                data[name] = float(cell) if name in _REAL else int(cell)
        except ValueError:
            raise DocumentError(file, f"{place}, column {name}", f"not a number: {cell!r:.60}") from None
    return from_data(CodecRow, data, f"{file}: {place}")
