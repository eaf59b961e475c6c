"""Numbers and names out of the kernel's sysfs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from planner.errors import EnergyError

_LONGEST = 64  # bytes; no number of the kernel's is longer


def read_number(file: Path) -> int:
    """The whole number that a file holds, read anew. Raises ``EnergyError`` saying what came instead."""
    try:
        # Without Python's buffers and codecs, which cost several times as much as the kernel's part.
        descriptor = os.open(file, os.O_RDONLY)
        try:
            text = os.read(descriptor, _LONGEST)
        finally:
            os.close(descriptor)
    except PermissionError as error:
        raise EnergyError(f"{file} may not be read by this user", f"sudo chmod a+r {file}") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise EnergyError(f"{file} has vanished", "is the device still connected?") from error
        raise EnergyError(f"{file} cannot be read: {error.strerror}") from error
    try:
        return int(text)
    except ValueError as error:
        raise EnergyError(f"{file} holds no number: {text.decode(errors='replace').strip()!r}") from error


def read_name(file: Path) -> str:
    """A line of text; empty if there is none."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
