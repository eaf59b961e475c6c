"""torchvision's classification models by name."""

from __future__ import annotations

import difflib
import functools
import urllib.error
import warnings
from typing import Any

from torch import nn

from planner.chain import InputSpec, ModelSource
from planner.errors import MissingDependencyError, ModelError, UnknownNameError
from profiler.model import LoadedModel, ModelInput, Preparation, parse_config

try:
    from torchvision import models
except ImportError as error:
    raise MissingDependencyError("torchvision", "a torchvision model", "torch") from error


def classifier_names() -> list[str]:
    names: list[str] = models.list_models(module=models)
    return names


def load_classifier(source: ModelSource) -> LoadedModel:
    """Load the classification model that ``source`` names.

    Raises ``UnknownNameError`` or ``ModelError``.
    """
    known = classifier_names()
    if source.name not in known:
        raise UnknownNameError("model", source.name, known, _own_hint(source.name, known))
    weights = models.get_model_weights(source.name).DEFAULT
    preset = weights.transforms()
    side = preset.crop_size[0]
    config = parse_config(source.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # googlenet and inception announce a new default
        try:
            build = functools.partial(models.get_model, source.name, **config)
            module = (
                _download(source.name, weights, build) if source.weights == "default" else build(weights=None)
            )
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{source.name} cannot be built with {config}: {error}", "change --config"
            ) from None
    # A vision transformer takes images of one size: not always that of its default weights.
    built = getattr(module, "image_size", side)
    given = source.inputs or (InputSpec((3, built, built)),)
    if len(given) != 1 or len(given[0].shape) != 3 or given[0].dtype != "float32":
        shown = " ".join(map(str, given))
        raise ModelError(f"{source.name} takes images, not {shown}", "pass --input-shape as 3x224x224")
    height, width = given[0].shape[1:]
    preparation = Preparation(
        round(preset.resize_size[0] * min(height, width) / side),
        (height, width),
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )
    categories = () if "num_classes" in config else tuple(weights.meta.get("categories", ()))
    return LoadedModel(source, module, (ModelInput.of(given[0]),), preparation, categories)


def _own_hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    did_you_mean = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"{did_you_mean}any torchvision classification model, hf:CLASS for a transformer, or "
        "package.module:callable for your own"
    )


def _download(name: str, weights: Any, build: Any) -> nn.Module:
    try:
        module: nn.Module = build(weights=weights)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        file = weights.url.rsplit("/", 1)[-1]
        raise ModelError(
            f"the default weights of {name} could not be downloaded: {error}",
            f"on a machine with network access fetch {weights.url}, copy it here, and pass --weights {file}",
        ) from error
    return module
