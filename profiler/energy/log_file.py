"""Power logs on disk: the CSV that DIME's logger writes, one row per line of a SmartPower3.

``timestamp`` is the wall clock of the host that logged (Unix time, ns) when it had read the line; all other
cells are the device's own text, checksums included, so that a row can be checked again.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.documents import read_text
from planner.errors import DocumentError, EnergyError, StorageError
from profiler.energy.smartpower3 import CHANNELS, Fault, LineError, Record, format_line, parse_line

IntArray = NDArray[np.int64]

COLUMNS = (
    "time (ms)", "input voltage (mV)", "input current (mA)", "input power (mW)", "on/off",
    *(f"channel {k} {what}" for k in (0, 1) for what in (
        "voltage (mV)", "current (mA)", "power (mW)", "on/off", "interrupts")),
    "checksum A", "checksum B", "timestamp",
)  # fmt: skip
_WIDTHS = (10, 5, 4, 5, 1, 5, 4, 5, 1, 2, 5, 4, 5, 1, 2, 2, 2)  # digits of each cell, the timestamp aside


class Stamped(NamedTuple):
    """A record, and the host's clock when it had been read, in ns."""

    host_ns: int
    record: Record


@dataclass(frozen=True, eq=False)
class PowerLog:
    """The power of one channel. Arrays of shape (n,): the device's clock, the host's, and the power.

    ``source``: where it comes from, for people. ``faults``: lines or rows that could not be read.
    """

    source: str
    channel: str
    device_ms: IntArray
    host_ns: IntArray
    power_w: NDArray[np.float64]
    faults: Counter[Fault] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.device_ms)

    @staticmethod
    def of(
        records: Sequence[Stamped], channel: str, source: str, faults: Counter[Fault] | None = None
    ) -> PowerLog:
        """The log of one channel. Raises ``EnergyError`` if that channel is switched off all the time."""
        rails = [each.record.rail(channel) for each in records]
        # The flag of the input says that its voltage is low, not that it is off.
        if rails and channel != "input" and not any(rail.on for rail in rails):
            others = [
                other
                for other in CHANNELS
                if other != channel and any(each.record.rail(other).power_mw for each in records)
            ]
            remedy = f"measure channel {' or '.join(others)}" if others else "switch the channel on"
            raise EnergyError(f"channel {channel} of {source} is switched off", remedy)
        return PowerLog(
            source,
            channel,
            np.array([each.record.time_ms for each in records], dtype=np.int64),
            np.array([each.host_ns for each in records], dtype=np.int64),
            np.array([rail.power_mw for rail in rails], dtype=np.float64) / 1000,
            Counter() if faults is None else faults,
        )


def format_row(stamped: Stamped) -> str:
    """One record as a line of the CSV."""
    return f"{format_line(stamped.record).decode().rstrip()},{stamped.host_ns}\n"


def header() -> str:
    return ",".join(COLUMNS) + "\n"


class LogWriter:
    """A power log that grows: whole rows only, so that whoever dies, the file is good up to its last row."""

    def __init__(self, file: Path) -> None:
        """Create ``file``. Raises ``StorageError``, also if it exists: a log is never overwritten."""
        self.file = file
        self.rows = 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            raise StorageError(f"{file} exists", "choose another name, or remove it") from None
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}", "choose another path") from error
        self._size = 0
        self._write(header())

    def append(self, records: Iterable[Stamped]) -> None:
        """Add rows. Raises ``StorageError``; rows already written stay whole."""
        rows = [format_row(each) for each in records]
        self._write("".join(rows))
        self.rows += len(rows)

    def _write(self, text: str) -> None:
        content = text.encode()
        try:
            written = os.write(self._handle, content)
            if written < len(content):
                raise OSError("no space left")
            self._size += written
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            problem = f"cannot write {self.file}: {error.strerror or error}; {self.rows} rows are safe"
            raise StorageError(problem, "free space") from error

    def close(self) -> None:
        """Have all rows on disk and close; it may be called again."""
        if self._handle >= 0:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1


def read_records(file: Path) -> tuple[list[Stamped], Counter[Fault]]:
    """The rows of a power log, and how many could not be read. Raises ``DocumentError`` for no power log."""
    lines = read_text(file).splitlines()
    try:
        rows = csv.reader(lines)
        names = next(rows, [])
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            problem = f"no power log of a SmartPower3; missing columns: {', '.join(missing[:3])}{more}"
            raise DocumentError(file, "line 1", problem, "pass the CSV that `edgecut energy log` writes")
        places = [names.index(name) for name in COLUMNS]
        faults: Counter[Fault] = Counter()
        records = []
        for row in rows:
            try:
                records.append(_parse([row[place] for place in places]))
            except LineError as error:
                faults[error.fault] += 1
            except (IndexError, ValueError):
                faults[Fault.SHAPE] += 1
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    if not records:
        raise DocumentError(file, "", "holds no sample of power", "was the meter's logging switched on?")
    return records, faults


def _parse(cells: list[str]) -> Stamped:
    """The record in a row; zeros that a spreadsheet or pandas took away in front are put back."""
    text = ",".join(cell.rjust(width, "0") for cell, width in zip(cells[:-1], _WIDTHS, strict=True))
    return Stamped(int(cells[-1]), parse_line(text.encode()))


def read_log(file: Path, channel: str) -> PowerLog:
    """One channel of a recorded power log. Raises ``DocumentError`` or ``EnergyError``."""
    records, faults = read_records(file)
    return PowerLog.of(records, channel, str(file), faults)
