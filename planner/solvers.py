"""Solvers as processes of our own: CBC, and whatever else PuLP knows. Each can be ended, and is after a while."""

# PuLP's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import pulp
from pulp.apis.coin_api import COIN_CMD, PULP_CBC_CMD

from planner.errors import SolverError, UnknownNameError
from planner.plan import Outcome

# Solvers check their own limit only now and then: after so many times the limit and so long they are ended.
_PATIENCE, _GRACE_S = 2.0, 30.0
# A verdict of infeasible counts if it took less than this share of the time limit: CBC also says so when it stops.
_IN_TIME = 0.9


class NoAnswer(Enum):
    """Why a solver gives no plan."""

    INFEASIBLE = "says that no plan keeps the limits"
    OUT_OF_TIME = "found none in time"


class Solved(NamedTuple):
    """``chosen``: the names of the variables that are 1. ``bound``: on the objective, inf where it is met."""

    outcome: Outcome
    chosen: list[str]
    bound: float


def run_solver(
    programme: pulp.LpProblem, solver: str, time_limit_s: float, threads: int = 1
) -> Solved | NoAnswer:
    """What the solver makes of a programme whose objective is never below 0.

    Raises ``SolverError`` where the solver fails or is not there, ``UnknownNameError`` for one that PuLP does not know.
    """
    if solver == "cbc":
        return _run_cbc(programme, time_limit_s, threads)
    return _run_other(solver, programme, time_limit_s, threads)


def installed() -> list[str]:
    """The solvers that PuLP finds on this machine."""
    return sorted(
        {"cbc", *(each.removesuffix("_PY").lower() for each in pulp.listSolvers(onlyAvailable=True))}
    )


def _run_cbc(problem: pulp.LpProblem, time_limit_s: float, threads: int) -> Solved | NoAnswer:
    """The CBC that PuLP starts outlives an interrupt, and so do its files."""
    solver = _cbc()
    with tempfile.TemporaryDirectory(prefix="edgecut-") as folder:
        model, solution = Path(folder, "plan.mps"), Path(folder, "plan.sol")
        variables, names, rows, _ = problem.writeMPS(str(model), rename=1)
        options = f"-sec {time_limit_s:.3f} -timeMode elapsed -ratio 0 -threads {threads} -solve -solution"
        begun = time.perf_counter()
        try:
            ran = _run([solver.path, str(model), *options.split(), str(solution)], time_limit_s)
        except OSError as error:
            raise SolverError(f"cannot run CBC at {solver.path}: {error}", _REMEDY) from error
        if ran is None:
            return NoAnswer.OUT_OF_TIME
        in_time = time.perf_counter() - begun < _IN_TIME * time_limit_s
        if ran.returncode != 0 or not solution.exists():
            raise SolverError(f"CBC stopped with exit code {ran.returncode}: {_last_line(ran)}")
        try:
            status, values, *_, quality = solver.readsol_MPS(str(solution), problem, variables, names, rows)
        except (ValueError, LookupError) as error:
            raise SolverError(f"CBC's answer cannot be read: {error}") from error
    chosen = [name for name, value in values.items() if value > 0.5]
    # A run that its time limit stopped has the status "optimal" too; only the pair tells.
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionOptimal):
        return Solved(Outcome.OPTIMAL, chosen, math.inf)
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible):
        printed = re.search(r"^Lower bound: +(\S+)", ran.stdout, re.MULTILINE)
        # It is printed to three decimals; nothing weighs less than nothing.
        bound = max(0.0, float(printed[1]) - 1e-3) if printed else 0.0
        return Solved(Outcome.FEASIBLE, chosen, bound)
    infeasible = status == pulp.LpStatusInfeasible and in_time
    return NoAnswer.INFEASIBLE if infeasible else NoAnswer.OUT_OF_TIME


def _run_other(name: str, programme: pulp.LpProblem, time_limit_s: float, threads: int) -> Solved | NoAnswer:
    """Another solver, by `planner.solver_process`: some run within the process that calls them, and only a process
    can be ended."""
    known = {each.removesuffix("_PY").lower(): each for each in pulp.listSolvers()}
    if name not in known:
        raise UnknownNameError("solver", name, ["cbc", *known])
    kind = type(pulp.getSolver(known[name], msg=False))
    options = {"timeLimit": time_limit_s, "gapRel": 0.0, "threads": threads}
    taken = inspect.signature(kind).parameters
    options = {option: value for option, value in options.items() if option in taken}
    if not kind(msg=False, **options).available():
        raise SolverError(
            f"the solver {name} is not installed here", f"install it, or take one of {', '.join(installed())}"
        )
    with tempfile.TemporaryDirectory(prefix="edgecut-") as folder:
        model, answer = Path(folder, "plan.json"), Path(folder, "answer.json")
        programme.toJson(str(model))
        begun = time.perf_counter()
        command = [sys.executable, "-m", "planner.solver_process", known[name], json.dumps(options)]
        ran = _run([*command, str(model), str(answer)], time_limit_s, folder)
        if ran is None:
            return NoAnswer.OUT_OF_TIME
        in_time = time.perf_counter() - begun < _IN_TIME * time_limit_s
        try:
            said = json.loads(answer.read_text())
        except (OSError, ValueError):
            problem = f"{name} ended without an answer: {_last_line(ran)}"
            raise SolverError(problem, "try --solver cbc") from None
    if "error" in said:
        raise SolverError(f"{name} failed: {said['error']}", "try --solver cbc")
    if said["quality"] == pulp.LpSolutionOptimal:
        return Solved(Outcome.OPTIMAL, said["chosen"], math.inf)
    if said["quality"] == pulp.LpSolutionIntegerFeasible:
        return Solved(Outcome.FEASIBLE, said["chosen"], 0.0)
    infeasible = said["quality"] == pulp.LpSolutionInfeasible and in_time
    return NoAnswer.INFEASIBLE if infeasible else NoAnswer.OUT_OF_TIME


def _run(
    command: Sequence[str], time_limit_s: float, folder: str | None = None
) -> subprocess.CompletedProcess[str] | None:
    """A command to its end; None where it had to be ended. Whatever it started ends with it, on any exception too."""
    here = Path(__file__).parent.parent
    paths = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_PATIENCE * time_limit_s + _GRACE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output, None)


def _last_line(ran: subprocess.CompletedProcess[str]) -> str:
    return "".join(ran.stdout.strip().splitlines()[-1:]) or "no output"


_REMEDY = "pip install 'pulp>=3.3.2,<4', which brings CBC, or put `cbc` on the PATH"


def _cbc() -> COIN_CMD:
    """The CBC that PuLP brings, or the one on the PATH."""
    for path in (PULP_CBC_CMD.pulp_cbc_path, "cbc"):
        solver = COIN_CMD(path=path, msg=False)
        if solver.available():
            return solver
    raise SolverError("CBC, the solver that decides and proves a plan, is not installed here", _REMEDY)
