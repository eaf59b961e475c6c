"""DIME's power-log protocol, the client's side: another host logs the power while this one runs.

::

    this host (device under test)          host with the meter
        │ ── start,NAME.csv ───► │  started          one TCP connection a command, ASCII, one answer
        │        runs            │
        │ ── stop ─────────────► │  stopped
        │ ── shutdown ─────────► │  ack_shutdown     the file is whole; the next start may come
        │ ── time ─────────────► │  nanoseconds      ours: the logging host's clock; DIME: bad message

Anything else is answered ``bad message``; our server adds the reason after a colon.
"""

from __future__ import annotations

import math
import re
import socket
import time
from datetime import datetime, timezone
from pathlib import Path

from planner.errors import EnergyError, InputError
from profiler.energy.clocksync import ClockOffset, measure_offset
from profiler.energy.meter import Meter, Reading

STARTED, STOPPED, ENDED, BAD = "started", "stopped", "ack_shutdown", "bad message"
MOST_BYTES = 1024  # of a command, and of an answer
TIMEOUT_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,120}\.csv")


def is_log_name(name: str) -> bool:
    """Whether ``name`` is a file name alone, such as ``run_1.csv``: no folder, nothing hidden."""
    return bool(_NAME.fullmatch(name)) and ".." not in name


def parse_address(text: str) -> tuple[str, int]:
    """``HOST:PORT``. Raises ``InputError``."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise InputError(f"{text!r} is no address", "write HOST:PORT, such as 192.168.1.7:8010")
    return host.strip("[]"), int(port)


class PowerlogClient:
    """Commands to a power-log server, DIME's or ours."""

    def __init__(self, host: str, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self.address = f"{host}:{port}"
        self._host, self._port, self._timeout_s = host, port, timeout_s

    def ask(self, command: str) -> str:
        """The answer to one command. Raises ``EnergyError`` if there is none."""
        try:
            with socket.create_connection((self._host, self._port), self._timeout_s) as connection:
                connection.sendall(command.encode("ascii"))
                answer = connection.recv(MOST_BYTES)
        except OSError as error:
            problem = f"the power-log server {self.address} did not answer {command!r}: {error}"
            raise EnergyError(problem, "is `edgecut energy serve` running there?") from None
        if not answer:
            raise EnergyError(f"the power-log server {self.address} closed without answering {command!r}")
        return answer.decode("ascii", "replace").strip()

    def start(self, name: str) -> None:
        """Begin to log into the file ``name`` of the server. Raises ``EnergyError`` or ``InputError``."""
        if not is_log_name(name):
            raise InputError(
                f"{name!r} is no name of a power log", "write letters, digits, - and _, then .csv"
            )
        self._expect(f"start,{name}", STARTED)

    def stop(self) -> None:
        """End the log. Raises ``EnergyError``, also if the log broke off before."""
        self._expect("stop", STOPPED)

    def shutdown(self) -> None:
        """Wait until the file is whole; the server then takes the next ``start``. Raises ``EnergyError``."""
        self._expect("shutdown", ENDED)

    def time_ns(self) -> int | None:
        """The server's wall clock, or None from a server that does not offer it. Raises ``EnergyError``."""
        answer = self.ask("time")
        if re.fullmatch("[0-9]{1,20}", answer):
            return int(answer)
        if answer.startswith(BAD):
            return None
        raise EnergyError(f"the power-log server {self.address} told its time as {answer!r:.80}")

    def offset(self, rounds: int = 20) -> ClockOffset | None:
        """What to add to the server's clock to have this host's; None if the server does not tell its time."""
        if self.time_ns() is None:
            return None
        return measure_offset(lambda: self.time_ns() or 0, rounds)

    def _expect(self, command: str, wanted: str) -> None:
        answer = self.ask(command)
        if answer != wanted:
            problem = f"the power-log server {self.address} answered {answer!r:.300} to {command!r}"
            raise EnergyError(problem, "see what it printed")


def open_powerlog(argument: str, root: Path) -> Meter:
    """The meter of ``powerlog:HOST:PORT``; the server logs from now until the meter is closed."""
    return PowerlogMeter(PowerlogClient(*parse_address(argument)))


class PowerlogMeter(Meter):
    """Has another host log the power from opening to closing; the energy comes by merging afterwards.

    ``file``: the log's name over there. ``offset``: the clock of that host, or None if it does not tell.
    """

    domain = "what the other host's meter supplies"
    period_s = math.inf

    def __init__(self, client: PowerlogClient) -> None:
        """Raises ``EnergyError`` if the server does not begin to log."""
        self.name = f"powerlog:{client.address}"
        self.offset = client.offset()
        self.file = f"edgecut_{datetime.now(timezone.utc):%Y%m%dT%H%M%S_%f}.csv"
        self._client: PowerlogClient | None = client
        self._start_s: float | None = None
        client.start(self.file)

    @property
    def merge_command(self) -> str:
        """How the energy comes into a table, once the log has been fetched."""
        offset = f" --offset {self.offset.offset_s:.6f}" if self.offset else ""
        return f"edgecut energy merge --table TABLE.csv --power {self.file}{offset} -o MERGED.csv"

    def start(self) -> None:
        if self._start_s is not None:
            raise EnergyError(f"{self.name} is measuring already")
        self._start_s = time.monotonic()

    def stop(self) -> Reading:
        if self._start_s is None:
            raise EnergyError(f"{self.name} is not measuring")
        start_s, stop_s, self._start_s = self._start_s, time.monotonic(), None
        reason = f"the power is in {self.file} on the other host: {self.merge_command}"
        return Reading(math.nan, stop_s - start_s, 0, False, reason, start_s, stop_s)

    def close(self) -> None:
        """Have the log ended and written. Raises ``EnergyError`` if it broke off."""
        client, self._client = self._client, None
        if client:
            try:
                client.stop()
            finally:
                client.shutdown()
