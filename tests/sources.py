"""Networks to load and what to feed them, for several tests."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from planner import Bundle, InputSpec, ModelSource
from profiler.cut import CutModel, cut_model
from profiler.model import LoadedModel, load_model
from profiler.runner import Array

ROOT = Path(__file__).parent.parent
IDS, MASK = InputSpec((12,), "int64", "input_ids"), InputSpec((12,), "int64", "attention_mask")
SMALL = ("num_hidden_layers=2", "hidden_size=32", "num_attention_heads=2", "intermediate_size=64")
BERT = ModelSource("hf:BertModel", config=(*SMALL, "vocab_size=50"), inputs=(IDS, MASK), max_tensors=2)
DISTILBERT = ModelSource(
    "hf:DistilBertForSequenceClassification",
    config=("n_layers=2", "dim=32", "n_heads=2", "hidden_dim=64", "vocab_size=50"),
    inputs=(IDS, MASK),
    max_tensors=2,
)
VIT = ModelSource("hf:ViTForImageClassification", config=(*SMALL, "image_size=32", "patch_size=8"))
TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
FOUR = (InputSpec((4,)),)
UNET = ModelSource("models:UNet", inputs=(InputSpec((3, 16, 16)),))


@functools.cache
def cut(source: ModelSource, batch: int = 1) -> tuple[LoadedModel, CutModel]:
    model = load_model(source)
    return model, cut_model(model, batch)


def chained(made: CutModel, inputs: tuple[torch.Tensor, ...], ends: list[int]) -> tuple[torch.Tensor, ...]:
    at, start = inputs, 0
    with torch.inference_mode():
        for stop in ends:
            at = made.module(Bundle(start, stop))(*(value.contiguous() for value in at))
            start = stop
    return at


def noise_images(count: int) -> list[tuple[Array, ...]]:
    """Requests for ``TINY``."""
    draw = np.random.default_rng(0)
    return [(draw.normal(size=(1, 3, 32, 32)).astype(np.float32),) for _ in range(count)]


def answers_of_the_whole(made: CutModel, images: list[tuple[Array, ...]]) -> list[Array]:
    whole = made.module(Bundle(0, len(made.chain)))
    with torch.inference_mode():
        return [whole(torch.from_numpy(image))[0].numpy() for (image,) in images]


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.file)!r}, 'w')",)


def photographs(folder: Path) -> Path:
    for name in ("n01440764_1.png", "n02979186_2_7.png", "church.png", "n03888257/jump.png", "holiday.png"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (40, 40), (len(name) * 7, 90, 10)).save(folder / name)
    return folder
