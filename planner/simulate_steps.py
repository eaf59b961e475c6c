"""A plan as what its requests do, one after the other, and how long each of it takes.

::

    segment on a device                            link to the next segment
    ┌ turn: decode, stage, stage, encode ┐ ──────► ┌ turn: wire ┐ ── latency ──► next turn
    └ a thread, one request at a time    ┘         └ a thread   ┘

This is how ``runtime.segment`` works on a device without a processor to spare: what decodes, computes and
encodes takes turns. A request holds its turn from the first step to the last; for each step it waits for the
device or the link, which all turns share, first come first served. What waits, waits in the order of arrival;
only the window of a closed loop bounds how much. A link is free for the next message when it has taken all
bytes; its latency comes after that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle
from planner.documents import read_text
from planner.errors import MismatchError
from planner.fleet import Fleet
from planner.itinerary import itinerary
from planner.plan import Hop, Plan, Variant
from planner.sample_lines import parse_samples, samples_file
from planner.sidecar import Sidecar
from planner.simulate_scenario import Place, Scenario

FloatArray = NDArray[np.float64]
Samples = Mapping[tuple[str, str, Bundle, Variant, int], Sequence[float]]


@dataclass(frozen=True)
class Step:
    """One thing that one device or link does for a request.

    ``index``: of the stage or hop in the plan. ``amount``: seconds on a device, bytes on a link.
    ``power_w``: of the device meanwhile, 0 where its energy does not count.
    """

    kind: Literal["decode", "stage", "encode", "wire"]
    index: int
    place: Place
    amount: float
    power_w: float = 0.0


@dataclass(frozen=True)
class Turn:
    """Steps of one thread."""

    steps: tuple[Step, ...]


def turns_of(plan: Plan) -> tuple[Turn, ...]:
    """The turns that every request takes, in this order."""
    hops = {hop.boundary: index for index, hop in enumerate(plan.hops)}
    turns = []
    for segment in itinerary(plan):
        place, steps = (segment.device,), []
        if segment.decodes:
            hop = hops[segment.boundary]
            steps.append(_coding(plan, "decode", hop, plan.hops[hop].decode_s, place))
        for stage in segment.stages:
            cost = plan.stages[stage].cost
            idle_j = _idle_power_w(plan.fleet, segment.device) * cost.latency_s
            power_w = (cost.energy_j - idle_j) / cost.latency_s if cost.latency_s else 0.0
            battery = plan.fleet.device(segment.device).battery
            steps.append(Step("stage", stage, place, cost.latency_s, max(power_w, 0.0) if battery else 0.0))
        leaves = plan.stages[segment.stages[-1]].bundle.stop if segment.stages else segment.boundary
        if segment.encodes:
            hop = hops[leaves]
            steps.append(_coding(plan, "encode", hop, plan.hops[hop].encode_s, place))
        if steps:
            turns.append(Turn(tuple(steps)))
        if segment.link:
            hop = hops[leaves]
            turns.append(Turn((Step("wire", hop, segment.link.pair, float(plan.hops[hop].wire_bytes)),)))
    return tuple(turns)


def _coding(plan: Plan, kind: Literal["decode", "encode"], index: int, time_s: float, place: Place) -> Step:
    device = plan.fleet.device(place[0])
    power_w = _coding_power_w(plan.fleet, plan.hops[index]) if device.active_power_w is None else None
    return Step(kind, index, place, time_s, (power_w or device.active_power_w or 0.0) * device.battery)


def _coding_power_w(fleet: Fleet, hop: Hop) -> float:
    """Watts of a battery device that codes, where the fleet does not say them: what the hop's forecast
    energy leaves beside its links, idling, and the other end."""
    ends = ((hop.route[0], hop.encode_s), (hop.route[-1], hop.decode_s))
    rest_j, unknown_s = hop.cost.energy_j, 0.0
    for name, time_s in ends:
        device = fleet.device(name)
        rest_j -= _idle_power_w(fleet, name) * time_s
        if device.battery and device.active_power_w is None:
            unknown_s += time_s
        elif device.battery:
            rest_j -= (device.active_power_w or 0.0) * time_s
    for pair in zip(hop.route, hop.route[1:], strict=False):
        link = fleet.link(*pair)
        assert link is not None, pair
        time_s = link.transfer_s(hop.wire_bytes)
        radio_w = sum(radio_powers_w(fleet, pair).values()) + _idle_power_w(fleet, *pair)
        rest_j -= radio_w * time_s + _idle_power_w(fleet) * link.latency_s
    return max(rest_j / unknown_s, 0.0) if unknown_s else 0.0


def radio_powers_w(fleet: Fleet, pair: Place) -> dict[str, float]:
    """Watts of the battery devices at both ends of a link while bytes flow."""
    link = fleet.link(*pair)
    assert link is not None, pair
    powers = {link.source: link.send_power_w, link.target: link.receive_power_w}
    return {name: power for name, power in powers.items() if fleet.device(name).battery}


def _idle_power_w(fleet: Fleet, *busy: str) -> float:
    return math.fsum(each.idle_power_w for each in fleet.devices if each.battery and each.name not in busy)


def amounts_of(
    plan: Plan, turns: Iterable[Turn], requests: int, scenario: Scenario, samples: Samples, stream: int
) -> FloatArray:
    """What each step of each request takes, shape (requests, steps): seconds on devices, bytes on links.

    The draws depend on the seed, the place of the plan (``stream``) and of the step, not on what happens in
    the simulation: two scenarios of one seed meet the same requests. Raises ``MismatchError`` where a stage
    has no samples.
    """
    steps = [step for turn in turns for step in turn.steps]
    amounts = np.tile(np.array([step.amount for step in steps]), (requests, 1))
    spread = math.sqrt(math.log1p(scenario.jitter**2))
    for place, step in enumerate(steps):
        random = np.random.default_rng([scenario.seed, stream, place])
        if scenario.from_samples and step.kind == "stage":
            amounts[:, place] = random.choice(_samples_of(plan, step, samples), requests)
        elif spread and step.kind != "wire":  # a mean of 1
            amounts[:, place] *= random.lognormal(-(spread**2) / 2, spread, requests)
    return amounts


def _samples_of(plan: Plan, step: Step, samples: Samples) -> Sequence[float]:
    stage = plan.stages[step.index]
    key = plan.chain.digest, stage.device, stage.bundle, stage.variant, plan.batch
    if key not in samples:
        problem = (
            f"no raw samples of {plan.chain.source.label}, {stage.device}, bundle {stage.bundle}, "
            f"{stage.variant}, batch {plan.batch}"
        )
        raise MismatchError(problem, "pass the tables that the plan was made from, with their .samples.jsonl")
    return samples[key]


def read_samples(tables: Iterable[Path]) -> Samples:
    """Every raw time in the ``.samples.jsonl`` beside these profile tables, by chain digest, device, bundle,
    variant and batch. A half-written last line is left out. Raises ``DocumentError``."""
    found: dict[tuple[str, str, Bundle, Variant, int], list[float]] = defaultdict(list)
    for table in tables:
        sidecar, file = Sidecar.load(table.with_suffix(".json")), samples_file(table)
        for line in parse_samples(read_text(file), file):
            key = (sidecar.chain.digest, sidecar.device, *line.key)
            found[key] += line.latency_s
    return found
