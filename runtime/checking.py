"""What a deployed plan should answer, and how far from it each answer is."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch

from planner.chain import Bundle
from planner.codec_table import CodecName
from planner.plan import Plan
from profiler import backends
from profiler.accuracy import accuracy, agreement, classes
from profiler.bundles import FP32_TOLERANCE, largest_error
from profiler.codecs import pack, unpack
from profiler.cut import CutModel
from profiler.runner import Array, Runner
from runtime.batching import Arrays, trimmed
from runtime.bundles import Preparation, Prepared

# Of the largest output, by the least precise stage or codec. The same bundles in another process may sum in
# another order; in few bits a value beside a rounding step then falls to its other side.
_TOLERANCE = {"fp32": FP32_TOLERANCE, "fp16": 5e-3, "bf16": 4e-2, "int8": 5e-2, "mixed": 5e-2}
_CODEC_TOLERANCE: dict[CodecName, float] = {"fp16": 5e-3, "int8": 5e-2, "int8-zstd": 5e-2}
KEPT = 20


@dataclass(frozen=True)
class Verdict:
    """How an answer compares; the fields are those of ``planner.run.RunRow``, None where it was not compared."""

    output_error: float | None = None
    output_noise: float | None = None
    bundle_error: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    whole_accuracy: float | None = None


@dataclass
class _Expected:
    """What one request gives: of the fp32 network, and of plans that lose something, by their stages and hops."""

    whole: Arrays
    lossy: dict[object, Arrays] = field(default_factory=dict)


class Checker:
    """Compares answers with what the network gives in this process. Use as a context manager.

    ``most``: so many different requests at most, None for all. Of the fp32 network's outputs it keeps those of
    that many requests, or of ``KEPT``. ``worst``: the largest difference found, over what is tolerated there.
    """

    def __init__(self, cut: CutModel, prepare: Preparation, most: int | None) -> None:
        self._cut, self._prepare, self._most = cut, prepare, most
        self._module: torch.nn.Module | None = None
        self._kept: dict[Hashable, _Expected] = {}
        self._runners: dict[object, list[Runner]] = {}
        self.worst = 0.0

    def __enter__(self) -> Checker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rest()

    def rest(self) -> None:
        """Free the bundles that are loaded here; they are loaded again when they are needed."""
        for runners in self._runners.values():
            for runner in runners:
                runner.close()
        self._runners.clear()

    def expect(self, plan: Plan, key: Hashable, tensors: Arrays) -> _Expected | None:
        """What ``plan`` gives for the request ``key``; None where that is one too many."""
        found = self._kept.get(key)
        if found is None:
            if self._most is not None and len(self._kept) >= self._most:
                return None
            found = _Expected(self._whole(tensors))
            if len(self._kept) < max(self._most or 0, KEPT):
                self._kept[key] = found
        if not plan.exact and _way(plan) not in found.lossy:
            found.lossy[_way(plan)] = self._deployed(plan, tensors)
        return found

    def judge(
        self,
        plan: Plan,
        key: Hashable,
        tensors: Arrays,
        outputs: Arrays,
        labels: Sequence[int | None],
    ) -> Verdict:
        """Compare the answer that ``plan`` gave to a request; ``labels`` are those of its samples, without padding."""
        count = len(labels)
        outputs = trimmed(outputs, plan.batch, count)
        own = accuracy(classes(outputs), labels)
        expected = self.expect(plan, key, tensors)
        if expected is None:
            return Verdict(accuracy=own)
        whole = trimmed(expected.whole, plan.batch, count)
        lossy = None if plan.exact else trimmed(expected.lossy[_way(plan)], plan.batch, count)
        error = output_error(outputs, whole)
        bundle_error = None if lossy is None else output_error(outputs, lossy)
        self.worst = max(self.worst, (error if bundle_error is None else bundle_error) / tolerance(plan))
        return Verdict(
            error,
            output_noise(outputs, whole),
            bundle_error,
            agreement(classes(outputs), classes(whole)),
            own,
            accuracy(classes(whole), labels),
        )

    def _whole(self, tensors: Arrays) -> Arrays:
        self._module = self._module or self._cut.module(Bundle(0, len(self._cut.chain)))
        with torch.inference_mode():
            return tuple(value.numpy() for value in self._module(*map(torch.from_numpy, tensors)))

    def _deployed(self, plan: Plan, tensors: Arrays) -> Arrays:
        """The outputs of the plan's own bundles and codecs, run one after the other."""
        codecs = {hop.boundary: hop.codec for hop in plan.hops if hop.codec != "raw"}

        def sent(arrays: Arrays, boundary: int) -> Arrays:
            codec = codecs.get(boundary)
            return unpack(pack(arrays, codec), codec) if codec else arrays

        way = _way(plan)
        if way not in self._runners:
            self._runners[way] = []
            for made in self._prepare(plan):
                self._runners[way].append(load(made, threads=1))
        for runner, stage in zip(self._runners[way], plan.stages, strict=True):
            tensors = runner(sent(tensors, stage.bundle.start))
        return sent(tensors, len(plan.chain))


def tolerance(plan: Plan) -> float:
    """How far, relative to the largest output, what is deployed may be from the same run in one process."""
    if plan.exact:
        return FP32_TOLERANCE
    found = [_TOLERANCE.get(stage.variant.precision, FP32_TOLERANCE) for stage in plan.stages]
    return max(found + [_CODEC_TOLERANCE.get(hop.codec, FP32_TOLERANCE) for hop in plan.hops])


def _way(plan: Plan) -> object:
    """What its outputs depend on."""
    stages = tuple((stage.device, stage.bundle, stage.variant) for stage in plan.stages)
    return stages, tuple((hop.boundary, hop.codec) for hop in plan.hops)


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
