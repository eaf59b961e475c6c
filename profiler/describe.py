"""What is known of a cut network: the names and weights of its layers, and its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from planner.chain import Boundary, Layer, TensorSpec
from profiler.capture import located, operation

if TYPE_CHECKING:
    from profiler.cuts import Cuts

# Operations that only rearrange memory, or do nothing outside training.
_REARRANGING = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "contiguous", "clone", "alias", "detach",
    "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "slice", "select", "getitem",
    "to", "_to_copy", "dropout",
}  # fmt: skip


def tensor_spec(node: fx.Node) -> TensorSpec:
    """Raises ``ValueError`` where a node's value cannot cross a boundary."""
    value = node.meta["val"]
    if not all(type(extent) is int for extent in value.shape):
        raise ValueError(f"{located(node)} gives a shape that depends on values")
    return TensorSpec(tuple(value.shape), str(value.dtype).removeprefix("torch."))


def describe_layers(cuts: Cuts, macs: Sequence[int]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    counts: dict[str, int] = {}
    for step, work in zip(cuts.steps, macs, strict=True):
        used = cuts.constants(step)
        name = _layer_name(cuts, step)
        counts[name] = counts.get(name, 0) + 1
        name += f"#{counts[name]}" if counts[name] > 1 else ""
        weight_bytes = sum(cuts.captured.weights[weight].nbytes for weight in used)
        layers.append(Layer(name, cuts.captured.parameter_count(used), weight_bytes, work))
    return tuple(layers)


def _layer_name(cuts: Cuts, step: Sequence[fx.Node]) -> str:
    """The module that contracts the layer's weights; of several, what their paths share, or first..last."""
    owners = [_module_path(node) for node in step if cuts.weighted(node)]
    paths = [path.split(".") for path in dict.fromkeys(owners) if path]
    if not paths:
        return operation(step[0])
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or f"{'.'.join(paths[0])}..{'.'.join(paths[-1])}"


def _module_path(node: fx.Node) -> str:
    """Where the innermost module that ran the operation stands in the network."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((path for path, _ in reversed(stack.values())), "")


def chain_digest(boundaries: Sequence[Boundary], cuts: Cuts) -> str:
    """SHA-256 over operations, boundaries and every weight: equal digests mean the same cut network.

    Left out is what releases of PyTorch do differently: how work is counted, and which operations only
    rearrange memory.
    """
    operations = [sorted(filter(None, map(_signature, step))) for step in cuts.steps]
    shape = [operations, [str(boundary) for boundary in boundaries]]
    digest = hashlib.sha256(json.dumps(shape).encode())
    used = set().union(*map(cuts.constants, cuts.steps))
    for name in sorted(set().union(*(cuts.captured.origins[name] for name in used))):
        value = cuts.captured.weights[name]
        shown = "x".join(map(str, value.shape)) + f" {value.dtype}".replace("torch.", "")
        digest.update(f"{name} {shown}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _signature(node: fx.Node) -> str:
    """The operation with its constants (strides, slopes, ...); empty if it only rearranges memory."""
    if operation(node) in _REARRANGING:
        return ""
    constants = [
        value for value in tree_leaves((node.args, node.kwargs)) if type(value) in (int, float, bool)
    ]
    return f"{operation(node)} {constants}"
