"""The plan as an integer linear programme over the layered graph, decided and proved by CBC.

    minimise    sum of weight[a] x[a]
    subject to  flow conservation: one path from first to last
                sum of load[a] x[a] <= ceiling, for each resource
                x[a] <= y[c], sum of y[c] <= 1 per device, for its clocks c where it must keep to one

Flow conservation on its own is totally unimodular, so without budgets x may be continuous.
"""

# PuLP's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

import inspect
import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pulp
from pulp.apis.coin_api import COIN_CMD, PULP_CBC_CMD

from planner.cost import FloatArray
from planner.errors import SolverError, UnknownNameError
from planner.graph import IntArray
from planner.plan import Outcome
from planner.problem import Problem

# CBC compares objectives with an absolute tolerance of 1e-5, so they are scaled: the least a path can weigh
# without limits becomes a million.
_MICRO = 1e6


@dataclass(frozen=True, eq=False)
class Answer:
    """The arcs of a path, and a ``bound`` that no path can undercut, in the weight's unit."""

    outcome: Outcome
    arcs: IntArray
    bound: float


def minimise(
    problem: Problem, weight: FloatArray, *, time_limit_s: float = 60.0, threads: int = 1, solver: str = "cbc"
) -> Answer | None:
    """The lightest path that keeps every limit of the problem; None where the solver found none.

    ``weight``, in any unit, holds one number for every arc. None is no proof of infeasibility: CBC also
    says so when its time runs out. Raises ``SolverError`` where the solver fails or is not there.
    """
    graph, least = problem.graph, float(problem.graph.ahead(weight)[problem.graph.last])
    if not math.isfinite(least):
        return None
    scale = _MICRO / (least or float(np.abs(weight).max()) or 1.0)
    programme = pulp.LpProblem("plan", pulp.LpMinimize)
    binding = [place for place in range(len(problem.resources)) if problem.loads[[place]].nnz]
    choices = problem.clock_device.size > 0
    category = pulp.LpBinary if binding or choices else pulp.LpContinuous
    chosen = [programme.add_variable(f"x{arc}", 0, 1, category) for arc in range(graph.arcs)]
    programme.setObjective(_sum(chosen, weight * scale))

    flow: dict[int, list[tuple[pulp.LpVariable, int]]] = {graph.first: [], graph.last: []}
    for variable, tail, head in zip(chosen, graph.tail.tolist(), graph.head.tolist(), strict=True):
        flow.setdefault(tail, []).append((variable, 1))
        flow.setdefault(head, []).append((variable, -1))
    for node, terms in flow.items():
        supply = (node == graph.first) - (node == graph.last)
        _constrain(programme, pulp.LpAffineExpression(terms), pulp.LpConstraintEQ, supply)
    for place in binding:  # in millionths of the ceiling, whatever its size and unit
        row, ceiling = problem.loads[[place]].tocoo(), problem.resources[place].ceiling
        arcs, loads = row.col, row.data
        if (
            loads >= 0
        ).all():  # in units of a small ceiling, an arc that breaks it alone is too large for CBC
            for arc in arcs[loads > ceiling].tolist():
                chosen[arc].upBound = 0
            arcs, loads = arcs[loads <= ceiling], loads[loads <= ceiling]
        unit = _MICRO / (abs(ceiling) or float(np.abs(loads).max(initial=0.0)) or 1.0)
        used = _sum([chosen[arc] for arc in arcs], loads * unit)
        _constrain(programme, used, pulp.LpConstraintLE, ceiling * unit)
    if choices:
        _one_clock(programme, problem, chosen)

    found = run_solver(programme, solver, time_limit_s, threads)
    if found is None or (found[0] is Outcome.FEASIBLE and category == pulp.LpContinuous):
        return None  # where a linear programme stops on its way, there is no path yet
    outcome, names, bound = found
    path = np.array(
        sorted(int(name.removeprefix("x")) for name in names if name.startswith("x")), dtype=np.int64
    )
    total = float(weight[path].sum())
    return Answer(outcome, path, total if outcome is Outcome.OPTIMAL else min(bound / scale, total))


def run_solver(
    programme: pulp.LpProblem, solver: str, time_limit_s: float, threads: int = 1
) -> tuple[Outcome, list[str], float] | None:
    """The outcome, the names of the variables that are 1, and the solver's bound; None where it found nothing.

    Raises ``SolverError`` where the solver fails or is not there.
    """
    if solver == "cbc":
        return _run_cbc(programme, time_limit_s, threads)
    return run_other(solver, programme, time_limit_s, threads)


def _constrain(programme: pulp.LpProblem, left: pulp.LpAffineExpression, sense: int, right: float) -> None:
    programme.addConstraint(pulp.LpConstraint(left, sense, rhs=right))


def _one_clock(programme: pulp.LpProblem, problem: Problem, chosen: list[pulp.LpVariable]) -> None:
    """One clock per device: a stage may be taken where its clock is."""
    clocks = [
        programme.add_variable(f"y{clock}", 0, 1, pulp.LpBinary) for clock in range(problem.clock_device.size)
    ]
    for device in np.unique(problem.clock_device):
        mine = [(clocks[clock], 1) for clock in np.flatnonzero(problem.clock_device == device)]
        _constrain(programme, pulp.LpAffineExpression(mine), pulp.LpConstraintLE, 1)
    for arc in np.flatnonzero(problem.clock >= 0).tolist():
        pair = pulp.LpAffineExpression([(chosen[arc], 1), (clocks[problem.clock[arc]], -1)])
        _constrain(programme, pair, pulp.LpConstraintLE, 0)


def _sum(variables: list[pulp.LpVariable], factors: FloatArray) -> pulp.LpAffineExpression:
    return pulp.LpAffineExpression(
        [term for term in zip(variables, factors.tolist(), strict=True) if term[1]]
    )


def _run_cbc(
    problem: pulp.LpProblem, time_limit_s: float, threads: int
) -> tuple[Outcome, list[str], float] | None:
    """The outcome, the names of the variables that are 1, and CBC's bound.

    CBC is a child of our own: the one that PuLP starts outlives an interrupt, and so do its files.
    """
    solver = _cbc()
    with tempfile.TemporaryDirectory(prefix="edgecut-") as folder:
        model, solution = Path(folder, "plan.mps"), Path(folder, "plan.sol")
        variables, names, rows, _ = problem.writeMPS(str(model), rename=1)
        options = f"-sec {time_limit_s:.3f} -timeMode elapsed -ratio 0 -threads {threads} -solve -solution"
        try:
            # On any exception, an interrupt included, `run` kills the child before it passes it on.
            ran = subprocess.run(
                [solver.path, str(model), *options.split(), str(solution)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=2 * time_limit_s + 30,  # CBC checks its own limit only now and then
            )
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            raise SolverError(f"cannot run CBC at {solver.path}: {error}", _REMEDY) from error
        if ran.returncode != 0 or not solution.exists():
            last = "".join(ran.stdout.strip().splitlines()[-1:]) or "no output"
            raise SolverError(f"CBC stopped with exit code {ran.returncode}: {last}")
        try:
            status, values, *_, quality = solver.readsol_MPS(str(solution), problem, variables, names, rows)
        except (ValueError, LookupError) as error:
            raise SolverError(f"CBC's answer cannot be read: {error}") from error
    chosen = [name for name, value in values.items() if value > 0.5]
    # A run that its time limit stopped has the status "optimal" too; only the pair tells.
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionOptimal):
        return Outcome.OPTIMAL, chosen, math.inf
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible):
        printed = re.search(r"^Lower bound: +(\S+)", ran.stdout, re.MULTILINE)
        # It is printed to three decimals; no path weighs less than nothing.
        return Outcome.FEASIBLE, chosen, max(0.0, float(printed[1]) - 1e-3) if printed else 0.0
    return None


def run_other(
    name: str, programme: pulp.LpProblem, time_limit_s: float, threads: int
) -> tuple[Outcome, list[str], float] | None:
    """The same by another solver that PuLP knows and that is installed."""
    known = {each.removesuffix("_PY").lower(): each for each in pulp.listSolvers()}
    if name not in known:
        raise UnknownNameError("solver", name, ["cbc", *known])
    kind = type(pulp.getSolver(known[name], msg=False))
    options = {"timeLimit": time_limit_s, "gapRel": 0.0, "threads": threads}
    taken = inspect.signature(kind).parameters
    solver = kind(msg=False, **{option: value for option, value in options.items() if option in taken})
    if not solver.available():
        raise SolverError(
            f"the solver {name} is not installed here", f"install it, or take one of {', '.join(installed())}"
        )
    try:
        programme.solve(solver)
    except Exception as error:  # whatever PuLP makes of a process that failed or wrote something else
        raise SolverError(f"{name} failed: {error}", "try --solver cbc") from error
    chosen = [each.name for each in programme.variables() if (each.value() or 0.0) > 0.5]
    if programme.sol_status == pulp.LpSolutionOptimal:
        return Outcome.OPTIMAL, chosen, math.inf
    return (Outcome.FEASIBLE, chosen, 0.0) if programme.sol_status == pulp.LpSolutionIntegerFeasible else None


def installed() -> list[str]:
    """The solvers that PuLP finds on this machine."""
    return sorted(
        {"cbc", *(each.removesuffix("_PY").lower() for each in pulp.listSolvers(onlyAvailable=True))}
    )


_REMEDY = "pip install 'pulp>=3.3.2,<4', which brings CBC, or put `cbc` on the PATH"


def _cbc() -> COIN_CMD:
    """The CBC that PuLP brings, or the one on the PATH."""
    for path in (PULP_CBC_CMD.pulp_cbc_path, "cbc"):
        solver = COIN_CMD(path=path, msg=False)
        if solver.available():
            return solver
    raise SolverError("CBC, the solver that decides and proves a plan, is not installed here", _REMEDY)
