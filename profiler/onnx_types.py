"""Computing an ONNX graph in half precision: a float type for every node, casts only where it changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from planner.errors import BundleError

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
# Inputs that the operator's schema wants in float32 whatever its other types.
_ALWAYS_FLOAT = {"Resize": {1, 2}}
_QUANTISING = {"QuantizeLinear", "DequantizeLinear"}
# Operations whose weights mean something else when clipped; elsewhere such a number stands for infinity.
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"}


def convert(model: ir.Model, choose: Callable[[ir.Node], ir.DataType]) -> None:
    """Give each node of ``model`` the float type that ``choose`` names, in place.

    Weights and constants are converted; constants beyond the type's range are clipped to it (a mask holds
    the least fp32 number, which would become -inf), weights beyond it raise ``BundleError``. Nodes that
    quantise stay in float32. The graph's own inputs and outputs take the type of what they meet:
    ``cast_rim`` gives a part float32 ends.
    """
    _Conversion(model.graph, choose).run()


class _Conversion:
    def __init__(self, graph: ir.Graph, choose: Callable[[ir.Node], ir.DataType]) -> None:
        self.graph, self.choose = graph, choose
        self.made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        for node in list(self.graph):
            wanted = ir.DataType.FLOAT if node.op_type in _QUANTISING else self.choose(node)
            _convert_attributes(node, wanted)
            for place, value in enumerate(node.inputs):
                if value is None or value.dtype not in _FLOATS:
                    continue
                kept = place in _ALWAYS_FLOAT.get(node.op_type, ())
                target = ir.DataType.FLOAT if kept else wanted
                if value.dtype != target:
                    if node.op_type in _WEIGHTED and target is ir.DataType.FLOAT16:
                        _check_range(node, value)
                    node.replace_input_with(place, self._typed(value, target))
            for output in node.outputs:
                if output.dtype in _FLOATS:
                    output.dtype = wanted
        for name in [name for name, value in self.graph.initializers.items() if not value.uses()]:
            del self.graph.initializers[name]

    def _typed(self, value: ir.Value, target: ir.DataType) -> ir.Value:
        """``value`` in another type: a second initializer, or a cast behind what computes it."""
        key = value, target
        if key not in self.made:
            name = f"{value.name}_{target.name.lower()}"
            if value.const_value is not None and value.producer() is None:
                weight = ir.Value(name=name, type=ir.TensorType(target), shape=value.shape)
                weight.const_value = _cast(value.const_value, target, name)
                self.graph.initializers[name] = weight
                self.made[key] = weight
            else:
                cast = _cast_node(value, target, name)
                producer = value.producer()
                if producer is None:
                    self.graph.insert_before(self.graph[0], cast)
                else:
                    self.graph.insert_after(producer, cast)
                self.made[key] = cast.outputs[0]
        return self.made[key]


def cast_rim(graph: ir.Graph) -> None:
    """Give a graph float32 inputs and outputs of the same names, with casts behind and before them."""
    for place, value in enumerate(graph.inputs):
        if value.dtype in _FLOATS and value.dtype != ir.DataType.FLOAT:
            given = ir.Value(name=value.name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
            cast = _cast_node(given, value.dtype, f"{value.name}_typed")
            value.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
            graph.inputs[place] = given
            graph.insert_before(graph[0], cast)
    for place, value in enumerate(graph.outputs):
        if value.dtype in _FLOATS and value.dtype != ir.DataType.FLOAT:
            name = value.name
            value.name = f"{name}_computed"
            cast = _cast_node(value, ir.DataType.FLOAT, str(name))
            graph.append(cast)
            graph.outputs[place] = cast.outputs[0]


def _cast_node(value: ir.Value, target: ir.DataType, name: str) -> ir.Node:
    result = ir.Value(name=name, type=ir.TensorType(target), shape=value.shape)
    return ir.node("Cast", [value], {"to": int(target)}, outputs=[result], name=f"cast_{name}")


def _check_range(node: ir.Node, value: ir.Value) -> None:
    if value.const_value is None:
        return
    largest = float(np.abs(value.const_value.numpy()).max(initial=0))
    if float(np.finfo(np.float16).max) < largest < np.inf:
        raise BundleError(
            f"weight {value.name} of {node.op_type} {node.name} holds {largest:.1e}, beyond the range of fp16",
            "use another precision",
        )


def _convert_attributes(node: ir.Node, wanted: ir.DataType) -> None:
    """What a node makes or casts to by itself."""
    if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(wanted))
    if node.op_type in ("Constant", "ConstantOfShape") and "value" in node.attributes:
        tensor = node.attributes["value"].as_tensor()
        if tensor.dtype in _FLOATS and tensor.dtype != wanted:
            node.attributes["value"] = ir.AttrTensor("value", _cast(tensor, wanted, tensor.name))


def _cast(tensor: ir.TensorProtocol, target: ir.DataType, name: str | None) -> ir.TensorProtocol:
    array = tensor.numpy().astype(np.float32)
    if target is ir.DataType.FLOAT16:
        largest = float(np.finfo(np.float16).max)
        finite = np.isfinite(array)
        array = np.where(finite, np.clip(array, -largest, largest), array)
    return ir.Tensor(array.astype(target.numpy()), dtype=target, name=name)
