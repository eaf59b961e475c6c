"""The plans somebody would try by hand: everything on one device, and the best single split."""

from __future__ import annotations

import functools
import itertools
import math

from planner.chain import Bundle
from planner.cost import CostModel, Objective
from planner.plan import Baseline, Cost, Hop, Stage


def baselines(model: CostModel, objective: Objective) -> tuple[Baseline, ...]:
    """Each device alone, in one bundle, then the best of all splits over two devices.

    Each with its best variants, codecs and hops, those from the source and to the sink included.
    Limits do not count here: a report shows what breaking them would cost.
    """
    layers = len(model.chain)
    devices = list(dict.fromkeys(way.device for way in model.ways))

    def rank(part: Stage | Hop | Cost) -> tuple[float, float]:
        cost = part if isinstance(part, Cost) else part.cost
        both = cost.latency_s, cost.energy_j
        return both if objective == "latency" else (both[1], both[0])

    @functools.cache
    def stage(device: str, bundle: Bundle) -> Stage:
        variants = [way.variant for way in model.ways if way.device == device]
        return min((model.stage(device, bundle, variant) for variant in variants), key=rank)

    @functools.cache
    def hops(boundary: int, source: str) -> dict[str, Hop]:
        dearest_first = sorted(model.hops(boundary, source), key=rank, reverse=True)
        return {hop.route[-1]: hop for hop in dearest_first}

    def join(name: str, *stages: Stage) -> Baseline | None:
        """These stages and the hops they need; None where the fleet has no route."""
        wanted = [(stage.bundle.start, stage.device) for stage in stages] + [(layers, model.fleet.sink)]
        at, taken = model.fleet.source, []
        for boundary, device in wanted:
            if device != at:
                hop = hops(boundary, at).get(device)
                if hop is None:
                    return None
                taken.append(hop)
            at = device
        costs = [stage.cost for stage in stages] + [hop.cost for hop in taken]
        cost = functools.reduce(Cost.__add__, costs)
        return Baseline(name, stages, tuple(taken), cost)

    whole = Bundle(0, layers)
    alone = [join(f"all on {device}", stage(device, whole)) for device in devices]
    splits = [
        join("best single split", stage(first, Bundle(0, cut)), stage(second, Bundle(cut, layers)))
        for cut in range(1, layers)
        for first, second in itertools.permutations(devices, 2)
    ]
    best = min((split for split in splits if split), key=lambda split: rank(split.cost), default=None)
    # An infinite cost is a device that cannot run the bundle.
    return tuple(each for each in (*alone, best) if each and math.isfinite(each.cost.latency_s))
