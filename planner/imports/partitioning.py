"""Graphs of msr-fiddle's dnn-partitioning (JSON) and PipeDream's profiler (``graph.txt``)."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.documents import read_text
from planner.errors import DocumentError
from planner.fleet import Device, Fleet, Link
from planner.imports.graphs import Node, cut_graph, graph_tables
from planner.imports.result import Import, device_name
from planner.imports.units import SECONDS
from planner.plan import Variant

_VARIANT = Variant("imported")
_NOMINAL_BYTES_PER_S = 1e9
_MOST_BYTES = 1 << 60


def read_partitioning(
    file: Path,
    *,
    unit: str = "ms",
    input_bytes: int | None = None,
    output_bytes: int | None = None,
    max_tensors: int = 1,
) -> Import:
    """Devices ``cpu`` and ``accelerator``, joined as the edges' costs say.

    ``unit``: of latencies and costs, which the format leaves open. Nodes of a backward pass are left aside.
    ``max_tensors``: the most that may cross a cut. Raises ``DocumentError``, ``InputError``.
    """
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DocumentError(file, "", f"is no JSON: {error!s:.100}") from None
    entries, edges = (_list(data, key, file) for key in ("nodes", "edges"))
    refused = []
    backward = {str(entry.get("id")) for entry in entries if entry.get("isBackwardNode")}
    if backward:
        refused.append(f"{len(backward)} nodes of the backward pass are no part of an inference")
    output: dict[str, float] = {}
    pairs, speeds, nominal = [], [], 0
    for number, edge in enumerate(edges):
        place = f"edges[{number}]"
        source, target = str(edge.get("sourceId")), str(edge.get("destId"))
        if backward & {source, target}:
            continue
        cost_s = _number(edge, "cost", file, place) * SECONDS[unit]
        if "size" in edge:
            size = _number(edge, "size", file, place)
        else:
            size, nominal = cost_s * _NOMINAL_BYTES_PER_S, nominal + 1
        if size and cost_s:
            speeds.append(size / cost_s)
        pairs.append((source, target))
        output[source] = max(output.get(source, 0.0), size)
    nodes = {}
    for number, entry in enumerate(entries):
        place, name = f"nodes[{number}]", str(entry.get("id"))
        if name in backward:
            continue
        if entry.get("id") is None or name in nodes:
            raise DocumentError(file, place, f"id {name} is missing or given twice")
        cpu, accelerator = (
            _number(entry, key, file, place) * SECONDS[unit] for key in ("cpuLatency", "fpgaLatency")
        )
        times = {"cpu": cpu, "accelerator": accelerator if entry.get("supportedOnFpga", 1) else math.inf}
        memory = _number(entry, "size", file, place) if "size" in entry else 0.0
        label = str(entry.get("name") or f"node{name}")
        nodes[name] = Node(label, times, round(output.get(name, 0.0)), memory)
    if not nodes:
        raise DocumentError(file, "nodes", "there is none")
    found = cut_graph(nodes, pairs, max_tensors=max_tensors)
    chain, tables, notes = graph_tables(
        "dnn-partitioning", file.stem, found, _VARIANT, input_bytes, output_bytes
    )
    notes.append(f"latencies and costs are taken as {unit}; the file names no unit, --unit does")
    fleet = None
    if speeds:
        speed = statistics.median(speeds)
        links = tuple(
            Link(a, b, bandwidth_bytes_per_s=speed)
            for a, b in (("cpu", "accelerator"), ("accelerator", "cpu"))
        )
        fleet = Fleet("cpu", "cpu", (Device("cpu"), Device("accelerator")), links)
        notes.append(f"its edges imply {speed / 1e9:.4g} GB/s between cpu and accelerator")
    if nominal:
        notes.append(f"{nominal} edges give a cost and no size: bytes are nominal, at 1 GB/s")
    return Import(
        chain, tables, "dnn-partitioning: sums of nodes", len(nodes), fleet, tuple(notes), tuple(refused)
    )


_FIELDS = (
    r"forward_compute_time=(\S+), backward_compute_time=(\S+), "
    r"activation_size=(\[[^\]]*\]|\S+), parameter_size=(\S+)"
)
_NODE = re.compile(rf"^(\S+) -- (.*) -- {_FIELDS}(?: -- stage_id=\d+)?$")
_EDGE = re.compile(r"^\t(\S+) -- (\S+)$")


def read_pipedream(file: Path, device: str, *, model: str | None = None) -> Import:
    """The forward pass that PipeDream profiled on ``device``; the ``Input`` node is the input, not work.

    Raises ``DocumentError``, ``InputError``.
    """
    device = device_name(device)
    nodes: dict[str, Node] = {}
    edges, inputs = [], []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        place = f"line {number}"
        if found := _EDGE.match(line):
            edges.append((found[1], found[2]))
            continue
        if not line.strip():
            continue
        found = _NODE.match(line.rstrip())
        if not found or found[1] in nodes:
            problem = "the node is described twice" if found else "neither a node nor an edge"
            raise DocumentError(
                file, place, f"{problem}: {line:.60}", "is this a graph.txt of PipeDream's profiler?"
            )
        name, description, forward, _, sizes, weights = found.groups()
        values = [part for part in sizes.strip("[]").split(";") if part.strip()]
        nbytes = math.fsum(_parse(each, file, place) for each in values)
        memory = nbytes + _parse(weights, file, place)
        time_s = _parse(forward, file, place) * SECONDS["ms"]
        if description.startswith("Input"):
            inputs.append(name)
        nodes[name] = Node(f"{name}-{description.partition('(')[0]}", {device: time_s}, round(nbytes), memory)
    if not nodes:
        raise DocumentError(file, "", "has no node", "is this a graph.txt of PipeDream's profiler?")
    found_chain = cut_graph(nodes, edges, inputs)
    chain, tables, notes = graph_tables(
        "pipedream", model or file.parent.name or file.stem, found_chain, _VARIANT, None, None
    )
    notes.append("forward_compute_time is in ms, activation_size in bytes; times are of one minibatch")
    return Import(chain, tables, "PipeDream: sums of nodes", len(nodes), None, tuple(notes))


def _list(data: Any, key: str, file: Path) -> list[Mapping[str, Any]]:
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DocumentError(file, key, "expected a list of objects", "is this an input of dnn-partitioning?")
    return entries


def _number(entry: Mapping[str, Any], key: str, file: Path, place: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST_BYTES:
        raise DocumentError(file, f"{place}.{key}", f"expected a number from 0 up, found {value!r:.40}")
    return float(value)


def _parse(text: str, file: Path, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < _MOST_BYTES:
        raise DocumentError(file, place, f"expected a number from 0 up, found {text!r:.40}")
    return value
