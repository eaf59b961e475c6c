"""What an import yields, and writing it as our own files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from planner.chain import Boundary, Bundle, Chain, Layer, ModelSource, TensorSpec
from planner.documents import to_data, write_text
from planner.errors import EdgecutError, InputError, MismatchError
from planner.fleet import Fleet
from planner.fleet_file import load_fleet, save_fleet
from planner.plan import Variant
from planner.sample_lines import SampleLine, samples_file
from planner.sidecar import Environment, LeftOut, Sidecar
from planner.statistics import trimmed_mean
from planner.table import ProfileRow, save_table

_MOST_LAYERS = 1000
INSTANT_S = 1e-9  # stands for a sum of 0 s: layers below the resolution of the clock that timed them
PREFIX = "import:"  # of a chain's source: no such model can be loaded, its measurements are another tool's


Key = tuple[str, Bundle, Variant, int]


@dataclass(frozen=True)
class DeviceTable:
    """One device's rows. ``samples_s``: the raw samples of a row by its key, where the source has them."""

    device: str
    rows: tuple[ProfileRow, ...]
    left_out: tuple[LeftOut, ...] = ()
    samples_s: Mapping[Key, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Import:
    """``origin``: what was measured how, one line; ``notes``: what was inferred or assumed; ``refused``: what
    was not used, each with its place and reason; ``used``: how many entries of the source were."""

    chain: Chain
    tables: tuple[DeviceTable, ...]
    origin: str
    used: int
    fleet: Fleet | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def foreign_chain(
    tool: str, model: str, layers: Sequence[Layer], boundaries: Sequence[TensorSpec | int]
) -> Chain:
    """The chain of another tool's model; a boundary is a tensor for one sample or its bytes.

    The digest covers names and boundaries, so tables of several devices join, whenever imported. Raises
    ``InputError`` where the bundles would be too many to list.
    """
    if not 1 <= len(layers) <= _MOST_LAYERS:
        raise InputError(f"{model} has {len(layers)} layers; 1 to {_MOST_LAYERS} are read")
    tensors = [each if isinstance(each, TensorSpec) else byte_tensor(each) for each in boundaries]
    source = ModelSource(f"{PREFIX}{tool}:{model}")
    chain = Chain(source, "", tuple(layers), tuple(Boundary((tensor,)) for tensor in tensors))
    digest = hashlib.sha256(json.dumps(to_data(chain), sort_keys=True).encode()).hexdigest()
    return replace(chain, digest=digest)


def byte_tensor(nbytes: int) -> TensorSpec:
    """A tensor of which only the size is known."""
    return TensorSpec((1, max(1, nbytes)), "uint8")


def plain_layer(name: str) -> Layer:
    """A layer of which nothing but the name is known."""
    return Layer(name, 0, 0, 0)


def device_name(text: str) -> str:
    """The name as a fleet may spell it: brackets and spaces become dashes."""
    parts = "".join(c if c.isalnum() or c in "-_." else " " for c in text).split()
    if not parts:
        raise InputError(f"{text!r} names no device", "use letters, digits, '-', '_' and '.'")
    return "-".join(parts)


def measured_row(
    device: str,
    bundle: Bundle,
    variant: Variant,
    samples_s: Sequence[float],
    energies_j: Sequence[float] = (),
    batch: int = 1,
) -> ProfileRow:
    """A row from repeated runs; energy is their plain mean."""
    return ProfileRow(
        device=device,
        bundle=bundle,
        variant=variant,
        batch=batch,
        latency_s=trimmed_mean(samples_s),
        latency_median_s=float(np.median(samples_s)),
        latency_p95_s=float(np.percentile(samples_s, 95)),
        latency_std_s=float(np.std(samples_s, ddof=1)) if len(samples_s) > 1 else 0.0,
        cpu_time_s=0.0,
        runs=len(samples_s),
        load_s=0.0,
        energy_j=math.fsum(energies_j) / len(energies_j) if energies_j else None,
    )


def summed_rows(
    device: str,
    variant: Variant,
    layer_s: Sequence[float],
    batch: int = 1,
    layer_bytes: Sequence[float] = (),
) -> tuple[ProfileRow, ...]:
    """A row for every bundle: the sum of its layers, which is all that a tool without bundles knows.

    A row of 0 s is not one: ``INSTANT_S`` stands for it. ``layer_bytes``: memory of each layer.
    """
    rows = []
    for start in range(len(layer_s)):
        for stop in range(start + 1, len(layer_s) + 1):
            total_s = math.fsum(layer_s[start:stop]) or INSTANT_S
            memory = round(math.fsum(layer_bytes[start:stop])) if layer_bytes else None
            row = ProfileRow(
                device=device,
                bundle=Bundle(start, stop),
                variant=variant,
                batch=batch,
                latency_s=total_s,
                latency_median_s=total_s,
                latency_p95_s=total_s,
                latency_std_s=0.0,
                cpu_time_s=0.0,
                runs=1,
                load_s=0.0,
                peak_memory_bytes=memory,
            )
            rows.append(row)
    return tuple(rows)


def instant_notes(tables: Iterable[DeviceTable]) -> list[str]:
    """A note for each device with bundles of layers that took 0 s."""
    counts = {table.device: sum(row.latency_s == INSTANT_S for row in table.rows) for table in tables}
    return [
        f"{name}: {count} of its bundles were timed at 0 s, below its clock's resolution; 1 ns stands for it"
        for name, count in counts.items()
        if count
    ]


def save(found: Import, folder: Path) -> list[Path]:
    """Write the tables and the fleet into ``folder``; the files written.

    A table that was measured, or another import's fleet that was edited, is never replaced:
    ``MismatchError``. Raises ``StorageError``.
    """
    label = found.chain.source.label
    files = [folder / f"{label}-{table.device}.csv" for table in found.tables]
    for file in files:
        _check_replaceable(file)
    fleet_file = folder / f"{label}-fleet.toml"
    if found.fleet and fleet_file.exists() and not _same_fleet(fleet_file, found.fleet):
        raise MismatchError(
            f"{fleet_file} exists and holds another fleet", "move it, or pass another --output"
        )
    for table, file in zip(found.tables, files, strict=True):
        samples = samples_file(file)
        lines = (
            SampleLine(row.bundle, row.variant, row.batch, tuple(table.samples_s[row.key])).format()
            for row in table.rows
            if table.samples_s
        )
        write_text(samples, "".join(lines))
        save_table(file, _sidecar(found, table, samples.name), table.rows)
    if found.fleet:
        save_fleet(found.fleet, fleet_file)
        files.append(fleet_file)
    return files


def _sidecar(found: Import, table: DeviceTable, samples: str) -> Sidecar:
    unknown = Environment(
        host="unknown", machine="unknown", python="", libraries={"imported": found.origin}, threads=0, cpus=()
    )
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Sidecar(table.device, found.chain, unknown, now, samples, left_out=table.left_out)


def _check_replaceable(file: Path) -> None:
    if not file.exists():
        return
    try:
        replaceable = Sidecar.load(file.with_suffix(".json")).chain.source.name.startswith(PREFIX)
    except EdgecutError:
        replaceable = False
    if not replaceable:
        raise MismatchError(f"{file} exists and is no imported table", "move it, or pass another --output")


def _same_fleet(file: Path, fleet: Fleet) -> bool:
    try:
        return load_fleet(file) == fleet
    except EdgecutError:
        return False
