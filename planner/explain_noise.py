"""Which of a plan's choices lie within the noise of the measurement, and what would settle them.

Errors of different bundles are taken to be independent. Intervals are of means, so nothing is said where a plan
minimises more than latency, or was made with another statistic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from planner.chain import Bundle
from planner.explanation import Challenger, Endurance, Rival
from planner.measured import profile_command
from planner.plan import Plan, Stage, Variant
from planner.table import ProfileRow, ProfileTable

Key = tuple[str, Bundle, Variant]
_SIGMAS = 1.96  # of a normal distribution, for 95 %


def half_interval_s(row: ProfileRow) -> float | None:
    """Half the 95 % interval of a mean; None where it was measured once."""
    if row.latency_ci_s is not None:
        return row.latency_ci_s
    return _SIGMAS * row.latency_std_s / math.sqrt(row.runs) if row.runs > 1 and row.latency_std_s else None


class Noise:
    """Half intervals (s) of the bundles of a plan, and of those that it is compared with."""

    def __init__(
        self, plan: Plan, table: ProfileTable, stages: Iterable[Stage], others: Iterable[Key]
    ) -> None:
        self.known = set(plan.proof.weights) == {"latency"} and plan.proof.statistic == "mean"
        self.per_s = plan.proof.weights.get("latency", 1.0)
        self.plan = plan
        wanted = {_key(stage) for stage in stages} | set(others) if self.known else set()
        rows = {row.key[:3]: row for row in table.rows if row.batch == plan.batch} if wanted else {}
        self.rows = {key: rows[key] for key in wanted if key in rows}
        self.unsure: dict[str, float] = {}  # by device, the precision (relative) that would settle all

    def of(self, key: Key) -> float | None:
        """Relative to the bundle's time."""
        row = self.rows.get(key)
        half = half_interval_s(row) if row else None
        return None if half is None or row is None else half / row.latency_s

    def rival(self, rival: Rival, optimum: Sequence[Stage]) -> Rival:
        """With the noise of the difference; what both plans run says nothing."""
        differing = {_key(stage) for stage in rival.stages} ^ {_key(stage) for stage in optimum}
        halves = [half_interval_s(self.rows[key]) if key in self.rows else None for key in differing]
        if not differing or not halves or any(half is None for half in halves):
            return rival
        found = replace(rival, noise_s=math.sqrt(math.fsum((half or 0.0) ** 2 for half in halves)))
        if found.within_noise and rival.regret > 0 and not rival.equal:
            for key in differing:
                self._settle(key, rival.regret / self.per_s / (found.noise_s or 1.0))
        return found

    def slower(self, each: Endurance, key: Key | None) -> Endurance:
        found = replace(each, noise=self.of(key)) if key else each
        if key and found.within_noise and found.factor and found.factor > 1:
            self._settle(key, (found.factor - 1) / (found.noise or 1.0))
        return found

    def quicker(self, each: Challenger, key: Key) -> Challenger:
        found = replace(each, noise=self.of(key))
        if found.within_noise and found.factor < 1:
            self._settle(key, (1 - found.factor) / (found.noise or 1.0))
        return found

    def _settle(self, key: Key, share: float) -> None:
        """Its interval must become this ``share`` of itself."""
        relative = (self.of(key) or 0.0) * share
        device = key[0]
        if relative > 0:
            self.unsure[device] = min(self.unsure.get(device, math.inf), relative)

    def commands(self) -> tuple[str, ...]:
        """What measures the devices in question more precisely."""
        return tuple(
            f"{profile_command(self.plan.chain, device)} --precision-target {max(100 * relative, 0.1):.2g} "
            "--max-runs 10000, into another --output"
            for device, relative in sorted(self.unsure.items())
        )


def _key(stage: Stage) -> Key:
    return stage.device, stage.bundle, stage.variant
