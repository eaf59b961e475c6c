"""The optimum once more, by an exact dynamic programme that shares nothing with the ILP but the prices.

It walks the boundaries in order and keeps, for every way to compute, the costs that plans can have
reached there. Without a limit on the other criterion the least cost is enough (a shortest path);
with one, all costs that no other beats in both criteria are kept (label setting, Martins 1984).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from planner.cost import CostModel, FloatArray, Objective, ceilings
from planner.plan import Cost, Limits

MOST_LABELS = 500_000


@dataclass(frozen=True)
class Checked:
    """``best`` is None where no plan keeps the limits; ``complete`` is False where labels ran out."""

    best: Cost | None
    labels: int
    complete: bool


def optimum(
    model: CostModel, objective: Objective, limits: Limits, most_labels: int = MOST_LABELS
) -> Checked:
    """The cost of the best plan within the limits; of equals, the one that is least in the other."""
    search = _Search(objective, ceilings(limits))
    source, sink, last = model.fleet.source, model.fleet.sink, len(model.chain)
    ways = range(len(model.ways))
    device_of = [way.device for way in model.ways]
    siblings = [[w for w in ways if w != way and device_of[w] == device_of[way]] for way in ways]
    # What is ready to compute, by way: at which boundary, shape (labels,), and its cost so far,
    # shape (labels, 2).
    starts = [np.empty(0, dtype=np.int64) for _ in ways]
    ready = [np.empty((0, 2)) for _ in ways]
    labels = 0
    for boundary in range(last + 1):
        finished = []
        for way in ways:
            bundles = (way, starts[way], boundary)
            cost = np.column_stack([model.latency_s[bundles], model.energy_j[bundles]])
            finished.append(search.front([ready[way] + cost]))

        done: dict[str, list[FloatArray]] = defaultdict(list)
        arrived: dict[str, list[FloatArray]] = defaultdict(list)
        if boundary == 0:
            done[source], arrived[source] = [np.zeros((1, 2))], [np.zeros((1, 2))]
        for way in ways:
            done[device_of[way]].append(finished[way])
        for device, groups in done.items():
            front = search.front(groups)
            for hop in model.hops(boundary, device) if front.size else ():
                cost = np.array([hop.cost.latency_s, hop.cost.energy_j])
                arrived[hop.route[-1]].append(front + cost)
        if boundary == last:
            break

        for way in ways:
            # After a bundle on the same device only another variant may follow.
            front = search.front([*arrived[device_of[way]], *(finished[other] for other in siblings[way])])
            starts[way] = np.append(starts[way], np.full(len(front), boundary))
            ready[way] = np.concatenate([ready[way], front])
            labels += len(front)
        if labels > most_labels:
            return Checked(None, labels, complete=False)

    front = search.front([*done[sink], *arrived[sink]])
    best = Cost(float(front[0, 0]), float(front[0, 1])) if front.size else None
    return Checked(best, labels, complete=True)


class _Search:
    """Which costs are worth keeping; a cost is a row of latency_s and energy_j."""

    def __init__(self, objective: Objective, most: dict[Objective, float]) -> None:
        self.first, self.second = (0, 1) if objective == "latency" else (1, 0)
        self.most = np.array([most["latency"], most["energy"]])
        self.one_is_enough = math.isinf(self.most[self.second])

    def front(self, groups: list[FloatArray]) -> FloatArray:
        """The costs, shape (labels, 2), that are within the limits and not beaten; the best first."""
        costs: FloatArray = np.concatenate(groups) if groups else np.empty((0, 2))
        costs = costs[(np.isfinite(costs) & (costs <= self.most)).all(axis=1)]
        costs = costs[np.lexsort((costs[:, self.second], costs[:, self.first]))]
        if self.one_is_enough or len(costs) < 2:
            return costs[:1]
        least = np.minimum.accumulate(costs[:, self.second])
        kept: FloatArray = costs[np.append(True, least[1:] < least[:-1])]
        return kept
