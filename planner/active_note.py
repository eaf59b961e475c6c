"""What a table's sidecar says of an active profile: what it is complete for, and on what assumption."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from planner.documents import document, to_data
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Variant

ActiveObjective = Literal["latency", "energy", "front"]
ActiveOutcome = Literal["proven", "calibrated", "open", "infeasible"]


@document()
class Alpha:
    """The least share of the sum of its layers' times that a skipped bundle is taken to cost, by length.

    ``lengths`` and ``alphas`` go together; lengths of which nothing was skipped are absent.
    """

    device: str
    variant: Variant
    lengths: tuple[int, ...]
    alphas: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.lengths) != len(self.alphas):
            raise ValueError(f"{len(self.lengths)} lengths with {len(self.alphas)} alphas")


@document()
class ActiveNote:
    """How an incomplete table was chosen.

    ``fleet`` is readable, ``fleet_digest`` identifies it. ``measured`` and ``skipped`` count the bundles of
    all devices. ``value`` (s, J; None for a front or where there is no plan) and ``gap`` (relative) are of
    the plan found. ``verified`` skipped bundles were measured afterwards; ``violated`` of them took less than
    their bound, and the search went on with lower bounds.
    """

    objective: ActiveObjective
    limits: Limits
    batch: int
    fleet: str
    fleet_digest: str
    measured: int
    skipped: int
    outcome: ActiveOutcome
    assumption: str
    gap: float
    value: float | None = None
    verified: int = 0
    violated: int = 0
    alphas: tuple[Alpha, ...] = ()

    def __post_init__(self) -> None:
        if min(self.measured, self.skipped, self.verified, self.violated) < 0 or self.gap < 0:
            raise ValueError("counts and gap are at least 0")

    @property
    def purpose(self) -> str:
        """What the table is complete for, in words."""
        goal = "the latency-energy front" if self.objective == "front" else f"the least {self.objective}"
        limits = [
            f"{value * 1e3:g} {unit}"
            for value, unit in ((self.limits.max_latency_s, "ms"), (self.limits.max_energy_j, "mJ"))
            if value is not None
        ]
        within = f" within {' and '.join(limits)}" if limits else ""
        return f"{goal}{within} on the fleet {self.fleet}, batch {self.batch}"


def fleet_digest(fleet: Fleet) -> str:
    """SHA-256 over devices and links: equal digests, equal fleets."""
    return hashlib.sha256(json.dumps(to_data(fleet), sort_keys=True).encode()).hexdigest()
