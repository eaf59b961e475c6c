"""`edgecut links` as a user meets it, with the agents that it starts."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from conftest import Edgecut

from planner.fleet_file import load_fleet
from planner.link_report import LinkReport

FLEET = """
schema = "edgecut.fleet/1"
source = "edge"
[device.edge]
battery = true
emulate = { threads = 1 }
[device.server]
emulate = { threads = 1 }
[device.cloud]
[[link]]
between = ["edge", "server"]
preset = "wifi"
latency_s = 0.002
[[link]]
source = "server"
target = "cloud"
bandwidth_bytes_per_s = 1e6
send_power_w = 0.5
"""


@pytest.fixture
def links(workdir: Path, edgecut: Edgecut) -> Edgecut:
    """Runs `edgecut links --fleet` beside fleet.toml."""
    (workdir / "fleet.toml").write_text(FLEET)
    return functools.partial(edgecut, "links", "--fleet")


def test_links_are_measured_and_those_that_cannot_be_are_named(links, workdir: Path) -> None:
    code, said = links("fleet.toml", "--sizes", "4096,16384", "--max-runs", "3", "-o", "new/lab.toml")
    assert code == 1
    assert "server → cloud not measured: device cloud has no address" in said
    report = LinkReport.load(workdir / "new" / "lab.links.json")
    assert [one.nominal.pair for one in report.links] == [("edge", "server"), ("server", "edge")]
    assert [one.target for one in report.failed] == ["cloud"]
    for one in report.links:
        assert [(size.nbytes, size.n) for size in one.fit.sizes] == [(64, 12), (4096, 3), (16_384, 3)]
    # All of them are emulated or not measured, so the fleet says what it said.
    assert load_fleet(workdir / "new" / "lab.toml") == load_fleet(workdir / "fleet.toml")
    assert len((workdir / "new" / "lab.links.csv").read_text().splitlines()) == 1 + 2 * 3


def test_measured_numbers_replace_nominal_ones_and_nothing_else(links, workdir: Path) -> None:
    code, said = links(
        "fleet.toml",
        "--links",
        "edge:server",
        "--sizes",
        "4096,16384",
        "--max-runs",
        "3",
        "--replace-emulated",
    )
    assert code == 0, said
    assert "edge → server" in said
    before, after = load_fleet(workdir / "fleet.toml"), load_fleet(workdir / "fleet-measured.toml")
    (found,) = LinkReport.load(workdir / "fleet-measured.links.json").links
    assert after.links == (found.link, *before.links[1:])
    assert found.link.send_power_w == before.links[0].send_power_w > 0
    assert (after.devices, after.source) == (before.devices, before.source)


FAULTS = {
    "unknown link": (("--links", "edge:sever"), 2, "did you mean edge:server"),
    "a link the other way": (("--links", "cloud:server"), 2, "unknown link 'cloud:server'"),
    "no pair": (("--links", "edge"), 2, "write SOURCE:TARGET"),
    "text for a size": (("--sizes", "4k"), 2, "whole numbers"),
    "an empty frame": (("--sizes", "0"), 2, "sizes must be from 1"),
    "too large a frame": (("--sizes", "999999999999"), 2, "sizes must be from 1"),
    "only the smallest": (("--sizes", "64"), 2, "2 to 32 numbers"),
    "two sources of sizes": (("--sizes", "64", "--plan", "plan.json"), 2, "exclude each other"),
    "no such plan": (("--plan", "plan.json"), 2, "no such file"),
    "no such table": (("--profiles", "table.csv"), 2, "no such file"),
    "no runs": (("--max-runs", "0"), 2, "max-runs"),
}


@pytest.mark.parametrize(("arguments", "code", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_bad_input_ends_before_anything_starts(
    links, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, printed = links("fleet.toml", *arguments)
    assert (found, said in printed) == (code, True), printed


def test_a_fleet_without_links(links, workdir: Path) -> None:
    (workdir / "bare.toml").write_text('schema = "edgecut.fleet/1"\nsource = "a"\n[device.a]\n')
    code, said = links("bare.toml")
    assert (code, "the fleet has no link" in said) == (2, True)
