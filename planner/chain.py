"""A network as the planner sees it: layers in running order and what crosses between them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from planner.documents import document
from planner.notebook import Displayed, table_of

if TYPE_CHECKING:
    import pandas as pd

_DTYPES = {"float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "bfloat16"}


@document()
class TensorSpec:
    """Shape and dtype of one tensor; axis 0 is the batch."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; known: {', '.join(sorted(_DTYPES))}")
        if any(extent < 1 for extent in self.shape):
            raise ValueError(f"shape {self.shape} has an extent below 1")

    @property
    def nbytes(self) -> int:
        """Its size as it is, uncompressed."""
        itemsize = 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize
        return math.prod(self.shape) * itemsize

    def batched(self, batch: int) -> TensorSpec:
        """The same tensor for ``batch`` times as many samples."""
        return TensorSpec((self.shape[0] * batch, *self.shape[1:]), self.dtype)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + f" {self.dtype}"


@document()
class Boundary:
    """The tensors live at one place between layers."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if not self.tensors:
            raise ValueError("a boundary carries at least one tensor")

    @property
    def nbytes(self) -> int:
        """Of all its tensors, uncompressed."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def batched(self, batch: int) -> Boundary:
        """The same boundary for ``batch`` times as many samples."""
        return Boundary(tuple(tensor.batched(batch) for tensor in self.tensors))

    def __str__(self) -> str:
        return " + ".join(map(str, self.tensors))


@document()
class Layer:
    """The smallest unit a cut may not pass through.

    ``macs``: multiply-accumulates for one sample.
    """

    name: str
    parameters: int
    weight_bytes: int
    macs: int

    def __post_init__(self) -> None:
        if min(self.parameters, self.weight_bytes, self.macs) < 0:
            raise ValueError(f"layer {self.name!r} has a negative count")


@document(order=True)
class Bundle:
    """The contiguous layers start..stop-1: two integers, half open."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"bundle [{self.start}, {self.stop}) is empty or starts below 0")

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


@document()
class InputSpec:
    """One input of a model for one sample, without the batch; ``name`` where it is a keyword."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str = ""

    def __post_init__(self) -> None:
        TensorSpec((1, *self.shape), self.dtype)

    def __str__(self) -> str:
        name = f"{self.name}=" if self.name else ""
        dtype = "" if self.dtype == "float32" else f":{self.dtype}"
        return name + "x".join(map(str, self.shape)) + dtype


@document()
class ModelSource:
    """Where a model comes from: enough to load it again on another machine.

    ``weights`` is ``none`` (random, drawn with ``seed``), ``default`` or a file name; the chain's
    digest, not this, says whether two models are the same. ``config`` holds ``key=value`` arguments of
    whatever builds it; ``inputs`` is empty where the model says itself what it takes. A cut may pass
    through ``max_tensors`` live tensors.
    """

    name: str
    weights: str = "none"
    seed: int = 0
    granularity: Literal["layer", "op"] = "layer"
    max_layers: int | None = None
    max_tensors: int = 1
    inputs: tuple[InputSpec, ...] = ()
    config: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """A file name for what belongs to this model and cut."""
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.name)
        parts = [stem, *("".join(c if c.isalnum() else "-" for c in each) for each in self.config)]
        parts += [self.granularity] if self.granularity != "layer" else []
        parts += [f"tensors{self.max_tensors}"] if self.max_tensors > 1 else []
        parts += [f"max{self.max_layers}"] if self.max_layers else []
        return "-".join(parts)

    @property
    def arguments(self) -> str:
        """The model and its options, as on a command line."""
        options = [self.name]
        for option, value, default in (
            ("--weights", self.weights, "none"),
            ("--seed", self.seed, 0),
            ("--granularity", self.granularity, "layer"),
            ("--max-layers", self.max_layers, None),
            ("--max-tensors", self.max_tensors, 1),
            *(("--input-shape", str(each), "") for each in self.inputs),
            *(("--config", each, "") for each in self.config),
        ):
            if value != default:
                options += [option, shlex.quote(str(value))]
        return " ".join(options)


@document()
class Chain(Displayed):
    """n layers and n+1 boundaries, for one sample; boundary 0 is the input, boundary n the output.

    ``digest`` is the SHA-256 over weights, layers and boundaries: two chains with equal digests are
    the same network cut in the same places.
    """

    source: ModelSource
    digest: str
    layers: tuple[Layer, ...]
    boundaries: tuple[Boundary, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a chain has at least one layer")
        if len(self.boundaries) != len(self.layers) + 1:
            raise ValueError(
                f"{len(self.layers)} layers need {len(self.layers) + 1} boundaries, "
                f"found {len(self.boundaries)}"
            )

    def __len__(self) -> int:
        return len(self.layers)

    def headline(self) -> str:
        parameters = sum(layer.parameters for layer in self.layers)
        macs = sum(layer.macs for layer in self.layers)
        size = f"{parameters:,} parameters, {macs:,} multiply-accumulates"
        return f"{self.source.name}: {len(self)} layers, {size}"

    def frame(self, batch: int = 1) -> pd.DataFrame:
        """A row per layer: ``layer`` (its number), ``name``, ``parameters``, ``weight_bytes``, ``macs`` of one sample;
        then what crosses the boundary behind it: ``output`` (shapes and dtypes) and ``output_bytes`` of a batch."""
        rows = [
            {
                "layer": place,
                "name": layer.name,
                "parameters": layer.parameters,
                "weight_bytes": layer.weight_bytes,
                "macs": layer.macs,
                "output": str(after.batched(batch)),
                "output_bytes": after.nbytes * batch,
            }
            for place, (layer, after) in enumerate(zip(self.layers, self.boundaries[1:], strict=True))
        ]
        return table_of(rows)

    def bundles(self) -> Iterator[Bundle]:
        """Every contiguous bundle, by start, then by stop."""
        for start in range(len(self)):
            for stop in range(start + 1, len(self) + 1):
                yield Bundle(start, stop)

    def wire_bytes(self, boundary: int, batch: int = 1) -> int:
        """Bytes of the tensors live at ``boundary`` for a batch, uncompressed."""
        return self.boundaries[boundary].nbytes * batch
