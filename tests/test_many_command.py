"""`edgecut solve-many` and `edgecut replicate` as a user meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import CHAIN, FLEET, SPEED
from conftest import Edgecut
from strategies import make_row

from planner.fleet_file import save_fleet
from planner.fleet_plan import FleetPlan
from planner.sidecar import Environment, Sidecar
from planner.table import save_table

JOB = """
schema = "edgecut.job/1"
fleet = "fleet.toml"
max_utilisation = 0.9

[stream.camera]
profiles = ["edge.csv", "server.csv", "cloud.csv"]
rate_per_s = 20.0

[stream.lidar]
profiles = ["edge.csv", "server.csv", "cloud.csv"]
rate_per_s = 10.0
objective = { latency = 1.0, energy = 0.5 }
weight = 2.0
source = "server"
limits = { max_latency_s = 1.0, forbidden = ["0=cloud"] }
"""


@pytest.fixture
def edgecut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgecut: Edgecut) -> Edgecut:
    """A folder with a fleet, its tables and a job; runs a command there."""
    save_fleet(FLEET, tmp_path / "fleet.toml")
    for name, time in SPEED.items():
        rows = [make_row(name, each.start, each.stop, time * len(each)) for each in CHAIN.bundles()]
        environment = Environment("host", "x86", "3.11", {}, 1, (0,))
        save_table(tmp_path / f"{name}.csv", Sidecar(name, CHAIN, environment, "now", "samples"), rows)
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)

    return edgecut


def test_solve_many(edgecut, tmp_path: Path) -> None:
    code, said = edgecut("solve-many", "job.toml")
    assert code == 0, said
    assert "optimal by CBC" in said
    assert "camera" in said
    plan = FleetPlan.load(tmp_path / "fleetplan.json")
    assert [stream.name for stream in plan.streams] == ["camera", "lidar"]
    assert plan.max_utilisation == 0.9
    assert plan.streams[1].shares[0].plan.fleet.source == "server"
    assert "1 latency of camera + 2 latency + 1 energy of lidar" in said
    code, said = edgecut("solve-many", "job.toml", "--objective", "balanced", "--max-utilisation", "0.5")
    assert code == 0, said
    assert "largest utilisation" in said


def test_replicate(edgecut, tmp_path: Path) -> None:
    tables = ["--profiles", "edge.csv", "server.csv", "cloud.csv", "--fleet", "fleet.toml"]
    code, said = edgecut("replicate", *tables, "-o", "pipeline.json")
    assert code == 0, said
    assert "a request every" in said
    stream = FleetPlan.load(tmp_path / "pipeline.json").streams[0]
    assert len(stream.shares) > 1
    code, said = edgecut("replicate", *tables, "-o", "job.toml")
    assert (code, "holds no plans of a fleet" in said) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("rate_per_s = 20.0", "rate_per_s = 0.0", 2, "rate_per_s must be above 0"),
        ("rate_per_s = 20.0", "rate_per_s = 2000.0", 1, "above capacity"),
        ("[stream.lidar]", "[stream.camera]", 2, "give each [stream.NAME] a name of its own"),
        ("[stream.lidar]", "[stream.lidar]\nrates = 3", 2, "unknown key 'rates'"),
        ('"fleet.toml"', '"nowhere.toml"', 2, "no such file"),
        ('"cloud.csv"]\nrate_per_s = 20.0', '"nowhere.csv"]\nrate_per_s = 20.0', 2, "no such file"),
        ('source = "server"', 'source = "mars"', 2, "lidar: unknown device 'mars'"),
        ("0=cloud", "0@cloud", 2, "places nothing"),
        ("max_utilisation = 0.9", "max_utilisation = 1.9", 2, "max_utilisation"),
        ("edgecut.job/1", "edgecut.fleet/1", 2, "edgecut.job/1"),
        ("max_latency_s = 1.0", "max_latency_s = 1e-6", 1, "lidar: "),
    ],
)
def test_bad_jobs(edgecut, tmp_path: Path, old: str, new: str, code: int, says: str) -> None:
    assert old in JOB
    (tmp_path / "job.toml").write_text(JOB.replace(old, new))
    found, said = edgecut("solve-many", "job.toml")
    assert says in said
    assert found == code
    assert not (tmp_path / "fleetplan.json").exists()


def test_a_table_of_another_fleet(edgecut, tmp_path: Path) -> None:
    text = (tmp_path / "fleet.toml").read_text().replace("cloud", "mars")
    (tmp_path / "fleet.toml").write_text(text)
    code, said = edgecut("solve-many", "job.toml")
    assert (code, "camera: unknown device in the profile table 'cloud'" in said) == (2, True)
