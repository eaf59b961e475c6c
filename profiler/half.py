"""Running a captured bundle in fp16 or bf16 with PyTorch: cast at the rim, weights cast once."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from planner.chain import TensorSpec

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_CAST = torch.ops.aten._to_copy.default


class Caster:
    """Makes modules of one precision; a weight that several bundles use is cast once."""

    def __init__(self, precision: str) -> None:
        self._dtype = DTYPES[precision]
        self._largest = torch.finfo(self._dtype).max
        self._cast: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(
        self, module: fx.GraphModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> fx.GraphModule:
        """``module`` computing in this precision between fp32 inputs and outputs of these specs."""
        if self._dtype is torch.float32:
            return module
        graph = module.graph
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        for node in list(graph.nodes):
            if node.op == "get_attr":
                setattr(module, node.target, self._weight(getattr(module, node.target)))
            elif node.op == "call_function":
                node.args, node.kwargs = (self._arguments(value) for value in (node.args, node.kwargs))
        for node, spec in zip(placeholders, inputs, strict=True):
            if spec.dtype == "float32":
                with graph.inserting_after(placeholders[-1]):
                    cast = graph.call_function(_CAST, (node,), {"dtype": self._dtype})
                node.replace_all_uses_with(cast, lambda user, cast=cast: user is not cast)
        (end,) = (node for node in graph.nodes if node.op == "output")
        results: Any = end.args[0]
        with graph.inserting_before(end):
            cast_back = [
                graph.call_function(_CAST, (node,), {"dtype": torch.float32})
                if spec.dtype == "float32"
                else node
                for node, spec in zip(results, outputs, strict=True)
            ]
        end.args = (tuple(cast_back),)
        module.recompile()
        return module

    def _weight(self, weight: torch.Tensor) -> torch.Tensor:
        if weight.dtype is not torch.float32:
            return weight
        if id(weight) not in self._cast:
            # Kept beside its original, whose id would otherwise be given to another tensor. Masks hold
            # the least fp32 number, which would become -inf, and -inf - -inf no number.
            self._cast[id(weight)] = weight, weight.clamp(-self._largest, self._largest).to(self._dtype)
        return self._cast[id(weight)][1]

    def _arguments(self, value: Any) -> Any:
        """The same arguments with fp32 as a dtype replaced, and numbers beyond the type's range clipped."""
        if value is torch.float32:
            return self._dtype
        if isinstance(value, float) and math.isfinite(value):
            return min(max(value, -self._largest), self._largest)
        if isinstance(value, (tuple, list)):
            return type(value)(self._arguments(each) for each in value)
        if isinstance(value, dict):
            return {key: self._arguments(each) for key, each in value.items()}
        return value
