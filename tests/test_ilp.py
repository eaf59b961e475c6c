"""The solver is not taken at its word, and is well behaved as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from cases import CHAIN, FLEET, hard_table, make_table
from hypothesis import given
from hypothesis import strategies as st

import planner.dynamic
import planner.ilp
import planner.search
from planner.cost import CostModel, ceilings
from planner.dynamic import optimum
from planner.errors import SolverError
from planner.graph import Graph
from planner.ilp import Answer
from planner.plan import Limits, Outcome
from planner.solver import solve

# The solver's answers are not taken on trust ---------------------------------------------------------


def test_a_wrong_optimum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = planner.search.minimise

    def worst(graph: Graph, arcs: object, weight: np.ndarray, *args: object, **keys: object) -> Answer | None:
        answer = honest(graph, arcs, -weight, *args, **keys)  # type: ignore[arg-type]
        return answer and Answer(Outcome.OPTIMAL, answer.arcs, float(weight[answer.arcs].sum()))

    monkeypatch.setattr(planner.search, "minimise", worst)
    with pytest.raises(SolverError, match=r"the dynamic programme's 0\.0181"):
        solve(CHAIN, FLEET, make_table(), objective="latency")


def test_arcs_that_are_no_path_are_refused() -> None:
    graph = Graph.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1))
    with pytest.raises(SolverError, match="do not join"):
        graph.decode(np.array([0, 3, 5]))


def test_labels_are_dropped_only_where_another_beats_them() -> None:
    search = planner.dynamic._Search("latency", ceilings(Limits(max_energy_j=4.0)))
    costs = np.array(
        [
            [1.0, 3.0, 9.0],
            [2.0, 2.999, 9.0],
            [2.0, 3.0, 9.0],
            [1.0, 5.0, 9.0],
            [0.5, 4.1, 9.0],
            [3.0, 1.0, 9.0],
        ]
    )
    kept = [[1.0, 3.0, 9.0], [2.0, 2.999, 9.0], [3.0, 1.0, 9.0]]
    assert search.front([costs[:3], costs[3:]]).tolist() == kept


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), min_size=1, max_size=40))
def test_with_two_limits_no_label_that_another_beats_in_all_is_kept(points: list[tuple[int, ...]]) -> None:
    search = planner.dynamic._Search("latency", ceilings(Limits(max_energy_j=5.5, min_sqnr_db=0.001)))
    search.most[2] = 5.5
    kept = {tuple(cost) for cost in search.front([np.array(points, dtype=float)]).tolist()}
    within = {point for point in points if point[1] <= 5.5 and point[2] <= 5.5}
    assert kept == {
        point
        for point in within
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in within - {point})
    }


def test_labels_that_run_out_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CostModel.of(CHAIN, FLEET, make_table().rows, 1)
    assert not optimum(model, "latency", Limits(max_energy_j=1.0), most_labels=5).complete
    monkeypatch.setattr(optimum, "__defaults__", (5,))
    plan = solve(CHAIN, FLEET, make_table(), objective="latency", limits=Limits(max_energy_j=1.0))
    assert plan.proof.check.startswith("not checked: the dynamic programme gave up")


def test_a_larger_instance_with_a_budget_agrees_with_the_dynamic_programme() -> None:
    chain, fleet, table = hard_table(12)
    free = solve(chain, fleet, table, objective="latency")
    frugal = solve(chain, fleet, table, objective="energy")
    for share in (0.1, 0.5, 0.9):
        limit = free.cost.energy_j * share + frugal.cost.energy_j * (1 - share)
        plan = solve(chain, fleet, table, objective="latency", limits=Limits(max_energy_j=limit))
        assert plan.proof.outcome is Outcome.OPTIMAL
        assert plan.proof.check.startswith("dynamic programme agrees")
        assert free.cost.latency_s < plan.cost.latency_s < frugal.cost.latency_s


# Running CBC -----------------------------------------------------------------------------------------


def fake_cbc(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "cbc"
    path.write_text(
        f"#!{sys.executable}\nimport sys, time\nsolution = sys.argv[-1]\n{textwrap.dedent(script)}"
    )
    path.chmod(0o755)
    monkeypatch.setattr(planner.ilp.PULP_CBC_CMD, "pulp_cbc_path", str(path))


def test_a_run_stopped_by_its_time_limit_is_feasible_with_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CBC prints status "Stopped" with an objective, which PuLP reports as optimal."""
    graph = Graph.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1))
    arcs, weight = np.arange(graph.tail.size), graph.weight["latency"]
    budgets = [(graph.weight["energy"], 1.0)]
    real = planner.ilp.PULP_CBC_CMD.pulp_cbc_path
    fake_cbc(
        tmp_path,
        monkeypatch,
        f"""
        import pathlib, subprocess
        subprocess.run([{real!r}, *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
        text = pathlib.Path(solution).read_text()
        pathlib.Path(solution).write_text(text.replace("Optimal -", "Stopped on time -", 1))
        print("Result - Stopped on time limit\\n\\nLower bound:                    15000.125")
        """,
    )
    answer = planner.ilp.minimise(graph, arcs, weight, budgets)
    assert answer
    assert answer.outcome is Outcome.FEASIBLE
    assert answer.bound == pytest.approx(0.015000124)
    assert planner.ilp.minimise(graph, arcs, weight) is None  # a linear programme, on its way
    plan = solve(CHAIN, FLEET, make_table(), objective="latency", limits=Limits(max_energy_j=1.0))
    assert plan.proof.outcome is Outcome.FEASIBLE
    assert plan.proof.gap == pytest.approx(1 - 0.015000124 / 0.0181)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('licence?'); sys.exit(3)", "exit code 3: licence"),
        ("pass", "exit code 0: no output"),
        ("open(solution, 'w').write('Integer infeasible - objective value 0\\n')", "found no plan within"),
        ("open(solution, 'w').write('Stopped on time (no integer solution)\\n')", "found no plan within"),
    ],
)
def test_a_solver_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    fake_cbc(tmp_path, monkeypatch, script)
    with pytest.raises(SolverError, match=message):
        solve(CHAIN, FLEET, make_table(), objective="latency")


def test_a_missing_cbc_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(planner.ilp.PULP_CBC_CMD, "pulp_cbc_path", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SolverError) as caught:
        solve(CHAIN, FLEET, make_table(), objective="latency")
    assert "pip install 'pulp" in caught.value.remedy


def test_nothing_is_left_in_the_working_or_temporary_directory(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = workdir / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    solve(CHAIN, FLEET, make_table(), objective="latency")
    assert list(workdir.iterdir()) == [temporary]
    assert not list(temporary.iterdir())


def test_an_interrupt_ends_cbc_too(tmp_path: Path) -> None:
    """Only the Python process gets the signal, as from `kill -INT`."""
    script = tmp_path / "main.py"
    cbc, started = tmp_path / "cbc", tmp_path / "started"
    cbc.write_text(f"#!/bin/sh\necho $$ > {started}.new; mv {started}.new {started}; exec sleep 60\n")
    cbc.chmod(0o755)
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import planner, planner.ilp, cases
        planner.ilp.PULP_CBC_CMD.pulp_cbc_path = {str(cbc)!r}
        planner.solve(cases.CHAIN, cases.FLEET, cases.make_table(), objective="latency")
        """)
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)  # until `Popen` has returned there
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert not list(tmp_path.glob("edgecut-*"))
