"""What differs from the profile tables while a plan runs: what is gone, and the speeds of devices and links.

A device that takes ``factor`` times as long as its table says takes that for every bundle, encoding and decoding;
the energy of computing grows alike. A link that takes ``factor`` times as long has its latency and the time per
byte stretched by it, for one size of transfer does not tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.cost import CostModel
from planner.limits import Limits
from planner.plan import Plan
from planner.simulate_scenario import Place, place_name

Pair = tuple[str, str]


@dataclass(frozen=True)
class Conditions:
    """What differs from the tables: ``devices`` and ``links`` that are gone, and by which factor a device or link
    takes longer (sorted; those not named take 1)."""

    devices: frozenset[str] = frozenset()
    links: frozenset[Pair] = frozenset()
    factors: tuple[tuple[Place, float], ...] = ()

    @property
    def gone(self) -> str:
        """Such as ``server, edge → cloud``."""
        return ", ".join([*sorted(self.devices), *(place_name(pair) for pair in sorted(self.links))])

    @property
    def speeds(self) -> str:
        """Such as ``server takes 2.10 x as long as profiled``."""
        parts = [f"{place_name(place)} takes {factor:.2f} x" for place, factor in self.factors]
        return f"{', '.join(parts)} as long as profiled" if parts else ""

    def __str__(self) -> str:
        without = f"without {self.gone}" if self.gone else ""
        return ", ".join(filter(None, (without, self.speeds))) or "as profiled"

    def limits(self, limits: Limits) -> Limits:
        """The limits, and that nothing which is gone may be used."""
        devices = dict.fromkeys((*limits.without_devices, *sorted(self.devices)))
        links = dict.fromkeys((*limits.without_links, *("->".join(pair) for pair in sorted(self.links))))
        return replace(limits, without_devices=tuple(devices), without_links=tuple(links))

    def used_by(self, plan: Plan) -> bool:
        """Whether the plan uses something that is gone."""
        return bool(self.devices & {*plan.devices}) or bool(self.links & plan.links)

    def applied(self, model: CostModel) -> CostModel:
        """The prices at these speeds; what is gone stays in."""
        if not self.factors:
            return model
        factor = dict(self.factors)
        mine = np.array([factor.get((way.device,), 1.0) for way in model.ways]).reshape(-1, 1, 1)
        codecs = {}
        for key, row in model.codecs.items():
            slower = factor.get((row.device,), 1.0)
            codecs[key] = replace(row, encode_s=row.encode_s * slower, decode_s=row.decode_s * slower)
        links = tuple(
            replace(
                link,
                bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / factor.get(link.pair, 1.0),
                latency_s=link.latency_s * factor.get(link.pair, 1.0),
            )
            for link in model.fleet.links
        )
        fleet = replace(model.fleet, links=links)
        latency_s, energy_j = model.latency_s * mine, model.energy_j * mine
        return replace(model, fleet=fleet, latency_s=latency_s, energy_j=energy_j, codecs=codecs)


def gone_of(plan: Plan, start: Plan) -> Conditions:
    """What a plan was made to do without, beyond what the plan ``start`` already did."""
    devices = {*plan.limits.without_devices} - {*start.limits.without_devices}
    links = {*plan.limits.without_links} - {*start.limits.without_links}
    pairs = (link.split("->") for link in links)
    return Conditions(frozenset(devices), frozenset((source, target) for source, target in pairs))
