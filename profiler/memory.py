"""How much host memory a bundle takes at its peak, as the kernel counts it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from profiler.allocator import return_memory

# Written to clear_refs, it sets the peak back to what is resident now (proc(5), Linux 4.0).
_RESET_PEAK = b"5"


class PeakMemory:
    """The most memory that this process held since ``start``, above what it held then.

    ::

        start: free what is left over ──► resident R ──► load, run ──► peak_bytes: highest resident - R

    Counted is every resident page: weights, activations, workspaces of libraries, code first used. The
    kernel keeps the count to within some hundred kilobytes per processor. Linux only.
    """

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self._process = process
        self._before_bytes: int | None = None

    def start(self) -> None:
        """Count from here. Memory freed earlier goes back to the system, or its reuse would not be seen."""
        gc.collect()
        return_memory()
        self._before_bytes = self._resident_bytes("VmRSS") if self._reset() else None

    def peak_bytes(self) -> int | None:
        """Bytes, at least 0; None before ``start``, and where the system does not offer it."""
        peak = self._resident_bytes("VmHWM")
        if self._before_bytes is None or peak is None:
            return None
        return max(peak - self._before_bytes, 0)

    def _reset(self) -> bool:
        try:
            file = os.open(self._process / "clear_refs", os.O_WRONLY)
        except OSError:  # not Linux, or a kernel or container without it
            return False
        try:
            os.write(file, _RESET_PEAK)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _resident_bytes(self, field: str) -> int | None:
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return None
        # Such as "VmHWM:     123456 kB"; the kernel's kB are 1024 bytes.
        found = next((line.split() for line in lines if line.startswith(f"{field}:")), [])
        return int(found[1]) * 1024 if len(found) == 3 and found[1].isdecimal() else None
