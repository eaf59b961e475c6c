"""A terminal for tests: a command on a pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 400.0
_CONTROL = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|[\r\n\b]|[^\x1b\r\n\b]+|\x1b")


class Screen:
    """What the control codes that rich writes leave of a text: ``lines``, of which the last ``height`` are in sight.

    ``cursor``: whether it is visible. Raises ``ValueError`` for a code it does not know.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines, self.row, self.column = [""], 0, 0
        self.cursor, self.bare = True, True  # bare: no control code so far

    def feed(self, text: str) -> None:
        for token in _CONTROL.finditer(text):
            if token[3]:
                self.bare = False
                self._control(token[1], token[2], token[3])
            elif token[0] == "\r":
                self.column = 0
            elif token[0] == "\n":
                self._down()
            elif token[0] in ("\b", "\x1b"):
                raise ValueError(f"a control character: {token[0]!r}")
            else:
                for character in token[0]:
                    self._put(character)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip()

    @property
    def seen(self) -> list[str]:
        return [line.rstrip() for line in self.lines[-self.height :]]

    def _put(self, character: str) -> None:
        if self.column == self.width:
            self._down()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _control(self, private: str, numbers: str, code: str) -> None:
        if code == "m":
            return
        if private and numbers == "25" and code in "hl":
            self.cursor = code == "h"
        elif code == "A":  # not above what is in sight
            self.row = max(self.row - int(numbers or 1), len(self.lines) - self.height, 0)
        elif code == "K" and numbers == "2":
            self.lines[self.row] = ""
        elif code == "J" and numbers == "2":
            top = max(len(self.lines) - self.height, 0)
            self.lines[top:] = [""] * len(self.lines[top:])
        elif code == "H" and not numbers:
            self.row, self.column = max(len(self.lines) - self.height, 0), 0
        else:
            raise ValueError(f"an unknown control code: {private}{numbers}{code}")


class Terminal:
    """A command on a pseudo-terminal of this size; standard output too, unless it goes elsewhere."""

    def __init__(
        self, command: Sequence[str], folder: Path, size: tuple[int, int] = (100, 40), **environment: str
    ) -> None:
        self.screen, self.written = Screen(*size), ""
        self._master, slave = pty.openpty()
        self.resize(*size)
        env = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
            env={**env, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        os.close(slave)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.width, self.screen.height = width, height

    def until(self, condition: Callable[[], object]) -> None:
        """Read on until it holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._read(deadline), f"it ended, and showed\n{self.screen.text}"

    def finish(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        os.close(self._master)
        return self.process.wait(PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing more came, after\n{self.screen.text}"
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            return False
        text = self._rest + data
        cut = _whole(text)
        self._rest = text[cut:]
        shown = text[:cut].decode()
        self.written += shown
        self.screen.feed(shown)
        return bool(data)

    _rest = b""


def _whole(data: bytes) -> int:
    """How much of it ends with a whole character, and with no control code begun."""
    escape = data.rfind(b"\x1b")
    end = len(data)
    if escape >= 0 and not re.match(rb"\x1b\[\??[\d;]*[A-Za-z]", data[escape:]):
        end = escape
    while end and end > len(data) - 4:
        try:
            data[:end].decode()
            return end
        except UnicodeDecodeError:
            end -= 1
    return end
