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
from planner.ilp import MICRO, Answer, Paths, chosen_arcs
from planner.plan import Outcome
from planner.problem import Problem
from planner.solvers import NoAnswer, run_solver


def least_period(
    problem: Problem, least_s: float, most_s: float, *, time_limit_s: float = 60.0, solver: str = "cbc"
) -> Answer | NoAnswer:
    """The path of least period from ``least_s``, which no plan is below, to ``most_s``.

    ``problem``: one whose limits have ``max_period_s``; its resources of that limit are what the period is the
    most of.
    """
    keep = promising(problem, most_s)
    problem, scale = problem.restricted(keep), MICRO / most_s
    paths = Paths.of(problem, apart="max_period_s")
    lowest = max(0.0, least_s * (1 - ROUNDING)) * scale
    period = paths.programme.add_variable("T", lowest, MICRO * (1 + ROUNDING))
    paths.programme.setObjective(pulp.LpAffineExpression([(period, 1)]))
    for place, resource in enumerate(problem.resources):
        if resource.limit == "max_period_s":
            paths.most(problem, place, scale, period)
    found = run_solver(paths.programme, solver, time_limit_s)
    if isinstance(found, NoAnswer):
        return found
    path = chosen_arcs(found.chosen)
    value = _period_s(problem, path)
    bound_s = value if found.outcome is Outcome.OPTIMAL else min(max(found.bound / scale, least_s), value)
    return Answer(found.outcome, np.flatnonzero(keep)[path], bound_s)


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


def _period_s(problem: Problem, path: IntArray) -> float:
    timed = [place for place, each in enumerate(problem.resources) if each.limit == "max_period_s"]
    loads: csr_array = problem.loads[timed]
    return float(loads[:, path].sum(axis=1).max())
