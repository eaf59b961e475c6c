"""Seconds from a table in memory to a proven plan: python benchmarks/solver_speed.py [--size 200/8/12] [--case energy]
[--seeds 20] [--time-limit 30] [--solver cbc]

Synthetic tables (`instances.py`) of layers/devices/variants; 200/8/12 has about two million arcs. The cases:

    free            least latency, no limit
    energy, accuracy, price     least latency within a budget
    latency         least energy within a budget of latency
    once            least latency, the stages of each device follow each other
    memory          least latency, each device holds 30 to 60 % of what the whole model takes there in its smallest
                    variant; alone, and with each of the others

Each budget lies between the least possible and the value at the optimum without limits, at a share of 0.15 to
0.85 that is drawn per seed. Timed: the graph, its limits and the search; not the table. Each run is a process of
its own, and its peak memory is that process's; the solver's, which gets the arcs that are left, is not in it, for
Linux tells it with the memory of the process that starts it. Limits, on two processors: without memory limits a
median of 2 s and at worst 10 s (0.5 s and 3 s at 64/8/12); with them a proof within 30 s on 16 seeds of 20, and a
gap of at most 5 % on the others; 2 GB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
from instances import instance

from planner.cost import CostModel
from planner.errors import InfeasibleError, SolverError
from planner.graph import Graph
from planner.limits import Criterion, Limits
from planner.plan import Outcome
from planner.problem import Problem
from planner.search import search

SIZES = ("64/8/12", "200/8/12")
ALONE = ("free", "energy", "latency", "accuracy", "price", "once")
CASES = (*ALONE, "memory", *(f"memory+{name}" for name in ALONE[1:]))
# What each budget is about, and the field of the limits that holds it.
_BUDGETS: dict[str, tuple[Criterion, str]] = {
    "energy": ("energy", "max_energy_j"),
    "latency": ("latency", "max_latency_s"),
    "accuracy": ("noise", "min_sqnr_db"),
    "price": ("price", "max_price"),
}


@dataclass(frozen=True)
class Run:
    """``outcome``: "optimal", "feasible" (a plan, not proven), "infeasible" (proven) or "none"."""

    outcome: str
    wall_s: float
    cpu_s: float
    gap: float
    arcs: int
    arcs_after: int
    peak_gb: float
    phases_s: dict[str, float]


def limits_for(case: str, model: CostModel, seed: int) -> Limits:
    """The limits of a case, the same for the same model and seed."""
    numbers, limits = random.Random(f"{case} {seed}"), Limits()
    graph = Graph.of(model)
    for name in case.split("+"):
        if name in _BUDGETS:
            criterion, field = _BUDGETS[name]
            path = graph.path(graph.weight[objective(case)])
            assert path is not None
            weight = graph.weight[criterion]
            least, most = float(graph.ahead(weight)[graph.last]), float(weight[path].sum())
            value = least + numbers.uniform(0.15, 0.85) * (most - least)
            limits = replace(limits, **{field: -10 * float(np.log10(value)) if name == "accuracy" else value})
        elif name == "once":
            limits = replace(limits, once=True)
        elif name == "memory":
            layers = len(model.chain)
            smallest: dict[str, float] = {}
            for place, way in enumerate(model.ways):
                whole = float(model.memory_bytes[place, 0, layers])
                smallest[way.device] = min(whole, smallest.get(way.device, whole))
            shares = {device: numbers.uniform(0.3, 0.6) * whole for device, whole in smallest.items()}
            limits = replace(limits, max_memory_bytes=shares)
    return limits


def objective(case: str) -> Criterion:
    return "energy" if "latency" in case.split("+") else "latency"


def run(size: str, case: str, seed: int, time_limit_s: float, solver: str) -> Run:
    """One search, in this process."""
    model = instance(*map(int, size.split("/")), seed)
    limits, weights = limits_for(case, model, seed), {objective(case): 1.0}
    begun, cpu_before_s = time.perf_counter(), cpu_s()
    problem = Problem.of(model, limits)
    built = time.perf_counter()
    gap, after, phases = np.nan, 0, {}
    try:
        found = search(problem, weights, time_limit_s=time_limit_s, solver=solver)
        outcome = "optimal" if found.outcome is Outcome.OPTIMAL else "feasible"
        after, phases = found.arcs_after, found.phases_s
        value = float(problem.weight(weights)[found.arcs].sum())
        gap = (value - found.bound) / value
        if not problem.kept(found.arcs):
            raise AssertionError(f"{size} {case} {seed}: the plan breaks a limit")
    except InfeasibleError:
        outcome = "infeasible"
    except SolverError:
        outcome = "none"
    wall_s, busy_s = time.perf_counter() - begun, cpu_s() - cpu_before_s
    phases = {"build": built - begun, **phases}
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return Run(outcome, wall_s, busy_s, gap, problem.graph.arcs, after, peak_gb, phases)


def cpu_s() -> float:
    """Processor seconds of this process and its solvers."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", nargs="+", default=SIZES)
    parser.add_argument("--case", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("--solver", default="cbc")
    parser.add_argument("--each", action="store_true", help="print every run and its phases")
    asked = parser.parse_args()
    print(
        f"{'size':10}{'case':17}{'median s':>9}{'worst s':>9}{'cpu s':>7}{'proven':>8}{'none':>6}{'worst gap':>11}"
        f"{'arcs':>11}{'after':>9}{'GB':>6}"
    )
    processes = multiprocessing.get_context("fork")  # each run starts with what this process has imported
    for size in asked.size:
        for case in asked.case:
            runs = []
            for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
                with processes.Pool(1) as pool:
                    arguments = (size, case, seed, asked.time_limit, asked.solver)
                    runs.append(pool.apply(run, arguments))
                if asked.each:
                    report(seed, runs[-1])
            summarise(size, case, runs)


def report(seed: int, found: Run) -> None:
    phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found.phases_s.items())
    print(
        f"  seed {seed}: {found.outcome} in {found.wall_s:.2f} s ({found.cpu_s:.2f} of processors), "
        f"gap {found.gap:.2%}, {found.arcs_after:,} arcs after, {found.peak_gb:.2f} GB ({phases})",
        flush=True,
    )


def summarise(size: str, case: str, runs: list[Run]) -> None:
    """One row; ``none``: how many of the proofs say that there is no plan. The arcs and processor
    seconds are medians."""
    times, cpu = [each.wall_s for each in runs], statistics.median(each.cpu_s for each in runs)
    proven = [each for each in runs if each.outcome in ("optimal", "infeasible")]
    infeasible = sum(each.outcome == "infeasible" for each in runs)
    if any(each.outcome == "none" for each in runs):
        gap = "no plan"
    else:
        gap = f"{max((each.gap for each in runs if each.outcome != 'infeasible'), default=0.0):.2%}"
    print(
        f"{size:10}{case:17}{statistics.median(times):9.2f}{max(times):9.2f}{cpu:7.2f}{f'{len(proven)}/{len(runs)}':>8}"
        f"{infeasible:6}{gap:>11}{int(statistics.median(each.arcs for each in runs)):11,}"
        f"{int(statistics.median(each.arcs_after for each in runs)):9,}{max(each.peak_gb for each in runs):6.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
