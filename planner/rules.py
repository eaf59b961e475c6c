"""Each limit on its own: what it asks, what a plan takes of it, its words, and the limits with it eased or left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any, NamedTuple

from planner.cost import ROUNDING, noise_of
from planner.fleet import Fleet
from planner.limits import Criterion, Limits, Placement
from planner.period import busy_s, period_s
from planner.plan import Baseline, Cost, Plan, Stage


class Kind(NamedTuple):
    """How people call a limit: its ``option``, the value's ``unit`` there and how many of them one SI unit is, and
    words around the value. ``at_most`` is False where more is stricter; ``counts``: a whole number."""

    option: str
    name: str
    unit: str
    per_si: str
    asks: str
    best: str
    at_most: bool = True
    counts: bool = False


KINDS = {
    "max_latency_s": Kind("--max-latency-ms", "max_latency", " ms", "1e3", "takes", "least latency"),
    "max_energy_j": Kind("--max-energy-mj", "max_energy", " mJ", "1e3", "uses", "least energy"),
    "min_sqnr_db": Kind("--min-sqnr-db", "min_sqnr", " dB", "1", "reaches", "best sqnr", at_most=False),
    "max_price": Kind("--max-price", "max_price", "", "1", "costs", "least price"),
    "max_upload_bytes": Kind("--max-upload-mb", "max_upload", " MB", "1e-6", "uploads", "least upload"),
    "max_period_s": Kind("--max-period-ms", "max_period", " ms", "1e3", "has a period of", "least period"),
    "max_memory_bytes": Kind("--max-memory-mb", "max_memory", " MB", "1e-6", "takes", "least memory"),
    "max_share": Kind("--max-share", "max_share", "", "1", "takes", "least share"),
    "max_bundles": Kind(
        "--max-bundles", "max_bundles", " bundles per device", "1", "runs", "least", counts=True
    ),
    "max_bundle_layers": Kind(
        "--max-bundle-layers", "max_bundle_layers", " layers per bundle", "1", "has", "least", counts=True
    ),
    "private_layers": Kind(
        "--private-layers", "private_layers", " private layers", "1", "runs", "most",
        at_most=False, counts=True,
    ),
}  # fmt: skip
FLAGS = {"once": "--once", "ceil_rule": "--ceil-rule", "one_clock": "--one-clock"}
_LISTED = {
    "pins": "--pin", "forbidden": "--forbid", "without_devices": "--without-device",
    "without_links": "--without-link",
}  # fmt: skip
_BY_DEVICE = ("max_memory_bytes", "max_share", "clocks_hz")
CRITERION: dict[str, Criterion] = {
    "max_latency_s": "latency", "max_energy_j": "energy", "min_sqnr_db": "noise", "max_price": "price",
    "max_upload_bytes": "upload",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One limit in force: the ``field`` of ``Limits``, and the device, link or placement where that has several.

    ``asked``: its value in SI units, NaN for one that has none. ``shown``: what the option says, for those.
    """

    field: str
    item: str = ""
    asked: float = math.nan
    shown: str = ""

    @property
    def valued(self) -> bool:
        return self.field in KINDS

    @property
    def kind(self) -> Kind:
        """Of a rule that has a value."""
        return KINDS[self.field]

    def __str__(self) -> str:
        """``100 ms (max_latency)``, ``20 MB on nano (max_memory)``, ``--once``."""
        if not self.valued:
            return self.shown
        value = self.asked * float(self.kind.per_si)
        return f"{self.amount(f'{value:.6g}')}{self.where} ({self.kind.name})"

    def amount(self, number: str) -> str:
        """A number in the option's unit with that unit."""
        unit = self.kind.unit
        if number == "1" and self.kind.counts:
            unit = unit.replace("s ", " ", 1).removesuffix("s")
        return number + unit

    @property
    def where(self) -> str:
        if self.field == "max_share":
            return f" of the time on {self.item}"
        return f" on {self.item}" if self.item and self.valued else ""

    def value(self, taken: float, *, up: bool = True) -> str:
        """What a plan takes of it, in the option's unit, to four digits: as a limit it can be kept, unless ``up`` is
        False: then it is rounded down.

        ``taken``: as ``taken`` gives it; noise for the signal to noise.
        """
        if self.kind.counts:
            return str(round(taken))
        if self.field == "min_sqnr_db":
            sqnr_db = Cost(0.0, 0.0, taken).sqnr_db
            return f"{Context(prec=4, rounding=ROUND_FLOOR).create_decimal(f'{sqnr_db:.10g}').normalize():f}"
        # A sum is sure to ten digits only; bytes are counted.
        exact = Decimal(taken) if self.kind.unit == " MB" else Decimal(f"{taken:.10g}")
        rounding = ROUND_CEILING if up else ROUND_FLOOR
        scaled = Context(prec=4, rounding=rounding).create_decimal(exact * Decimal(self.kind.per_si))
        return f"{scaled.normalize():f}"

    def eased(self, taken: float) -> Rule | None:
        """The limit at the value that a plan which takes so much of it keeps; None where it must go."""
        if not self.valued or (self.field == "min_sqnr_db" and taken >= 1):
            return None
        value = float(Decimal(self.value(taken)) / Decimal(self.kind.per_si))
        return (
            replace(self, asked=value) if value or self.field in ("max_price", "max_upload_bytes") else None
        )

    def easing(self, taken: float) -> str:
        """What to do so that a plan which takes so much of it keeps it."""
        if self.eased(taken) is None:
            return f"leave out {self.kind.option if self.valued else self.shown}"
        verb, end = ("raise", "more") if self.kind.at_most else ("lower", "less")
        item = f"{self.item}=" if self.item else ""
        return f"{verb} {self.kind.option} to {item}{self.value(taken)} or {end}"

    def keeps(self, taken: float) -> bool:
        """Whether a plan that takes so much of it keeps it, rounding allowed for."""
        if self.field == "min_sqnr_db":
            return taken <= noise_of(self.asked) * (1 + ROUNDING)
        if self.field == "private_layers":
            return taken >= self.asked
        return taken <= (self.asked * (1 + ROUNDING) if self.valued else 0)


def rules(fleet: Fleet, limits: Limits) -> tuple[Rule, ...]:
    """Every limit in force, those of the fleet's memory included; the ones with a value last."""
    found = [Rule(name, shown=option) for name, option in FLAGS.items() if getattr(limits, name)]
    for name, option in _LISTED.items():
        found += [Rule(name, str(each), shown=f"{option} {each}") for each in getattr(limits, name)]
    found += [
        Rule("clocks_hz", device, shown=f"--clock {device}={hz / 1e6:g}")
        for device, hz in limits.clocks_hz.items()
    ]
    memory = {device.name: float(device.memory_bytes) for device in fleet.devices if device.memory_bytes}
    by_device = {"max_memory_bytes": {**memory, **limits.max_memory_bytes}, "max_share": limits.max_share}
    for name in KINDS:
        if name in by_device:
            found += [Rule(name, device, value) for device, value in by_device[name].items()]
        elif getattr(limits, name):
            found.append(Rule(name, asked=float(getattr(limits, name))))
        elif getattr(limits, name) == 0.0 and name != "private_layers":
            found.append(Rule(name, asked=0.0))
    return tuple(found)


def only(fleet: Fleet, limits: Limits, kept: Iterable[Rule], layers: int) -> tuple[Fleet, Limits]:
    """The fleet and the limits of the rules ``kept`` alone; each rule's ``asked`` is the value it gets.

    Without the limit on a bundle's layers, bundles of one variant may still follow each other, so that fewer rules
    never mean fewer plans; the ceil rule brings its layers.
    """
    kept = tuple(kept)
    have = {(rule.field, rule.item): rule for rule in kept}
    changes: dict[str, Any] = {}
    for name in FLAGS:
        changes[name] = (name, "") in have
    for name in _LISTED:
        changes[name] = tuple(each for each in getattr(limits, name) if (name, str(each)) in have)
    changes["clocks_hz"] = {d: hz for d, hz in limits.clocks_hz.items() if ("clocks_hz", d) in have}
    for name in ("max_memory_bytes", "max_share"):
        changes[name] = {rule.item: rule.asked for rule in kept if rule.field == name}
    for name, kind in KINDS.items():
        if name in _BY_DEVICE:
            continue
        rule = have.get((name, ""))
        none = 0 if name == "private_layers" else None
        changes[name] = none if rule is None else round(rule.asked) if kind.counts else rule.asked
    if changes["max_bundle_layers"] is None and limits.max_bundle_layers is not None:
        changes["max_bundle_layers"] = limits.max_bundle_layers if changes["ceil_rule"] else layers
    devices = tuple(replace(device, memory_bytes=None) for device in fleet.devices)
    return replace(fleet, devices=devices), replace(limits, **changes)


def taken(rule: Rule, fleet: Fleet, limits: Limits, entry: Plan | Baseline) -> float:
    """What a plan takes of it: seconds, joules, noise, bytes, a share or a number; of rules without a value, how often
    it breaks them."""
    if rule.field in CRITERION:
        return entry.cost.of(CRITERION[rule.field])
    if rule.field == "max_period_s":
        return period_s(fleet, entry.stages, entry.hops)
    mine = [stage for stage in entry.stages if stage.device == rule.item]
    if rule.field == "max_memory_bytes":
        return sum(stage.memory_bytes for stage in mine) + fleet.device(rule.item).worker_memory_bytes * bool(
            mine
        )
    if rule.field == "max_share":
        return busy_s(fleet, entry.stages, entry.hops).get(rule.item, 0.0) / entry.cost.latency_s
    if rule.field == "max_bundle_layers":
        return max(len(stage.bundle) for stage in entry.stages)
    if rule.field == "private_layers":
        away = [stage.bundle.start for stage in entry.stages if stage.device != fleet.source]
        return min(away, default=entry.stages[-1].bundle.stop)
    bundles = Counter(stage.device for stage in entry.stages)
    if rule.field == "max_bundles":
        return max(bundles.values())
    return _broken(rule, limits, entry, mine, bundles)


def broken(fleet: Fleet, limits: Limits, entry: Plan | Baseline) -> tuple[str, ...]:
    """The limits that a plan does not keep."""
    return tuple(
        str(rule) for rule in rules(fleet, limits) if not rule.keeps(taken(rule, fleet, limits, entry))
    )


def _broken(
    rule: Rule, limits: Limits, entry: Plan | Baseline, mine: list[Stage], bundles: Mapping[str, int]
) -> int:
    """How often a plan breaks a rule that has no value."""
    if rule.field == "ceil_rule":
        layers: Counter[str] = Counter()
        for stage in entry.stages:
            layers[stage.device] += len(stage.bundle)
        most = limits.max_bundle_layers or 1
        return sum(max(bundles[device] + -layers[device] // most, 0) for device in bundles)
    if rule.field == "once":
        devices = [stage.device for stage in entry.stages]
        visits = [b for a, b in zip([None, *devices], devices, strict=False) if a != b]
        return len(visits) - len(set(visits))
    if rule.field == "one_clock":
        clocks = {(stage.device, stage.variant.frequency_hz) for stage in entry.stages}
        return len(clocks) - len(bundles)
    if rule.field == "clocks_hz":
        return sum(stage.variant.frequency_hz != limits.clocks_hz[rule.item] for stage in mine)
    if rule.field == "without_devices":
        return len(mine) + sum(rule.item in hop.route for hop in entry.hops)
    if rule.field == "without_links":
        return sum(
            rule.item in map("->".join, zip(hop.route, hop.route[1:], strict=False)) for hop in entry.hops
        )
    place = Placement.parse(rule.item)
    there = [stage for stage in entry.stages if stage.device == place.device]
    if place.whole:
        exact = any(stage.bundle == place.bundle for stage in there)
        return int(exact if rule.field == "forbidden" else not exact)
    on = sum(_common(stage, place) for stage in there)
    return on if rule.field == "forbidden" else len(place.bundle) - on


def _common(stage: Stage, place: Placement) -> int:
    """How many of the placed layers a stage runs."""
    return max(min(stage.bundle.stop, place.bundle.stop) - max(stage.bundle.start, place.bundle.start), 0)
