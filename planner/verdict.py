"""What a plan says in one sentence."""

from __future__ import annotations

from planner.limits import Limits
from planner.period import period_s
from planner.plan import Baseline, Plan


def objective_value(entry: Plan | Baseline, plan: Plan) -> float:
    """What ``plan`` minimises, of itself or of one of its baselines, in seconds, joules, ..."""
    if not plan.proof.weights:
        return period_s(plan.fleet, entry.stages, entry.hops)
    return sum(factor * entry.cost.of(name) for name, factor in plan.proof.weights.items())


def best_single_device(plan: Plan) -> Baseline | None:
    """The baseline that runs everything on one device and costs least."""
    whole = [entry for entry in plan.baselines if len({stage.device for stage in entry.stages}) == 1]
    return min(whole, key=lambda entry: objective_value(entry, plan), default=None)


def verdict(plan: Plan) -> str:
    """Whether to split, and what it gains over the best single device."""
    best = best_single_device(plan)
    devices = list(dict.fromkeys(stage.device for stage in plan.stages))
    if len(devices) == 1:
        return f"not splitting is best: everything runs on {devices[0]}"
    split = f"split over {' and '.join(devices)}"
    if best is None:
        return f"{split}; no single device can run it alone"
    alone = objective_value(best, plan)
    gain = 1 - objective_value(plan, plan) / alone if alone else 0.0
    if abs(gain) < 1e-9:
        return f"{split}: no better and no worse than {best.name!r}, the best single device"
    if gain < 0 and plan.limits != Limits():  # only a limit can rule out what costs less
        return f"{split}: it keeps the limits, {best.name!r} does not"
    word = f"{'less' if gain > 0 else 'more'} {plan.proof.objective}"
    return f"{split}: {abs(gain) * 100:.1f} % {word} than {best.name!r}, the best single device"
