"""Cutting a network into a chain, checked against the whole, and making any bundle of layers a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from planner.chain import Boundary, Bundle, Chain, TensorSpec
from planner.errors import ModelError
from profiler.capture import Captured, capture, located, operation
from profiler.cuts import Cuts, cut_points, weighted_steps
from profiler.describe import chain_digest, describe_layers, tensor_spec
from profiler.fusion import fold_batch_norms
from profiler.model import LoadedModel

# Largest difference between chain and whole network, relative to the largest output.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class CutModel:
    """A chain and the cuts that make its bundles runnable for inputs of ``batch`` samples.

    ``folded``: batch normalisation is folded into the convolutions of every module made.
    """

    chain: Chain
    batch: int
    cuts: Cuts
    folded: bool = False

    def module(self, bundle: Bundle, outputs: Sequence[int] = ()) -> fx.GraphModule:
        """The bundle as a module; ``outputs``: boundaries within it whose tensors it gives instead of its last."""
        module = self.cuts.module(bundle, outputs)
        return fold_batch_norms(module) if self.folded else module

    def fused(self) -> CutModel:
        """The same network with batch normalisation folded (see ``profiler.fusion``)."""
        return replace(self, folded=True)

    def specs(self, boundary: int) -> tuple[TensorSpec, ...]:
        """The tensors at a boundary for this batch."""
        return self.chain.boundaries[boundary].batched(self.batch).tensors


def cut_model(model: LoadedModel, batch: int = 1) -> CutModel:
    """Capture and cut ``model``; the chain is for one sample, the modules take ``batch``.

    Raises ``ModelError`` where the network cannot be captured, where a boundary does not grow with the
    batch, or where the bundles run one after the other do not give what the whole network gives.
    """
    single = _cut(model, 1)
    if batch == 1:
        return single
    several = _cut(model, batch, single.cuts)
    problem = _unbatched(single, several, batch)
    if problem:
        remedy = "axis 0 must be the batch at every cut; use --batch 1"
        raise ModelError(f"{model.source.name} cannot be cut for a batch of {batch}: {problem}", remedy)
    return CutModel(single.chain, batch, several.cuts)


def _unbatched(single: CutModel, several: CutModel, batch: int) -> str | None:
    """What does not grow with the batch."""
    if len(single.chain) != len(several.chain):
        return f"it has {len(several.chain)} layers then, and {len(single.chain)} for one sample"
    for k, boundary in enumerate(single.chain.boundaries):
        wanted, found = boundary.batched(batch).tensors, several.chain.boundaries[k].tensors
        for node, want, have in zip(several.cuts.live[k], wanted, found, strict=False):
            if want != have:
                return f"operation {located(node)} gives {have} at boundary {k}, expected {want}"
        if len(wanted) != len(found):
            return f"boundary {k} carries {len(found)} tensors then, and {len(wanted)} for one sample"
    return None


def _cut(model: LoadedModel, batch: int, like: Cuts | None = None) -> CutModel:
    """Cut for this batch; in the same places as ``like`` where the same operations were captured."""
    inputs = model.example(batch)
    cuts = cut_points(capture(model, inputs), model.source, batch, None if like else _doubled(model))
    alike = like is not None and list(map(operation, like.operations)) == list(
        map(operation, cuts.operations)
    )
    if like is not None and alike:
        cuts = cuts.divided([len(step) for step in like.steps])
    elif model.source.granularity == "layer":
        cuts = cuts.joined(weighted_steps(cuts))
    boundaries = [_boundary(model.source.name, nodes) for nodes in cuts.live]
    macs = _verified_macs(model, cuts, inputs)
    if model.source.max_layers and not alike:
        begins = _most_work(macs, model.source.max_layers)
        ends = [*begins[1:], len(macs)]
        cuts = cuts.joined(begins)
        boundaries = [boundaries[k] for k in (0, *ends)]
        macs = [sum(macs[a:b]) for a, b in zip(begins, ends, strict=True)]
    layers = describe_layers(cuts, [work // batch for work in macs])
    chain = Chain(model.source, chain_digest(boundaries, cuts), layers, tuple(boundaries))
    return CutModel(chain, batch, cuts)


def _doubled(model: LoadedModel) -> Captured | None:
    """The network for two samples, where cuts may fall on an axis that only looks like the batch of one.

    Before weighted operations none was ever seen that does, and a second capture takes as long as the first.
    """
    if model.source.granularity == "layer" and model.source.max_tensors == 1:
        return None
    try:
        return capture(model, model.example(2))
    except ModelError:
        return None  # it runs for one sample only


def _boundary(name: str, nodes: Sequence[fx.Node]) -> Boundary:
    try:
        boundary = Boundary(tuple(tensor_spec(node) for node in nodes))
        if any(not spec.shape for spec in boundary.tensors):
            raise ValueError("a single number has no axis for the batch")
        if any(spec.dtype == "bfloat16" for spec in boundary.tensors):
            raise ValueError("bfloat16; let it give float32, and ask for precision bf16")
    except ValueError as error:
        raise ModelError(f"{name} has an input or output that cannot be sent: {error}") from None
    return boundary


def _most_work(macs: Sequence[int], count: int) -> list[int]:
    """Where ``count`` layers begin when the two neighbours of least work are joined again and again."""
    groups = [[place] for place in range(len(macs))]
    work = list(macs)
    while len(groups) > count:
        place = min(range(len(groups) - 1), key=lambda place: work[place] + work[place + 1])
        groups[place] += groups.pop(place + 1)
        work[place] += work.pop(place + 1)
    return [group[0] for group in groups]


def _verified_macs(model: LoadedModel, cuts: Cuts, inputs: tuple[torch.Tensor, ...]) -> list[int]:
    """The multiply-accumulates of each layer, counted while all are run and compared with the whole."""
    expected = model.run(inputs)
    values, macs = inputs, []
    with torch.inference_mode():
        for place in range(len(cuts.steps)):
            with FlopCounterMode(display=False) as counter:
                values = cuts.module(Bundle(place, place + 1))(*(value.contiguous() for value in values))
            macs.append(counter.get_total_flops() // 2)
    difference = largest_difference(values, expected)
    if not difference <= TOLERANCE:
        random = [located(node) for node in cuts.operations if _is_random(node)]
        problem = f"run layer by layer it differs from the whole by {difference:.1e} of the largest output"
        remedy = f"it is random: {random[0]}" if random else "does it keep state when it runs?"
        raise ModelError(f"{model.source.name}: {problem}", remedy)
    return macs


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def largest_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest ``relative_error`` of the outputs; infinite where there are others, or one is no number."""
    if [each.shape for each in found] != [each.shape for each in expected]:
        return float("inf")
    errors = [relative_error(have, want) for have, want in zip(found, expected, strict=True)]
    return max(errors) if all(error == error for error in errors) else float("inf")


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    found, expected = found.double(), expected.double()
    scale = float(expected.abs().max()) or 1.0
    return float((found - expected).abs().max()) / scale
