"""Ready splits by layer names, priced on measured tables: what somebody else chose, beside the optimum."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from planner.baselines import baselines
from planner.chain import Bundle, Chain
from planner.documents import check_schema, document, from_data, read_text
from planner.errors import InputError, MismatchError, UnknownNameError
from planner.fleet import Fleet
from planner.override import Piece, priced_override
from planner.plan import Outcome, Plan, Proof
from planner.pricing import priced
from planner.solver import NO_LIMITS, solve
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
    model, _ = priced(table.chain, fleet, table, "latency", NO_LIMITS, best.batch, None)
    pieces = [Piece(device, bundle) for device, bundle in zip(devices, bundles, strict=True)]
    found = priced_override(model, NO_LIMITS, {"latency": 1.0}, pieces)
    cost = found.cost
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
        NO_LIMITS,
        found.stages,
        found.hops,
        cost,
        proof,
        by_hand,
        best.notes,
        recipes,
        best.origin,
    )
