"""What happens in a simulation, and what is reported of it: a document, and a row per request."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.documents import document, read_document, write_document, write_text
from planner.notebook import Displayed, table_of
from planner.plan import Plan
from planner.simulate_scenario import Arrivals, Place, Scenario, place_name
from planner.simulate_steps import FloatArray, Step, Turn

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "edgecut.simulation/1"
COLUMNS = ("plan", "request", "arrived_s", "left_s", "latency_s", "queue_s", "late", "dropped")


@dataclass(frozen=True, eq=False)
class Stream:
    """The requests of one plan.

    ``amounts``: what each step of each request takes, shape (requests, steps of all turns): seconds on a
    device, bytes on a link. ``times_s``: when they arrive, None for a closed loop of ``concurrency``.
    """

    turns: tuple[Turn, ...]
    amounts: FloatArray
    times_s: Sequence[float] | None = None
    concurrency: int = 1


class Visit(NamedTuple):
    """A step of a request of a stream: offered, begun, done (seconds); or dropped when it would begin."""

    stream: int
    step: Step
    offered_s: float
    start_s: float
    stop_s: float
    served: bool = True


class Request(NamedTuple):
    """``queue_s``: what it waited of the time from ``arrived_s`` to ``left_s``."""

    number: int
    arrived_s: float
    left_s: float
    queue_s: float
    dropped: bool

    @property
    def latency_s(self) -> float:
        return self.left_s - self.arrived_s

    def late(self, scenario: Scenario) -> bool:
        """Whether it was answered, but after the deadline."""
        return not self.dropped and scenario.deadline_s is not None and self.latency_s > scenario.deadline_s


class Outcome(NamedTuple):
    """What happened: every request of each stream, and each time a device or link served one."""

    requests: list[list[Request]]
    visits: list[Visit]


@document()
class Latencies:
    """From arrival to answer, waiting included; ``queue_s``: the mean of the waiting alone."""

    mean_s: float
    median_s: float
    p95_s: float
    p99_s: float
    max_s: float
    queue_s: float


@document()
class StreamResult:
    """One plan's requests. Of ``requests``, ``finished`` were answered (``late`` of them after the deadline)
    and ``dropped`` were not.

    ``throughput_per_s``: answers over the time from its first arrival to its last answer. ``capacity_per_s``:
    what the plan could serve alone, by its busiest device or link, ``bottleneck``. ``latency``: of those answered.
    """

    model: str
    arrivals: Arrivals
    requests: int
    finished: int
    late: int
    dropped: int
    throughput_per_s: float
    capacity_per_s: float
    bottleneck: Place
    latency: Latencies | None


@document()
class PlaceResult:
    """A device (one name) or link (two). ``busy_s``: working, pauses of an outage left out; utilisation is
    its share of the simulated time. Queues count the requests that wait for it, over that time."""

    place: Place
    steps: int
    busy_s: float
    utilisation: float
    mean_queue: float
    max_queue: int


@document()
class BatteryResult:
    """What a battery device used: computing and coding, its radio, and idling while it did neither."""

    device: str
    compute_j: float
    radio_j: float
    idle_j: float

    @property
    def total_j(self) -> float:
        return self.compute_j + self.radio_j + self.idle_j


@document()
class Simulation(Displayed):
    """One simulation: what was assumed and what came of it. ``duration_s``: until the last request left."""

    plans: tuple[Plan, ...]
    scenario: Scenario
    duration_s: float
    streams: tuple[StreamResult, ...]
    places: tuple[PlaceResult, ...]
    batteries: tuple[BatteryResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def energy_j(self) -> float:
        """Of all battery devices over the simulated time."""
        return math.fsum(each.total_j for each in self.batteries)

    @property
    def energy_per_request_j(self) -> float:
        """Of all battery devices, over the requests answered; 0 where there is none."""
        finished = sum(stream.finished for stream in self.streams)
        return self.energy_j / finished if finished else 0.0

    def verdict(self) -> str:
        """What the simulation says in one sentence."""
        if self.notes:
            return self.notes[0]
        stream, forecast_s = self.streams[0], self.plans[0].cost.latency_s
        if stream.latency is None:
            return f"{stream.model}: every request was dropped"
        text = (
            f"{stream.model}: median {stream.latency.median_s * 1e3:,.2f} ms, 99 % within "
            f"{stream.latency.p99_s * 1e3:,.2f} ms; forecast of one alone {forecast_s * 1e3:,.2f} ms; "
            f"{stream.throughput_per_s:,.4g} requests per s"
        )
        return text + (f" (and {len(self.streams) - 1} more)" if len(self.streams) > 1 else "")

    def headline(self) -> str:
        return self.verdict()

    def frame(self) -> pd.DataFrame:
        """A row per plan: ``model``, ``arrivals``, ``requests``, ``finished``, ``late``, ``dropped``,
        ``throughput_per_s``, ``capacity_per_s``, ``bottleneck``, and of the latencies, waiting included, ``mean_s``,
        ``median_s``, ``p95_s``, ``p99_s``, ``max_s`` (NaN where none was answered), with ``queue_s`` waited in the
        mean."""
        counts = ("requests", "finished", "late", "dropped", "throughput_per_s", "capacity_per_s")
        times = ("mean_s", "median_s", "p95_s", "p99_s", "max_s", "queue_s")
        rows = [
            {"model": each.model, "arrivals": str(each.arrivals)}
            | {name: getattr(each, name) for name in counts}
            | {"bottleneck": place_name(each.bottleneck)}
            | {name: getattr(each.latency, name, math.nan) for name in times}
            for each in self.streams
        ]
        return table_of(rows)

    def place_frame(self) -> pd.DataFrame:
        """A row per device and link: ``place``, ``steps`` served, ``busy_s``, ``utilisation``, ``mean_queue``,
        ``max_queue``."""
        names = ("steps", "busy_s", "utilisation", "mean_queue", "max_queue")
        return table_of(
            {"place": place_name(each.place)} | {name: getattr(each, name) for name in names}
            for each in self.places
        )

    def _tables(self) -> Sequence[pd.DataFrame]:
        return self.frame(), self.place_frame()

    def save(self, file: Path | str) -> None:
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, Path(file), SCHEMA)

    @staticmethod
    def load(file: Path | str) -> Simulation:
        """Read a simulation; ``DocumentError`` says where it is wrong."""
        return read_document(Simulation, Path(file), SCHEMA)


def save_requests(requests: Sequence[Sequence[Request]], scenario: Scenario, file: Path) -> None:
    """One row per request of each plan, in CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for plan, stream in enumerate(requests):
        for each in stream:
            late = int(each.late(scenario))
            latency = ("", "") if each.dropped else (each.latency_s, each.queue_s)
            writer.writerow(
                (plan, each.number, each.arrived_s, each.left_s, *latency, late, int(each.dropped))
            )
    write_text(file, text.getvalue())
