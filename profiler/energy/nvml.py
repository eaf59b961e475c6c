"""NVIDIA GPUs, through the driver's management library: the whole board, its memory included.

From Volta on the driver counts energy in mJ, and a window is the difference of two counts; older GPUs tell
their power alone, which is sampled. Functions and units: NVML API Reference, Device Queries.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from planner.errors import EnergyError, MissingDependencyError
from profiler.capability import gpu_obstacle, installed, is_jetson
from profiler.cuda import find_gpu
from profiler.energy.counter import Counter, CounterMeter, update_period_s
from profiler.energy.meter import EXTRA, ROOT, Meter, Probe, Reading
from profiler.energy.sampled import SampledMeter

_POWER_PERIOD_S = 0.1  # GPUs without a counter refresh their power some ten times a second
_TRY = "nvidia-smi --query-gpu=power.draw --format=csv"
_TEGRA = "gives no power on a Jetson; its sensors are under hwmon"


class NvmlMeter(Meter):
    """Holds the library open for the meter that does the reading."""

    def __init__(self, library: Any, meter: Meter) -> None:
        self.name, self.domain, self.period_s = meter.name, meter.domain, meter.period_s
        self._library: Any = library
        self._meter = meter

    def start(self) -> None:
        self._meter.start()

    def stop(self) -> Reading:
        return self._meter.stop()

    def close(self) -> None:
        self._meter.close()
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library = None


def open_nvml(argument: str = "", root: Path = ROOT) -> Meter:
    """The GPU with NVML's index ``argument``; without one, the GPU that CUDA shows this process first."""
    if is_jetson(root):
        raise EnergyError(f"NVML {_TEGRA}", "--meter jetson")
    try:
        library = importlib.import_module("pynvml")
    except ImportError as error:
        raise MissingDependencyError(
            "nvidia-ml-py", "reading the energy of an NVIDIA GPU", "energy"
        ) from error
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        lacking = gpu_obstacle(root)
        remedy = lacking.remedy if lacking else _TRY
        raise EnergyError(f"the NVIDIA driver cannot be asked for energy: {error}", remedy) from error
    try:
        name = f"nvml:{argument}" if argument else "nvml"
        return NvmlMeter(library, _open(name, argument, library))
    except BaseException:
        library.nvmlShutdown()
        raise


def _open(name: str, argument: str, library: Any) -> Meter:
    try:
        gpu = _handle(argument, library)
        domain = f"GPU ({_text(library.nvmlDeviceGetName(gpu))})"
        try:
            library.nvmlDeviceGetTotalEnergyConsumption(gpu)
        except library.NVMLError:
            library.nvmlDeviceGetPowerUsage(gpu)
            power = _reader(library, library.nvmlDeviceGetPowerUsage, gpu)
            return SampledMeter(name, domain, power, _POWER_PERIOD_S)
    except library.NVMLError as error:
        raise EnergyError(f"this GPU tells neither energy nor power: {error}", _TRY) from error
    energy = Counter(domain, _reader(library, library.nvmlDeviceGetTotalEnergyConsumption, gpu))
    return CounterMeter(name, domain, [energy], update_period_s(energy))


def _handle(argument: str, library: Any) -> Any:
    if argument:
        count = library.nvmlDeviceGetCount()
        if not argument.isdecimal() or int(argument) >= count:
            known = ", ".join(f"nvml:{index}" for index in range(count)) or "none"
            raise EnergyError(
                f"there is no GPU {argument!r}; {count} are known to the driver", f"use {known}"
            )
        return library.nvmlDeviceGetHandleByIndex(int(argument))
    gpu = find_gpu()  # CUDA has an order of its own and heeds CUDA_VISIBLE_DEVICES; NVML does neither
    if gpu and gpu.bus_id:
        return library.nvmlDeviceGetHandleByPciBusId(gpu.bus_id.encode())
    return library.nvmlDeviceGetHandleByIndex(0)


def _reader(library: Any, query: Any, gpu: Any) -> Any:
    """Millijoules or milliwatts as SI, NVML's exceptions as ours."""

    def read() -> float:
        try:
            return float(query(gpu)) / 1000
        except library.NVMLError as error:
            raise EnergyError(f"the GPU could not be read: {error}") from error

    return read


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def probe(root: Path = ROOT) -> Probe:
    """Whether the GPU tells energy or power."""
    name = "NVML"
    if is_jetson(root):
        return Probe(name, False, _TEGRA)
    lacking = gpu_obstacle(root)
    if lacking:
        return Probe(name, False, lacking.problem, lacking.remedy)
    if not installed("pynvml"):
        return Probe(name, False, "nvidia-ml-py is not installed", EXTRA)
    try:
        library = importlib.import_module("pynvml")
        library.nvmlInit()
        try:
            return _describe(name, library, _handle("", library))
        finally:
            library.nvmlShutdown()
    except Exception as error:  # a driver too old lacks functions, and each fails in its own way
        return Probe(name, False, f"the driver gives no power: {error}", _TRY)


def _describe(name: str, library: Any, gpu: Any) -> Probe:
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(gpu)
        return Probe(name, True, "energy counter of the GPU")
    except library.NVMLError:
        power_w = library.nvmlDeviceGetPowerUsage(gpu) / 1000
        return Probe(name, True, f"power of the GPU, {power_w:.1f} W now; it counts no energy")
