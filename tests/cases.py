"""Instances that several tests share: one small enough to solve by hand, one that is work for CBC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from strategies import VARIANTS, make_chain, make_row

from planner.chain import Chain
from planner.fleet import Device, Fleet, Link
from planner.plan import Variant
from planner.table import ProfileRow, ProfileTable

TORCH, INT8 = VARIANTS
CHAIN = make_chain([40_000, 4_000, 3_000, 100])
FLEET = Fleet(
    "edge",
    "edge",
    (Device("edge", battery=True, active_power_w=2.0), Device("server"), Device("cloud")),
    (
        Link("edge", "server", 1e6, send_power_w=1.0),
        Link("server", "edge", 1e6, receive_power_w=1.0),
        Link("server", "cloud", 1e6),
        Link("cloud", "server", 1e6),
    ),
)
SPEED = {"edge": 0.010, "server": 0.002, "cloud": 0.0019}


def make_table(
    chain: Chain = CHAIN,
    devices: Sequence[str] = ("edge", "server", "cloud"),
    variants: Sequence[Variant] = (TORCH,),
    batch: int = 1,
) -> ProfileTable:
    """Every layer takes ``SPEED`` seconds; variants after the first are a tenth slower."""
    rows: list[ProfileRow] = []
    for device in devices:
        for place, variant in enumerate(variants):
            for bundle in chain.bundles():
                latency = SPEED[device] * len(bundle) * (1 + place / 10)
                rows.append(
                    make_row(device, bundle.start, bundle.stop, latency, variant=variant, batch=batch)
                )
    return ProfileTable(chain, tuple(rows))


def hard_table(layers: int = 24) -> tuple[Chain, Fleet, ProfileTable]:
    """Large enough that CBC does not prove it at once."""
    numbers = np.random.default_rng(7)
    chain = make_chain([int(size) for size in numbers.integers(1_000, 90_000, layers + 1)])
    names = ["edge", "server", "cloud"]
    devices = tuple(
        Device(name, battery=True, active_power_w=1.0 + place) for place, name in enumerate(names)
    )
    links = tuple(
        Link(a, b, float(numbers.integers(1, 9)) * 1e6, send_power_w=1.0)
        for a in names
        for b in names
        if a != b
    )
    rows = []
    for name in names:
        for variant in (TORCH, INT8, Variant("onnxruntime"), Variant("torch", "bf16")):
            times = numbers.uniform(1e-3, 9e-3, layers)
            for bundle in chain.bundles():
                time = float(times[bundle.start : bundle.stop].sum() * numbers.uniform(0.9, 1.05))
                energy = float(numbers.uniform(0.2, 2.0) / time * 1e-4 * len(bundle) ** 2)
                rows.append(make_row(name, bundle.start, bundle.stop, time, variant=variant, energy_j=energy))
    return chain, Fleet("edge", "edge", devices, links), ProfileTable(chain, tuple(rows))
