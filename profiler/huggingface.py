"""Transformers by name: a class of the library with a configuration, or a checkpoint.

``hf:BertModel`` is the class with its default configuration, ``hf:FOLDER`` and ``hf:org/name`` are
checkpoints: a config.json, and for weights ``default`` the .safetensors beside it. Neither pickled weights
nor code from a checkpoint are ever loaded.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from torch import nn

from planner.chain import InputSpec, ModelSource
from planner.errors import MissingDependencyError, ModelError, UnknownNameError
from profiler.capture import quiet
from profiler.model import LoadedModel, ModelInput, Preparation, parse_config

try:
    import transformers
except ImportError as error:
    raise MissingDependencyError("transformers", "a Hugging Face model", "hf") from error

SEQUENCE_LENGTH = 128
# What the checkpoints of vision transformers mostly say, where none is at hand.
_MEAN = _STD = (0.5, 0.5, 0.5)


def load_transformer(source: ModelSource) -> LoadedModel:
    """Load the network that ``source.name`` names after ``hf:``; its weights as ``source.weights`` says.

    Raises ``UnknownNameError`` or ``ModelError``.
    """
    name = source.name.removeprefix("hf:")
    checkpoint = name if "/" in name or Path(name).is_dir() else None
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ModelError(f"no such folder: {name}", "name a folder with a checkpoint, org/name, or a class")
    transformers.utils.logging.disable_progress_bar()
    with quiet():
        if checkpoint is None:
            kind, config = _class(name), None
        else:
            config = _checkpoint_config(source, checkpoint)
            kind = _class(next(iter(config.architectures or ()), "") or f"{checkpoint} names no architecture")
        config = _configured(source, kind, config)
        module = _weighted(source, kind, config, checkpoint)
    main = kind.main_input_name
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", 3)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    given = source.inputs or _default_inputs(source, module, main, (channels, height, width))
    takes = inspect.signature(module.forward).parameters
    for each in given:
        if each.name and each.name not in takes:
            raise UnknownNameError(f"input of {source.name}:", each.name, takes)
    inputs = tuple(_model_input(each, main, config) for each in given)
    preparation = None
    shape = inputs[0].spec.shape[1:]
    if len(inputs) == 1 and main == "pixel_values" and len(shape) == 3:
        preparation = _preparation(checkpoint, shape)
    return LoadedModel(source, module, inputs, preparation, _categories(config))


def _class(name: str) -> Any:
    kind: Any = getattr(transformers, name, None)
    known_class = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not known_class or kind.config_class is None:
        known = [each for each in dir(transformers) if each.endswith("Model") or "For" in each]
        remedy = "" if known else "a class such as BertModel, a checkpoint's folder, or org/name"
        raise UnknownNameError("transformers class", name, known, remedy)
    return kind


def _checkpoint_config(source: ModelSource, checkpoint: str) -> Any:
    # Random weights need no network: what is not in a folder or the cache is refused.
    local = Path(checkpoint).is_dir() or source.weights != "default"
    try:
        return transformers.AutoConfig.from_pretrained(
            checkpoint, local_files_only=local, trust_remote_code=False
        )
    except Exception as error:  # the library, its hub client and the network raise what they like
        raise _unreadable(checkpoint, error) from None


def _unreadable(checkpoint: str, error: Exception) -> ModelError:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if Path(checkpoint).is_dir():
        remedy = (
            "it needs a config.json of a known architecture, and for --weights default a .safetensors file"
        )
    else:
        remedy = (
            f"where there is a network, fetch it: hf download {checkpoint} --local-dir FOLDER, copy the folder "
            "here, and name the model hf:FOLDER"
        )
    return ModelError(f"the checkpoint {checkpoint} cannot be read: {reason:.300}", remedy)


def _configured(source: ModelSource, kind: Any, config: Any) -> Any:
    """The checkpoint's configuration, or the class's own, with the fields of --config set."""
    changes = parse_config(source.config)
    try:
        config = kind.config_class() if config is None else config
        for key in changes:
            if not hasattr(config, key):
                fields = list(config.to_dict())
                raise UnknownNameError(f"configuration field of {kind.__name__}:", key, fields)
        config = type(config)(**{**config.to_dict(), **changes})
    except UnknownNameError:
        raise
    except Exception as error:
        problem = f"{source.name} cannot be configured with {changes}: {error!s:.300}"
        raise ModelError(problem, "change --config") from None
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _weighted(source: ModelSource, kind: Any, config: Any, checkpoint: str | None) -> nn.Module:
    if source.weights == "default" and checkpoint is None:
        raise ModelError(
            f"{source.name} is a class and has no default weights",
            "name a checkpoint: hf:FOLDER or hf:org/name, or pass --weights FILE",
        )
    try:
        if source.weights != "default":
            module: nn.Module = kind(config)
            return module
        module, report = kind.from_pretrained(
            checkpoint,
            config=config,
            use_safetensors=True,
            local_files_only=Path(checkpoint or "").is_dir(),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        if source.weights == "default":
            raise _unreadable(checkpoint or "", error) from None
        problem = f"{source.name} cannot be built: {type(error).__name__}: {error!s:.300}"
        raise ModelError(problem, "change --config") from None
    missing = sorted(report["missing_keys"])
    if missing:
        problem = (
            f"the checkpoint {checkpoint} lacks {len(missing)} weights of {kind.__name__}: {missing[0]}, ..."
        )
        raise ModelError(problem, "is it whole, and of this architecture?")
    return module


def _default_inputs(
    source: ModelSource, module: nn.Module, main: str, image: tuple[int, int, int]
) -> tuple[InputSpec, ...]:
    """Token ids with their mask, or an image."""
    if main == "input_ids":
        ids = InputSpec((SEQUENCE_LENGTH,), "int64", main)
        mask = InputSpec((SEQUENCE_LENGTH,), "int64", "attention_mask")
        return (ids, mask) if mask.name in inspect.signature(module.forward).parameters else (ids,)
    if main == "pixel_values" and isinstance(image[1], int):
        return (InputSpec(image, "float32", main),)
    problem = f"{source.name} takes {main}, whose shape its configuration does not say"
    raise ModelError(problem, f"pass --input-shape {main}=SHAPE[:DTYPE] for one sample")


def _model_input(given: InputSpec, main: str, config: Any) -> ModelInput:
    """Token ids below the vocabulary's size, a mask of ones, one segment."""
    name = given.name or main
    low, high = {
        "input_ids": (0, getattr(config, "vocab_size", 2) - 1),
        "attention_mask": (1, 1),
        "token_type_ids": (0, 0),
    }.get(name, (0, 1))
    return ModelInput.of(InputSpec(given.shape, given.dtype, name), low, high)


def _preparation(checkpoint: str | None, shape: tuple[int, ...]) -> Preparation:
    """As the checkpoint's preprocessor_config.json says, where there is one."""
    settings: dict[str, Any] = {}
    if checkpoint:
        try:
            settings = json.loads((Path(checkpoint) / "preprocessor_config.json").read_text())
        except (OSError, ValueError):
            settings = {}  # an older checkpoint has none
    mean, std = (
        tuple(float(each) for each in settings.get(key) or default)
        for key, default in (("image_mean", _MEAN), ("image_std", _STD))
    )
    return Preparation(min(shape[1:]), (shape[1], shape[2]), mean, std)


def _categories(config: Any) -> tuple[str, ...]:
    names = getattr(config, "id2label", None) or {}
    known = [str(names[key]) for key in sorted(names)]
    return () if all(name.startswith("LABEL_") for name in known) else tuple(known)
