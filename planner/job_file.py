"""What `edgecut solve-many` reads: streams and the fleet that they share, in TOML.

::

    schema = "edgecut.job/1"
    fleet = "fleet.toml"                 # files are looked for beside this one
    objective = "sum"                    # of weight x objective over the streams; or "balanced"
    max_utilisation = 0.8                # of every device and link; default 1

    [stream.camera]
    profiles = ["edge.csv", "server.csv"]
    rate_per_s = 12.5                    # requests, each of a batch
    objective = "latency"                # energy, price, or weights: { latency = 1.0, energy = 0.5 }
    weight = 2.0                         # in the sum; default 1
    source = "edge"                      # default: the fleet's; sink = source unless given
    limits = { max_energy_j = 0.05 }     # as in a plan

    [stream.lidar]
    profiles = ["lidar-edge.csv", "lidar-server.csv"]
    rate_per_s = 30.0
"""

from __future__ import annotations

import sys
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from planner.codec_table import codecs_named
from planner.documents import check_schema, document, from_data, read_text, to_data
from planner.errors import DocumentError
from planner.fleet import Fleet
from planner.fleet_file import load_fleet
from planner.fleet_plan import check_rate
from planner.fleet_solver import Demand
from planner.limits import Criterion, Limits, Placement
from planner.table import ProfileTable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "edgecut.job/1"


@document()
class StreamEntry:
    """One ``[stream.NAME]``."""

    name: str
    profiles: tuple[str, ...]
    rate_per_s: float
    objective: Literal["latency", "energy", "price"] | dict[Criterion, float] = "latency"
    weight: float = 1.0
    source: str | None = None
    sink: str | None = None
    batch: int | None = None
    statistic: str = "mean"
    codecs: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_rate(self.name, self.rate_per_s, self.weight)
        if not self.profiles:
            raise ValueError(f"{self.name}: profiles names no table")


@document()
class Job:
    """What a job file says, before its tables are read."""

    fleet: str
    streams: tuple[StreamEntry, ...]
    objective: Literal["sum", "balanced"] = "sum"
    max_utilisation: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.max_utilisation <= 1:
            raise ValueError(f"max_utilisation must be above 0 and at most 1, found {self.max_utilisation}")


def load_job(file: Path) -> Job:
    """Read a job; ``DocumentError`` says where it is wrong and how to mend it."""
    try:
        data = dict(check_schema(tomllib.loads(read_text(file)), SCHEMA, file))
    except (ValueError, RecursionError) as error:
        problem, remedy = f"not TOML: {error}", ""
        if "overwrite" in str(error) or "twice" in str(error):
            remedy = "give each [stream.NAME] a name of its own"
        raise DocumentError(file, "", problem, remedy) from None
    del data["schema"]
    entries = data.pop("stream", None)
    if not isinstance(entries, dict) or not entries:
        raise DocumentError(file, "stream", "no stream", "add a table such as [stream.camera]")
    streams = [_entry(name, entry, file) for name, entry in entries.items()]
    return from_data(Job, {**data, "streams": [to_data(stream) for stream in streams]}, file)


def _entry(name: str, entry: object, file: Path) -> StreamEntry:
    place = f"{file}: stream.{name}"
    if not isinstance(entry, dict):
        raise DocumentError(place, "", "expected a table", f"write [stream.{name}]")
    data: dict[str, Any] = {**entry, "name": name}
    limits = data.get("limits")
    if isinstance(limits, dict):
        data["limits"] = {
            key: [_placement(each) for each in value] if key in ("pins", "forbidden") else value
            for key, value in limits.items()
        }
    return from_data(StreamEntry, data, place)


def _placement(value: object) -> object:
    """Pins may be written as on the command line: 3-6=edge."""
    return to_data(Placement.parse(value)) if isinstance(value, str) else value


def demands_of(job: Job, folder: Path) -> tuple[Fleet, list[Demand]]:
    """The fleet and what is asked of it; files are relative to ``folder``. Raises what reading them raises."""
    demands = [
        Demand(
            entry.name,
            ProfileTable.load([folder / each for each in entry.profiles]),
            entry.rate_per_s,
            {entry.objective: 1.0} if isinstance(entry.objective, str) else entry.objective,
            entry.weight,
            entry.limits,
            entry.source,
            entry.sink,
            entry.batch,
            entry.statistic,
            None if entry.codecs is None else codecs_named(entry.codecs),
        )
        for entry in job.streams
    ]
    return load_fleet(folder / job.fleet), demands
