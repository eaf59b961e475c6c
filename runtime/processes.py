"""A process that this one starts for a device: pinned, its messages in a file, ended with its parent.

Parent and child hold the two ends of the child's standard input: when it closes, however that came
about, the child ends (``on_parent_gone``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_TIMEOUT_S = 10.0


class DeviceProcess:
    """``python -m MODULE --cpus ...`` with ``threads`` for the numerical libraries."""

    def __init__(
        self, module: str, arguments: Sequence[str], cpus: Sequence[int], threads: int, log: Path
    ) -> None:
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "--cpus", ",".join(map(str, cpus))],
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)},
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                # Ctrl-C is the parent's to handle: it stops its children in order.
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """How it ended and what it said last; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return (f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}") + said

    @property
    def pid(self) -> int:
        return self._process.pid

    def hang_up(self) -> None:
        """Close its standard input, which ends it."""
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Return once it ended, or after ``timeout_s``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.hang_up()


def on_parent_gone(then: Callable[[], None]) -> None:
    """In the child: call ``then`` on a thread of its own when standard input closes."""

    def watch() -> None:
        while sys.stdin.buffer.read(1 << 10):
            pass
        then()

    threading.Thread(target=watch, daemon=True).start()


def pin(cpus: Sequence[int] | None) -> None:
    """Pin this process, before any library starts threads. Raises ``OSError`` where there is none of them."""
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
