"""The plan of least period against plain enumeration, and cases worked out by hand."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CHAIN, FLEET, hard_table, make_table
from click.testing import CliRunner, Result
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from pipelines import Known, paths
from strategies import Instance, instances, make_chain, make_codec_row, make_row

from planner.chain import Bundle
from planner.codec_table import CODECS
from planner.errors import InfeasibleError, InputError, PlanningError
from planner.fleet import Device, Fleet, Link
from planner.fleet_file import save_fleet
from planner.ilp import Answer
from planner.imports.partitioning import read_partitioning
from planner.imports.pipeedge import read_pipeedge
from planner.limits import Limits, Placement
from planner.override import Piece, priced_override
from planner.period import busy_s, period_s
from planner.period_ilp import least_period
from planner.plan import Outcome, Plan
from planner.problem import Problem
from planner.sidecar import Environment, Sidecar
from planner.solver import NO_LIMITS, priced, solve
from planner.table import ProfileTable, save_table
from planner.throughput import least_period_plan
from runtime.cli import cli

MOST_PLANS = 6000


def everything(instance: Instance, joins: bool = False) -> list[Known]:
    found = list(itertools.islice(paths(instance, joins), MOST_PLANS + 1))
    assume(0 < len(found) <= MOST_PLANS)
    return [Known(instance, path) for path in found]


# Strategies ----------------------------------------------------------------------------------------


@st.composite
def linked(draw: st.DrawFn) -> Instance:
    """An instance whose devices all reach each other, and which cost money."""
    instance = draw(instances())
    fleet = instance.fleet
    links = {link.pair: link for link in fleet.links}
    names = [device.name for device in fleet.devices]
    for place, pair in enumerate(itertools.permutations(names, 2)):
        links.setdefault(pair, Link(*pair, (1 + place % 3) * 1e6, 1e-3))
    costly = tuple(replace(link, price_per_byte=1e-4 * (1 + k % 2)) for k, link in enumerate(links.values()))
    devices = tuple(replace(device, price_per_s=place * 1.0) for place, device in enumerate(fleet.devices))
    return replace(instance, fleet=replace(fleet, devices=devices, links=costly))


KINDS = (
    "latency", "energy", "noise", "price", "upload", "memory", "max_bundles", "one_clock", "ceil_rule", "private",
    "pins", "forbidden", "share", "period", "max_bundle_layers",
)  # fmt: skip


@st.composite
def some_limits(draw: st.DrawFn, instance: Instance, plans: list[Known], kind: str) -> Limits:
    """One limit that may bind, near what some plan needs."""
    some = draw(st.sampled_from(plans))
    device = draw(st.sampled_from([device.name for device in instance.fleet.devices]))
    layers = len(instance.chain)
    start = draw(st.integers(0, layers - 1))
    place = Placement(device, Bundle(start, draw(st.integers(start + 1, layers))))
    memory = {name: some.memory(name) + 0.5 for name in {row.device for row in some.rows}}
    longest = draw(st.integers(1, layers))
    return {
        "latency": lambda: Limits(max_latency_s=some.latency),
        "energy": lambda: Limits(max_energy_j=max(some.energy, 1e-6)),
        "noise": lambda: Limits(min_sqnr_db=-10 * math.log10(some.noise) if 0 < some.noise < 1 else 30.0),
        "price": lambda: Limits(max_price=some.price),
        "upload": lambda: Limits(max_upload_bytes=some.upload),
        "memory": lambda: Limits(max_memory_bytes=memory),
        "max_bundles": lambda: Limits(max_bundles=draw(st.integers(1, 3))),
        "one_clock": lambda: Limits(one_clock=True),
        "max_bundle_layers": lambda: Limits(max_bundle_layers=longest),
        "ceil_rule": lambda: Limits(max_bundle_layers=longest, ceil_rule=True),
        "private": lambda: Limits(private_layers=start),
        "pins": lambda: Limits(pins=(place,)),
        "forbidden": lambda: Limits(forbidden=(place,)),
        "share": lambda: Limits(max_share={device: max(some.busy[device] / some.latency, 1e-3)}),
        "period": lambda: Limits(max_period_s=some.period),
    }[kind]()


def both(one: Limits, other: Limits) -> Limits:
    """All of two limits."""
    names = [each.name for each in fields(Limits)]
    changed = {
        name: getattr(other, name) for name in names if getattr(other, name) != getattr(NO_LIMITS, name)
    }
    return replace(one, **changed)


def solved(instance: Instance, limits: Limits = NO_LIMITS, *, several: bool = False) -> Plan:
    return solve(
        instance.chain, instance.fleet, instance.table,
        objective="period", limits=limits, codecs=CODECS, several=several,
    )  # fmt: skip


def check(plan: Plan, within: list[Known]) -> None:
    """The least period; of equals the least latency, then the fewest parts."""
    best = min(known.period for known in within)
    found = period_s(plan.fleet, plan.stages, plan.hops)
    assert found == pytest.approx(best, rel=1e-8)
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective == "period"
    assert plan.proof.weights == {}
    assert plan.proof.objective_value == found
    assert plan.proof.bound == pytest.approx(best, rel=1e-6)
    assert plan.proof.bound <= found
    tied = [known for known in within if known.period <= best * (1 + 2e-9)]
    fastest = min(known.latency for known in tied)
    assert plan.cost.latency_s == pytest.approx(fastest, rel=1e-8)
    if plan.proof.solver == "set dynamic programme":
        equal = [known.parts for known in tied if known.latency <= fastest * (1 + 1e-12)]
        assert len(plan.stages) + len(plan.hops) == min(equal)


# Against enumeration -------------------------------------------------------------------------------


@given(linked(), st.booleans())
@settings(max_examples=40)
def test_the_least_period_equals_enumeration(instance: Instance, several: bool) -> None:
    plans = everything(instance)
    plan = solved(instance, several=several)
    within = [known for known in plans if several or known.keeps(Limits(once=True))]
    event(plan.proof.solver)
    check(plan, within)


@given(linked(), st.booleans(), st.sampled_from(KINDS), st.sampled_from((None, *KINDS)), st.data())
@settings(max_examples=82)
def test_the_least_period_within_limits_equals_enumeration(
    instance: Instance, several: bool, kind: str, more: str | None, data: st.DataObject
) -> None:
    joins = {kind, more} & {"max_bundle_layers", "ceil_rule"} != set()
    plans = everything(instance, joins)
    limits = data.draw(some_limits(instance, plans, kind))
    if more is not None:
        limits = both(limits, data.draw(some_limits(instance, plans, more)))
    within = [known for known in plans if known.keeps(replace(limits, once=not several))]
    event(f"{kind} {'several' if several else 'once'}: {'some' if within else 'no'} plan")
    if not within:
        with pytest.raises(PlanningError):
            solved(instance, limits, several=several)
        return
    check(solved(instance, limits, several=several), within)


@given(
    linked(), st.sampled_from(["latency", "price"]), st.booleans(),
    st.sampled_from([None, *(kind for kind in KINDS if kind != "period")]), st.floats(0.3, 0.99), st.data(),
)  # fmt: skip
@settings(max_examples=25)
def test_a_period_too_short_names_the_least_within_the_other_limits(
    instance: Instance, objective: Any, once: bool, kind: str | None, share: float, data: st.DataObject
) -> None:
    """For an objective other than the period, too."""
    plans = everything(instance, kind in ("max_bundle_layers", "ceil_rule"))
    limits = Limits() if kind is None else data.draw(some_limits(instance, plans, kind))
    limits = replace(limits, once=once)
    within = [known.period for known in plans if known.keeps(limits)]
    assume(within)
    least = min(within)
    with pytest.raises(InfeasibleError) as caught:
        solve(
            instance.chain, instance.fleet, instance.table,
            objective=objective, limits=replace(limits, max_period_s=share * least), codecs=CODECS,
        )  # fmt: skip
    assert "in time" not in caught.value.message
    named = re.search(r"raise --max-period-ms to (\S+) or more", caught.value.remedy)
    assert named
    assert least <= float(named[1]) / 1e3 * (1 + 1e-9)
    assert float(named[1]) / 1e3 == pytest.approx(least, rel=1.1e-3)


@given(linked(), st.sampled_from([None, "latency", "price", "max_bundles", "one_clock"]), st.data())
@settings(max_examples=40)
def test_what_a_hand_made_plan_leaves_open_is_chosen_by_its_period(
    instance: Instance, kind: str | None, data: st.DataObject
) -> None:
    plans = everything(instance, joins=True)
    wanted = [(row.device, row.bundle) for row in data.draw(st.sampled_from(plans)).rows]
    mine = [known for known in plans if [(row.device, row.bundle) for row in known.rows] == wanted]
    limits = Limits() if kind is None else data.draw(some_limits(instance, plans, kind))
    limits = replace(limits, max_bundle_layers=len(instance.chain))
    within = [known for known in mine if known.keeps(limits)]
    event("within the limits" if within else "beyond them")
    model, _ = priced(
        instance.chain, instance.fleet, instance.table, "period", NO_LIMITS, None, CODECS, "mean", False
    )
    found = priced_override(model, limits, {}, [Piece(*each) for each in wanted])
    assert [(stage.device, stage.bundle) for stage in found.stages] == wanted
    best = min(known.period for known in within or mine)
    assert period_s(instance.fleet, found.stages, found.hops) == pytest.approx(best, rel=1e-8)
    fastest = min(known.latency for known in within or mine if known.period <= best * (1 + 2e-9))
    assert found.cost.latency_s == pytest.approx(fastest, rel=1e-8)


# Fixed cases ---------------------------------------------------------------------------------------


def test_a_pipeline_worked_out_by_hand() -> None:
    """edge [0, 1) 10 ms, 4 kB up 4 ms, server [1, 3) 4 ms. The input would take 40 ms to the server."""
    plan = solve(CHAIN, FLEET, make_table(), objective="period")
    assert [(stage.device, stage.bundle.start, stage.bundle.stop) for stage in plan.stages] == [
        ("edge", 0, 1),
        ("server", 1, 3),
    ]
    assert plan.proof.objective_value == pytest.approx(0.010)
    assert busy_s(plan.fleet, plan.stages, plan.hops) == pytest.approx(
        {"edge": 0.010, "server": 0.004, "edge->server": 0.004, "server->edge": 1e-4}
    )
    assert plan.limits == Limits(once=True)
    best = next(each for each in plan.baselines if each.name == "best single split")
    assert period_s(plan.fleet, best.stages, best.hops) == pytest.approx(0.010)


def test_the_best_single_split_is_chosen_by_its_period() -> None:
    """The split of least latency keeps the slow edge busy for longer."""
    chain = make_chain([10, 10, 10_000, 10])
    rows = [make_row("edge", 0, stop, 0.004 * stop) for stop in (1, 2, 3)]
    rows += [
        make_row("edge", start, stop, 0.004 * (stop - start)) for start, stop in ((1, 2), (1, 3), (2, 3))
    ]
    rows += [replace(row, device="server") for row in rows]
    links = (Link("edge", "server", 1e6, 0.1), Link("server", "edge", 1e6, 0.1))
    fleet = Fleet("edge", "edge", (Device("edge"), Device("server")), links)
    plan = solve(chain, fleet, ProfileTable(chain, tuple(rows)), objective="period")
    best = next(each for each in plan.baselines if each.name == "best single split")
    assert period_s(fleet, best.stages, best.hops) == pytest.approx(0.008)
    assert plan.proof.objective_value == pytest.approx(0.008)
    assert [stage.bundle for stage in best.stages] == [Bundle(0, 1), Bundle(1, 3)]


def test_several_stages_of_a_device_may_be_better() -> None:
    """The camera alone runs the outer layers well, the server the middle: 2 + 2 beside 3."""
    chain = make_chain([10, 10, 10, 10])
    times = {"camera": (2e-3, 9e-3, 2e-3), "server": (9e-3, 3e-3, 9e-3)}
    rows = [
        make_row(name, start, stop, sum(each[start:stop]))
        for name, each in times.items()
        for start in range(3)
        for stop in range(start + 1, 4)
    ]
    links = (Link("camera", "server", 1e6), Link("server", "camera", 1e6))
    fleet = Fleet("camera", "camera", (Device("camera"), Device("server")), links)
    table = ProfileTable(chain, tuple(rows))
    assert solve(chain, fleet, table, objective="period").proof.objective_value == pytest.approx(11e-3)
    plan = solve(chain, fleet, table, objective="period", several=True)
    assert plan.proof.objective_value == pytest.approx(4e-3)
    assert [stage.device for stage in plan.stages] == ["camera", "server", "camera"]
    assert plan.proof.solver.startswith("CBC")
    assert not plan.limits.once


def test_what_the_source_encodes_and_computes_adds_up() -> None:
    """zstd makes the slow link quick, but the source that encodes computes too: 6 + 5 ms is more than 8."""
    chain = make_chain([8_000, 8_000, 10])
    rows = [make_row("a", 0, 1, 6e-3), make_row("a", 1, 2, 50e-3), make_row("a", 0, 2, 56e-3)]
    rows += [make_row("b", 0, 1, 50e-3), make_row("b", 1, 2, 7e-3), make_row("b", 0, 2, 57e-3)]
    links = (Link("a", "b", 1e6), Link("b", "a", 1e6))
    fleet = Fleet("a", "a", (Device("a"), Device("b")), links)
    coded = (
        make_codec_row("a", 1, "zstd", 1_000, 5e-3, 1e-3),
        make_codec_row("b", 1, "zstd", 1_000, 5e-3, 1e-3),
    )
    plan = solve(chain, fleet, ProfileTable(chain, tuple(rows), codecs=coded), objective="period")
    assert [hop.codec for hop in plan.hops] == ["raw", "raw"]
    assert plan.proof.objective_value == pytest.approx(8e-3)


def test_a_link_that_two_routes_share_is_busy_with_both() -> None:
    """c is reached over b only, whose links carry what b passes on."""
    rows = [make_row(name, k, k + 1, 1e-3) for name in "abc" for k in range(3) if "abc"[k] == name]
    chain = make_chain([10, 4_000, 5_000, 3_000])
    links = tuple(Link(*pair, 1e6) for pair in ("ab", "ba", "bc", "cb"))
    fleet = Fleet("a", "a", tuple(map(Device, "abc")), links)
    plan = solve(chain, fleet, ProfileTable(chain, tuple(rows)), objective="period", partial=True)
    assert [hop.route for hop in plan.hops] == [("a", "b"), ("b", "c"), ("c", "b", "a")]
    assert plan.proof.objective_value == pytest.approx(5e-3)
    # The input goes to c first, over the link that b's output takes later.
    rows = [make_row("c", 0, 1, 1e-3), make_row("b", 1, 2, 1e-3), make_row("c", 0, 2, 1e-3)]
    rows += [make_row("b", 0, 1, 1e-3), make_row("a", 2, 3, 1e-3)]
    plan = solve(chain, fleet, ProfileTable(chain, tuple(rows)), objective="period", partial=True)
    assert plan.proof.objective_value == period_s(fleet, plan.stages, plan.hops)
    assert plan.proof.gap < 1e-9


def many(count: int, links: float = 1e6) -> tuple[Fleet, ProfileTable]:
    """A source and so many equal hosts."""
    numbers = np.random.default_rng(3)
    chain = make_chain([*numbers.integers(1_000, 4_000, 12).tolist(), 10])
    work = numbers.uniform(1e-3, 4e-3, (2, 12))
    names = ["source", *(f"host{k}" for k in range(count))]
    rows = [
        make_row(name, start, stop, float(work[int(name != "source"), start:stop].sum()) + 1e-4)
        for name in names
        for start in range(12)
        for stop in range(start + 1, 13)
    ]
    every = tuple(Link(a, b, links, 1e-3) for a, b in itertools.permutations(names, 2))
    return Fleet("source", "source", tuple(map(Device, names)), every), ProfileTable(chain, tuple(rows))


def test_equal_devices_are_counted_not_told_apart() -> None:
    """Five equal hosts, and the same five whose unused prices tell them apart."""
    fleet, table = many(5)
    apart = replace(
        fleet, devices=tuple(replace(each, price_per_s=1e-3 * k) for k, each in enumerate(fleet.devices))
    )
    plans = [solve(table.chain, each, table, objective="period") for each in (fleet, apart)]
    values = [plan.proof.objective_value for plan in plans]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert plans[0].cost.latency_s == pytest.approx(plans[1].cost.latency_s)
    assert plans[0].proof.arcs_after < plans[1].proof.arcs_after
    hosts = [stage.device for stage in plans[0].stages if stage.device != "source"]
    assert hosts == [f"host{k}" for k in range(len(hosts))]


def test_a_fleet_of_many_equal_hosts_is_no_trouble() -> None:
    fleet, table = many(24)
    plan = solve(table.chain, fleet, table, objective="period")
    assert plan.proof.outcome is Outcome.OPTIMAL
    fewer, table = many(11)  # twelve layers need no more
    least = solve(table.chain, fewer, table, objective="period").proof.objective_value
    assert plan.proof.objective_value == pytest.approx(least)


def test_sets_of_devices_and_ilp_find_the_same() -> None:
    """Two methods, one of which knows neither stays nor sets."""
    chain, fleet, table = hard_table(10)
    model, _ = priced(chain, fleet, table, "period", NO_LIMITS, None, None, "mean", False)
    limits = Limits(once=True)
    by_sets = least_period_plan(model, limits)
    assert by_sets.solver == "set dynamic programme"
    most_s = 2 * by_sets.bound_s
    problem = Problem.of(model, replace(limits, max_period_s=most_s))
    answer = least_period(problem, 0.0, most_s)
    assert isinstance(answer, Answer)
    assert answer.outcome is Outcome.OPTIMAL
    parts = problem.graph.decode(answer.arcs)
    assert period_s(fleet, *parts) == pytest.approx(by_sets.bound_s, rel=1e-6)


def test_what_time_did_not_suffice_to_prove_is_not_called_optimal() -> None:
    chain, fleet, table = hard_table(20)
    limits = Limits(max_energy_j=0.12)
    plan = solve(chain, fleet, table, objective="period", limits=limits, several=True, time_limit_s=2)
    value = period_s(fleet, plan.stages, plan.hops)
    assert plan.proof.bound <= value == plan.proof.objective_value
    assert (plan.proof.outcome is Outcome.OPTIMAL) == (plan.proof.gap < 1e-6)
    assert plan.proof.gap == pytest.approx(1 - plan.proof.bound / value)


def test_a_period_that_cannot_be_had_names_the_least() -> None:
    with pytest.raises(InfeasibleError) as caught:
        solve(CHAIN, FLEET, make_table(), objective="period", limits=Limits(max_period_s=0.009))
    assert caught.value.message.startswith("no plan has a period of at most 9 ms (max_period)")
    assert caught.value.remedy == "raise --max-period-ms to 10 or more"
    plan = solve(CHAIN, FLEET, make_table(), objective="period", limits=Limits(max_period_s=0.010))
    assert plan.proof.objective_value == pytest.approx(0.010)


def test_the_period_is_not_weighed_against_others() -> None:
    with pytest.raises(InputError, match="cannot be weighed"):
        solve(CHAIN, FLEET, make_table(), objective={"period": 1.0, "latency": 1.0})


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_time_changes_nothing(scale: float) -> None:
    chain, fleet, table = hard_table(8)
    links = tuple(
        replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / scale) for link in fleet.links
    )
    rows = tuple(replace(row, latency_s=row.latency_s * scale) for row in table.rows)
    plan = solve(chain, fleet, table, objective="period")
    other = solve(chain, replace(fleet, links=links), ProfileTable(chain, rows), objective="period")
    assert other.proof.objective_value == pytest.approx(plan.proof.objective_value * scale, rel=1e-9)
    assert [stage.bundle for stage in other.stages] == [stage.bundle for stage in plan.stages]


# Others' own data ----------------------------------------------------------------------------------


def pipeedge(shared_data: Path) -> tuple[Fleet, ProfileTable]:
    files = (shared_data / "pipeedge" / f"{name}.yml" for name in ("models", "device_types", "devices"))
    found = read_pipeedge(*files)
    assert found.fleet is not None
    return found.fleet, ProfileTable(found.chain, tuple(row for each in found.tables for row in each.rows))


def test_pipeedges_hosts_have_a_better_schedule(shared_data: Path) -> None:
    fleet, table = pipeedge(shared_data)
    plan = solve(table.chain, fleet, table, objective="period", batch=8)
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective_value == pytest.approx(1.5488, abs=5e-5)


def test_a_period_not_proven_to_be_the_least_is_not_called_so(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device may compute several times here, which takes longer to settle than there is time."""
    monkeypatch.setattr("planner.conflict._SHARE", 0.02)
    fleet, table = pipeedge(shared_data)
    with pytest.raises(InfeasibleError) as caught:
        solve(table.chain, fleet, table, limits=Limits(max_period_s=1.0), batch=8)
    said = re.search(
        r"; the least found in time is (\S+) ms, and none is below (\S+) ms", caught.value.message
    )
    assert said, caught.value.message
    found, bound = map(float, said.groups())
    assert bound < found <= 1549  # with each device once
    assert caught.value.remedy == f"raise --max-period-ms to {said[1]} or more"
    once = Limits(max_period_s=1.0, once=True)
    with pytest.raises(InfeasibleError, match=r"found in time is .* ms, with the other limits 1549 ms\n"):
        solve(table.chain, fleet, table, limits=once, batch=8)


@pytest.mark.parametrize(("name", "best"), [("bert24", 17.7899), ("resnet50", 33.7747)])
def test_contiguous_splits_of_dnn_partitioning(shared_data: Path, name: str, best: float) -> None:
    """Their load of an accelerator is what it computes, takes in and gives out; six of them and a CPU."""
    found = read_partitioning(shared_data / "msr" / f"{name}_inference.json", max_tensors=2)
    assert found.fleet is not None
    rate, layers = found.fleet.links[0].bandwidth_bytes_per_s, len(found.chain)
    moving = [found.chain.wire_bytes(k) / rate if 0 < k < layers else 0.0 for k in range(layers + 1)]
    cpu, accelerator = (each.rows for each in found.tables)
    names = [f"accelerator{k}" for k in range(6)]
    rows = [
        replace(
            row, device=name, latency_s=row.latency_s + moving[row.bundle.start] + moving[row.bundle.stop]
        )
        for name in names
        for row in accelerator
    ]
    devices = Device("cpu"), *(Device(each, memory_bytes=17185374208) for each in names)
    links = tuple(Link(a, b, 1e30) for a, b in itertools.permutations(["cpu", *names], 2))
    fleet = Fleet("cpu", "cpu", devices, links)
    plan = solve(found.chain, fleet, ProfileTable(found.chain, (*cpu, *rows)), objective="period")
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.objective_value * 1e3 == pytest.approx(best, abs=5e-5)


def test_cuts_of_two_tensors_carry_both(tmp_path: Path) -> None:
    """1 -> 2 -> 3 -> 4 with a leap from 1 to 4: inside the leap two tensors cross."""
    nodes = [{"id": k, "cpuLatency": 1.0, "fpgaLatency": 1.0} for k in (1, 2, 3, 4)]
    edges = [
        {"sourceId": a, "destId": b, "cost": 1.0, "size": 100 * a}
        for a, b in ((1, 2), (2, 3), (3, 4), (1, 4))
    ]
    file = tmp_path / "leap.json"
    file.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    sizes = [
        [each.nbytes for each in read_partitioning(file, max_tensors=most).chain.boundaries]
        for most in (1, 2)
    ]
    assert sizes == [[1, 100, 1], [1, 100, 300, 400, 1]]


# The command ---------------------------------------------------------------------------------------


def run(workdir: Path, *options: str) -> Result:
    for name in ("edge", "server", "cloud"):
        rows = [row for row in make_table().rows if row.device == name]
        sidecar = Sidecar(
            name, CHAIN, Environment("h", "m", "3", {}, 1, ()), "2026-01-01T00:00:00+00:00", "s"
        )
        save_table(workdir / f"{name}.csv", sidecar, rows)
    save_fleet(FLEET, workdir / "fleet.toml")
    tables = [f"--profiles={name}.csv" for name in ("edge", "server", "cloud")]
    return CliRunner().invoke(cli, ["solve", *tables, "--fleet", "fleet.toml", *options])


def test_the_command_prints_the_period_and_the_rate(workdir: Path) -> None:
    done = run(workdir, "--objective", "throughput")
    assert done.exit_code == 0, done.output
    assert "period 10.00 ms, 100 samples/s; busiest is edge" in done.output
    assert "least period" in done.output
    plan = Plan.load(workdir / "plan.json")
    assert plan.proof.objective == "period"
    assert plan.limits.once
    done = run(workdir, "--objective", "throughput", "--several-stages")
    assert done.exit_code == 0, done.output
    assert not Plan.load(workdir / "plan.json").limits.once


def test_the_command_refuses_to_weigh_throughput(workdir: Path) -> None:
    done = run(workdir, "--objective", "throughput=1,latency=1")
    assert done.exit_code == 2
    assert "cannot be weighed" in done.output
