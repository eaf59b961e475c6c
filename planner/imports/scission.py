"""Scission's benchmarks: seconds and output bytes of each layer on each machine, and the network between them.

Layers are additive there, so a bundle is the sum of its layers. A hop takes ping + bytes x 8 / bandwidth;
the bytes are those of a saved array with its 128-byte header.
"""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from planner.documents import read_text
from planner.errors import DocumentError, InputError, UnknownNameError
from planner.fleet import Device, Fleet, Link
from planner.imports.result import (
    DeviceTable,
    Import,
    device_name,
    foreign_chain,
    instant_notes,
    plain_layer,
    summed_rows,
)
from planner.imports.scission_pickle import read_benchmarks
from planner.imports.units import BOUND, plausible_s
from planner.plan import Variant

INPUT_BYTES = 150_000  # Scission's own default: an image file
_VARIANT = Variant("tensorflow")
_COLUMNS = ("model", "device", "layer", "latency_s", "output_bytes")


class LayerTime(NamedTuple):
    latency_s: float
    output_bytes: int


# By model, device and number of the layer.
Benchmarks = dict[str, dict[str, dict[int, LayerTime]]]


def read_scission(
    files: Sequence[Path],
    *,
    model: str | None = None,
    network: Path | None = None,
    input_bytes: int = INPUT_BYTES,
    sink: str | None = None,
) -> Import:
    """One model's tables from CSV files, or from ``TYPE-DEVICE.dat`` pickles as Scission writes them.

    ``network``: its network statistics. Scission ends where the last layer ran; with ``sink`` only the links
    as listed are taken, without it the result returns to the source over links as fast as those that lead away.
    Raises ``DocumentError``, ``InputError``, ``UnknownNameError``.
    """
    found: Benchmarks = defaultdict(lambda: defaultdict(dict))
    refused: list[str] = []
    for file in files:
        (_read_pickle if file.suffix == ".dat" else _read_csv)(file, found, refused)
    if not found:
        raise InputError(
            f"no layer can be used; {refused[0] if refused else 'the files are empty'}",
            "are these Scission's files?",
        )
    if model is None and len(found) > 1:
        raise InputError(f"the files hold {len(found)} models: {', '.join(found)}", "choose one with --model")
    model = model or next(iter(found))
    if model not in found:
        raise UnknownNameError("model in these files", model, found)
    devices = found[model]
    count = max(max(layers) for layers in devices.values()) + 1
    output_bytes = _agree(model, devices, count)
    chain = foreign_chain(
        "scission", model, [plain_layer(f"layer{k}") for k in range(count)], [input_bytes, *output_bytes]
    )
    tables = tuple(
        DeviceTable(name, summed_rows(name, _VARIANT, [layers[k].latency_s for k in range(count)]))
        for name, layers in devices.items()
    )
    notes = [f"a bundle is the sum of its layers; {BOUND}", f"the input is taken as {input_bytes} bytes"]
    notes += instant_notes(tables)
    fleet = _fleet(network, tuple(devices), sink, notes) if network else None
    used = count * len(devices)
    return Import(chain, tables, "Scission: sums of layers", used, fleet, tuple(notes), tuple(refused))


def _agree(model: str, devices: Mapping[str, Mapping[int, LayerTime]], count: int) -> list[int]:
    """The bytes that leave each layer, on which all devices must agree."""
    for name, layers in devices.items():
        missing = next((k for k in range(count) if k not in layers), None)
        if missing is not None:
            raise InputError(
                f"{model} on {name} lacks layer {missing} of {count}", "benchmark it again there"
            )
    sizes = []
    for k in range(count):
        different = {layers[k].output_bytes for layers in devices.values()}
        if len(different) > 1:
            raise InputError(
                f"{model}: devices disagree on the bytes that leave layer {k}: {sorted(different)}"
            )
        sizes.append(different.pop())
    return sizes


def _read_csv(file: Path, found: Benchmarks, refused: list[str]) -> None:
    for place, cells in _records(file, _COLUMNS):
        try:
            layer, size = int(cells["layer"]), int(cells["output_bytes"])
            time = LayerTime(float(cells["latency_s"]), size)
            _add(found, cells["model"], cells["device"], layer, time)
        except (ValueError, InputError) as error:
            refused.append(f"{place}: {error}")


def _read_pickle(file: Path, found: Benchmarks, refused: list[str]) -> None:
    device = file.stem.partition("-")[2] or file.stem
    for model, layers in read_benchmarks(file).items():
        for number, layer in enumerate(layers):
            try:
                time = LayerTime(float(layer["second_prediction"]), int(layer["output_size"]))
                _add(found, model, device, number, time)
            except (KeyError, TypeError, ValueError, OverflowError, InputError) as error:
                refused.append(f"{file.name}, {model:.40} layer {number}: {error!s:.80}")


def _add(found: Benchmarks, model: str, device: str, layer: int, time: LayerTime) -> None:
    """Raises ``ValueError``."""
    if time.latency_s and not plausible_s(time.latency_s):
        raise ValueError(f"{time.latency_s:g} s; {BOUND}")
    if time.output_bytes < 1 or layer < 0:
        raise ValueError("a layer from 0 up and at least 1 output byte are expected")
    layers = found[model][device_name(device)]
    if layer in layers:
        raise ValueError(f"{model} on {device} has a layer {layer} already")
    layers[layer] = time


def _records(file: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows below a header that has these columns, each with its place. Raises ``DocumentError``."""
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(read_text(file).splitlines()) if row]
    except csv.Error as error:
        raise DocumentError(file, "", f"is no CSV: {error}") from None
    header = rows[0] if rows else []
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise DocumentError(
            file, "line 1", f"no column {', '.join(lacking)}", f"columns: {', '.join(columns)}"
        )
    records = []
    for number, cells in enumerate(rows[1:], start=2):
        padded = [*cells, *[""] * (len(header) - len(cells))]
        records.append((f"{file.name} line {number}", dict(zip(header, padded, strict=False))))
    return records


def _fleet(file: Path, devices: Sequence[str], sink: str | None, notes: list[str]) -> Fleet:
    """Scission's ``source,destination,ping(ms),bandwidth(mbps)``, or the same with our column names."""
    header = read_text(file).partition("\n")[0]
    theirs = "ping(ms)" in header
    names = (
        ("source", "destination", "ping(ms)", "bandwidth(mbps)")
        if theirs
        else ("source", "target", "ping_ms", "bandwidth_mbps")
    )
    links: dict[tuple[str, str], Link] = {}
    for place, cells in _records(file, names):
        try:
            source, target = (device_name(cells[name]) for name in names[:2])
            ping_ms, mbps = (float(cells[name]) for name in names[2:])
            # Scission rounds a bandwidth to whole bytes per second.
            link = Link(
                source, target, bandwidth_bytes_per_s=float(round(mbps * 125_000)), latency_s=ping_ms / 1e3
            )
        except ValueError as error:
            raise DocumentError(file, place, str(error)) from None
        if link.pair in links:
            raise DocumentError(file, place, f"two links {source} -> {target}", "remove one")
        links[link.pair] = link
    ends = {name for pair in links for name in pair}
    unknown = sorted(ends - set(devices))
    if unknown:
        raise DocumentError(file, "", f"{unknown[0]} is not among the benchmarked: {', '.join(devices)}")
    origins = [name for name in devices if name in ends and all(target != name for _, target in links)]
    if len(origins) != 1:
        shown = ", ".join(origins) or "none"
        raise DocumentError(file, "", f"expected one device that no link leads to, found: {shown}")
    source = origins[0]
    if sink is None:
        back = {
            (b, a): Link(b, a, link.bandwidth_bytes_per_s, link.latency_s) for (a, b), link in links.items()
        }
        links = {**back, **links}
        notes.append(
            f"links lead back as fast as listed, and the result returns to {source}; --sink for one way only"
        )
    elif sink not in devices:
        raise UnknownNameError("device", sink, devices)
    described = tuple(Device(name) for name in devices)
    ordered = tuple(links[pair] for pair in itertools.permutations(devices, 2) if pair in links)
    return Fleet(source, sink or source, described, ordered)
