"""Capturing a network as a functional graph in which all that is constant is computed once.

``torch.export`` records the network; functionalising it takes out operations that write in place,
which would overwrite a stored feature map. What does not depend on the input is folded.
"""

from __future__ import annotations

import linecache
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx

from planner.errors import ModelError
from profiler.model import LoadedModel

# Operations that take only shape and dtype from their input.
_CREATING = {
    "new_zeros", "new_ones", "new_full", "new_empty",
    "zeros_like", "ones_like", "full_like", "empty_like",
}  # fmt: skip


@dataclass(frozen=True)
class Captured:
    """A functional graph; ``constants`` names each node whose value does not depend on the inputs.

    ``weights``: the values of those names. ``origins``: the parameters each of them was made from.
    """

    graph: fx.Graph
    constants: dict[fx.Node, str]
    weights: dict[str, torch.Tensor]
    origins: dict[str, frozenset[str]]
    parameters: dict[str, int]

    def parameter_count(self, names: set[str]) -> int:
        """Trained numbers behind these constants, each parameter counted once."""
        used = {origin for name in names for origin in self.origins[name]}
        return sum(self.parameters.get(origin, 0) for origin in used)


def operation(node: fx.Node) -> str:
    """The operation's plain name: ``conv2d`` of ``aten.conv2d.default``."""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[-1]
    return getattr(node.target, "__name__", str(node.target))


def capture(model: LoadedModel, inputs: tuple[torch.Tensor, ...]) -> Captured:
    """Capture ``model`` for inputs of these shapes.

    Raises ``ModelError`` where torch.export cannot, or where the network changes its own state.
    """
    name = model.source.name
    positional, keywords = model.arguments(inputs)
    try:
        with quiet():
            exported = torch.export.export(model.module, positional, keywords, strict=False)
            program = exported.run_decompositions({})
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        remedy = (
            f"it must take {model.described} (--input-shape says otherwise) and not branch on tensor values"
        )
        raise ModelError(f"{name} cannot be captured: {reason:.300}{_culprit(error)}", remedy) from error
    signature = program.graph_signature
    changed = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if changed:
        problem = f"{name} changes its state while it runs: {', '.join(changed)}"
        raise ModelError(problem, "only a network that leaves its buffers and inputs alone can be cut")
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    stored = {**program.state_dict, **program.constants}
    graph = program.graph
    for node in graph.nodes:
        # What crosses a boundary arrives contiguous, however it was laid out before; a view may not fit that.
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
    graph.eliminate_dead_code()
    chosen = next((node for node in graph.nodes if node.op == "get_attr"), None)
    if chosen:
        user = next(iter(chosen.users))
        problem = f"{name} chooses what to run while it runs: operation {located(user)}"
        raise ModelError(problem, "only a network whose operations are always the same can be cut")
    given = {node: targets[node.name] for node in graph.nodes if node.name in targets}
    weights = {target: stored[target].detach() for target in given.values()}
    parameters = {target: weights[target].numel() for target in signature.inputs_to_parameters.values()}
    return _fold(graph, given, weights, parameters)


def _culprit(error: BaseException) -> str:
    """The line of the user's own code that the exporter stopped at."""
    library = str(Path(torch.__file__).parent) + "/"
    frames = []
    each: BaseException | None = error
    while each is not None:
        frames += [f for f in traceback.extract_tb(each.__traceback__) if not f.filename.startswith(library)]
        each = each.__cause__ or each.__context__
    frames = [frame for frame in frames if frame.filename != __file__ and frame.line]
    return f", at {_line(frames[-1].filename, frames[-1].lineno or 0)}" if frames else ""


def _line(file: str, number: int) -> str:
    return f"{Path(file).name}:{number}: {linecache.getline(file, number).strip()}"


def located(node: fx.Node) -> str:
    """The operation's name and the line of the model's code that it comes from, where that is known."""
    library = str(Path(torch.__file__).parent) + "/"
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    frames = [line for line in lines if line.startswith('File "/') and library not in line]
    if not frames:
        return operation(node)
    _, file, rest = frames[-1].split('"', 2)
    return f"{operation(node)} ({Path(file).name}:{rest.split('line ')[1].split(',')[0]})"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's warnings and logged tracebacks to itself; what matters arrives as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _fold(
    graph: fx.Graph, given: dict[fx.Node, str], weights: dict[str, torch.Tensor], parameters: dict[str, int]
) -> Captured:
    """Compute what does not depend on the input, once."""
    constants = dict(given)
    origins = {name: frozenset({name}) for name in weights}
    values: dict[fx.Node, Any] = {node: weights[name] for node, name in given.items()}
    for node in graph.nodes:
        needs = node.all_input_nodes
        creating = operation(node) in _CREATING if node.op == "call_function" else False
        if node.op != "call_function" or not (creating or all(needed in values for needed in needs)):
            continue
        shaped = {needed: values.get(needed, _blank(needed)) for needed in needs}
        with torch.no_grad():
            args, kwargs = fx.map_arg((node.args, node.kwargs), shaped.__getitem__)
            values[node] = node.target(*args, **kwargs)
        name = constants[node] = f"folded.{node.name}"
        origins[name] = frozenset().union(*(origins[constants[n]] for n in needs if n in constants))
        if isinstance(values[node], torch.Tensor):
            weights[name] = values[node].contiguous()
    return Captured(graph, constants, weights, origins, parameters)


def _blank(node: fx.Node) -> Any:
    """A tensor of the node's shape and dtype, for operations that look at nothing else."""
    value = node.meta.get("val")
    return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else None
