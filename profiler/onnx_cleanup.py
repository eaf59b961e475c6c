"""Making an exported ONNX graph plain: what an engine or the quantiser would stumble over."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)
from onnxscript.optimizer import fold_constants


def clean(model: ir.Model) -> None:
    """Compute what depends on constants alone, and let convolutions do the padding before them, in place.

    The graph's outputs stay what they are: nothing is merged across a boundary.
    """
    fold_constants(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in model.graph:
        if node.op_type == "Conv":
            _take_padding(node)
    RemoveUnusedNodesPass()(model)
    # The exporter leaves values of its own without a type.
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)


def _take_padding(conv: ir.Node) -> None:
    """Add the zeros that a Pad puts around a convolution's input to the convolution's own padding."""
    value = conv.inputs[0]
    pad = value.producer() if value is not None else None
    if value is None or pad is None or pad.op_type != "Pad" or value.is_graph_output():
        return
    amounts = _constant(pad, 1)
    fill = _constant(pad, 2)
    rank = len(value.shape or ())
    mode = pad.attributes["mode"].as_string() if "mode" in pad.attributes else "constant"
    if (
        amounts is None
        or amounts.size != 2 * rank
        or mode != "constant"
        or (len(pad.inputs) > 3 and pad.inputs[3])
    ):
        return
    before, after = amounts[:rank].astype(int), amounts[rank:].astype(int)
    automatic = "auto_pad" in conv.attributes and conv.attributes["auto_pad"].as_string() != "NOTSET"
    plain = fill is None and (len(pad.inputs) < 3 or pad.inputs[2] is None)
    zeros = plain or (fill is not None and not np.any(fill))
    if automatic or not zeros or np.any(before[:2]) or np.any(after[:2]) or min(*before, *after) < 0:
        return
    own = conv.attributes["pads"].as_ints() if "pads" in conv.attributes else [0] * (2 * (rank - 2))
    total = np.asarray(own) + np.concatenate([before[2:], after[2:]])
    conv.attributes["pads"] = ir.AttrInt64s("pads", total.tolist())
    conv.replace_input_with(0, pad.inputs[0])


def _constant(node: ir.Node, place: int) -> np.ndarray | None:
    value = node.inputs[place] if place < len(node.inputs) else None
    return None if value is None or value.const_value is None else value.const_value.numpy()
