"""Stages on several devices: against every way to cut and to hand out devices, each with its own linear programme."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from strategies import make_chain, make_row

from planner.chain import Chain
from planner.errors import InputError, PlanningError
from planner.fleet import Device, Fleet, Link
from planner.fleet_plan import FleetPlan
from planner.plan import Outcome
from planner.replicas import replicate
from planner.table import ProfileTable

Stage_ = tuple[int, int, tuple[str, ...]]


def every_pipeline(chain: Chain, names: list[str]) -> Iterator[list[Stage_]]:
    def onward(start: int, free: tuple[str, ...]) -> Iterator[list[Stage_]]:
        if start == len(chain):
            yield []
        for stop in range(start + 1, len(chain) + 1):
            for count in range(1, len(free) + 1):
                for taken in itertools.combinations(free, count):
                    left = tuple(name for name in free if name not in taken)
                    for rest in onward(stop, left):
                        yield [(start, stop, taken), *rest]

    yield from onward(0, tuple(names))


def least_period(
    chain: Chain, fleet: Fleet, times: dict[tuple[str, int, int], float], stages: list[Stage_]
) -> float:
    """By a linear programme over what flows between each two devices; inf where nothing can."""
    columns: list[dict[str, float]] = []
    ends = [(fleet.source,), *(devices for *_, devices in stages), (fleet.sink,)]
    cuts = [0, *(stop for _, stop, _ in stages)]
    flows: list[tuple[int, str, str]] = []
    for place, cut in enumerate(cuts):
        for one, other in itertools.product(ends[place], ends[place + 1]):
            link = fleet.link(one, other)
            if one != other and link is None:
                continue
            busy = (
                {}
                if link is None
                else {f"{one}->{other}": chain.wire_bytes(cut) / link.bandwidth_bytes_per_s}
            )
            if place < len(stages):
                start, stop, _ = stages[place]
                busy[other] = times.get((other, start, stop), math.inf)
            if all(map(math.isfinite, busy.values())):
                flows.append((place, one, other))
                columns.append(busy)
    rows = sorted({name for busy in columns for name in busy})
    over = [[busy.get(name, 0.0) for busy in columns] + [-1.0] for name in rows]
    balance, supply = [[float(place == 0) for place, *_ in flows] + [0.0]], [1.0]
    for place in range(len(stages)):
        for device in ends[place + 1]:
            row = [float(at == place and to == device) - float(at == place + 1 and of == device)
                   for at, of, to in flows]  # fmt: skip
            balance.append([*row, 0.0])
            supply.append(0.0)
    if not columns:
        return math.inf
    answer = linprog(np.append(np.zeros(len(columns)), 1.0), over, np.zeros(len(rows)), balance, supply)
    return float(answer.fun) if answer.status == 0 else math.inf


@given(st.data(), st.integers(1, 3), st.sampled_from(["alike", "types", "distinct"]), st.integers(0, 2**32))
@settings(max_examples=16)
def test_against_every_pipeline(data: st.DataObject, layers: int, kind: str, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    chain = make_chain([int(size) for size in numbers.integers(1, 60, layers + 1) * 1000])
    names = ["a", "b", "c", "d"][: data.draw(st.integers(2, 4 if layers < 3 else 3))]
    types = {
        name: {"alike": 0, "types": place // 2, "distinct": place}[kind] for place, name in enumerate(names)
    }
    source_computes = data.draw(st.booleans())
    everything = ["src", *names]
    types["src"] = 9
    rates = numbers.uniform(0.5, 8, (10, 10)) * 10 ** data.draw(st.sampled_from([5, 6, 7]))
    links = tuple(
        Link(one, other, float(rates[types[one], types[other]]))
        for one, other in itertools.permutations(everything, 2)
    )
    fleet = Fleet("src", "src", tuple(map(Device, everything)), links)
    base = numbers.uniform(1, 20, (10, layers, layers + 1)) * 1e-3
    times = {
        (name, bundle.start, bundle.stop): float(base[types[name], bundle.start, bundle.stop]) * len(bundle)
        for name in (everything if source_computes else names)
        for bundle in chain.bundles()
    }
    table = ProfileTable(chain, tuple(make_row(*key, time) for key, time in times.items()))
    plan = replicate(fleet, table)
    period = plan.proof.objective_value
    computing = everything if source_computes else names
    optimum = min(least_period(chain, fleet, times, each) for each in every_pipeline(chain, computing))
    assert plan.proof.bound <= optimum * (1 + 1e-6)
    assert period >= optimum * (1 - 1e-6)
    if plan.proof.outcome is Outcome.OPTIMAL or kind == "alike":
        assert period == pytest.approx(optimum, rel=1e-6)
    event(
        f"{kind}: {plan.proof.outcome.value}, {'optimum' if period <= optimum * (1 + 1e-6) else 'above it'}"
    )
    # The stages follow each other, a device is in one, and the shares of each sum to 1.
    stages = plan.streams[0].stages
    ends = [bundle.start for bundle in stages] + [layers]
    assert ends[0] == 0
    assert [bundle.stop for bundle in stages] == ends[1:]
    used = [device for devices in stages.values() for device in devices]
    assert len(used) == len(set(used))
    for devices in stages.values():
        assert sum(devices.values()) == pytest.approx(1)
    assert max(sum(by_stream.values()) for by_stream in plan.utilisation.values()) == pytest.approx(1)
    assert plan.streams[0].rate_per_s == pytest.approx(1 / period)


# By hand --------------------------------------------------------------------------------------------


def fleet_of(times: dict[str, float], bandwidth: float = 1e9, **device: int) -> Fleet:
    names = ["src", *times]
    links = tuple(Link(*pair, bandwidth) for pair in itertools.permutations(names, 2))
    return Fleet("src", "src", (Device("src"), *(Device(name, **device) for name in times)), links)


def table_of(times: dict[str, float], layers: int = 1) -> ProfileTable:
    chain = make_chain([1000] * (layers + 1))
    rows = [
        make_row(name, b.start, b.stop, time * len(b))
        for name, time in times.items()
        for b in chain.bundles()
    ]
    return ProfileTable(chain, tuple(rows))


def test_shares_are_in_proportion_to_speed() -> None:
    times = {"quick": 0.010, "slow": 0.030}
    plan = replicate(fleet_of(times), table_of(times))
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective_value == pytest.approx(0.0075)
    (devices,) = plan.streams[0].stages.values()
    assert devices == pytest.approx({"quick": 0.75, "slow": 0.25})


def test_alike_devices_take_equal_turns() -> None:
    times = {f"d{k}": 0.012 for k in range(4)}
    plan = replicate(fleet_of(times), table_of(times))
    assert plan.proof.objective_value == pytest.approx(0.003)
    assert plan.streams[0].rate_per_s == pytest.approx(1000 / 3)


def test_at_most_so_many_replicas() -> None:
    times = {f"d{k}": 0.012 for k in range(4)}
    plan = replicate(fleet_of(times), table_of(times, layers=2), max_replicas=2)
    assert plan.proof.objective_value == pytest.approx(0.006)
    assert all(len(devices) <= 2 for devices in plan.streams[0].stages.values())
    one = replicate(fleet_of(times), table_of(times), max_replicas=1)
    assert one.proof.objective_value == pytest.approx(0.012)


def test_a_slow_link_makes_replicas_useless() -> None:
    """10 ms of each link to a server and none to spare: more servers share the sending, and no fewer are used."""
    times = {"a": 0.001, "b": 0.001}
    plan = replicate(fleet_of(times, bandwidth=1e5), table_of(times))
    assert plan.proof.objective_value == pytest.approx(0.005)
    assert plan.proof.outcome is Outcome.OPTIMAL


def test_memory_keeps_a_device_out() -> None:
    times = {"a": 0.010, "b": 0.010}
    with pytest.raises(PlanningError, match="no stages lead"):
        replicate(fleet_of(times, memory_bytes=100), table_of(times))


def test_many_alike_devices_are_counted_not_listed() -> None:
    times = {f"d{k}": 0.012 for k in range(30)}
    plan = replicate(fleet_of(times), table_of(times, layers=4))
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective_value == pytest.approx(0.048 / 30)


def test_a_wrong_number_of_replicas() -> None:
    times = {"a": 0.010}
    with pytest.raises(InputError, match="max_replicas"):
        replicate(fleet_of(times), table_of(times), max_replicas=0)


def test_round_trip(tmp_path: Path) -> None:
    times = {"quick": 0.010, "slow": 0.030}
    plan = replicate(fleet_of(times), table_of(times, layers=2))
    plan.save(tmp_path / "plan.json")
    assert FleetPlan.load(tmp_path / "plan.json") == plan
