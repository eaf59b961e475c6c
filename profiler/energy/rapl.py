"""Energy counters of Intel and AMD processors, through the kernel's powercap.

A machine has one package zone a socket. Within a package lie its cores and uncore, so these add nothing;
DRAM lies beside it; psys, the whole platform, contains all of them and is therefore read only when asked for.
Zones and files: the Linux kernel's Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from planner.errors import EnergyError
from profiler.capability import processor_features
from profiler.energy.counter import Counter, CounterMeter
from profiler.energy.meter import ROOT, Meter, Probe
from profiler.energy.sysfs import read_name, read_number

# The registers move about once a millisecond (Intel SDM 15.10.1).
_PERIOD_S = 0.001
_ZONES = "sys/class/powercap"
_CHMOD = "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"
_OUTSIDE = "use a meter outside the machine"


@dataclass(frozen=True)
class Zone:
    """A power domain: its name, such as ``package-0``, and its folder."""

    name: str
    folder: Path

    def read_j(self) -> float:
        """Raises ``EnergyError``."""
        return read_number(self.folder / "energy_uj") / 1e6

    def counter(self) -> Counter:
        try:
            range_j = read_number(self.folder / "max_energy_range_uj") / 1e6
        except EnergyError:
            range_j = math.inf  # a counter that goes backwards is then taken for a fault, not for a wrap
        return Counter(f"RAPL {self.name}", self.read_j, range_j or math.inf)


def zones(root: Path = ROOT) -> list[Zone]:
    """All that the kernel shows. ``intel-rapl-mmio`` shows the packages a second time and is left out."""
    folders = sorted(counter.parent for counter in (root / _ZONES).glob("intel-rapl:*/energy_uj"))
    return [Zone(read_name(folder / "name") or folder.name, folder) for folder in folders]


def open_rapl(argument: str = "", root: Path = ROOT) -> Meter:
    """Packages and DRAM of all sockets; or the zones whose name starts with ``argument`` (``psys``, ``core``)."""
    found = zones(root)
    wanted = (argument,) if argument else ("package", "dram")
    chosen = [zone for zone in found if zone.name.startswith(wanted)]
    if not chosen:
        if found:
            names = ", ".join(dict.fromkeys(zone.name for zone in found))
            raise EnergyError(f"no RAPL zone {' or '.join(wanted)}; found {names}", f"rapl:{found[0].name}")
        missing = probe(root)
        raise EnergyError(f"RAPL cannot be read: {missing.detail}", missing.remedy)
    for zone in chosen:
        try:
            zone.read_j()
        except EnergyError as error:
            denied = isinstance(error.__cause__, PermissionError)
            raise EnergyError(error.message, _CHMOD if denied else _OUTSIDE) from error
    name = f"rapl:{argument}" if argument else "rapl"
    domain = f"processor ({', '.join(zone.name for zone in chosen)})"
    return CounterMeter(name, domain, [zone.counter() for zone in chosen], _PERIOD_S)


def probe(root: Path = ROOT) -> Probe:
    """Whether any zone can be read."""
    name = "RAPL"
    readable, refused, found = [], False, zones(root)
    for zone in found:
        try:
            zone.read_j()
        except EnergyError as error:
            refused |= isinstance(error.__cause__, PermissionError)
        else:
            readable.append(zone.name)
    if readable:
        return Probe(name, True, f"counters {', '.join(dict.fromkeys(readable))}")
    if refused:
        return Probe(name, False, "the counters may be read by root alone", _CHMOD)
    if found:
        return Probe(name, False, "the counters cannot be read", _OUTSIDE)
    features = processor_features(root / "proc/cpuinfo")
    if "hypervisor" in features:
        detail = "this virtual machine is shown no counters"
        return Probe(name, False, detail, "use the machine that hosts it")
    if "sse2" in features:
        return Probe(name, False, "no counters under /sys/class/powercap", "sudo modprobe intel_rapl_msr")
    return Probe(name, False, "only Intel and AMD processors under Linux have it")
