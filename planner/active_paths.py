"""Cheapest plans by one weighted sum of latency and energy, fast enough to be found again in every round.

The states and rules are those of `graph`, walked boundary by boundary with one numpy operation for all
ways at once; besides the best path it gives, for every bundle, the best plan that goes through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.chain import Bundle
from planner.cost import CostModel, FloatArray, Way
from planner.plan import Cost

Request = tuple[Way, Bundle]


@dataclass(frozen=True, eq=False)
class Route:
    """``value`` and ``cost`` are infinite where no plan exists, ``path`` then empty. ``through``: the value of
    the best plan through each bundle, shape (ways, layers, layers + 1), infinite where start >= stop."""

    value: float
    cost: Cost
    path: tuple[Request, ...]
    through: FloatArray


class Router:
    """The hops of one chain and fleet; bundles are priced anew for every search."""

    def __init__(self, model: CostModel) -> None:
        self.ways, self.layers = model.ways, len(model.chain)
        names = [device.name for device in model.fleet.devices]
        self.source, self.sink = names.index(model.fleet.source), names.index(model.fleet.sink)
        self.device: NDArray[np.int64] = np.array(
            [names.index(way.device) for way in model.ways], dtype=np.int64
        )
        hops = [hop for k in range(self.layers + 1) for name in names for hop in model.hops(k, name)]
        self._place = (
            np.array([hop.boundary for hop in hops], dtype=np.int64),
            np.array([names.index(hop.route[0]) for hop in hops], dtype=np.int64),
            np.array([names.index(hop.route[-1]) for hop in hops], dtype=np.int64),
        )
        self._hops = np.array([(hop.cost.latency_s, hop.cost.energy_j) for hop in hops]).reshape(-1, 2)
        self._groups = [np.flatnonzero(self.device == place) for place in range(len(names))]

    def route(self, model: CostModel, weights: tuple[float, float]) -> Route:
        """The plan of least ``weights[0]`` x latency + ``weights[1]`` x energy.

        ``model`` prices the bundles; its hops are those this was made for.
        """
        price = _weigh(model.latency_s, model.energy_j, weights)
        hop_cost = _weigh(self._hops[:, 0], self._hops[:, 1], weights)
        shape = self.layers + 1, len(self._groups), len(self._groups)
        hop, which = np.full(shape, np.inf), np.full(shape, -1)
        dearest_first = np.argsort(-hop_cost, kind="stable")
        cells = tuple(place[dearest_first] for place in self._place)
        hop[cells], which[cells] = hop_cost[dearest_first], dearest_first  # the last, cheapest one stays
        ready = self._ahead(price, hop)
        after, onward, arrived = self._behind(price, hop)
        through = ready[:-1].T[:, :, None] + price + after.T[:, None, :]
        done = (hop[0, self.source] + arrived[0]).min()
        value = float(min(done, arrived[0, self.source]))
        if not np.isfinite(value):
            return Route(np.inf, Cost(np.inf, np.inf), (), through)
        path, moves = self._walk(price, hop, after, onward, arrived)
        places = [(self.ways.index(way), bundle.start, bundle.stop) for way, bundle in path]
        parts = [(model.latency_s[place], model.energy_j[place]) for place in places]
        total = np.sum([*parts, *(self._hops[which[move]] for move in moves)], axis=0)
        return Route(value, Cost(float(total[0]), float(total[1])), path, through)

    def _ahead(self, price: FloatArray, hop: FloatArray) -> FloatArray:
        """The least that it costs to be ready to compute at each boundary in each way."""
        ready = np.full((self.layers + 1, len(self.ways)), np.inf)
        for k in range(self.layers + 1):
            after = (ready[:k].T + price[:, :k, k]).min(axis=1, initial=np.inf)
            done = self._by_device(after)
            arrived = np.full(done.shape, np.inf)
            if k == 0:
                done[self.source] = arrived[self.source] = 0.0
            arrived = np.minimum(arrived, (done[:, None] + hop[k]).min(axis=0))
            ready[k] = np.minimum(arrived[self.device], self._siblings(after))
        return ready

    def _behind(self, price: FloatArray, hop: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The least from here to the end: after a bundle in a way, before one, arrived on a device."""
        shape = self.layers + 1, len(self.ways)
        after, onward = np.full(shape, np.inf), np.full(shape, np.inf)
        arrived = np.full((self.layers + 1, len(self._groups)), np.inf)
        for k in range(self.layers, -1, -1):
            if k < self.layers:
                onward[k] = (price[:, k, k + 1 :] + after[k + 1 :].T).min(axis=1)
                arrived[k] = self._by_device(onward[k])
            else:
                arrived[k, self.sink] = 0.0
            done = (hop[k] + arrived[k]).min(axis=1)
            if k == self.layers:
                done[self.sink] = 0.0
            after[k] = np.minimum(done[self.device], self._siblings(onward[k]))
        return after, onward, arrived

    def _by_device(self, by_way: FloatArray) -> FloatArray:
        return np.array([by_way[ways].min(initial=np.inf) for ways in self._groups])

    def _siblings(self, by_way: FloatArray) -> FloatArray:
        """For each way the least of the other ways of its device."""
        least = np.full(by_way.shape, np.inf)
        for ways in self._groups:
            if ways.size > 1:
                first, second = np.partition(by_way[ways], 1)[:2]
                alone = by_way[ways] == first
                least[ways] = np.where(alone & (np.cumsum(alone) == 1), second, first)
        return least

    def _walk(
        self, price: FloatArray, hop: FloatArray, after: FloatArray, onward: FloatArray, arrived: FloatArray
    ) -> tuple[tuple[Request, ...], list[tuple[int, int, int]]]:
        """The bundles of the best plan, and the hops as boundary, source and target."""
        path: list[Request] = []
        moves: list[tuple[int, int, int]] = []

        def move(boundary: int, device: int) -> int:
            target = int((hop[boundary, device] + arrived[boundary]).argmin())
            moves.append((boundary, device, target))
            return target

        device, boundary, way = self.source, 0, -1
        if arrived[0, device] > (hop[0, device] + arrived[0]).min():
            device = move(0, device)
        while boundary < self.layers:
            ways = [other for other in self._groups[device] if other != way]
            way = int(min(ways, key=lambda other: float(onward[boundary, other])))
            ahead = price[way, boundary, boundary + 1 :] + after[boundary + 1 :, way]
            stop = boundary + 1 + int(ahead.argmin())
            path.append((self.ways[way], Bundle(boundary, stop)))
            boundary = stop
            if boundary == self.layers:
                if device != self.sink:
                    move(boundary, device)
                break
            others = [onward[boundary, other] for other in self._groups[device] if other != way]
            if min(others, default=np.inf) > (hop[boundary, device] + arrived[boundary]).min():
                device, way = move(boundary, device), -1
        return tuple(path), moves


def _weigh(latency_s: FloatArray, energy_j: FloatArray, weights: tuple[float, float]) -> FloatArray:
    """The weighted sum; what cannot be used stays infinite, also at weight 0."""
    usable = np.isfinite(latency_s)
    total = np.full(latency_s.shape, np.inf)
    total[usable] = weights[0] * latency_s[usable] + weights[1] * energy_j[usable]
    return total
