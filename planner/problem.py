"""A plan's question as arithmetic: the layered graph, and the sums over a path that limits keep down.

Every limit is one of three kinds: arcs that may not be used at all, which are left out of the graph; a
``Resource``, a sum over the arcs of the path that must not exceed its ceiling; or the one clock of a device,
a choice that all its stages share.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack

from planner.cost import ROUNDING, CostModel, FloatArray, ceilings
from planner.fleet import Link
from planner.graph import BoolArray, Graph, IntArray
from planner.limits import Criterion, Limits
from planner.placement import check_names, memory_ceiling, usable
from planner.plan import Hop


@dataclass(frozen=True)
class Resource:
    """A sum over a path with a ``ceiling`` (rounding allowed for), in the unit of what it sums.

    ``limit`` is the field of ``Limits`` that asks for it, ``item`` the device or link where that has several,
    ``unit`` what it counts: s, J, bytes, ...
    """

    limit: str
    item: str
    unit: str
    ceiling: float

    def __str__(self) -> str:
        return f"{self.limit} of {self.item}" if self.item else self.limit


@dataclass(frozen=True, eq=False)
class Problem:
    """``loads``: shape (resources, arcs), what each arc adds to each resource. ``clock``: of each arc a number per
    device and clock where a device must keep to one, -1 elsewhere; ``clock_device`` gives that number's device."""

    graph: Graph
    resources: tuple[Resource, ...]
    loads: csr_array
    clock: IntArray
    clock_device: IntArray

    @functools.cached_property
    def ceilings(self) -> FloatArray:
        return np.array([each.ceiling for each in self.resources], dtype=float)

    @staticmethod
    def of(model: CostModel, limits: Limits) -> Problem:
        """Raises ``UnknownNameError`` for a device that is not there, ``InputError`` for what contradicts itself or
        the table."""
        check_names(model, limits)
        # A share of the latency also falls where something else takes longer.
        graph = Graph.of(
            model, usable(model, limits), joins=limits.max_bundle_layers is not None,
            every_codec=bool(limits.max_share),
        )  # fmt: skip
        rows = [row for row in _rows(graph, limits) if row[1].size]
        resources = tuple(resource for resource, _, _ in rows)
        places = [np.full(arcs.size, place) for place, (_, arcs, _) in enumerate(rows)]
        shape = len(rows), graph.arcs
        if rows:
            parts = [
                np.concatenate(part) for part in (places, [a for _, a, _ in rows], [v for *_, v in rows])
            ]
            loads = coo_array((parts[2], (parts[0], parts[1])), shape=shape).tocsr()
            loads.eliminate_zeros()
        else:
            loads = csr_array(shape)
        return Problem(graph, resources, loads, *_clocks(graph, limits))

    def restricted(self, keep: BoolArray) -> Problem:
        """The same question over the arcs that ``keep`` marks."""
        return replace(
            self, graph=self.graph.restricted(keep), loads=self.loads[:, np.flatnonzero(keep)],
            clock=self.clock[keep],
        )  # fmt: skip

    def tracking(self, rows: IntArray) -> Problem:
        """The same question with some of the resources only."""
        resources = tuple(self.resources[row] for row in rows.tolist())
        return replace(self, resources=resources, loads=self.loads[rows])

    def any_clock(self) -> Problem:
        """The same question where devices may change their clocks."""
        return replace(self, clock=np.full(self.clock.size, -1), clock_device=np.zeros(0, dtype=np.int64))

    def also(self, resource: Resource, load: FloatArray) -> Problem:
        """The problem with one more sum that must stay within its ceiling, the last."""
        loads = vstack([self.loads, csr_array(load.reshape(1, -1))], format="csr")
        return replace(self, resources=(*self.resources, resource), loads=loads)

    def mirrored(self) -> tuple[Problem, IntArray]:
        """The same question from the last node to the first, and of each arc the place in this one."""
        graph, order = self.graph.mirrored()
        return replace(self, graph=graph, loads=self.loads[:, order], clock=self.clock[order]), order

    def used(self, arcs: IntArray) -> FloatArray:
        """What a path takes of each resource."""
        if not self.resources:
            return np.zeros(0)
        return np.asarray(self.loads[:, arcs].sum(axis=1), dtype=float).ravel()

    def kept(self, arcs: IntArray) -> bool:
        """Whether a path keeps every limit."""
        chosen = self.clock[arcs]
        clocks = np.unique(chosen[chosen >= 0])
        one_each = np.unique(self.clock_device[clocks]).size == clocks.size
        return bool((self.used(arcs) <= self.ceilings).all()) and one_each

    def weight(self, weights: dict[Criterion, float] | FloatArray) -> FloatArray:
        """The weighted sum of criteria of every arc; an array is that already."""
        if isinstance(weights, np.ndarray):
            return weights
        total = np.zeros(self.graph.arcs)
        for criterion, factor in weights.items():
            total = total + factor * self.graph.weight[criterion]
        return total


def _rows(graph: Graph, limits: Limits) -> Iterable[tuple[Resource, IntArray, FloatArray]]:
    """The resources, the arcs that add to them, and how much."""
    units = {"latency": "s", "energy": "J", "noise": "", "price": "", "upload": "bytes"}
    field = {"noise": "min_sqnr_db", "upload": "max_upload_bytes", "price": "max_price",
             "latency": "max_latency_s", "energy": "max_energy_j"}  # fmt: skip
    for criterion, ceiling in ceilings(limits).items():
        if math.isfinite(ceiling):
            arcs = np.flatnonzero(graph.weight[criterion])
            resource = Resource(field[criterion], "", units[criterion], ceiling)
            yield resource, arcs, graph.weight[criterion][arcs]
    for place, device in enumerate(graph.model.fleet.devices):
        mine = np.flatnonzero(graph.device == place)
        yield from _device_rows(graph, limits, device.name, mine)  # one that computes nothing may encode
    if limits.max_period_s is not None:
        for link in graph.model.fleet.links:
            arcs, times = hop_loads(graph, functools.partial(_link_busy_s, link))
            if arcs.size:
                ceiling = limits.max_period_s * (1 + ROUNDING)
                yield Resource("max_period_s", "->".join(link.pair), "s", ceiling), arcs, times


def _link_busy_s(link: Link, hop: Hop) -> float:
    return link.transfer_s(hop.wire_bytes) if link.pair in itertools.pairwise(hop.route) else 0.0


def _device_rows(
    graph: Graph, limits: Limits, name: str, mine: IntArray
) -> Iterable[tuple[Resource, IntArray, FloatArray]]:
    ones, model = np.ones(mine.size), graph.model
    most = memory_ceiling(model.fleet, limits, name)
    if math.isfinite(most):
        memory = model.memory_bytes[graph.way[mine], graph.start[mine], graph.stop[mine]]
        yield Resource("max_memory_bytes", name, "bytes", most), mine, memory
    if limits.max_bundles is not None:
        yield Resource("max_bundles", name, "", limits.max_bundles), mine, ones
    if limits.ceil_rule and limits.max_bundle_layers is not None:
        # ceil(l / M) >= bundles is M x bundles - l <= M - 1: the shortfall of each bundle from M layers.
        lacking = limits.max_bundle_layers - (graph.stop - graph.start)[mine]
        yield Resource("ceil_rule", name, "", limits.max_bundle_layers - 1), mine, lacking.astype(float)
    if limits.once:
        arrivals = np.flatnonzero(_arrives(graph, name))
        yield Resource("once", name, "", 1.0), arrivals, np.ones(arrivals.size)
    busy_arcs, busy = device_busy(graph, name, mine)
    if limits.max_period_s is not None:
        ceiling = limits.max_period_s * (1 + ROUNDING)
        yield Resource("max_period_s", name, "s", ceiling), busy_arcs, busy
    if name in limits.max_share:
        load = np.zeros(graph.arcs)
        load[busy_arcs] = busy
        load -= limits.max_share[name] * (1 + ROUNDING) * graph.weight["latency"]
        arcs = np.flatnonzero(load)
        yield Resource("max_share", name, "s", 0.0), arcs, load[arcs]


def device_busy(graph: Graph, name: str, mine: IntArray) -> tuple[IntArray, FloatArray]:
    """The arcs that keep a device busy, and for how many seconds; ``mine`` are those that compute on it."""

    def coding_s(hop: Hop) -> float:
        return hop.encode_s * (hop.route[0] == name) + hop.decode_s * (hop.route[-1] == name)

    arcs, times = hop_loads(graph, coding_s)
    return np.concatenate([mine, arcs]), np.concatenate([graph.weight["latency"][mine], times])


def hop_loads(graph: Graph, load: Callable[[Hop], float]) -> tuple[IntArray, FloatArray]:
    """The arcs of hops whose load is not 0, and the loads."""
    by_hop = np.array([load(hop) for hop in graph.hops], dtype=float)
    arcs = np.flatnonzero(graph.hop >= 0)
    loads = by_hop[graph.hop[arcs]] if arcs.size else np.zeros(0)
    return arcs[loads != 0], loads[loads != 0]


def _arrives(graph: Graph, name: str) -> BoolArray:
    """The arcs that bring the tensors to a device which then computes."""
    layers, source = len(graph.model.chain), graph.model.fleet.source
    here = np.array([hop.route[-1] == name and hop.boundary < layers for hop in graph.hops], dtype=bool)
    arrives: BoolArray = (graph.hop >= 0) & np.append(here, False)[graph.hop]
    if name == source:
        arrives |= (graph.tail == graph.first) & (graph.hop < 0)
    return arrives


def _clocks(graph: Graph, limits: Limits) -> tuple[IntArray, IntArray]:
    """``Problem.clock`` and ``clock_device``."""
    if not limits.one_clock:
        return np.full(graph.arcs, -1), np.zeros(0, dtype=np.int64)
    devices = [device.name for device in graph.model.fleet.devices]
    kinds = list(dict.fromkeys((way.device, way.variant.frequency_hz) for way in graph.model.ways))
    of_way = np.array(
        [kinds.index((way.device, way.variant.frequency_hz)) for way in graph.model.ways] + [-1]
    )
    return of_way[graph.way], np.array([devices.index(device) for device, _ in kinds])
