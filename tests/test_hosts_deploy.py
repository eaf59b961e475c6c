"""A stream over three hosts: every request answered once and right, in order, whatever happens to the network."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from lab import DESK, Lab, Stream, Streamer, lab, until

from planner.run import Run

NAMES = "a", "b", "c"
PLANS = {
    "three": [("a", 0, 1, "torch"), ("b", 1, 2, "onnxruntime"), ("c", 2, 3, "onnxruntime")],
    "two": [("a", 0, 1, "torch"), ("c", 1, 3, "onnxruntime")],
}
WINDOW = 4
UPLOAD_4G, DOWNLOAD_4G = 5.85e6, 13.76e6
FEW, MANY = 8, 40


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("lab"), *NAMES) as made:
        made.write_fleet(list(itertools.combinations(NAMES, 2)))
        made.write_plans(**PLANS)
        yield made


@pytest.fixture(scope="module")
def streamer(fleet: Lab) -> Streamer:
    return Streamer(fleet, WINDOW, fleet.folder / "three.json")


@pytest.mark.slow
def test_the_next_best_plan_and_back(fleet: Lab, streamer: Streamer) -> None:
    """Without b, then without the link between b and c."""
    stream = streamer.begin(fleet.folder / "three.json", fleet.folder / "two.json")
    stream.until(lambda: stream.plan == 0)
    fleet.kill_agent("b")
    stream.until(lambda: stream.plan == 1)
    fleet.start_agent("b")
    stream.until(lambda: stream.plan == 0)
    fleet.network.cut("b", "c")
    stream.until(lambda: stream.plan == 1)
    fleet.network.mend("b", "c")
    stream.until(lambda: stream.plan == 0)
    stream.end()


@pytest.fixture(scope="module")
def steady(fleet: Lab, streamer: Streamer) -> Iterator[Stream]:
    """A stream that has no other plan to go to."""
    stream = streamer.begin(fleet.folder / "three.json")
    stream.advance(MANY)
    yield stream
    stream.end()


def test_an_agent_killed_and_started_again(fleet: Lab, steady: Stream) -> None:
    for _ in range(2):
        fleet.kill_agent("b")
        fleet.start_agent("b")
        steady.advance(MANY)


@pytest.mark.slow
def test_two_agents_parted_for_long(fleet: Lab, steady: Stream) -> None:
    """The workstation sees both, and they do not see each other."""
    known = len(steady.events)
    fleet.network.cut("b", "c")
    until(lambda: len(steady.events) > known)  # it tried to install the plan again, in vain
    fleet.network.mend("b", "c")
    steady.advance(MANY)


def test_a_link_that_flaps(fleet: Lab, steady: Stream) -> None:
    for pair in (("b", "c"), ("a", None)):
        fleet.network.flap(*pair, times=4, down_s=0.4, up_s=0.3)
        steady.advance(FEW)


def test_a_workstation_cut_off_for_a_while(fleet: Lab, steady: Stream) -> None:
    fleet.network.cut(DESK)
    until(lambda: all(fleet.given_up(name) for name in NAMES))
    fleet.network.mend(DESK)
    steady.advance(MANY)


def test_frames_that_are_late_lost_or_overtake_each_other(fleet: Lab, steady: Stream) -> None:
    fleet.network.delay("b", 0.3)
    fleet.network.delay("a", 0.0, jitter_s=0.05, loss=0.01)
    steady.advance(FEW)
    for name in "ab":
        fleet.network.delay(name, 0)
    steady.advance(MANY)


def test_links_as_slow_as_4g(fleet: Lab, steady: Stream) -> None:
    for name in NAMES:
        fleet.network.throttle(name, UPLOAD_4G, DOWNLOAD_4G)
    steady.advance(MANY)
    for name in NAMES:
        fleet.network.throttle(name, 1e9, 1e9)


def test_the_command(fleet: Lab) -> None:
    """An agent is killed amid the run; it ends as if nothing had been."""
    count = 300
    command = fleet.start(
        "deploy", "deploy", "three.json", "--insecure", "--requests", str(count), "-o", "run"
    )
    rows = fleet.folder / "run" / "run.csv"
    until(lambda: command.poll() is not None or (rows.exists() and rows.read_text().count("total") > FEW))
    fleet.kill_agent("c")
    fleet.start_agent("c")
    code, said = fleet.finish("deploy", command)
    assert code == 0, said
    assert "outputs equal the whole model's" in said
    run = Run.load(fleet.folder / "run")
    assert [row.request for row in run.rows if row.kind == "total"] == list(range(count))
