"""Findings of a report: their numbers are the planner's and the run's, and what lacks is said, never raised."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Edgecut
from findings import HOSTILE, by_hand, by_name, drawn, finding, missing, of_plan
from study import make_study

from planner import Limits, Plan, ProfileTable, solve
from planner.explain import explain
from planner.front import front
from planner.limits import Objective
from planner.origin import Origin
from planner.parametric import Bandwidth, break_even
from planner.pricing import priced
from planner.run import Run
from runtime.reports.analysis import analysis
from runtime.reports.finding import Finding


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_study(tmp_path_factory.mktemp("study"), 9, 3, 2, requests=40)


@pytest.fixture(scope="module")
def plan(files: list[Path]) -> Plan:
    return Plan.load(files[1])


@pytest.fixture(scope="module")
def table(files: list[Path]) -> ProfileTable:
    return ProfileTable.load(files[2:])


@pytest.fixture(scope="module")
def run(files: list[Path]) -> Run:
    return Run.load(files[0])


def test_the_front_is_the_planners_with_the_plan_on_it(plan: Plan, table: ProfileTable) -> None:
    rows = finding(of_plan(plan, [table]), "front").table
    wanted = front(plan.chain, plan.fleet, table)
    assert list(rows["latency_s"]) == [point.cost.latency_s for point in wanted.points]
    assert list(rows["energy_j"]) == [point.cost.energy_j for point in wanted.points]
    mine = rows[rows["this_plan"]]
    assert list(mine["latency_s"]) == pytest.approx([plan.cost.latency_s])


def test_break_even_points_are_the_planners(plan: Plan, table: ProfileTable) -> None:
    found = finding(of_plan(plan, [table]), "bandwidth")
    words = shlex.split(found.command) if found.command.startswith("edgecut break-even") else []
    link = words[words.index("--link") + 1]
    slowest = {"->".join(pair): 0.0 for pair in plan.links}
    for hop in plan.hops:
        slowest["->".join(hop.route)] += hop.wire_s
    assert link == max(slowest, key=slowest.__getitem__)
    low, high = (float(words[words.index(option) + 1]) * 125e3 for option in ("--from-mbps", "--to-mbps"))
    model, _ = priced(plan.chain, plan.fleet, table, "latency", Limits(), 1, None)
    parameter = Bandwidth.of(plan.fleet, [link])
    wanted = break_even(model, parameter, low, high, weights={"latency": 1.0})
    assert list(found.table["from_bytes_per_s"]) == [each.low for each in wanted]
    assert list(found.table["value_to"]) == [each.values[1] for each in wanted]
    assert found.title.startswith("This plan is the best")


def test_sensitivity_is_what_explain_says(plan: Plan, table: ProfileTable) -> None:
    found = finding(of_plan(plan, [table]), "sensitivity")
    wanted = explain(plan, table, count=5)
    rows = found.table[found.table["kind"] != "bundle"]
    assert dict(zip(rows["what"], rows["factor"], strict=True)) == pytest.approx(
        {each.what: each.factor for each in wanted.slower}, nan_ok=True
    )
    outside = found.table[found.table["kind"] == "bundle"]
    assert sorted(outside["factor"]) == pytest.approx(sorted(each.factor for each in wanted.quicker))
    single = found.table[found.table["kind"].isin(["stage", "hop", "bundle"])]
    nearest = (np.log(single["factor"])).abs().idxmin()
    assert f"{single['kind'][nearest]} {single['what'][nearest]}" in found.title


@pytest.mark.parametrize("name", ["front", "bandwidth", "sensitivity"])
def test_commands_give_the_numbers_again(
    name: str, plan: Plan, table: ProfileTable, files: list[Path], edgecut: Edgecut, workdir: Path
) -> None:
    found = finding(of_plan(plan, [table], files[1]), name)
    output = ("--csv", "again") if name == "sensitivity" else ("-o", "again.csv")
    code, said = edgecut(*shlex.split(found.command)[1:], *output)
    assert code == 0, said
    if name == "sensitivity":
        again = pd.read_csv(workdir / "again" / "slower.csv")
        wanted = found.table[found.table["kind"] != "bundle"].sort_values(["kind", "what"])
        again = again.sort_values(["kind", "what"])
        assert list(again["factor"].fillna(0)) == pytest.approx(list(wanted["factor"].fillna(0)))
        return
    again = pd.read_csv(workdir / "again.csv")
    shared = [column for column in found.table if column in again and found.table[column].dtype == float]
    assert len(shared) > 2
    pd.testing.assert_frame_equal(again[shared], found.table[shared])


def test_a_runs_plan_gives_its_fleet(run: Run, files: list[Path], edgecut: Edgecut, workdir: Path) -> None:
    sections = analysis("net", [ProfileTable.load(files[2:])], [], [("run", run)], {"run": str(files[0])})
    code, said = edgecut(*shlex.split(finding(by_name(sections), "front").command)[1:])
    assert code == 0, said


def test_tables_are_those_that_the_plan_was_solved_from(
    plan: Plan, table: ProfileTable, files: list[Path]
) -> None:
    alone = finding(of_plan(plan, []), "front").table
    pd.testing.assert_frame_equal(alone, finding(of_plan(plan, [table]), "front").table)
    # One device's table of three says nothing of the plan.
    pd.testing.assert_frame_equal(
        alone, finding(of_plan(plan, [ProfileTable.load(files[2:3])]), "front").table
    )


def test_without_tables_it_is_said_what_brings_them(plan: Plan) -> None:
    found = of_plan(replace(plan, origin=Origin()), [])
    for name in ("front", "bandwidth", "sensitivity"):
        assert "does not say which tables it was solved from. Report its tables" in missing(found, name)
    assert finding(found, "deployment").table["forecast"].notna().any()


def test_without_energy_there_is_no_front(plan: Plan, table: ProfileTable) -> None:
    def powered(*, battery: bool, watts: float | None) -> Plan:
        devices = (replace(each, battery=battery, active_power_w=watts) for each in plan.fleet.devices)
        return replace(plan, fleet=replace(plan.fleet, devices=tuple(devices)))

    assert "battery = true" in missing(of_plan(powered(battery=False, watts=4.0), [table]), "front")
    rows = tuple(replace(row, energy_j=None) for row in table.rows)
    lacking = of_plan(powered(battery=True, watts=None), [ProfileTable(table.chain, rows)])
    assert "active_power_w" in missing(lacking, "front")
    energy = finding(lacking, "deployment").table.set_index("figure").loc["energy"]
    assert math.isnan(energy["forecast"])
    assert "active_power_w" in energy["forecast_by"]


def test_a_limit_that_moves_with_the_bandwidth_is_told(plan: Plan, table: ProfileTable) -> None:
    limited = replace(plan, limits=Limits(max_latency_s=plan.cost.latency_s * 1.5))
    assert "max_latency_s" in missing(of_plan(limited, [table]), "bandwidth")
    assert len(finding(of_plan(limited, [table]), "front").table) > 1, "the limit is not the front's"


def test_questions_to_the_solver_end_in_time(
    plan: Plan, table: ProfileTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.reports.analysis._MOST_S", 0.0)
    least = Limits(max_memory_bytes={device.name: 9e7 for device in plan.fleet.devices})
    limited = solve(plan.chain, plan.fleet, table, limits=least)
    found = of_plan(limited, [table])
    for name in ("bandwidth", "sensitivity"):
        assert "--time-limit" in missing(found, name)


@pytest.mark.parametrize("objective", ["period", "energy", "price"])
def test_plans_of_other_objectives_have_findings(
    objective: Objective, plan: Plan, table: ProfileTable
) -> None:
    found = of_plan(solve(plan.chain, plan.fleet, table, objective=objective), [table])
    for name in ("front", "bandwidth", "sensitivity"):
        drawn(finding(found, name))
    if objective == "period":
        assert "period" in finding(found, "bandwidth").notes[0]


def test_several_subjects_have_files_of_their_own(plan: Plan, run: Run, table: ProfileTable) -> None:
    other = replace(plan, notes=("another",))
    found = by_name(
        analysis("net", [table], [("plan", plan), ("other", other)], [("run", run), ("again", run)], {})
    )
    assert {"plan-front", "other-front", "run-latency", "again-latency", "run-deployment"} <= set(found)
    assert "run-front" not in found, "its plan is there already"


def test_hostile_names_are_drawn(plan: Plan, table: ProfileTable) -> None:
    baselines = tuple(replace(each, name=HOSTILE) for each in plan.baselines)
    strange = replace(plan, baselines=baselines, notes=(HOSTILE,))
    run = by_hand(strange, 12, concurrency=2)
    sections = analysis(
        HOSTILE, [table], [(HOSTILE, strange)], [("run", run)], {HOSTILE: HOSTILE, "run": "run"}
    )
    for part in by_name(sections).values():
        assert isinstance(part, Finding), part
        if part.draw is not None:
            drawn(part)
