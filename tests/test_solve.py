"""The solver against plain enumeration, on cases worked out by hand, and its errors."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from cases import CHAIN, FLEET, INT8, TORCH, make_table
from enumeration import Enumerated, every_plan
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from strategies import Instance, instances, make_chain, make_row

from planner.codec_table import CODECS
from planner.cost import ceilings
from planner.errors import InfeasibleError, InputError, MismatchError, PlanningError
from planner.fleet import Device, Fleet
from planner.limits import Criterion, Limits, Objective
from planner.plan import Outcome, Plan
from planner.solver import NO_LIMITS, solve
from planner.table import ProfileTable

NAMES: tuple[Objective, Objective] = ("latency", "energy")
CRITERIA: tuple[Criterion, ...] = ("latency", "energy", "noise")


def column(objective: Objective) -> int:
    return NAMES.index(objective)


def value(plan: Plan, objective: Objective) -> float:
    return (plan.cost.latency_s, plan.cost.energy_j)[column(objective)]


def solved(instance: Instance, objective: Objective, limits: Limits = NO_LIMITS) -> Plan:
    return solve(
        instance.chain, instance.fleet, instance.table, objective=objective, limits=limits, codecs=CODECS
    )


# Against enumeration -------------------------------------------------------------------------------


@st.composite
def limits_near(draw: st.DrawFn, plans: list[Enumerated]) -> Limits:
    """Limits that bind: between the least of one criterion and what the best in another needs, a little
    below the least, or none."""

    def limit(place: int) -> float | None:
        share = draw(st.sampled_from([None, 0.5, 0.25, None, 0.75, 0.0, 1.0, -0.1]))
        if share is None:
            return None
        other = draw(st.sampled_from([0, 1]))
        least, enough = (min(plans, key=lambda plan: plan[by])[place] for by in (place, other))
        return max(least * 0.9 if share == -0.1 else least + (enough - least) * share, 1e-9)

    latency, energy, noise = map(limit, range(3))
    return Limits(latency, energy, None if noise is None or noise >= 1 else -10 * math.log10(noise))


@given(instances(), st.sampled_from(NAMES), st.data())
@settings(max_examples=100)
def test_optimum_equals_enumeration(instance: Instance, objective: Objective, data: st.DataObject) -> None:
    assume(instance.table.rows)
    plans = every_plan(instance)
    if not plans:
        event("no plan at all")
        with pytest.raises(PlanningError, match=r"no plan is possible on this fleet|do not join"):
            solved(instance, objective)
        return
    limits = data.draw(limits_near(plans))
    most = {name: ceiling for name, ceiling in ceilings(limits).items() if name in CRITERIA}
    within = keeping(plans, most)
    event(f"{'some' if within else 'no'} plan within {sum(map(math.isfinite, most.values()))} limits")
    if not within:
        with pytest.raises(InfeasibleError) as caught:
            solved(instance, objective, limits)
        check_nearest(caught.value, plans, most)
        return

    plan = solved(instance, objective, limits)
    first, second = column(objective), 1 - column(objective)
    best = min(cost[first] for cost in within)
    found = (plan.cost.latency_s, plan.cost.energy_j, plan.cost.noise)
    assert found[first] == pytest.approx(best, rel=1e-8, abs=1e-15)
    for value, name in zip(found, CRITERIA, strict=True):
        assert value <= most[name] * (1 + 1e-8)
    assert plan.proof.objective_value == found[first]
    assert plan.proof.bound <= plan.proof.objective_value
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.gap < 1e-8
    assert plan.proof.check.startswith("label setting finds the same")
    # Of the equally good plans, the least in the other criterion, then in parts.
    equal = [cost for cost in within if cost[first] <= best * (1 + 1e-10)]
    least = min(cost[second] for cost in equal)
    assert found[second] <= least * (1 + 1e-8) + 1e-15
    parts = len(plan.stages) + len(plan.hops)
    assert parts <= min(len(cost[3]) for cost in equal if cost[second] <= least * (1 + 1e-10))


def keeping(plans: list[Enumerated], most: dict[Criterion, float]) -> list[Enumerated]:
    """The plans within these ceilings; a criterion that is not named has none."""
    return [
        plan for plan in plans if all(plan[CRITERIA.index(name)] <= ceiling for name, ceiling in most.items())
    ]


def check_nearest(error: InfeasibleError, plans: list[Enumerated], most: dict[Criterion, float]) -> None:
    """The values in the message are the best attainable ones, rounded to four digits to the safe side."""
    called = {"max_latency": "latency", "max_energy": "energy", "min_sqnr": "noise"}
    least = {name: min(plan[place] for plan in plans) for place, name in enumerate(CRITERIA)}
    too_tight = [name for name in CRITERIA if least[name] > most[name]]
    clauses = re.findall(
        r"(?:no plan|within) .*?(?=; no plan|; within|$)", error.message.split("limits: ")[-1]
    )
    assert len(clauses) == len(too_tight) or not too_tight
    assert clauses
    for clause in clauses:
        limits = [called[name] for name in re.findall(r"\((\w+)\)", clause)]
        shown, unit = re.search(r" is (\S+) (ms|mJ|dB)", clause).groups()
        name: Criterion = {"ms": "latency", "mJ": "energy", "dB": "noise"}[unit]
        ceilings = {} if limits == [name] else {other: most[other] for other in limits}
        wanted = min(plan[CRITERIA.index(name)] for plan in keeping(plans, ceilings))
        assert wanted > most[name]
        if name == "noise":
            assert -10 * math.log10(wanted) == pytest.approx(float(shown), rel=1e-3)
            assert 10 ** (-float(shown) / 10) >= wanted * (1 - 1e-9)
        else:
            assert wanted * (1 - 1e-9) <= float(shown) / 1e3 <= wanted * 1.0011


@given(instances(), st.sampled_from(NAMES))
@settings(max_examples=12)
def test_the_suggested_limit_can_be_kept(instance: Instance, objective: Objective) -> None:
    plans = every_plan(instance)
    assume(plans)
    tight = Limits(min(plan[0] for plan in plans) / 2, None)
    with pytest.raises(InfeasibleError) as caught:
        solved(instance, objective, tight)
    suggested = re.search(r"raise --max-latency-ms to (\S+) or more", caught.value.remedy)
    assert suggested
    solved(instance, objective, Limits(float(suggested[1]) / 1e3, None))


@given(instances(), st.sampled_from(NAMES))
@settings(max_examples=24)
def test_baselines_are_the_best_of_their_kind(instance: Instance, objective: Objective) -> None:
    plans = every_plan(instance)
    assume(plans)
    expected: dict[str, float] = {}
    for *costs, parts in plans:
        stages = [part for part in parts if part]
        name = "best single split" if len(set(stages)) == len(stages) == 2 else f"all on {stages[0]}"
        if len(stages) == 1 or name == "best single split":
            expected[name] = min(costs[column(objective)], expected.get(name, math.inf))
    found = solved(instance, objective).baselines
    assert {each.name: (each.cost.latency_s, each.cost.energy_j)[column(objective)] for each in found} == (
        pytest.approx(expected)
    )


# Fixed cases ---------------------------------------------------------------------------------------


def test_a_plan_worked_out_by_hand() -> None:
    """edge [0, 1) 10 ms, 4 kB up 4 ms, server [1, 3) 4 ms, 100 B down 0.1 ms."""
    plan = solve(CHAIN, FLEET, make_table(), objective="latency")
    assert [(stage.device, stage.bundle.start, stage.bundle.stop) for stage in plan.stages] == [
        ("edge", 0, 1),
        ("server", 1, 3),
    ]
    assert [(hop.boundary, hop.route) for hop in plan.hops] == [
        (1, ("edge", "server")),
        (3, ("server", "edge")),
    ]
    assert plan.cost.latency_s == pytest.approx(0.0181)
    assert plan.cost.energy_j == pytest.approx(2.0 * 0.010 + 1.0 * 0.0041)
    assert [baseline.name for baseline in plan.baselines] == [
        "all on edge",
        "all on server",
        "all on cloud",
        "best single split",
    ]
    costs = [baseline.cost.latency_s for baseline in plan.baselines]
    assert costs == pytest.approx([0.030, 0.0461, 0.0859, 0.0181])
    assert plan.proof.solver.startswith("CBC (PuLP ")
    assert plan.notes == ()


def test_ties_end_in_one_stage_and_one_fast_variant() -> None:
    """Where only the edge's energy counts, every way to share out the rest costs the same."""
    plan = solve(CHAIN, FLEET, make_table(variants=(INT8, TORCH)), objective="energy")
    # 40 kB up cost 40 mJ, a layer on the edge 20 mJ and its 4 kB up 4 mJ; server or cloud, 0 mJ.
    assert [(stage.device, stage.variant) for stage in plan.stages] == [("edge", INT8), ("server", INT8)]
    assert len(plan.hops) == 2


def test_of_equal_plans_the_one_of_fewest_parts() -> None:
    """Twins: a layer takes as long in either variant, so every mixture of the two ties."""
    rows = make_table(devices=["edge"]).rows
    twins = ProfileTable(CHAIN, (*rows, *(dataclasses.replace(row, variant=INT8) for row in rows)))
    for objective in NAMES:
        assert len(solve(CHAIN, FLEET, twins, objective=objective).stages) == 1


def test_two_bundles_in_a_row_on_one_device_differ_in_variant() -> None:
    """A bundle that is slower than its parts must not be bypassed by running the parts."""
    chain = make_chain([1, 1, 1])
    fleet = Fleet("edge", "edge", (Device("edge"),), ())
    slow_whole = [make_row("edge", 0, 1, 0.01), make_row("edge", 1, 2, 0.01), make_row("edge", 0, 2, 0.05)]
    plan = solve(chain, fleet, ProfileTable(chain, tuple(slow_whole)), objective="latency")
    assert [stage.bundle.stop for stage in plan.stages] == [2]
    other = [dataclasses.replace(row, variant=INT8, latency_s=2 * row.latency_s) for row in slow_whole]
    plan = solve(chain, fleet, ProfileTable(chain, (*slow_whole, *other)), objective="latency")
    assert {stage.variant for stage in plan.stages} == {TORCH, INT8}
    assert plan.cost.latency_s == pytest.approx(0.03)


def test_a_relay_without_a_profile_carries_and_is_noted() -> None:
    plan = solve(CHAIN, FLEET, make_table(devices=["cloud"]), objective="latency")
    assert [hop.route for hop in plan.hops] == [("edge", "server", "cloud"), ("cloud", "server", "edge")]
    assert plan.notes == tuple(
        f"{name} has no rows, so it can only relay; `edgecut profile net --device {name}` measures it"
        for name in ("edge", "server")
    )


def test_an_unreachable_device_is_left_out_and_noted() -> None:
    one_way = dataclasses.replace(FLEET, links=FLEET.links[:3])
    plan = solve(CHAIN, one_way, make_table(), objective="latency")
    assert plan.notes == ("cloud is left out: no route leads from it to the sink edge",)
    cut_off = dataclasses.replace(FLEET, links=(*FLEET.links[:2], FLEET.links[3]))
    plan = solve(CHAIN, cut_off, make_table(), objective="latency")
    assert plan.notes == ("cloud is left out: no route leads from the source edge to it",)


def test_no_route_at_all_names_the_devices() -> None:
    fleet = dataclasses.replace(FLEET, links=())
    with pytest.raises(PlanningError) as caught:
        solve(CHAIN, fleet, make_table(devices=["server"]), objective="latency")
    assert "edge has no rows" in caught.value.message
    assert "no route leads from the source edge to it" in caught.value.message


def test_batch_must_be_one_that_was_profiled() -> None:
    rows = (*make_table(batch=1).rows, *make_table(batch=8).rows)
    table = ProfileTable(CHAIN, rows)
    with pytest.raises(InputError, match="several batch sizes: 1, 8"):
        solve(CHAIN, FLEET, table, objective="latency")
    with pytest.raises(InputError, match="batch 4 was not profiled; the table has 1, 8"):
        solve(CHAIN, FLEET, table, objective="latency", batch=4)
    assert solve(CHAIN, FLEET, table, objective="latency", batch=8).batch == 8
    assert solve(CHAIN, FLEET, make_table(batch=8), objective="latency").batch == 8


def test_a_table_of_another_chain_or_without_rows_is_refused() -> None:
    other = dataclasses.replace(CHAIN, digest="1" * 64)
    with pytest.raises(MismatchError, match="the table was measured on chain 000000000000"):
        solve(other, FLEET, make_table(), objective="latency")
    with pytest.raises(PlanningError, match="no rows"):
        solve(CHAIN, FLEET, ProfileTable(CHAIN, ()), objective="latency")


def test_unknown_energy_matters_only_where_energy_does() -> None:
    devices = (Device("edge", battery=True), *FLEET.devices[1:])
    fleet = dataclasses.replace(FLEET, devices=devices)
    assert solve(CHAIN, fleet, make_table(), objective="latency").cost.latency_s == pytest.approx(0.0181)
    for objective, limits in (("energy", Limits()), ("latency", Limits(max_energy_j=1.0))):
        with pytest.raises(PlanningError) as caught:
            solve(CHAIN, fleet, make_table(), objective=objective, limits=limits)
        assert "the energy of edge is unknown" in caught.value.message
        assert "active_power_w in [device.edge]" in caught.value.remedy


def test_a_fleet_without_batteries_is_noted_where_energy_matters() -> None:
    mains = dataclasses.replace(FLEET, devices=tuple(Device(device.name) for device in FLEET.devices))
    plan = solve(CHAIN, mains, make_table(), objective="energy")
    assert plan.notes == ("no device of the fleet has battery = true, so every plan uses 0 J",)
    assert plan.cost.energy_j == plan.proof.gap == 0.0
    assert plan.cost.latency_s == pytest.approx(0.0181)  # of equals, the fastest
    assert solve(CHAIN, mains, make_table(), objective="latency").notes == ()


def test_infeasible_limits_say_what_would_do() -> None:
    with pytest.raises(InfeasibleError) as caught:
        solve(CHAIN, FLEET, make_table(), objective="latency", limits=Limits(max_energy_j=0.005))
    assert caught.value.message == "no plan uses at most 5 mJ (max_energy); the least possible is 24.1 mJ"
    assert caught.value.remedy == "raise --max-energy-mj to 24.1 or more"
    rows = make_table().rows
    slow = ProfileTable(CHAIN, tuple(
        dataclasses.replace(row, latency_s=1.0) if row.device != "edge" else row for row in rows
    ))  # fmt: skip
    with pytest.raises(InfeasibleError) as caught:
        solve(CHAIN, FLEET, slow, objective="energy", limits=Limits(0.1, 0.035))
    assert caught.value.message == (
        "no plan keeps both limits: within 100 ms (max_latency) the least energy is 60 mJ; "
        "within 35 mJ (max_energy) the least latency is 1015 ms"
    )
