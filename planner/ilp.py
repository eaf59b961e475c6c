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

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pulp

from planner.cost import FloatArray
from planner.graph import IntArray
from planner.plan import Outcome
from planner.problem import Problem
from planner.solvers import NoAnswer, run_solver

# CBC compares objectives with an absolute tolerance of 1e-5, so they are scaled: the least a path can weigh
# without limits becomes a million.
MICRO = 1e6


@dataclass(frozen=True, eq=False)
class Answer:
    """The arcs of a path, and a ``bound`` that no path can undercut, in the weight's unit."""

    outcome: Outcome
    arcs: IntArray
    bound: float


def minimise(
    problem: Problem, weight: FloatArray, *, time_limit_s: float = 60.0, threads: int = 1, solver: str = "cbc"
) -> Answer | NoAnswer:
    """The lightest path that keeps every limit of the problem.

    ``weight``, in any unit, holds one number for every arc, none below 0 (``ValueError``: bounds would not hold).
    Raises ``SolverError`` where the solver fails or is not there.
    """
    if weight.min(initial=0.0) < 0:
        raise ValueError(f"an arc weighs {weight.min()}: weights must be at least 0")
    least = float(problem.graph.ahead(weight)[problem.graph.last])
    if not math.isfinite(least):
        return NoAnswer.INFEASIBLE
    scale = MICRO / (least or float(weight.max()) or 1.0)
    free = not problem.clock_device.size and not any(
        problem.loads[[place]].nnz for place in range(len(problem.resources))
    )
    paths = Paths.of(problem, pulp.LpContinuous if free else pulp.LpBinary)
    paths.programme.setObjective(_sum(paths.chosen, weight * scale))
    found = run_solver(paths.programme, solver, time_limit_s, threads)
    if isinstance(found, NoAnswer):
        return found
    if found.outcome is Outcome.FEASIBLE and free:
        return NoAnswer.OUT_OF_TIME  # a linear programme that stops on its way has no path yet
    path = chosen_arcs(found.chosen)
    total = float(weight[path].sum())
    proven = found.outcome is Outcome.OPTIMAL
    return Answer(found.outcome, path, total if proven else min(found.bound / scale, total))


@dataclass(frozen=True, eq=False)
class Paths:
    """A programme of the paths that keep a problem's limits, without an objective. ``chosen``: a variable an arc."""

    programme: pulp.LpProblem
    chosen: list[pulp.LpVariable]

    @staticmethod
    def of(problem: Problem, category: str = pulp.LpBinary, *, apart: str = "") -> Paths:
        """``apart``: the limit whose resources get no row."""
        programme = pulp.LpProblem("plan", pulp.LpMinimize)
        paths = Paths(
            programme, [programme.add_variable(f"x{k}", 0, 1, category) for k in range(problem.graph.arcs)]
        )
        paths._join(problem)
        for place, resource in enumerate(problem.resources):
            if resource.limit != apart:
                paths._cap(*_row(problem, place), resource.ceiling)
        if problem.clock_device.size:
            paths._one_clock(problem)
        return paths

    def constrain(self, terms: Iterable[tuple[pulp.LpVariable, float]], sense: int, right: float) -> None:
        self.programme.addConstraint(
            pulp.LpConstraint(pulp.LpAffineExpression(list(terms)), sense, rhs=right)
        )

    def most(self, problem: Problem, place: int, unit: float, most: pulp.LpVariable) -> None:
        """What a resource is used, times ``unit``, is at most a variable."""
        arcs, loads = _row(problem, place)
        if arcs.size:
            terms = zip((self.chosen[arc] for arc in arcs), (loads * unit).tolist(), strict=True)
            self.constrain([*terms, (most, -1.0)], pulp.LpConstraintLE, 0.0)

    def _join(self, problem: Problem) -> None:
        """Flow conservation."""
        graph = problem.graph
        flow: dict[int, list[tuple[pulp.LpVariable, float]]] = {graph.first: [], graph.last: []}
        for variable, tail, head in zip(self.chosen, graph.tail.tolist(), graph.head.tolist(), strict=True):
            flow.setdefault(tail, []).append((variable, 1))
            flow.setdefault(head, []).append((variable, -1))
        for node, terms in flow.items():
            self.constrain(terms, pulp.LpConstraintEQ, (node == graph.first) - (node == graph.last))

    def _cap(self, arcs: IntArray, loads: FloatArray, ceiling: float) -> None:
        """A sum in millionths of its ceiling, whatever its size and unit."""
        if not arcs.size:
            return
        if (loads >= 0).all():
            # In units of a small ceiling, an arc that breaks it alone is too large for CBC.
            for arc in arcs[loads > ceiling].tolist():
                self.chosen[arc].upBound = 0
            arcs, loads = arcs[loads <= ceiling], loads[loads <= ceiling]
        unit = MICRO / (abs(ceiling) or float(np.abs(loads).max(initial=0.0)) or 1.0)
        used = _sum([self.chosen[arc] for arc in arcs], loads * unit)
        self.programme.addConstraint(pulp.LpConstraint(used, pulp.LpConstraintLE, rhs=ceiling * unit))

    def _one_clock(self, problem: Problem) -> None:
        """One clock per device: a stage may be taken where its clock is."""
        clocks = [
            self.programme.add_variable(f"y{clock}", 0, 1, pulp.LpBinary)
            for clock in range(problem.clock_device.size)
        ]
        for device in np.unique(problem.clock_device):
            mine = [(clocks[clock], 1.0) for clock in np.flatnonzero(problem.clock_device == device)]
            self.constrain(mine, pulp.LpConstraintLE, 1)
        for arc in np.flatnonzero(problem.clock >= 0).tolist():
            pair = (self.chosen[arc], 1.0), (clocks[problem.clock[arc]], -1.0)
            self.constrain(pair, pulp.LpConstraintLE, 0)


def chosen_arcs(names: Iterable[str]) -> IntArray:
    """The arcs of a solution's variables."""
    return np.array(sorted(int(name[1:]) for name in names if name.startswith("x")), dtype=np.int64)


def _row(problem: Problem, place: int) -> tuple[IntArray, FloatArray]:
    """The arcs that use a resource, and how much."""
    row = problem.loads[[place]].tocoo()
    return row.col, row.data


def _sum(variables: Sequence[pulp.LpVariable], factors: FloatArray) -> pulp.LpAffineExpression:
    return pulp.LpAffineExpression(
        [term for term in zip(variables, factors.tolist(), strict=True) if term[1]]
    )
