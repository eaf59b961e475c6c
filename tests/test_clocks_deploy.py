"""A plan whose stages have clocks of their own, deployed."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_clocks import CPUFREQ, Kernel, policy, state
from test_deploy import TINY, fleet, plan
from test_profile import make_samples, request

import runtime.loading
from planner.errors import BundleError
from planner.plan import Plan, Variant
from planner.table import ProfileTable
from profiler.clocks import Switch, sysfs
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from profiler.placement import available_cpus
from profiler.session import profile
from runtime.adviser import StaticAdviser
from runtime.bundles import preparation
from runtime.pipeline import opened

CLOCKS = (600_000_000.0, 1_400_000_000.0, None)


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


def clocked(cut: CutModel) -> Plan:
    """Two stages on one device at two clocks, and one on another at the clock as found."""
    made = plan(cut.chain, [("a", 0, 1, "torch"), ("a", 1, 2, "torch"), ("b", 2, 3, "torch")], fleet())
    stages = tuple(
        replace(stage, variant=replace(stage.variant, frequency_hz=hz))
        for stage, hz in zip(made.stages, CLOCKS, strict=True)
    )
    return replace(made, stages=stages)


def serve(made: Plan, cut: CutModel, folder: Path) -> int:
    inputs = [(np.zeros((1, 3, 32, 32), np.float32),) for _ in range(3)]
    prepare = preparation(cut, folder / "bundles")
    with opened(StaticAdviser(made), prepare, folder, window=1, transport="in-process") as pipeline:
        return len(list(pipeline.map(inputs)))


def test_stages_run_at_their_clocks(cut: CutModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, held = tmp_path / "root", []
    policy(root, 0, tuple(range(256)), (600_000, 1_400_000))
    before, kernel = state(root), Kernel()

    def write(file: Path, text: str) -> None:
        kernel.write(file, text)
        limits = state(root)
        low, high = (int(limits[f"{CPUFREQ}/policy0/scaling_{end}_freq"]) for end in ("min", "max"))
        if low == high and held[-1:] != [low]:
            held.append(low)

    monkeypatch.setattr(sysfs, "write", write)
    monkeypatch.setattr(
        runtime.loading, "Switch", functools.partial(Switch, root=root, folder=tmp_path / "state")
    )
    assert serve(clocked(cut), cut, tmp_path) == 3
    assert held == [600_000, 1_400_000] * 3
    assert state(root) == before


def test_a_device_without_the_clock_says_so(
    cut: CutModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.loading, "Switch", functools.partial(Switch, root=tmp_path, folder=tmp_path))
    with pytest.raises(BundleError, match="torch fp32 600 MHz: this machine has no cpu clock to set"):
        serve(clocked(cut), cut, tmp_path)


def test_a_profile_has_a_row_per_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = available_cpus()
    policy(tmp_path, 0, cpus, (600_000, 1_000_000))
    before = state(tmp_path)
    seen: list[str] = []

    def write(file: Path, text: str) -> None:
        seen.append(text)
        Kernel().write(file, text)

    monkeypatch.setattr(sysfs, "write", write)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_samples(TINY, tmp_path / "samples")
    asked = request(tmp_path, variants=(Variant("torch"),), frequency="all", root=tmp_path)
    summary = profile(asked)
    rows = ProfileTable.load([tmp_path / "edge.csv"]).rows
    clocks = {row.variant.frequency_hz for row in rows}
    assert (summary.measured, clocks) == (2 * 6, {600e6, 1e9})
    assert {"600000", "1000000"} <= set(seen)
    assert state(tmp_path) == before
    nothing = request(tmp_path, output=tmp_path / "b.csv", frequency="max", root=tmp_path / "empty")
    summary = profile(nothing)
    assert len([note for note in summary.notes if "no cpu clock" in note]) == 1
    assert {row.variant.frequency_hz for row in ProfileTable.load([tmp_path / "b.csv"]).rows} == {None}
