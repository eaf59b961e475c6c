"""How far exact plans for many streams reach, and replicas of stages.

    python benchmarks/many.py [--time-limit 30] [--seeds 1] [--quick]

Every stream is a synthetic model of its own (`instances.py`) on one fleet, 2 variants a device. `sum`: least sum
of latencies at a share of the highest rates that any mixture of plans could serve; `balanced`: least largest
utilisation. Replicas: devices that all differ, and devices of few kinds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace

import numpy as np
from instances import instance

from planner.cost import CostModel, Way
from planner.errors import InfeasibleError, SolverError
from planner.fleet import Device, Fleet, Link
from planner.joint import choose, priced
from planner.limits import Limits
from planner.problem import Problem
from planner.replica_stages import Times, best_stages
from planner.replicas import pipeline
from planner.shared import Shared

SIZES = (
    (2, 20, 4),
    (4, 20, 4),
    (6, 20, 4),
    (2, 40, 6),
    (4, 40, 6),
    (6, 40, 6),
    (2, 60, 8),
    (4, 60, 8),
    (6, 60, 8),
)


def streams(count: int, layers: int, devices: int, seed: int) -> tuple[Fleet, list[Problem]]:
    """Problems on the fleet of the first model."""
    models = [instance(layers, devices, 2, 100 * seed + place) for place in range(count)]
    return models[0].fleet, [Problem.of(replace(model, fleet=models[0].fleet), Limits()) for model in models]


def joint(seeds: int, limit_s: float, sizes: tuple[tuple[int, int, int], ...]) -> None:
    print(
        f"{'streams':>7} {'layers':>6} {'devices':>7}  {'objective':<10} {'arcs':>8} {'at last':>8} {'s':>7}  outcome"
    )
    for (count, layers, devices), seed in itertools.product(sizes, range(seeds)):
        fleet, problems = streams(count, layers, devices, seed)
        weights = [problem.weight({"latency": 1.0}) for problem in problems]
        rates = [1.0] * count
        highest = 1 / priced(Shared.of(fleet, problems, weights, rates, balanced=True)).bound
        for share in (0.3, 0.5, 0.7, None):
            rates = [(share or 1.0) * highest] * count
            begun = time.perf_counter()
            shared = Shared.of(fleet, problems, weights, rates, balanced=share is None)
            after = ""
            try:
                found = choose(shared, time_limit_s=limit_s)
                gap = 1 - found.bound / found.value
                outcome, after = f"{found.outcome.value}, gap {gap * 100:.2g} %", f"{found.arcs_after:,}"
            except InfeasibleError:
                outcome = "proven: no plans fit"
            except SolverError:
                outcome = "nothing found, nothing proven"
            passed, name = time.perf_counter() - begun, "balanced" if share is None else f"sum {share:.0%}"
            print(
                f"{count:>7} {layers:>6} {devices:>7}  {name:<10} {shared.arcs:>8,} {after:>8} "
                f"{passed:>7.1f}  {outcome}",
                flush=True,
            )


def kinds(layers: int, counts: tuple[int, ...], seed: int) -> CostModel:
    """So many devices of each kind, every link alike; the source computes nothing."""
    model = instance(layers, len(counts) + 1, 1, seed)
    names = [f"{kind}-{place}" for kind, count in enumerate(counts, 1) for place in range(count)]
    links = tuple(Link(*pair, 1e8) for pair in itertools.permutations(["d0", *names], 2))
    fleet = Fleet("d0", "d0", tuple(map(Device, ["d0", *names])), links)
    which = np.array([int(name.split("-")[0]) for name in names])
    ways = tuple(Way(name, model.ways[kind].variant) for name, kind in zip(names, which, strict=True))
    arrays = {
        each: getattr(model, each)[which] for each in ("latency_s", "energy_j", "noise", "memory_bytes")
    }
    return replace(model, fleet=fleet, ways=ways, active_power_w={}, **arrays)


def replicas() -> None:
    print(f"\n{'layers':>6}  {'devices':<22} {'s':>6}  period of one device each -> with replicas")
    cases = [("8 distinct", 20, instance(20, 8, 1, 0)), ("8 distinct", 60, instance(60, 8, 1, 0)),
             ("10 distinct", 60, instance(60, 10, 1, 0)), ("16 of one kind", 60, kinds(60, (16,), 0)),
             ("4 of each of 4 kinds", 60, kinds(60, (4, 4, 4, 4), 0))]  # fmt: skip
    for name, layers, model in cases:
        single = best_stages(Times.of(model), 1).bound
        problem = Problem.of(model, Limits())
        begun = time.perf_counter()
        found = pipeline(problem)
        passed = time.perf_counter() - begun
        gap = 1 - min(found.bound / found.period_s, 1.0)
        least = "" if found.replicas is None else f", at most {found.replicas} replicas"
        print(
            f"{layers:>6}  {name:<22} {passed:>6.2f}  {single * 1e3:.3f} -> {found.period_s * 1e3:.3f} ms, "
            f"gap {gap * 100:.2g} %{least}", flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time-limit", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only the smallest sizes")
    options = parser.parse_args()
    replicas()
    joint(options.seeds, options.time_limit, SIZES[:2] if options.quick else SIZES)


if __name__ == "__main__":
    main()
