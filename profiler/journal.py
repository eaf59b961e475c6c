"""A profile table on disk while it grows: a killed profile loses at most the visit in hand.

Each visit to a bundle is one line of ``NAME.samples.jsonl`` (its raw samples), each finished bundle one row
of ``NAME.csv``; both are on disk before the next visit starts. Opening a table again drops a half-written
last line and continues: visits to bundles that had not settled count.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from planner.chain import Bundle
from planner.documents import to_data
from planner.errors import DocumentError, MismatchError, StorageError
from planner.plan import Variant
from planner.recipe import Recipe
from planner.sample_lines import SampleLine, parse_samples, samples_file
from planner.sidecar import DriftPoint, LeftOut, MeterNote, Sidecar
from planner.table import ProfileRow, format_row, header, parse_rows
from profiler.timing import Visit

try:
    import fcntl
except ImportError:  # not on Windows: two profiles on one table are then not noticed
    fcntl = None  # type: ignore[assignment]


class Journal:
    """One device's table, open for appending. Use as a context manager."""

    def __init__(self, file: Path, sidecar: Sidecar) -> None:
        """Open or create ``file``.

        Raises ``MismatchError`` if it holds another model's or placement's rows or another process is
        writing it, ``StorageError`` if it cannot be written.
        """
        self.file = file
        self._samples = samples_file(file)
        if self._samples.name != sidecar.samples:
            raise MismatchError(f"the sidecar names {sidecar.samples}, expected {self._samples.name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = file.open("a+b")
        except OSError as error:
            problem = f"cannot write {file}: {error.strerror or error}"
            raise StorageError(problem, "choose another --output") from error
        try:
            self._lock()
            self.rows = self._resume(sidecar)
        except BaseException:
            self._stream.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            problem = f"another profile is writing {self.file}"
            raise MismatchError(problem, "wait for it, or pass another --output") from None

    def _resume(self, sidecar: Sidecar) -> list[ProfileRow]:
        self._stream.seek(0)
        text = self._stream.read().decode(errors="replace")
        whole = text[: text.rfind("\n") + 1]
        document = self.file.with_suffix(".json")
        rows: list[ProfileRow] = []
        self.sidecar = sidecar
        if whole.startswith(header()):
            self.sidecar = Sidecar.load(document)
            self._check_same(self.sidecar, sidecar)
            rows = parse_rows(whole, self.file)
        elif not header().startswith(text):
            raise DocumentError(self.file, "line 1", "is not a profile table", "pass another --output")
        else:
            if document.exists():
                Sidecar.load(document)  # refuses what is no sidecar, before it is overwritten
            sidecar.save(document)
        try:
            self._stream.truncate(len(whole.encode()))
            self._visits = self._read_visits(keep=bool(whole))
        except OSError as error:
            raise StorageError(f"cannot repair {self.file}: {error}") from error
        if not whole:
            self._append(self.file, header())
        return rows

    def _check_same(self, found: Sidecar, wanted: Sidecar) -> None:
        """Rows measured under other conditions must not be mixed into one table."""
        if found.chain.digest != wanted.chain.digest:
            have, want = (f"{each.chain.source.label} {each.chain.digest[:12]}" for each in (found, wanted))
            remedy = "pass another --output, or the same --weights and --granularity"
            raise MismatchError(f"{self.file} holds rows of {have}, not of {want}", remedy)
        if found.device != wanted.device:
            problem = f"{self.file} holds rows of device {found.device!r}, not {wanted.device!r}"
            raise MismatchError(problem, "pass another --output")
        before, now = to_data(found.environment), to_data(wanted.environment)
        changed = [f"{key}: {before[key]} then, {now[key]} now" for key in now if before[key] != now[key]]
        if changed:
            problem = f"{self.file} was begun under other conditions: {'; '.join(changed)}"
            raise MismatchError(problem, "pass another --output, or remove the table to begin anew")

    def _read_visits(self, keep: bool) -> dict[tuple[Bundle, Variant, int], list[Visit]]:
        """The visits noted before; a half-written last line is removed, all of them with a table begun anew."""
        visits: dict[tuple[Bundle, Variant, int], list[Visit]] = defaultdict(list)
        if not self._samples.exists():
            return visits
        content = self._samples.read_bytes()
        whole = content[: content.rfind(b"\n") + 1] if keep else b""
        os.truncate(self._samples, len(whole))
        for number, line in enumerate(parse_samples(whole.decode(errors="replace"), self._samples), start=1):
            visits[line.key].append(self._visit(line, number))
        return visits

    def _visit(self, line: SampleLine, number: int) -> Visit:
        first_s, cpu_time_s, start_ns, stop_ns = line.first_s, line.cpu_time_s, line.start_ns, line.stop_ns
        if first_s is None or cpu_time_s is None or start_ns is None or stop_ns is None:
            problem = "lacks first_s, cpu_time_s, start_ns or stop_ns: the table was imported"
            raise DocumentError(self._samples, f"line {number}", problem, "pass another --output")
        return Visit(line.latency_s, first_s, cpu_time_s, start_ns, stop_ns)

    def visits(self, bundle: Bundle, variant: Variant, batch: int) -> list[Visit]:
        """Those made to a bundle before, in order."""
        return [*self._visits[bundle, variant, batch]]

    def visited(self, bundle: Bundle, variant: Variant, batch: int, visit: Visit) -> None:
        """Write one visit. Raises ``StorageError``."""
        numbers = (visit.samples_s, visit.first_s, visit.cpu_time_s, visit.start_ns, visit.stop_ns)
        self._append(self._samples, SampleLine(bundle, variant, batch, *numbers).format())
        self._visits[bundle, variant, batch].append(visit)

    def drifted(self, points: Sequence[DriftPoint]) -> None:
        """Note how long the reference bundle took at several moments."""
        self._note(replace(self.sidecar, drift=(*self.sidecar.drift, *points)))

    def metered(self, note: MeterNote) -> None:
        """Note what meters the energies. Raises ``MismatchError`` if earlier rows had another meter."""
        before = self.sidecar.meter
        if before and (before.name, before.domain) != (note.name, note.domain):
            problem = f"{self.file} holds energies of {before.name} ({before.domain}), not of {note.name}"
            raise MismatchError(problem, "pass another --output, or the same --meter")
        self._note(replace(self.sidecar, meter=note))

    def agree(self, recipe: Recipe) -> None:
        """Note how int8 and mixed bundles are made. Raises ``MismatchError`` if rows were made otherwise."""
        before = self.sidecar.recipe
        if before is None:
            self._note(replace(self.sidecar, recipe=recipe))
        elif before != recipe:
            problem = f"{self.file} holds int8 or mixed rows made with another calibration or policy"
            raise MismatchError(problem, "pass another --output, or the same options")

    def leave_out(self, entry: LeftOut) -> None:
        """Note a bundle that cannot be measured, with its reason."""
        key = (entry.bundle, entry.variant, entry.batch)
        others = [each for each in self.sidecar.left_out if (each.bundle, each.variant, each.batch) != key]
        self._note(replace(self.sidecar, left_out=(*others, entry)))

    def _note(self, sidecar: Sidecar) -> None:
        sidecar.save(self.file.with_suffix(".json"))
        self.sidecar = sidecar

    def append(self, row: ProfileRow) -> None:
        """Write one measured bundle. Raises ``StorageError``; rows already written stay whole."""
        self._append(self.file, format_row(row))
        self.rows.append(row)
        still = tuple(e for e in self.sidecar.left_out if (e.bundle, e.variant, e.batch) != row.key[1:])
        if still != self.sidecar.left_out:
            self._note(replace(self.sidecar, left_out=still))

    def _append(self, file: Path, text: str) -> None:
        """Add whole lines and see them on disk, or leave the file as it was."""
        before = file.stat().st_size if file.exists() else 0
        try:
            with file.open("ab") as stream:
                stream.write(text.encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if file.exists():
                os.truncate(file, before)
            problem = f"cannot write {file}: {error.strerror or error}; {len(self.rows)} rows are safe"
            raise StorageError(problem, "free space and run the same command again; it resumes") from error

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
