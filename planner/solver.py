"""The best plan for a fleet and its profile tables, with its proof.

The ILP decides. What it decides is priced anew from the table, and an independent dynamic programme
must find the same optimum; a plan that fails either is an error, never an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from pulp.constants import VERSION

from planner.active_note import fleet_digest
from planner.baselines import baselines
from planner.chain import Chain
from planner.codec_table import CODECS, LOSSLESS, CodecName
from planner.cost import CostModel, Criterion, Objective, ceilings, profile_command
from planner.dynamic import optimum
from planner.errors import InfeasibleError, InputError, MismatchError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.graph import Graph
from planner.plan import Cost, Limits, Plan, Proof, Variant
from planner.search import search
from planner.table import ProfileTable

NO_LIMITS = Limits()

# Relative difference up to which two prices of one plan, or two optima, are the same.
AGREEMENT = 1e-6


def solve(
    chain: Chain,
    fleet: Fleet,
    table: ProfileTable,
    *,
    objective: Objective,
    limits: Limits = NO_LIMITS,
    batch: int | None = None,
    codecs: Sequence[CodecName] | None = None,
    time_limit_s: float = 60.0,
) -> Plan:
    """The plan of least latency or energy within the limits.

    Of equals, it is the one that is least in the other criterion, then the one of fewer parts.
    ``batch`` may be left out where the table has only one. ``codecs``: those that hops may use; left out,
    all with ``limits.min_sqnr_db``, without it the lossless ones. Raises ``MismatchError`` for a table of
    another chain, ``UnknownNameError`` for one of another fleet, ``PlanningError`` where the table
    does not suffice or no route leads over a profiled device, ``InfeasibleError`` where no plan keeps
    the limits, with the nearest values that would do, and ``SolverError`` where CBC fails, finds
    nothing in time, or gives an answer that does not hold.
    """
    begun = time.perf_counter()
    if table.chain.digest != chain.digest:
        raise MismatchError(
            f"the table was measured on chain {table.chain.digest[:12]}, not on {chain.digest[:12]}",
            "solve for the model, weights and granularity that were profiled",
        )
    allowed = codecs if codecs is not None else LOSSLESS if limits.min_sqnr_db is None else CODECS
    rows = [row for row in table.codecs if row.codec in allowed]
    model = CostModel.of(chain, fleet, table.rows, _batch(table, batch), table.left_out, table.active, rows)
    energy_matters = objective == "energy" or limits.max_energy_j is not None
    if energy_matters and model.unmetered:
        raise PlanningError(
            f"the energy of {', '.join(model.unmetered)} is unknown: the profile has none metered",
            f"set active_power_w in [device.{model.unmetered[0]}] of the fleet",
        )
    _check_conditions(model, table)
    notes = _left_out(model) + _unable(table, model.batch) + _skipped(model, table)
    notes += _inexact(model, table, limits, codecs)
    if model.unmetered:
        named = ", ".join(model.unmetered)
        notes += (f"what computing costs {named} in energy is unknown and counted as 0: set active_power_w",)
    if energy_matters and not any(device.battery for device in fleet.devices):
        notes += ("no device of the fleet has battery = true, so every plan uses 0 J",)
    graph = Graph.of(model)
    built = time.perf_counter()
    try:
        answer = search(graph, objective, limits, time_limit_s)
    except InfeasibleError as error:
        found = optimum(model, objective, limits).best
        if found:
            raise SolverError(f"the solver says: {error.message}; yet a plan costs {found}") from error
        raise
    solved = time.perf_counter()

    stages, hops = graph.decode(answer.arcs)
    cost = model.price(stages, hops)
    value = _value(cost, objective)
    claimed = float(graph.weight[objective][answer.arcs].sum())
    if not _agree(value, claimed):
        raise SolverError(f"the plan costs {value} when priced anew, but {claimed} by the solver's sum")
    if any(_value(cost, name) > most * (1 + AGREEMENT) for name, most in ceilings(limits).items()):
        raise SolverError(f"the solver's plan costs {cost} and breaks {limits}")
    bound = min(answer.bound, value)
    proof = Proof(
        solver=f"CBC (PuLP {VERSION})",
        outcome=answer.outcome,
        objective=objective,
        objective_value=value,
        bound=bound,
        gap=(value - bound) / value if value else 0.0,
        arcs=graph.tail.size,
        build_s=built - begun,
        solve_s=solved - built,
        check=_check(model, objective, limits, value, bound),
    )
    by_hand = baselines(model, objective)
    recipes = {stage.device: table.recipes[stage.device] for stage in stages if stage.device in table.recipes}
    return Plan(chain, fleet, model.batch, limits, stages, hops, cost, proof, by_hand, notes, recipes)


def _batch(table: ProfileTable, batch: int | None) -> int:
    known = sorted({row.batch for row in table.rows})
    if not known:
        raise PlanningError("the profile table has no rows", "run `edgecut profile` on the fleet's devices")
    listed = ", ".join(map(str, known))
    if batch is None and len(known) > 1:
        raise InputError(f"the profile table has several batch sizes: {listed}", "choose one with --batch")
    if batch is not None and batch not in known:
        raise InputError(f"batch {batch} was not profiled; the table has {listed}", "choose one of these")
    return known[0] if batch is None else batch


def _check_conditions(model: CostModel, table: ProfileTable) -> None:
    """Refuse a device that was profiled as another emulation than the fleet now describes."""
    for device in model.fleet.devices:
        measured, wanted = table.environments.get(device.name), device.emulate
        if measured is None or wanted is None:
            continue
        threads = wanted.threads or measured.threads
        if (measured.slowdown, measured.threads) != (wanted.slowdown, threads):
            raise MismatchError(
                f"{device.name} was profiled with slowdown {measured.slowdown:g} and {measured.threads} threads, "
                f"the fleet says slowdown {wanted.slowdown:g} and {threads} threads",
                f"`{profile_command(model.chain, device.name)} --fleet FLEET`, into another --output",
            )


def _left_out(model: CostModel) -> tuple[str, ...]:
    """Notes on the devices that cannot compute in any plan. ``PlanningError`` if none can."""
    fleet = model.fleet
    profiled = {way.device for way in model.ways}
    from_source = {fleet.source, *(hop.route[-1] for hop in model.hops(0, fleet.source))}
    notes, usable = [], []
    for device in (device.name for device in fleet.devices):
        to_sink = {device, *(hop.route[-1] for hop in model.hops(0, device))}
        if device not in profiled:
            command = profile_command(model.chain, device)
            notes.append(f"{device} has no rows, so it can only relay; `{command}` measures it")
        elif device not in from_source:
            notes.append(f"{device} is left out: no route leads from the source {fleet.source} to it")
        elif fleet.sink not in to_sink:
            notes.append(f"{device} is left out: no route leads from it to the sink {fleet.sink}")
        else:
            usable.append(device)
    if not usable:
        raise PlanningError(
            f"no plan is possible on this fleet: {'; '.join(notes)}",
            "add the missing [[link]] to the fleet, or profile a device that can be reached",
        )
    return tuple(notes)


def _unable(table: ProfileTable, batch: int) -> tuple[str, ...]:
    """A note for each variant that could not run every bundle."""
    notes = []
    for device, entries in table.left_out.items():
        reasons: dict[Variant, list[str]] = {}
        for entry in entries:
            if entry.batch == batch:
                reasons.setdefault(entry.variant, []).append(entry.reason)
        notes += [
            f"{device}: {variant} cannot run {len(found)} of {len(list(table.chain.bundles()))} bundles: {found[0]}"
            for variant, found in reasons.items()
        ]
    return tuple(notes)


def _skipped(model: CostModel, table: ProfileTable) -> tuple[str, ...]:
    """What tables are complete for whose bundles were not all measured, and what that rests on."""
    notes: dict[str, list[str]] = {}
    for device, note in table.active.items():
        if not any(
            (np.isinf(model.latency_s[k])).any() for k, way in enumerate(model.ways) if way.device == device
        ):
            continue
        same = note.fleet_digest == fleet_digest(model.fleet) and note.batch == model.batch
        other = "" if same else " This fleet or batch is another one."
        text = (
            f"the table was measured actively and is complete for {note.purpose} ({note.outcome}: "
            f"{note.assumption}).{other} For other questions the {note.skipped} bundles that were skipped may "
            "hold a better plan"
        )
        notes.setdefault(text, []).append(device)
    return tuple(f"{', '.join(devices)}: {text}" for text, devices in notes.items())


def _inexact(
    model: CostModel, table: ProfileTable, limits: Limits, codecs: Sequence[CodecName] | None
) -> tuple[str, ...]:
    """Notes on what accuracy keeps out of the plan."""
    notes = []
    lossy = {row.codec for row in table.codecs if row.batch == model.batch} - set(LOSSLESS)
    if lossy and codecs is None and limits.min_sqnr_db is None:
        named = ", ".join(codec for codec in CODECS if codec in lossy)
        notes.append(f"only lossless codecs are used; --min-sqnr-db or --codecs all lets in {named}")
    if limits.min_sqnr_db is not None:
        notes += [
            f"{way.device}: nothing measured the error of {way.variant}, so its stages count as 0 dB"
            for way in model.unrated
        ]
    return tuple(notes)


def _check(model: CostModel, objective: Objective, limits: Limits, value: float, bound: float) -> str:
    """What the dynamic programme says of the answer. ``SolverError`` if it contradicts."""
    checked = optimum(model, objective, limits)
    if not checked.complete:
        return f"not checked: the dynamic programme gave up after {checked.labels} labels"
    if checked.best is None:
        raise SolverError("the dynamic programme finds no plan within the limits, the solver does")
    best = _value(checked.best, objective)
    difference = f"relative difference {abs(value - best) / max(value, best, math.ulp(1.0)):.1g}"
    if _agree(value, best):
        return f"dynamic programme agrees ({difference})"
    if bound * (1 - AGREEMENT) <= best <= value:
        return f"dynamic programme finds a better plan ({difference})"
    raise SolverError(f"the solver's optimum is {value}, the dynamic programme's {best}")


def _value(cost: Cost, criterion: Criterion) -> float:
    return {"latency": cost.latency_s, "energy": cost.energy_j, "noise": cost.noise}[criterion]


def _agree(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=AGREEMENT, abs_tol=1e-12)
