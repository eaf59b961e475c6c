"""DIME's power-log protocol, the server's side: logs a meter into files that clients name.

A name from the network never leaves the directory and never overwrites a file; a command is bounded in
length, a slow or silent client is hung up on, and whoever talks nonsense is answered ``bad message``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from pathlib import Path

from planner.errors import EdgecutError, EnergyError, InputError
from profiler.energy.log_file import LogWriter, Stamped
from profiler.energy.powerlog import BAD, ENDED, MOST_BYTES, STARTED, STOPPED, is_log_name
from profiler.energy.smartpower3 import describe
from profiler.energy.sources import Recorder, Source

_PATIENCE_S = 2.0  # for a whole command
_PAUSE_S = 0.2  # a command without an end of line is over when so long nothing follows
_MOST_CLIENTS = 16
_WHOLE = re.compile(rb"(?s)stop|shutdown|time|start,[^\n]*\.csv|.*\n")


class Log:
    """One file that a source is logged into, from opening to ``close``."""

    def __init__(self, open_source: Callable[[], Source], file: Path) -> None:
        """Raises what opening the source raises, ``StorageError``, or ``EnergyError`` if no power comes."""
        if file.exists():  # said before the meter is waited for; the writer decides
            raise EnergyError(f"{file.name} exists already", "choose another name")
        self.file = file
        self._writer: LogWriter | None = None
        self._early: list[Stamped] = []
        self._lock = threading.Lock()
        self._recorder = Recorder(open_source(), self._take)
        try:
            self._recorder.wait_first()
            with self._lock:  # the file is there once power has come: a mistake leaves none behind
                self._writer = LogWriter(file)
                self._writer.append(self._early)
        except BaseException:
            self._recorder.close()
            raise

    def _take(self, records: list[Stamped]) -> None:
        with self._lock:
            if self._writer:
                self._writer.append(records)
            else:
                self._early += records

    @property
    def rows(self) -> int:
        return self._writer.rows if self._writer else 0

    @property
    def failure(self) -> EdgecutError | None:
        """Why the log ended by itself, or None."""
        return self._recorder.failure

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the log ends by itself; whether it did."""
        return self._recorder.ended.wait(timeout_s)

    def summary(self) -> str:
        """What the file holds, in words."""
        faults = describe(self._recorder.source.faults)
        return f"{self.file}: {self.rows} rows" + (f"; left out: {faults}" if faults else "")

    def close(self) -> None:
        self._recorder.close()
        if self._writer:
            self._writer.close()


class PowerlogServer:
    """Answers commands until closed. Use as a context manager.

    ``said``: is told in words what happens. ``address``: where it listens.
    """

    def __init__(
        self,
        directory: Path,
        open_source: Callable[[], Source],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        insecure: bool = False,
        said: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Raises ``InputError`` beyond loopback unless ``insecure``, ``EnergyError`` if the port is taken."""
        if not insecure and not _is_loopback(host):
            problem = f"{host} can be reached from other machines, and whoever reaches it can start logs"
            raise InputError(problem, "add --insecure on a network you trust")
        self._directory, self._open_source, self._said = directory.resolve(), open_source, said
        self._log: Log | None = None
        self._lock = threading.Lock()
        try:
            self._server = _Server((host, port), self._answer)
        except (OSError, OverflowError) as error:
            raise EnergyError(f"cannot listen on {host}:{port}: {error}", "choose another --port") from None
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def _answer(self, command: bytes) -> str:
        """What is answered to one command; it never raises."""
        try:
            text = command.decode("ascii").strip()
        except UnicodeDecodeError:
            return BAD
        if text == "time":
            return str(time.time_ns())
        word, comma, name = text.partition(",")
        try:
            with self._lock:
                if word == "start" and comma:
                    return self._start(name)
                if text == "stop":
                    self._stop()
                    return STOPPED
                if text == "shutdown":
                    self._stop()
                    return ENDED
        except EdgecutError as error:
            self._said(f"{text!r}: {error.message}")
            return f"{BAD}: {error.message.replace(f'{self._directory}{os.sep}', '')}"
        return BAD

    def _start(self, name: str) -> str:
        if not is_log_name(name):
            raise InputError(f"{name!r:.80} is no name of a power log")
        if self._log and self._log.failure is None:
            raise EnergyError(f"{self._log.file.name} is being logged")
        with contextlib.suppress(EdgecutError):
            self._stop()
        self._log = Log(self._open_source, self._directory / name)
        self._said(f"logging into {self._log.file}")
        return STARTED

    def _stop(self) -> None:
        """End the log in progress, if any. Raises ``EnergyError`` if it had broken off before."""
        log, self._log = self._log, None
        if log:
            log.close()
            self._said(log.summary())
            if log.failure:
                raise EnergyError(f"{log.file.name} broke off after {log.rows} rows: {log.failure.message}")

    def close(self) -> None:
        """Stop listening; a log in progress is ended and whole."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        with self._lock, contextlib.suppress(EdgecutError):
            self._stop()

    def __enter__(self) -> PowerlogServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answer: Callable[[bytes], str]) -> None:
        self.answer = answer
        self.places = threading.BoundedSemaphore(_MOST_CLIENTS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)


class _Handler(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        if not self.server.places.acquire(blocking=False):
            return  # too many at once: hung up on
        try:
            command = self._command()
            if command:
                self.request.settimeout(_PATIENCE_S)
                self.request.sendall(self.server.answer(command).encode("ascii", "replace"))
        except OSError:
            pass  # the client is gone
        finally:
            self.server.places.release()

    def _command(self) -> bytes:
        """What the client says. DIME ends a command by nothing but waiting for the answer."""
        data, deadline_s = b"", time.monotonic() + _PATIENCE_S
        while len(data) < MOST_BYTES and not _WHOLE.fullmatch(data):
            wait_s = deadline_s - time.monotonic()
            if wait_s <= 0:
                break
            self.request.settimeout(min(wait_s, _PAUSE_S) if data else wait_s)
            try:
                more = self.request.recv(MOST_BYTES - len(data))
            except TimeoutError:
                break
            if not more:
                break
            data += more
        return data


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
