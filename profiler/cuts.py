"""Where a captured network can be cut, and the part between two cuts as a module.

A cut point is a place between two operations that at most ``max_tensors`` tensors cross, each with the
batch as its axis 0; with one, a residual, dense, inception or attention block falls inside one layer. At
granularity ``layer``, operations without weights of their own (activation, normalisation, pooling,
flatten) stay with the weighted operation before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from planner.chain import Bundle, ModelSource
from planner.errors import ModelError
from profiler.capture import Captured, operation

# Operations that contract their input with a weight: a layer begins at each.
_WEIGHTED = {
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "embedding", "embedding_bag",
}  # fmt: skip
# What NumPy can hold, and so a feature map can be stored and sent in.
_SENDABLE = {
    torch.float32, torch.float16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
    torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Cuts:
    """Where the graph is cut: ``steps[i]`` are layer i's nodes, ``live[k]`` those that cross boundary k.

    ``points``: how many places inside the network could be cut.
    """

    captured: Captured
    steps: tuple[tuple[fx.Node, ...], ...]
    live: tuple[tuple[fx.Node, ...], ...]
    points: int

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

    def divided(self, sizes: Sequence[int]) -> Cuts:
        """The same operations in steps of these sizes."""
        calls, ends = self.operations, self.live[-1]
        live = liveness(self.live[0], calls, ends)
        stops = [sum(sizes[: place + 1]) for place in range(len(sizes))]
        steps = [calls[stop - size : stop] for stop, size in zip(stops, sizes, strict=True)]
        inner = [live[stop - 1] for stop in stops[:-1]]
        return replace(self, steps=tuple(steps), live=(self.live[0], *inner, ends))

    @property
    def operations(self) -> tuple[fx.Node, ...]:
        """Every operation in running order."""
        return sum(self.steps, ())

    def weighted(self, node: fx.Node) -> bool:
        named = self.captured.constants
        return operation(node) in _WEIGHTED and any(needed in named for needed in node.all_input_nodes)


def unfit(node: fx.Node, batch: int) -> str | None:
    """Why a node's value cannot cross a boundary; None for a tensor with the batch as axis 0."""
    value = node.meta["val"]
    if not isinstance(value, torch.Tensor):
        return "gives several values at once"
    if not all(type(extent) is int for extent in value.shape):
        return "gives a shape that depends on values"
    if value.dtype not in _SENDABLE:
        return f"gives {value.dtype}".replace("torch.", "") + " numbers"
    if value.shape[:1] != (batch,):
        return f"drops the batch axis, it gives {'x'.join(map(str, value.shape)) or 'one number'}"
    return None


def liveness(
    inputs: Sequence[fx.Node], operations: Sequence[fx.Node], ends: Sequence[fx.Node]
) -> list[tuple[fx.Node, ...]]:
    """The nodes whose values are still needed after each operation, in the order they were made."""
    order = {node: place for place, node in enumerate(operations)}
    last_use = {
        node: max((order.get(user, -1) for user in node.users), default=-1) for node in (*inputs, *operations)
    }
    last_use.update(dict.fromkeys(ends, len(operations)))
    crossing = list(inputs)
    live = []
    for place, node in enumerate(operations):
        crossing = [each for each in (*crossing, node) if last_use[each] > place]
        live.append(tuple(crossing))
    return live


def cut_points(captured: Captured, source: ModelSource, batch: int, other: Captured | None = None) -> Cuts:
    """Cut wherever at most ``source.max_tensors`` tensors are live, and axis 0 of each is the batch.

    ``other``: the same network captured for another batch, to tell the batch from an axis that is as long.
    Raises ``ModelError`` where nothing is computed.
    """
    inputs, calls, ends = _parts(captured)
    if not calls or not any(end in calls for end in ends):
        raise ModelError(f"{source.name} computes nothing from its input")
    live = liveness(inputs, calls, ends)
    fit = [not any(unfit(node, batch) for node in crossing) for crossing in live]
    others = _parts(other) if other else None
    if others and list(map(operation, others[1])) == list(map(operation, calls)):
        extent = others[0][0].meta["val"].shape[0]
        fit = [
            here and not any(unfit(node, extent) for node in crossing)
            for here, crossing in zip(fit, liveness(*others), strict=True)
        ]
    places = [k + 1 for k in range(len(calls) - 1) if fit[k] and 0 < len(live[k]) <= source.max_tensors]
    begins, stops = [0, *places], [*places, len(calls)]
    steps = tuple(calls[a:b] for a, b in zip(begins, stops, strict=True))
    return Cuts(captured, steps, (inputs, *(live[place - 1] for place in places), ends), len(places))


def _parts(captured: Captured) -> tuple[tuple[fx.Node, ...], tuple[fx.Node, ...], tuple[fx.Node, ...]]:
    """Inputs, operations that depend on them, and outputs."""
    nodes = [node for node in captured.graph.nodes if node not in captured.constants]
    inputs = tuple(node for node in nodes if node.op == "placeholder")
    calls = tuple(node for node in nodes if node.op == "call_function")
    ends = tuple(value for value in tree_leaves(nodes[-1].args) if isinstance(value, fx.Node))
    return inputs, calls, ends


def weighted_steps(cuts: Cuts) -> list[int]:
    """Where a layer begins: at each weighted operation; what precedes the first belongs to it."""
    begins = [place for place, step in enumerate(cuts.steps) if any(map(cuts.weighted, step))]
    return [0, *begins[1:]] if begins else list(range(len(cuts.steps)))


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
