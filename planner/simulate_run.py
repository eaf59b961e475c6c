"""What-if without a device: a discrete-event run of plans that share one fleet.

Requests are processes (of ``simpy``) that take the turns of their plan (drawn in ``planner.simulate_steps``);
devices, links and turns are resources that serve one at a time, in the order of arrival. Nothing here waits
on a clock: a thousand requests take about a second.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import simpy

from planner.errors import InputError, MismatchError
from planner.plan import Plan
from planner.simulate_rate import Rate
from planner.simulate_result import Outcome, Request, Simulation, Stream, Visit
from planner.simulate_scenario import Arrivals, Place, Scenario, place_name
from planner.simulate_steps import Samples, Turn, amounts_of, turns_of
from planner.simulate_summary import summarise

_AS_FORECAST = Scenario()
Events = Generator[simpy.Event, Any, None]


def simulate(
    plans: Sequence[Plan],
    arrivals: Sequence[Arrivals] | None = None,
    scenario: Scenario = _AS_FORECAST,
    samples: Samples | None = None,
) -> tuple[Simulation, list[list[Request]]]:
    """Run ``plans`` on their common fleet; the result, and its requests by plan.

    ``arrivals``: one for each plan; left out, each has one request in flight. ``scenario``: left out, everything takes
    what the plans forecast. ``samples``: as ``read_samples`` gives them, for a scenario that draws
    from them. Raises ``InputError``: plans of several fleets, a name the fleet lacks, a transfer or bundle
    that never ends.
    """
    if arrivals is None:
        arrivals = [Arrivals()] * len(plans)
    if not plans or len(plans) != len(arrivals):
        raise InputError(
            f"{len(plans)} plans and {len(arrivals)} arrivals", "give one process of arrivals for each plan"
        )
    fleet = plans[0].fleet
    for place, plan in enumerate(plans[1:], start=2):
        if plan.fleet != fleet:
            problem = f"plan {place} ({plan.chain.source.label}) is for another fleet than the first"
            raise MismatchError(problem, "solve both with the same fleet file")
    rates, latencies = scenario.rates(fleet)
    streams = []
    for place, (plan, process) in enumerate(zip(plans, arrivals, strict=True)):
        random = np.random.default_rng([scenario.seed, place])
        times_s = process.times_s(scenario.requests, random)
        requests = scenario.requests if times_s is None else len(times_s)
        turns = turns_of(plan)
        amounts = amounts_of(plan, turns, requests, scenario, samples or {}, place)
        streams.append(Stream(turns, amounts, times_s, process.concurrency))
    outcome = run(streams, rates, latencies, scenario.deadline_s if scenario.drop_late else None)
    found = summarise(plans, arrivals, scenario, rates, streams, outcome)
    return found, outcome.requests


def run(
    streams: Sequence[Stream],
    rates: Mapping[Place, Rate],
    latencies: Mapping[Place, Rate],
    drop_after_s: float | None = None,
) -> Outcome:
    """The events themselves. ``rates``: how fast each device and link works; ``latencies``: of each link.

    ``drop_after_s``: a request older than this is dropped where a step would begin. Raises ``InputError``
    for a step that never ends.
    """
    return _Run(streams, rates, latencies, math.inf if drop_after_s is None else drop_after_s).outcome()


class _Run:
    def __init__(
        self,
        streams: Sequence[Stream],
        rates: Mapping[Place, Rate],
        latencies: Mapping[Place, Rate],
        drop_after_s: float,
    ) -> None:
        self._env = simpy.Environment()
        self._streams, self._rates, self._latencies = streams, rates, latencies
        self._drop_after_s = drop_after_s
        self._places = {place: simpy.Resource(self._env) for place in rates}
        self._threads = [[simpy.Resource(self._env) for _ in stream.turns] for stream in streams]
        self._arrived = [[self._env.event().succeed() for _ in stream.turns] for stream in streams]
        self._visits: list[Visit] = []
        self._requests: list[list[Request]] = [[] for _ in streams]
        self._open = sum(len(stream.amounts) for stream in streams)
        self._over = self._env.event()  # succeeds with the reason where a step never ends

    def outcome(self) -> Outcome:
        for place, stream in enumerate(self._streams):
            if stream.times_s is None:
                waiting = iter(range(len(stream.amounts)))
                for _ in range(stream.concurrency):
                    self._env.process(self._client(place, waiting))
            else:
                self._env.process(self._source(place, stream.times_s))
        if (stuck := self._env.run(until=self._over)) is not None:
            raise InputError(str(stuck), "end the trace with a bandwidth above 0")
        for requests in self._requests:
            requests.sort(key=lambda request: request.number)
        return Outcome(self._requests, self._visits)

    def _client(self, stream: int, waiting: Iterator[int]) -> Events:
        for number in waiting:
            yield from self._request(stream, number)

    def _source(self, stream: int, times_s: Sequence[float]) -> Events:
        for number, time_s in enumerate(times_s):
            yield self._env.timeout(max(time_s - self._env.now, 0.0))
            self._env.process(self._request(stream, number))

    def _request(self, stream: int, number: int) -> Events:
        arrived_s = self._env.now
        amounts = iter(self._streams[stream].amounts[number].tolist())
        waited_s, dropped = 0.0, False
        for place, turn in enumerate(self._streams[stream].turns):
            waited_s += yield from self._take(stream, place, turn, arrived_s, amounts)
            if math.isinf(waited_s):
                dropped = True
                break
            link = turn.steps[-1].place
            if link in self._latencies:
                before, self._arrived[stream][place] = self._arrived[stream][place], self._env.event()
                arrived = self._arrived[stream][place]
                yield self._env.timeout(self._latencies[link].at(self._env.now))
                yield before  # a latency that falls lets no message overtake another
                arrived.succeed()
        done = Request(number, arrived_s, self._env.now, 0.0 if dropped else waited_s, dropped)
        self._requests[stream].append(done)
        self._open -= 1
        if not self._open:
            self._over.succeed()

    def _take(
        self, stream: int, place: int, turn: Turn, arrived_s: float, amounts: Iterator[float]
    ) -> Generator[simpy.Event, Any, float]:
        """Take one turn; returns the seconds waited in it, infinite where the request is dropped."""
        env, waited_s, offered_s = self._env, 0.0, self._env.now
        with self._threads[stream][place].request() as thread:
            yield thread
            for step in turn.steps:
                with self._places[step.place].request() as served:
                    yield served
                    start_s = env.now
                    if start_s - arrived_s > self._drop_after_s:
                        self._visits.append(Visit(stream, step, offered_s, start_s, start_s, served=False))
                        return math.inf
                    amount = next(amounts)
                    stop_s = self._rates[step.place].finish_s(start_s, amount)
                    if math.isinf(stop_s) and not self._over.triggered:
                        self._over.succeed(_never(step.place, amount, start_s))
                    yield env.timeout(stop_s - start_s)
                self._visits.append(Visit(stream, step, offered_s, start_s, env.now))
                waited_s += start_s - offered_s
                offered_s = env.now
        return waited_s


def _never(place: Place, amount: float, start_s: float) -> str:
    what = f"a transfer of {amount:,.0f} bytes" if len(place) == 2 else "a step"
    return f"{place_name(place)}: {what} that begins at {start_s:.3f} s never ends, its rate stays 0"
