"""Finding a network by name: what it takes, its weights, and how images are prepared for it."""

from __future__ import annotations

import ast
import functools
import importlib
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.chain import InputSpec, ModelSource, TensorSpec
from planner.errors import MissingDependencyError, ModelError

try:
    import torch
    from torch import nn
    from torch.utils._pytree import tree_leaves
except ImportError as error:
    raise MissingDependencyError(error.name or "torch", "loading a network", "torch") from error

from profiler.weights import fill_zero_weights, load_weights


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: resize the short side, crop the centre, normalise per channel."""

    resize: int
    crop: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class ModelInput:
    """One tensor that a network takes: its spec for one sample, and its name where it is a keyword.

    Integers are drawn from ``low``..``high``, so that no embedding is asked for a row it lacks.
    """

    spec: TensorSpec
    name: str = ""
    low: int = 0
    high: int = 1

    @classmethod
    def of(cls, given: InputSpec, low: int = 0, high: int = 1) -> ModelInput:
        return cls(TensorSpec((1, *given.shape), given.dtype), given.name, low, high)

    def example(self, batch: int, generator: torch.Generator) -> torch.Tensor:
        """A random tensor for ``batch`` samples."""
        shape, dtype = self.spec.batched(batch).shape, getattr(torch, self.spec.dtype)
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype)
        return torch.randint(self.low, self.high + 1, shape, generator=generator).to(dtype)


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, what it takes, how images are prepared for it, and its classes.

    ``inputs`` are those passed by position, then those passed by keyword. ``categories`` is empty where
    the classes have no names.
    """

    source: ModelSource
    module: nn.Module
    inputs: tuple[ModelInput, ...]
    preparation: Preparation | None = None
    categories: tuple[str, ...] = ()

    def example(self, batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Random inputs, in order. Raises ``ModelError`` where memory does not hold them."""
        generator = torch.Generator().manual_seed(seed)
        try:
            return tuple(each.example(batch, generator) for each in self.inputs)
        except RuntimeError as error:
            shapes = " + ".join(str(each.spec.batched(batch)) for each in self.inputs)
            raise ModelError(f"no memory for inputs of {shapes}", "pass a smaller batch or shape") from error

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        """The tensors as the positional and the keyword arguments of ``module``."""
        pairs = list(zip(self.inputs, tensors, strict=True))
        positional = tuple(tensor for given, tensor in pairs if not given.name)
        return positional, {given.name: tensor for given, tensor in pairs if given.name}

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Every tensor in the module's output, in order, whatever tuples and dicts hold them.

        Raises ``ModelError`` where the module fails.
        """
        positional, keywords = self.arguments(tensors)
        try:
            with torch.inference_mode():
                output = self.module(*positional, **keywords)
        except Exception as error:  # the user's code raises what it likes
            raise ModelError(
                f"{self.source.name} fails on {self.described}: {type(error).__name__}: {error!s:.300}",
                "pass --input-shape [NAME=]SHAPE[:DTYPE] for every tensor that it takes",
            ) from error
        return tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor))

    @property
    def described(self) -> str:
        """Its inputs for one sample, in words."""
        return " + ".join(f"{each.name}={each.spec}" if each.name else str(each.spec) for each in self.inputs)


def load_model(source: ModelSource) -> LoadedModel:
    """Load the network that ``source`` names.

    Raises ``UnknownNameError`` (with the nearest names) or ``ModelError``.
    """
    torch.manual_seed(source.seed)
    if source.name.startswith("hf:"):
        from profiler.huggingface import load_transformer

        model = load_transformer(source)
    elif source.name.startswith("import:"):
        raise ModelError(
            f"{source.name} stands for another tool's measurements: there is no network to load",
            "profile the network itself to deploy it",
        )
    elif ":" in source.name:
        model = _own_model(source)
    else:
        from profiler.torchvision_model import load_classifier

        model = load_classifier(source)
    if source.weights == "none":
        fill_zero_weights(model.module, source.seed)
    elif source.weights != "default":
        load_weights(model.module, Path(source.weights))
    try:
        model.module.eval().requires_grad_(False)
    except (RuntimeError, ValueError) as error:  # a scripted module, or a lazy one that never ran
        raise ModelError(
            f"{source.name} cannot be used: {error!s:.200}", "return a plain torch.nn.Module"
        ) from None
    return model


def parse_config(entries: Iterable[str]) -> dict[str, Any]:
    """``key=value`` entries as arguments: numbers, True, False, None and quoted text, else the text itself."""
    found: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found[key] = {"true": True, "false": False}.get(text, text)
    return found


def _own_model(source: ModelSource) -> LoadedModel:
    """A module from the user's own ``package.module:callable``, found from the working directory."""
    name, _, attribute = source.name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        build: Any = functools.reduce(getattr, attribute.split("."), importlib.import_module(name))
        module = build(**parse_config(source.config))
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        remedy = "it must be importable from this folder, and take no arguments but those of --config"
        raise ModelError(f"model {source.name!r} could not be built: {problem}", remedy) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{source.name!r} returned {type(module).__name__}", "return a torch.nn.Module")
    if source.weights == "default":
        raise ModelError(
            f"{source.name!r} has no default weights", "let the callable load them, or pass --weights FILE"
        )
    settings = _image_settings(module)
    inputs = _own_inputs(source, module, settings)
    return LoadedModel(source, module, inputs, _own_preparation(inputs, settings))


def _own_inputs(source: ModelSource, module: nn.Module, settings: dict[str, Any]) -> tuple[ModelInput, ...]:
    """What --input-shape says, or the module: ``example_input_array`` (PyTorch Lightning) or timm's settings."""
    if source.inputs:
        ordered = sorted(source.inputs, key=lambda given: bool(given.name))
        return tuple(ModelInput.of(given) for given in ordered)
    example = getattr(module, "example_input_array", None)
    if example is not None:
        keywords = example if isinstance(example, dict) else {}
        positional = () if keywords else example if isinstance(example, (tuple, list)) else (example,)
        pairs = [("", value) for value in positional] + list(keywords.items())
        return tuple(_from_example(source.name, key, value) for key, value in pairs)
    if "input_size" in settings:
        return (ModelInput.of(InputSpec(tuple(settings["input_size"]))),)
    raise ModelError(
        f"{source.name} does not say what it takes",
        "pass --input-shape 3x224x224 (one sample; NAME=SHAPE for a keyword, SHAPE:int64 for whole numbers), or give "
        "the module an attribute example_input_array",
    )


def _from_example(model: str, name: str, value: object) -> ModelInput:
    if not isinstance(value, torch.Tensor) or not value.ndim or not value.numel():
        shown = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ModelError(
            f"{model}: example_input_array holds {shown}", "every input is a tensor, batch first"
        )
    given = InputSpec(tuple(value.shape[1:]), str(value.dtype).removeprefix("torch."), str(name))
    if value.dtype.is_floating_point:
        return ModelInput.of(given)
    return ModelInput.of(given, int(value.min()), int(value.max()))


def _image_settings(module: nn.Module) -> dict[str, Any]:
    """timm's description of the images that a network was trained on, if it has one."""
    found = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    return found if isinstance(found, dict) else {}


def _own_preparation(inputs: tuple[ModelInput, ...], settings: dict[str, Any]) -> Preparation | None:
    shape = inputs[0].spec.shape[1:]
    if len(inputs) != 1 or len(shape) != 3 or shape[0] not in (1, 3) or inputs[0].spec.dtype != "float32":
        return None
    plain = Preparation(min(shape[1:]), (shape[1], shape[2]))
    return Preparation(
        math.floor(plain.resize / settings.get("crop_pct", 1.0)),
        plain.crop,
        tuple(settings.get("mean", plain.mean)),
        tuple(settings.get("std", plain.std)),
        "bicubic" if settings.get("interpolation") == "bicubic" else plain.interpolation,
    )
