"""When the requests of a run passed each place, on one clock, and how well the devices' clocks are known.

In the run's folder ``marks.csv`` has a line for each answered request, ``clocks.csv`` one for each time that what was
known of a device's clock changed. Both are read a line at a time: a run may be long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from planner.documents import document, from_data
from planner.errors import DocumentError

MARKS_HEADER = "request,plan,error_s,marks_s\n"
_CLOCK_COLUMNS = ("at_s", "device", "offset_s", "error_s", "drift", "drift_error")
CLOCKS_HEADER = ",".join(_CLOCK_COLUMNS) + "\n"


@dataclass(frozen=True)
class Marks:
    """When a request, which plan number ``plan`` answered, passed the places along its path.

    ``marks_ns`` count from when the run began, on the coordinator's clock, within ``error_ns``.
    """

    request: int
    plan: int
    error_ns: int
    marks_ns: tuple[int, ...]

    def line(self) -> str:
        marks = " ".join(f"{mark / 1e9:.9f}" for mark in self.marks_ns)
        return f"{self.request},{self.plan},{self.error_ns / 1e9:.9f},{marks}\n"


@document()
class ClockRow:
    """What was known of a device's clock at a time of the run, by the coordinator's.

    ``offset_s``, within ``error_s``, is what to add to its readings; it grows by ``drift`` s per s, within
    ``drift_error``.
    """

    at_s: float
    device: str
    offset_s: float
    error_s: float
    drift: float
    drift_error: float

    def line(self) -> str:
        return ",".join(str(getattr(self, name)) for name in _CLOCK_COLUMNS) + "\n"


def read_marks(folder: Path) -> Iterator[Marks]:
    """In the order of the answers; a half-written last line is left out. Raises ``DocumentError``."""
    file = folder / "marks.csv"
    for number, text in _lines(file, MARKS_HEADER):
        try:
            request, plan, error_s, marks = text.split(",")
            marks_ns = tuple(round(float(mark) * 1e9) for mark in marks.split())
            yield Marks(int(request), int(plan), round(float(error_s) * 1e9), marks_ns)
        except (ValueError, OverflowError):
            columns = MARKS_HEADER.strip()
            raise DocumentError(file, f"line {number}", f"expected {columns}, found {text!r:.60}") from None


def read_clocks(folder: Path) -> Iterator[ClockRow]:
    """In the order of time; a half-written last line is left out. Raises ``DocumentError``."""
    file = folder / "clocks.csv"
    for number, text in _lines(file, CLOCKS_HEADER):
        data: dict[str, object] = dict(zip(_CLOCK_COLUMNS, text.split(","), strict=False))
        try:
            data |= {name: float(str(value)) for name, value in data.items() if name != "device"}
        except ValueError as error:
            raise DocumentError(file, f"line {number}", f"not a number: {error}") from None
        yield from_data(ClockRow, data, f"{file}: line {number}")


def _lines(file: Path, header: str) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1 and line != header:
                    problem = f"has other columns, found {line.strip()!r:.60}"
                    raise DocumentError(file, "line 1", problem, f"the header is {header.strip()}")
                if number > 1 and line.endswith("\n"):
                    yield number, line.rstrip("\n")
    except FileNotFoundError:
        raise DocumentError(file, "", "no such file", "deploy the plan again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError(file, "", f"cannot be read: {error}") from error
