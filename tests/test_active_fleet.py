"""Active profiling over agents: the workstation plans, devices measure what it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from test_agent import _own_modules, emulated, remote_agent, store, template  # noqa: F401 - fixtures

from planner import ProfileTable
from planner.fleet import Fleet, Link
from planner.fleet_file import save_fleet
from planner.limits import Limits
from planner.solver import solve
from runtime.cli import cli
from runtime.fleet_active import profile_actively
from runtime.fleet_profile import profile_fleet


def linked(fleet: Fleet) -> Fleet:
    first, second = (device.name for device in fleet.devices)
    return Fleet(first, first, fleet.devices, (Link(first, second, 1e7), Link(second, first, 1e7)))


@pytest.mark.slow
def test_devices_measure_what_the_plan_needs(store: Path, tmp_path: Path) -> None:  # noqa: F811
    with remote_agent(tmp_path / "there") as (_, address):
        fleet = linked(emulated("edge", nano=address))
        asked = template(store, tmp_path / "profiles", codecs=("raw", "zstd"))
        kept = {"objective": "latency", "limits": Limits(), "gap": 0.0, "verify": 2}
        result = profile_actively(asked, fleet, ["edge", "nano"], **kept)
        files = sorted((tmp_path / "profiles").glob("*.csv"))
        table = ProfileTable.load([file for file in files if "codecs" not in file.name])
        assert {row.key for row in table.rows} == {row.key for row in result.rows}
        assert {row.codec for row in table.codecs} == {"zstd"}
        assert set(table.active) == {"edge", "nano"}
        plan = solve(table.chain, fleet, table, objective="latency")
        assert plan.cost.latency_s == pytest.approx(result.value)
        # The agents have let go of their tables: the rest can be measured, and nothing twice.
        whole = profile_fleet(asked, fleet, ["edge", "nano"])
        assert [(each.rows, each.error) for each in whole] == [(6, None), (6, None)]
        assert sum(each.summary.resumed for each in whole if each.summary) == len(table.rows)


def test_the_command(store: Path, tmp_path: Path) -> None:  # noqa: F811
    save_fleet(linked(emulated("edge", "server")), tmp_path / "fleet.toml")
    arguments = [
        "profile",
        "models:Tiny",
        "--input-shape",
        "3x32x32",
        "--fleet",
        str(tmp_path / "fleet.toml"),
    ]
    arguments += [
        "--max-runs",
        "8",
        "--visit-ms",
        "0",
        "--samples",
        str(store),
        "-o",
        str(tmp_path / "profiles"),
    ]
    done = CliRunner().invoke(
        cli, [*arguments, "--strategy", "active", "--verify", "1"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "calibrated" in done.output
    assert "wrote" in done.output
    for wrong in (["--verify", "1"], ["--strategy", "active", "--device", "edge"]):
        assert CliRunner().invoke(cli, [*arguments, *wrong]).exit_code == 2
