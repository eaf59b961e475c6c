"""Locks on files between threads and processes: the kernel's, which end with whoever has them.

They are ``flock``'s: they belong to an opening of a file, so two of one process exclude each other too.
Without them (Windows, some network file systems) a folder is for one process at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(handle: int, exclusive: bool) -> bool:
    """Lock an open file until it is closed; False if another's lock is in the way."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    return True


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait until nobody else is in this context for ``folder``, which is made. Raises ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
