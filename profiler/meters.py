"""What can measure energy on this machine: probes only, which read each source once at most.

``root`` stands for the file system, so that every kind of machine can be described in a test.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.capability import gpu_obstacle, installed, is_jetson, processor_features

_EXTRA = "pip install 'edgecut[energy]'"
_ROOT = Path("/")


@dataclass(frozen=True)
class Meter:
    """A way to measure energy. ``remedy``: what would mend it, one command where one does; else empty."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


def probe(root: Path = _ROOT) -> tuple[Meter, ...]:
    """Every kind of meter, and whether it works here."""
    return nvml(root), rapl(root), hwmon(root), serial_meter(root)


def nvml(root: Path = _ROOT) -> Meter:
    """NVIDIA's management library: the whole board of a desktop or server GPU."""
    name = "NVML"
    if is_jetson(root):
        return Meter(name, False, "gives no power on a Jetson; its sensors are under hwmon")
    lacking = gpu_obstacle(root)
    if lacking:
        return Meter(name, False, lacking.problem, lacking.remedy)
    if not installed("pynvml"):
        return Meter(name, False, "nvidia-ml-py is not installed", _EXTRA)
    try:
        library = importlib.import_module("pynvml")
        library.nvmlInit()
        try:
            return _nvml_meter(name, library, library.nvmlDeviceGetHandleByIndex(0))
        finally:
            library.nvmlShutdown()
    except Exception as error:  # a driver too old lacks functions, and each fails in its own way
        return Meter(
            name,
            False,
            f"the driver gives no power: {error}",
            "nvidia-smi --query-gpu=power.draw --format=csv",
        )


def _nvml_meter(name: str, library: Any, gpu: Any) -> Meter:
    """Counts energy from Volta on; older GPUs give power alone."""
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(gpu)
        return Meter(name, True, "energy counter of the GPU")
    except library.NVMLError:
        power_w = library.nvmlDeviceGetPowerUsage(gpu) / 1000
        return Meter(name, True, f"power of the GPU, {power_w:.1f} W now; it counts no energy")


def rapl(root: Path = _ROOT) -> Meter:
    """The processor's own energy counters (Intel and AMD), through the kernel's powercap."""
    name = "RAPL"
    counters = sorted((root / "sys/class/powercap").glob("intel-rapl*/energy_uj"))
    zones, refused = [], False
    for counter in counters:
        try:
            int(counter.read_text())
        except PermissionError:
            refused = True
        except (OSError, ValueError):
            continue
        else:
            zones.append(_text(counter.with_name("name")) or counter.parent.name)
    if zones:
        return Meter(name, True, f"counters {', '.join(dict.fromkeys(zones))}")
    if refused:
        command = "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"
        return Meter(name, False, "the counters may be read by root alone", command)
    if counters:
        return Meter(name, False, "the counters cannot be read", "use a meter outside the machine")
    features = processor_features(root / "proc/cpuinfo")
    if "hypervisor" in features:
        return Meter(
            name, False, "this virtual machine is shown no counters", "use the machine that hosts it"
        )
    if "sse2" in features:
        return Meter(name, False, "no counters under /sys/class/powercap", "sudo modprobe intel_rapl_msr")
    return Meter(name, False, "only Intel and AMD processors under Linux have it")


def hwmon(root: Path = _ROOT) -> Meter:
    """Power sensors on the board: INA3221 of a Jetson, INA2xx of other boards, batteries."""
    name = "hwmon"
    sensors, refused = [], []
    for what, files in _sensors(root):
        try:
            for file in files:
                int(file.read_text())
        except PermissionError:
            refused.append(files[0])
        except (OSError, ValueError):
            continue
        else:
            sensors.append(what)
    if sensors:
        return Meter(name, True, f"sensors {', '.join(sensors)}")
    if refused:
        pattern = "/" + str((refused[0].parent / "*_input").relative_to(root))
        return Meter(name, False, "the sensors may be read by root alone", f"sudo chmod a+r {pattern}")
    if is_jetson(root):
        return Meter(name, False, "this Jetson shows no INA3221", "sudo modprobe ina3221")
    return Meter(name, False, "no power sensor under /sys/class/hwmon", "use a meter outside the machine")


def _sensors(root: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Each sensor's name, and the files that give its power: one of power, or current and voltage."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        chip = _text(folder / "name") or folder.name
        for power in sorted(folder.glob("power*_input")) or sorted(folder.glob("power*_average")):
            label = _text(folder / f"{power.name.split('_')[0]}_label")
            yield f"{chip} {label}".rstrip(), (power,)
        for current in sorted(folder.glob("curr*_input")):
            channel = _digits(current.name)
            voltage = folder / f"in{channel}_input"
            if voltage.exists():
                label = _text(folder / f"in{channel}_label") or f"channel {channel}"
                yield f"{chip} {label}", (current, voltage)
    # Jetsons before JetPack 5 have their rails here.
    for power in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/in_power*_input")):
        channel = _digits(power.name)
        label = _text(power.with_name(f"rail_name_{channel}")) or f"channel {channel}"
        yield f"ina3221x {label}", (power,)


def serial_meter(root: Path = _ROOT) -> Meter:
    """Hardkernel's SmartPower3, a supply that reports its power over USB. The port is not opened here."""
    name = "SmartPower3"
    ports = sorted((root / "dev").glob("ttyUSB*"))
    if not ports:
        return Meter(
            name, False, "no serial port /dev/ttyUSB*", "connect the meter's USB port to this machine"
        )
    shown = ", ".join("/" + str(port.relative_to(root)) for port in ports)
    if not installed("serial"):
        return Meter(name, False, f"{shown} is there, pyserial is not installed", _EXTRA)
    if not any(os.access(port, os.R_OK | os.W_OK) for port in ports):
        return Meter(name, False, f"{shown} may not be opened", 'sudo usermod -aG dialout "$USER"')
    return Meter(name, True, f"{shown} can be opened; what is connected there shows when it is read")


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
