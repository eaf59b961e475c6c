"""Plans for several streams on one fleet, against every combination of every plan."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cases import CHAIN, FLEET, make_table
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from strategies import Instance, instances, make_chain, make_row

from planner.codec_table import CODECS
from planner.cost import CostModel
from planner.errors import DocumentError, InfeasibleError, InputError, OverloadError
from planner.fleet import Device, Fleet, Link
from planner.fleet_plan import FleetPlan
from planner.fleet_solver import Demand, solve_many
from planner.limits import Limits
from planner.period import busy_s
from planner.plan import Hop, Outcome, Stage, Variant
from planner.table import ProfileTable

Path_ = tuple[tuple[Stage, ...], tuple[Hop, ...]]


def every_path(model: CostModel) -> Iterator[Path_]:
    """Every plan, tried one after the other: no graph, no programme."""

    def onward(boundary: int, device: str, last: Variant | None, moved: bool) -> Iterator[Path_]:
        if boundary == len(model.chain) and device == model.fleet.sink:
            yield (), ()
        if not moved:
            for hop in model.hops(boundary, device):
                for stages, hops in onward(boundary, hop.route[-1], None, True):
                    yield stages, (hop, *hops)
        for place, way in enumerate(model.ways):
            if way.device == device and way.variant != last:
                for bundle in model.chain.bundles():
                    if bundle.start == boundary and math.isfinite(
                        model.latency_s[place, bundle.start, bundle.stop]
                    ):
                        stage = model.stage(device, bundle, way.variant)
                        for stages, hops in onward(bundle.stop, device, way.variant, False):
                            yield (stage, *stages), hops

    yield from onward(0, model.fleet.source, None, False)


@dataclasses.dataclass(frozen=True)
class Tried:
    """What a plan of one stream costs, keeps busy (per inference) and takes of each device's memory."""

    latency_s: float
    energy_j: float
    busy: dict[str, float]
    memory: dict[str, float]


def tried(instance: Instance, fleet: Fleet) -> list[Tried]:
    model = replace(instance, fleet=fleet).model
    found = []
    for stages, hops in every_path(model):
        cost = model.price(stages, hops)
        memory: dict[str, float] = {}
        for stage in stages:
            ends = instance.chain.wire_bytes(stage.bundle.start) + instance.chain.wire_bytes(
                stage.bundle.stop
            )
            weights = sum(
                layer.weight_bytes for layer in instance.chain.layers[stage.bundle.start : stage.bundle.stop]
            )
            memory[stage.device] = memory.get(stage.device, 0) + ends + weights
        found.append(Tried(cost.latency_s, cost.energy_j, busy_s(fleet, stages, hops), memory))
    return found


def together(plans: tuple[Tried, ...], rates: tuple[float, ...]) -> dict[str, float]:
    total: dict[str, float] = {}
    for plan, rate in zip(plans, rates, strict=True):
        for name, time in plan.busy.items():
            total[name] = total.get(name, 0.0) + rate * time
    return total


def fits(plans: tuple[Tried, ...], memory: dict[str, int]) -> bool:
    return all(
        sum(plan.memory.get(name, 0.0) for plan in plans) <= most * (1 + 1e-9)
        for name, most in memory.items()
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Instance], Fleet]:
    """Two or three models on the fleet of the first."""
    first = draw(instances())
    assume(len(first.chain) <= 3)
    others = [draw(instances()) for _ in range(draw(st.integers(1, 2)))]
    names = {device.name for device in first.fleet.devices}
    found = [first]
    for other in others:
        assume(len(other.chain) <= 2)
        rows = tuple(row for row in other.table.rows if row.device in names)
        codecs = tuple(row for row in other.table.codecs if row.device in names)
        left = {name: entries for name, entries in other.table.left_out.items() if name in names}
        assume(rows)
        found.append(
            Instance(other.chain, first.fleet, ProfileTable(other.chain, rows, left_out=left, codecs=codecs))
        )
    return found, first.fleet


@given(st.data(), pairs(), st.booleans(), st.sampled_from([1e-4, 1.0, 1e4]))
@settings(max_examples=10)
def test_equals_every_combination(
    data: st.DataObject, given_: tuple[list[Instance], Fleet], balanced: bool, scale: float
) -> None:
    streams, fleet = given_
    known = [tried(instance, fleet) for instance in streams]
    assume(all(known) and math.prod(map(len, known)) <= 20_000)
    weights = tuple(data.draw(st.sampled_from([1.0, 0.5, 3.0])) * scale for _ in streams)
    shares = tuple(data.draw(st.sampled_from([1.0, 0.3, 2.0])) for _ in streams)
    combinations = list(itertools.product(*known))
    busiest = [max(together(each, shares).values()) for each in combinations]
    # The rates make the limit bind: at a share of what the best combination by weight needs.
    by_weight = [
        sum(weight * plan.latency_s for weight, plan in zip(weights, each, strict=True))
        for each in combinations
    ]
    needed = busiest[by_weight.index(min(by_weight))]
    tight = data.draw(st.sampled_from([1.1, 0.9, 0.6, 0.3]))
    most = data.draw(st.sampled_from([1.0, 0.8]))
    rates = tuple(share * most / (needed * tight) for share in shares)
    memory = {}
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from([device.name for device in fleet.devices]))
        peak = max(sum(plan.memory.get(name, 0.0) for plan in each) for each in combinations)
        memory[name] = max(int(peak * data.draw(st.sampled_from([0.9, 0.5]))), 1)
    limited = replace(
        fleet,
        devices=tuple(replace(each, memory_bytes=memory.get(each.name)) for each in fleet.devices),
    )
    good = [
        (weighed, max(used.values()))
        for each, weighed in zip(combinations, by_weight, strict=True)
        if fits(each, memory) and (used := together(each, rates))
    ]
    demands = [
        Demand(f"s{place}", instance.table, rate, weight=weight, codecs=CODECS)
        for place, (instance, rate, weight) in enumerate(zip(streams, rates, weights, strict=True))
    ]
    within = [(weighed, used) for weighed, used in good if used <= most * (1 + 1e-9)]
    if not within:
        event("above capacity" if good else "no memory")
        with pytest.raises(InfeasibleError) as caught:
            solve_many(limited, demands, max_utilisation=most, balanced=balanced)
        if good:
            assert isinstance(caught.value, OverloadError)
            factor = float(caught.value.remedy.split()[4].rstrip(","))
            exact = most / min(used for _, used in good)
            assert exact * (1 - 2e-4) - 1e-4 <= factor <= exact * (1 + 1e-6)
        return
    event("balanced" if balanced else "sum")
    plan = solve_many(limited, demands, max_utilisation=most, balanced=balanced)
    optimum = min(used for _, used in good) if balanced else min(weighed for weighed, _ in within)
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective_value == pytest.approx(optimum, rel=1e-6)
    assert plan.proof.bound <= optimum * (1 + 1e-6)
    by_hand: dict[str, float] = {}
    for stream in plan.streams:
        only = stream.shares[0].plan
        for name, time in busy_s(fleet, only.stages, only.hops).items():
            by_hand[name] = by_hand.get(name, 0.0) + stream.rate_per_s * time
    assert max(by_hand.values()) <= most * (1 + 1e-6)
    for name, by_stream in plan.utilisation.items():
        assert sum(by_stream.values()) == pytest.approx(by_hand[name])


# By hand --------------------------------------------------------------------------------------------

TABLE = make_table()


def two(rate_per_s: float, **more: object) -> list[Demand]:
    return [Demand("one", TABLE, rate_per_s), Demand("two", TABLE, rate_per_s, **more)]


# One layer, 50 ms at the source, 10 ms on `quick`, 15 ms on `slow`; links take no time worth speaking of.
PLAIN = Fleet(
    "here",
    "here",
    (Device("here"), Device("quick"), Device("slow")),
    tuple(Link(*pair, 1e9) for pair in itertools.permutations(("here", "quick", "slow"), 2)),
)
TIMES = {"here": 0.050, "quick": 0.010, "slow": 0.015}
LAYER = ProfileTable(
    make_chain([1000, 1000]), tuple(make_row(name, 0, 1, time) for name, time in TIMES.items())
)


def where(plan: FleetPlan) -> list[str]:
    return [stream.shares[0].plan.stages[0].device for stream in plan.streams]


def test_streams_get_out_of_each_others_way() -> None:
    """40 requests a second keep `quick` busy 40 % of the time: two streams fit, three do not."""
    demands = [Demand(name, LAYER, 40.0) for name in ("one", "two", "three")]
    both = solve_many(PLAIN, demands[:2])
    assert where(both) == ["quick", "quick"]
    assert both.utilisation["quick"] == pytest.approx({"one": 0.4, "two": 0.4})
    assert sorted(where(solve_many(PLAIN, demands))) == ["quick", "quick", "slow"]
    balanced = solve_many(PLAIN, demands[:2], balanced=True)
    assert balanced.proof.objective_value == pytest.approx(0.6)
    calm = solve_many(PLAIN, demands[:2], max_utilisation=0.8)
    assert where(calm) == ["quick", "quick"]
    assert sorted(where(solve_many(PLAIN, demands[:2], max_utilisation=0.799999))) != ["quick", "quick"]


def test_every_guess_gives_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    for balanced in (False, True):
        whole = solve_many(FLEET, two(20.0), balanced=balanced)
        with monkeypatch.context() as patched:
            patched.setattr("planner.joint._FEW_ARCS", 0)
            guessed = solve_many(FLEET, two(20.0), balanced=balanced)
        assert guessed.proof.outcome is whole.proof.outcome is Outcome.OPTIMAL
        assert guessed.proof.objective_value == pytest.approx(whole.proof.objective_value, rel=1e-9)


def test_without_time_the_bound_still_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    best = solve_many(FLEET, two(20.0)).proof.objective_value
    monkeypatch.setattr("planner.joint._MOST_ARCS", 0)
    found = solve_many(FLEET, two(20.0)).proof
    assert found.bound <= best <= found.objective_value
    assert found.gap == pytest.approx(1 - found.bound / found.objective_value)


@pytest.mark.parametrize(("weight", "expected"), [(2.0, ["slow", "quick"]), (0.5, ["quick", "slow"])])
def test_a_weight_says_who_gives_way(weight: float, expected: list[str]) -> None:
    demands = [Demand("one", LAYER, 45.0), Demand("two", LAYER, 45.0, weight=weight)]
    assert where(solve_many(PLAIN, demands, max_utilisation=0.9)) == ["quick", "quick"]
    assert where(solve_many(PLAIN, demands, max_utilisation=0.89)) == expected


def test_own_source_and_sink() -> None:
    plan = solve_many(FLEET, two(5.0, source="server", sink="cloud"))
    other = plan.streams[1].shares[0].plan
    assert (other.fleet.source, other.fleet.sink) == ("server", "cloud")
    assert "edge" not in other.devices


def test_limits_of_each_stream() -> None:
    plan = solve_many(FLEET, two(5.0, limits=Limits(private_layers=3)))
    assert {stage.device for stage in plan.streams[1].shares[0].plan.stages} == {"edge"}


def test_one_clock_for_all() -> None:
    """Two streams that ask for one clock get the same one; one that does not is free."""
    chain = make_chain([10, 10])
    slow, fast = Variant("torch", frequency_hz=1e9), Variant("torch", frequency_hz=2e9)
    fleet = Fleet("a", "a", (Device("a", battery=True, active_power_w=1.0),), ())

    def table(best: Variant) -> ProfileTable:
        rows = [make_row("a", 0, 1, 0.01 if each == best else 0.015, variant=each) for each in (slow, fast)]
        return ProfileTable(chain, tuple(rows))

    def clocks(limits: Limits) -> list[float | None]:
        demands = [Demand("s", table(slow), 1.0, limits=Limits(one_clock=True), weight=2.0),
                   Demand("f", table(fast), 1.0, limits=limits)]  # fmt: skip
        found = solve_many(fleet, demands)
        assert found.proof.outcome is Outcome.OPTIMAL
        return [stream.shares[0].plan.stages[0].variant.frequency_hz for stream in found.streams]

    assert clocks(Limits(one_clock=True)) == [1e9, 1e9]
    assert clocks(Limits()) == [1e9, 2e9]


# Bad input ------------------------------------------------------------------------------------------


def test_above_capacity_names_what_is_over_and_what_can_be_served() -> None:
    chain = make_chain([1000, 1000])
    fleet = Fleet("a", "a", (Device("a"),), ())
    table = ProfileTable(chain, (make_row("a", 0, 1, 0.010),))
    demands = [Demand("one", table, 80.0), Demand("two", table, 40.0)]
    with pytest.raises(OverloadError) as caught:
        solve_many(fleet, demands, max_utilisation=0.9)
    assert "at best a would be busy 120.0 % of the time, and 90 % is allowed" in str(caught.value)
    assert "multiply every rate by 0.75" in str(caught.value)
    eased = [replace(demand, rate_per_s=demand.rate_per_s * 0.75) for demand in demands]
    assert solve_many(fleet, eased, max_utilisation=0.9).utilisation["a"] == pytest.approx(
        {"one": 0.6, "two": 0.3}
    )


def test_memory_that_holds_one_but_not_both() -> None:
    chain = make_chain([1000, 1000])
    fleet = Fleet("a", "a", (Device("a", memory_bytes=3000),), ())
    table = ProfileTable(chain, (make_row("a", 0, 1, 0.010),))
    solve_many(fleet, [Demand("one", table, 1.0)])
    with pytest.raises(InfeasibleError, match="do not fit the memory of a"):
        solve_many(fleet, [Demand("one", table, 1.0), Demand("two", table, 1.0)])


def test_a_streams_own_limit_that_nothing_keeps_names_the_stream() -> None:
    with pytest.raises(InfeasibleError, match="two: "):
        solve_many(FLEET, two(1.0, limits=Limits(max_latency_s=1e-6)))


def test_a_table_of_another_fleet_names_the_stream() -> None:
    other = ProfileTable(CHAIN, tuple(make_row("mars", 0, 1, 0.1) for _ in range(1)))
    with pytest.raises(InputError, match="two: unknown device in the profile table 'mars'"):
        solve_many(FLEET, [Demand("one", TABLE, 1.0), Demand("two", other, 1.0)])


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_no_rate(rate: float) -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        Demand("one", TABLE, rate)


def test_one_name_twice_and_none() -> None:
    with pytest.raises(InputError, match="two streams are called 'one'"):
        solve_many(FLEET, [Demand("one", TABLE, 1.0)] * 2)
    with pytest.raises(InputError, match="no stream"):
        solve_many(FLEET, [])


def test_bad_ceiling_and_objective() -> None:
    with pytest.raises(InputError, match="max_utilisation"):
        solve_many(FLEET, two(1.0), max_utilisation=1.5)
    with pytest.raises(InputError, match="two: a stream's objective"):
        solve_many(FLEET, two(1.0, objective="period"))


# The document ---------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    plan = solve_many(FLEET, two(5.0), max_utilisation=0.8)
    plan.save(tmp_path / "plan.json")
    assert FleetPlan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"rate_per_s": 5.0', '"rate_per_s": 0.0', "rate_per_s must be above 0"),
        ('"rate_per_s": 5.0', '"rate_per_s": 6.0', "utilisation of"),
        ('"share": 1.0', '"share": 0.5', "must sum to 1"),
        ('"name": "two"', '"name": "one"', "two streams are called 'one'"),
        ("edgecut.fleetplan/2", "edgecut.fleetplan/0", "schema"),
    ],
)
def test_a_spoilt_document_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    file = tmp_path / "plan.json"
    solve_many(FLEET, two(5.0)).save(file)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(DocumentError, match=problem):
        FleetPlan.load(file)
