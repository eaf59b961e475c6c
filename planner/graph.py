"""The layered graph: every plan is a path through it, and every path is a plan.

For boundary k, device d and each variant v of d::

    arrived(k,d) ──> before(k,v) ──bundle [k,j)──> after(j,v) ──> done(j,d) ──hop──> arrived(j,e)
                         ^                             |
                         └──── another variant u ──────┘   after(k,u) ──> before(k,v)

The path starts at done(0, source), which may compute there or hop first, and ends at
arrived(n, sink). Hops lead from `done` to `arrived` only, so no two follow each other. Two bundles
in a row on one device differ in variant: joined they are one bundle, which is measured itself. Where a
limit on the layers of a bundle forbids joining them, they may be of one variant.
Both rules are in the nodes, not in side constraints, so without budgets the relaxation is a shortest
path and integral.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle
from planner.cost import CostModel, FloatArray
from planner.errors import SolverError
from planner.limits import CRITERIA, Criterion
from planner.plan import Hop, Stage

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
_COLUMNS = ("tail", "head", "way", "start", "stop", "hop")


@dataclass(frozen=True, eq=False)
class Graph:
    """Arcs as arrays of one length, ordered by head.

    ``tail`` and ``head`` are nodes, numbered so that every arc leads upwards; between the nodes of one of the
    ``levels`` (first nodes, and the number of nodes) there are no arcs. ``way``, ``start`` and ``stop`` say
    which bundle an arc is, ``hop`` its place in ``hops``; they are -1 elsewhere. ``weight``: by criterion, in
    its unit. ``joins``: bundles of one variant may follow each other.
    """

    model: CostModel
    hops: tuple[Hop, ...]
    tail: IntArray
    head: IntArray
    way: IntArray
    start: IntArray
    stop: IntArray
    hop: IntArray
    weight: dict[Criterion, FloatArray]
    levels: IntArray
    first: int
    last: int
    joins: bool

    @staticmethod
    def of(
        model: CostModel,
        usable: BoolArray | None = None,
        *,
        joins: bool = False,
        every_codec: bool = False,
    ) -> Graph:
        """The graph of the bundles that are ``usable`` (shape (ways, layers, layers + 1); left out, all that can
        run). ``joins``: bundles of one variant may follow each other. ``every_codec``: as ``CostModel.hops``."""
        nodes = _Nodes(model)
        hops = tuple(_hops(model, every_codec))
        can = np.isfinite(model.latency_s) & np.isfinite(model.energy_j)
        can &= np.triu(np.ones(can.shape[1:], dtype=bool), k=1)
        way, start, stop = np.nonzero(can if usable is None else can & usable)
        hop_tail = [hop.boundary * nodes.size + nodes.done[hop.route[0]] for hop in hops]
        hop_head = [hop.boundary * nodes.size + nodes.arrived[hop.route[-1]] for hop in hops]
        free_tail, free_head = nodes.free_arcs(len(model.chain), joins)
        none = np.full(free_tail.size, -1)

        tail = np.concatenate([hop_tail, start * nodes.size + nodes.before + way, free_tail]).astype(np.int64)
        head = np.concatenate([hop_head, stop * nodes.size + nodes.after + way, free_head]).astype(np.int64)
        order = np.argsort(head, kind="stable")
        no_hop = np.full(len(hops), -1)
        columns = [
            np.concatenate([no_hop, column, none])[order].astype(np.int64) for column in (way, start, stop)
        ]
        weight: dict[Criterion, FloatArray] = {}
        for place, criterion in enumerate(CRITERIA):
            of_hops = [hop.cost.values[place] for hop in hops]
            of_bundles = model.bundle_cost(criterion)[way, start, stop]
            joined = np.concatenate([of_hops, of_bundles, np.zeros(free_tail.size)])
            # An array of zeros that takes no memory.
            weight[criterion] = joined[order] if joined.any() else np.broadcast_to(0.0, order.size)
        which_hop = np.concatenate([np.arange(len(hops)), np.full(way.size, -1), none])[order]
        return Graph(
            model=model,
            hops=hops,
            tail=tail[order],
            head=head[order],
            way=columns[0],
            start=columns[1],
            stop=columns[2],
            hop=which_hop.astype(np.int64),
            weight=weight,
            levels=nodes.levels(len(model.chain)),
            first=nodes.done[model.fleet.source],
            last=len(model.chain) * nodes.size + nodes.arrived[model.fleet.sink],
            joins=joins,
        )

    @property
    def arcs(self) -> int:
        return self.tail.size

    @functools.cached_property
    def device(self) -> IntArray:
        """Of each arc the place in the fleet of the device that computes it, -1 where none does."""
        names = [device.name for device in self.model.fleet.devices]
        of_way = np.array([*(names.index(way.device) for way in self.model.ways), -1], dtype=np.int64)
        return of_way[self.way]

    @functools.cached_property
    def node_device(self) -> IntArray:
        """Of each node the place in the fleet of the device it belongs to."""
        nodes = _Nodes(self.model)
        names = np.arange(len(self.model.fleet.devices))
        each = np.concatenate([nodes.device, names, names, nodes.device])
        return np.tile(each, len(self.model.chain) + 1)

    @functools.cached_property
    def parts(self) -> FloatArray:
        """1 for each arc that is a stage or a hop."""
        return ((self.way >= 0) | (self.hop >= 0)).astype(float)

    def restricted(self, keep: BoolArray) -> Graph:
        """The graph of the arcs that ``keep`` marks, in the same order, with the same nodes."""
        return self._ordered(np.flatnonzero(keep))

    def _ordered(self, places: IntArray) -> Graph:
        columns = {name: getattr(self, name)[places] for name in _COLUMNS}
        weight = {
            name: values[places] if values.strides[0] else values[: places.size]
            for name, values in self.weight.items()
        }
        return replace(self, weight=weight, **columns)

    def mirrored(self) -> tuple[Graph, IntArray]:
        """The graph whose paths run the other way, and of each of its arcs the place in this one."""
        nodes = int(self.levels[-1])
        order = np.argsort(-self.tail, kind="stable")
        mirrored = replace(
            self._ordered(order), tail=nodes - 1 - self.head[order], head=nodes - 1 - self.tail[order],
            levels=nodes - self.levels[::-1], first=nodes - 1 - self.last, last=nodes - 1 - self.first,
        )  # fmt: skip
        return mirrored, order

    def ahead(self, weight: FloatArray) -> FloatArray:
        """The weight of the lightest path from the first node to each."""
        distance = np.full(self.levels[-1], np.inf)
        distance[self.first] = 0.0
        for span, groups, nodes in self.spans:
            values = distance[self.tail[span]] + weight[span]
            distance[nodes] = np.minimum(distance[nodes], np.minimum.reduceat(values, groups))
        return distance

    def behind(self, weight: FloatArray) -> FloatArray:
        """The weight of the lightest path from each node to the last."""
        distance = np.full(self.levels[-1], np.inf)
        distance[self.last] = 0.0
        order, spans = self.by_tail
        head, weight = self.head[order], weight[order]
        for span, groups, nodes in reversed(spans):
            values = distance[head[span]] + weight[span]
            distance[nodes] = np.minimum(distance[nodes], np.minimum.reduceat(values, groups))
        return distance

    def through(self, weight: FloatArray) -> FloatArray:
        """For each arc the least that a path from first to last through it weighs; inf for none."""
        through: FloatArray = self.ahead(weight)[self.tail] + weight + self.behind(weight)[self.head]
        return through

    def path(self, weight: FloatArray, ahead: FloatArray | None = None) -> IntArray | None:
        """The arcs of a lightest path, in order; None where there is no path. Of equals, the first arc by order."""
        ahead = self.ahead(weight) if ahead is None else ahead
        if not np.isfinite(ahead[self.last]):
            return None
        node, arcs = self.last, []
        first = self._first_into
        while node != self.first:
            into = slice(first[node], first[node + 1])
            arcs.append(into.start + int(np.argmin(ahead[self.tail[into]] + weight[into])))
            node = int(self.tail[arcs[-1]])
        return np.array(arcs[::-1], dtype=np.int64)

    @functools.cached_property
    def _first_into(self) -> IntArray:
        return np.searchsorted(self.head, np.arange(self.levels[-1] + 1)).astype(np.int64)

    @functools.cached_property
    def spans(self) -> list[tuple[slice, IntArray, IntArray]]:
        """For each level that arcs lead into: the arcs, where each node's begin among them, and the nodes."""
        return _spans(self.head, self.levels)

    @functools.cached_property
    def by_tail(self) -> tuple[IntArray, list[tuple[slice, IntArray, IntArray]]]:
        """The arcs ordered by tail, and as ``spans`` where those out of each level are among them."""
        order = np.argsort(self.tail, kind="stable")
        return order, _spans(self.tail[order], self.levels)

    def decode(self, arcs: IntArray) -> tuple[tuple[Stage, ...], tuple[Hop, ...]]:
        """The stages and hops of a path, given as its arcs in any order."""
        path = arcs[np.argsort(self.tail[arcs])]
        nodes = [self.first, *self.head[path].tolist()]
        if nodes[:-1] != self.tail[path].tolist() or nodes[-1] != self.last:
            raise SolverError("the solver chose arcs that do not join into one path")
        stages, hops = [], []
        for arc in path.tolist():
            if self.hop[arc] >= 0:
                hops.append(self.hops[self.hop[arc]])
            elif self.way[arc] >= 0:
                device, variant = self.model.ways[self.way[arc]]
                bundle = Bundle(int(self.start[arc]), int(self.stop[arc]))
                stages.append(self.model.stage(device, bundle, variant))
        return tuple(stages), tuple(hops)


def _spans(nodes: IntArray, levels: IntArray) -> list[tuple[slice, IntArray, IntArray]]:
    """For each level that has arcs: where its arcs are, where each node's begin among them, and the nodes.

    ``nodes``: ascending, one end of each arc.
    """
    starts = np.flatnonzero(np.diff(nodes, prepend=-1))
    edges = np.searchsorted(nodes, levels)
    groups = np.searchsorted(starts, edges)
    return [
        (slice(low, high), starts[begin:end] - low, nodes[starts[begin:end]])
        for low, high, begin, end in zip(edges, edges[1:], groups, groups[1:], strict=False)
        if high > low
    ]


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

    def levels(self, layers: int) -> IntArray:
        """The first node of each state at each boundary, in order, and the number of nodes."""
        offsets = [self.after, min(self.done.values()), min(self.arrived.values()), self.before]
        firsts = np.add.outer(np.arange(layers + 1) * self.size, offsets).ravel()
        return np.append(firsts, (layers + 1) * self.size).astype(np.int64)

    def free_arcs(self, layers: int, joins: bool) -> tuple[IntArray, IntArray]:
        ways, size = np.arange(self.device.size), self.size
        done, arrived = (np.array([*which.values()])[self.device] for which in (self.done, self.arrived))
        same_device = self.device[:, None] == self.device
        old, new = np.nonzero(same_device & (joins | ~np.eye(ways.size, dtype=bool)))
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


def _hops(model: CostModel, every_codec: bool) -> Iterable[Hop]:
    """The hops a plan can use: between devices that compute, from the source, to the sink."""
    computing = list(dict.fromkeys(way.device for way in model.ways))
    last = len(model.chain)
    for boundary in range(last + 1):
        targets = {model.fleet.sink} if boundary == last else set(computing)
        for source in computing if boundary else [model.fleet.source]:
            found = model.hops(boundary, source, every_codec=every_codec)
            yield from (hop for hop in found if hop.route[-1] in targets)
