"""The solver against plain enumeration, its proof, its errors and its manners as a process."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from strategies import VARIANTS, Instance, every_plan, instances, make_chain, make_row

import planner.ilp
import planner.search
from planner.chain import Chain
from planner.cost import CostModel, Objective, ceilings
from planner.dynamic import optimum
from planner.errors import InfeasibleError, InputError, MismatchError, PlanningError, SolverError
from planner.fleet import Device, Fleet, Link
from planner.graph import Graph
from planner.ilp import Answer
from planner.plan import Limits, Outcome, Plan, Variant
from planner.solve import NO_LIMITS, solve
from planner.table import ProfileRow, ProfileTable

TORCH, INT8 = VARIANTS
NAMES: tuple[Objective, Objective] = ("latency", "energy")


def column(objective: Objective) -> int:
    return NAMES.index(objective)


def value(plan: Plan, objective: Objective) -> float:
    return (plan.cost.latency_s, plan.cost.energy_j)[column(objective)]


def solved(instance: Instance, objective: Objective, limits: Limits = NO_LIMITS) -> Plan:
    return solve(instance.chain, instance.fleet, instance.table, objective=objective, limits=limits)


# Against enumeration -------------------------------------------------------------------------------


def attainable(costs: list[tuple[float, float, int]], place: int, at: float, factor: float) -> float:
    """A limit at or near what some plan costs."""
    ordered = sorted(cost[place] for cost in costs)
    return max(ordered[int(at * (len(ordered) - 1))] * factor, 1e-9)


quantiles = st.tuples(st.sampled_from([0.0, 0.02, 0.1, 0.5]), st.sampled_from([1.0, 1.05, 0.9]))
limit_choices = quantiles | st.none() | quantiles


@given(instances(), st.sampled_from(NAMES), limit_choices, limit_choices)
@settings(max_examples=250)
def test_optimum_equals_enumeration(
    instance: Instance,
    objective: Objective,
    latency: tuple[float, float] | None,
    energy: tuple[float, float] | None,
) -> None:
    plans = every_plan(instance)
    assume(instance.table.rows)
    if not plans:
        event("no plan at all")
        with pytest.raises(PlanningError, match="no plan is possible on this fleet"):
            solved(instance, objective)
        return
    limits = Limits(
        attainable(plans, 0, *latency) if latency else None, attainable(plans, 1, *energy) if energy else None
    )
    most = ceilings(limits)
    within = [plan for plan in plans if plan[0] <= most["latency"] and plan[1] <= most["energy"]]
    event(f"{'some' if within else 'no'} plan within {sum(map(bool, (latency, energy)))} limits")
    if not within:
        with pytest.raises(InfeasibleError) as caught:
            solved(instance, objective, limits)
        check_nearest(caught.value, plans, most)
        return

    plan = solved(instance, objective, limits)
    first, second = column(objective), 1 - column(objective)
    best = min(cost[first] for cost in within)
    found = (plan.cost.latency_s, plan.cost.energy_j)
    assert found[first] == pytest.approx(best, rel=1e-8, abs=1e-15)
    assert found[0] <= most["latency"] * (1 + 1e-8)
    assert found[1] <= most["energy"] * (1 + 1e-8)
    assert plan.proof.objective_value == found[first]
    assert plan.proof.bound <= plan.proof.objective_value
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.gap < 1e-8
    assert plan.proof.check.startswith("dynamic programme agrees")
    # Of the equally good plans, the least in the other criterion, each part counting 1 ns or 1 nJ.
    preference = [cost[second] + 1e-9 * cost[2] for cost in within if cost[first] <= best * (1 + 1e-10)]
    parts = len(plan.stages) + len(plan.hops)
    assert found[second] + 1e-9 * parts <= min(preference) * (1 + 1e-8) + 1e-11


def check_nearest(
    error: InfeasibleError, plans: list[tuple[float, float, int]], most: dict[Objective, float]
) -> None:
    """The values in the message are the least attainable ones, rounded up to four digits."""
    printed = [
        float(text) / 1e3 for text in re.findall(r"least (?:possible|latency|energy) is (\S+)", error.message)
    ]
    least = {name: min(plan[column(name)] for plan in plans) for name in NAMES}
    expected = [least[name] for name in NAMES if least[name] > most[name]]
    if not expected:
        assert "no plan keeps both limits" in error.message
        expected = [
            min(
                plan[column(name)]
                for plan in plans
                if plan[1 - column(name)] <= most[NAMES[1 - column(name)]]
            )
            for name in NAMES
        ]
    assert len(printed) == len(expected)
    for shown, wanted in zip(sorted(printed), sorted(expected), strict=True):
        assert wanted * (1 - 1e-9) <= shown <= wanted * 1.0011


@given(instances(), st.sampled_from(NAMES))
@settings(max_examples=30)
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
@settings(max_examples=40)
def test_baselines_are_what_their_names_say(instance: Instance, objective: Objective) -> None:
    assume(every_plan(instance))
    plan = solved(instance, objective)
    place = column(objective)
    for baseline in plan.baselines:
        assert (baseline.cost.latency_s, baseline.cost.energy_j)[place] >= value(plan, objective) * (1 - 1e-9)
        if baseline.name == "best single split":
            assert len({stage.device for stage in baseline.stages}) == len(baseline.stages) == 2
        else:
            assert [baseline.name] == [f"all on {stage.device}" for stage in baseline.stages]


# Fixed cases ---------------------------------------------------------------------------------------

CHAIN = make_chain([40_000, 4_000, 3_000, 100])
FLEET = Fleet(
    "edge",
    "edge",
    (Device("edge", battery=True, active_power_w=2.0), Device("server"), Device("cloud")),
    (
        Link("edge", "server", 1e6, send_power_w=1.0),
        Link("server", "edge", 1e6, receive_power_w=1.0),
        Link("server", "cloud", 1e6),
        Link("cloud", "server", 1e6),
    ),
)
SPEED = {"edge": 0.010, "server": 0.002, "cloud": 0.0019}


def make_table(
    chain: Chain = CHAIN,
    devices: Sequence[str] = ("edge", "server", "cloud"),
    variants: Sequence[Variant] = (TORCH,),
    batch: int = 1,
) -> ProfileTable:
    """Every layer takes ``SPEED`` seconds; variants after the first are a tenth slower."""
    rows: list[ProfileRow] = []
    for device in devices:
        for place, variant in enumerate(variants):
            for bundle in chain.bundles():
                latency = SPEED[device] * len(bundle) * (1 + place / 10)
                rows.append(
                    make_row(device, bundle.start, bundle.stop, latency, variant=variant, batch=batch)
                )
    return ProfileTable(chain, tuple(rows))


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
            solve(CHAIN, fleet, make_table(), objective=objective, limits=limits)  # type: ignore[arg-type]
        assert "the energy of edge is unknown" in caught.value.message
        assert "active_power_w in [device.edge]" in caught.value.remedy


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


# The solver's answers are not taken on trust ---------------------------------------------------------


def test_a_wrong_optimum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = planner.search.minimise

    def worst(graph: Graph, arcs: object, weight: np.ndarray, *args: object, **keys: object) -> Answer | None:
        answer = honest(graph, arcs, -weight, *args, **keys)  # type: ignore[arg-type]
        return answer and Answer(Outcome.OPTIMAL, answer.arcs, float(weight[answer.arcs].sum()))

    monkeypatch.setattr(planner.search, "minimise", worst)
    with pytest.raises(SolverError, match=r"the dynamic programme's 0\.0181"):
        solve(CHAIN, FLEET, make_table(), objective="latency")


def test_arcs_that_are_no_path_are_refused() -> None:
    graph = Graph.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1))
    with pytest.raises(SolverError, match="do not join"):
        graph.decode(np.array([0, 3, 5]))


def test_labels_that_run_out_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CostModel.of(CHAIN, FLEET, make_table().rows, 1)
    assert not optimum(model, "latency", Limits(max_energy_j=1.0), most_labels=5).complete
    monkeypatch.setattr(optimum, "__defaults__", (5,))
    plan = solve(CHAIN, FLEET, make_table(), objective="latency", limits=Limits(max_energy_j=1.0))
    assert plan.proof.check.startswith("not checked: the dynamic programme gave up")


def hard_table(layers: int = 24) -> tuple[Chain, Fleet, ProfileTable]:
    """Large enough that CBC does not prove it at once."""
    numbers = np.random.default_rng(7)
    chain = make_chain([int(size) for size in numbers.integers(1_000, 90_000, layers + 1)])
    names = ["edge", "server", "cloud"]
    devices = tuple(
        Device(name, battery=True, active_power_w=1.0 + place) for place, name in enumerate(names)
    )
    links = tuple(
        Link(a, b, float(numbers.integers(1, 9)) * 1e6, send_power_w=1.0)
        for a in names
        for b in names
        if a != b
    )
    rows = []
    for name in names:
        for variant in (TORCH, INT8, Variant("onnxruntime"), Variant("torch", "bf16")):
            times = numbers.uniform(1e-3, 9e-3, layers)
            for bundle in chain.bundles():
                time = float(times[bundle.start : bundle.stop].sum() * numbers.uniform(0.9, 1.05))
                energy = float(numbers.uniform(0.2, 2.0) / time * 1e-4 * len(bundle) ** 2)
                rows.append(make_row(name, bundle.start, bundle.stop, time, variant=variant, energy_j=energy))
    return chain, Fleet("edge", "edge", devices, links), ProfileTable(chain, tuple(rows))


def test_a_larger_instance_with_a_budget_agrees_with_the_dynamic_programme() -> None:
    chain, fleet, table = hard_table(12)
    free = solve(chain, fleet, table, objective="latency")
    frugal = solve(chain, fleet, table, objective="energy")
    middle = (free.cost.energy_j + frugal.cost.energy_j) / 2
    plan = solve(chain, fleet, table, objective="latency", limits=Limits(max_energy_j=middle))
    assert plan.proof.outcome is Outcome.OPTIMAL
    assert plan.proof.check.startswith("dynamic programme agrees")
    assert free.cost.latency_s < plan.cost.latency_s < frugal.cost.latency_s


# Running CBC -----------------------------------------------------------------------------------------


def fake_cbc(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "cbc"
    path.write_text(
        f"#!{sys.executable}\nimport sys, time\nsolution = sys.argv[-1]\n{textwrap.dedent(script)}"
    )
    path.chmod(0o755)
    monkeypatch.setattr(planner.ilp.PULP_CBC_CMD, "pulp_cbc_path", str(path))


def test_a_run_stopped_by_its_time_limit_is_feasible_with_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CBC prints status "Stopped" with an objective, which PuLP reports as optimal."""
    graph = Graph.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1))
    arcs, weight = np.arange(graph.tail.size), graph.weight["latency"]
    honest = planner.ilp.minimise(graph, arcs, weight)
    assert honest
    assert honest.outcome is Outcome.OPTIMAL
    real = planner.ilp.PULP_CBC_CMD.pulp_cbc_path
    fake_cbc(
        tmp_path,
        monkeypatch,
        f"""
        import pathlib, subprocess
        subprocess.run([{real!r}, *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
        text = pathlib.Path(solution).read_text()
        pathlib.Path(solution).write_text(text.replace("Optimal -", "Stopped on time -", 1))
        print("Result - Stopped on time limit\\n\\nLower bound:                    15000.125")
        """,
    )
    answer = planner.ilp.minimise(graph, arcs, weight)
    assert answer
    assert answer.outcome is Outcome.FEASIBLE
    assert answer.bound == pytest.approx(0.015000124)
    plan = solve(CHAIN, FLEET, make_table(), objective="latency")
    assert plan.proof.outcome is Outcome.FEASIBLE
    assert plan.proof.gap == pytest.approx(1 - 0.015000124 / 0.0181)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('licence?'); sys.exit(3)", "exit code 3: licence"),
        ("pass", "exit code 0: no output"),
        ("open(solution, 'w').write('Integer infeasible - objective value 0\\n')", "found no plan within"),
        ("open(solution, 'w').write('Stopped on time (no integer solution)\\n')", "found no plan within"),
    ],
)
def test_a_solver_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    fake_cbc(tmp_path, monkeypatch, script)
    with pytest.raises(SolverError, match=message):
        solve(CHAIN, FLEET, make_table(), objective="latency")


def test_a_missing_cbc_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(planner.ilp.PULP_CBC_CMD, "pulp_cbc_path", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SolverError) as caught:
        solve(CHAIN, FLEET, make_table(), objective="latency")
    assert "pip install 'pulp" in caught.value.remedy


def test_nothing_is_left_in_the_working_or_temporary_directory(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = workdir / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    solve(CHAIN, FLEET, make_table(), objective="latency")
    assert list(workdir.iterdir()) == [temporary]
    assert not list(temporary.iterdir())


def test_an_interrupt_ends_cbc_too(tmp_path: Path) -> None:
    """Only the Python process gets the signal, as from `kill -INT`."""
    script = tmp_path / "main.py"
    cbc, started = tmp_path / "cbc", tmp_path / "started"
    cbc.write_text(f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}; exec sleep 60\n")
    cbc.chmod(0o755)
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import planner.ilp, test_solve
        planner.ilp.PULP_CBC_CMD.pulp_cbc_path = {str(cbc)!r}
        test_solve.solve(test_solve.CHAIN, test_solve.FLEET, test_solve.make_table(), objective="latency")
        """)
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE) as process:
        while not started.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert not list(tmp_path.glob("edgecut-*"))
