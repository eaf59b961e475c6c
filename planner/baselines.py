"""The plans somebody would try by hand: everything on one device, and the best single split."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping

from planner.chain import Bundle
from planner.cost import CostModel
from planner.limits import Criterion
from planner.period import period_s
from planner.plan import Baseline, Cost, Hop, Stage


def baselines(model: CostModel, weights: Mapping[Criterion, float]) -> tuple[Baseline, ...]:
    """Each device alone, in one bundle, then the best of all splits over two devices.

    Each with its best variants, codecs and hops, those from the source and to the sink included. Without
    ``weights`` the best is the one of least period, of equals the one of least latency.
    Limits do not count here: a report shows what breaking them would cost.
    """
    layers = len(model.chain)
    devices = list(dict.fromkeys(way.device for way in model.ways))

    def rank(part: Stage | Hop | Cost) -> tuple[float, float]:
        cost = part if isinstance(part, Cost) else part.cost
        second = cost.latency_s if set(weights) == {"energy"} else cost.energy_j
        if not weights:
            return cost.latency_s, second
        return math.fsum(factor * cost.of(name) for name, factor in weights.items()), second

    @functools.cache
    def stage(device: str, bundle: Bundle) -> Stage:
        variants = [way.variant for way in model.ways if way.device == device]
        return min((model.stage(device, bundle, variant) for variant in variants), key=rank)

    @functools.cache
    def hops(boundary: int, source: str) -> dict[str, list[Hop]]:
        """By target; only the best, where the best of all parts make the best whole."""
        found: dict[str, list[Hop]] = {}
        for hop in sorted(model.hops(boundary, source), key=rank):
            options = found.setdefault(hop.route[-1], [])
            if not options or not weights:
                options.append(hop)
        return found

    def join(name: str, *stages: Stage) -> Baseline | None:
        """These stages and the hops they need; None where the fleet has no route."""
        wanted = [(stage.bundle.start, stage.device) for stage in stages] + [(layers, model.fleet.sink)]
        at, options = model.fleet.source, []
        for boundary, device in wanted:
            if device != at:
                options.append(hops(boundary, at).get(device, []))
            at = device
        return min(
            (made(name, stages, taken) for taken in itertools.product(*options)), key=worth, default=None
        )

    def made(name: str, stages: tuple[Stage, ...], taken: tuple[Hop, ...]) -> Baseline:
        cost = functools.reduce(
            Cost.__add__, [*(stage.cost for stage in stages), *(hop.cost for hop in taken)]
        )
        return Baseline(name, stages, taken, cost)

    def worth(entry: Baseline) -> tuple[float, ...]:
        period = () if weights else (period_s(model.fleet, entry.stages, entry.hops),)
        return *period, *rank(entry.cost)

    whole = Bundle(0, layers)
    alone = [join(f"all on {device}", stage(device, whole)) for device in devices]
    splits = [
        (stage(first, Bundle(0, cut)), stage(second, Bundle(cut, layers)))
        for cut in range(1, layers)
        for first, second in itertools.permutations(devices, 2)
    ]

    def floor(split: tuple[Stage, ...]) -> float:
        """What a split is worth at best, its hops costing nothing."""
        return sum(rank(one)[0] for one in split) if weights else max(one.cost.latency_s for one in split)

    best: Baseline | None = None
    for split in sorted(splits, key=floor):
        if best and floor(split) > worth(best)[0]:
            break
        best = min(
            (each for each in (best, join("best single split", *split)) if each), key=worth, default=None
        )
    # An infinite cost is a device that cannot run the bundle.
    return tuple(each for each in (*alone, best) if each and math.isfinite(each.cost.latency_s))
