"""A deployment reacts: a device that slows down or dies is left, one that returns is used again, nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from strategies import make_row
from test_deploy import TINY, fleet

from planner import Bundle, Fleet, Limits, Link, Plan, ProfileTable, Variant, solve
from planner.chain import Chain
from planner.limits import Placement
from planner.replan import Replanner
from planner.run import Run
from planner.sidecar import Environment, Sidecar
from planner.table import save_table
from planner.watch import Watch
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from profiler.runner import Array, Runner
from runtime import loading
from runtime.adviser import Adviser
from runtime.answering import Answer
from runtime.bundles import preparation
from runtime.cli import cli
from runtime.deployment import DeployRequest, record
from runtime.pipeline import Pipeline, opened
from runtime.profiled_adviser import ProfiledAdviser

WAIT_S = 120.0
# What every bundle takes on a device, in seconds; by its slowdown the device is known below.
TIMES_S = {"a": 0.02, "b": 0.04, "c": 0.06}
NAMES = {1.0: "a", 1.001: "b", 1.002: "c"}


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def over() -> Fleet:
    """Three devices, each linked with each."""
    slowdowns = {name: slowdown for slowdown, name in NAMES.items()}
    devices = tuple(
        replace(each, emulate=replace(each.emulate, slowdown=slowdowns[each.name]))
        for each in fleet("abc").devices
    )
    links = tuple(
        Link(one, other, 1e8, 0.005, emulate=True) for one in "abc" for other in "abc" if one != other
    )
    return Fleet("a", "a", devices, links)


def table_of(chain: Chain) -> ProfileTable:
    rows = [
        make_row(device, bundle.start, bundle.stop, time_s, variant=Variant("torch"))
        for device, time_s in TIMES_S.items()
        for bundle in chain.bundles()
    ]
    return ProfileTable(chain, tuple(rows))


@pytest.fixture(scope="module")
def first(cut: CutModel, over: Fleet) -> Plan:
    """Layer 0 on the source, the rest elsewhere: b is the faster."""
    limits = Limits(pins=(Placement("a", Bundle(0, 1), whole=True),), max_bundles=1)
    made = solve(cut.chain, over, table_of(cut.chain), limits=limits)
    assert [stage.device for stage in made.stages] == ["a", "b"]
    return made


class Timed:
    """A stage that takes as long as its device's table says, times ``factor[device]``."""

    factor: ClassVar[dict[str, float]] = {}

    def __init__(self, inner: Runner, slowdown: float) -> None:
        self._inner, self._device = inner, NAMES[slowdown]

    def __call__(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        until_s = time.monotonic() + TIMES_S[self._device] * self.factor.get(self._device, 1.0)
        outputs = self._inner(arrays)
        time.sleep(max(until_s - time.monotonic(), 0.0))
        return outputs

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timed, "factor", {})
    monkeypatch.setattr(loading, "slowed", Timed)


def images() -> list[tuple[Array, ...]]:
    draw = np.random.default_rng(0)
    return [(draw.normal(size=(1, 3, 32, 32)).astype(np.float32),) for _ in range(4)]


def streamed(pipeline: Pipeline, cut: CutModel, switches: int) -> Iterator[Answer]:
    """Answers, each checked, until there were so many switches, and ten more."""
    given, whole = images(), cut.module(Bundle(0, 3))
    with torch.inference_mode():
        expected = [whole(torch.from_numpy(image))[0].numpy() for (image,) in given]
    deadline_s, rest = time.monotonic() + WAIT_S, 10

    def inputs() -> Iterator[tuple[Array, ...]]:
        nonlocal rest
        number = 0
        while rest:
            assert time.monotonic() < deadline_s, pipeline.keeper.switches
            rest -= len(pipeline.keeper.switches) >= switches
            yield given[number % 4]
            number += 1

    for number, answer in enumerate(pipeline.map(inputs())):
        assert answer.request == number
        np.testing.assert_allclose(answer.outputs[0], expected[number % 4], atol=1e-5)
        yield answer
    assert not rest


def adviser_of(first: Plan, watch: Watch | None = None) -> Adviser:
    return ProfiledAdviser(Replanner(first, table_of(first.chain)), watch=watch, dwell_s=1.0)


def test_a_device_that_slows_down_is_left_without_losing_an_answer(
    cut: CutModel, first: Plan, tmp_path: Path, timed: None
) -> None:
    adviser, prepare = adviser_of(first), preparation(cut, tmp_path / "bundles")
    log: list[str] = []
    with opened(adviser, prepare, tmp_path, window=2, transport="in-process", log=log.append) as pipeline:
        answers = []
        for answer in streamed(pipeline, cut, switches=1):
            answers.append(answer)
            if answer.request == 10:
                Timed.factor["b"] = 6.0
        [switch] = pipeline.keeper.switches
        assert pipeline.duplicates == 0
    assert [stage.device for stage in switch.plan.stages] == ["a", "c"]
    assert "b takes" in switch.reason
    assert "as long as profiled" in switch.reason
    assert switch.reason in "".join(log)
    used = ["".join(stage.device for stage in answer.plan.stages) for answer in answers]
    assert used == sorted(used)  # first all of the one, then all of the other
    assert set(used) == {"ab", "ac"}


def test_a_killed_agent_is_done_without_and_used_again_when_it_is_back(
    cut: CutModel, first: Plan, tmp_path: Path
) -> None:
    """With real processes; their times are their own, so drift is left out of this."""
    adviser, prepare = adviser_of(first, Watch(threshold=1e6)), preparation(cut, tmp_path / "bundles")
    with opened(adviser, prepare, tmp_path, window=2) as pipeline:
        for answer in streamed(pipeline, cut, switches=2):
            if answer.request == 5:
                process = pipeline.keeper._agents["b"].process
                assert process
                os.kill(process.pid, signal.SIGKILL)
        gone, back = pipeline.keeper.switches
    assert [stage.device for stage in gone.plan.stages] == ["a", "c"]
    assert "b is gone" in gone.reason
    assert [stage.device for stage in back.plan.stages] == ["a", "b"]
    assert back.reason.startswith("b is back: forecast")


def test_a_run_says_which_plan_answered_and_why_it_changed(
    cut: CutModel, first: Plan, tmp_path: Path, timed: None
) -> None:
    Timed.factor["b"] = 6.0
    request = DeployRequest(
        first, tmp_path / "run", requests=60, concurrency=2, transport="in-process", adviser=adviser_of(first)
    )
    run = record(request, [])
    [switch] = run.switches
    assert (switch.plan, switch.stages) == (1, "a [0, 1) → c [1, 3)")
    assert replace(Run.load(tmp_path / "run"), info=run.info) == run
    before, after = run.by_plan()
    assert [stage.device for stage in after.info.plan.stages] == ["a", "c"]
    totals = [row.request for row in run.rows if row.kind == "total"]
    assert totals == list(range(60))
    for part in (before, after):
        assert len(part.comparisons()) == len(first.stages) + len(first.hops) + 1
        assert part.deviation < 1e-5
    stage = after.comparisons()[2]
    assert stage.label.startswith("c")
    assert stage.error == pytest.approx(0.0, abs=0.5)


def written(folder: Path, first: Plan) -> list[str]:
    """The plan, solved from tables in files."""
    table = table_of(first.chain)
    files = []
    for name in TIMES_S:
        file = folder / f"{name}.csv"
        emulation = first.fleet.device(name).emulate
        assert emulation
        here = Environment("host", "machine", "3.11", {}, 1, (0,), emulation.slowdown)
        save_table(
            file,
            Sidecar(name, first.chain, here, "2026-11-21", "none"),
            [row for row in table.rows if row.device == name],
        )
        files.append(file)
    made = solve(first.chain, first.fleet, ProfileTable.load(files), limits=first.limits)
    made.save(folder / "plan.json")
    return [str(file) for file in files]


@pytest.mark.parametrize(
    ("options", "says", "adviser"),
    [
        ([], "", "ProfiledAdviser"),
        (["--static"], "", "StaticAdviser"),
        (["--profiles", "a.csv", "b.csv", "c.csv", "--drift", "50"], "", "ProfiledAdviser"),
        (["changed"], "keeps to this one plan", "StaticAdviser"),
        (["--static", "--profiles", "a.csv"], "leave out --profiles", ""),
        (["--profiles", "a.csv"], "not measured on b", ""),
        (["--profiles", "none.csv"], "no such file", ""),
        (["--drift", "0"], "--drift", ""),
    ],
)
def test_what_a_deployment_may_switch_to_is_asked_for(
    first: Plan, workdir: Path, options: list[str], says: str, adviser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(workdir, first)
    if options == ["changed"]:
        Path("b.csv").write_text(Path("b.csv").read_text() + "\n")
        options = []
    asked: list[DeployRequest] = []

    def noted(request: DeployRequest, *_: object) -> Run:
        asked.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.deployment.record", noted)
    found = CliRunner().invoke(cli, ["deploy", "plan.json", *options])
    said = " ".join((found.output + str(found.exception)).split())
    assert says in said
    assert [type(each.adviser).__name__ for each in asked] == ([adviser] if adviser else [])
