"""The lines of an ODROID SmartPower3, a bench supply that reports what it delivers.

::

    0343732187,15321,0072,01103,0,05000,0500,02500,1,00,00000,0000,00000,0,00,xx,yy\\r\\n      81 bytes
    ms         mV    mA   mW    on                   on bits                      A  B
               input            channel 0               channel 1

Checksum A is the two's complement of the 8-bit sum, checksum B the XOR, both over the 74 characters before
them, in hexadecimal, as are a channel's interrupt bits. A line comes every 5 to 1000 ms, as set on the device;
its milliseconds count from power-on and wrap at 2^32. (Hardkernel's firmware, github.com/hardkernel/smartpower3.)
"""

from __future__ import annotations

import re
from collections import Counter
from enum import Enum
from functools import reduce
from operator import xor
from typing import NamedTuple

from planner.errors import InputError

LINE_BYTES = 81
WRAP_MS = 1 << 32
CHANNELS = ("0", "1", "input")
_MOST_PENDING = 4096  # bytes without an end of line that are kept
_LINE = re.compile(
    rb"(\d{10}),(\d{5}),(\d{4}),(\d{5}),([01]),"
    rb"(\d{5}),(\d{4}),(\d{5}),([01]),([0-9a-f]{2}),"
    rb"(\d{5}),(\d{4}),(\d{5}),([01]),([0-9a-f]{2}),"
    rb"([0-9a-f]{2}),([0-9a-f]{2})"
)


class Rail(NamedTuple):
    """One place where the supply measures, in the device's own units."""

    voltage_mv: int
    current_ma: int
    power_mw: int
    on: bool
    interrupts: int = 0


class Record(NamedTuple):
    """One line. ``time_ms``: the device's own clock."""

    time_ms: int
    input: Rail
    channel_0: Rail
    channel_1: Rail

    def rail(self, channel: str) -> Rail:
        """The rail of a channel named as in ``CHANNELS``."""
        return {"0": self.channel_0, "1": self.channel_1, "input": self.input}[channel]


class Fault(Enum):
    """What is wrong with a line."""

    SHAPE = "no line of a SmartPower3"
    CHECKSUM = "a wrong checksum"


class LineError(ValueError):
    """A line that cannot be read; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault


def check_channel(channel: str) -> str:
    """``channel`` if it is one. Raises ``InputError``."""
    if channel not in CHANNELS:
        raise InputError(f"a SmartPower3 has no channel {channel!r}", f"write {', '.join(CHANNELS)}")
    return channel


def checksums(payload: bytes) -> tuple[int, int]:
    """Checksums A and B of the characters before them, 0 to 255."""
    return -sum(payload) & 0xFF, reduce(xor, payload, 0)


def format_line(record: Record) -> bytes:
    """The record as the device writes it, 81 bytes. Raises ``LineError`` if a number needs more digits."""
    rails = (record.input, record.channel_0, record.channel_1)
    parts = [
        f"{rail.voltage_mv:05d},{rail.current_ma:04d},{rail.power_mw:05d},{rail.on:d}," for rail in rails
    ]
    bits = [f"{rail.interrupts:02x}," for rail in rails]
    payload = f"{record.time_ms:010d},{parts[0]}{parts[1]}{bits[1]}{parts[2]}{bits[2]}".encode()
    line = payload + b"%02x,%02x\r\n" % checksums(payload)
    if len(line) != LINE_BYTES:
        raise LineError(Fault.SHAPE)
    return line


def parse_line(line: bytes) -> Record:
    """The record in one line; its end (``\\r\\n``, ``\\n`` or none) is not looked at. Raises ``LineError``."""
    text = line.rstrip(b"\r\n")
    found = _LINE.fullmatch(text)
    if not found:
        raise LineError(Fault.SHAPE)
    cells = found.groups()
    if checksums(text[: found.start(16)]) != (int(cells[15], 16), int(cells[16], 16)):
        raise LineError(Fault.CHECKSUM)
    return Record(int(cells[0]), _rail(*cells[1:5]), _rail(*cells[5:10]), _rail(*cells[10:15]))


def _rail(voltage: bytes, current: bytes, power: bytes, on: bytes, bits: bytes = b"0") -> Rail:
    return Rail(int(voltage), int(current), int(power), on == b"1", int(bits, 16))


class LineReader:
    """Finds lines in bytes as a serial port delivers them: noise, half lines and wrong checksums are counted."""

    def __init__(self) -> None:
        self.faults: Counter[Fault] = Counter()
        self._pending = b""
        self._begun = False

    def missing(self, waiting: int) -> int:
        """How many bytes beyond the ``waiting`` ones end the line after them, 1 to 81."""
        return LINE_BYTES - (len(self._pending) + waiting) % LINE_BYTES

    def feed(self, data: bytes) -> list[Record]:
        """The records that ``data`` completes."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _MOST_PENDING:
            self.faults[Fault.SHAPE] += 1
            self._pending = self._pending[-LINE_BYTES:]
        records = []
        for line in lines:
            record = self._read(line)
            if record:
                records.append(record)
            self._begun = True
        return records

    def _read(self, line: bytes) -> Record | None:
        text = line.rstrip(b"\r")
        whole = text[-(LINE_BYTES - 2) :]
        try:
            record = parse_line(whole)
        except LineError as error:
            # A port is opened in the middle of a line: that first part of one is no fault.
            if text and (self._begun or len(text) >= LINE_BYTES - 2):
                self.faults[error.fault] += 1
            return None
        if len(text) > len(whole):
            self.faults[Fault.SHAPE] += 1  # noise ran into a good line
        return record


def describe(faults: Counter[Fault]) -> str:
    """The faults in words: ``3 lines with a wrong checksum``; empty without any."""
    said = []
    for fault, count in sorted(faults.items(), key=lambda item: item[0].name):
        lines = "line" if count == 1 else "lines"
        said.append(f"{count} {lines} " + ("that are " if fault is Fault.SHAPE else "with ") + fault.value)
    return ", ".join(said)
