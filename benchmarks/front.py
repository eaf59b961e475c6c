"""The exact latency-energy front against sweeping a budget: python benchmarks/front.py [--seeds N] [--budgets N]

For instances of 32 layers, 4 devices and 4 variants and of 64, 8 and 12, from tables in memory, each with half of the
devices and with all of them on batteries: points on the front, and seconds, the graph included. Then the same asked as
so many energy budgets, evenly spaced from the least energy to that of the fastest plan: seconds over the front's,
and how many of its points they find. --budgets 0 leaves that out. Goal: 64, 8, 12 in at most 5 s.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from instances import instance

from planner.cost import CostModel
from planner.front import front_of
from planner.front_points import Point
from planner.limits import Limits
from planner.problem import Problem
from planner.search import search

SIZES = ((32, 4, 4), (64, 8, 12))


def swept(model: CostModel, points: list[Point], budgets: int) -> tuple[float, int]:
    """Seconds of so many solves within an energy budget, and how many plans they find."""
    energies = np.linspace(points[-1].cost.energy_j, points[0].cost.energy_j, budgets)
    begun, found = time.perf_counter(), set()
    for energy in energies.tolist():
        problem = Problem.of(model, Limits(max_energy_j=energy))
        answer = search(problem, {"latency": 1.0})
        found.add(round(float(problem.graph.weight["latency"][answer.arcs].sum()), 12))
    return time.perf_counter() - begun, len(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--budgets", type=int, default=20)
    asked = options.parse_args()
    for size in SIZES:
        for batteries in (0.5, 1.0):
            seconds, counts, ratios, shares = [], [], [], []
            for seed in range(asked.seeds):
                model = instance(*size, seed, batteries=batteries)
                begun = time.perf_counter()
                points = front_of(model)
                seconds.append(time.perf_counter() - begun)
                counts.append(len(points))
                if asked.budgets and len(points) > 1:
                    sweep_s, found = swept(model, points, asked.budgets)
                    ratios.append(sweep_s / seconds[-1])
                    shares.append(found / len(points))
            text = (
                f"{size[0]} layers, {size[1]} devices, {size[2]} variants, batteries {batteries:.0%}: "
                f"{min(counts)} to {max(counts)} points, median {statistics.median(seconds):.2f} s, "
                f"worst {max(seconds):.2f} s"
            )
            if ratios:
                text += (
                    f"; {asked.budgets} budgets take {statistics.median(ratios):.1f} times as long and find "
                    f"{statistics.median(shares):.0%} of the points"
                )
            print(text, flush=True)


if __name__ == "__main__":
    main()
