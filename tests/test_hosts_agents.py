"""Agents on hosts of their own: profiled and probed over a network that is slow, cut and comes back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from lab import Lab, lab, until

from planner import ProfileTable
from planner.link_report import LinkReport

TINY = ("models:Tiny", "--input-shape", "3x32x32")
QUICK = "--max-runs", "4", "--visit-ms", "0", "--codecs", "none"
PROFILE = "profile", *TINY, "--fleet", "fleet.toml", "--insecure", *QUICK
NAMES = "a", "b"


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
    code, said = fleet.edgecut("links", "--fleet", "fleet.toml", "--insecure", *sizes)
    for name in "ab":
        fleet.network.throttle(name, 1e9)
    assert code == 0, said
    found = LinkReport.load(fleet.folder / "measured.links.json").links
    there, back = (one.fit.bandwidth_bytes_per_s for one in found)
    # A bucket is never faster than asked but for its burst; how much slower, is the machine's.
    assert there < 1.3e6
    assert back < 6.5e6
    assert back > 2 * there


@pytest.mark.slow
def test_a_host_that_is_cut_off_is_named_and_comes_back(fleet: Lab) -> None:
    """The other one is late and loses frames, and measures on; the same command resumes."""
    fleet.network.delay("a", 0.05, jitter_s=0.05, loss=0.005)
    code, said = fleet.edgecut("samples", *TINY, "--count", "3")
    assert code == 0, said
    command = fleet.start("cut", *PROFILE)
    until(lambda: all("profile for" in fleet.said(name) for name in NAMES) or command.poll() is not None)
    fleet.network.cut("b")
    code, said = fleet.finish("cut", command)
    assert code == 1, said
    assert "the agent of b is gone" in said
    assert rows(fleet, "a") == 6
    fleet.network.mend("b")
    code, said = fleet.edgecut(*PROFILE)
    fleet.network.delay("a", 0)
    assert code == 0, said
    assert [rows(fleet, name) for name in NAMES] == [6, 6]
