"""What belongs to a whole profile table rather than to a row: device, chain, machine, and how it was made."""

from __future__ import annotations

from pathlib import Path

from planner.active_note import ActiveNote
from planner.chain import Bundle, Chain
from planner.documents import document, read_document, write_document
from planner.plan import Variant
from planner.recipe import Recipe

SCHEMA = "edgecut.profile/3"


@document()
class Environment:
    """Where and how a table was measured."""

    host: str
    machine: str
    python: str
    libraries: dict[str, str]
    threads: int
    cpus: tuple[int, ...]
    slowdown: float = 1.0


@document()
class LeftOut:
    """A bundle that a variant cannot run here, and why."""

    bundle: Bundle
    variant: Variant
    batch: int
    reason: str


@document()
class DriftPoint:
    """When (Unix time) the reference bundle was visited again, and how long it then took."""

    at_s: float
    latency_s: float


@document()
class MeterNote:
    """What metered the energies of a table, and the power before the first bundle ran."""

    name: str
    domain: str
    idle_power_w: float | None


@document()
class Sidecar:
    """What belongs to a whole table rather than to a row; its chain's digest names the model.

    ``precision_target``: the half width, relative to the mean, that a row's interval was to reach.
    ``active``: why bundles are missing on purpose, where they are.
    """

    device: str
    chain: Chain
    environment: Environment
    started: str
    samples: str
    recipe: Recipe | None = None
    left_out: tuple[LeftOut, ...] = ()
    precision_target: float | None = None
    drift: tuple[DriftPoint, ...] = ()
    meter: MeterNote | None = None
    active: ActiveNote | None = None

    def save(self, file: Path) -> None:
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, file, SCHEMA)

    @staticmethod
    def load(file: Path) -> Sidecar:
        """Read it; ``DocumentError`` says where it is wrong."""
        return read_document(Sidecar, file, SCHEMA)
