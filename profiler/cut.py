"""Cutting a network where few tensors are live, and making any bundle of layers a module.

A cut point is a place between two operations that exactly one tensor crosses; a residual, dense,
inception or attention block thereby falls inside one layer. At granularity ``layer``, operations
without weights of their own (activation, normalisation, pooling, flatten) stay with the weighted
operation before them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from planner.chain import Boundary, Bundle, Chain, Layer, TensorSpec
from planner.errors import ModelError
from profiler.capture import Captured, capture, operation
from profiler.model import LoadedModel

# Operations that contract their input with a weight: a layer begins at each.
_WEIGHTED = {
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "embedding", "embedding_bag",
}  # fmt: skip
# Operations that only rearrange memory, or do nothing outside training.
_REARRANGING = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "contiguous", "clone", "alias", "detach",
    "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "slice", "select", "getitem",
    "to", "_to_copy", "dropout",
}  # fmt: skip
# Largest difference between chain and whole network, relative to the largest output.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Cuts:
    """Where the graph is cut: ``steps[i]`` are layer i's nodes, ``live[k]`` those that cross boundary k."""

    captured: Captured
    steps: tuple[tuple[fx.Node, ...], ...]
    live: tuple[tuple[fx.Node, ...], ...]

    def module(self, bundle: Bundle, outputs: Sequence[int] = ()) -> fx.GraphModule:
        """The bundle as a module from its first boundary's tensors to a tuple of its last one's.

        With ``outputs`` (boundaries inside the bundle), to those boundaries' tensors instead. Weights
        are shared, not copied.
        """
        graph, root = fx.Graph(), nn.Module()
        made = {node: graph.placeholder(_identifier(node.name)) for node in self.live[bundle.start]}

        def use(node: fx.Node) -> fx.Node:
            if node not in made:
                name = self.captured.constants[node]
                attribute = "w_" + _identifier(name)
                root.register_buffer(attribute, self.captured.weights[name])
                made[node] = graph.get_attr(attribute)
            return made[node]

        for step in self.steps[bundle.start : bundle.stop]:
            for node in step:
                for needed in node.all_input_nodes:
                    use(needed)
                made[node] = graph.node_copy(node, use)
        graph.output(tuple(use(node) for k in outputs or (bundle.stop,) for node in self.live[k]))
        return fx.GraphModule(root, graph)

    def constants(self, step: Sequence[fx.Node]) -> set[str]:
        """The names of the weights that these nodes use."""
        named = self.captured.constants
        return {named[needed] for node in step for needed in node.all_input_nodes if needed in named}

    def joined(self, begins: Sequence[int]) -> Cuts:
        """The same graph with a layer beginning only at these steps; ``begins[0]`` is 0."""
        ends = [*begins[1:], len(self.steps)]
        steps = [sum(self.steps[a:b], ()) for a, b in zip(begins, ends, strict=True)]
        return replace(self, steps=tuple(steps), live=(self.live[0], *(self.live[end] for end in ends)))

    def weighted(self, node: fx.Node) -> bool:
        named = self.captured.constants
        return operation(node) in _WEIGHTED and any(needed in named for needed in node.all_input_nodes)


@dataclass(frozen=True)
class CutModel:
    """A chain and the cuts that make its bundles runnable for inputs of ``batch`` samples."""

    chain: Chain
    batch: int
    cuts: Cuts

    def module(self, bundle: Bundle, outputs: Sequence[int] = ()) -> fx.GraphModule:
        return self.cuts.module(bundle, outputs)

    def specs(self, boundary: int) -> tuple[TensorSpec, ...]:
        """The tensors at a boundary for this batch."""
        return self.chain.boundaries[boundary].batched(self.batch).tensors


def cut_model(model: LoadedModel, batch: int = 1) -> CutModel:
    """Capture and cut ``model``; the chain is for one sample, the modules take ``batch``.

    Raises ``ModelError`` where the network cannot be captured, where a boundary does not grow with the
    batch, or where the bundles run one after the other do not give what the whole network gives.
    """
    single = _cut(model, 1)
    if batch == 1:
        return single
    several = _cut(model, batch)
    expected, found = single.chain.boundaries, several.chain.boundaries
    for k in range(len(expected)):
        want = expected[k].batched(batch)
        have = found[k] if k < len(found) else None
        if want != have or len(found) != len(expected):
            problem = f"boundary {k} carries {have}, expected {want}"
            remedy = "axis 0 must be the batch at every cut; use --batch 1"
            raise ModelError(f"{model.source.name} cannot be cut for a batch of {batch}: {problem}", remedy)
    return CutModel(single.chain, batch, several.cuts)


def _cut(model: LoadedModel, batch: int) -> CutModel:
    generator = torch.Generator().manual_seed(0)
    shapes = [spec.batched(batch).shape for spec in model.inputs]
    try:
        inputs = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    except RuntimeError as error:
        raise ModelError(f"no memory for inputs of {shapes[0]}", "pass a smaller batch or shape") from error
    cuts = _cut_points(capture(model, inputs), model.source.name, batch)
    if model.source.granularity == "layer":
        cuts = cuts.joined(_weighted_steps(cuts))
    values, macs = _run(cuts, inputs)
    if model.source.max_layers:
        begins = _most_work(macs, model.source.max_layers)
        ends = [*begins[1:], len(macs)]
        cuts = cuts.joined(begins)
        values = [values[0], *(values[end] for end in ends)]
        macs = [sum(macs[a:b]) for a, b in zip(begins, ends, strict=True)]
    try:
        boundaries = tuple(Boundary(tuple(_spec(value) for value in tensors)) for tensors in values)
        if any(not spec.shape for boundary in boundaries for spec in boundary.tensors):
            raise ValueError("a single number has no axis for the batch")
    except ValueError as error:
        raise ModelError(f"{model.source.name} has an input or output that cannot be sent: {error}") from None
    _verify(model, inputs, values[-1])
    layers = _describe(cuts, [work // batch for work in macs])
    digest = _digest(boundaries, cuts)
    return CutModel(Chain(model.source, digest, layers, boundaries), batch, cuts)


def _carries(value: object, batch: int) -> bool:
    """Whether a value can cross a boundary: a tensor with the batch as axis 0."""
    return isinstance(value, torch.Tensor) and value.shape[:1] == (batch,)


def _cut_points(captured: Captured, name: str, batch: int) -> Cuts:
    """Cut wherever exactly one tensor is live, and its axis 0 is the batch."""
    nodes = [node for node in captured.graph.nodes if node not in captured.constants]
    inputs = [node for node in nodes if node.op == "placeholder"]
    calls = [node for node in nodes if node.op == "call_function"]
    ends = [value for value in tree_leaves(nodes[-1].args) if isinstance(value, fx.Node)]
    order = {node: place for place, node in enumerate(calls)}
    if not calls or not any(end in order for end in ends):
        raise ModelError(f"{name} computes nothing from its input")
    last_use = {node: max((order.get(user, -1) for user in node.users), default=-1) for node in nodes}
    last_use.update(dict.fromkeys(ends, len(calls)))
    steps, live = [], [tuple(inputs)]
    crossing = {node for node in inputs if last_use[node] >= 0}
    begin = 0
    for place, node in enumerate(calls):
        crossing = {each for each in {*crossing, node} if last_use[each] > place}
        final = place == len(calls) - 1
        single = len(crossing) == 1 and all(_carries(each.meta["val"], batch) for each in crossing)
        if final or single:
            steps.append(tuple(calls[begin : place + 1]))
            live.append(tuple(ends) if final else tuple(crossing))
            begin = place + 1
    return Cuts(captured, tuple(steps), tuple(live))


def _weighted_steps(cuts: Cuts) -> list[int]:
    """Where a layer begins: at each weighted operation; what precedes the first belongs to it."""
    begins = [place for place, step in enumerate(cuts.steps) if any(map(cuts.weighted, step))]
    return [0, *begins[1:]] if begins else list(range(len(cuts.steps)))


def _most_work(macs: Sequence[int], count: int) -> list[int]:
    """Where ``count`` layers begin when the two neighbours of least work are joined again and again."""
    groups = [[place] for place in range(len(macs))]
    work = list(macs)
    while len(groups) > count:
        place = min(range(len(groups) - 1), key=lambda place: work[place] + work[place + 1])
        groups[place] += groups.pop(place + 1)
        work[place] += work.pop(place + 1)
    return [group[0] for group in groups]


def _run(cuts: Cuts, inputs: tuple[torch.Tensor, ...]) -> tuple[list[tuple[torch.Tensor, ...]], list[int]]:
    """Every boundary's tensors, layer by layer, and the multiply-accumulates of each layer."""
    values, macs = [inputs], []
    with torch.inference_mode():
        for place in range(len(cuts.steps)):
            with FlopCounterMode(display=False) as counter:
                values.append(cuts.module(Bundle(place, place + 1))(*values[-1]))
            macs.append(counter.get_total_flops() // 2)
    return values, macs


def _verify(model: LoadedModel, inputs: tuple[torch.Tensor, ...], found: Sequence[torch.Tensor]) -> None:
    with torch.inference_mode():
        expected = [leaf for leaf in tree_leaves(model.module(*inputs)) if isinstance(leaf, torch.Tensor)]
    difference = max(relative_error(have, want) for have, want in zip(found, expected, strict=True))
    if not difference <= TOLERANCE:
        problem = f"run layer by layer it differs from the whole by {difference:.1e} of the largest output"
        raise ModelError(
            f"{model.source.name}: {problem}", "is it random, or does it keep state, when it runs?"
        )


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    found, expected = found.double(), expected.double()
    scale = float(expected.abs().max()) or 1.0
    return float((found - expected).abs().max()) / scale


def _spec(value: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(value.shape), str(value.dtype).removeprefix("torch."))


def _describe(cuts: Cuts, macs: Sequence[int]) -> tuple[Layer, ...]:
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
    """The module whose weights the layer contracts: the longest common path of their names."""
    used = cuts.constants([node for node in step if cuts.weighted(node)])
    owners = [name.split(".")[:-1] for name in sorted(used) if not name.startswith("folded.")]
    if not owners:
        return operation(step[0])
    first, last = min(owners), max(owners)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return ".".join(first[:shared]) or f"{'.'.join(first)}..{'.'.join(last)}"


def _digest(boundaries: Sequence[Boundary], cuts: Cuts) -> str:
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
        digest.update(f"{name} {_spec(value)}".encode())
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


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
