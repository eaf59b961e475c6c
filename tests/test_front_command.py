"""`edgecut front` and `edgecut break-even` as a user meets them."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_front import small

from planner.errors import EdgecutError, InputError, PlanningError, UnknownNameError
from planner.fleet_file import save_fleet
from planner.plan import Plan
from planner.sidecar import Environment, Sidecar
from planner.table import save_table
from runtime.cli import cli


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """The options that name a fleet and its tables."""
    instance = small()
    save_fleet(instance.fleet, tmp_path / "fleet.toml")
    environment = Environment("host", "machine", "3.11", {}, 1, (0,))
    for device in ("edge", "server"):
        rows = [row for row in instance.table.rows if row.device == device]
        sidecar = Sidecar(device, instance.chain, environment, "2026-11-21", f"{device}.samples.jsonl")
        save_table(tmp_path / f"{device}.csv", sidecar, rows)
    tables = [str(tmp_path / "edge.csv"), str(tmp_path / "server.csv")]
    return ["--profiles", *tables, "--fleet", str(tmp_path / "fleet.toml")]


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def table(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_front_writes_table_picture_and_plans(asked: list[str], tmp_path: Path) -> None:
    output = tmp_path / "front.csv"
    said = run("front", *asked, "--save-plans", tmp_path / "plans", "-o", output)
    rows = table(output)
    assert f"the latency-energy front, {len(rows)} points" in said
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    assert [row["knee"] for row in rows].count("True") == 1
    for row in rows:
        plan = Plan.load(tmp_path / "plans" / row["file"])
        assert (plan.cost.latency_s, plan.cost.energy_j) == (float(row["latency_s"]), float(row["energy_j"]))
    assert len(table(output)) > 3
    run("front", *asked, "--points", 3, "-o", output)
    few = table(output)
    assert [few[0]["latency_s"], few[-1]["latency_s"]] == [rows[0]["latency_s"], rows[-1]["latency_s"]]
    assert len(few) == 3


def test_front_by_budget(asked: list[str], tmp_path: Path) -> None:
    output = tmp_path / "front.csv"
    run("front", *asked, "--min-sqnr-db", "15,exact", "-o", output)
    rows = table(output)
    assert {row["min_sqnr_db"] for row in rows} == {"15.0", "1000.0"}
    assert all(row["sqnr_db"] == "" for row in rows if row["min_sqnr_db"] == "1000.0")
    run("front", *asked, "--noise-levels", "50", "-o", output)
    assert {row["min_sqnr_db"] == "" for row in table(output)} == {True, False}


@pytest.mark.parametrize(
    ("options", "column"),
    [
        (["--link", "edge->server", "--from-mbps", "0.01"], "bytes_per_s"),
        (["--link", "all", "--objective", "energy"], "bytes_per_s"),
        (["--load", "server", "--weigh", "latency=1", "--weigh", "energy=0.01", "--to-load", "50"], "load"),
    ],
)
def test_break_even_writes_intervals(
    asked: list[str], tmp_path: Path, options: list[str], column: str
) -> None:
    output = tmp_path / "breakeven.csv"
    said = run("break-even", *asked, *options, "-o", output)
    rows = table(output)
    assert (tmp_path / "breakeven.png").read_bytes().startswith(b"\x89PNG")
    assert ("one plan" if len(rows) == 1 else f"{len(rows)} plans") in said
    for before, after in itertools.pairwise(rows):
        assert before[f"to_{column}"] == after[f"from_{column}"]
        assert float(before["value_to"]) == pytest.approx(float(after["value_from"]), rel=1e-6)


@pytest.mark.parametrize(
    ("command", "options", "error"),
    [
        ("front", ["--max-latency-ms", "0.001"], PlanningError),
        ("break-even", [], InputError),
        ("break-even", ["--link", "all", "--load", "edge"], InputError),
        ("break-even", ["--link", "edge->moon"], UnknownNameError),
        ("break-even", ["--load", "moon"], UnknownNameError),
        ("break-even", ["--load", "edge", "--to-mbps", "3"], InputError),
        ("break-even", ["--link", "all", "--from-mbps", "9", "--to-mbps", "3"], InputError),
        ("break-even", ["--link", "all", "--weigh", "speed=1"], InputError),
        ("break-even", ["--link", "all", "--weigh", "latency"], InputError),
        ("break-even", ["--link", "all", "--max-energy-mj", "900"], PlanningError),
    ],
)
def test_bad_questions_end_in_an_error_of_ours(
    asked: list[str], tmp_path: Path, command: str, options: list[str], error: type[EdgecutError]
) -> None:
    with pytest.raises(error):
        run(command, *asked, *options, "-o", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("command", ["front", "break-even"])
@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "fast"])
def test_a_limit_that_is_none_is_refused_by_its_option(asked: list[str], command: str, value: str) -> None:
    done = CliRunner().invoke(cli, [command, *asked, "--max-latency-ms", value])
    assert done.exit_code == 2
    assert "Invalid value for '--max-latency-ms'" in done.output
