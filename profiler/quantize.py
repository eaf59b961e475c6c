"""int8 after training: quantise and dequantise nodes in a whole ONNX graph, weights per channel.

The ranges come from calibration (``profiler.calibration``); ONNX Runtime's quantizer places the nodes. Two
schemes are derived from the same ranges:

- ``cpu``: unsigned activations with a zero point, signed weights. Without VNNI instructions the processor
  adds pairs of products in 16 bits, which saturate: weights then use 7 bits.
- ``tensorrt``: signed activations and weights without zero points, biases left in float.

A boundary's tensor is quantised where it is made, and so is float32 on the same grid when it crosses: quantising
it again in the next bundle changes nothing.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from planner.errors import BundleError
from planner.recipe import Recipe
from profiler.capture import quiet

Target = Literal["cpu", "tensorrt"]

# Operations computed in int8. Activation functions are left out: an engine folds them into the operation
# before them, if nothing is quantised between the two.
QUANTISED = (
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "Pad", "MaxPool", "AveragePool", "GlobalAveragePool",
)  # fmt: skip
# On a GPU these gain nothing, and each costs a conversion.
_ELEMENTWISE = {"Add", "Mul", "Concat", "Pad", "MaxPool", "AveragePool", "GlobalAveragePool"}


def quantised_operations(graph: ir.Graph, target: Target) -> tuple[str, ...]:
    """Those worth it on this target, in this network.

    The sums of a transformer's residual stream go into normalisations, not into more int8: quantising them
    gains nothing and costs most of the accuracy.
    """
    normalises = any(node.op_type == "LayerNormalization" for node in graph)
    few = target == "tensorrt" or normalises
    return tuple(name for name in QUANTISED if not few or name not in _ELEMENTWISE)


def quantise(model: ir.Model, recipe: Recipe, target: Target, kept: Collection[str], source: str) -> ir.Model:
    """``model`` (float32, weights in memory) with its operations in int8, but for the nodes in ``kept``.

    Raises ``BundleError`` where a tensor has no range in the recipe, or the graph is too large.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    signed = target == "tensorrt"
    operations = quantised_operations(model.graph, target)
    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in recipe.ranges.items()}
    extra = {
        "QDQKeepRemovableActivations": True,
        # A tensor is quantised where it goes into one of these operations, so that activation functions stay
        # between an operation and the quantising of its result, and are folded into it.
        "OpTypesToExcludeOutputQuantization": list(operations),
        "ActivationSymmetric": signed,
        "WeightSymmetric": True,
        "QuantizeBias": not signed,
    }
    if target == "cpu":
        _keep_biases_apart(model.graph)
    try:
        proto = ir.to_proto(model)
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            quantizer: Any = QDQQuantizer(
                proto,
                per_channel=True,
                reduce_range=recipe.reduce_range and not signed,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if signed else QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
                nodes_to_quantize=[],
                nodes_to_exclude=list(kept),
                op_types_to_quantize=list(operations),
                extra_options=extra,
            )
            made: onnx.ModelProto = quantizer.quantize_model()
    except Exception as error:  # it raises plain ValueErrors, and whatever protobuf does beyond 2 GB
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BundleError(
            f"{source} cannot be quantised: {reason:.300}", "profile again here, or use another precision"
        ) from None
    quantised = ir.from_proto(made)
    quantised.graph.sort()
    return quantised


def _keep_biases_apart(graph: ir.Graph) -> None:
    """Give the biases added to matrix products leading axes of 1.

    With a plain one ONNX Runtime makes product and sum a Gemm before it looks for int8, and a Gemm without a
    quantised result runs in float, its weights dequantised on every run.
    """
    for node in graph:
        if node.op_type != "Add":
            continue
        for place, value in enumerate(node.inputs):
            other = node.inputs[1 - place]
            producer = other.producer() if other is not None else None
            if value is None or value.const_value is None or producer is None or producer.op_type != "MatMul":
                continue
            array = value.const_value.numpy()
            rank = len(other.shape or ()) if other is not None else 0
            if array.ndim == 1 and rank > 2:
                name = f"{value.name}_apart"
                apart = ir.Tensor(array.reshape((1,) * (rank - 1) + array.shape), name=name)
                graph.initializers[name] = ir.Value(
                    name=name, type=value.type, shape=ir.Shape(apart.shape), const_value=apart
                )
                node.replace_input_with(place, graph.initializers[name])
