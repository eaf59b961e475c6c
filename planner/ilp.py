"""The plan as an integer linear programme over the layered graph, decided and proved by CBC.

    minimise    sum of weight[a] x[a]
    subject to  flow conservation: one path from start to end
                sum of load[a] x[a] <= ceiling, for each budget

Flow conservation on its own is totally unimodular, so without budgets x may be continuous.
"""

# PuLP's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pulp
from pulp.apis.coin_api import COIN_CMD, PULP_CBC_CMD

from planner.cost import FloatArray
from planner.errors import SolverError
from planner.graph import Graph, IntArray
from planner.plan import Outcome

# CBC compares objectives with an absolute tolerance of 1e-5: seconds and joules are too coarse.
_MICRO = 1e6


@dataclass(frozen=True, eq=False)
class Answer:
    """The arcs of a path, and a ``bound`` that no path can undercut, in the weight's unit."""

    outcome: Outcome
    arcs: IntArray
    bound: float


def minimise(
    graph: Graph,
    arcs: IntArray,
    weight: FloatArray,
    budgets: Sequence[tuple[FloatArray, float]] = (),
    *,
    time_limit_s: float = 60.0,
    threads: int = 1,
) -> Answer | None:
    """The lightest path over ``arcs`` that keeps the budgets; None where CBC found none.

    ``weight``, in seconds or joules, and each budget's load hold one number for every arc of the graph.
    None is no proof of infeasibility: CBC also says so when its time runs out.
    """
    binding = [(load, ceiling) for load, ceiling in budgets if ceiling < math.inf and load[arcs].any()]
    problem = pulp.LpProblem("plan", pulp.LpMinimize)
    category = pulp.LpBinary if binding else pulp.LpContinuous
    chosen = [problem.add_variable(f"x{arc}", 0, 1, category) for arc in arcs.tolist()]
    problem.setObjective(_sum(chosen, weight[arcs]))

    flow: dict[int, list[tuple[pulp.LpVariable, int]]] = {graph.start: [], graph.end: []}
    for variable, tail, head in zip(
        chosen, graph.tail[arcs].tolist(), graph.head[arcs].tolist(), strict=True
    ):
        flow.setdefault(tail, []).append((variable, 1))
        flow.setdefault(head, []).append((variable, -1))
    for node, terms in flow.items():
        supply = (node == graph.start) - (node == graph.end)
        balance = pulp.LpAffineExpression(terms)
        problem.addConstraint(pulp.LpConstraint(balance, pulp.LpConstraintEQ, rhs=supply))
    for load, ceiling in binding:  # in millionths of the ceiling, whatever its size and unit
        used = _sum(chosen, load[arcs] / ceiling)
        problem.addConstraint(pulp.LpConstraint(used, pulp.LpConstraintLE, rhs=_MICRO))

    found = _run_cbc(problem, time_limit_s, threads)
    if found is None or (found[0] is Outcome.FEASIBLE and not binding):
        return None  # where a linear programme stops on its way, there is no path yet
    outcome, names, bound = found
    path = np.array(sorted(int(name.removeprefix("x")) for name in names), dtype=np.int64)
    total = float(weight[path].sum())
    return Answer(outcome, path, total if outcome is Outcome.OPTIMAL else min(bound / _MICRO, total))


def _sum(variables: list[pulp.LpVariable], factors: FloatArray) -> pulp.LpAffineExpression:
    micro = (factors * _MICRO).tolist()
    return pulp.LpAffineExpression([term for term in zip(variables, micro, strict=True) if term[1]])


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
        status, values, *_, quality = solver.readsol_MPS(str(solution), problem, variables, names, rows)
    chosen = [name for name, value in values.items() if value > 0.5]
    # A run that its time limit stopped has the status "optimal" too; only the pair tells.
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionOptimal):
        return Outcome.OPTIMAL, chosen, math.inf
    if (status, quality) == (pulp.LpStatusOptimal, pulp.LpSolutionIntegerFeasible):
        printed = re.search(r"^Lower bound: +(\S+)", ran.stdout, re.MULTILINE)
        # It is printed to three decimals; no path weighs less than nothing.
        return Outcome.FEASIBLE, chosen, max(0.0, float(printed[1]) - 1e-3) if printed else 0.0
    return None


_REMEDY = "pip install 'pulp>=3.3.2,<4', which brings CBC, or put `cbc` on the PATH"


def _cbc() -> COIN_CMD:
    """The CBC that PuLP brings, or the one on the PATH."""
    for path in (PULP_CBC_CMD.pulp_cbc_path, "cbc"):
        solver = COIN_CMD(path=path, msg=False)
        if solver.available():
            return solver
    raise SolverError("CBC, the solver that decides and proves a plan, is not installed here", _REMEDY)
