"""A plan: which device runs which bundle, what crosses between them, the forecast and its proof."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from planner.chain import Bundle, Chain
from planner.codec_table import LOSSLESS, CodecName
from planner.documents import document, read_document, read_text, write_document
from planner.fleet import Fleet
from planner.limits import CRITERIA, Criterion, Limits
from planner.notebook import Displayed, path_frame
from planner.origin import Origin
from planner.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "edgecut.plan/4"
MOST_BATCH = 1_000_000


class Outcome(str, Enum):
    """What a solver can say of its answer."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"  # a plan, but the bound does not meet it


@document(order=True)
class Variant:
    """One way to run a bundle on a device; ``frequency_hz`` is None for the clock as found."""

    backend: str
    precision: str = "fp32"
    frequency_hz: float | None = None
    fused: bool = False

    def __str__(self) -> str:
        clock = f" {self.frequency_hz / 1e6:.0f} MHz" if self.frequency_hz else ""
        return f"{self.backend} {self.precision}{clock}" + (" fused" if self.fused else "")


@document()
class Cost:
    """What a part of a plan costs, or all of it.

    ``energy_j`` counts only the devices whose energy matters. ``noise``: power of the error that fewer
    bits bring, over the signal's. ``price``: in the fleet's currency. ``upload_bytes``: what the source sends.
    """

    latency_s: float
    energy_j: float
    noise: float = 0.0
    price: float = 0.0
    upload_bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(one + more for one, more in zip(self.values, other.values, strict=True)))

    @property
    def values(self) -> tuple[float, ...]:
        """In the order of ``CRITERIA``."""
        return self.latency_s, self.energy_j, self.noise, self.price, self.upload_bytes

    def of(self, criterion: Criterion) -> float:
        """One criterion, in its SI unit."""
        return self.values[CRITERIA.index(criterion)]

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise; infinite where nothing is lost."""
        return 0.0 - 10 * math.log10(self.noise) if self.noise else math.inf


@document()
class Stage:
    """A bundle on a device, with what it is forecast to cost and the memory it takes."""

    device: str
    bundle: Bundle
    variant: Variant
    cost: Cost
    memory_bytes: float = 0.0


@document()
class Hop:
    """The tensors at ``boundary`` travel along ``route`` (device names, first to last).

    The first device encodes them in ``encode_s``, the last decodes them in ``decode_s``; those between
    pass them on as they are. Both times are part of ``cost``.
    """

    boundary: int
    route: tuple[str, ...]
    codec: CodecName
    wire_bytes: int
    cost: Cost
    encode_s: float = 0.0
    decode_s: float = 0.0

    def __post_init__(self) -> None:
        if len(self.route) < 2:
            raise ValueError(f"hop at boundary {self.boundary}: a route names at least two devices")
        if min(self.encode_s, self.decode_s) < 0:
            raise ValueError(f"hop at boundary {self.boundary}: encode_s or decode_s is negative")

    @property
    def wire_s(self) -> float:
        """Seconds on the links."""
        return max(self.cost.latency_s - self.encode_s - self.decode_s, 0.0)


@document()
class Proof:
    """How the plan was found and what is known of the optimum.

    ``objective`` names what was minimised: a criterion, "period", or a weighted sum, whose ``weights`` (per
    second, joule, ...) are empty for the period. ``objective_value`` and ``bound`` are in its unit, ``gap`` is
    relative.
    ``arcs`` of the layered graph and how many of them ``arcs_after`` reduction the solver was given.
    ``phases_s``: seconds by phase. ``statistic``: of the table, that the plan was made with. ``check`` says what
    the independent label setting found.
    """

    solver: str
    outcome: Outcome
    objective: str
    objective_value: float
    bound: float
    gap: float
    arcs: int
    arcs_after: int
    phases_s: dict[str, float]
    check: str
    weights: dict[Criterion, float] = field(default_factory=dict)
    statistic: str = "mean"

    @property
    def solve_s(self) -> float:
        """Seconds from the table in memory to the plan."""
        return sum(self.phases_s.values())


@document()
class Baseline:
    """A plan somebody would have tried by hand, with its cost."""

    name: str
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    cost: Cost


@document()
class Plan(Displayed):
    """Stages in running order and the hops that join them; self-contained: it can be deployed alone.

    ``notes`` say what the optimum leaves out, such as a device that was not profiled. ``recipes``: how
    each device's int8 and mixed stages are made. ``origin``: what it was solved from.
    """

    chain: Chain
    fleet: Fleet
    batch: int
    limits: Limits
    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    cost: Cost
    proof: Proof
    baselines: tuple[Baseline, ...] = ()
    notes: tuple[str, ...] = ()
    recipes: dict[str, Recipe] = field(default_factory=dict)
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MOST_BATCH:
            raise ValueError(f"batch must be 1 to {MOST_BATCH}, found {self.batch}")
        check_path(self.chain, self.fleet, self.stages, self.hops)
        for baseline in self.baselines:
            check_path(self.chain, self.fleet, baseline.stages, baseline.hops)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in use, source and sink included, in the order of first use."""
        names = [self.fleet.source]
        for hop in self.hops:
            names += hop.route
        return tuple(dict.fromkeys([*names, *(stage.device for stage in self.stages), self.fleet.sink]))

    @property
    def links(self) -> frozenset[tuple[str, str]]:
        """The directed links that its hops take."""
        return frozenset(pair for hop in self.hops for pair in itertools.pairwise(hop.route))

    def headline(self) -> str:
        cost = f"{self.cost.latency_s * 1e3:,.2f} ms, {self.cost.energy_j * 1e3:,.2f} mJ"
        proof = f"{self.proof.outcome.value} in {self.proof.objective}"
        return f"{self.chain.source.name}: {described(self.stages)}; {cost}; {proof}"

    def frame(self) -> pd.DataFrame:
        """Stages and hops in running order, a row each; ``path_frame`` says what the columns are."""
        return path_frame(self.stages, self.hops)

    def save(self, file: Path | str) -> None:
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, Path(file), SCHEMA)

    @property
    def exact(self) -> bool:
        """Whether it computes in fp32 and sends without loss: it gives the whole model's outputs."""
        return all(stage.variant.precision == "fp32" for stage in self.stages) and all(
            hop.codec in LOSSLESS for hop in self.hops
        )

    @staticmethod
    def load(file: Path | str) -> Plan:
        """Read a plan; ``DocumentError`` says where it is wrong."""
        return read_document(Plan, Path(file), SCHEMA)


def described(stages: Iterable[Stage]) -> str:
    """A plan in a few words: ``edge [0, 3) → server [3, 6) [6, 8)``."""
    runs = itertools.groupby(stages, lambda stage: stage.device)
    return " → ".join(f"{device} {' '.join(str(stage.bundle) for stage in run)}" for device, run in runs)


def same_path(one: Plan, other: Plan) -> bool:
    """Whether two plans are deployed alike: the same stages and hops, whatever they are forecast to cost."""

    def path(plan: Plan) -> list[object]:
        stages = [(stage.device, stage.bundle, stage.variant) for stage in plan.stages]
        return [*stages, *((hop.boundary, hop.route, hop.codec) for hop in plan.hops)]

    return one is other or path(one) == path(other)


def is_plan(file: Path) -> bool:
    """Whether the file holds a plan, of this version or another. Raises ``DocumentError`` if unreadable."""
    return holds(file, SCHEMA)


def holds(file: Path, schema: str) -> bool:
    """Whether the file holds a document of this schema, of this version or another."""
    text = read_text(file)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and str(data.get("schema")).startswith(schema.split("/")[0] + "/")


def check_path(chain: Chain, fleet: Fleet, stages: tuple[Stage, ...], hops: tuple[Hop, ...]) -> None:
    """Refuse (``ValueError``) stages and hops that do not lead once through the whole chain."""
    at: str = fleet.source
    boundary = 0
    waiting = {hop.boundary: hop for hop in hops}
    if len(waiting) != len(hops):
        raise ValueError("two hops at one boundary")
    for stage in stages:
        if stage.bundle.start > boundary:
            raise ValueError(f"gap: layers {boundary}..{stage.bundle.start - 1} are in no stage")
        if stage.bundle.start < boundary:
            raise ValueError(f"overlap: layer {stage.bundle.start} is in two stages")
        at = _travel(fleet, waiting.pop(boundary, None), boundary, at, stage.device)
        boundary = stage.bundle.stop
    if boundary != len(chain):
        raise ValueError(f"the stages end at layer {boundary} of {len(chain)}")
    _travel(fleet, waiting.pop(boundary, None), boundary, at, fleet.sink)
    if waiting:
        raise ValueError(f"hop at boundary {min(waiting)}, where no stage ends")


def _travel(fleet: Fleet, hop: Hop | None, boundary: int, at: str, target: str) -> str:
    route = hop.route if hop else (at,)
    if (route[0], route[-1]) != (at, target) or (hop and at == target):
        raise ValueError(f"boundary {boundary}: the tensors are on {at} and wanted on {target}, hop: {route}")
    for link in itertools.pairwise(route):
        if fleet.link(*link) is None:
            raise ValueError(f"boundary {boundary}: the fleet has no link {link[0]} -> {link[1]}")
    return target
