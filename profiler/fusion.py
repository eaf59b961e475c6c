"""Folding batch normalisation into the convolution before it, on the captured graph of any network.

In evaluation mode a batch normalisation is y = (x - mean) / sqrt(var + eps) * weight + bias per channel, so
with x = conv(z) it is one convolution with other weights (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, equation 14; the weights are computed
by ``torch.nn.utils.fusion``). It is folded wherever the convolution's result goes to the normalisation alone
and no cut lies between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.nn.utils.fusion import fuse_conv_bn_weights

from planner.chain import Bundle
from planner.errors import BundleError

if TYPE_CHECKING:
    from profiler.cut import CutModel
    from profiler.runner import Array

# Of the largest output: folded in double precision, rounded once.
TOLERANCE = 1e-4
_CONVOLUTIONS = {
    overload
    for packet in (torch.ops.aten.conv1d, torch.ops.aten.conv2d, torch.ops.aten.conv3d)
    for overload in (packet.default, packet.padding)
}
# (input, weight, bias, running mean, running variance, momentum, eps) -> (output, and two left empty)
_NORMALISATION = torch.ops.aten._native_batch_norm_legit_no_training.default


def fold_batch_norms(module: fx.GraphModule) -> fx.GraphModule:
    """``module`` with every batch normalisation folded that can be; weights not folded stay shared."""
    for node in list(module.graph.nodes):
        if foldable(module, node):
            _fold(module, node)
    module.graph.eliminate_dead_code()
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in module.named_buffers() if name not in used]:
        delattr(module, name)
    module.recompile()
    return module


def check_fusion(cut: CutModel, arrays: Sequence[Array]) -> int:
    """How many batch normalisations of the whole network are folded.

    ``arrays``: an input at boundary 0. Raises ``BundleError`` if the folded network gives other outputs
    than the network as it is.
    """
    whole = Bundle(0, len(cut.chain))
    plain, folded = cut.module(whole), cut.fused().module(whole)
    inputs = [torch.from_numpy(array) for array in arrays]
    with torch.inference_mode():
        pairs = zip(folded(*inputs), plain(*inputs), strict=True)
        error = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)
    if not error <= TOLERANCE:
        raise BundleError(
            f"{cut.chain.source.name} with batch normalisation folded differs by {error:.1e} of the largest "
            f"output, tolerated are {TOLERANCE:.0e}",
            "pass --no-fuse",
        )
    count = [sum(node.target is _NORMALISATION for node in each.graph.nodes) for each in (plain, folded)]
    return count[0] - count[1]


def foldable(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ``node`` is a batch normalisation that the convolution before it can take in."""
    if node.target is not _NORMALISATION or any(user.args[1] for user in node.users):
        return False
    before: Any = node.args[0]
    if before.target not in _CONVOLUTIONS or len(before.users) > 1:
        return False
    fixed = [*before.args[1:3], *node.args[1:5]]
    return all(value is None or (isinstance(value, fx.Node) and value.op == "get_attr") for value in fixed)


def _fold(module: fx.GraphModule, norm: fx.Node) -> None:
    conv: Any = norm.args[0]

    def value(node: Any) -> Any:
        return None if node is None else getattr(module, node.target).double()

    weight, bias, mean, variance = (value(each) for each in norm.args[1:5])
    kernel, conv_bias = value(conv.args[1]), value(conv.args[2] if len(conv.args) > 2 else None)
    eps: Any = norm.args[6]
    folded = fuse_conv_bn_weights(kernel, conv_bias, mean, variance, eps, weight, bias)
    dtype = getattr(module, conv.args[1].target).dtype
    with module.graph.inserting_before(conv):
        made = []
        for kind, tensor in zip(("weight", "bias"), folded, strict=True):
            name = f"w_{conv.name}_folded_{kind}"
            module.register_buffer(name, tensor.detach().to(dtype))
            made.append(module.graph.get_attr(name))
    conv.args = (conv.args[0], *made, *conv.args[3:])
    for output in list(norm.users):
        output.replace_all_uses_with(conv)
