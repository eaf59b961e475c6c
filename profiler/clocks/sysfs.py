"""Clocks that the Linux kernel offers as files: processors (cpufreq) and a Jetson's GPU (devfreq).

A clock is held by setting its lower and upper limit to the same frequency. That works under every governor
and driver (intel_pstate has no ``userspace`` governor), and leaves the governor and boost as they were found.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from profiler.capability import Obstacle
from profiler.clocks.domain import Clock, ClockError, Domain, GoneError, Setting, hertz

_CPUFREQ = "sys/devices/system/cpu/cpufreq"
_DEVFREQ = "sys/class/devfreq"
# 17000000.gv11b, 57000000.gpu, 17000000.ga10b, gpu-gpc-0: Jetsons from Nano to Thor.
_JETSON_GPU = re.compile(r".*\.gpu|.*\.g[a-z]\d\d?b|gpu-gpc-0")
_VANISHED = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EBUSY)  # EBUSY: its processors are offline
# A governor may follow new limits only when it next looks.
_SETTLE_S, _LOOK_S = 0.1, 0.005
# Steps between the ends where the driver lists none, in multiples of 100 MHz.
_STEPS, _GRID_HZ = 4, 100_000_000


@dataclass(frozen=True)
class _Names:
    """What the kernel calls the files of a kind of clock, and the unit they count in."""

    minimum: str
    maximum: str
    current: str
    offered: tuple[str, ...]
    least: str
    most: str
    unit_hz: int


_CPU = _Names(
    "scaling_min_freq", "scaling_max_freq", "scaling_cur_freq",
    ("scaling_available_frequencies", "scaling_boost_frequencies"), "cpuinfo_min_freq", "cpuinfo_max_freq", 1000,
)  # fmt: skip
_GPU = _Names("min_freq", "max_freq", "cur_freq", ("available_frequencies",), "min_freq", "max_freq", 1)


def write(file: Path, text: str) -> None:
    """Write to a file that is there; the kernel answers a wrong value with ``OSError``."""
    handle = os.open(file, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


class SysfsDomain(Domain):
    """A cpufreq policy or a devfreq device. ``ValueError`` for any other folder."""

    def __init__(self, root: Path, where: str) -> None:
        parent, _, name = where.rpartition("/")
        if parent == _CPUFREQ and re.fullmatch(r"policy\d{1,5}", name):
            self._names = _CPU
        elif parent == _DEVFREQ and _JETSON_GPU.fullmatch(name):
            self._names = _GPU
        else:
            raise ValueError(f"{where!r} is no clock")
        self.where, self._root = where, root

    @property
    def folder(self) -> Path:
        return self._root / self.where

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        return not self._listed()

    def frequencies_hz(self) -> tuple[int, ...]:
        listed = self._listed()
        if listed:
            return listed
        names = self._names
        ends = [self._peek(name) for name in (names.least, "base_frequency", names.most)]
        known = sorted(each for each in ends if each)
        if not known:
            return ()
        step = (known[-1] - known[0]) / _STEPS
        between = (round((known[0] + step * k) / _GRID_HZ) * _GRID_HZ for k in range(1, _STEPS))
        return tuple(sorted({*known, *(hz for hz in between if known[0] < hz < known[-1])}))

    def _listed(self) -> tuple[int, ...]:
        """What the driver lists; boost frequencies only while boost is on."""
        found: set[int] = set()
        for name in self._names.offered:
            if name == "scaling_boost_frequencies" and _text(self.folder.parent / "boost") == "0":
                continue
            found |= {int(part) for part in _text(self.folder / name).split() if part.isdecimal()}
        return tuple(sorted(each * self._names.unit_hz for each in found if each))

    def current_hz(self) -> int:
        found = self._peek(self._names.current)
        return found if found is not None else self._read(self._names.maximum)

    def pin(self, hz: int) -> int:
        self._limit(hz, hz)
        if self.continuous:  # what it reads as current is then a mean of what was measured
            return self._read(self._names.maximum)
        until = time.monotonic() + _SETTLE_S
        while (real := self.current_hz()) != hz and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return real

    def found(self) -> Setting:
        minimum, maximum = self._read(self._names.minimum), self._read(self._names.maximum)
        return Setting(self.where, min(minimum, maximum), maximum)

    def restore(self, setting: Setting) -> None:
        if setting.minimum_hz is None or setting.maximum_hz is None:
            raise ClockError(f"{self.where}: the journal holds no limits")
        self._limit(setting.minimum_hz, setting.maximum_hz)

    def obstacle(self) -> Obstacle | None:
        files = [self.folder / name for name in (self._names.minimum, self._names.maximum)]
        if not self.frequencies_hz():
            return Obstacle(
                f"/{self.where} does not say which frequencies it offers", "use the clock as found"
            )
        if all(os.access(file, os.W_OK) for file in files):
            return None
        if os.access(files[0], os.R_OK) and hasattr(os, "geteuid") and os.geteuid() == 0:
            problem = f"/{self.where} is read-only here, as in a container"
            return Obstacle(problem, "run it outside the container, or with docker run --privileged")
        paths = " ".join(f"/{Path(self.where).parent}/{_pattern(self.where)}/{file.name}" for file in files)
        return Obstacle(
            f"the limits of /{self.where} may be written by root alone", f"sudo chmod a+w {paths}"
        )

    def lock_file(self, folder: Path) -> Path:
        return self.folder  # one for all users of the machine

    def _limit(self, low_hz: int, high_hz: int) -> None:
        """Set both limits in the order that never has the lower one above the upper one."""
        names = self._names
        low, high = (names.minimum, low_hz), (names.maximum, high_hz)
        now = self._peek(names.minimum)
        for name, hz in (low, high) if now is not None and now > high_hz else (high, low):
            try:
                write(self.folder / name, str(hz // names.unit_hz))
            except OSError as error:
                if error.errno in _VANISHED:
                    raise GoneError(f"/{self.where} is gone or offline") from None
                problem = f"the kernel refused {hertz(hz)} in /{self.where}/{name}: {error.strerror}"
                raise ClockError(problem, "see `edgecut clocks`") from None

    def _peek(self, name: str) -> int | None:
        text = _text(self.folder / name)
        return int(text) * self._names.unit_hz if text.isdecimal() else None

    def _read(self, name: str) -> int:
        if not (self.folder / name).exists():
            raise GoneError(f"/{self.where} is gone")
        found = self._peek(name)
        if found is None:
            raise ClockError(f"/{self.where}/{name} holds no frequency", "use the clock as found")
        return found


def _pattern(where: str) -> str:
    """All policies by one pattern: they are opened to a user together."""
    name = where.rpartition("/")[2]
    return "policy*" if name.startswith("policy") else name


def cpu_clock(root: Path, cpus: tuple[int, ...] | None = None) -> Clock | None:
    """The clock of the processors ``cpus`` (all, if None); None where the kernel offers none."""
    domains = []
    for folder in sorted((root / _CPUFREQ).glob("policy*"), key=lambda found: _number(found.name)):
        related = _text(folder / "related_cpus") or _text(folder / "affected_cpus")
        members = {int(part) for part in related.split() if part.isdecimal()} or {_number(folder.name)}
        if not _text(folder / _CPU.maximum):
            continue  # all its processors are offline
        if _number(folder.name) >= 0 and (cpus is None or members & set(cpus)):
            domains.append(SysfsDomain(root, f"{_CPUFREQ}/{folder.name}"))
    return Clock("cpu", tuple(domains)) if domains else None


def jetson_gpu_clock(root: Path) -> Clock | None:
    """The clock of a Jetson's GPU; None where there is none."""
    names = sorted(folder.name for folder in (root / _DEVFREQ).glob("*"))
    found = [name for name in names if _JETSON_GPU.fullmatch(name)]
    return Clock("gpu", (SysfsDomain(root, f"{_DEVFREQ}/{found[0]}"),)) if found else None


def boost(root: Path) -> str:
    """ "on" or "off", or "" where the processors have no switch for it."""
    if text := _text(root / "sys/devices/system/cpu/intel_pstate/no_turbo"):
        return "off" if text == "1" else "on"
    text = _text(root / _CPUFREQ / "boost")
    return {"0": "off", "1": "on"}.get(text, "")


def _number(name: str) -> int:
    digits = name.removeprefix("policy")
    return int(digits) if digits.isdecimal() else -1


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
