"""What an active profile reports: after each round, at the end, and to the table's sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.active_note import ActiveNote, ActiveObjective, ActiveOutcome, Alpha, fleet_digest
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Cost
from planner.sidecar import LeftOut
from planner.table import ProfileRow


@dataclass(frozen=True)
class Progress:
    """After each round: bundles measured so far of all there are, best plan and bound so far (s or J)."""

    round: int
    measured: int
    total: int
    value: float
    bound: float
    doing: str


@dataclass(frozen=True)
class ActiveResult:
    """``rows`` and ``left_out`` are all that was measured, also before this call.

    ``skipped`` counts bundles by the reason they were not measured for. ``value`` and ``bound`` are s or J
    (infinite where there is no plan), for a front those of the weights with the largest ``gap``; ``front``
    are its points by latency. ``violated`` of ``verified`` skipped bundles took less than their bound,
    ``worst_violation`` is the largest shortfall relative to it. ``gone``: devices that stopped answering.
    """

    rows: tuple[ProfileRow, ...]
    left_out: Mapping[str, Sequence[LeftOut]]
    total: int
    skipped: Mapping[str, int]
    rounds: int
    outcome: ActiveOutcome
    assumption: str
    alphas: tuple[Alpha, ...]
    value: float
    bound: float
    gap: float
    front: tuple[Cost, ...]
    verified: int
    violated: int
    worst_violation: float
    gone: Mapping[str, str]

    @property
    def share(self) -> float:
        """Measured bundles, failed ones included, over all."""
        return 1 - sum(self.skipped.values()) / self.total


def note_of(
    result: ActiveResult, fleet: Fleet, objective: ActiveObjective, limits: Limits, batch: int
) -> ActiveNote:
    """What the sidecars of all devices of this profile say of it."""
    skipped = sum(result.skipped.values())
    return ActiveNote(
        objective=objective,
        limits=limits,
        batch=batch,
        fleet=", ".join(device.name for device in fleet.devices),
        fleet_digest=fleet_digest(fleet),
        measured=result.total - skipped,
        skipped=skipped,
        outcome=result.outcome,
        assumption=result.assumption,
        gap=result.gap,
        value=result.value if math.isfinite(result.value) and objective != "front" else None,
        verified=result.verified,
        violated=result.violated,
        alphas=result.alphas,
    )
