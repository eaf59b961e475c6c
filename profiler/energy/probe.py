"""Whether each kind of meter works on this machine, and what would mend it where it does not."""

from __future__ import annotations

import os
from pathlib import Path

from profiler.capability import installed
from profiler.energy import hwmon, nvml, rapl
from profiler.energy.meter import EXTRA, ROOT, Probe


def probe(root: Path = ROOT) -> tuple[Probe, ...]:
    """Every kind of meter; each source is read once at most. ``root`` stands for the file system."""
    return nvml.probe(root), rapl.probe(root), hwmon.probe(root), serial_meter(root)


def serial_meter(root: Path = ROOT) -> Probe:
    """Hardkernel's SmartPower3, a supply that reports its power over USB. The port is not opened here."""
    name = "SmartPower3"
    ports = sorted((root / "dev").glob("ttyUSB*"))
    if not ports:
        return Probe(
            name, False, "no serial port /dev/ttyUSB*", "connect the meter's USB port to this machine"
        )
    shown = ", ".join("/" + str(port.relative_to(root)) for port in ports)
    if not installed("serial"):
        return Probe(name, False, f"{shown} is there, pyserial is not installed", EXTRA)
    if not any(os.access(port, os.R_OK | os.W_OK) for port in ports):
        return Probe(name, False, f"{shown} may not be opened", 'sudo usermod -aG dialout "$USER"')
    return Probe(name, True, f"{shown} can be opened; what is connected there shows when it is read")
