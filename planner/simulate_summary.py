"""The figures of a simulation: latencies, throughput, queues, utilisation, energy."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from planner.plan import Plan
from planner.simulate_rate import Rate
from planner.simulate_result import (
    BatteryResult,
    Latencies,
    Outcome,
    PlaceResult,
    Request,
    Simulation,
    Stream,
    StreamResult,
    Visit,
)
from planner.simulate_scenario import Arrivals, Place, Scenario, place_name
from planner.simulate_steps import radio_powers_w


def summarise(
    plans: Sequence[Plan],
    arrivals: Sequence[Arrivals],
    scenario: Scenario,
    rates: Mapping[Place, Rate],
    streams: Sequence[Stream],
    outcome: Outcome,
) -> Simulation:
    """The figures of what happened."""
    duration_s = max(each.left_s for stream in outcome.requests for each in stream)
    visits: dict[Place, list[Visit]] = defaultdict(list)
    for visit in outcome.visits:
        visits[visit.step.place].append(visit)
    working = {
        place: [span for visit in found for span in rates[place].spans(visit.start_s, visit.stop_s)]
        for place, found in visits.items()
    }
    loads = [_loads(stream, rates, duration_s) for stream in streams]
    return Simulation(
        tuple(plans),
        scenario,
        duration_s,
        tuple(
            _stream(plan, process, scenario, load, requests)
            for plan, process, load, requests in zip(plans, arrivals, loads, outcome.requests, strict=True)
        ),
        tuple(_place(place, visits[place], working[place], duration_s) for place in rates if place in visits),
        _batteries(plans[0], visits, working, rates, duration_s),
        _overloads(arrivals, streams, loads),
    )


def _stream(
    plan: Plan, process: Arrivals, scenario: Scenario, load: dict[Place, float], requests: Sequence[Request]
) -> StreamResult:
    answered = [each for each in requests if not each.dropped]
    latency = None
    if answered:
        values = np.array([each.latency_s for each in answered])
        median, p95, p99 = np.percentile(values, [50, 95, 99]).tolist()
        queue_s = float(np.mean([each.queue_s for each in answered]))
        latency = Latencies(float(values.mean()), median, p95, p99, float(values.max()), queue_s)
    took_s = max(each.left_s for each in requests) - requests[0].arrived_s
    bottleneck = max(load, key=lambda place: load[place])
    return StreamResult(
        plan.chain.source.label,
        process,
        len(requests),
        len(answered),
        sum(each.late(scenario) for each in answered),
        len(requests) - len(answered),
        len(answered) / took_s if took_s else 0.0,
        1 / load[bottleneck] if load[bottleneck] else 0.0,
        bottleneck,
        latency,
    )


def _loads(stream: Stream, rates: Mapping[Place, Rate], duration_s: float) -> dict[Place, float]:
    """Seconds that each device and link is busy per request, in the mean over the simulated time."""
    steps = [step for turn in stream.turns for step in turn.steps]
    loads: dict[Place, float] = defaultdict(float)
    for step, amount in zip(steps, stream.amounts.mean(axis=0).tolist(), strict=True):
        rate = rates[step.place].mean(duration_s) if duration_s else rates[step.place].at(0.0)
        loads[step.place] += amount / rate if rate else 0.0
    return loads


def _overloads(
    arrivals: Sequence[Arrivals], streams: Sequence[Stream], loads: Sequence[dict[Place, float]]
) -> tuple[str, ...]:
    """What is said where requests arrive faster than a device or link can serve them."""
    asked: dict[Place, float] = defaultdict(float)
    rates = []
    for process, stream, load in zip(arrivals, streams, loads, strict=True):
        rate = process.rate_per_s
        if process.kind == "trace" and (span_s := process.time_s[-1] - process.time_s[0]):
            rate = (len(stream.amounts) - 1) / span_s
        if process.kind != "closed" and rate:
            rates.append(rate)
            for place, busy_s in load.items():
                asked[place] += rate * busy_s
    worst = max(asked, key=lambda place: asked[place], default=())
    if not worst or asked[worst] <= 1 + 1e-9:
        return ()
    most = [f"{rate / asked[worst]:.4g}" for rate in rates]
    served = f"the plan can serve {most[0]} per s at most"
    if len(rates) > 1:
        served = f"of these plans {' and '.join(most)} per s can be served together at most"
    return (f"the queue grows: {served}; {place_name(worst)} is asked for {asked[worst]:.0%} of its time",)


def _place(
    place: Place, visits: Sequence[Visit], spans: list[tuple[float, float]], end_s: float
) -> PlaceResult:
    busy_s = math.fsum(stop_s - start_s for start_s, stop_s in spans)
    waits = [(each.offered_s, each.start_s) for each in visits if each.start_s > each.offered_s]
    # At the same moment one leaves the queue before the next enters it.
    events = sorted([(begin_s, 1) for begin_s, _ in waits] + [(end, -1) for _, end in waits])
    longest = int(np.cumsum([change for _, change in events]).max()) if events else 0
    steps = sum(each.served for each in visits)
    queued_s = math.fsum(stop_s - start_s for start_s, stop_s in waits)
    if not end_s:
        return PlaceResult(place, steps, busy_s, 0.0, 0.0, longest)
    return PlaceResult(place, steps, busy_s, busy_s / end_s, queued_s / end_s, longest)


def _batteries(
    plan: Plan,
    visits: Mapping[Place, Sequence[Visit]],
    working: Mapping[Place, list[tuple[float, float]]],
    rates: Mapping[Place, Rate],
    duration_s: float,
) -> tuple[BatteryResult, ...]:
    """As ``planner.cost`` counts: own power while it computes, radio power while bytes flow, else idle power."""
    found = []
    radios = {place: radio_powers_w(plan.fleet, place) for place in working if len(place) == 2}
    for device in plan.fleet.devices:
        if not device.battery:
            continue
        compute_j = math.fsum(
            each.step.power_w * _length(rates[device.name,].spans(each.start_s, each.stop_s))
            for each in visits.get((device.name,), ())
        )
        mine = [place for place in radios if device.name in radios[place]]
        radio_j = math.fsum(radios[place][device.name] * _length(working[place]) for place in mine)
        active = [span for place in [(device.name,), *mine] for span in working.get(place, [])]
        idle_s = max(duration_s - _length(_union(active)), 0.0)
        found.append(BatteryResult(device.name, compute_j, radio_j, device.idle_power_w * idle_s))
    return tuple(found)


def _length(spans: Sequence[tuple[float, float]]) -> float:
    return math.fsum(stop_s - start_s for start_s, stop_s in spans)


def _union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same moments, each once."""
    joined: list[tuple[float, float]] = []
    for start_s, stop_s in sorted(spans):
        if joined and start_s <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop_s, joined[-1][1])
        else:
            joined.append((start_s, stop_s))
    return joined
