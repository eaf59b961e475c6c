"""What `edgecut explain` finds, as a document: edgecut.explanation/2.

Values are in the unit of what the plan minimises (s, J, ..., or the weighted sum).
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from planner.documents import document, read_document, write_document
from planner.notebook import Displayed, path_text, table_of
from planner.plan import Baseline, Cost, Hop, Plan, Stage

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "edgecut.explanation/2"


@document()
class Rival:
    """A plan beside the one that is explained.

    ``value``: what it costs in the objective; ``regret``: how much more than the optimum, below 0 for one that
    breaks a limit and gains by it. ``equal``: it costs the same. ``breaks``: the limits it does not keep.
    ``source``: who proposed it. ``expected``: what its authors' assumption makes of it. ``noise_s``: half the
    95 % interval of the difference of both plans' times, where it was measured. ``proven``: no plan stands
    between this one and the one before it in its list.
    """

    name: str
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    cost: Cost
    value: float
    regret: float
    equal: bool = False
    breaks: tuple[str, ...] = ()
    source: str = ""
    expected: float | None = None
    noise_s: float | None = None
    proven: bool = True

    @property
    def within_noise(self) -> bool:
        """Whether measuring longer could turn the order round."""
        return self.noise_s is not None and abs(self.regret) <= self.noise_s


@document()
class Step:
    """The optimum where a limit is ``allowed``, in its unit, or is not there at all (None)."""

    allowed: float | None
    value: float
    path: str


@document()
class ShadowPrice:
    """What a limit costs: what the optimum would be if it allowed more.

    ``limit`` is the field of ``Limits``, or "bandwidth" of a link, or "speed" of a device (1.0: as measured);
    ``item`` its device, link or placement. ``allowed`` and ``used`` by the optimum are in its unit; both are None for a
    limit without an amount, ``used`` for a bandwidth or speed too.
    ``binds``: without it (with more of a bandwidth) the optimum is better. ``next_step``: the least change that makes
    any plan better. ``steps``: larger changes; of a limit, the last is without it.
    ``slope``: objective per unit: of a limit the Lagrangian multiplier (whatever it allows, the optimum falls by no
    more), of a bandwidth the derivative for the plan as it is. ``proven``: every search behind it was.
    """

    limit: str
    item: str
    allowed: float | None
    used: float | None
    binds: bool
    next_step: Step | None
    steps: tuple[Step, ...]
    slope: float | None
    proven: bool


@document()
class Endurance:
    """How much slower a part of the plan may be before another plan is better.

    ``kind`` is "stage", "hop" (all ways to send those tensors between those devices), "device" or "link" (all that
    it does). Slower at the same power: ``factor`` times the time, the energy and the price of computing. None:
    however slow. ``until`` says what ends it: the path of the better plan, or the limit that the plan breaks.
    ``exact``: at any larger factor it is no longer the optimum; otherwise up to ``factor`` it is. ``noise``: half the
    95 % interval of the measured time, relative.
    """

    kind: str
    what: str
    factor: float | None
    until: str
    exact: bool
    noise: float | None = None

    @property
    def within_noise(self) -> bool:
        return self.noise is not None and self.factor is not None and self.factor <= 1 + self.noise


@document()
class Challenger:
    """A bundle outside the plan, and how much quicker it would have to be to get into it.

    ``factor``: the share of its time at which the best plan through it costs as much as the optimum. ``regret``
    of that plan today. ``exact``: otherwise it may get in from a larger factor on, up to ``at_most``, because
    being quicker helps it to keep the limits too.
    """

    device: str
    what: str
    factor: float
    regret: float
    path: str
    exact: bool
    at_most: float
    noise: float | None = None

    @property
    def within_noise(self) -> bool:
        return self.noise is not None and self.factor >= 1 - self.noise


@document()
class Explanation(Displayed):
    """Why ``plan``. ``value`` is what it costs by the tables given, ``optimum`` the best plan by them (the plan
    itself where it ``holds``), ``optimum_value`` its cost and ``proven`` whether that is proven. Everything else is
    about ``optimum``. ``remeasure``: commands that would settle what is within the noise of the measurement.
    ``busy_s``: of a pipeline, seconds per inference that each device and link ("a->b") is busy, the busiest first."""

    summary: str
    plan: Plan
    value: float
    optimum: Baseline
    optimum_value: float
    holds: bool
    proven: bool
    distinct: str
    runners_up: tuple[Rival, ...] = ()
    baselines: tuple[Rival, ...] = ()
    limits: tuple[ShadowPrice, ...] = ()
    slower: tuple[Endurance, ...] = ()
    quicker: tuple[Challenger, ...] = ()
    remeasure: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    busy_s: dict[str, float] = field(default_factory=dict)

    def headline(self) -> str:
        return self.summary

    def frame(self) -> pd.DataFrame:
        """A row for the optimum, each runner-up and each baseline: ``name``, ``value`` and ``regret`` in the
        objective's unit (s, J, ...), ``latency_s``, ``energy_j``, ``breaks`` (limits it does not keep) and ``plan``."""
        best = self.optimum
        first = Rival("1.", best.stages, best.hops, best.cost, self.optimum_value, 0.0)
        rows = [
            {
                "name": each.name,
                "value": each.value,
                "regret": each.regret,
                "latency_s": each.cost.latency_s,
                "energy_j": each.cost.energy_j,
                "breaks": ", ".join(each.breaks),
                "plan": path_text(each.stages, each.hops),
            }
            for each in (first, *self.runners_up, *self.baselines)
        ]
        return table_of(rows)

    def save(self, file: Path | str) -> None:
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, Path(file), SCHEMA)

    @staticmethod
    def load(file: Path | str) -> Explanation:
        """Read an explanation; ``DocumentError`` says where it is wrong."""
        return read_document(Explanation, Path(file), SCHEMA)
