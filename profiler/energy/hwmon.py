"""Sensors on the board, through the kernel's hwmon: the INA3221 of a Jetson, INA2xx, AMD GPUs, batteries.

Files and units: the Linux kernel's Documentation/hwmon/sysfs-interface.rst. Jetsons before JetPack 5 have their
INA3221 under iio instead, in mW.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.errors import EnergyError, UnknownNameError
from profiler.capability import is_jetson
from profiler.energy.counter import Counter, CounterMeter, update_period_s
from profiler.energy.meter import ROOT, Meter, Probe
from profiler.energy.sampled import SampledMeter
from profiler.energy.sysfs import read_name, read_number

_IIO = "sys/bus/i2c/drivers/ina3221x"
# A rail that feeds the others: the input of a Jetson's module, a socket of amd_energy, a graphics card.
_TOTALS = ("VDD_IN", "POM_5V_IN", "Esocket", "card")
_INA3221_CHANNELS = 3  # beyond them its files are of shunts and of sums


@dataclass(frozen=True)
class Sensor:
    """One rail. The product of the numbers in ``files``, times ``unit``, is watts (joules for a counter)."""

    label: str
    files: tuple[Path, ...]
    unit: float

    def read(self) -> float:
        """Raises ``EnergyError``."""
        return math.prod(read_number(file) for file in self.files) * self.unit


@dataclass(frozen=True)
class Chip:
    """Sensors of one device. ``power`` in watts; ``energy``: counters in joules."""

    name: str
    folder: Path
    power: tuple[Sensor, ...]
    energy: tuple[Sensor, ...] = ()

    @property
    def period_s(self) -> float:
        """How long its conversions take, where it says so; else 0."""
        try:
            return read_number(self.folder / "update_interval") / 1e3
        except EnergyError:
            return 0.0


def chips(root: Path = ROOT) -> list[Chip]:
    """All devices that tell power or energy."""
    found = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = read_name(folder / "name") or folder.name
        found.append(Chip(name, folder, tuple(_power(folder, name)), tuple(_energy(folder))))
    for folder in sorted((root / _IIO).glob("*/iio:device*")):
        found.append(Chip("ina3221x", folder, tuple(_iio(folder))))
    return [chip for chip in found if chip.power or chip.energy]


def _power(folder: Path, chip: str) -> Iterator[Sensor]:
    """Of what a chip offers: its own product of current and voltage, its average, or the two measured apart."""
    for file in sorted(folder.glob("power*_input")) or sorted(folder.glob("power*_average")):
        yield Sensor(read_name(folder / f"{file.name.split('_')[0]}_label"), (file,), 1e-6)
    if any(folder.glob("power*_input")):
        return
    for current in sorted(folder.glob("curr*_input")):
        channel = _digits(current)
        voltage = folder / f"in{channel}_input"
        label = read_name(folder / f"in{channel}_label") or f"channel {channel}"
        aside = label.startswith("NC") or (chip.startswith("ina3221") and int(channel) > _INA3221_CHANNELS)
        if voltage.exists() and not aside:
            yield Sensor(label, (current, voltage), 1e-6)


def _energy(folder: Path) -> Iterator[Sensor]:
    for file in sorted(folder.glob("energy*_input")):
        yield Sensor(read_name(folder / f"energy{_digits(file)}_label"), (file,), 1e-6)


def _iio(folder: Path) -> Iterator[Sensor]:
    for file in sorted(folder.glob("in_power*_input")):
        channel = _digits(file)
        yield Sensor(read_name(folder / f"rail_name_{channel}") or f"channel {channel}", (file,), 1e-3)


def open_hwmon(argument: str = "", root: Path = ROOT) -> Meter:
    """The chip named ``argument``, by its name or its folder's; without a name, the only one there is."""
    found = chips(root)
    if not found:
        raise _unreadable(root)
    names = [chip.name if _names(found).count(chip.name) == 1 else chip.folder.name for chip in found]
    chosen = [chip for chip in found if argument in ("", chip.name, chip.folder.name)]
    if not chosen:
        raise UnknownNameError("hwmon chip", argument, names)
    if len(chosen) > 1:
        listed = ", ".join(f"{chip.name} ({chip.folder.name})" for chip in chosen)
        remedy = " or ".join(
            f"hwmon:{name}" for name, chip in zip(names, found, strict=True) if chip in chosen
        )
        raise EnergyError(f"several chips measure power: {listed}", f"choose {remedy}")
    chip = chosen[0]
    name = f"hwmon:{argument or chip.name}"
    if chip.energy:
        return _counting(name, chip)
    return _sampled(name, chip.name, chip.power, chip.period_s)


def open_jetson(argument: str = "", root: Path = ROOT) -> Meter:
    """The module of a Jetson: the rail that feeds it; where it has none, the sum of all rails.

    ``argument``: rails by name, joined by commas, to sum these instead.
    """
    found = [chip for chip in chips(root) if chip.name.startswith("ina3221")]
    rails = [rail for chip in found for rail in chip.power]
    if not rails:
        raise _unreadable(root)
    if argument:
        wanted, known = argument.split(","), [rail.label for rail in rails]
        for name in wanted:
            if name not in known:
                raise UnknownNameError("rail", name, known)
        rails = [rail for rail in rails if rail.label in wanted]
    period_s = max(chip.period_s for chip in found)
    return _sampled(f"jetson:{argument}" if argument else "jetson", "module", rails, period_s)


def _sampled(name: str, what: str, rails: Sequence[Sensor], period_s: float) -> Meter:
    rails = _not_nested(rails)
    return SampledMeter(name, _domain(what, rails), lambda: sum(rail.read() for rail in rails), period_s)


def _counting(name: str, chip: Chip) -> Meter:
    sensors = _not_nested(chip.energy)
    counters = [Counter(f"{chip.name} {sensor.label}".rstrip(), sensor.read) for sensor in sensors]
    period_s = max(update_period_s(counter) for counter in counters)
    return CounterMeter(name, _domain(chip.name, sensors), counters, period_s)


def _not_nested(rails: Sequence[Sensor]) -> list[Sensor]:
    """The rails that feed all others, if there are such; else all of them."""
    return [rail for rail in rails if rail.label.startswith(_TOTALS)] or list(rails)


def _domain(what: str, rails: Sequence[Sensor]) -> str:
    labels = ", ".join(rail.label for rail in rails if rail.label)
    return f"{what} ({labels})" if labels else what


def _unreadable(root: Path) -> EnergyError:
    missing = probe(root)
    return EnergyError(f"no power sensor can be read: {missing.detail}", missing.remedy)


def probe(root: Path = ROOT) -> Probe:
    """Whether any sensor can be read."""
    name = "hwmon"
    readable, refused = [], []
    for chip in chips(root):
        for sensor in chip.power + chip.energy:
            try:
                sensor.read()
            except EnergyError as error:
                if isinstance(error.__cause__, PermissionError):
                    refused.append(sensor.files[0])
            else:
                readable.append(f"{chip.name} {sensor.label}".rstrip())
    if readable:
        return Probe(name, True, f"sensors {', '.join(readable)}")
    if refused:
        pattern = "/" + str((refused[0].parent / "*_input").relative_to(root))
        return Probe(name, False, "the sensors may be read by root alone", f"sudo chmod a+r {pattern}")
    if is_jetson(root):
        return Probe(name, False, "this Jetson shows no INA3221", "sudo modprobe ina3221")
    return Probe(name, False, "no power sensor under /sys/class/hwmon", "use a meter outside the machine")


def _names(found: Sequence[Chip]) -> list[str]:
    return [chip.name for chip in found]


def _digits(file: Path) -> str:
    return "".join(filter(str.isdigit, file.name))
