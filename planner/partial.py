"""Planning with tables from which bundles are missing: how many, and what measuring them could gain at best."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.columns import SHOWN, BoolArray, FloatArray
from planner.cost import CostModel
from planner.measured import profile_command, unusable
from planner.sidecar import LeftOut

ASSUMPTION = "if no bundle costs less than one inside it"


def missing_bundles(
    model: CostModel, left_out: Mapping[str, Sequence[LeftOut]], on_purpose: Container[str] = ()
) -> BoolArray:
    """By way, start and stop: what was neither measured nor left out. ``on_purpose``: devices whose tables lack
    bundles because an active profile skipped them, which do not count."""
    shape = model.latency_s.shape
    found: BoolArray = np.isinf(model.latency_s)
    return found & ~unusable(shape, model.ways, model.batch, left_out, on_purpose)


def optimistic(model: CostModel, missing: BoolArray) -> CostModel:
    """The model with each missing bundle at the least it can cost, if no bundle costs less than one inside it:
    the dearest measured bundle inside it in the same way, 0 where there is none, and no noise."""

    def filled(values: FloatArray) -> FloatArray:
        known = np.where(np.isfinite(values), values, 0.0)
        inside = np.maximum.accumulate(known, axis=2)  # over every smaller stop,
        inside = np.maximum.accumulate(inside[:, ::-1], axis=1)[:, ::-1]  # then over every larger start
        return np.where(missing, inside, values)

    return replace(
        model,
        latency_s=filled(model.latency_s),
        energy_j=filled(model.energy_j),
        memory_bytes=filled(model.memory_bytes),
        noise=np.where(missing, 0.0, model.noise),
    )


def described(model: CostModel, missing: BoolArray) -> str:
    """How many bundles are missing, of which ways, and the command that measures them."""
    counts = missing.sum(axis=(1, 2))
    each = len(model.chain) * (len(model.chain) + 1) // 2
    lacking = np.flatnonzero(counts).tolist()
    named = [f"{counts[k]} of {model.ways[k].device}, {model.ways[k].variant}" for k in lacking[:SHOWN]]
    named += [f"{counts[lacking[SHOWN:]].sum()} of {len(lacking) - SHOWN} more"] * (len(lacking) > SHOWN)
    commands = dict.fromkeys(profile_command(model.chain, model.ways[k].device) for k in lacking)
    return (
        f"{int(counts.sum())} of {each * len(model.ways)} bundles are missing and not used ({'; '.join(named)}); "
        f"`{next(iter(commands))} ...` {'and its like measure' if len(commands) > 1 else 'measures'} them"
    )


def gain(value: float, bound: float) -> str:
    """What measuring the missing bundles could gain, from the plan's objective and a bound on what it then is."""
    if bound >= value * (1 - 1e-9):
        return f"measuring them gains nothing, {ASSUMPTION}"
    return f"measuring them lowers the objective by at most {1 - bound / value:.1%}, {ASSUMPTION}"
