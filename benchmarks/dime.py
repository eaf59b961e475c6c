"""DIME's formulation against ours, by the same CBC: python benchmarks/dime.py [--sizes 32x4x4,64x8x4] [--seeds N]

DIME's integer programme, written down here in PuLP:

    minimise    sum of time[b,d,c] x[b,d,c] + sum of hop[k,d,e] y[k,d,e] + first and last hop
    subject to  a[l,d] = sum of x[b,d,c] over the bundles b that hold layer l     which device a layer is on
                sum of a[l,d] over d = 1
                y[k,d,e] <= a[k-1,d], y[k,d,e] <= a[k,e], y[k,d,e] >= a[k-1,d] + a[k,e] - 1
                x, a binary                                                       y: the product, linearised

One x per bundle, device and clock; about a third of them hold any one layer, so the programme has a third of
layers^3 / 2 x devices x clocks non-zeros. Ours is `planner.search` over the layered graph of the same model, built
from the same arrays. Both are timed from the cost model in memory to the optimum in hand, in one run, after each
other. The optima must agree to one millionth. Bundles are made sub-additive first (no run of bundles of one variant
is quicker than their whole), so that our graph's rule, two bundles in a row on one device differ in variant, binds
nowhere. Goal at 64 x 8 x 4: at least 100 times slower than ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import pulp
from instances import instance

from planner.cost import CostModel
from planner.limits import Limits
from planner.problem import Problem
from planner.search import search

SIZES = "32x4x4,64x8x4"
MICROSECONDS = 1e6  # CBC's tolerances are absolute


def sub_additive(model: CostModel) -> CostModel:
    """The same, where no bundle takes longer than two that make it up in the same variant."""
    times, layers = model.latency_s.copy(), len(model.chain)
    for length in range(2, layers + 1):
        for start in range(layers - length + 1):
            stop = start + length
            parts = times[:, start, start + 1 : stop] + times[:, start + 1 : stop, stop]
            times[:, start, stop] = np.minimum(times[:, start, stop], parts.min(axis=1))
    return replace(model, latency_s=times)


def dime(model: CostModel) -> tuple[pulp.LpProblem, int]:
    """The programme, and its non-zeros."""
    layers, names = len(model.chain), [device.name for device in model.fleet.devices]
    programme, terms, non_zeros = pulp.LpProblem("dime", pulp.LpMinimize), [], 0
    holds: dict[tuple[int, str], list[pulp.LpVariable]] = {(k, d): [] for k in range(layers) for d in names}
    for place, way in enumerate(model.ways):
        for start in range(layers):
            for stop in range(start + 1, layers + 1):
                x = programme.add_variable(f"x_{place}_{start}_{stop}", 0, 1, pulp.LpBinary)
                terms.append((x, float(model.latency_s[place, start, stop]) * MICROSECONDS))
                for layer in range(start, stop):
                    holds[layer, way.device].append(x)
    on = {key: programme.add_variable(f"a_{key[0]}_{key[1]}", 0, 1, pulp.LpBinary) for key in holds}
    for key, bundles in holds.items():
        programme.addConstraint(pulp.LpAffineExpression([*((x, 1) for x in bundles), (on[key], -1)]) == 0)
        non_zeros += len(bundles) + 1
    for layer in range(layers):
        programme.addConstraint(pulp.LpAffineExpression([(on[layer, name], 1) for name in names]) == 1)
        non_zeros += len(names)
    hops = {
        (k, hop.route[0], hop.route[-1]): hop.cost.latency_s * MICROSECONDS
        for k in range(layers + 1)
        for source in names
        for hop in model.hops(k, source)
    }
    source, sink = model.fleet.source, model.fleet.sink
    terms += [(on[0, name], hops[0, source, name]) for name in names if name != source]
    terms += [(on[layers - 1, name], hops[layers, name, sink]) for name in names if name != sink]
    for k in range(1, layers):
        for one in names:
            for other in names:
                if one == other:
                    continue
                y = programme.add_variable(f"y_{k}_{one}_{other}", 0, 1)
                terms.append((y, hops[k, one, other]))
                before, after = on[k - 1, one], on[k, other]
                for pairs, sense, right in (
                    ([(y, 1), (before, -1)], pulp.LpConstraintLE, 0),
                    ([(y, 1), (after, -1)], pulp.LpConstraintLE, 0),
                    ([(y, 1), (before, -1), (after, -1)], pulp.LpConstraintGE, -1),
                ):
                    programme.addConstraint(
                        pulp.LpConstraint(pulp.LpAffineExpression(pairs), sense, rhs=right)
                    )
                    non_zeros += len(pairs)
    programme.setObjective(pulp.LpAffineExpression(terms))
    return programme, non_zeros


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default=SIZES, help="layers x devices x clocks, joined by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds for DIME's programme")
    options = parser.parse_args()
    heads = ("size", "seed", "non-zeros", "DIME build s", "DIME solve s", "ours s", "ratio", "optimum ms")
    print(" ".join(f"{head:>13}" for head in heads), flush=True)
    for size in options.sizes.split(","):
        layers, devices, clocks = map(int, size.split("x"))
        ratios = []
        for seed in range(options.seeds):
            model = sub_additive(instance(layers, devices, clocks, seed))
            begun = time.perf_counter()
            problem = Problem.of(model, Limits())
            ours = search(problem, {"latency": 1.0})
            ours_s = time.perf_counter() - begun
            value = float(problem.weight({"latency": 1.0})[ours.arcs].sum())

            begun = time.perf_counter()
            programme, non_zeros = dime(model)
            built_s = time.perf_counter() - begun
            programme.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=options.time_limit, threads=1, gapRel=0.0))
            solved_s = time.perf_counter() - begun - built_s
            proven = programme.sol_status == pulp.LpSolutionOptimal
            theirs = pulp.value(programme.objective) / MICROSECONDS
            if proven and abs(theirs / value - 1) > 1e-6:
                raise SystemExit(f"{size} seed {seed}: DIME's optimum {theirs}, ours {value}")
            ratios.append((built_s + solved_s) / ours_s)
            note = "" if proven else " (stopped by its time limit)"
            print(
                f"{size:>13} {seed:>13} {non_zeros:>13,} {built_s:>13.2f} {solved_s:>13.2f} {ours_s:>13.3f} "
                f"{ratios[-1]:>13.0f} {value * 1e3:>13.3f}{note}",
                flush=True,
            )
        print(
            f"{size}: DIME's formulation takes {statistics.median(ratios):.0f} times as long (median)",
            flush=True,
        )


if __name__ == "__main__":
    main()
