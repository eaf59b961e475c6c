"""The optimum once more, by an exact dynamic programme that shares nothing with the ILP but the prices.

It walks the boundaries in order and keeps, for every way to compute, the costs that plans can have
reached there. Without a limit on another criterion the least cost is enough (a shortest path);
with limits, all costs that no other beats in the criteria that matter are kept (label setting, Martins
1984).
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from planner.cost import CostModel, FloatArray, ceilings
from planner.limits import Criterion, Limits, Objective
from planner.plan import Cost

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
    # shape (labels, 3).
    starts = [np.empty(0, dtype=np.int64) for _ in ways]
    ready = [np.empty((0, 3)) for _ in ways]
    labels = 0
    for boundary in range(last + 1):
        finished = []
        for way in ways:
            bundles = (way, starts[way], boundary)
            cost = np.column_stack([model.latency_s[bundles], model.energy_j[bundles], model.noise[bundles]])
            finished.append(search.front([ready[way] + cost]))

        done: dict[str, list[FloatArray]] = defaultdict(list)
        arrived: dict[str, list[FloatArray]] = defaultdict(list)
        if boundary == 0:
            done[source], arrived[source] = [np.zeros((1, 3))], [np.zeros((1, 3))]
        for way in ways:
            done[device_of[way]].append(finished[way])
        for device, groups in done.items():
            front = search.front(groups)
            for hop in model.hops(boundary, device) if front.size else ():
                cost = np.array([hop.cost.latency_s, hop.cost.energy_j, hop.cost.noise])
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
    best = Cost(*front[0].tolist()) if front.size else None
    return Checked(best, labels, complete=True)


class _Search:
    """Which costs are worth keeping; a cost is a row of latency_s, energy_j and noise."""

    def __init__(self, objective: Objective, most: dict[Criterion, float]) -> None:
        first, second = (0, 1) if objective == "latency" else (1, 0)
        self.order = (first, second, 2)
        self.most = np.array([most["latency"], most["energy"], most["noise"]])
        self.budgets = [place for place in self.order[1:] if math.isfinite(self.most[place])]

    def front(self, groups: list[FloatArray]) -> FloatArray:
        """The costs, shape (labels, 3), that are within the limits and not beaten; the best first."""
        costs: FloatArray = np.concatenate(groups) if groups else np.empty((0, 3))
        costs = costs[(np.isfinite(costs) & (costs <= self.most)).all(axis=1)]
        first, second, third = self.order
        costs = costs[np.lexsort((costs[:, third], costs[:, second], costs[:, first]))]
        if not self.budgets or len(costs) < 2:
            return costs[:1]
        if len(self.budgets) == 2:
            return costs[_unbeaten(costs[:, self.budgets].tolist())]
        budget = costs[:, self.budgets[0]]
        least = np.minimum.accumulate(budget)
        kept: FloatArray = costs[np.append(True, budget[1:] < least[:-1])]
        return kept


def _unbeaten(pairs: list[list[float]]) -> list[int]:
    """Places of the pairs that no earlier one equals or undercuts in both numbers.

    The earlier ones are kept as a staircase: the higher the first number, the lower the second (Kung,
    Luccio and Preparata 1975).
    """
    kept: list[int] = []
    rising: list[float] = []
    falling: list[float] = []
    for place, (one, other) in enumerate(pairs):
        step = bisect.bisect_right(rising, one)
        if step and falling[step - 1] <= other:
            continue
        kept.append(place)
        # What starts no lower and ends no lower than the newcomer has nothing to say any more.
        begin = bisect.bisect_left(rising, one)
        end = begin
        while end < len(falling) and falling[end] >= other:
            end += 1
        rising[begin:end], falling[begin:end] = [one], [other]
    return kept
