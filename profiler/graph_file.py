"""A bundle in one safetensors file: its weights, and its graph as JSON in the file's metadata.

Nothing in such a file is executed: the graph may name only PyTorch's own operators, and its arguments
are numbers, strings, tensors of the graph, and lists of them.
"""

from __future__ import annotations

import json
import math
import operator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import fx, nn

from planner.chain import TensorSpec
from planner.documents import document, from_data, to_data
from planner.errors import BundleError, DocumentError, StorageError

SCHEMA = "edgecut.bundle/1"
# A file begins with its header's length; the header is padded to a multiple of it.
_LENGTH_BYTES = 8
_ANEW = "deploy again; it is written anew"
_CONSTANTS = (torch.dtype, torch.memory_format, torch.layout)


@document()
class _Step:
    name: str
    operation: str
    args: list[Any]
    kwargs: dict[str, Any]


@document()
class _Graph:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    arguments: list[str]
    weights: list[str]
    steps: list[_Step]
    results: list[str]


def save_graph(
    module: fx.GraphModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], file: Path
) -> None:
    """Write a bundle's graph and weights. Raises ``BundleError`` for an operation that cannot be shipped."""
    weights, metadata = _content(module, inputs, outputs)
    # Tied weights share memory, which the format refuses: each name gets its own copy.
    stored = {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
    try:
        save_file(stored, file, metadata)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write {file}: {error}", "free space or choose another path") from error


def graph_bytes(
    module: fx.GraphModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> int:
    """Size of the file that ``save_graph`` would write."""
    weights, metadata = _content(module, inputs, outputs)
    # The format's own writer lays out a header without weights; with them only its offsets are longer.
    empty = {name: torch.empty(0, dtype=weight.dtype) for name, weight in weights.items()}
    header, end = json.loads(save(empty, metadata)[_LENGTH_BYTES:]), 0
    for name in (name for name in header if name in weights):
        header[name]["shape"] = list(weights[name].shape)
        header[name]["data_offsets"] = [end, end := end + weights[name].nbytes]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return _LENGTH_BYTES + -(-len(text) // _LENGTH_BYTES) * _LENGTH_BYTES + end


def _content(
    module: fx.GraphModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The weights by name, and the metadata that describes the graph."""
    by_operation: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        by_operation.setdefault(node.op, []).append(node)
    weights = {node.name: getattr(module, str(node.target)) for node in by_operation.get("get_attr", [])}
    results: Any = by_operation["output"][0].args[0]
    graph = _Graph(
        inputs,
        outputs,
        [node.name for node in by_operation["placeholder"]],
        list(weights),
        [_describe(node) for node in by_operation.get("call_function", [])],
        [node.name for node in results],
    )
    return weights, {"schema": SCHEMA, "graph": json.dumps(to_data(graph))}


def load_graph(file: Path) -> tuple[fx.GraphModule, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """A bundle's module and its input and output specs. Raises ``BundleError`` or ``DocumentError``."""
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        described = json.loads(metadata.get("graph", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{file} is no readable bundle: {error}", _ANEW) from None
    if metadata.get("schema") != SCHEMA:
        raise DocumentError(file, "schema", f"expected {SCHEMA!r}, found {metadata.get('schema')!r}")
    graph = from_data(_Graph, described, file)
    built, root, made = fx.Graph(), nn.Module(), {}
    try:
        for name in graph.arguments:
            made[name] = built.placeholder(name)
        for name in graph.weights:
            root.register_buffer(f"w_{name}", weights[name])
            made[name] = built.get_attr(f"w_{name}")
        for step in graph.steps:
            args = tuple(_decode(value, made) for value in step.args)
            kwargs = {key: _decode(value, made) for key, value in step.kwargs.items()}
            made[step.name] = built.call_function(_operator(step.operation), args, kwargs)
        built.output(tuple(made[name] for name in graph.results))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file} holds no valid graph: {error!r}", _ANEW) from None
    return fx.GraphModule(root, built), graph.inputs, graph.outputs


def _describe(node: fx.Node) -> _Step:
    if node.target is operator.getitem:
        name = "getitem"
    elif isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten":
        name = f"{node.target._opname}.{node.target._overloadname}"
    else:
        raise BundleError(f"operation {node.target} cannot be shipped to a device", "use another backend")
    args = [_encode(value) for value in node.args]
    return _Step(node.name, name, args, {key: _encode(value) for key, value in node.kwargs.items()})


def _operator(name: str) -> Any:
    """PyTorch's own operator of this name, and nothing else."""
    if name == "getitem":
        return operator.getitem
    stem, _, overload = name.partition(".")
    if not (stem.isidentifier() and overload.isidentifier()):
        raise ValueError(f"{name!r} is not an operator's name")
    found = getattr(getattr(torch.ops.aten, stem, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"this version of PyTorch has no operator aten.{name}")
    return found


def _encode(value: Any) -> Any:
    """One argument as JSON: a plain value, a list, or a one-key mapping that tells its kind."""
    if isinstance(value, fx.Node):
        return {"tensor": value.name}
    if isinstance(value, _CONSTANTS):
        return {"constant": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BundleError(f"an argument of type {type(value).__name__} cannot be shipped to a device")


def _decode(value: Any, made: dict[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_decode(item, made) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return made[content]
    if kind == "device":
        return torch.device("cpu")
    if kind == "float":
        return float(content)
    constant = getattr(torch, content) if kind == "constant" else None
    if not isinstance(constant, _CONSTANTS):
        raise ValueError(f"unknown argument {value!r}")
    return constant
