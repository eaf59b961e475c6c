"""One programme, one solver, one process: python -m planner.solver_process SOLVER OPTIONS MODEL ANSWER.

``MODEL`` is PuLP's JSON of the programme; ``ANSWER`` gets the solution's status and the variables that are 1.
"""

# PuLP's annotations are partial.
# mypy: allow-untyped-calls

from __future__ import annotations

import json
import sys
from pathlib import Path

import pulp


def main(name: str, options: str, model: str, answer: str) -> None:
    _, programme = pulp.LpProblem.fromJson(model)
    try:
        programme.solve(pulp.getSolver(name, msg=False, **json.loads(options)))
        chosen = [each.name for each in programme.variables() if (each.value() or 0.0) > 0.5]
        said: dict[str, object] = {"quality": programme.sol_status, "chosen": chosen}
    except Exception as error:
        said = {"error": str(error) or type(error).__name__}
    Path(answer).write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
