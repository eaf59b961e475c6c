"""A run simulated again: what the runtime did, beside what the simulation says it should do."""

from __future__ import annotations

import numpy as np

from planner.run import Run
from planner.simulate_result import Outcome, Stream
from planner.simulate_run import run as run_events
from planner.simulate_scenario import Scenario
from planner.simulate_steps import turns_of


def replay(measured: Run) -> Outcome:
    """The requests of a run, each stage, encoding and decoding taking what it took there.

    So whatever made the machine slow weighs on both alike; what waits for what, and the links, are the
    simulation's own. The run has one row for every part of every request.
    """
    plan = measured.info.plan
    turns = turns_of(plan)
    took_s = {(row.request, row.kind, row.index): row.measured_s for row in measured.rows}
    steps = [step for turn in turns for step in turn.steps]
    amounts = np.array(
        [
            [step.amount if step.kind == "wire" else took_s[number, step.kind, step.index] for step in steps]
            for number in range(measured.info.requests)
        ]
    )
    rates, latencies = Scenario().rates(plan.fleet)
    return run_events([Stream(turns, amounts, None, measured.info.concurrency)], rates, latencies)
