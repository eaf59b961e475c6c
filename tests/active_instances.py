"""Synthetic ground truth for active profiling: full tables whose bundles cost less than their layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from strategies import make_chain, make_row

from planner.active_paths import Request
from planner.active_state import Found
from planner.chain import Chain
from planner.cost import CostModel, Way
from planner.fleet import Device, Fleet, Link
from planner.plan import Variant
from planner.table import ProfileRow, ProfileTable


@dataclass
class Truth:
    """A full table, and a device that measures by looking up: it refuses to be asked twice."""

    chain: Chain
    fleet: Fleet
    rows: dict[Request, ProfileRow]
    asked: list[Request] = field(default_factory=list)

    @property
    def ways(self) -> tuple[Way, ...]:
        return tuple(dict.fromkeys(way for way, _ in self.rows))

    def measure(self, requests: Sequence[Request]) -> Iterator[Found]:
        for request in requests:
            assert request not in self.asked
            self.asked.append(request)
            yield request[0].device, self.rows[request]

    def model(self) -> CostModel:
        return CostModel.of(self.chain, self.fleet, self.rows.values(), 1)


def synthetic(layers: int, devices: int, variants: int, seed: int) -> Truth:
    """Layer times are log-normal, boundary sizes fall, device speeds span 1 to 20; a bundle takes
    overhead + share(length) x the layers' work, where share falls to 0.65..1 for fusing engines; each bundle
    is off by its own 1 %, each layer by 15 % between ways; so is its metered energy, at 2 to 8 W."""
    numbers = np.random.default_rng(seed)
    sizes = 600e3 * 0.5 ** (np.arange(layers + 1) / layers * numbers.uniform(3, 7))
    sizes = np.maximum(sizes * numbers.lognormal(0, 0.6, layers + 1), 40)
    sizes[0] = 600e3
    chain = make_chain([int(size) for size in sizes])
    work = numbers.lognormal(0, 0.7, layers) * numbers.uniform(20e-3, 200e-3) / layers
    names = [f"device{place}" for place in range(devices)]
    speed = np.sort(numbers.uniform(np.log(1), np.log(20), devices))
    rows = {}
    for name, slow in zip(names, np.exp(speed)[::-1], strict=True):
        for place in range(variants):
            way = Way(name, Variant(f"engine{place}"))
            single = work * slow * numbers.uniform(0.5, 1.3) * numbers.lognormal(0, 0.15, layers)
            power_w = float(numbers.uniform(2, 8))
            overhead = float(single.mean() * numbers.uniform(0, 0.1))
            depth, bend = numbers.uniform(0, 0.35), numbers.uniform(0.4, 1.5)
            total = np.append(0.0, np.cumsum(single))
            for bundle in chain.bundles():
                share = 1 - depth * (1 - len(bundle) ** -bend)
                time = overhead + share * float(total[bundle.stop] - total[bundle.start])
                time *= float(np.exp(numbers.normal(0, 0.01)))
                energy = time * power_w * float(np.exp(numbers.normal(0, 0.01)))
                rows[way, bundle] = make_row(
                    name, bundle.start, bundle.stop, time, variant=way.variant, energy_j=energy
                )
    rate = float(np.exp(numbers.uniform(np.log(0.25e6), np.log(125e6))))
    return Truth(chain, random_fleet(names, numbers, rate), rows)


def random_fleet(names: Sequence[str], numbers: np.random.Generator, rate: float) -> Fleet:
    """Every device reaches every other at about ``rate`` bytes/s; the first is the source, the first half is
    on battery."""
    members = tuple(
        Device(name, battery=place < (len(names) + 1) // 2, active_power_w=3.0, idle_power_w=0.3)
        for place, name in enumerate(names)
    )
    links = tuple(
        Link(a, b, rate * float(numbers.uniform(0.5, 2)), 2e-3, 1.0 * (a == names[0]), 0.8 * (b == names[0]))
        for a in names
        for b in names
        if a != b
    )
    return Fleet(names[0], names[0], members, links)


def from_tables(
    tables: Mapping[Way, ProfileTable], fleet: Fleet, slowdown: Mapping[str, float], value: str = "latency_s"
) -> Truth:
    """Ground truth from measured tables: each way takes one table's ``value``, times its device's slowdown."""
    chain = next(iter(tables.values())).chain
    rows = {}
    for way, table in tables.items():
        for row in table.rows:
            time = getattr(row, value) * slowdown[way.device]
            rows[way, row.bundle] = make_row(
                way.device, row.bundle.start, row.bundle.stop, time, variant=way.variant
            )
    return Truth(chain, fleet, rows)
