"""Whether an enumerated plan keeps the limits, read off ``Limits`` sentence by sentence; and limits that bind."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable

from enumeration import Tried, everything
from strategies import Instance

from planner.chain import Bundle
from planner.limits import Limits, Placement

# Sums taken in another order must not decide over a limit.
ALLOWED = 1 + 1e-9


def keeps(plan: Tried, instance: Instance, limits: Limits) -> bool:
    """Whether the plan keeps every limit."""
    fleet, used = instance.fleet, set(plan.bundles)
    within = [
        (plan.latency, limits.max_latency_s),
        (plan.energy, limits.max_energy_j),
        (plan.noise, None if limits.min_sqnr_db is None else 10 ** (-limits.min_sqnr_db / 10)),
        (plan.period, limits.max_period_s),
        (plan.price, limits.max_price),
        (plan.upload, limits.max_upload_bytes),
        *((plan.busy[name], share * plan.latency) for name, share in limits.max_share.items()),
    ]
    if any(most is not None and found > most * ALLOWED for found, most in within):
        return False
    for name in used:
        device = fleet.device(name)
        memory = limits.max_memory_bytes.get(name, device.memory_bytes)
        if memory is not None and plan.memory[name] + device.worker_memory_bytes > memory:
            return False
        if limits.max_bundles is not None and plan.bundles[name] > limits.max_bundles:
            return False
        if limits.once and plan.visits[name] > 1:
            return False
        if limits.one_clock and len(plan.clocks[name]) > 1:
            return False
        if name in limits.clocks_hz and plan.clocks[name] != {limits.clocks_hz[name]}:
            return False
        longest = limits.max_bundle_layers
        if limits.ceil_rule and longest and plan.bundles[name] > math.ceil(plan.layers[name] / longest):
            return False
    if (used | plan.routed) & {*limits.without_devices} or plan.links & {*limits.without_links}:
        return False
    return all(_may_run(part.device, part.start, part.stop, fleet.source, limits) for part in plan.stages)


def _may_run(device: str, start: int, stop: int, source: str, limits: Limits) -> bool:
    """Whether a stage of these layers may stand on the device."""
    layers = set(range(start, stop))
    if limits.max_bundle_layers is not None and stop - start > limits.max_bundle_layers:
        return False
    if device != source and layers & set(range(limits.private_layers)):
        return False
    for pin in limits.pins:
        named = set(range(pin.bundle.start, pin.bundle.stop))
        if layers & named and (device != pin.device or (pin.whole and layers != named)):
            return False
    for each in limits.forbidden:
        named = set(range(each.bundle.start, each.bundle.stop))
        if device == each.device and (layers == named if each.whole else layers & named):
            return False
    return True


# Limits that bind --------------------------------------------------------------------------------------

# Which of a plan's numbers a budget is about.
BUDGETS: dict[str, Callable[[Tried], float]] = {
    "max_latency_s": lambda plan: plan.latency,
    "max_energy_j": lambda plan: plan.energy,
    "min_sqnr_db": lambda plan: plan.noise,
    "max_period_s": lambda plan: plan.period,
    "max_price": lambda plan: plan.price,
    "max_upload_bytes": lambda plan: plan.upload,
}
KINDS = tuple(each.name for each in dataclasses.fields(Limits))


def limits_near(
    kinds: Iterable[str], numbers: random.Random, instance: Instance, rank: Callable[[Tried], float]
) -> Limits:
    """A limit of each of the kinds, one after the other: each is taken from the plans that keep those before
    it, so that it rules the best of these out, where it can; at times it rules all of them out."""
    limits = Limits()
    for kind in kinds:
        plans = everything(instance, limits)
        plans = [plan for plan in plans if keeps(plan, instance, limits)] or plans
        if plans:
            found = _near(kind, numbers, plans, min(plans, key=rank), instance)
            limits = dataclasses.replace(limits, **found)
    return limits


def _near(
    kind: str, numbers: random.Random, plans: list[Tried], best: Tried, instance: Instance
) -> dict[str, object]:
    chain, fleet = instance.chain, instance.fleet
    names = [device.name for device in fleet.devices]
    stage = numbers.choice(best.stages)
    others = [name for name in names if name != stage.device]
    if kind in BUDGETS:
        value = _below(numbers, [BUDGETS[kind](plan) for plan in plans], BUDGETS[kind](best))
        if kind == "min_sqnr_db":
            return {kind: min(-10 * math.log10(value), 200.0) if 0 < value < 1 else 3.0}
        return {kind: value}
    if kind == "max_memory_bytes":
        worker = fleet.device(stage.device).worker_memory_bytes
        values = [plan.memory[stage.device] + worker for plan in plans if plan.bundles.get(stage.device)]
        return {kind: {stage.device: _below(numbers, values, best.memory[stage.device] + worker)}}
    if kind == "max_share":
        name = max(best.busy, key=lambda each: best.busy[each] * (each in names))
        shares = [plan.busy[name] / plan.latency for plan in plans]
        return {kind: {name: _below(numbers, shares, best.busy[name] / best.latency)}}
    if kind == "max_bundles":
        return {kind: max(max(best.bundles.values()) - 1, 1)}
    if kind in ("max_bundle_layers", "ceil_rule"):
        longest = max(part.stop - part.start for part in best.stages)
        most = numbers.choice([longest, max(longest - 1, 1)])
        return {"max_bundle_layers": most, **({kind: True} if kind == "ceil_rule" else {})}
    if kind in ("once", "one_clock"):
        return {kind: True}
    if kind == "clocks_hz":
        clocks = {(row.device, row.variant.frequency_hz) for row in instance.table.rows}
        mine = sorted((name, clock) for name, clock in clocks if clock is not None and name in best.bundles)
        return {kind: dict([numbers.choice(mine)])} if mine else {}
    if kind == "private_layers":
        return {kind: numbers.randint(1, len(chain))}
    if kind == "without_devices":
        ends = {fleet.source, fleet.sink}
        found = sorted({*best.bundles, *best.routed} - ends) or sorted({*names} - ends)
        return {kind: tuple(found[:1])}
    if kind == "without_links":
        return {kind: (numbers.choice(sorted(best.links)),) if best.links else ()}
    whole = numbers.random() < 0.5
    device = numbers.choice([stage.device, *others]) if kind == "pins" else stage.device
    start = stage.start if numbers.random() < 0.7 else numbers.randrange(len(chain))
    stop = stage.stop if whole and start == stage.start else numbers.randint(start + 1, len(chain))
    assert kind in ("pins", "forbidden"), kind
    return {kind: (Placement(device, Bundle(start, stop), whole),)}


def _below(numbers: random.Random, values: list[float], best: float) -> float:
    """What some plan has and is less than the best's, halfway between two such, or less than any."""
    lower = sorted({value for value in values if value < best * (1 - 1e-6)})
    if not lower:
        return max(best, 1e-12)
    place = numbers.randrange(len(lower))
    if numbers.random() < 0.1:
        return max(lower[0] * 0.9, 1e-12)
    after = [*lower, best][place + 1]
    if numbers.random() < 0.5 and after > lower[place] * (1 + 1e-6):
        return (lower[place] + after) / 2
    return max(lower[place], 1e-12)
