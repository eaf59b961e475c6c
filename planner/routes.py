"""Which ways over the links are worth taking from a device to the others."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable, Iterable

from planner.fleet import Fleet, Link
from planner.plan import Cost, Hop

Route = tuple[str, ...]


def routes_from(fleet: Fleet, source: str, price: Callable[[Link], Cost]) -> list[Route]:
    """The direct link to each device where there is one, else each route that no other beats in latency,
    energy and price.

    Label setting with several criteria (Martins 1984): popped in order of latency, a route stays if none
    before it to the same device needs as little energy and costs as little.
    """
    direct = {link.target for link in fleet.links if link.source == source}
    found: list[Route] = [(source, target) for target in direct]
    if len(direct) + 1 == len(fleet.devices):
        return found
    priced = [(link, price(link)) for link in fleet.links]
    known: dict[str, list[tuple[float, float]]] = {device.name: [] for device in fleet.devices}
    queue: list[tuple[float, float, float, int, Route]] = [(0.0, 0.0, 0.0, 0, (source,))]
    while queue:
        latency_s, energy_j, currency, links, route = heapq.heappop(queue)
        here = route[-1]
        if any(joules <= energy_j and paid <= currency for joules, paid in known[here]):
            continue
        known[here].append((energy_j, currency))
        if here != source and here not in direct:
            found.append(route)
        for link, cost in priced:
            if link.source == here:
                further = latency_s + cost.latency_s, energy_j + cost.energy_j, currency + cost.price
                heapq.heappush(queue, (*further, links + 1, (*route, link.target)))
    return found


def undominated(hops: Iterable[Hop]) -> list[Hop]:
    """The hops that no other to the same device beats or equals in everything a limit or an objective may
    count; of equals, the first. Those of different routes keep other links busy and are not compared."""
    kept: dict[Route, list[tuple[tuple[float, ...], Hop]]] = {}
    for hop in sorted(hops, key=lambda hop: (*hop.cost.values, hop.wire_bytes)):
        counts = (*hop.cost.values, hop.wire_bytes, hop.encode_s, hop.decode_s)
        rivals = kept.setdefault(hop.route, [])
        if not any(all(map(operator.le, rival, counts)) for rival, _ in rivals):
            rivals.append((counts, hop))
    return [hop for rivals in kept.values() for _, hop in rivals]
