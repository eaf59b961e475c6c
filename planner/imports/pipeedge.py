"""PipeEdge's YAML: ``models.yml``, ``device_types.yml``, ``devices.yml``.

Layers are additive. A link between two hosts has the smaller of their bandwidths, and a megabit is
1024 x 1024 bits there; a tensor has so many elements for each sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.chain import TensorSpec
from planner.documents import read_text
from planner.errors import DocumentError, InputError, MissingDependencyError, UnknownNameError
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
from planner.imports.units import BOUND, plausible_s
from planner.plan import Variant
from planner.table import ProfileRow

_MEBI = 1024 * 1024
_PRECISIONS = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}


def read_pipeedge(
    models_file: Path,
    types_file: Path,
    devices_file: Path,
    *,
    model: str | None = None,
    dtype: str = "torch.float32",
) -> Import:
    """One model's table for every host, and the fleet in which each host reaches every other.

    Raises ``DocumentError``, ``InputError``, ``UnknownNameError``, ``MissingDependencyError``.
    """
    models, types, hosts = (_load(file) for file in (models_file, types_file, devices_file))
    if dtype not in _PRECISIONS:
        raise UnknownNameError("dtype", dtype, _PRECISIONS)
    usable = [name for name, entry in models.items() if isinstance(entry, Mapping) and entry.get("layers")]
    if model is None and len(usable) != 1:
        raise InputError(
            f"{models_file} holds {len(usable)} models: {', '.join(map(str, usable))}",
            "choose one with --model",
        )
    model = model or usable[0]
    if model not in usable:
        raise UnknownNameError(f"model in {models_file}:", model, map(str, usable))
    place = f"{models_file}: {model}"
    entry = models[model]
    count = int(_numbers([entry.get("layers")], place, "layers", 1)[0])
    if count != entry["layers"]:
        raise DocumentError(
            place, "layers", f"expected a whole number from 1 up, found {entry['layers']!r:.40}"
        )
    memory = [each * _MEBI for each in _numbers(entry.get("mem_MB"), place, "mem_MB", count)]
    elements = _numbers([entry.get("parameters_in")], place, "parameters_in", 1)
    elements += _numbers(entry.get("parameters_out"), place, "parameters_out", count)
    if min(elements) < 1:
        raise DocumentError(place, "parameters_out", "a tensor has less than one element")
    torch_type = dtype.removeprefix("torch.")
    tensors = [TensorSpec((1, int(each)), torch_type) for each in elements]
    chain = foreign_chain("pipeedge", model, [plain_layer(f"layer{k + 1}") for k in range(count)], tensors)

    variant = Variant("torch", _PRECISIONS[dtype])
    tables, bandwidths, refused, memory_mb, used = [], {}, [], [], 0
    for kind, names in hosts.items():
        if kind not in types:
            raise UnknownNameError(f"device type in {devices_file}:", str(kind), map(str, types))
        where = f"{types_file}: {kind}"
        described = _mapping(types[kind], where)
        profiles = _mapping(described.get("model_profiles") or {}, f"{where}.model_profiles").get(model) or []
        rows: list[ProfileRow] = []
        batches: set[int] = set()
        for number, profile in enumerate(profiles if isinstance(profiles, list) else []):
            spot = f"{where}.{model}[{number}]"
            profile = _mapping(profile, spot)
            if profile.get("dtype") != dtype:
                refused.append(f"{spot}: dtype {profile.get('dtype')}, {dtype} is read")
                continue
            times = _numbers(profile.get("time_s"), spot, "time_s", count)
            batch = profile.get("batch_size")
            if not isinstance(batch, int) or batch < 1 or batch in batches:
                refused.append(f"{spot}: batch_size {batch!r} is no new whole number from 1 up")
                continue
            wrong = [time for time in times if time and not plausible_s(time)]
            if wrong:
                refused.append(f"{spot}: {wrong[0]:g} s; {BOUND}")
                continue
            batches.add(batch)
            used += count
            rows += summed_rows(str(kind), variant, times, batch, memory)
        mbps, limit = (_numbers([described.get(key)], where, key, 1)[0] for key in ("bw_Mbps", "mem_MB"))
        for name in _names(names, devices_file, kind):
            if not rows:
                refused.append(f"{devices_file.name}: {name} has no profile of {model} in {dtype}")
                continue
            if name in bandwidths:
                raise DocumentError(devices_file, str(kind), f"two hosts are called {name!r}", "rename one")
            tables.append(DeviceTable(name, tuple(replace(row, device=name) for row in rows)))
            bandwidths[name] = mbps * _MEBI / 8
            memory_mb.append(f"{name} {limit:g}")
    if not tables:
        raise InputError(
            f"no host has a profile of {model} in {dtype}; {refused[0] if refused else 'no hosts'}",
            "check the three files",
        )
    fleet = _fleet(bandwidths, types_file)
    notes = (
        f"a bundle is the sum of its layers; {BOUND}",
        f"a megabit is 1024 x 1024 bits, as in PipeEdge; source and sink: {fleet.source}, the first host",
        *instant_notes(tables),
        f"PipeEdge's memory limits are not in a fleet file (MB): {', '.join(memory_mb)}",
    )
    return Import(chain, tuple(tables), "PipeEdge: sums of layers", used, fleet, notes, tuple(refused))


def _fleet(bandwidths: Mapping[str, float], file: Path) -> Fleet:
    if min(bandwidths.values()) <= 0:
        raise DocumentError(file, "bw_Mbps", "a bandwidth is not above 0")
    links = tuple(
        Link(source, target, bandwidth_bytes_per_s=min(bandwidths[source], bandwidths[target]))
        for source, target in itertools.permutations(bandwidths, 2)
    )
    first = next(iter(bandwidths))
    return Fleet(first, first, tuple(Device(name) for name in bandwidths), links)


def _load(file: Path) -> Mapping[Any, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependencyError("PyYAML", "reading a YAML file", "imports") from None
    text = read_text(file)
    if any(isinstance(token, yaml.AliasToken) for token in _tokens(text, file)):
        raise DocumentError(
            file, "", "holds an alias", "PipeEdge writes none, and nested ones can fill the memory"
        )
    try:
        return _mapping(yaml.safe_load(text), file)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(file, "", f"is no YAML: {' '.join(str(error).split()):.200}") from None


def _tokens(text: str, file: Path) -> Any:
    import yaml

    try:
        yield from yaml.scan(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DocumentError(file, "", f"is no YAML: {' '.join(str(error).split()):.200}") from None


def _mapping(value: object, place: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise DocumentError(place, "", f"expected a mapping, found {type(value).__name__}")
    return value


def _numbers(value: object, place: object, key: str, count: int) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        found = f"{len(value)} values" if isinstance(value, list) else repr(value)[:40]
        raise DocumentError(place, key, f"expected {count} numbers, found {found}")
    wrong = [
        each
        for each in value
        if isinstance(each, bool) or not isinstance(each, int | float) or not 0 <= each < 1e18
    ]
    if wrong:
        raise DocumentError(place, key, f"{wrong[0]!r:.40} is no number from 0 up")
    return [float(each) for each in value]


def _names(value: object, file: Path, kind: object) -> Sequence[str]:
    if not isinstance(value, list):
        raise DocumentError(file, str(kind), "expected a list of hosts")
    return [device_name(str(each)) for each in value]
