"""The GPU: what it is, and buffers on it, by the driver's primary context, which PyTorch shares.

Which GPU is here is asked of the driver itself, so that it can be known where pycuda is not installed.
Work on it goes through pycuda: one context for the process, made current for as long as it is needed.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.chain import TensorSpec
from planner.errors import BundleError, MissingDependencyError

if TYPE_CHECKING:
    from profiler.runner import Array

# CUdevice_attribute of the driver API.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    """The first visible GPU. ``driver``: the newest CUDA version that its driver runs, such as 12.8.
    ``bus_id``: where it sits on the PCI bus, by which other libraries know it."""

    name: str
    capability: tuple[int, int]
    driver: str
    bus_id: str = ""

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}, CUDA driver {self.driver}"


@functools.cache
def find_gpu() -> Gpu | None:
    """The first NVIDIA GPU that the driver shows this process; None without GPU or driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name, bus_id = (ctypes.create_string_buffer(256) for _ in range(2))
    asked: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, len(name), device),
        lambda: driver.cuDeviceGetPCIBusId(bus_id, len(bus_id), device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(ask() for ask in asked):
        return None
    thousands, rest = divmod(version.value, 1000)
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=(major.value, minor.value),
        driver=f"{thousands}.{rest // 10}",
        bus_id=bus_id.value.decode(errors="replace"),
    )


def require_gpu(what: str) -> Gpu:
    """The GPU, or ``BundleError``: ``what`` needs one."""
    gpu = find_gpu()
    if gpu is None:
        raise BundleError(
            f"{what} needs an NVIDIA GPU and its driver; none is visible here",
            "run it on the machine with the GPU, or use a backend without one: torch, onnxruntime",
        )
    return gpu


@functools.cache
def _primary() -> tuple[Any, Any]:
    """pycuda's driver module and the primary context, retained for the life of the process."""
    require_gpu("running on CUDA")
    try:
        driver = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pycuda", "running an engine on the GPU", "cuda") from error
    except ImportError as error:  # it was built for another driver or another CUDA
        raise BundleError(f"pycuda does not load: {error}", "pip install --no-cache-dir pycuda") from error
    try:
        driver.init()
        return driver, driver.Device(0).retain_primary_context()
    except driver.Error as error:
        raise BundleError(f"the GPU cannot be used: {error}", "does nvidia-smi show it?") from error


@contextmanager
def current() -> Iterator[Any]:
    """The primary context current in this thread; yields pycuda's driver module.

    Raises ``BundleError`` without a GPU or when a CUDA call fails, ``MissingDependencyError`` without pycuda.
    """
    driver, context = _primary()
    context.push()
    try:
        yield driver
    except driver.MemoryError as error:
        raise BundleError(f"out of GPU memory: {error}", "use a smaller batch or bundle") from error
    except driver.Error as error:
        raise BundleError(f"CUDA failed: {error}", "does nvidia-smi show the GPU?") from error
    finally:
        context.pop()


class Buffers:
    """Device memory for the inputs and outputs of one bundle, with page-locked arrays to copy from and to.

    Make, use and free it inside ``current()``. Copies and kernels are queued on one stream; ``run``
    returns when the event after the last copy has happened.
    """

    def __init__(self, driver: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self._driver = driver
        self._stream = driver.Stream()
        self._done = driver.Event(driver.event_flags.DISABLE_TIMING)
        self._device: list[Any] = []
        self._host: list[Array] = []
        self._count = len(inputs)
        self.nbytes = sum(spec.nbytes for spec in (*inputs, *outputs))
        for spec in (*inputs, *outputs):
            self._device.append(driver.mem_alloc(spec.nbytes))
            self._host.append(driver.pagelocked_empty(spec.shape, np.dtype(spec.dtype)))

    @property
    def addresses(self) -> list[int]:
        """Where each input, then each output, lies on the device."""
        return [int(each) for each in self._device]

    def run(self, arrays: Sequence[Array], enqueue: Callable[[int], bool]) -> tuple[Array, ...]:
        """Copy ``arrays`` in, let ``enqueue`` queue its kernels on the stream's handle, copy the outputs out."""
        for place, array in enumerate(arrays):
            np.copyto(self._host[place], array)
            self._driver.memcpy_htod_async(self._device[place], self._host[place], self._stream)
        if not enqueue(self._stream.handle):
            raise BundleError("the engine refuses to run", "run edgecut build again, or use another backend")
        for place in range(self._count, len(self._device)):
            self._driver.memcpy_dtoh_async(self._host[place], self._device[place], self._stream)
        self._done.record(self._stream)
        self._done.synchronize()
        return tuple(array.copy() for array in self._host[self._count :])

    def free(self) -> None:
        self._stream.synchronize()
        for memory in self._device:
            memory.free()
        # Page-locked memory goes with its array, and only while the context is current.
        self._device.clear()
        self._host.clear()
        del self._stream, self._done
