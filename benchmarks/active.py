"""Active profiling against full tables: python benchmarks/active.py [--cpu-time] [TABLE.csv ...]

On synthetic instances, and on every fleet of two devices that the tables given allow (all of one model, complete,
one for each backend): each table as edge and as server, and all backends on both; the edge 2, 6 and 15 times
slower, links from 3G to 1 Gbit/s. Regret is how much more the plan found costs than the optimum of the full
table. --cpu-time takes the tables' processor time for the truth, which a busy machine disturbs less. Goal: at most
20 % of the bundles measured, regret 0 on 95 % of the instances and never above 2 %.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from active_instances import Truth, from_tables, random_fleet, synthetic

from planner import ProfileTable
from planner.active import active_profile
from planner.active_note import ActiveObjective
from planner.active_paths import Router
from planner.cost import Way

# Huang et al. 2012: the uplinks of 3G, 4G and WiFi; then fast WiFi or Ethernet.
RATES_MBIT = (1.1, 5.85, 18.88, 100.0, 1000.0)
SLOWDOWNS = (2.0, 6.0, 15.0)
WEIGHTS = {
    "latency": [(1.0, 0.0)],
    "energy": [(0.0, 1.0)],
    "front": [(1.0, w) for w in np.geomspace(1e-3, 1e3, 40)],
}


@dataclass
class Seen:
    shares: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    regrets: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    verified: int = 0
    violated: int = 0


def measure(truths: Iterable[Truth], objective: ActiveObjective, gap: float, verify: int) -> Seen:
    seen = Seen()
    for truth in truths:
        begun = time.perf_counter()
        result = active_profile(
            truth.chain, truth.fleet, truth.ways, truth.measure, objective=objective, gap=gap, verify=verify
        )
        seen.seconds.append(time.perf_counter() - begun)
        model = truth.model()
        place = {way: number for number, way in enumerate(model.ways)}
        router, full = Router(model), model.latency_s
        measured = np.full_like(full, np.inf)
        for row in result.rows:
            cell = place[Way(row.device, row.variant)], row.bundle.start, row.bundle.stop
            measured[cell] = full[cell]
        metered = np.full_like(full, np.nan)
        for (way, bundle), row in truth.rows.items():
            if row.energy_j is not None:
                metered[place[way], bundle.start, bundle.stop] = row.energy_j
        active = model.repriced(measured, metered)
        regrets = [
            router.route(active, weights).value / router.route(model, weights).value - 1
            for weights in WEIGHTS[objective]
        ]
        seen.regrets.append(max(regrets))
        seen.shares.append(result.share)
        seen.rounds.append(result.rounds)
        seen.verified += result.verified
        seen.violated += result.violated
    return seen


def real(files: list[Path], column: str, both: bool) -> Iterator[Truth]:
    tables = [ProfileTable.load([file]) for file in files]
    variants = [table.rows[0].variant for table in tables]
    pairs = list(itertools.permutations(range(len(tables)), 2)) or [(0, 0)]
    for number, (slow, rate) in enumerate(itertools.product(SLOWDOWNS, RATES_MBIT)):
        fleet = random_fleet(["edge", "server"], np.random.default_rng(number), rate * 1e6 / 8)
        slowdown = {"edge": slow, "server": 1.0}
        if both:
            ways = {
                Way(name, variant): table
                for name in slowdown
                for variant, table in zip(variants, tables, strict=True)
            }
            yield from_tables(ways, fleet, slowdown, column)
            continue
        for edge, server in pairs:
            chosen = {
                Way("edge", variants[edge]): tables[edge],
                Way("server", variants[server]): tables[server],
            }
            yield from_tables(chosen, fleet, slowdown, column)


def show(
    what: str, objective: ActiveObjective, truths: Iterable[Truth], gap: float = 0.0, verify: int = 0
) -> None:
    seen = measure(truths, objective, gap, verify)
    regret = np.maximum(seen.regrets, 0)
    checked = f"{seen.violated}/{seen.verified}" if verify else ""
    print(
        f"{what:22} {objective:8} {len(regret):9} {np.mean(seen.shares):7.1%} {max(seen.shares):7.1%} "
        f"{np.median(seen.rounds):7.0f} {(regret < 1e-9).mean():9.0%} {regret.max():8.2%} "
        f"{np.mean(seen.seconds):6.1f} {checked:>9}",
        flush=True,
    )


def main() -> None:
    column = "cpu_time_s" if "--cpu-time" in sys.argv else "latency_s"
    files = [Path(name) for name in sys.argv[1:] if name != "--cpu-time"]
    print(
        f"{'instances':22} {'seeking':8} {'number':>9} {'share':>7} {'most':>7} {'rounds':>7} {'regret 0':>9} "
        f"{'worst':>8} {'s':>6} {'violated':>9}"
    )
    if files:
        for objective in ("latency", "energy"):
            show("a backend each", objective, real(files, column, both=False))
        show("a backend each, verify", "latency", real(files, column, both=False), verify=10)
        if len(files) > 1:
            show("all backends on both", "latency", real(files, column, both=True))
            show("all backends, gap 1 %", "latency", real(files, column, both=True), gap=0.01)
        show("a backend each", "front", real(files, column, both=False))
        return
    for objective in ("latency", "energy"):
        show("32/4/4", objective, (synthetic(32, 4, 4, seed) for seed in range(20)))
    show("32/4/4, gap 2 %", "latency", (synthetic(32, 4, 4, seed) for seed in range(20)), gap=0.02)
    show("32/4/4, verify 20", "latency", (synthetic(32, 4, 4, seed) for seed in range(20)), verify=20)
    show("32/4/4", "front", (synthetic(32, 4, 4, seed) for seed in range(10)))
    show("64/8/12", "latency", (synthetic(64, 8, 12, seed) for seed in range(2)))
    show("64/8/12, gap 2 %", "latency", (synthetic(64, 8, 12, seed) for seed in range(2)), gap=0.02)


if __name__ == "__main__":
    main()
