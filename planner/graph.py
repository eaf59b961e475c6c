"""The layered graph: every plan is a path through it, and every path is a plan.

For boundary k, device d and each variant v of d::

    arrived(k,d) ──> before(k,v) ──bundle [k,j)──> after(j,v) ──> done(j,d) ──hop──> arrived(j,e)
                         ^                             |
                         └──── another variant u ──────┘   after(k,u) ──> before(k,v)

The path starts at done(0, source), which may compute there or hop first, and ends at
arrived(n, sink). Hops lead from `done` to `arrived` only, so no two follow each other. Two bundles
in a row on one device differ in variant: joined they are one bundle, which is measured itself.
Both rules are in the nodes, not in side constraints, so without budgets the relaxation is a shortest
path and integral.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle
from planner.cost import CostModel, Criterion, FloatArray
from planner.errors import SolverError
from planner.plan import Hop, Stage

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Graph:
    """Arcs as arrays of one length; hops come first, then bundles, then the free arcs between states.

    ``tail`` and ``head`` are nodes, numbered so that every arc leads upwards. ``weight`` maps
    "latency" to seconds, "energy" to joules and "noise" to noise-to-signal power. ``parts`` of the arcs are
    hops or bundles.
    """

    model: CostModel
    hops: tuple[Hop, ...]
    tail: IntArray
    head: IntArray
    weight: dict[Criterion, FloatArray]
    parts: int
    start: int
    end: int

    @staticmethod
    def of(model: CostModel) -> Graph:
        nodes = _Nodes(model)
        hops = tuple(_hops(model))
        hop_tail = [hop.boundary * nodes.size + nodes.done[hop.route[0]] for hop in hops]
        hop_head = [hop.boundary * nodes.size + nodes.arrived[hop.route[-1]] for hop in hops]

        layers, ways = len(model.chain), np.arange(len(model.ways))
        starts, stops = np.triu_indices(layers, k=1, m=layers + 1)
        bundle_tail = np.add.outer(nodes.before + ways, starts * nodes.size).ravel()
        bundle_head = np.add.outer(nodes.after + ways, stops * nodes.size).ravel()

        free_tail, free_head = nodes.free_arcs(layers)
        free = np.zeros(free_tail.size)
        costs = [hop.cost for hop in hops]
        return Graph(
            model,
            hops,
            np.concatenate([np.array(hop_tail, dtype=np.int64), bundle_tail, free_tail]),
            np.concatenate([np.array(hop_head, dtype=np.int64), bundle_head, free_head]),
            {
                "latency": np.concatenate(
                    [[cost.latency_s for cost in costs], model.latency_s[:, starts, stops].ravel(), free]
                ),
                "energy": np.concatenate(
                    [[cost.energy_j for cost in costs], model.energy_j[:, starts, stops].ravel(), free]
                ),
                "noise": np.concatenate(
                    [[cost.noise for cost in costs], model.noise[:, starts, stops].ravel(), free]
                ),
            },
            parts=len(hops) + bundle_tail.size,
            start=nodes.done[model.fleet.source],
            end=layers * nodes.size + nodes.arrived[model.fleet.sink],
        )

    def least_through(self, criterion: Criterion) -> FloatArray:
        """For each arc the least that a path from start to end through it weighs; inf for none.

        An arc that weighs more than a limit here is in no plan that keeps the limit.
        """
        weight, end = self.weight[criterion], self.end
        ahead = _distances(self.tail, self.head, weight, self.start, end)
        # The way back is the way ahead in the mirrored graph.
        behind = _distances(end - self.head, end - self.tail, weight, 0, end)
        return ahead[self.tail] + weight + behind[end - self.head]

    def decode(self, arcs: IntArray) -> tuple[tuple[Stage, ...], tuple[Hop, ...]]:
        """The stages and hops of a path, given as its arcs in any order."""
        path = arcs[np.argsort(self.tail[arcs])]
        nodes = [self.start, *self.head[path].tolist()]
        if nodes[:-1] != self.tail[path].tolist() or nodes[-1] != self.end:
            raise SolverError("the solver chose arcs that do not join into one path")
        stages, hops = [], []
        bundles = len(self.model.chain) * (len(self.model.chain) + 1) // 2
        starts, stops = np.triu_indices(len(self.model.chain), k=1, m=len(self.model.chain) + 1)
        for arc in path.tolist():
            if arc < len(self.hops):
                hops.append(self.hops[arc])
            elif arc < self.parts:
                way, bundle = divmod(arc - len(self.hops), bundles)
                device, variant = self.model.ways[way]
                stages.append(
                    self.model.stage(device, Bundle(int(starts[bundle]), int(stops[bundle])), variant)
                )
        return tuple(stages), tuple(hops)


class _Nodes:
    """Numbers: boundary k has nodes k x size + offset, the four states in the order of travel."""

    def __init__(self, model: CostModel) -> None:
        names = [device.name for device in model.fleet.devices]
        self.fleet = model.fleet
        self.device = np.array([names.index(way.device) for way in model.ways], dtype=np.int64)
        ways = len(model.ways)
        self.after = 0
        self.done = {name: ways + place for place, name in enumerate(names)}
        self.arrived = {name: ways + len(names) + place for place, name in enumerate(names)}
        self.before = ways + 2 * len(names)
        self.size = 2 * ways + 2 * len(names)

    def free_arcs(self, layers: int) -> tuple[IntArray, IntArray]:
        ways, size = np.arange(self.device.size), self.size
        done, arrived = (np.array([*which.values()])[self.device] for which in (self.done, self.arrived))
        same_device = self.device[:, None] == self.device
        old, new = np.nonzero(same_device & ~np.eye(ways.size, dtype=bool))
        first, last = self.fleet.source, self.fleet.sink
        groups = [
            (np.arange(layers), arrived, self.before + ways),
            (np.arange(1, layers), self.after + old, self.before + new),
            (np.arange(1, layers + 1), self.after + ways, done),
            (np.array([0]), np.array([self.done[first]]), np.array([self.arrived[first]])),
            (np.array([layers]), np.array([self.done[last]]), np.array([self.arrived[last]])),
        ]
        tails = [np.add.outer(boundaries * size, tail).ravel() for boundaries, tail, _ in groups]
        heads = [np.add.outer(boundaries * size, head).ravel() for boundaries, _, head in groups]
        return np.concatenate(tails), np.concatenate(heads)


def _hops(model: CostModel) -> Iterable[Hop]:
    """The hops a plan can use: between devices that compute, from the source, to the sink."""
    computing = list(dict.fromkeys(way.device for way in model.ways))
    last = len(model.chain)
    for boundary in range(last + 1):
        targets = {model.fleet.sink} if boundary == last else set(computing)
        for source in computing if boundary else [model.fleet.source]:
            yield from (hop for hop in model.hops(boundary, source) if hop.route[-1] in targets)


def _distances(tail: IntArray, head: IntArray, weight: FloatArray, start: int, last: int) -> FloatArray:
    """Shortest distances from ``start`` to nodes 0..last, where every arc leads upwards."""
    order = np.argsort(head, kind="stable")
    first = np.searchsorted(head[order], np.arange(last + 2))
    distance = np.full(last + 1, np.inf)
    distance[start] = 0.0
    for node in range(start + 1, last + 1):
        arcs = order[first[node] : first[node + 1]]
        if arcs.size:
            distance[node] = (distance[tail[arcs]] + weight[arcs]).min()
    return distance
