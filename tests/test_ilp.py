"""The solver is not taken at its word, and is well behaved as a process."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import labels_oracle
import numpy as np
import pytest
from cases import CHAIN, FLEET, hard_table, make_table
from hypothesis import given
from hypothesis import strategies as st
from labels_oracle import optimum

import planner.attempts
import planner.ilp
import planner.search
import planner.solvers
from planner.cost import CostModel, ceilings
from planner.errors import InfeasibleError, SolverError, UnknownNameError
from planner.graph import Graph
from planner.labels import Labelled
from planner.limits import Limits
from planner.plan import Outcome
from planner.problem import Problem
from planner.solver import solve
from planner.solvers import NoAnswer, installed

# The solver's answers are not taken on trust ---------------------------------------------------------


def test_a_wrong_optimum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here label setting is wrong; that they differ is what is seen."""
    honest = planner.attempts.lightest

    def worst(problem: Problem, weight: np.ndarray, *args: object, **keys: Any) -> Labelled:
        found = honest(problem, weight.max() - weight, math.inf, **keys)
        return dataclasses.replace(found, used=np.arange(problem.graph.arcs))

    chain, fleet, table = hard_table(12)
    fast, frugal = (solve(chain, fleet, table, objective=name) for name in ("latency", "energy"))
    middle = (fast.cost.energy_j + frugal.cost.energy_j) / 2
    monkeypatch.setattr(planner.attempts, "lightest", worst)
    monkeypatch.setattr(planner.attempts.Dual, "within", lambda dual, most: np.isfinite(dual.weight))
    with pytest.raises(SolverError, match=r"the solver's optimum is \S+, label setting's"):
        solve(chain, fleet, table, limits=Limits(max_energy_j=middle))


def test_arcs_that_are_no_path_are_refused() -> None:
    graph = Graph.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1))
    with pytest.raises(SolverError, match="do not join"):
        graph.decode(np.array([0, 3, 5]))


def test_labels_are_dropped_only_where_another_beats_them() -> None:
    search = labels_oracle._Search("latency", ceilings(Limits(max_energy_j=4.0)))
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
    search = labels_oracle._Search("latency", ceilings(Limits(max_energy_j=5.5, min_sqnr_db=0.001)))
    search.most[2] = 5.5
    kept = {tuple(cost) for cost in search.front([np.array(points, dtype=float)]).tolist()}
    within = {point for point in points if point[1] <= 5.5 and point[2] <= 5.5}
    assert kept == {
        point
        for point in within
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in within - {point})
    }


def test_labels_that_run_out_are_reported() -> None:
    model = CostModel.of(CHAIN, FLEET, make_table().rows, 1)
    assert not optimum(model, "latency", Limits(max_energy_j=1.0), most_labels=5).complete


def test_a_larger_instance_with_a_budget_agrees_with_the_dynamic_programme() -> None:
    chain, fleet, table = hard_table(12)
    free = solve(chain, fleet, table, objective="latency")
    frugal = solve(chain, fleet, table, objective="energy")
    for share in (0.1, 0.5, 0.9):
        limit = free.cost.energy_j * share + frugal.cost.energy_j * (1 - share)
        plan = solve(chain, fleet, table, objective="latency", limits=Limits(max_energy_j=limit))
        assert plan.proof.outcome is Outcome.OPTIMAL
        oracle = optimum(CostModel.of(chain, fleet, table.rows, 1), "latency", plan.limits).best
        assert oracle
        assert plan.cost.latency_s == pytest.approx(oracle.latency_s, rel=1e-8)
        assert free.cost.latency_s < plan.cost.latency_s < frugal.cost.latency_s


# Running CBC -----------------------------------------------------------------------------------------


def fake_cbc(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "cbc"
    path.write_text(
        f"#!{sys.executable}\nimport sys, time\nsolution = sys.argv[-1]\n{textwrap.dedent(script)}"
    )
    path.chmod(0o755)
    monkeypatch.setattr(planner.solvers.PULP_CBC_CMD, "pulp_cbc_path", str(path))


BUDGET = Limits(max_energy_j=0.05)


def budgeted() -> Problem:
    """A small problem with a budget, which is an integer programme."""
    return Problem.of(CostModel.of(CHAIN, FLEET, make_table().rows, 1), BUDGET)


def pass_on(real: str, then: str) -> str:
    """A script that runs the real solver and then changes what it said."""
    return f"""
        import pathlib, subprocess
        subprocess.run([{real!r}, *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
        text = pathlib.Path(solution).read_text()
        {then}
        """


def test_a_run_stopped_by_its_time_limit_is_feasible_with_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CBC prints status "Stopped" with an objective, which PuLP reports as optimal."""
    problem, stopped = (
        budgeted(),
        """pathlib.Path(solution).write_text(text.replace("Optimal -", "Stopped on time -", 1))
        print("Result - Stopped on time limit\\n\\nLower bound:                    15000.125")""",
    )
    real = planner.solvers.PULP_CBC_CMD.pulp_cbc_path
    fake_cbc(tmp_path, monkeypatch, pass_on(real, stopped))
    weight = problem.graph.weight["latency"]
    least = float(problem.graph.ahead(weight)[problem.graph.last])
    answer = planner.ilp.minimise(problem, weight)
    assert isinstance(answer, planner.ilp.Answer)
    assert answer.outcome is Outcome.FEASIBLE
    # The least a path can weigh is a million of CBC's.
    assert answer.bound == pytest.approx((15000.125 - 1e-3) * least / 1e6)
    free = Problem.of(problem.graph.model, Limits())
    assert planner.ilp.minimise(free, weight) is NoAnswer.OUT_OF_TIME  # a linear programme, on its way


def test_what_time_did_not_suffice_to_prove_is_not_called_optimal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, fleet, table = hard_table(8)
    fast, frugal = (solve(chain, fleet, table, objective=name) for name in ("latency", "energy"))
    limits = Limits(max_energy_j=(fast.cost.energy_j + frugal.cost.energy_j) / 2)
    best = solve(chain, fleet, table, limits=limits)
    real = planner.solvers.PULP_CBC_CMD.pulp_cbc_path
    stopped = """pathlib.Path(solution).write_text(text.replace("Optimal -", "Stopped on time -", 1))
        print("Lower bound:                    1.000")"""
    fake_cbc(tmp_path, monkeypatch, pass_on(real, stopped))
    plan = solve(chain, fleet, table, limits=limits)
    assert plan.cost.energy_j <= limits.max_energy_j * (1 + 1e-8)
    assert plan.proof.bound <= best.proof.objective_value <= plan.proof.objective_value * (1 + 1e-9)
    if plan.proof.outcome is Outcome.OPTIMAL:  # then something other than CBC proved it
        assert plan.proof.objective_value == pytest.approx(best.proof.objective_value, rel=1e-9)
    else:
        assert plan.proof.gap > 0


FAILURES = [
    ("print('licence?'); sys.exit(3)", "exit code 3: licence"),
    ("pass", "exit code 0: no output"),
    ("open(solution, 'w').write('Optimal\\n')", "cannot be read|do not join"),
    (
        "open(solution, 'w').write('Optimal - objective value 1\\nx0 is fine\\n')",
        "cannot be read|do not join",
    ),
    ("open(solution, 'wb').write(bytes(range(256)) * 9)", "cannot be read|do not join|found no plan"),
    (
        "open(solution, 'w').write('Optimal - objective value 1\\n 0 X0000000 1 0\\n')",
        "do not join|the solver's optimum is",
    ),
]


@pytest.mark.parametrize(("script", "message"), FAILURES, ids=[script[:60] for script, _ in FAILURES])
@pytest.mark.parametrize("limits", [Limits(), BUDGET], ids=["free", "budget"])
def test_a_solver_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str, limits: Limits
) -> None:
    fake_cbc(tmp_path, monkeypatch, script)
    with pytest.raises(SolverError, match=message):
        solve(CHAIN, FLEET, make_table(), objective="latency", limits=limits)


INFEASIBLE, STOPPED = "Integer infeasible - objective value 0", "Stopped on time (no integer solution)"


@pytest.mark.parametrize(
    ("said", "check"), [(INFEASIBLE, "says that no plan keeps the limits"), (STOPPED, "found none in time")]
)
@pytest.mark.parametrize("limits", [Limits(), BUDGET], ids=["free", "budget"])
def test_a_plan_that_cbc_does_not_confirm_is_not_called_optimal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, check: str, limits: Limits
) -> None:
    """CBC says so of what is feasible, too, when its time runs out."""
    best = solve(CHAIN, FLEET, make_table(), limits=limits)
    fake_cbc(tmp_path, monkeypatch, f"open(solution, 'w').write({said!r})")
    plan = solve(CHAIN, FLEET, make_table(), limits=limits)
    assert plan.proof.outcome is Outcome.FEASIBLE
    assert plan.proof.bound <= best.proof.objective_value <= plan.proof.objective_value
    assert plan.proof.check == f"label setting found it; the solver {check}"


@pytest.mark.parametrize("solver", [each for each in installed() if each != "pulp_cbc_cmd"])
def test_infeasible_is_not_out_of_time(solver: str) -> None:
    model = CostModel.of(CHAIN, FLEET, make_table().rows, 1)
    problem = Problem.of(model, Limits(max_latency_s=0.02, max_upload_bytes=10))
    weight = problem.graph.weight["latency"]
    assert planner.ilp.minimise(problem, weight, solver=solver) is NoAnswer.INFEASIBLE
    with pytest.raises(InfeasibleError):
        planner.search.search(problem, {"latency": 1.0}, reduce=False, solver=solver)
    with pytest.raises(InfeasibleError):
        planner.search.search(problem, {"latency": 1.0}, solver=solver)


def test_infeasible_when_time_has_run_out_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cbc(tmp_path, monkeypatch, f"time.sleep(0.3); open(solution, 'w').write({INFEASIBLE!r})")
    problem = budgeted()
    weight = problem.graph.weight["latency"]
    assert planner.ilp.minimise(problem, weight, time_limit_s=0.2) is NoAnswer.OUT_OF_TIME
    assert planner.ilp.minimise(problem, weight, time_limit_s=60) is NoAnswer.INFEASIBLE
    with pytest.raises(SolverError, match="nor that there is none"):
        planner.search.search(problem, {"latency": 1.0}, reduce=False, time_limit_s=0.2)


def test_weights_below_0_are_refused() -> None:
    problem = budgeted()
    weight = problem.graph.weight["latency"].copy()
    weight[3] = -1e-9
    with pytest.raises(ValueError, match="weights must be at least 0"):
        planner.ilp.minimise(problem, weight)


# Other solvers ---------------------------------------------------------------------------------------


def on_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """An executable of this name, found before any other; its arguments are ``sys.argv``."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys, time\n{textwrap.dedent(script)}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_another_solver_finds_the_same_optimum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CBC as PuLP runs it, a solver like any other."""
    (tmp_path / "cbc").symlink_to(planner.solvers.PULP_CBC_CMD.pulp_cbc_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "coin_cmd" in planner.solvers.installed()
    for limits in (Limits(), BUDGET):
        mine, other = (
            solve(CHAIN, FLEET, make_table(), limits=limits, solver=name) for name in ("cbc", "coin_cmd")
        )
        assert (mine.stages, mine.hops) == (other.stages, other.hops)
        assert other.proof.outcome is Outcome.OPTIMAL
        assert other.proof.solver.startswith("coin_cmd")


# PuLP leaves /dev/null open when a solver crashes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("name", "program", "script"),
    [
        ("coin_cmd", "cbc", "sys.exit(3)"),
        ("coin_cmd", "cbc", "open(sys.argv[-1], 'w').write('Optimal')"),
        ("coin_cmd", "cbc", "open(sys.argv[-1], 'w').write('Optimal - objective value 1\\nx0 is fine\\n')"),
        ("glpk_cmd", "glpsol", "sys.exit(1)"),
        ("glpk_cmd", "glpsol", "open(sys.argv[sys.argv.index('-o') + 1], 'w').write('no table\\n' * 9)"),
        ("highs_cmd", "highs", "sys.exit(1)"),
        ("scip_cmd", "scip", "sys.exit(1)"),
    ],
)
def test_another_solver_that_fails_is_an_error(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: str, script: str
) -> None:
    on_the_path(workdir, monkeypatch, program, script)
    with pytest.raises(SolverError, match=rf"{name}|do not join"):
        solve(CHAIN, FLEET, make_table(), objective="latency", limits=BUDGET, solver=name)


@pytest.mark.parametrize(("solver", "program"), [("cbc", "cbc"), ("coin_cmd", "cbc"), ("scip_cmd", "scip")])
def test_a_solver_that_does_not_end_is_ended(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, solver: str, program: str
) -> None:
    """With what it started, which holds the same pipe open."""
    monkeypatch.setattr(planner.solvers, "_GRACE_S", 0.5)
    started = workdir / "started"
    monkeypatch.setattr(planner.solvers.PULP_CBC_CMD, "pulp_cbc_path", str(workdir / program))
    on_the_path(
        workdir,
        monkeypatch,
        program,
        f"""
        import os, pathlib, subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(started)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(600)
        """,
    )
    plan = solve(CHAIN, FLEET, make_table(), limits=BUDGET, solver=solver, time_limit_s=1)
    assert plan.proof.outcome is Outcome.FEASIBLE
    assert plan.proof.check == "label setting found it; the solver found none in time"
    for pid in map(int, started.read_text().split()):
        assert ended(pid)


def ended(pid: int) -> bool:
    """Whether a process is gone, or killed and not yet waited for."""
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_solver_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SolverError, match="the solver glpk_cmd is not installed here") as caught:
        solve(CHAIN, FLEET, make_table(), solver="glpk_cmd")
    assert "cbc" in caught.value.remedy
    with pytest.raises(UnknownNameError, match="unknown solver 'glpk'"):
        solve(CHAIN, FLEET, make_table(), solver="glpk")


@pytest.mark.parametrize("name", [name for name in installed() if name != "pulp_cbc_cmd"])
def test_every_solver_here_agrees(name: str) -> None:
    chain, fleet, table = hard_table(5)
    limits = Limits(max_energy_j=solve(chain, fleet, table, objective="energy").cost.energy_j * 1.5)
    plans = [solve(chain, fleet, table, limits=limits, solver=each) for each in ("cbc", name)]
    assert plans[0].cost.latency_s == pytest.approx(plans[1].cost.latency_s, rel=1e-9)


def test_a_missing_cbc_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(planner.solvers.PULP_CBC_CMD, "pulp_cbc_path", str(tmp_path / "none"))
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
        import planner, planner.solvers, cases
        planner.solvers.PULP_CBC_CMD.pulp_cbc_path = {str(cbc)!r}
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
