"""What computing costs the battery devices, metered or by their power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from planner.fleet import Fleet

FloatArray = NDArray[np.float64]


def active_powers(fleet: Fleet, metered_w: Mapping[str, float]) -> dict[str, float]:
    """Watts of the battery devices while they compute: as the fleet says, else the mean of what was metered."""
    powers = {}
    for device in fleet.devices:
        power = metered_w.get(device.name) if device.active_power_w is None else device.active_power_w
        if device.battery and power is not None:
            powers[device.name] = power
    return powers


def stage_energy(
    fleet: Fleet, devices: Iterable[str], latency_s: FloatArray, metered_j: FloatArray
) -> tuple[FloatArray, tuple[str, ...]]:
    """What computing costs the battery devices, like ``latency_s`` by way and bundle, and the unmetered ones.

    ``devices``: of each way.
    """
    energy_j = np.empty_like(latency_s)
    unmetered = {}
    for place, name in enumerate(devices):
        device, time = fleet.device(name), latency_s[place]
        own = np.zeros_like(time)
        if device.battery:
            power = np.nan if device.active_power_w is None else device.active_power_w
            own = np.where(np.isnan(metered_j[place]), power * time, metered_j[place])
            lacking = np.isnan(own) & ~np.isnan(time)
            own[lacking] = 0.0
            if lacking.any():
                unmetered[name] = True
        energy_j[place] = own + idle_power_w(fleet, name) * time
    return energy_j, tuple(unmetered)


def idle_power_w(fleet: Fleet, *busy: str) -> float:
    """Watts of the battery devices that wait while ``busy`` work."""
    return sum(device.idle_power_w for device in fleet.devices if device.battery and device.name not in busy)
