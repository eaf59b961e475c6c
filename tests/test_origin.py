"""A plan names what it was solved from, and its question can be asked again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cases import hard_table
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st
from rich_case import rich_case
from strategies import Instance, instances

from planner.codec_table import append_codec_row
from planner.errors import DocumentError, InputError, MismatchError, PlanningError
from planner.fleet_file import save_fleet
from planner.fleet_solver import Demand, solve_many
from planner.front import front
from planner.limits import Limits
from planner.origin import Origin
from planner.plan import Plan
from planner.replicas import replicate
from planner.sidecar import Environment, Sidecar
from planner.solver import solve, solve_again
from planner.table import ProfileTable, plan_table, save_table
from runtime.cli import cli

CASE = rich_case()
QUESTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lossy codecs": {"codecs": ("raw", "int8")},
    "raw only": {"codecs": ("raw",)},
    "by accuracy": {"limits": Limits(min_sqnr_db=15.0)},
    "weights": {"objective": {"latency": 2.0, "energy": 0.5}},
    "energy": {"objective": "energy", "limits": Limits(max_latency_s=0.02)},
    "statistic": {"statistic": "mean+2std"},
    "partial": {"partial": True},
    "period": {"objective": "period"},
    "period, several stages": {"objective": "period", "several": True},
}


def written(folder: Path, case: Instance = CASE) -> list[Path]:
    files = []
    for device in ("edge", "server", "cloud"):
        file = folder / f"{device}.csv"
        here = Environment("host", "x86", "3.11", {}, 1, (0,))
        save_table(
            file,
            Sidecar(device, case.chain, here, "2026-11-21", "none"),
            [row for row in case.table.rows if row.device == device],
        )
        for row in case.table.codecs:
            if row.device == device:
                append_codec_row(file.with_suffix(".codecs.csv"), row)
        files.append(file)
    return files


@pytest.fixture
def files(workdir: Path) -> list[Path]:
    return written(workdir)


def solved(table: ProfileTable, question: dict[str, Any] | None = None) -> Plan:
    return solve(CASE.chain, CASE.fleet, table, **question or {})


def asked(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_plan_asks_its_question_again(files: list[Path], question: dict[str, Any]) -> None:
    plan = solved(ProfileTable.load(files), question)
    plan.save(Path("plan.json"))
    read = Plan.load(Path("plan.json"))
    again = solve_again(read, plan_table(read, Path("plan.json")))
    unlike = {"proof", "notes"}
    for name in {each.name for each in dataclasses.fields(Plan)} - unlike:
        assert getattr(again, name) == getattr(plan, name), name
    assert again.proof.objective == plan.proof.objective
    assert again.proof.objective_value == plan.proof.objective_value
    assert again.notes == plan.notes


@given(instances(), st.sampled_from(["latency", "energy", "price", "period"]))
def test_the_answer_to_a_question_asked_again_is_the_same(instance: Instance, objective: Any) -> None:
    try:
        plan = solve(instance.chain, instance.fleet, instance.table, objective=objective)
    except PlanningError:
        assume(False)
        raise
    again = solve_again(plan, instance.table)
    assert (again.stages, again.hops, again.limits) == (plan.stages, plan.hops, plan.limits)


def test_the_question_without_a_device(files: list[Path]) -> None:
    table = ProfileTable.load(files)
    plan = solved(table, {"codecs": ("raw", "int8"), "statistic": "p95"})
    gone = plan.stages[-1].device
    assert gone != "edge"
    limits = dataclasses.replace(plan.limits, without_devices=(gone,))
    found = solve_again(plan, table, limits=limits)
    assert found == dataclasses.replace(
        solved(table, {"codecs": ("raw", "int8"), "statistic": "p95", "limits": limits}), proof=found.proof
    )
    assert gone not in found.devices


def test_digests_are_those_of_the_files(files: list[Path]) -> None:
    plan = solved(ProfileTable.load([Path("edge.csv"), Path("server.csv")]))
    edge, server = plan.origin.profiles
    for table, name in ((edge, "edge"), (server, "server")):
        assert table.file == str(Path(f"{name}.csv").resolve())
        for digest, suffix in (
            (table.sha256, ".csv"),
            (table.sidecar_sha256, ".json"),
            (table.codecs_sha256, ".codecs.csv"),
        ):
            assert digest == hashlib.sha256(Path(name + suffix).read_bytes()).hexdigest()
    Path("edge.codecs.csv").unlink()
    assert ProfileTable.load([Path("edge.csv")]).files[0].codecs_sha256 is None


@pytest.mark.parametrize("name", ["edge.csv", "edge.json", "edge.codecs.csv"])
def test_a_table_that_changed_is_refused(files: list[Path], workdir: Path, name: str) -> None:
    origin = solved(ProfileTable.load(files)).origin
    assert origin.find(workdir) == files
    changed = workdir / name
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(MismatchError, match=name) as caught:
        origin.find(workdir)
    assert "--profiles" in str(caught.value.remedy)
    if name == "edge.codecs.csv":
        changed.unlink()
        with pytest.raises(MismatchError, match=name):
            origin.find(workdir)


def test_tables_may_move_with_the_plan(files: list[Path], workdir: Path, tmp_path_factory: Any) -> None:
    plan = solved(ProfileTable.load(files))
    moved = tmp_path_factory.mktemp("moved")
    for each in workdir.iterdir():
        shutil.move(each, moved)
    plan.save(moved / "plan.json")
    assert plan_table(plan, moved / "plan.json").columns.devices == ("edge", "server", "cloud")
    with pytest.raises(DocumentError, match=r"edge\.csv.*neither there nor in"):
        plan_table(plan, workdir / "plan.json")
    with pytest.raises(InputError, match="does not say which tables"):
        plan_table(dataclasses.replace(plan, origin=Origin()), moved / "plan.json")


def test_plans_of_every_kind_name_their_tables(files: list[Path]) -> None:
    table = ProfileTable.load(files)
    made = front(CASE.chain, CASE.fleet, table, points=3)
    assert {made.plan(point).origin for point in made.points} == {Origin(table.files)}
    levels = front(CASE.chain, CASE.fleet, table, noise_levels=2)
    for point in levels.points:  # the loosest has no limit on noise, but lossy codecs
        plan = levels.plan(point)
        again = solve_again(plan, table)
        assert again.cost.latency_s == pytest.approx(plan.cost.latency_s)
    many = solve_many(CASE.fleet, [Demand("one", table, 1.0, codecs=("raw",))])
    assert many.streams[0].shares[0].plan.origin == Origin(table.files, ("raw",))
    copies = replicate(CASE.fleet, table)
    assert all(share.plan.origin == Origin(table.files) for share in copies.streams[0].shares)


def test_explain_asks_the_plans_own_tables(files: list[Path]) -> None:
    save_fleet(CASE.fleet, Path("fleet.toml"))
    assert asked("solve", "--profiles", *files, "--fleet", "fleet.toml", "--codecs", "int8").exit_code == 0
    assert Plan.load(Path("plan.json")).origin.codecs == ("raw", "int8")
    found = asked("explain", "plan.json", "--json", "own.json", "-n", 2)
    assert found.exit_code == 0, found.output
    named = asked(
        "explain", "plan.json", "--profiles", *files, "--codecs", "int8", "--json", "named.json", "-n", 2
    )
    assert named.exit_code == 0, named.output
    assert json.loads(Path("own.json").read_text()) == json.loads(Path("named.json").read_text())
    assert any(hop.codec == "int8" for hop in Plan.load(Path("plan.json")).hops)
    other = asked("explain", "plan.json", "--codecs", "none")
    assert "not among the codecs allowed" in str(other.exception)
    Path("edge.json").write_text(Path("edge.json").read_text() + "\n")
    changed = asked("explain", "plan.json")
    assert isinstance(changed.exception, MismatchError)
    assert asked("explain", "plan.json", "--profiles", *files).exit_code == 0


def test_a_table_in_memory_names_no_files() -> None:
    chain, fleet, table = hard_table(4)
    assert solve(chain, fleet, table).origin == Origin()
