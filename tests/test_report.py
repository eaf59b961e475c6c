"""Reports: what is written for a profile, a plan and a run, and that the numbers are theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from study import make_study
from test_deploy import PLANS, TINY, fleet, plan

from planner import Baseline, Cost, Plan, ProfileRow, Sidecar, Variant
from planner.errors import DocumentError, InputError
from planner.run import Run, RunInfo
from planner.run_rows import RunRow, format_run_row, run_header
from planner.sidecar import Environment
from planner.table import format_row, header
from planner.verdict import verdict
from profiler.cut import cut_model
from profiler.model import load_model
from runtime.commands.report import report as report_command
from runtime.reports.chain_picture import chain_finding
from runtime.reports.page import table_grid
from runtime.reports.picture import save_picture
from runtime.reports.plan_pictures import baselines_finding
from runtime.reports.report import Report, Writer, write_report
from runtime.reports.theme import sentence


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
        if file.suffix == ".svg":
            assert len(list(ElementTree.parse(file).iter())) > 20


def test_a_report_of_everything(made: Plan, tmp_path: Path) -> None:
    for device in ("a", "b"):
        write_profile(made, tmp_path / f"{device}.csv", device)
    write_run(made, tmp_path / "run")
    report = write_report([tmp_path / "run", tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "report")
    names = {file.name for file in report.files}
    assert names == {file.name for file in (tmp_path / "report").iterdir()} - {"report.html"}
    for stem in ("baselines", "bundles-a", "bundles-b", "chain", "forecast"):
        assert {f"{stem}.csv", f"{stem}.png", f"{stem}.svg"} <= names
    pictures_are_whole(report.files)
    forecast = pd.read_csv(tmp_path / "report" / "forecast.csv").set_index("part")
    assert forecast.loc["total", "measured_median_s"] == pytest.approx(0.004 + 0.002 * 1.45)
    assert forecast.loc["total", "error"] == pytest.approx((0.004 + 0.0029) / 0.006 - 1)
    assert report.said == [
        f"models:Tiny: run: {sentence(verdict(made))}. "
        "Forecast 6.00 ms, measured 6.90 ms (median of 10): error +15.0 %."
    ]
    bundles = pd.read_csv(tmp_path / "report" / "bundles-a.csv")
    assert len(bundles) == 12
    chain = pd.read_csv(tmp_path / "report" / "chain.csv")
    assert list(chain["output_bytes"]) == [boundary.nbytes for boundary in made.chain.boundaries[1:]]


def test_a_report_of_a_plan(made: Plan, tmp_path: Path) -> None:
    made.save(tmp_path / "plan.json")
    report = write_report([tmp_path / "plan.json"], tmp_path / "report")
    pictures_are_whole(report.files)
    assert report.said == [f"models:Tiny: plan: {sentence(verdict(made))}."]
    assert "bundles" in {part.name for part in report.missing}, (
        "the plan does not say from which tables it is"
    )
    rows = pd.read_csv(tmp_path / "report" / "baselines.csv")
    ours = rows[rows["plan"] == "this plan"]
    assert ours["latency_s"].sum() == pytest.approx(made.cost.latency_s)


def test_two_runs_do_not_overwrite_each_other(made: Plan, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_run(made, tmp_path / name)
    files = write_report([tmp_path / "first", tmp_path / "second"], tmp_path / "report").files
    assert {"first-forecast.png", "second-forecast.png"} <= {file.name for file in files}
    assert len(set(files)) == len(files)


def test_subjects_of_one_name_do_not_overwrite_each_other(made: Plan, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name / "plan.json")
        write_profile(made, tmp_path / name / "a.csv", "a")
    plans = [tmp_path / name / "plan.json" for name in ("one", "two")]
    other = dataclasses.replace(made, notes=("another",))
    other.save(plans[1])
    files = write_report(plans, tmp_path / "plans").files
    assert {"plan-chain.png", "plan-2-chain.png"} <= {file.name for file in files}
    files = write_report([tmp_path / name / "a.csv" for name in ("one", "two")], tmp_path / "tables").files
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


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(made: Plan, tmp_path: Path) -> None:
    write_run(made, tmp_path / "run")
    rows = (tmp_path / "run" / "run.csv").read_text().splitlines(keepends=True)
    rows[7] = rows[7].replace("stage", "stag")
    rows[11] = "\0,?\n"
    (tmp_path / "run" / "run.csv").write_text("".join(rows))
    (tmp_path / "plan.json").write_text("{")
    (tmp_path / "old.json").write_text('{"schema": "edgecut.plan/1"}')
    report = write_report(
        [tmp_path / name for name in ("plan.json", "run", "old.json", "none.csv")], tmp_path / "report"
    )
    lost = {part.name: part for part in report.missing}
    assert {"plan", "run", "old", "none"} <= set(lost)
    assert "2 places" in lost["run"].title
    assert "line 8" in lost["run"].reason
    assert "no such file" in lost["none"].reason
    assert "edgecut solve" in lost["old"].reason
    text = report.page.read_text()
    assert "Forecast 6.00 ms" in text
    assert all(part.title.replace("'", "&#39;") in text for part in lost.values())
    with pytest.raises(InputError, match="none of the 2 subjects"):
        write_report([tmp_path / "plan.json", tmp_path / "none.csv"], tmp_path / "nothing")


def test_a_run_whose_rows_are_lost_shows_its_plan(made: Plan, tmp_path: Path) -> None:
    write_run(made, tmp_path / "run")
    (tmp_path / "run" / "run.csv").write_text("a,b\n1,2\n")
    report = write_report([tmp_path / "run"], tmp_path / "report")
    assert report.said == [f"models:Tiny: run: {sentence(verdict(made))}."]
    assert "What was measured" in report.missing[0].title
    (tmp_path / "run" / "run.csv").write_text(run_header())
    report = write_report([tmp_path / "run"], tmp_path / "empty")
    assert any("no row" in part.reason for part in report.missing if part.name == "forecast")


def test_plans_that_took_over_are_shown(made: Plan, tmp_path: Path) -> None:
    write_run(made, tmp_path / "run")
    alone = plan(made.chain, PLANS["all on the source"], fleet())
    alone.save(tmp_path / "run" / "plan-1.json")
    with (tmp_path / "run" / "run.csv").open("a") as rows:
        for request in range(10, 15):
            rows.write(format_run_row(RunRow(request, "stage", 0, 0.02, 0.021, 0.0, plan=1)))
            rows.write(format_run_row(RunRow(request, "total", 0, 0.02, 0.021, 0.0, 1e-7, plan=1)))
    report = write_report([tmp_path / "run"], tmp_path / "report")
    assert report.said[0].startswith("models:Tiny: run: ")
    assert report.said[1].startswith("models:Tiny: run, plan-1: ")
    assert "Forecast 20.00 ms, measured 21.00 ms (median of 5): error +5.0 %." in report.said[1]
    names = {file.name for file in report.files}
    assert {
        "chain.svg",
        "plan-1-chain.svg",
        "plan-1-baselines.csv",
        "forecast.csv",
        "plan-1-forecast.csv",
    } <= names


def test_each_network_has_a_chapter(made: Plan, tmp_path: Path) -> None:
    made.save(tmp_path / "other.json")
    files = make_study(tmp_path, 5, 2, 1, requests=5)
    report = write_report([*files, tmp_path / "other.json"], tmp_path / "report")
    text = report.page.read_text()
    assert text.count('<section class="chain"') == 2
    assert {"models-Tiny-chain.svg", "torchvision-study-run-chain.svg"} <= {
        file.name for file in report.files
    }


def test_pictures_are_the_same_every_time(made: Plan, tmp_path: Path) -> None:
    found = [chain_finding("chain", made.chain, made, ""), baselines_finding("baselines", made, "")]
    for each in found:
        assert each.draw
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
        inline = [save_picture(each.draw(), tmp_path / name / "x", each.title) for name in ("one", "two")]
        assert inline[0] == inline[1]
        for suffix in (".png", ".svg"):
            one, two = ((tmp_path / name / f"x{suffix}").read_bytes() for name in ("one", "two"))
            assert one == two, each.name


def test_every_bundle_of_a_table_is_on_the_page_in_its_units(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "name": ["a", None], "latency_s": [0.0012345, float("nan")], "moved_bytes": [2_500_000, 0],
        "rate_bytes_per_s": [1.25e6, 1e9], "samples_per_s": [10.0, 20.0], "runs": [1_000_000, 2],
    })  # fmt: skip
    found = table_grid(frame)
    assert found.heads == [
        ("name", ""), ("latency", "ms"), ("moved", "MB"), ("rate", "Mbit/s"), ("samples", "1/s"), ("runs", ""),
    ]  # fmt: skip
    assert list(found.rows) == [
        ("a", "1.234", "2.5", "10", "10", "1,000,000"),
        ("", "", "0", "8000", "20", "2"),
    ]
    rows = pd.DataFrame({"figure": ["latency", "size"], "unit": ["s", "bytes"], "forecast": [0.5, 1e6]})
    assert list(table_grid(rows).rows) == [("latency", "ms", "500"), ("size", "MB", "1")]
    assert table_grid(frame, ("runs",), 1).left_out == 1


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a/b", "a\\b", "A-B"], ["a-b", "a-b-2", "A-B-3"]),
        (["../../x", "..", ""], ["x", "finding", "finding-2"]),
        (["é" * 300, "report"], ["é" * 50, "report-2"]),
        (['<script>"', "nul\0"], ["script--", "nul-"]),
    ],
)
def test_files_have_names_that_any_system_takes(tmp_path: Path, names: list[str], stems: list[str]) -> None:
    writer = Writer(tmp_path, Report(tmp_path / "report.html"))
    assert [writer.stem(name) for name in names] == stems


def test_the_command_names_the_page_first(made: Plan, tmp_path: Path) -> None:
    made.save(tmp_path / "plan.json")
    done = CliRunner().invoke(report_command, [str(tmp_path / "plan.json"), "-o", str(tmp_path / "report")])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == str(tmp_path / "report" / "report.html")
    assert "not shown: " in done.stdout


def test_a_run_without_rows_says_so(made: Plan, tmp_path: Path) -> None:
    write_run(made, tmp_path / "run")
    (tmp_path / "run" / "run.csv").write_text(run_header())
    with pytest.raises(DocumentError, match="no row for"):
        Run.load(tmp_path / "run").comparisons()
