"""Findings about the runs of a report, against runs made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from findings import HOSTILE, by_hand, drawn, finding, missing, of_plan, of_run
from study import make_study

from planner import Plan, ProfileTable
from planner.period import period_s
from planner.run import Run
from planner.run_plans import SwitchRow
from planner.run_rows import RunRow
from runtime.reports.finding import Finding
from runtime.reports.timeline import bars_of


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


def test_the_seven_figures_of_a_run(plan: Plan, table: ProfileTable) -> None:
    run = by_hand(plan, 10, concurrency=2)
    rows = finding(of_run(run, [table]), "deployment").table.set_index(["figure", "where"])
    assert set(rows.index.get_level_values(0)) == {
        "accuracy", "latency", "throughput", "energy", "model size", "memory", "cost",
    }  # fmt: skip
    assert rows.loc[("latency", "per request"), "forecast"] == plan.cost.latency_s
    assert rows.loc[("latency", "per request"), "measured"] == pytest.approx(2 * plan.cost.latency_s)
    assert rows.loc[("throughput", "samples"), "measured"] == pytest.approx(1 / 0.05)
    pace = min(1 / period_s(plan.fleet, plan.stages, plan.hops), 2 / plan.cost.latency_s)
    assert rows.loc[("throughput", "samples"), "forecast"] == pytest.approx(pace)
    assert rows.loc[("energy", "per request"), "forecast"] == plan.cost.energy_j
    assert rows.loc[("accuracy", "top-1"), "measured"] == 0.5
    assert rows.loc[("accuracy", "agreement with fp32"), "measured"] == 1.0
    device = plan.stages[0].device
    mine = [stage for stage in plan.stages if stage.device == device]
    assert rows.loc[("memory", device), "forecast"] == sum(stage.memory_bytes for stage in mine)
    assert rows.loc[("model size", device), "measured"] == sum(160_000 * len(stage.bundle) for stage in mine)
    assert math.isnan(rows.loc[("cost", "per request"), "forecast"])
    assert all(rows["measured_by"][rows["measured"].isna()].str.startswith(("not ", "nothing ")))


def test_a_plan_that_was_not_run_says_so(plan: Plan, table: ProfileTable) -> None:
    rows = finding(of_plan(plan, [table]), "deployment").table.set_index("figure")
    assert rows.loc["latency", "measured_by"] == "not measured: `edgecut deploy` the plan"


def test_the_timeline_shows_the_median_and_the_slowest_request(plan: Plan) -> None:
    found = finding(of_run(by_hand(plan, 10)), "timeline")
    assert 3 in set(found.table["request"])
    assert len(set(found.table["request"])) == 2
    slow = found.table[found.table["request"] == 3]
    assert list(slow["work_s"]) == pytest.approx(list(slow["forecast_s"] * 3))
    assert (slow["begin_s"] - slow["queue_s"]).iloc[0] == pytest.approx(0.15)
    assert list(slow["forecast_begin_s"])[1:] == pytest.approx(
        list((0.15 + slow["forecast_s"].cumsum())[:-1])
    )
    assert "timeline-window" not in of_run(by_hand(plan, 10))


def test_a_window_shows_requests_in_flight(plan: Plan) -> None:
    found = finding(of_run(by_hand(plan, 40, concurrency=3, apart_s=0.01)), "timeline-window")
    assert len(set(found.table["request"])) > 6
    middle = found.table["begin_s"].median()
    assert 0.1 < middle < 0.9
    assert "3 requests in flight" in found.title


def test_hops_in_a_codec_take_their_lanes(plan: Plan) -> None:
    first, *others = plan.hops
    coded = replace(first, codec="zstd", encode_s=0.001, decode_s=0.002)
    mixed = replace(plan, hops=(coded, *others))
    rows = [RunRow(0, "hop", 0, 0.01, 0.01, 0.0, begin_s=0.0)]
    rows += [
        RunRow(0, kind, 0, 0.003, 0.004, 0.0, begin_s=place * 0.004)
        for place, kind in enumerate(("encode", "wire", "decode"))
    ]
    rows.append(RunRow(0, "total", 0, 0.03, 0.03, 0.0, begin_s=0.0))
    bars = list(bars_of(mixed, rows))
    assert [bar.lane for bar in bars] == [first.route[0], " → ".join(first.route), first.route[-1]]
    assert [bar.forecast_begin_s for bar in bars] == pytest.approx([0, 0.003, 0.006])


def test_runs_of_older_versions_have_no_timeline(plan: Plan) -> None:
    assert "Deploy the plan again" in missing(of_run(by_hand(plan, 10, begun=False)), "timeline")


def test_the_distribution_is_the_runs(plan: Plan) -> None:
    run = by_hand(plan, 30)
    rows = finding(of_run(run), "latency").table.set_index("share")
    latencies = [row.measured_s for row in run.rows if row.kind == "total"]
    assert rows.loc[0.5, "latency_s"] == pytest.approx(np.median(latencies))
    assert rows.loc[1.0, "latency_s"] == max(latencies)
    assert set(rows["forecast_s"]) == {plan.cost.latency_s}


def test_drift_and_switches_are_told(plan: Plan) -> None:
    run = by_hand(plan, 30)
    rows = tuple(
        replace(row, plan=1, measured_s=row.measured_s * 2) if row.request >= 15 else row for row in run.rows
    )
    switch = SwitchRow("2026-01-01T00:00:10", 1, "edge [0, 9)", HOSTILE)
    switched = Run(run.info, rows, (plan,), (switch,))
    found = finding(of_run(switched), "latency")
    assert set(found.table["plan"]) == {0, 1}
    assert found.notes[0].startswith("It drifted")
    assert HOSTILE in found.notes[1]
    drawn(found)
    drawn(finding(of_run(switched), "timeline"))


@pytest.mark.parametrize("kept", ["nothing", "stages", "totals"])
def test_a_run_that_lacks_rows_is_missing_parts(kept: str, plan: Plan) -> None:
    run = by_hand(plan, 10, concurrency=2)
    kinds = {"nothing": (), "stages": ("stage",), "totals": ("total",)}[kept]
    found = of_run(Run(run.info, tuple(row for row in run.rows if row.kind in kinds)))
    assert "Deploy" in missing(found, "timeline")
    if kept != "totals":
        assert "Deploy" in missing(found, "latency")
    finding(found, "deployment")


def test_one_request_is_enough(plan: Plan) -> None:
    for part in of_run(by_hand(plan, 1, concurrency=4)).values():
        if isinstance(part, Finding) and part.draw is not None:
            drawn(part)
