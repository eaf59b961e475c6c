"""edgecut simulate as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import CHAIN, FLEET, make_table
from PIL import Image

from planner.fleet_file import save_fleet
from planner.simulate_result import Simulation
from planner.solver import solve


@pytest.fixture
def plan_file(workdir: Path) -> Path:
    """10 ms on the edge, 4 ms to the server, 4 ms there, 0.1 ms back."""
    solve(CHAIN, FLEET, make_table(), objective="latency").save(workdir / "plan.json")
    (workdir / "wifi.csv").write_text("time_s,bandwidth_bytes_per_s\n0,1e6\n0.1,5e5\n")
    (workdir / "times.csv").write_text("time_s\n0\n0.01\n0.5\n")
    (workdir / "stops.csv").write_text("time_s,bandwidth_bytes_per_s\n0,1e6\n0.1,0\n")
    return workdir / "plan.json"


def test_the_forecast_where_nothing_interferes(edgecut, plan_file: Path) -> None:
    code, said = edgecut("simulate", plan_file, "-o", "out", "--requests", 40)
    assert code == 0
    assert "median 18.10 ms, 99 % within 18.10 ms; forecast of one alone 18.10 ms" in said
    found = Simulation.load(Path("out/simulation.json"))
    assert found.streams[0].latency.median_s == pytest.approx(found.plans[0].cost.latency_s)
    assert len(Path("out/requests.csv").read_text().splitlines()) == 41
    with Image.open("out/simulation.png") as picture:
        assert min(picture.size) > 400


def test_every_option_reaches_the_simulation(edgecut, plan_file: Path) -> None:
    code, said = edgecut(
        *("simulate", plan_file, plan_file, "--arrivals", "poisson:30", "--arrivals", "times.csv"),
        *(
            "--requests",
            50,
            "--bandwidth-trace",
            "edge:server=wifi.csv",
            "--bandwidth-mbps",
            "server:edge=16",
        ),
        *(
            "--bandwidth-factor",
            0.5,
            "--jitter",
            0.1,
            "--slowdown",
            "edge=2@0.3",
            "--outage",
            "server=0.2-0.4",
        ),
        *("--outage", "edge:server=0.1-0.15", "--deadline-ms", 100, "--drop-late", "--seed", 7, "-o", "out"),
    )
    assert code == 0
    assert "dropped" in said
    found = Simulation.load(Path("out/simulation.json"))
    scenario = found.scenario
    assert [stream.requests for stream in found.streams] == [50, 3]
    assert scenario.traces[0].time_s == (0.0, 0.1)
    assert scenario.traces[1].bandwidth_bytes_per_s == (2e6,)
    assert (scenario.bandwidth_factor, scenario.jitter, scenario.seed) == (0.5, 0.1, 7)
    assert (scenario.slowdowns[0].factor, scenario.slowdowns[0].start_s) == (2.0, 0.3)
    assert [outage.place for outage in scenario.outages] == [("server",), ("edge", "server")]
    assert (scenario.deadline_s, scenario.drop_late) == (0.1, True)
    assert found.streams[0].dropped > 0


def test_too_many_requests(edgecut, plan_file: Path) -> None:
    code, said = edgecut("simulate", plan_file, "--arrivals", "constant:200", "--requests", 100)
    assert code == 0
    assert "the queue grows: the plan can serve 100 per s at most; edge is asked for 200% of its time" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--arrivals", "often"], "closed:4"),
        (["--arrivals", "closed:1", "--arrivals", "closed:1"], "once for all plans"),
        (["--arrivals", "constant:1e99"], "1e+09"),
        (["--outage", "sever=1-2"], "did you mean server?"),
        (["--outage", "server=1"], "FROM-TO"),
        (["--outage", "server=2-1"], "ends after it starts"),
        (["--slowdown", "edge"], "FACTOR"),
        (["--slowdown", "edge=0"], "a slowdown is"),
        (["--slowdown", "edge=x"], "is no number"),
        (["--bandwidth-mbps", "edge:cloud=5"], "unknown link"),
        (["--bandwidth-mbps", "edge=5"], "SOURCE:TARGET"),
        (["--bandwidth-mbps", "edge:server=0"], "0 for ever"),
        (["--bandwidth-mbps", "edge:server=-1"], "at least 0"),
        (["--bandwidth-trace", "edge:server=wifi.csv", "--bandwidth-mbps", "edge:server=5"], "given twice"),
        (["--bandwidth-trace", "edge:server=none.csv"], "no such file"),
        (["--bandwidth-trace", "edge:server=stops.csv"], "never ends"),
        (["--bandwidth-factor", "nan"], "bandwidth_factor"),
        (["--jitter", "-1"], "jitter"),
        (["--drop-late"], "deadline"),
        (["--deadline-ms", "0"], "deadline_s"),
        (["--profiles", "plan.json"], "plan.json"),
    ],
)
def test_bad_input(edgecut, plan_file: Path, arguments: list[str], says: str) -> None:
    code, said = edgecut("simulate", plan_file, *arguments)
    assert code == 2
    assert says in said
    assert not Path("simulation").exists()


def test_other_documents(edgecut, plan_file: Path) -> None:
    save_fleet(FLEET, Path("fleet.toml"))
    code, said = edgecut("simulate", "fleet.toml")
    assert code == 2
    assert "not JSON" in said
    assert edgecut("simulate", plan_file, "-o", "out", "--requests", 1)[0] == 0
    code, said = edgecut("simulate", "out/simulation.json")
    assert code == 2
    assert "found 'edgecut.simulation/1'" in said
