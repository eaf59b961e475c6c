"""What a simulation assumes: when requests arrive, and how devices and links fare over time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from planner.documents import document
from planner.errors import InputError, UnknownNameError
from planner.fleet import Fleet, Link
from planner.simulate_rate import LinkTrace, Rate, check_times, read_times

# A device (one name) or a directed link (two).
Place = tuple[str, ...]

# Rates and factors beyond these are slips of the pen, and their times no longer numbers.
_LEAST, _MOST = 1e-9, 1e9
_MOST_JITTER = 10.0


def place_name(place: Place) -> str:
    return " → ".join(place)


@document()
class Arrivals:
    """When the requests of one plan arrive.

    ``closed``: ``concurrency`` in flight, the next one enters when one is answered, as `edgecut deploy`
    does. ``constant`` and ``poisson``: ``rate_per_s``, whatever the plan answers. ``trace``: at ``time_s``.
    """

    kind: Literal["closed", "constant", "poisson", "trace"] = "closed"
    concurrency: int = 1
    rate_per_s: float | None = None
    time_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"at least 1 request is in flight, found {self.concurrency}")
        if self.kind in ("constant", "poisson") and not _LEAST <= (self.rate_per_s or 0) <= _MOST:
            raise ValueError(f"a rate must be {_LEAST:g} to {_MOST:g} per s, found {self.rate_per_s}")
        if self.kind == "trace":
            check_times(self.time_s, again=True)

    def __str__(self) -> str:
        if self.kind == "closed":
            return f"{self.concurrency} in flight"
        if self.kind == "trace":
            return f"trace of {len(self.time_s):,}"
        return f"{self.kind} {self.rate_per_s:g}/s"

    def times_s(self, requests: int, random: np.random.Generator) -> tuple[float, ...] | None:
        """The arrival times of ``requests`` (of a trace: of all in it); None for a closed loop.

        The first of a constant rate is at 0, of a Poisson process after the first random interval.
        """
        if self.kind == "closed":
            return None
        if self.kind == "trace":
            return self.time_s
        assert self.rate_per_s is not None
        if self.kind == "constant":
            return tuple(number / self.rate_per_s for number in range(requests))
        return tuple(np.cumsum(random.exponential(1 / self.rate_per_s, requests)).tolist())


def parse_arrivals(text: str) -> Arrivals:
    """``closed:N``, ``constant:RATE``, ``poisson:RATE`` or a CSV file. Raises ``InputError``."""
    kind, _, value = text.partition(":")
    try:
        if kind == "closed":
            return Arrivals("closed", int(value))
        if kind == "constant":
            return Arrivals("constant", rate_per_s=float(value))
        if kind == "poisson":
            return Arrivals("poisson", rate_per_s=float(value))
    except ValueError as error:
        reason = "" if "invalid literal" in str(error) or "could not convert" in str(error) else f" ({error})"
        problem = f"{text!r} are no arrivals{reason}"
        raise InputError(problem, "write closed:4, constant:20 or poisson:20 (per second)") from None
    if not Path(text).exists():
        remedy = "write closed:4, constant:20, poisson:20 (per second), or the name of a CSV file"
        raise InputError(f"{text!r} are no arrivals, and no file", remedy)
    return Arrivals("trace", time_s=read_times(Path(text)))


@document()
class Slowdown:
    """From ``start_s`` on, what the device does takes ``factor`` times as long."""

    device: str
    factor: float
    start_s: float = 0.0

    def __post_init__(self) -> None:
        if not _LEAST <= self.factor <= _MOST or not 0 <= self.start_s < math.inf:
            problem = f"a factor of {_LEAST:g} to {_MOST:g}, from a time of at least 0 s on"
            raise ValueError(f"{self.device}: a slowdown is {problem}")


@document()
class Outage:
    """From ``start_s`` to ``stop_s`` a device or link does nothing; what it was doing goes on after that."""

    place: Place
    start_s: float
    stop_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.stop_s < math.inf:
            found = f"found {self.start_s:g} s to {self.stop_s:g} s"
            raise ValueError(f"{place_name(self.place)}: an outage ends after it starts, {found}")


@document()
class Scenario:
    """What is assumed beside the plans.

    ``jitter``: coefficient of variation of what devices take, lognormal with the forecast as its mean;
    where ``from_samples``, stages are drawn from a profile's raw samples instead. ``bandwidth_factor``: of
    all links, traces included. ``drop_late``: a request past its deadline is dropped when a device or link
    would take it up.
    """

    requests: int = 1000
    seed: int = 0
    jitter: float = 0.0
    from_samples: bool = False
    bandwidth_factor: float = 1.0
    traces: tuple[LinkTrace, ...] = ()
    slowdowns: tuple[Slowdown, ...] = ()
    outages: tuple[Outage, ...] = ()
    deadline_s: float | None = None
    drop_late: bool = False

    def __post_init__(self) -> None:
        if self.requests < 1 or self.seed < 0:
            raise ValueError("requests are at least 1, the seed at least 0")
        if not 0 <= self.jitter <= _MOST_JITTER:
            raise ValueError(f"jitter must be 0 to {_MOST_JITTER:g}, found {self.jitter}")
        if not _LEAST <= self.bandwidth_factor <= _MOST:
            problem = f"must be {_LEAST:g} to {_MOST:g}, found {self.bandwidth_factor}"
            raise ValueError(f"bandwidth_factor {problem}")
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise ValueError(f"deadline_s must be above 0 and finite, found {self.deadline_s}")
        if self.drop_late and self.deadline_s is None:
            raise ValueError("late requests can be dropped only where there is a deadline")
        pairs = [trace.pair for trace in self.traces]
        for pair in pairs:
            if pairs.count(pair) > 1:
                raise ValueError(f"the bandwidth of {place_name(pair)} is given twice")

    def rates(self, fleet: Fleet) -> tuple[dict[Place, Rate], dict[Place, Rate]]:
        """How fast each device and link works, and the latency of each link, over time.

        Raises ``UnknownNameError`` for a device or link that the fleet lacks.
        """
        work: dict[Place, Rate] = {(device.name,): Rate.constant(1.0) for device in fleet.devices}
        latency: dict[Place, Rate] = {}
        for link in fleet.links:
            work[link.pair] = Rate.constant(link.bandwidth_bytes_per_s)
            latency[link.pair] = Rate.constant(link.latency_s)
        for trace in self.traces:
            _check_place(trace.pair, fleet)
            work[trace.pair] = Rate(trace.time_s, trace.bandwidth_bytes_per_s)
            if trace.latency_s:
                latency[trace.pair] = Rate(trace.time_s, trace.latency_s)
        for link in fleet.links:
            work[link.pair] = work[link.pair].times(Rate.constant(self.bandwidth_factor))
        for slowdown in self.slowdowns:
            _check_place((slowdown.device,), fleet)
            factor = Rate((0.0, slowdown.start_s), (1.0, 1 / slowdown.factor))
            if slowdown.start_s == 0:
                factor = Rate.constant(1 / slowdown.factor)
            work[slowdown.device,] = work[slowdown.device,].times(factor)
        for outage in self.outages:
            _check_place(outage.place, fleet)
            work[outage.place] = work[outage.place].times(Rate.zero_within(outage.start_s, outage.stop_s))
        return work, latency


def _check_place(place: Place, fleet: Fleet) -> None:
    if len(place) == 1:
        fleet.device(place[0])
    elif fleet.link(*place) is None:
        raise UnknownNameError("link", ":".join(place), _names(fleet.links))


def _names(links: Iterable[Link]) -> list[str]:
    return [":".join(link.pair) for link in links]
