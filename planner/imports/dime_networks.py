"""The networks that DIME profiles: layers in running order, and what enters each.

DIME cuts after pooling and flattening, and counts one float as the output: the class.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.chain import Bundle, TensorSpec


@dataclass(frozen=True)
class Network:
    """``boundaries``: the layers' inputs for one sample, then the output."""

    name: str
    layers: tuple[str, ...]
    boundaries: tuple[TensorSpec, ...]
    separator: str = "_"

    def bundle(self, joined: str) -> Bundle:
        """The bundle that this name stands for. Raises ``ValueError`` saying why it is none."""
        names = [self.canonical(name) for name in joined.strip().split(self.separator)]
        for name in names:
            if name not in self.layers:
                raise ValueError(f"{self.name} has no layer {name!r:.60}")
        start = self.layers.index(names[0])
        stop = start + len(names)
        if tuple(names) != self.layers[start:stop]:
            raise ValueError(f"the layers of {joined!r:.60} do not follow each other in {self.name}")
        return Bundle(start, stop)

    def canonical(self, name: str) -> str:
        """Some files abbreviate the encoder layers."""
        if name.startswith("enc_layer_") and name not in self.layers:
            return "encoder_layer_" + name.removeprefix("enc_layer_")
        return name


def _floats(*shapes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec((1, *shape)) for shape in (*shapes, (1,)))


_TOKENS = (197, 768)
NETWORKS = {
    network.name: network
    for network in (
        Network(
            "alexnet",
            ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2", "fc3"),
            _floats(
                (3, 224, 224), (64, 27, 27), (192, 13, 13), (384, 13, 13), (256, 13, 13), (9216,), (4096,), (4096,)
            ),
        ),
        Network(
            "vgg11",
            (*(f"conv{k}" for k in range(1, 9)), "fc1", "fc2", "fc3"),
            _floats(
                (3, 224, 224), (64, 112, 112), (128, 56, 56), (256, 56, 56), (256, 28, 28), (512, 28, 28),
                (512, 14, 14), (512, 14, 14), (25088,), (4096,), (4096,),
            ),
        ),
        Network(
            "vit_b_16",
            ("conv_proj", "process_input_operations", "add_pos_embedding",
             *(f"encoder_layer_{k}" for k in range(12)), "head"),
            _floats((3, 224, 224), (768, 14, 14), *[_TOKENS] * 14),
            separator="__",
        ),
    )
}  # fmt: skip
