"""Reports: what is written for a profile, a plan and a run, and that the numbers are theirs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from test_deploy import PLANS, TINY, fleet, plan

from planner import Baseline, Cost, Plan, ProfileRow, Sidecar, Variant
from planner.errors import DocumentError
from planner.run import Run, RunInfo, RunRow, format_run_row, run_header
from planner.sidecar import Environment
from planner.table import format_row, header
from planner.verdict import verdict
from profiler.cut import cut_model
from profiler.model import load_model
from runtime.reports.report import write_report


@pytest.fixture(scope="module")
def made() -> Plan:
    chain = cut_model(load_model(TINY)).chain
    split = plan(chain, PLANS["there"], fleet())
    alone = plan(chain, PLANS["all on the source"], fleet())
    baselines = (Baseline("all on a", alone.stages, (), Cost(0.02, 0.1)),)
    return Plan(
        **{**{name: getattr(split, name) for name in Plan.__dataclass_fields__}, "baselines": baselines}
    )


def write_profile(made: Plan, file: Path, device: str) -> None:
    rows = [
        ProfileRow(device, bundle, Variant(backend), 1, *[len(bundle) * 1e-3] * 3, 0.0, 1e-3, 20, 0.1)
        for backend in ("torch", "onnxruntime")
        for bundle in made.chain.bundles()
    ]
    file.write_text(header() + "".join(map(format_row, rows)))
    here = Environment("host", "machine", "3.11", {}, 1, (0,))
    Sidecar(device, made.chain, here, "2026-01-01", f"{file.stem}.samples.jsonl").save(
        file.with_suffix(".json")
    )


def write_run(made: Plan, folder: Path) -> None:
    folder.mkdir()
    RunInfo(made, "2026-01-01", "zenoh", 1, 1e-4, 1.0, 10).save(folder / "run.json")
    rows = []
    for request in range(10):
        slow = 1 + request / 10
        rows += [RunRow(request, "stage", k, 0.001, 0.001 * slow, 0.0) for k in range(2)]
        rows += [RunRow(request, "hop", k, 0.002, 0.002, 0.0) for k in range(2)]
        rows.append(RunRow(request, "total", 0, 0.006, 0.004 + 0.002 * slow, 0.0, 1e-7))
    (folder / "run.csv").write_text(run_header() + "".join(map(format_run_row, rows)))


def pictures_are_whole(files: list[Path]) -> None:
    for file in files:
        assert file.stat().st_size > 100
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert min(picture.size) > 200
                assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20, "nothing was drawn"


def test_a_report_of_everything(made: Plan, tmp_path: Path) -> None:
    for device in ("a", "b"):
        write_profile(made, tmp_path / f"{device}.csv", device)
    write_run(made, tmp_path / "run")
    files, (said,) = write_report(
        [tmp_path / "run", tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "report"
    )
    assert sorted(file.name for file in files) == [
        "baselines.csv", "baselines.png", "bundles-a.csv", "bundles-a.png", "bundles-b.csv", "bundles-b.png",
        "chain.csv", "chain.png", "forecast.csv", "forecast.png",
    ]  # fmt: skip
    pictures_are_whole(files)
    forecast = pd.read_csv(tmp_path / "report" / "forecast.csv").set_index("part")
    assert forecast.loc["total", "measured_median_s"] == pytest.approx(0.004 + 0.002 * 1.45)
    assert forecast.loc["total", "error"] == pytest.approx((0.004 + 0.0029) / 0.006 - 1)
    assert said == "models:Tiny: forecast 6.00 ms, measured 6.90 ms (median of 10): error +15.0 %"
    bundles = pd.read_csv(tmp_path / "report" / "bundles-a.csv")
    assert len(bundles) == 12
    chain = pd.read_csv(tmp_path / "report" / "chain.csv")
    assert list(chain["boundary_bytes"]) == [boundary.nbytes for boundary in made.chain.boundaries[1:]]


def test_a_report_of_a_plan(made: Plan, tmp_path: Path) -> None:
    made.save(tmp_path / "plan.json")
    files, (said,) = write_report([tmp_path / "plan.json"], tmp_path / "report")
    pictures_are_whole(files)
    assert said == f"models:Tiny: {verdict(made)}"
    rows = pd.read_csv(tmp_path / "report" / "baselines.csv")
    ours = rows[rows["plan"] == "this plan"]
    assert ours["latency_s"].sum() == pytest.approx(made.cost.latency_s)


def test_two_runs_do_not_overwrite_each_other(made: Plan, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_run(made, tmp_path / name)
    files, _ = write_report([tmp_path / "first", tmp_path / "second"], tmp_path / "report")
    assert {"first-forecast.png", "second-forecast.png"} <= {file.name for file in files}


def test_subjects_of_one_name_do_not_overwrite_each_other(made: Plan, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name / "plan.json")
        write_profile(made, tmp_path / name / "a.csv", "a")
    files, _ = write_report([tmp_path / name / "plan.json" for name in ("one", "two")], tmp_path / "plans")
    assert {"plan-chain.png", "plan-2-chain.png"} <= {file.name for file in files}
    files, _ = write_report([tmp_path / name / "a.csv" for name in ("one", "two")], tmp_path / "tables")
    assert {"a-bundles-a.png", "a-2-bundles-a.png"} <= {file.name for file in files}


def test_waiting_behind_other_requests_is_told_apart(made: Plan, tmp_path: Path) -> None:
    info = RunInfo(made, "2026-01-01", "zenoh", 4, 1e-4, 1.0, 0)
    rows = tuple(RunRow(request, "total", 0, 0.006, 0.0163, 0.010, 1e-7) for request in range(3))
    assert Run(info, rows).verdict() == (
        "forecast 6.00 ms, measured 6.30 ms (median of 3, without 10.00 ms of waiting): error +5.0 %"
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "edgecut.plan/9"}', "a,b\n1,2", "\0\xff"])
@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.txt"])
def test_what_is_no_document_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DocumentError):
        write_report([tmp_path / name], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_verdict(made: Plan) -> None:
    gain = (1 - made.cost.latency_s / 0.02) * 100
    assert (
        verdict(made)
        == f"split over a and b: {gain:.1f} % less latency than 'all on a', the best single device"
    )
    alone = plan(made.chain, PLANS["all on the source"], fleet())
    assert verdict(alone) == "not splitting is best: everything runs on a"


def test_a_run_without_rows_says_so(made: Plan, tmp_path: Path) -> None:
    write_run(made, tmp_path / "run")
    (tmp_path / "run" / "run.csv").write_text(run_header())
    with pytest.raises(DocumentError, match="no row for"):
        Run.load(tmp_path / "run").comparisons()
