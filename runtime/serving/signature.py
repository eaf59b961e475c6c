"""What a served network's tensors are called: as its own code calls them, where it does."""

from __future__ import annotations

import inspect

import torch
from torch.utils import _pytree as pytree

from planner.chain import Chain
from profiler.model import LoadedModel
from runtime.serving.protocol import NamedTensor, Signature

MOST_RUNS = 1024  # of the pipeline for one request


def signature_of(model: LoadedModel, chain: Chain, batch: int, name: str, max_body_bytes: int) -> Signature:
    """Inputs by the parameters of ``forward``, outputs by the keys of what it returns, else by their place."""
    given, result = chain.boundaries[0].tensors, chain.boundaries[-1].tensors
    inputs = tuple(map(NamedTensor, input_names(model), given))
    outputs = tuple(map(NamedTensor, output_names(model, len(result)), result))
    most = min(max_body_bytes // chain.boundaries[0].nbytes, MOST_RUNS * batch)
    return Signature(name, inputs, outputs, most)


def input_names(model: LoadedModel) -> list[str]:
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(model.module.forward).parameters.values()
    positional = [each.name for each in parameters if each.kind in kinds]
    names = [
        given.name or (positional[place] if place < len(positional) else f"input{place}")
        for place, given in enumerate(model.inputs)
    ]
    return names if len(set(names)) == len(names) else [f"input{place}" for place in range(len(names))]


def output_names(model: LoadedModel, count: int) -> list[str]:
    by_place = [f"output{place}" for place in range(count)]
    positional, keywords = model.arguments(model.example())
    with torch.inference_mode():
        output = model.module(*positional, **keywords)
    try:
        found, _ = pytree.tree_flatten_with_path(output)
    except ValueError:  # a container that does not name what it holds
        return by_place
    paths = [path for path, leaf in found if isinstance(leaf, torch.Tensor)]
    names = [".".join(_word(key) for key in path) for path in paths]
    named = all(path and not hasattr(path[0], "idx") for path in paths)
    return names if named and len(set(names)) == len(names) == count else by_place


def _word(key: object) -> str:
    """One step on the way to a tensor: a key of a mapping, a field, or a place in a sequence."""
    return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))
