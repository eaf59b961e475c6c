"""A Jetson's power mode (nvpmodel): which processors are online and how far every clock may go."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from planner.errors import UnknownNameError
from profiler.clocks.domain import ClockError

_ROOT = Path("/")
_TIMEOUT_S = 30.0
_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")


@dataclass(frozen=True)
class PowerMode:
    """A mode by its number and the name that the board gives it: 0 MAXN."""

    number: int
    name: str

    def __str__(self) -> str:
        return f"{self.number} {self.name}"


def power_modes(root: Path = _ROOT) -> tuple[PowerMode, ...]:
    """The modes that this board can be put into; none on anything but a Jetson."""
    try:
        text = (root / "etc/nvpmodel.conf").read_text(errors="replace")
    except OSError:
        return ()
    return tuple(PowerMode(int(number), name) for number, name in _MODE.findall(text))


def power_mode(root: Path = _ROOT) -> PowerMode | None:
    """The mode the board is in; None where there is no nvpmodel. Raises ``ClockError`` if it does not say."""
    if not _program(root).exists():
        return None
    said = _run(root, "-q")
    name = re.search(r"NV Power Mode:\s*(\S+)", said)
    number = re.search(r"^\s*(\d+)\s*$", said, re.MULTILINE)
    if not name or not number:
        raise ClockError(f"nvpmodel -q does not name a mode: {said.strip()[:200]!r}", "sudo nvpmodel -q")
    return PowerMode(int(number[1]), name[1])


def set_power_mode(number: int, root: Path = _ROOT) -> PowerMode:
    """Put the board into a mode and give the one it was in before. It stays there, over a reboot too.

    Raises ``UnknownNameError`` for a mode it lacks, ``ClockError`` where it refuses, or wants a reboot.
    """
    before = power_mode(root)
    if before is None:
        raise ClockError("there is no nvpmodel here", "power modes are a Jetson's: use --frequency instead")
    known = power_modes(root)
    if known and number not in {mode.number for mode in known}:
        raise UnknownNameError("power mode", str(number), map(str, known))
    said = _run(root, "-m", str(number))
    after = power_mode(root)
    if after is None or after.number != number:
        raise ClockError(
            f"the board is still in mode {after}: {said.strip()[:200]}",
            f"sudo nvpmodel -m {number}, which asks whether to reboot where that is needed",
        )
    return before


def _program(root: Path) -> Path:
    return root / "usr/sbin/nvpmodel"


def _run(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [_program(root), *arguments],
            stdin=subprocess.DEVNULL,  # a question whether to reboot is answered by no
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClockError(f"nvpmodel cannot be run: {error}", "sudo nvpmodel -q") from None
    said = done.stdout + done.stderr
    if done.returncode:
        command = " ".join(["nvpmodel", *arguments])
        raise ClockError(f"{command} failed: {said.strip()[-200:]}", f"sudo {command}")
    return said
