"""One branch of the search: arcs, the paths met among them, and what those tell.

The paths make a linear programme, Dantzig and Wolfe's (1960): its prices are the next to try (Kelley 1960), held
near the best ones known, and its own solution mixes paths. Where that mixture disagrees most about what computes a
layer, the branch is split.
"""

# SciPy has no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linprog  # type: ignore[attr-defined]

from planner.cost import FloatArray
from planner.graph import Graph, IntArray

# Prices move at most by these factors in a round, and by this share of the bound.
_LESS, _MORE, _STEP = 0.4, 2.5, 0.03
# What even branches count beside a mixture that disagrees.
_EVEN = 0.1


@dataclass(frozen=True, eq=False)
class Cut:
    """A path, its weight, and by how much it breaks each ceiling, in units of them."""

    path: IntArray
    weight: float
    over: FloatArray


@dataclass(eq=False)
class Branch:
    """``arcs``, and the paths of ``cuts``: places in the whole problem. ``prices``, per unit of each ceiling, give the
    ``bound``, which no path of the branch undercuts. ``weak``: resources whose own bounds are too far below to leave
    arcs out."""

    arcs: IntArray
    prices: FloatArray
    bound: float
    cuts: list[Cut] = field(default_factory=list)
    weak: frozenset[int] = frozenset()

    def wanted(self) -> FloatArray:
        """The prices that look better by the paths met, half way from the best."""
        answer = self._master()
        if answer is None:
            return self.prices
        wanted: FloatArray = 0.5 * (answer.x[1:] * self._size + self.prices)
        return wanted

    def split(self, graph: Graph, whole: int) -> list[Branch]:
        """A branch for each device that may compute the layer which the mixture disagrees about most; where each layer
        has one device, for each variant, then for each place that its bundle may begin or end. ``graph``: of the arcs
        of this branch; ``whole``: how many arcs there are in all. Every path is in one of them; empty where there
        is one path only."""
        place = np.full(whole, -1)
        place[self.arcs] = np.arange(self.arcs.size)
        self.cuts = [cut for cut in self.cuts if (place[cut.path] >= 0).all()]
        layers = len(graph.model.chain)
        for kind in (graph.device, graph.way, graph.start, graph.stop):
            covers = _covering(kind, graph, layers)
            if ((covers > 0).sum(axis=0) > 1).any():
                break
        else:
            return []
        layer = self._disputed(kind, covers, graph, place)
        over = (graph.way >= 0) & (graph.start <= layer) & (layer < graph.stop)
        further = []
        for one in np.flatnonzero(covers[:, layer]):
            arcs = self.arcs[~over | (kind == one)]
            here = np.zeros(whole, dtype=bool)
            here[arcs] = True
            cuts = [cut for cut in self.cuts if here[cut.path].all()]
            further.append(Branch(arcs, self.prices, self.bound, cuts, self.weak))
        return further

    def _disputed(self, kind: IntArray, covers: IntArray, graph: Graph, place: IntArray) -> int:
        """The layer to branch on."""
        mixed, layers = np.zeros(covers.shape), np.arange(covers.shape[1])
        answer = self._master() if self.cuts else None
        if answer is not None:
            for cut, share in zip(self.cuts, -answer.ineqlin.marginals, strict=True):
                arcs = place[cut.path]
                arcs = arcs[graph.way[arcs] >= 0]
                mixed[np.repeat(kind[arcs], (graph.stop - graph.start)[arcs]), layers] += share
        disagree = mixed.sum(axis=0) - mixed.max(axis=0)
        even = 1 - covers.max(axis=0) / np.maximum(covers.sum(axis=0), 1)
        several = (covers > 0).sum(axis=0) > 1
        return int(np.argmax(np.where(several, disagree + _EVEN * even, -1.0)))

    @property
    def _size(self) -> float:
        """What weights are told in for the linear programme, whose tolerances are absolute."""
        return max(cut.weight for cut in self.cuts) or 1.0

    def _master(self) -> Any:
        """The best prices by the paths met, near the present ones; None where there are none. Its dual mixes paths."""
        values = np.array([cut.weight for cut in self.cuts])
        overs = np.array([cut.over for cut in self.cuts])
        size, prices = self._size, self.prices
        step = _STEP * max(self.bound, 0.1 * size)
        low, high = _LESS * prices, _MORE * prices + step
        low[low < step] = 0.0
        answer = linprog(
            np.append(-1.0, np.zeros(overs.shape[1])),
            A_ub=np.column_stack([np.ones(values.size), -overs]),
            b_ub=values / size,
            bounds=[(None, None), *zip(low / size, high / size, strict=True)],
            method="highs",
        )
        return None if answer.x is None else answer


def _covering(kind: IntArray, graph: Graph, layers: int) -> IntArray:
    """By kind and layer, how many bundles compute it."""
    bundles = np.flatnonzero(graph.way >= 0)
    counts = np.zeros((int(kind[bundles].max()) + 1, layers + 1), dtype=np.int64)
    np.add.at(counts, (kind[bundles], graph.start[bundles]), 1)
    np.add.at(counts, (kind[bundles], graph.stop[bundles]), -1)
    covering: IntArray = np.cumsum(counts, axis=1)[:, :-1]
    return covering
