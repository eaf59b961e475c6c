"""How close simulations come: python benchmarks/simulate.py [PLAN TABLE...]

Deploys a plan over emulated devices (by default the best one for AlexNet on the demo's two, profiled here) with
1 and 4 requests in flight, and simulates the same, stages drawn from the profile's raw samples. Prints the ratios
simulated over measured of median latency and throughput; beside them those of a simulation in which every stage takes
what it took in the run: what is left there is what the simulation does not know of the runtime, and not that the
machine was slower or faster than while it was profiled. Then how many requests pass in a second of computing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from forecast import FLEET, profiled

from planner import ModelSource, Plan, ProfileTable, load_fleet
from planner.simulate_replay import replay
from planner.simulate_run import simulate
from planner.simulate_scenario import Arrivals, Scenario
from planner.simulate_steps import read_samples
from planner.solver import solve
from runtime.deployment import DeployRequest, record

REQUESTS = 60


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if len(sys.argv) > 2:
            plan, tables = Plan.load(Path(sys.argv[1])), [Path(file) for file in sys.argv[2:]]
        else:
            tables = profiled(ModelSource("alexnet"), load_fleet(FLEET), folder)
            table = ProfileTable.load(tables)
            plan = solve(table.chain, load_fleet(FLEET), table, objective="latency")
        samples = read_samples(tables)
        columns = ("in flight", "median ms", "per s", "simulated", "per s", "replayed", "per s")
        print(("{:>10} " * len(columns)).format(*columns))
        for concurrency in (1, 4):
            request = DeployRequest(
                plan, folder / f"run-{concurrency}", requests=REQUESTS, concurrency=concurrency
            )
            run = record(request, [])
            median_s = float(np.median([row.measured_s for row in run.rows if row.kind == "total"]))
            per_s = run.info.requests / run.info.wall_s
            scenario = Scenario(requests=REQUESTS, from_samples=True)
            _, (simulated,) = simulate([plan], [Arrivals("closed", concurrency)], scenario, samples)
            print(f"{concurrency:10} {median_s * 1e3:10.2f} {per_s:10.2f}", end=" ")
            for requests in (simulated, replay(run).requests[0]):
                ratio = np.median([each.latency_s for each in requests]) / median_s
                rate = len(requests) / max(each.left_s for each in requests) / per_s
                print(f"{ratio:9.3f}x {rate:9.3f}x", end=" ")
            print(flush=True)
        begun = time.perf_counter()
        simulate([plan], [Arrivals("poisson", rate_per_s=1.0)], Scenario(requests=10_000))
        print(f"{10_000 / (time.perf_counter() - begun):,.0f} requests simulated per second")


if __name__ == "__main__":
    main()
