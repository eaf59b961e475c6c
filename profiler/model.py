"""Finding a network by name and giving it weights."""

from __future__ import annotations

import importlib
import sys
import urllib.error
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.chain import ModelSource, TensorSpec
from planner.errors import MissingDependencyError, ModelError, UnknownNameError

try:
    import torch
    import torchvision
    from torch import nn
except ImportError as error:
    raise MissingDependencyError(error.name or "torch", "loading a network", "torch") from error

IMAGE_SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an input: resize the short side, crop the centre, normalise per channel."""

    resize: int
    crop: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, what it takes (one sample), and how images are prepared for it."""

    source: ModelSource
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    preparation: Preparation | None


def load_model(source: ModelSource) -> LoadedModel:
    """Load the network that ``source`` names.

    Raises ``UnknownNameError`` (with the nearest names) or ``ModelError``.
    """
    torch.manual_seed(source.seed)
    if ":" in source.name:
        module, shape, preparation = _own_model(source)
    else:
        module, shape, preparation = _torchvision_model(source)
    if source.weights == "none":
        _fill_zero_weights(module, source.seed)
    elif source.weights != "default":
        _load_weights(module, Path(source.weights))
    module.eval().requires_grad_(False)
    return LoadedModel(source, module, (TensorSpec((1, *shape)),), preparation)


def _torchvision_model(source: ModelSource) -> tuple[nn.Module, tuple[int, ...], Preparation]:
    models = torchvision.models
    known = models.list_models(module=models)
    if source.name not in known:
        raise UnknownNameError("model", source.name, known, _own_hint(source.name, known))
    weights = models.get_model_weights(source.name).DEFAULT
    preset = weights.transforms()
    crop = preset.crop_size[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # googlenet and inception announce a new default
        if source.weights != "default":
            module = models.get_model(source.name, weights=None)
        else:
            module = _download(source.name, weights)
    shape = source.input_shape or (3, crop, crop)
    if len(shape) != 3:
        raise ModelError(f"{source.name} takes images, not {shape}", "pass --input-shape as 3x224x224")
    resize = round(preset.resize_size[0] * min(shape[1:]) / crop)
    return module, shape, Preparation(resize, (shape[1], shape[2]), tuple(preset.mean), tuple(preset.std))


def _own_hint(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    did_you_mean = f"did you mean {' or '.join(near)}? " if near else ""
    return did_you_mean + "any torchvision classification model, or package.module:callable for your own"


def _download(name: str, weights: Any) -> nn.Module:
    try:
        module: nn.Module = torchvision.models.get_model(name, weights=weights)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        file = weights.url.rsplit("/", 1)[-1]
        raise ModelError(
            f"the default weights of {name} could not be downloaded: {error}",
            f"on a machine with network access fetch {weights.url}, copy it here, and pass --weights {file}",
        ) from error
    return module


def _own_model(source: ModelSource) -> tuple[nn.Module, tuple[int, ...], Preparation | None]:
    """A module from the user's own ``package.module:callable``, found from the working directory."""
    name, _, attribute = source.name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        build: Callable[[], nn.Module] = getattr(importlib.import_module(name), attribute)
        module = build()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        remedy = "it must be importable from this folder, and callable without arguments"
        raise ModelError(f"model {source.name!r} could not be built: {problem}", remedy) from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{source.name!r} returned {type(module).__name__}", "return a torch.nn.Module")
    if source.weights == "default":
        raise ModelError(
            f"{source.name!r} has no default weights", "let the callable load them, or pass --weights FILE"
        )
    shape = source.input_shape or IMAGE_SHAPE
    image = len(shape) == 3 and shape[0] in (1, 3)
    return module, shape, Preparation(min(shape[1:]), (shape[1], shape[2])) if image else None


def _load_weights(module: nn.Module, file: Path) -> None:
    """Fill ``module`` from a state dict in a .safetensors or a .pt/.pth file; runs no code from it."""
    if not file.is_file():
        raise ModelError(f"--weights: no such file: {file}", "pass none, default, or a weight file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes each reader raise as it likes
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        remedy = "a state dict saved as .safetensors, or by torch.save(model.state_dict())"
        raise ModelError(f"{file} is no readable weight file: {reason:.200}", remedy) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no state dict", "save model.state_dict(), not the model")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        details = [line.strip() for line in str(error).splitlines()[1:4]]
        raise ModelError(
            f"{file} does not fit the model: {' '.join(details):.400}", "is it of this architecture?"
        ) from None


def _fill_zero_weights(module: nn.Module, seed: int) -> None:
    """Draw the weight matrices that an initialisation left at zero (ViT's head).

    Otherwise the output is zero whatever the input, and comparing outputs would prove nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        if weight.ndim >= 2 and not torch.any(weight):
            with torch.no_grad():
                weight.normal_(std=0.02, generator=generator)
