"""Settings of the C allocator: quick for the tensors of every run, sparing while weights are loaded.

glibc's alone; elsewhere these do nothing.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# glibc's mallopt parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30
_TUNED = {_MMAP_THRESHOLD: _LARGE, _TRIM_THRESHOLD: _LARGE, _TOP_PAD: 1 << 24}
_SPARING = {_MMAP_THRESHOLD: 1 << 17, _TRIM_THRESHOLD: 1 << 17, _TOP_PAD: 1 << 17}


def tune_allocator() -> bool:
    """Keep freed memory for the next tensor; False where it cannot be set.

    Mapped and unmapped on every run, large tensors cost more. Profiler and runtime both run under this, so
    that a number in a table holds for the deployment.
    """
    return _set(_TUNED)


@contextmanager
def sparing_allocator() -> Iterator[None]:
    """Large blocks go back to the system when they are freed, as a library's copies of weights are.

    Afterwards it is tuned as by ``tune_allocator``.
    """
    _set(_SPARING)
    return_memory()
    try:
        yield
    finally:
        tune_allocator()
        return_memory()


def return_memory() -> None:
    """Give what is free back to the system."""
    if libc := _libc():
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(settings: dict[int, int]) -> bool:
    libc = _libc()
    return libc is not None and all(bool(libc.mallopt(name, value)) for name, value in settings.items())


@functools.cache
def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):  # musl
        return None
