"""Devices that may stand in for each other: the same measurements, the same links, the same limits."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from planner.cost import CostModel
from planner.graph import BoolArray
from planner.limits import Limits


def kinds_of(model: CostModel, usable: BoolArray, limits: Limits) -> tuple[tuple[str, ...], ...]:
    """The fleet's devices by kind, in their order; the source and the sink are kinds of their own.

    Two devices are of a kind where swapping their names changes nothing, so any two plans that differ only in
    such names cost the same and keep the same limits.
    """
    fleet = model.fleet
    links = {link.pair: replace(link, source="a", target="b") for link in fleet.links}
    names = [device.name for device in fleet.devices]

    def swappable(one: str, other: str) -> bool:
        rest = [name for name in names if name not in (one, other)]
        return links.get((one, other)) == links.get((other, one)) and all(
            links.get((one, name)) == links.get((other, name))
            and links.get((name, one)) == links.get((name, other))
            for name in rest
        )

    kinds: dict[Hashable, list[list[str]]] = {}
    for name in names:
        same = kinds.setdefault(_measured(model, usable, limits, name), [])
        for kind in same:
            if swappable(kind[0], name):
                kind.append(name)
                break
        else:
            same.append([name])
    return tuple(tuple(kind) for same in kinds.values() for kind in same)


def reduced(model: CostModel, kinds: tuple[tuple[str, ...], ...]) -> CostModel:
    """The model with two devices of each kind: enough for a hop between any two kinds, relays included."""
    kept = {name for kind in kinds for name in kind[:2]}
    fleet = model.fleet
    if len(kept) == len(fleet.devices):
        return model
    devices = tuple(device for device in fleet.devices if device.name in kept)
    links = tuple(link for link in fleet.links if kept.issuperset(link.pair))
    return replace(model, fleet=replace(fleet, devices=devices, links=links))


def _measured(model: CostModel, usable: BoolArray, limits: Limits, name: str) -> Hashable:
    """All that is known of a device but its name and links."""
    fleet = model.fleet
    own = replace(fleet.device(name), name="a", address=None, emulate=None)
    ways = sorted(
        (str(way.variant), way.variant.frequency_hz or 0.0,
         *(part[place].tobytes() for part in (model.latency_s, model.energy_j, model.noise)),
         np.nan_to_num(model.memory_bytes[place]).tobytes(), usable[place].tobytes())
        for place, way in enumerate(model.ways) if way.device == name
    )  # fmt: skip
    coding = sorted(
        (boundary, codec, row.encode_s, row.decode_s, row.wire_bytes, row.sqnr_db or 0.0)
        for (device, boundary, codec), row in model.codecs.items()
        if device == name
    )
    of_limits = limits.max_memory_bytes.get(name), limits.max_share.get(name)
    ends = name == fleet.source, name == fleet.sink
    power = model.active_power_w.get(name)
    return own, tuple(ways), tuple(coding), of_limits, ends, power
