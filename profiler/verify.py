"""Whether a network run bundle by bundle gives what it gives as a whole."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import torch

from planner.chain import Bundle, ModelSource
from planner.errors import InputError, ModelError
from profiler.cut import TOLERANCE, CutModel, cut_model, largest_difference
from profiler.model import LoadedModel, load_model
from profiler.obstacle import cut_obstacle

# Random inputs of their own: cutting has compared the network on others already.
_SEED = 1


@dataclass(frozen=True)
class Verification:
    """One model: what it was cut into, and the largest difference of any chain of bundles from the whole.

    ``cut_points``: places that a cut may take. ``largest_error`` is relative to the largest output, None
    where the model cannot be cut or run; ``reason`` says why, or what keeps it from being cut finer.
    """

    model: str
    family: str = ""
    layers: int = 0
    cut_points: int = 0
    parameters: int = 0
    macs: int = 0
    largest_error: float | None = None
    tolerance: float = TOLERANCE
    wall_s: float = 0.0
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.largest_error is not None and self.largest_error <= self.tolerance


def verify(source: ModelSource) -> Verification:
    """Cut the model and run it layer by layer, and in two halves, in fp32.

    What keeps it from being cut is in the result, not raised.
    """
    started = time.perf_counter()
    name = " ".join([source.name, *(f"--config {each}" for each in source.config)])
    name += f" --max-tensors {source.max_tensors}" if source.max_tensors > 1 else ""
    try:
        model = load_model(source)
        cut = cut_model(model)
        error = _largest_error(model, cut)
    except InputError as problem:
        return Verification(name, wall_s=time.perf_counter() - started, reason=problem.message)
    finally:
        gc.collect()
    return Verification(
        name,
        _family(model),
        layers=len(cut.chain),
        cut_points=cut.cuts.points,
        parameters=sum(parameter.numel() for parameter in model.module.parameters()),
        macs=sum(layer.macs for layer in cut.chain.layers),
        largest_error=error,
        wall_s=time.perf_counter() - started,
        reason=cut_obstacle(cut) or "",
    )


def _largest_error(model: LoadedModel, cut: CutModel) -> float:
    inputs, layers = model.example(1, _SEED), len(cut.chain)
    whole = model.run(inputs)
    if not any(torch.any(output) for output in whole):
        raise ModelError(f"{model.source.name} gives only zeros, which prove nothing", "pass --weights")
    middle = layers // 2
    chains = [[Bundle(k, k + 1) for k in range(layers)], [Bundle(0, middle), Bundle(middle, layers)]]
    errors = []
    for chain in chains if middle else chains[:1]:
        at = inputs
        with torch.inference_mode():
            for bundle in chain:
                at = cut.module(bundle)(*(value.contiguous() for value in at))
        errors.append(largest_difference(at, whole))
    return max(errors)


def _family(model: LoadedModel) -> str:
    """The file that defines the network: resnet, modeling_bert without its prefix, the user's own."""
    return type(model.module).__module__.rsplit(".", 1)[-1].removeprefix("modeling_")
