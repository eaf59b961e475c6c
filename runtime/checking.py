"""What a deployed plan should answer, and how far from it each answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from planner.chain import Bundle
from planner.codec_table import CodecName
from planner.plan import Plan, same_path
from profiler import backends
from profiler.accuracy import accuracy, agreement, classes
from profiler.bundles import FP32_TOLERANCE, largest_error
from profiler.codecs import pack, unpack
from profiler.cut import CutModel
from profiler.runner import Array, Runner
from runtime.bundles import Preparation, Prepared

Arrays = tuple[Array, ...]

# Of the largest output, by the least precise stage or codec. The same bundles in another process may sum in
# another order; in few bits a value beside a rounding step then falls to its other side.
_TOLERANCE = {"fp32": FP32_TOLERANCE, "fp16": 5e-3, "bf16": 4e-2, "int8": 5e-2, "mixed": 5e-2}
_CODEC_TOLERANCE: dict[CodecName, float] = {"fp16": 5e-3, "int8": 5e-2, "int8-zstd": 5e-2}


@dataclass(frozen=True)
class Verdict:
    """How an answer compares; the fields are those of ``planner.run.RunRow``."""

    output_error: float
    output_noise: float | None
    bundle_error: float | None
    top1_agreement: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Expectation:
    """For each batch of inputs: the fp32 network's outputs, and its samples' classes where known.

    ``bundles``: the outputs of the plan's own bundles and codecs run in this process, where one of them
    loses something; otherwise None.
    """

    whole: Sequence[Arrays]
    labels: Sequence[Sequence[int | None]]
    bundles: Sequence[Arrays] | None
    tolerance: float

    def judge(self, place: int, outputs: Arrays) -> Verdict:
        """Compare the answer to batch ``place``."""
        return Verdict(
            output_error(outputs, self.whole[place]),
            output_noise(outputs, self.whole[place]),
            None if self.bundles is None else output_error(outputs, self.bundles[place]),
            agreement(classes(outputs), classes(self.whole[place])),
            accuracy(classes(outputs), self.labels[place]),
        )

    @property
    def whole_accuracy(self) -> float | None:
        """Accuracy of the fp32 network over all batches."""
        right = known = 0.0
        for outputs, labels in zip(self.whole, self.labels, strict=True):
            count = sum(label is not None for label in labels)
            right += count * (accuracy(classes(outputs), labels) or 0.0)
            known += count if classes(outputs) is not None else 0
        return right / known if known else None


class Judges:
    """What each plan of a deployment should answer, worked out when it is first asked for."""

    def __init__(
        self,
        cut: CutModel,
        prepare: Preparation,
        inputs: Sequence[Arrays],
        labels: Sequence[Sequence[int | None]],
    ) -> None:
        self._prepare, self._inputs, self._labels = prepare, inputs, labels
        self._whole = _whole(cut, inputs)
        self._known: list[tuple[Plan, Expectation]] = []

    def of(self, plan: Plan) -> Expectation:
        for known, found in self._known:
            if same_path(known, plan):
                return found
        made = expectation(plan, self._prepare(plan), self._inputs, self._labels, self._whole)
        self._known.append((plan, made))
        return made


def _whole(cut: CutModel, inputs: Sequence[Arrays]) -> list[Arrays]:
    """What the fp32 network makes of every batch."""
    module = cut.module(Bundle(0, len(cut.chain)))
    with torch.inference_mode():
        return [tuple(value.numpy() for value in module(*map(torch.from_numpy, batch))) for batch in inputs]


def expectation(
    plan: Plan,
    bundles: Sequence[Prepared],
    inputs: Sequence[Arrays],
    labels: Sequence[Sequence[int | None]],
    whole: Sequence[Arrays],
) -> Expectation:
    """Run every batch through the plan's own stages where they differ from the fp32 network's outputs ``whole``."""
    if plan.exact:
        return Expectation(whole, labels, None, FP32_TOLERANCE)
    tolerances = [_TOLERANCE[stage.variant.precision] for stage in plan.stages]
    tolerances += [_CODEC_TOLERANCE.get(hop.codec, FP32_TOLERANCE) for hop in plan.hops]
    codecs = {hop.boundary: hop.codec for hop in plan.hops if hop.codec != "raw"}

    def sent(batch: Arrays, boundary: int) -> Arrays:
        codec = codecs.get(boundary)
        return unpack(pack(batch, codec), codec) if codec else batch

    at = list(inputs)
    for made, stage in zip(bundles, plan.stages, strict=True):
        with load(made, threads=1) as runner:
            at = [runner(sent(batch, stage.bundle.start)) for batch in at]
    at = [sent(batch, len(plan.chain)) for batch in at]
    return Expectation(whole, labels, at, max(tolerances))


def load(made: Prepared, threads: int) -> Runner:
    return backends.find(made.order.backend).load(made.file, threads)


def output_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest of the outputs' errors; infinite where one is not a number."""
    errors = [largest_error(have, want) for have, want in zip(found, expected, strict=True)]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def output_noise(found: Sequence[Array], expected: Sequence[Array]) -> float | None:
    """Power of the difference over that of what was expected; None where one of them says nothing."""
    wanted = [value.astype(np.float64) for value in expected]
    signal = sum(float(np.square(want).sum()) for want in wanted)
    pairs = zip(found, wanted, strict=True)
    noise = sum(float(np.square(have.astype(np.float64) - want).sum()) for have, want in pairs)
    return noise / signal if signal and math.isfinite(noise) else None
