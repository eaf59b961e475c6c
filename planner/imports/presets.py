"""Ready splits by layer names, priced on measured tables: what somebody else chose, beside the optimum."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from planner.baselines import baselines
from planner.chain import Bundle, Chain
from planner.cost import CostModel
from planner.documents import check_schema, document, from_data, read_text
from planner.errors import InputError, MismatchError, PlanningError, UnknownNameError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Hop, Outcome, Plan, Proof, Stage
from planner.solver import solve
from planner.table import ProfileTable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = "edgecut.presets/1"


@document()
class Preset:
    """``starts``: the name of each stage's first layer, in running order."""

    model: str
    starts: tuple[str, ...]

    def bundles(self, chain: Chain) -> tuple[Bundle, ...]:
        """Its stages in this chain. Raises ``MismatchError``."""
        names = [layer.name for layer in chain.layers]
        missing = [name for name in self.starts if name not in names]
        if missing:
            raise MismatchError(
                f"{chain.source.name} has no layer {missing[0]!r} to cut at",
                f"profile {self.model} with --granularity layer and without --max-layers",
            )
        cuts = [*(names.index(name) for name in self.starts), len(names)]
        if cuts[0] or any(stop <= start for start, stop in itertools.pairwise(cuts)):
            raise MismatchError(
                f"the stages {', '.join(self.starts)} are not in the order of {chain.source.name}"
            )
        return tuple(Bundle(start, stop) for start, stop in itertools.pairwise(cuts))


def load_presets() -> dict[str, Preset]:
    file = Path(__file__).with_name("presets.toml")
    data = check_schema(tomllib.loads(read_text(file)), SCHEMA, file)
    return {name: from_data(Preset, entry, f"{file}: {name}") for name, entry in data["preset"].items()}


def preset_plan(
    name: str, table: ProfileTable, fleet: Fleet, devices: Sequence[str], time_limit_s: float = 60.0
) -> Plan:
    """The preset's stages on ``devices``, each in its fastest variant; its proof states the gap to the optimum.

    Raises ``UnknownNameError``, ``MismatchError``, ``InputError``, ``PlanningError``.
    """
    presets = load_presets()
    if name not in presets:
        raise UnknownNameError("preset", name, presets)
    bundles = presets[name].bundles(table.chain)
    if len(bundles) != len(devices):
        raise InputError(
            f"{name} has {len(bundles)} stages, {len(devices)} devices are given",
            "pass one device a stage with --on",
        )
    best = solve(table.chain, fleet, table, objective="latency", time_limit_s=time_limit_s)
    model = CostModel.of(table.chain, fleet, table.rows, best.batch, table.left_out)
    stages = tuple(_fastest(model, device, bundle) for device, bundle in zip(devices, bundles, strict=True))
    hops, at = [], fleet.source
    for boundary, device in [
        *((stage.bundle.start, stage.device) for stage in stages),
        (len(table.chain), fleet.sink),
    ]:
        if device != at:
            hops.append(_hop(model, boundary, at, device))
        at = device
    cost = model.price(stages, hops)
    bound = min(best.proof.bound, cost.latency_s)
    gap = (cost.latency_s - bound) / cost.latency_s
    check = f"a preset, not optimised; the best plan takes {best.cost.latency_s * 1e3:.2f} ms"
    proof = Proof(
        f"preset {name}",
        Outcome.FEASIBLE,
        "latency",
        cost.latency_s,
        bound,
        gap,
        best.proof.arcs,
        best.proof.arcs_after,
        {},
        check,
        {"latency": 1.0},
    )
    recipes = {device: table.recipes[device] for device in devices if device in table.recipes}
    by_hand = baselines(model, {"latency": 1.0})
    return Plan(
        table.chain,
        fleet,
        best.batch,
        Limits(),
        stages,
        tuple(hops),
        cost,
        proof,
        by_hand,
        best.notes,
        recipes,
        best.origin,
    )


def _fastest(model: CostModel, device: str, bundle: Bundle) -> Stage:
    variants = [way.variant for way in model.ways if way.device == device]
    if not variants:
        raise UnknownNameError("device in the profile tables", device, {way.device for way in model.ways})
    stage = min(
        (model.stage(device, bundle, variant) for variant in variants), key=lambda each: each.cost.latency_s
    )
    if stage.cost.latency_s == float("inf"):
        raise PlanningError(f"no variant of {device} can run {bundle}", "choose another device")
    return stage


def _hop(model: CostModel, boundary: int, source: str, target: str) -> Hop:
    ways = [hop for hop in model.hops(boundary, source) if hop.route[-1] == target]
    if not ways:
        raise PlanningError(
            f"the fleet has no route {source} -> {target}", "add the link, or choose other devices"
        )
    return min(ways, key=lambda hop: hop.cost.latency_s)
