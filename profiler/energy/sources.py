"""Where the lines of a SmartPower3 come from: a serial port, UDP, or a recording that is played again.

A ``Recorder`` reads a source in a thread of its own and hands on what came, with the host's time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import EdgecutError, EnergyError, InputError, MissingDependencyError
from profiler.energy.log_file import Stamped, read_records
from profiler.energy.smartpower3 import Fault, LineReader, Record, check_channel, describe

_BAUD = 115_200  # as the device is delivered
_POLL_S = 0.2
_MOST_DATAGRAMS = 1000  # read at once
_FIRST_LINE_S = 3.0  # the slowest setting is a line a second


class Source(ABC):
    """Gives records as they come. ``name``: for people. ``faults``: what could not be read so far."""

    name: str
    faults: Counter[Fault]

    @abstractmethod
    def read(self) -> list[Record]:
        """What came since, after at most a fraction of a second. Raises ``EnergyError`` if nothing can come."""

    @abstractmethod
    def close(self) -> None:
        """Give the port back; it may be called again."""


class SerialSource(Source):
    """A SmartPower3 on a serial port."""

    def __init__(self, port: str, baud: int = _BAUD) -> None:
        """Open ``port``. Raises ``EnergyError`` or ``MissingDependencyError``."""
        try:
            self._serial: Any = importlib.import_module("serial")
        except ModuleNotFoundError:
            raise MissingDependencyError("pyserial", "a SmartPower3 on a serial port", "energy") from None
        self.name = port
        self._reader = LineReader()
        self.faults = self._reader.faults
        try:
            self._port = self._serial.Serial(port, baud, timeout=_POLL_S, exclusive=True)
        except (OSError, ValueError) as error:  # pyserial's own error is an OSError
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else error
            raise EnergyError(f"cannot open {port}: {reason}", "edgecut doctor") from None

    def read(self) -> list[Record]:
        try:
            # To the end of the line that is coming: it is stamped when it comes, and wakes nobody before.
            waiting = self._port.in_waiting
            data = self._port.read(waiting + self._reader.missing(waiting))
        except (OSError, TypeError) as error:  # pyserial: TypeError if the port is closed meanwhile
            raise EnergyError(f"{self.name} is gone: {error}", "reconnect the meter") from None
        return self._reader.feed(data)

    def close(self) -> None:
        self._port.close()


class UdpSource(Source):
    """A SmartPower3 that sends each line as a datagram to this host."""

    def __init__(self, port: int, host: str = "") -> None:
        """Listen on ``port``, 0 for any that is free; see ``port`` then. Raises ``EnergyError``."""
        self.faults = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(_POLL_S)
        try:
            self._socket.bind((host, port))
        except (OSError, OverflowError) as error:
            self._socket.close()
            raise EnergyError(f"cannot listen on UDP port {port}: {error}", "choose another port") from None
        self.port: int = self._socket.getsockname()[1]
        self.name = f"UDP port {self.port}"

    def read(self) -> list[Record]:
        records: list[Record] = []
        try:
            # Those that wait already, and the next one: it is stamped when it comes.
            self._socket.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while len(records) < _MOST_DATAGRAMS:
                    records += self._lines(self._socket.recv(4096))
            self._socket.settimeout(_POLL_S)
            records += self._lines(self._socket.recv(4096))
        except TimeoutError:
            pass
        except OSError as error:
            raise EnergyError(f"{self.name} cannot be read: {error}") from None
        return records

    def _lines(self, datagram: bytes) -> list[Record]:
        reader = LineReader()  # a datagram holds whole lines
        records = reader.feed(datagram + b"\n")
        if not records and not reader.faults:
            self.faults[Fault.SHAPE] += 1
        self.faults.update(reader.faults)
        return records

    def close(self) -> None:
        self._socket.close()


class ReplaySource(Source):
    """A recording, played again at the pace at which it was made; once through."""

    def __init__(self, file: Path) -> None:
        records, self.faults = read_records(file)
        self.name = str(file)
        self._records = [each.record for each in records]
        self._next = 0
        self._origin_s = time.monotonic() - self._records[0].time_ms / 1e3
        self._closed = threading.Event()

    def read(self) -> list[Record]:
        if self._next == len(self._records):
            raise EnergyError(f"the recording {self.name} has ended", "play it again")
        due_s = self._records[self._next].time_ms / 1e3 + self._origin_s
        self._closed.wait(min(max(due_s - time.monotonic(), 0.0), _POLL_S))
        first, now_s = self._next, time.monotonic() - self._origin_s
        while self._next < len(self._records) and self._records[self._next].time_ms / 1e3 <= now_s:
            self._next += 1
        return self._records[first : self._next]

    def close(self) -> None:
        self._closed.set()


@dataclass(frozen=True)
class SourceSpec:
    """``[smartpower3:]PORT[,BAUD]``, ``udp:PORT`` or ``FILE.csv``, each with ``@CHANNEL`` (default 0)."""

    place: str
    channel: str

    def open(self) -> Source:
        """Raises ``EnergyError``, ``DocumentError``, ``InputError`` or ``MissingDependencyError``."""
        if self.place.endswith(".csv"):
            return ReplaySource(Path(self.place))
        kind, colon, number = self.place.partition(":")
        if kind == "udp" and colon:
            return UdpSource(_whole(number, "port", 65535))
        port, comma, baud = self.place.partition(",")
        return SerialSource(port, _whole(baud, "baud rate", 4_000_000) if comma else _BAUD)


def parse_source(text: str) -> SourceSpec:
    """Raises ``InputError``."""
    place, at, channel = text.removeprefix("smartpower3:").partition("@")
    if not place:
        problem = f"{text!r} names no SmartPower3"
        raise InputError(problem, "write smartpower3:/dev/ttyUSB0[,BAUD][@CHANNEL] or smartpower3:udp:PORT")
    return SourceSpec(place, check_channel(channel) if at else "0")


def _whole(text: str, what: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 0 < int(text) <= most:
        raise InputError(f"{text!r} is no {what}", f"write a whole number up to {most}")
    return int(text)


class Recorder:
    """Reads a source in a thread until closed, and passes on what came; closing it closes the source.

    ``failure``: why it had to stop, or None. ``clock_ns`` stamps the records. Lines are collected for
    ``pause_s`` before they are read, unless ``hurry`` is set: each time costs about 0.1 ms of the processor.
    """

    def __init__(
        self,
        source: Source,
        sink: Callable[[list[Stamped]], None],
        clock_ns: Callable[[], int] = time.time_ns,
        pause_s: float = 0.0,
    ) -> None:
        self.source = source
        self.failure: EdgecutError | None = None
        self.ended, self.hurry = threading.Event(), threading.Event()
        self._sink, self._clock_ns, self._pause_s = sink, clock_ns, pause_s
        self._begun, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="power-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                records = self.source.read()
                now_ns = self._clock_ns()
                if records:
                    self._sink([Stamped(now_ns, record) for record in records])
                    self._begun.set()
                if self._pause_s:
                    self.hurry.wait(self._pause_s)
        except EdgecutError as error:
            self.failure = error
        finally:
            self.ended.set()
            self._begun.set()

    def wait_first(self, timeout_s: float = _FIRST_LINE_S) -> None:
        """Wait for the first record. Raises ``EnergyError`` if none comes."""
        arrived = self._begun.wait(timeout_s)
        if self.failure:
            raise self.failure
        if not arrived:
            seen = describe(self.source.faults) or "no line at all"
            remedy = "switch logging on at the meter, and give its baud rate: smartpower3:/dev/ttyUSB0,921600"
            raise EnergyError(f"no power from {self.source.name} in {timeout_s:.0f} s ({seen})", remedy)

    def close(self) -> None:
        self._closing.set()
        self.hurry.set()
        self._thread.join()
        self.source.close()
