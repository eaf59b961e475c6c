"""Agents on hosts of their own: profiled and probed over a network that is slow, cut and comes back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from lab import DESK, Lab, lab, until

from planner import ProfileTable
from planner.link_report import LinkReport

TINY = ("models:Tiny", "--input-shape", "3x32x32")
PROFILE = (
    "profile",
    *TINY,
    "--fleet",
    "fleet.toml",
    "--max-runs",
    "40",
    "--visit-ms",
    "50",
    "--codecs",
    "none",
)
NAMES = "a", "b", "c"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab"), *NAMES) as made:
        made.write_fleet(list(itertools.combinations(NAMES, 2)))
        yield made


def rows(fleet: Lab, name: str) -> int:
    return len(ProfileTable.load([fleet.folder / "profiles" / f"models-Tiny-{name}.csv"]).rows)


def test_links_of_hosts_are_as_throttled(fleet: Lab) -> None:
    fleet.network.throttle("a", 8e6)
    fleet.network.throttle("b", 40e6)
    sizes = ("--links", "a:b,b:a", "--sizes", "65536,262144", "--max-runs", "3", "-o", "measured.toml")
    code, said = fleet.edgecut("links", "--fleet", "fleet.toml", *sizes)
    for name in "ab":
        fleet.network.throttle(name, 1e9)
    assert code == 0, said
    found = LinkReport.load(fleet.folder / "measured.links.json").links
    there, back = (one.fit.bandwidth_bytes_per_s for one in found)
    # A bucket is never faster than asked but for its burst; how much slower, is the machine's.
    assert there < 1.3e6
    assert back < 6.5e6
    assert back > 2 * there


def test_a_host_that_is_cut_off_or_killed_is_named_and_comes_back(fleet: Lab) -> None:
    """All of it over a delayed link that loses frames. The cut comes amid the work; the other device goes on."""
    fleet.network.delay("a", 0.05, jitter_s=0.05, loss=0.005)
    code, said = fleet.edgecut("samples", *TINY, "--count", "3")
    assert code == 0, said
    command = fleet.start("cut", *PROFILE)
    until(lambda: all("profile for" in fleet.said(name) for name in NAMES) or command.poll() is not None)
    fleet.network.cut("b")
    fleet.kill_agent("c")
    code, said = fleet.finish("cut", command)
    assert code == 1, said
    assert "the agent of b is gone" in said
    assert "the agent of c is gone" in said
    assert rows(fleet, "a") == 6
    fleet.network.mend("b")
    fleet.start_agent("c")
    code, said = fleet.edgecut(*PROFILE)
    fleet.network.delay("a", 0)
    assert code == 0, said
    assert [rows(fleet, name) for name in NAMES] == [6, 6, 6]


@pytest.mark.slow
def test_a_cut_between_two_agents_costs_their_links_only(fleet: Lab) -> None:
    fleet.network.cut("b", "c")
    asked = ("--links", "b:c,a:b", "--sizes", "65536", "--max-runs", "3", "-o", "cut.toml")
    code, said = fleet.edgecut("links", "--fleet", "fleet.toml", *asked)
    fleet.network.mend("b", "c")
    assert (code, "b → c not measured" in said) == (1, True)
    report = LinkReport.load(fleet.folder / "cut.links.json")
    assert [(one.source, one.target) for one in report.failed] == [("b", "c")]
    assert [one.nominal.pair for one in report.links] == [("a", "b")]


@pytest.mark.slow
def test_a_workstation_cut_off_says_so_and_the_agents_go_on(fleet: Lab) -> None:
    before = fleet.said("a").count("profile for")
    command = fleet.start("alone", *PROFILE, "--max-runs", "2000", "--visit-ms", "1000", "-o", "alone")
    until(lambda: command.poll() is not None or fleet.said("a").count("profile for") > before)
    fleet.network.cut(DESK)
    code, said = fleet.finish("alone", command)
    fleet.network.mend(DESK)
    assert code == 1, said
    for name in NAMES:
        assert f"the agent of {name} is gone" in said
    until(lambda: all(fleet.given_up(name) for name in NAMES))
    code, said = fleet.edgecut(
        "links", "--fleet", "fleet.toml", "--links", "a:b", "--sizes", "4096", "--max-runs", "3"
    )
    assert code == 0, said
