"""Which ways over the links are worth taking from a device to the others."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable

from planner.fleet import Fleet, Link
from planner.plan import Cost, Hop

Route = tuple[str, ...]


def routes_from(fleet: Fleet, source: str, price: Callable[[Link], Cost]) -> list[Route]:
    """The direct link to each device where there is one, else each route that no other beats in both
    latency and energy.

    Label setting with two criteria (Martins 1984): popped in order of latency, a route stays if it needs
    less energy than all before it to the same device.
    """
    direct = {link.target for link in fleet.links if link.source == source}
    found: list[Route] = [(source, target) for target in direct]
    if len(direct) + 1 == len(fleet.devices):
        return found
    priced = [(link, price(link)) for link in fleet.links]
    least_j: dict[str, float] = {}
    queue: list[tuple[float, float, int, Route]] = [(0.0, 0.0, 0, (source,))]
    while queue:
        latency_s, energy_j, links, route = heapq.heappop(queue)
        here = route[-1]
        if energy_j >= least_j.get(here, math.inf):
            continue
        least_j[here] = energy_j
        if here != source and here not in direct:
            found.append(route)
        for link, cost in priced:
            if link.source == here:
                further = latency_s + cost.latency_s, energy_j + cost.energy_j
                heapq.heappush(queue, (*further, links + 1, (*route, link.target)))
    return found


def undominated(hops: Iterable[Hop]) -> list[Hop]:
    """The hops that no other to the same device beats or equals in all criteria; of equals, the first."""
    kept: dict[str, list[Hop]] = {}
    for hop in sorted(hops, key=lambda hop: (hop.cost.latency_s, hop.cost.energy_j, hop.cost.noise)):
        rivals = kept.setdefault(hop.route[-1], [])
        if not any(
            rival.cost.energy_j <= hop.cost.energy_j and rival.cost.noise <= hop.cost.noise
            for rival in rivals
        ):
            rivals.append(hop)
    return [hop for rivals in kept.values() for hop in rivals]
