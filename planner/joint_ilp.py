"""The joint integer linear programme of `planner.shared`, decided by CBC.

    minimise    sum of weight[a] x[a] + t + most x z
    subject to  in each part, one path from first to last, or none where z = 1
                sum of load[row, a] x[a] <= ceiling[row] + level[row] t
                x[a] <= y[c], sum of y[c] <= 1 per device, for its clocks c where streams keep to one

``z`` gives up: nothing is below ``most``. So the programme always has a solution, and no answer rests on a
solver's word that there is none.
"""

# PuLP's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pulp

from planner.plan import Outcome
from planner.shared import Part, Paths, Shared
from planner.solvers import NoAnswer, run_solver

_MICRO = 1e6


@dataclass(frozen=True, eq=False)
class Decision:
    """``paths``: None where none below ``most`` was found. ``bound``: nothing is below it; ``proven``: it is met by
    the paths, or by ``most``."""

    proven: bool
    paths: Paths | None
    bound: float


def decide(
    shared: Shared, most: float, *, least: float, time_limit_s: float, solver: str = "cbc"
) -> Decision:
    """The best paths below ``most``, which must be above 0; ``least`` is a bound that is known.

    Raises ``SolverError`` where the solver fails.
    """
    programme = pulp.LpProblem("plans", pulp.LpMinimize)
    scale = _MICRO / most  # CBC's tolerances are absolute
    given_up = programme.add_variable("z", 0, 1, pulp.LpBinary)
    objective: list[tuple[pulp.LpVariable, float]] = [(given_up, _MICRO)]
    level = None
    if shared.balanced:
        level = programme.add_variable("t", 0, None)  # in units of ``most``
        objective.append((level, _MICRO))
    chosen = []
    for place, part in enumerate(shared.parts):
        mine = [
            programme.add_variable(f"x{place}_{arc}", 0, 1, pulp.LpBinary) for arc in range(part.graph.arcs)
        ]
        chosen.append(mine)
        objective += [term for term in zip(mine, (part.weight * scale).tolist(), strict=True) if term[1]]
        _flow(programme, part, mine, given_up)
    programme.setObjective(pulp.LpAffineExpression(objective))
    _rows(programme, shared, chosen, level, most)
    _clocks(programme, shared, chosen)

    found = run_solver(programme, solver, time_limit_s)
    if isinstance(found, NoAnswer):  # it may always give up, so there is an answer: time was short
        return Decision(False, None, least)
    outcome, names, bound = found
    paths = None
    if "z" not in names:
        taken = [name[1:].split("_") for name in names if name.startswith("x")]
        paths = tuple(
            np.array(sorted(int(arc) for part, arc in taken if int(part) == place), dtype=np.int64)
            for place in range(len(shared.parts))
        )
    if outcome is Outcome.OPTIMAL:
        return Decision(True, paths, most if paths is None else shared.value(paths))
    return Decision(False, paths, max(least, bound / scale))


def _flow(
    programme: pulp.LpProblem, part: Part, chosen: list[pulp.LpVariable], given_up: pulp.LpVariable
) -> None:
    graph = part.graph
    flow: defaultdict[int, list[tuple[pulp.LpVariable, float]]] = defaultdict(list)
    flow[graph.first].append((given_up, 1))
    flow[graph.last].append((given_up, -1))
    for variable, tail, head in zip(chosen, graph.tail.tolist(), graph.head.tolist(), strict=True):
        flow[tail].append((variable, 1))
        flow[head].append((variable, -1))
    for node, terms in flow.items():
        supply = (node == graph.first) - (node == graph.last)
        programme.addConstraint(
            pulp.LpConstraint(pulp.LpAffineExpression(terms), pulp.LpConstraintEQ, rhs=supply)
        )


def _rows(
    programme: pulp.LpProblem,
    shared: Shared,
    chosen: list[list[pulp.LpVariable]],
    level: pulp.LpVariable | None,
    most: float,
) -> None:
    units = shared.units
    for row, ceiling in enumerate(shared.ceilings.tolist()):
        leads = shared.level[row] > 0
        unit = _MICRO / (shared.level[row] * most if leads else units[row])
        terms: list[tuple[pulp.LpVariable, float]] = []
        for part, variables in zip(shared.parts, chosen, strict=True):
            mine = part.by_row[[row]].tocoo()
            terms += [
                (variables[arc], load * unit) for arc, load in zip(mine.col, mine.data.tolist(), strict=True)
            ]
        if not terms:
            continue
        if leads and level is not None:
            terms.append((level, -_MICRO))
        programme.addConstraint(
            pulp.LpConstraint(pulp.LpAffineExpression(terms), pulp.LpConstraintLE, rhs=ceiling * unit)
        )


def _clocks(programme: pulp.LpProblem, shared: Shared, chosen: list[list[pulp.LpVariable]]) -> None:
    """A device that keeps to one clock keeps to it in all streams that ask for that."""
    variables: dict[tuple[str, float | None], pulp.LpVariable] = {}
    for part, mine in zip(shared.parts, chosen, strict=True):
        names = part.clocks()
        for arc in np.flatnonzero(part.problem.clock >= 0).tolist():
            key = names[part.problem.clock[arc]]
            if key not in variables:
                variables[key] = programme.add_variable(f"y{len(variables)}", 0, 1, pulp.LpBinary)
            pair = pulp.LpAffineExpression([(mine[arc], 1), (variables[key], -1)])
            programme.addConstraint(pulp.LpConstraint(pair, pulp.LpConstraintLE, rhs=0))
    for device in sorted({device for device, _ in variables}):
        terms = [(variable, 1) for (name, _), variable in variables.items() if name == device]
        programme.addConstraint(pulp.LpConstraint(pulp.LpAffineExpression(terms), pulp.LpConstraintLE, rhs=1))
