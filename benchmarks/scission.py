"""Scission's benchmarks, every model and network: python benchmarks/scission.py [DATA]

DATA: a folder of MODEL.csv and network.csv as `edgecut import scission` reads them; left out,
$EDGECUT_SHARED_DATA/scission. Scission tries every split: the first layers on the device, then some on one edge
machine, then the rest on one cloud machine, each part or two of them left out; the answer stays where the last
layer ran. Its way is followed here in plain Python: for each edge and cloud machine every split, each block added
up layer by layer, its layers and its description kept. Ours is the layered graph of the imported table, and one
solve with its proof. A free link from every machine to a place of its own stands for an answer that stays where it
is.

Checked: the optimum, and the ten best plans, over all machines, and over each two and three of them. The ten best
are found here, by extending paths backwards from the end in the order of what they weigh at least, which is exact
once the lightest way to each node is known (A*, Hart, Nilsson and Raphael 1968); `edgecut explain` lists runners-up
under limits too. Times are the shortest of three. Limit: over all machines the ten best at least 100 times faster
than enumerating, from the graph in memory.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from planner.cost import CostModel, FloatArray
from planner.fleet import Device, Fleet, Link
from planner.graph import Graph, IntArray
from planner.imports.result import INSTANT_S, Import
from planner.imports.scission import read_scission
from planner.limits import Limits
from planner.problem import Problem
from planner.search import search
from planner.table import ProfileTable

COUNT = 10
END = "answer"
DEVICE = "raspi4"
EDGES, CLOUDS = ("edge_i5_2500", "edge_vm2core"), ("cloud_6700k_gpu", "cloud_6700k_cpu")
# Of a plan: its seconds, and the device, first layer and layer after the last of each of its blocks.
Blocks = tuple[tuple[str, int, int], ...]
Ranked = tuple[float, Blocks]
T = TypeVar("T")


@dataclass(frozen=True)
class Timed:
    """Seconds, and whether both ways list the same."""

    model: str
    network: str
    machines: int
    layers: int
    plans: int
    enumerating_s: float
    building_s: float
    solving_s: float
    listing_s: float
    same: bool


# Their way -----------------------------------------------------------------------------------------------


def enumerated(found: Import, names: tuple[str, ...]) -> list[Ranked]:
    """Every plan over these machines, the best first."""
    fleet, count = found.fleet, len(found.chain)
    assert fleet is not None
    links = {link.pair: (link.latency_s, link.bandwidth_bytes_per_s) for link in fleet.links}
    sizes = [found.chain.wire_bytes(boundary) for boundary in range(count + 1)]
    layer_s: dict[str, list[float]] = {}
    for table in found.tables:
        single = {row.bundle.start: row.latency_s for row in table.rows if len(row.bundle) == 1}
        layer_s[table.device] = [0.0 if single[k] == INSTANT_S else single[k] for k in range(count)]
    splits = list(itertools.combinations_with_replacement(range(count + 1), 2))
    edges: tuple[str | None, ...] = tuple(name for name in EDGES if name in names) or (None,)
    clouds: tuple[str | None, ...] = tuple(name for name in CLOUDS if name in names) or (None,)
    scenarios: dict[str, tuple[float, Blocks, list[tuple[int, float]]]] = {}
    for edge, cloud in itertools.product(edges, clouds):
        for first, second in splits:
            parts = ((DEVICE, 0, first), (edge, first, second), (cloud, second, count))
            if any(name is None and start < stop for name, start, stop in parts):
                continue
            blocks = tuple((name, start, stop) for name, start, stop in parts if name and start < stop)
            total, at, layers = 0.0, DEVICE, []
            for name, start, stop in blocks:
                if name != at:
                    ping_s, speed = links[at, name]
                    total += ping_s + sizes[start] / speed
                    at = name
                block_s = 0.0
                for layer in range(start, stop):
                    block_s += layer_s[name][layer]
                    layers.append((layer, layer_s[name][layer]))
                total += block_s or INSTANT_S
            text = ", ".join(f"{name} = {start} - {stop - 1}" for name, start, stop in blocks)
            scenarios[text] = (total, blocks, layers)
    return sorted((total, blocks) for total, blocks, _ in scenarios.values())


# Our way -------------------------------------------------------------------------------------------------


def cost_model(found: Import, names: tuple[str, ...]) -> CostModel:
    fleet = found.fleet
    assert fleet is not None
    links = [link for link in fleet.links if {*link.pair} <= {*names}]
    links += [Link(name, END, float("inf")) for name in names]
    devices = (*(Device(name) for name in names), Device(END))
    rows = tuple(row for table in found.tables if table.device in names for row in table.rows)
    table = ProfileTable(found.chain, rows)
    return CostModel.of(found.chain, Fleet(DEVICE, END, devices, tuple(links)), table.rows, 1)


def best_paths(graph: Graph, weight: FloatArray, count: int) -> list[IntArray]:
    """The lightest paths, the best first."""
    ahead = graph.ahead(weight)
    into = np.searchsorted(graph.head, np.arange(graph.levels[-1] + 1))
    found: list[IntArray] = []
    heap = [(float(ahead[graph.last]), 0, 0.0, graph.last, ())]
    ticket = 1
    while heap and len(found) < count:
        _, _, behind, node, arcs = heapq.heappop(heap)
        if node == graph.first:
            found.append(np.array(arcs, dtype=np.int64))
            continue
        low, high = into[node], into[node + 1]
        least = ahead[graph.tail[low:high]] + weight[low:high] + behind
        few = np.argpartition(least, count)[:count] if least.size > count else np.arange(least.size)
        for place in few[np.isfinite(least[few])].tolist():
            arc = int(low) + place
            further = (float(least[place]), ticket, behind + float(weight[arc]), int(graph.tail[arc]))
            heapq.heappush(heap, (*further, (arc, *arcs)))
            ticket += 1
    return found


def listed(graph: Graph) -> list[Ranked]:
    weight = graph.weight["latency"]
    ranked = []
    for path in best_paths(graph, weight, COUNT):
        stages = path[graph.way[path] >= 0]
        blocks = tuple(
            (graph.model.ways[graph.way[arc]].device, int(graph.start[arc]), int(graph.stop[arc]))
            for arc in stages
        )
        ranked.append((float(weight[path].sum()), blocks))
    return ranked


def same(ours: list[Ranked], theirs: list[Ranked]) -> bool:
    """Whether these are their best: the same seconds in order, and each a plan of theirs with those seconds."""
    known = {blocks: total for total, blocks in theirs}
    close = [abs(a - b) <= 1e-9 * b for (a, _), (b, _) in zip(ours, theirs, strict=False)]
    plans = [blocks in known and abs(known[blocks] - total) <= 1e-9 * total for total, blocks in ours]
    whole = len(ours) == min(COUNT, len(theirs)) == len({blocks for _, blocks in ours})
    return whole and all(close) and all(plans)


def compare(model: str, network: str, found: Import, names: tuple[str, ...]) -> Timed:
    theirs, enumerating_s = timed(lambda: enumerated(found, names))
    problem, building_s = timed(lambda: Problem.of(cost_model(found, names), Limits()))
    best, solving_s = timed(lambda: search(problem, {"latency": 1.0}))
    ours, listing_s = timed(lambda: listed(problem.graph))
    value = float(problem.graph.weight["latency"][best.arcs].sum())
    agree = same(ours, theirs) and abs(value - theirs[0][0]) <= 1e-9 * value
    spans = enumerating_s, building_s, solving_s, listing_s
    return Timed(model, network, len(names), len(found.chain), len(theirs), *spans, agree)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the shortest of three times."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begun)
    return result, min(seconds)


# The table -----------------------------------------------------------------------------------------------


def networks(found: Import) -> dict[str, Fleet]:
    """The network as published, and a wired one: 20 Mbit/s and shorter pings from the device."""
    fleet = found.fleet
    assert fleet is not None
    pings = dict.fromkeys(EDGES, 20e-3) | dict.fromkeys(CLOUDS, 45e-3)
    links = tuple(
        Link(DEVICE, link.target, 2.5e6, pings[link.target]) if link.source == DEVICE else link
        for link in fleet.links
    )
    return {"mobile": fleet, "wired": replace(fleet, links=links)}


def subsets() -> list[tuple[str, ...]]:
    """All machines, and each two and three of different tiers, the device among them."""
    pairs = [(DEVICE, other) for other in (*EDGES, *CLOUDS)]
    triples = [(DEVICE, *others) for others in itertools.product(EDGES, CLOUDS)]
    return [(DEVICE, *EDGES, *CLOUDS), *triples, *pairs]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside = Path(os.environ.get("EDGECUT_SHARED_DATA", Path(__file__).parent.parent.parent / "shared/data"))
    parser.add_argument("data", nargs="?", type=Path, default=beside / "scission")
    data = parser.parse_args().data
    results = []
    print(f"{'model':14}{'network':8}{'layers':>7}{'plans':>7}{'enumerating ms':>16}{'top 10 ms':>11}{'ratio':>7}"
          f"{'graph ms':>10}{'solve ms':>10}  top 10")  # fmt: skip
    for file in sorted(data.glob("*.csv")):
        if file.stem == "network":
            continue
        imported = read_scission([file], network=data / "network.csv", sink=CLOUDS[0])
        for network, fleet in networks(imported).items():
            found = replace(imported, fleet=fleet)
            for names in subsets():
                results.append(compare(file.stem, network, found, names))
                if results[-1].machines == 5:
                    show(results[-1])
    for machines in (5, 3, 2):
        total(machines, [each for each in results if each.machines == machines])


def show(each: Timed) -> None:
    print(
        f"{each.model:14}{each.network:8}{each.layers:7}{each.plans:7}{each.enumerating_s * 1e3:16.1f}"
        f"{each.listing_s * 1e3:11.2f}{each.enumerating_s / each.listing_s:7.0f}{each.building_s * 1e3:10.1f}"
        f"{each.solving_s * 1e3:10.1f}  {'equal' if each.same else 'DIFFERENT'}",
        flush=True,
    )


def total(machines: int, results: list[Timed]) -> None:
    enumerating, listing = (
        sum(getattr(each, name) for each in results) for name in ("enumerating_s", "listing_s")
    )
    whole = listing + sum(each.building_s + each.solving_s for each in results)
    equal = sum(each.same for each in results)
    print(
        f"{machines} machines: {equal} of {len(results)} lists and optima equal; enumerating {enumerating:.2f} s, the "
        f"ten best {listing * 1e3:.0f} ms, {enumerating / listing:.0f} times faster; with the graph built and the "
        f"optimum proved {whole:.2f} s, {enumerating / whole:.1f} times"
    )


if __name__ == "__main__":
    main()
