"""Where limits let layers run at all: bundles, devices, links, clocks and memory that they leave."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np

from planner.cost import CostModel
from planner.errors import InputError, UnknownNameError
from planner.fleet import Fleet
from planner.graph import BoolArray, IntArray
from planner.limits import Limits, Placement


def check_names(model: CostModel, limits: Limits) -> None:
    """Refuse devices and layers that are not there; `without` refuses links."""
    names = [device.name for device in model.fleet.devices]
    placed = (*limits.pins, *limits.forbidden)
    named = [*limits.max_memory_bytes, *limits.max_share, *limits.clocks_hz, *limits.without_devices]
    for name in (*named, *(each.device for each in placed)):
        if name not in names:
            raise UnknownNameError("device in the limits", name, names)
    _check_pins(limits)
    for device, clock_hz in limits.clocks_hz.items():
        known = {way.variant.frequency_hz for way in model.ways if way.device == device}
        if known and clock_hz not in known:
            listed = ", ".join(f"{hz / 1e6:g} MHz" for hz in sorted(hz for hz in known if hz))
            problem = f"{device} was not measured at {clock_hz / 1e6:g} MHz"
            raise InputError(problem, f"the table has {listed or 'only the clock as found'}")
    last = max([each.bundle.stop for each in placed], default=0)
    if max(last, limits.private_layers) > len(model.chain):
        asked = next((str(each) for each in placed if each.bundle.stop > len(model.chain)), "private_layers")
        raise InputError(f"{asked}: the chain has {len(model.chain)} layers", "layers count from 0")
    for device in limits.without_devices:
        if device in (model.fleet.source, model.fleet.sink):
            problem = f"{device} is the source or the sink and cannot be left out"
            raise InputError(problem, "forbid layers on it instead")


def _check_pins(limits: Limits) -> None:
    """Refuse layers that must run on two devices, or in two bundles."""
    for one, other in itertools.combinations(limits.pins, 2):
        apart = one.bundle.stop <= other.bundle.start or one.bundle.start >= other.bundle.stop
        both_whole = one.whole and other.whole and one.bundle != other.bundle
        if not apart and (one.device != other.device or both_whole):
            raise InputError(f"--pin {one} and --pin {other} contradict each other", "leave out one of them")


def without(fleet: Fleet, limits: Limits) -> Fleet:
    """The fleet without the links that the limits exclude, and those of excluded devices.

    Raises ``UnknownNameError`` for a link that is not there.
    """
    known = ["->".join(link.pair) for link in fleet.links]
    for name in limits.without_links:
        if name not in known:
            raise UnknownNameError("link in the limits", name, known)
    gone = set(limits.without_devices)
    links = tuple(
        link
        for link in fleet.links
        if "->".join(link.pair) not in limits.without_links and not gone & set(link.pair)
    )
    return replace(fleet, links=links)


def usable(model: CostModel, limits: Limits) -> BoolArray:
    """Which bundles the limits let be used, by way, start and stop."""
    layers = len(model.chain)
    start, stop = np.indices((layers, layers + 1))
    allowed = np.ones((len(model.ways), layers, layers + 1), dtype=bool)
    if limits.max_bundle_layers is not None:
        allowed &= stop - start <= limits.max_bundle_layers
    for place, (device, variant) in enumerate(model.ways):
        mine = allowed[place]
        if device in limits.without_devices or variant.frequency_hz != limits.clocks_hz.get(
            device, variant.frequency_hz
        ):
            mine[:] = False
        if device != model.fleet.source:
            mine &= start >= limits.private_layers
        for pin in limits.pins:
            mine &= _pinned(pin, device, start, stop)
        for each in limits.forbidden:
            if each.device == device and each.whole:
                mine[each.bundle.start, each.bundle.stop] = False
            elif each.device == device:
                mine &= (stop <= each.bundle.start) | (start >= each.bundle.stop)
        if memory_ceiling(model.fleet, limits, device) < 0:
            mine[:] = False
    return allowed


def _pinned(pin: Placement, device: str, start: IntArray, stop: IntArray) -> BoolArray:
    """Which bundles of the device a pin lets be used."""
    outside: BoolArray = (stop <= pin.bundle.start) | (start >= pin.bundle.stop)
    if device != pin.device:
        return outside
    own: BoolArray = (start == pin.bundle.start) & (stop == pin.bundle.stop)
    return outside | own | (not pin.whole)


def memory_ceiling(fleet: Fleet, limits: Limits, device: str) -> float:
    """Bytes that the stages of a device may take; inf without a limit."""
    found = fleet.device(device)
    most = limits.max_memory_bytes.get(device, found.memory_bytes)
    return math.inf if most is None else most - found.worker_memory_bytes
