"""Plans for several streams on one fleet, and one stream dealt out over several plans."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from planner.chain import Bundle
from planner.documents import document, read_document, write_document
from planner.errors import InputError
from planner.fleet import Fleet
from planner.notebook import Displayed, path_text, table_of
from planner.period import busy_s
from planner.plan import Plan, Proof, holds

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "edgecut.fleetplan/2"
# Shares and utilisations as written agree with those computed anew up to this.
_AGREEMENT = 1e-6


@document()
class Share:
    """A plan, and the share of a stream's requests that take it."""

    plan: Plan
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 + _AGREEMENT:
            raise ValueError(f"share must be above 0 and at most 1, found {self.share}")


@document()
class Stream:
    """Requests of one model, ``rate_per_s`` of them (each of a plan's batch), dealt out over ``shares``.

    ``weight``: what its objective counts in the sum over streams.
    """

    name: str
    rate_per_s: float
    weight: float
    shares: tuple[Share, ...]

    def __post_init__(self) -> None:
        check_rate(self.name, self.rate_per_s, self.weight)
        if not self.shares or abs(sum(each.share for each in self.shares) - 1) > _AGREEMENT:
            raise ValueError(f"{self.name}: the shares of its plans must sum to 1")

    @property
    def stages(self) -> dict[Bundle, dict[str, float]]:
        """Of each bundle that runs, in order, the devices and the share of the requests that each serves."""
        found: dict[Bundle, dict[str, float]] = {}
        for each in self.shares:
            for stage in each.plan.stages:
                devices = found.setdefault(stage.bundle, defaultdict(float))
                devices[stage.device] += each.share
        return {bundle: dict(found[bundle]) for bundle in sorted(found)}


@document()
class FleetPlan(Displayed):
    """``utilisation``: by device and link ("a->b"), the share of time that each stream keeps it busy.

    ``proof``: of the whole; its ``objective`` names what was minimised. The proof of a plan within says what
    bounds that plan alone.
    """

    fleet: Fleet
    max_utilisation: float
    streams: tuple[Stream, ...]
    utilisation: dict[str, dict[str, float]]
    proof: Proof
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        check_names(stream.name for stream in self.streams)
        for stream in self.streams:
            for share in stream.shares:
                if (share.plan.fleet.devices, share.plan.fleet.links) != (
                    self.fleet.devices,
                    self.fleet.links,
                ):
                    raise ValueError(f"{stream.name}: a plan of another fleet")
        anew = utilisation(self.streams)
        cells = {(name, each) for table in (anew, self.utilisation) for name in table for each in table[name]}
        for name, stream_name in cells:
            value = anew.get(name, {}).get(stream_name, 0.0)
            found = self.utilisation.get(name, {}).get(stream_name, 0.0)
            if not math.isclose(value, found, rel_tol=_AGREEMENT, abs_tol=_AGREEMENT):
                raise ValueError(
                    f"utilisation of {name} by {stream_name} is {value} by its plans, found {found}"
                )

    def headline(self) -> str:
        names = ", ".join(stream.name for stream in self.streams)
        busiest = max((sum(by_stream.values()) for by_stream in self.utilisation.values()), default=0.0)
        return f"{names} on {len(self.fleet.devices)} devices, busy {busiest:.1%} at most; {self.proof.outcome.value}"

    def frame(self) -> pd.DataFrame:
        """A row per stream and plan that its requests take: ``stream``, ``rate_per_s`` (the stream's), ``share`` of it,
        ``latency_s`` and ``energy_j`` per request, without waiting, and ``plan``."""
        rows = [
            {
                "stream": stream.name,
                "rate_per_s": stream.rate_per_s,
                "share": each.share,
                "latency_s": each.plan.cost.latency_s,
                "energy_j": each.plan.cost.energy_j,
                "plan": path_text(each.plan.stages, each.plan.hops),
            }
            for stream in self.streams
            for each in stream.shares
        ]
        return table_of(rows)

    def save(self, file: Path | str) -> None:
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, Path(file), SCHEMA)

    @staticmethod
    def load(file: Path | str) -> FleetPlan:
        """Read one; ``DocumentError`` says where it is wrong."""
        return read_document(FleetPlan, Path(file), SCHEMA)


def load_dealt(file: Path) -> tuple[Plan, Stream | None]:
    """The plan in a file; of a ``FleetPlan``, its one stream and the plan with the largest share.

    Raises ``DocumentError``, and ``InputError`` where there are several streams.
    """
    if not holds(file, SCHEMA):
        return Plan.load(file), None
    streams = FleetPlan.load(file).streams
    if len(streams) > 1:
        names = ", ".join(stream.name for stream in streams)
        raise InputError(f"{file} has plans of several streams: {names}", "give a plan of one stream")
    return max(streams[0].shares, key=lambda each: each.share).plan, streams[0]


def utilisation(streams: Iterable[Stream]) -> dict[str, dict[str, float]]:
    """By device and link, the share of time that each stream keeps it busy."""
    found: dict[str, dict[str, float]] = {}
    for stream in streams:
        for each in stream.shares:
            busy = busy_s(each.plan.fleet, each.plan.stages, each.plan.hops)
            for name, time in busy.items():
                by_stream = found.setdefault(name, defaultdict(float))
                by_stream[stream.name] += stream.rate_per_s * each.share * time
    return {name: dict(found[name]) for name in sorted(found, key=lambda name: ("->" in name, name))}


def check_rate(name: str, rate_per_s: float, weight: float) -> None:
    """Raises ``ValueError`` for what is no rate or weight."""
    if not name:
        raise ValueError("a stream needs a name")
    if not 0 < rate_per_s < math.inf:
        raise ValueError(f"{name}: rate_per_s must be above 0 and finite, found {rate_per_s}")
    if not 0 <= weight < math.inf:
        raise ValueError(f"{name}: weight must be at least 0 and finite, found {weight}")


def check_names(names: Iterable[str]) -> None:
    """Raises ``ValueError`` for a name that is there twice, and for none at all."""
    listed = list(names)
    twice = next((name for name in listed if listed.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two streams are called {twice!r}")
    if not listed:
        raise ValueError("no stream")
