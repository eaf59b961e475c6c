"""How long each device and link is busy per inference: a pipeline answers no faster than the busiest."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

from planner.fleet import Fleet
from planner.plan import Hop, Stage


def busy_s(fleet: Fleet, stages: Iterable[Stage], hops: Iterable[Hop]) -> dict[str, float]:
    """Seconds per inference that each device (by name) and each directed link ("a->b") in use is busy."""
    busy: defaultdict[str, float] = defaultdict(float)
    for stage in stages:
        busy[stage.device] += stage.cost.latency_s
    for hop in hops:
        if hop.codec != "raw":
            busy[hop.route[0]] += hop.encode_s
            busy[hop.route[-1]] += hop.decode_s
        for pair in itertools.pairwise(hop.route):
            link = fleet.link(*pair)
            assert link is not None, pair
            busy["->".join(pair)] += link.transfer_s(hop.wire_bytes)
    return dict(busy)


def period_s(fleet: Fleet, stages: Iterable[Stage], hops: Iterable[Hop]) -> float:
    """Seconds between two answers of a full pipeline."""
    return max(busy_s(fleet, stages, hops).values())
