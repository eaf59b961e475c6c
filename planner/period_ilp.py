"""The least period as an integer linear programme over the layered graph, for whatever a plan must keep.

    minimise    T
    subject to  flow conservation: one path from first to last
                sum of busy[r,a] x[a] <= T, for each device and directed link r
                sum of load[a] x[a] <= ceiling, for each other resource; one clock where a device must keep to one

Parts that alone take longer than a period already found are left out.
"""

# PuLP's and SciPy's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

import numpy as np
import pulp
from scipy.sparse import csr_array

from planner.cost import ROUNDING
from planner.graph import IntArray
from planner.ilp import Answer, run_solver
from planner.plan import Outcome
from planner.problem import Problem

# CBC compares with absolute tolerances, so a period that is known counts a million.
_UNIT = 1e6


def least_period(
    problem: Problem, least_s: float, most_s: float, *, time_limit_s: float = 60.0, solver: str = "cbc"
) -> Answer | None:
    """The path of least period from ``least_s``, which no plan is below, to ``most_s``.

    ``problem``: one whose limits have ``max_period_s``; its resources of that limit are what the period is the
    most of. None where the solver found none in time.
    """
    keep = promising(problem, most_s)
    problem = problem.restricted(keep)
    graph, scale = problem.graph, _UNIT / most_s
    programme = pulp.LpProblem("period", pulp.LpMinimize)
    period = programme.add_variable("T", max(0.0, least_s * (1 - ROUNDING)) * scale, _UNIT * (1 + ROUNDING))
    programme.setObjective(pulp.LpAffineExpression([(period, 1)]))
    chosen = [programme.add_variable(f"x{arc}", 0, 1, pulp.LpBinary) for arc in range(graph.arcs)]

    def constrain(terms: list[tuple[pulp.LpVariable, float]], sense: int, right: float) -> None:
        programme.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, rhs=right))

    flow: dict[int, list[tuple[pulp.LpVariable, float]]] = {graph.first: [], graph.last: []}
    for variable, tail, head in zip(chosen, graph.tail.tolist(), graph.head.tolist(), strict=True):
        flow.setdefault(tail, []).append((variable, 1.0))
        flow.setdefault(head, []).append((variable, -1.0))
    for node, terms in flow.items():
        constrain(terms, pulp.LpConstraintEQ, (node == graph.first) - (node == graph.last))
    for place, resource in enumerate(problem.resources):
        row = problem.loads[[place]].tocoo()
        if not row.nnz:
            continue
        timed = resource.limit == "max_period_s"
        unit = scale if timed else _UNIT / (abs(resource.ceiling) or float(np.abs(row.data).max()) or 1.0)
        used = [
            (chosen[arc], load)
            for arc, load in zip(row.col.tolist(), (row.data * unit).tolist(), strict=True)
        ]
        if timed:
            constrain([*used, (period, -1.0)], pulp.LpConstraintLE, 0.0)
        else:
            constrain(used, pulp.LpConstraintLE, resource.ceiling * unit)
    _one_clock(programme, problem, chosen)

    found = run_solver(programme, solver, time_limit_s)
    if found is None:
        return None
    outcome, names, bound = found
    path = np.array(sorted(int(name[1:]) for name in names if name.startswith("x")), dtype=np.int64)
    value = _period_s(problem, path)
    bound_s = value if outcome is Outcome.OPTIMAL else min(max(bound / scale, least_s), value)
    return Answer(outcome, np.flatnonzero(keep)[path], bound_s)


def promising(problem: Problem, most_s: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The arcs on a path of arcs none of which alone exceeds a resource or keeps anything busy beyond ``most_s``."""
    graph = problem.graph
    keep = np.ones(graph.arcs, dtype=bool)
    for place, resource in enumerate(problem.resources):
        row = problem.loads[[place]].tocoo()
        ceiling = resource.ceiling
        if resource.limit == "max_period_s":
            ceiling = min(ceiling, most_s * (1 + ROUNDING))
        if row.nnz and row.data.min() >= 0:
            keep[row.col[row.data > ceiling]] = False
    linked = graph.restricted(keep)
    keep[np.flatnonzero(keep)[~np.isfinite(linked.through(np.zeros(linked.arcs)))]] = False
    return keep


def _one_clock(programme: pulp.LpProblem, problem: Problem, chosen: list[pulp.LpVariable]) -> None:
    clocks = [
        programme.add_variable(f"y{clock}", 0, 1, pulp.LpBinary) for clock in range(problem.clock_device.size)
    ]
    for device in np.unique(problem.clock_device):
        mine = [(clocks[clock], 1) for clock in np.flatnonzero(problem.clock_device == device)]
        programme.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(mine), pulp.LpConstraintLE, rhs=1))
    for arc in np.flatnonzero(problem.clock >= 0).tolist():
        pair = pulp.LpAffineExpression([(chosen[arc], 1), (clocks[problem.clock[arc]], -1)])
        programme.addConstraint(pulp.LpConstraint(pair, pulp.LpConstraintLE, rhs=0))


def _period_s(problem: Problem, path: IntArray) -> float:
    timed = [place for place, each in enumerate(problem.resources) if each.limit == "max_period_s"]
    loads: csr_array = problem.loads[timed]
    return float(loads[:, path].sum(axis=1).max())
