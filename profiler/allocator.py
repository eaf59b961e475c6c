"""Settings of the C allocator that keep large tensors from being mapped and unmapped on every run."""

from __future__ import annotations

import ctypes
import sys

# glibc's mallopt parameters, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30


def tune_allocator() -> bool:
    """Keep freed memory for the next tensor (glibc only); False where it cannot be set.

    Profiler and runtime both run under it, so that a number in a table holds for the deployment.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    settings = ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 1 << 24))
    return all(bool(mallopt(name, value)) for name, value in settings)
