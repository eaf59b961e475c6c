"""A run on disk while it grows: a killed deployment loses and repeats nothing when it is begun again.

``answers.jsonl`` has a line for each answered request. It is written last, so what it says is on disk: the
outputs, and the request's rows of ``run.csv`` and ``marks.csv``. Opening a run again drops whatever comes after its
last whole line and goes on after it. Inputs are answered in the order of their stream, so a stream's next one says all.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from planner.documents import document, from_data, to_data
from planner.errors import DocumentError, MismatchError, StorageError
from planner.run import RunInfo
from planner.run_marks import CLOCKS_HEADER, MARKS_HEADER, ClockRow, Marks
from planner.run_rows import RunRow, format_run_row, run_header
from runtime.batching import Group, split
from runtime.clock_offset import Offset
from runtime.results import STANDARD_OUTPUT, Outputs
from runtime.wire import Array

try:
    import fcntl
except ImportError:  # not on Windows: two coordinators of one run are then not noticed
    fcntl = None  # type: ignore[assignment]

SCHEMA = "edgecut.answers/2"
_ANEW = "pass another --output to begin anew"


@document()
class StreamNote:
    """A stream's name and what tells its inputs from others (see ``runtime.sources``)."""

    name: str
    fingerprint: str


@document()
class RunNote:
    """The first line: what a run that goes on must have in common with the one begun."""

    schema: str
    streams: tuple[StreamNote, ...]
    outputs: str


@document()
class AnswerLine:
    """Inputs ``begin``..``end``-1 of a stream are done: refused as ``refused`` says, the others by ``request``.

    ``request`` is None where all were refused. ``table_bytes``, ``marks_bytes``: of ``run.csv`` and ``marks.csv`` with
    this request. ``at_s``: seconds of the run until then.
    """

    stream: int
    begin: int
    end: int
    request: int | None
    refused: dict[int, str]
    table_bytes: int
    marks_bytes: int
    at_s: float

    @property
    def answered(self) -> list[int]:
        return [number for number in range(self.begin, self.end) if number not in self.refused]


class RunFolder:
    """The folder of one run, open for more answers. Use as a context manager.

    ``next_inputs``: of each stream, the number that comes next. ``next_request``, ``at_s``: where the run stands.
    ``refused``: inputs, in all.
    """

    def __init__(
        self, folder: Path, info: RunInfo, streams: Sequence[StreamNote], outputs: Outputs, where: Path | None
    ) -> None:
        """Open or create a run.

        Raises ``MismatchError`` where it is of another plan, other inputs or outputs, or in use; ``DocumentError``
        where it is no run; ``StorageError`` where it cannot be written.
        """
        self.folder, self.info, self._outputs = folder, info, outputs
        place = "" if where is None else str(where if where == STANDARD_OUTPUT else where.absolute())
        self._note = RunNote(SCHEMA, tuple(streams), place)
        self.next_inputs = [0] * len(streams)
        self._numbers = [array("q") for _ in streams]
        self.next_request = self.refused = table_bytes = marks_bytes = 0
        self._clocks: Mapping[str, Offset] = {}
        self.at_s = 0.0
        self._opened = ExitStack()
        self._opened.callback(outputs.close)
        try:
            with self._written():
                folder.mkdir(parents=True, exist_ok=True)
                if (folder / "run.csv").exists() and not (folder / "answers.jsonl").exists():
                    raise MismatchError(f"{folder} holds a run that cannot go on", _ANEW)
                self._log = self._opened.enter_context((folder / "answers.jsonl").open("a+b"))
                self._lock()
                self._table, self._marks, self._clock_rows = (
                    self._opened.enter_context((folder / name).open("a+b"))
                    for name in ("run.csv", "marks.csv", "clocks.csv")
                )
            for line in self._resume():
                self._count(line)
                table_bytes, marks_bytes = line.table_bytes, line.marks_bytes
            with self._written():
                _cut(self._table, table_bytes, run_header())
                _cut(self._marks, marks_bytes, MARKS_HEADER)
                _cut(self._clock_rows, _whole_lines(self._clock_rows), CLOCKS_HEADER)
                outputs.resume(self._numbers)
        except BaseException:
            self._opened.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MismatchError(
                f"another deployment is writing {self.folder}", "wait for it, or " + _ANEW
            ) from None

    def _resume(self) -> list[AnswerLine]:
        """The lines there are; a half-written last one is removed."""
        file = self.folder / "answers.jsonl"
        self._log.seek(0)
        content = self._log.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            self.info.save(self.folder / "run.json")
            self._append(self._note)
            return []
        first, *lines = (_parsed(text, file, number) for number, text in enumerate(whole.splitlines(), 1))
        self._check_same(from_data(RunNote, first, f"{file}: line 1"))
        with self._written():
            self._log.truncate(len(whole))
        return [from_data(AnswerLine, data, f"{file}: line {number}") for number, data in enumerate(lines, 2)]

    def _check_same(self, found: RunNote) -> None:
        begun = RunInfo.load(self.folder / "run.json")
        before, now = (
            (plan.chain, plan.batch, plan.stages, plan.hops) for plan in (begun.plan, self.info.plan)
        )
        if before != now:
            raise MismatchError(f"{self.folder} holds a run of another plan", _ANEW)
        if found.outputs != self._note.outputs:
            begun_with, asked = (note.outputs or "none" for note in (found, self._note))
            raise MismatchError(f"{self.folder} was begun with outputs to {begun_with}, not {asked}", _ANEW)
        over, asked = (", ".join(each.name for each in note.streams) for note in (found, self._note))
        if over != asked:
            raise MismatchError(f"{self.folder} holds a run over {over}, not over {asked}", _ANEW)
        if found != self._note:
            raise MismatchError(f"{self.folder} holds a run over {over}, whose inputs have changed", _ANEW)
        self.info = replace(begun, concurrency=max(begun.concurrency, self.info.concurrency))

    def _count(self, line: AnswerLine) -> None:
        self.next_inputs[line.stream] = line.end
        self._numbers[line.stream].extend(line.answered)
        self.next_request = self.next_request if line.request is None else line.request + 1
        self.refused += len(line.refused)
        self.at_s = line.at_s

    def note(self, tolerance: float) -> None:
        """Another plan than the one begun with gave an answer, of this tolerance."""
        if tolerance > self.info.tolerance:
            self.info = replace(self.info, tolerance=tolerance)

    def add(
        self,
        stream: int,
        group: Group,
        outputs: Sequence[Array],
        rows: Sequence[RunRow],
        at_s: float,
        marks: Marks | None = None,
    ) -> None:
        """Keep what became of a group: its request's outputs, rows and marks, none where every input was refused.

        Raises ``StorageError``; what was added before stays whole.
        """
        numbers = group.numbers
        parts = list(zip(numbers, split(outputs, self.info.plan.batch, len(numbers)), strict=True))
        with self._written():
            for number, each in parts:
                self._outputs.add(stream, number, each)
            self._table.write("".join(map(format_run_row, rows)).encode())
            self._table.flush()
            if marks:
                self._marks.write(marks.line().encode())
                self._marks.flush()
            line = AnswerLine(
                stream,
                group.begin,
                group.end,
                self.next_request if rows else None,
                {each.number: each.reason for each in group.refused},
                self._table.tell(),
                self._marks.tell(),
                at_s,
            )
            self._append(line)
            self._count(line)
            for number, each in parts:
                self._outputs.committed(stream, number, each)

    def note_clocks(self, clocks: Mapping[str, Offset], at_s: float) -> None:
        """What is known of the devices' clocks now; kept where it changed. Raises ``StorageError``."""
        changed = {name: clock for name, clock in clocks.items() if self._clocks.get(name) != clock}
        if not changed:
            return
        self._clocks = {**self._clocks, **clocks}
        with self._written():
            for name, clock in changed.items():
                seconds = clock.offset_ns / 1e9, clock.error_ns / 1e9
                row = ClockRow(at_s, name, *seconds, clock.drift, clock.drift_error)
                self._clock_rows.write(row.line().encode())
            self._clock_rows.flush()

    def _append(self, line: RunNote | AnswerLine) -> None:
        with self._written():
            self._log.write(json.dumps(to_data(line)).encode() + b"\n")
            self._log.flush()

    def finish(self) -> None:
        """Note how far the run came and write the outputs."""
        with self._written():
            for stream in (self._table, self._marks, self._clock_rows, self._log):
                os.fsync(stream.fileno())
            self._outputs.finish(self._numbers)
        replace(self.info, wall_s=self.at_s, requests=self.next_request).save(self.folder / "run.json")

    @contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # nobody reads the outputs any more
            raise
        except OSError as error:
            problem = f"cannot write the run to {self.folder}: {error.strerror or error}"
            remedy = "free space and run the same command again; it goes on"
            raise StorageError(problem, remedy) from error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def _cut(table: BinaryIO, size: int, header: str) -> None:
    """Drop what comes after ``size`` bytes; an empty table gets its header."""
    if table.seek(0, os.SEEK_END) < size:
        raise StorageError(f"{table.name} lacks rows that were written", _ANEW)
    table.truncate(size)
    table.seek(size)  # or it would tell the place from before
    if not size:
        table.write(header.encode())
        table.flush()


def _whole_lines(table: BinaryIO) -> int:
    """How many bytes are lines that were written whole."""
    table.seek(0)
    return table.read().rfind(b"\n") + 1


def _parsed(text: bytes, file: Path, number: int) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DocumentError(file, f"line {number}", "is no JSON", _ANEW) from None
