"""The prices that a question is answered with, from its tables, and notes on what they leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.active_note import fleet_digest
from planner.chain import Chain
from planner.codec_table import CODECS, LOSSLESS, CodecName
from planner.cost import CostModel
from planner.errors import InputError, MismatchError, PlanningError
from planner.fleet import Fleet
from planner.limits import Criterion, Limits, Objective
from planner.measured import profile_command
from planner.placement import check_names, without
from planner.plan import Variant
from planner.suspicious import suspicious
from planner.table import ProfileTable


def priced(
    chain: Chain,
    fleet: Fleet,
    table: ProfileTable,
    objective: Objective | Mapping[Criterion, float],
    limits: Limits,
    batch: int | None,
    codecs: Sequence[CodecName] | None,
    statistic: str = "mean",
    partial: bool = False,
) -> tuple[CostModel, tuple[str, ...]]:
    """The prices to plan with, and notes on what they leave out. Raises as ``solve``."""
    if table.chain.digest != chain.digest:
        raise MismatchError(
            f"the table was measured on chain {table.chain.digest[:12]}, not on {chain.digest[:12]}",
            "solve for the model, weights and granularity that were profiled",
        )
    allowed = codecs if codecs is not None else LOSSLESS if limits.min_sqnr_db is None else CODECS
    rows = [row for row in table.codecs if row.codec in allowed]
    model = CostModel.of(
        chain,
        without(fleet, limits),
        table.columns,
        _batch(table, batch),
        table.left_out,
        [device.name for device in fleet.devices] if partial else table.active,
        rows,
        statistic,
    )
    check_names(model, limits)
    weighed = (objective,) if isinstance(objective, str) else tuple(objective)
    energy_matters = "energy" in weighed or limits.max_energy_j is not None
    if energy_matters and model.unmetered:
        raise PlanningError(
            f"the energy of {', '.join(model.unmetered)} is unknown: the profile has none metered",
            f"set active_power_w in [device.{model.unmetered[0]}] of the fleet",
        )
    _check_conditions(model, table)
    notes = (*suspicious(table.columns), *_left_out(model, limits), *_unable(table, model.batch))
    notes += _skipped(model, table)
    notes += _inexact(model, table, limits, codecs)
    if model.unmetered:
        named = ", ".join(model.unmetered)
        notes += (f"what computing costs {named} in energy is unknown and counted as 0: set active_power_w",)
    if energy_matters and not any(device.battery for device in fleet.devices):
        notes += ("no device of the fleet has battery = true, so every plan uses 0 J",)
    return model, notes


def _batch(table: ProfileTable, batch: int | None) -> int:
    known = table.columns.batches()
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


def _left_out(model: CostModel, limits: Limits) -> tuple[str, ...]:
    """Notes on the devices that cannot compute in any plan. ``PlanningError`` if none can."""
    fleet = model.fleet
    profiled = {way.device for way in model.ways}
    from_source = {fleet.source, *(hop.route[-1] for hop in model.hops(0, fleet.source))}
    notes, usable = [], []
    for device in (device.name for device in fleet.devices):
        to_sink = {device, *(hop.route[-1] for hop in model.hops(0, device))}
        if device in limits.without_devices:
            notes.append(f"{device} is left out by --without-device")
        elif device not in profiled:
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
            "leave out --without-device and --without-link"
            if limits.without_devices or limits.without_links
            else "add the missing [[link]] to the fleet, or profile a device that can be reached",
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
