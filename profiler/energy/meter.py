"""What every energy meter does, and the meters by name.

Naming a meter imports none; adding one is one file and one line here.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from planner.errors import EdgecutError, EnergyError, UnknownNameError
from profiler.capability import is_jetson

ROOT = Path("/")
EXTRA = "pip install 'edgecut[energy]'"

# Each a factory (argument, root) -> Meter; the argument is what follows the first colon of a spec.
_METERS = {
    "hwmon": "profiler.energy.hwmon:open_hwmon",
    "jetson": "profiler.energy.hwmon:open_jetson",
    "nvml": "profiler.energy.nvml:open_nvml",
    "powerlog": "profiler.energy.powerlog:open_powerlog",
    "rapl": "profiler.energy.rapl:open_rapl",
    "smartpower3": "profiler.energy.logmeter:open_smartpower3",
}
NAMES = ("auto", *_METERS)


@dataclass(frozen=True)
class Probe:
    """Whether a kind of meter works here. ``remedy``: what would mend it, one command where one does; else empty."""

    name: str
    works: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Reading:
    """Energy of one window.

    ``samples``: how often the meter had something new in it. Where ``valid`` is false, ``reason`` says why
    and ``energy_j`` is NaN. ``start_s`` and ``stop_s``: the window on ``time.monotonic()``.
    """

    energy_j: float
    duration_s: float
    samples: int
    valid: bool = True
    reason: str = ""
    start_s: float = math.nan
    stop_s: float = math.nan

    @property
    def power_w(self) -> float:
        """Mean power of the window."""
        return self.energy_j / self.duration_s if self.duration_s > 0 else math.nan


class Meter(ABC):
    """Reads the energy between ``start()`` and ``stop()``; opened once, used for many windows in turn.

    ``domain``: what the energy covers, for people. ``period_s``: how often the meter has something new.
    What goes wrong within a window is told by its reading (``valid``, ``reason``), never raised.
    """

    name: str
    domain: str
    period_s: float

    @abstractmethod
    def start(self) -> None:
        """Begin a window. Raises ``EnergyError`` if one is open already."""

    @abstractmethod
    def stop(self) -> Reading:
        """End the window. Raises ``EnergyError`` if none is open."""

    def close(self) -> None:  # noqa: B027 - most meters hold nothing open
        """Give back what the meter holds; it may be called again."""

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SumMeter(Meter):
    """Several meters whose domains do not overlap, read over the same window."""

    def __init__(self, parts: Sequence[Meter]) -> None:
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in parts)
        self.domain = " + ".join(part.domain for part in parts)
        self.period_s = max(part.period_s for part in parts)

    def start(self) -> None:
        for part in self.parts:
            part.start()

    def stop(self) -> Reading:
        """Valid if every part is; its samples are those of the part that has fewest."""
        # In the order of starting, so that all windows are equally long.
        readings = [part.stop() for part in self.parts]
        faults = [
            f"{part.name}: {reading.reason}"
            for part, reading in zip(self.parts, readings, strict=True)
            if not reading.valid
        ]
        return Reading(
            energy_j=math.nan if faults else sum(reading.energy_j for reading in readings),
            duration_s=max(reading.duration_s for reading in readings),
            samples=min(reading.samples for reading in readings),
            valid=not faults,
            reason="; ".join(faults),
            start_s=readings[0].start_s,
            stop_s=readings[-1].stop_s,
        )

    def close(self) -> None:
        for part in self.parts:
            part.close()


def open_meter(spec: str, root: Path = ROOT) -> Meter:
    """The meter that ``spec`` names: ``NAME`` or ``NAME:ARGUMENT``, several joined by ``+``, or ``auto``.

    ``auto``: the rails of a Jetson; elsewhere the NVIDIA GPU and the processor, as far as they can be read;
    failing both, a power sensor on the board if there is but one. ``root`` stands for the file system.
    Raises ``UnknownNameError``, ``MissingDependencyError``, or ``EnergyError`` with what would mend it.
    """
    if spec == "auto":
        return _automatic(root)
    names = spec.split("+")
    if len(set(names)) < len(names):
        raise EnergyError(f"the meters {spec} would count the same energy twice", "name each meter once")
    return _open_all([_factory(name, root) for name in names])


def _factory(spec: str, root: Path) -> Callable[[], Meter]:
    name, _, argument = spec.partition(":")
    if name not in _METERS:
        raise UnknownNameError("meter", name, NAMES)
    module, _, attribute = _METERS[name].partition(":")
    return lambda: getattr(importlib.import_module(module), attribute)(argument, root)


def _open_all(factories: Sequence[Callable[[], Meter]]) -> Meter:
    opened: list[Meter] = []
    try:
        for factory in factories:
            opened.append(factory())
    except BaseException:
        for meter in opened:
            meter.close()
        raise
    return opened[0] if len(opened) == 1 else SumMeter(opened)


def _automatic(root: Path) -> Meter:
    faults = []
    choices = (("jetson",),) if is_jetson(root) else (("nvml", "rapl"), ("hwmon",))
    for names in choices:
        opened = []
        for name in names:
            try:
                opened.append(_factory(name, root)())
            except EdgecutError as error:
                faults.append((name, error))
        if opened:
            return opened[0] if len(opened) == 1 else SumMeter(opened)
    said = "; ".join(f"{name}: {error.message}" for name, error in faults)
    remedy = next((error.remedy for _, error in faults if error.remedy), "edgecut doctor")
    raise EnergyError(f"no energy meter works here ({said})", remedy)
