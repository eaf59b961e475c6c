"""The clock of an NVIDIA desktop or server GPU: locked through NVML (nvidia-ml-py), freed on the way out.

NVML cannot say whether a clock was locked before, so the state to return to is the free clock.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from planner.errors import MissingDependencyError
from profiler.capability import Obstacle, installed
from profiler.clocks.domain import Clock, ClockError, Domain, GoneError, Setting
from profiler.cuda import find_gpu

_MHZ = 1_000_000
_CAP_SYS_ADMIN = 1 << 21  # what the driver asks of who sets a clock


@functools.cache
def _library() -> Any:
    """NVML, initialised for as long as the process lives: a driver that loses its last user frees clocks."""
    if not installed("pynvml"):
        raise MissingDependencyError("nvidia-ml-py", "setting a GPU's clock", "energy")
    library = importlib.import_module("pynvml")
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise ClockError(f"NVML cannot be used: {error}", "nvidia-smi") from None
    return library


class NvmlDomain(Domain):
    """A GPU by its UUID."""

    continuous = False

    def __init__(self, uuid: str, root: Path = Path("/")) -> None:
        if not uuid.startswith("GPU-"):
            raise ValueError(f"{uuid!r} is no GPU")
        self.where, self._root = uuid, root

    def frequencies_hz(self) -> tuple[int, ...]:
        """The graphics clocks that go with the highest memory clock."""
        try:
            memory = max(self._ask("nvmlDeviceGetSupportedMemoryClocks"))
            clocks = self._ask("nvmlDeviceGetSupportedGraphicsClocks", memory)
        except (ClockError, MissingDependencyError):
            return ()
        return tuple(sorted({int(mhz) * _MHZ for mhz in clocks}))

    def current_hz(self) -> int:
        return int(self._ask("nvmlDeviceGetClockInfo", _library().NVML_CLOCK_GRAPHICS)) * _MHZ

    def pin(self, hz: int) -> int:
        self._ask("nvmlDeviceSetGpuLockedClocks", hz // _MHZ, hz // _MHZ)
        return self.current_hz()

    def found(self) -> Setting:
        self._handle()
        return Setting(self.where)

    def restore(self, setting: Setting) -> None:
        self._ask("nvmlDeviceResetGpuLockedClocks")

    def obstacle(self) -> Obstacle | None:
        if not installed("pynvml"):
            return Obstacle("nvidia-ml-py is not installed", "pip install 'edgecut[energy]'")
        if not self.frequencies_hz():
            return Obstacle("the driver lists no clocks of this GPU", "nvidia-smi -q -d SUPPORTED_CLOCKS")
        if not _administrator(self._root):
            return Obstacle("a GPU's clock may be set by root alone", 'sudo -E env PATH="$PATH" edgecut ...')
        return None

    def lock_file(self, folder: Path) -> Path:
        return folder / f"{self.where}.lock"

    def _handle(self) -> Any:
        library = _library()
        try:
            return library.nvmlDeviceGetHandleByUUID(self.where)
        except library.NVMLError as error:
            raise GoneError(f"{self.where}: {error}") from None

    def _ask(self, function: str, *arguments: int) -> Any:
        library, handle = _library(), self._handle()
        try:
            return getattr(library, function)(handle, *arguments)
        except (library.NVMLError, AttributeError) as error:  # an old driver or library lacks functions
            denied = getattr(library, "NVMLError_NoPermission", ())
            remedy = (
                "run as root; in a container, with --cap-add SYS_ADMIN" if isinstance(error, denied) else ""
            )
            raise ClockError(
                f"{function.removeprefix('nvmlDevice')} of {self.where}: {error}", remedy
            ) from None


def nvml_clock(root: Path = Path("/")) -> Clock | None:
    """The clock of the GPU that CUDA calls its first; None without GPU or without NVML."""
    if find_gpu() is None or not installed("pynvml"):
        return None
    try:
        library = _library()
    except ClockError:
        return None
    try:
        handle = library.nvmlDeviceGetHandleByPciBusId(_pci_bus_id().encode())
        uuid = library.nvmlDeviceGetUUID(handle)
    except library.NVMLError:
        return None
    uuid = uuid.decode() if isinstance(uuid, bytes) else uuid
    return Clock("gpu", (NvmlDomain(uuid, root),)) if uuid.startswith("GPU-") else None


def _pci_bus_id() -> str:
    """Where CUDA's first device sits: NVML counts GPUs in another order, and hides none."""
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    device, text = ctypes.c_int(), ctypes.create_string_buffer(64)
    driver.cuInit(0)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetPCIBusId(text, len(text), device)
    return text.value.decode()


def _administrator(root: Path) -> bool:
    try:
        status = (root / "proc/self/status").read_text()
    except OSError:
        return not hasattr(os, "geteuid") or os.geteuid() == 0
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), "0")
    return bool(int(effective, 16) & _CAP_SYS_ADMIN)
