"""Building engines ahead of time, into the cache that the backends look in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from planner.chain import Bundle, ModelSource
from planner.errors import BundleError, InputError, StorageError
from planner.plan import Variant
from planner.recipe import Calibration, Recipe
from profiler import backends
from profiler.backends.trt import TensorRtBackend
from profiler.cut import CutModel, cut_model
from profiler.engine_cache import Engine
from profiler.model import load_model
from profiler.recipes import calibrated
from profiler.runner import Setting
from profiler.samples import SampleStore


@dataclass(frozen=True)
class BuildRequest:
    """Which engines to build: of every bundle, or of the ``whole`` network alone.

    ``samples`` is read where a variant is int8 or mixed. ``cache`` None is the user's cache folder.
    """

    source: ModelSource
    variants: tuple[Variant, ...]
    batches: tuple[int, ...]
    samples: Path
    calibration: Calibration = field(default_factory=Calibration)
    whole: bool = False
    cache: Path | None = None


@dataclass(frozen=True)
class Attempt:
    """One engine wanted; ``engine`` None and a reason where the library could not build it."""

    bundle: Bundle
    variant: Variant
    batch: int
    engine: Engine | None
    reason: str = ""


@dataclass
class BuildSummary:
    """Engines ``built`` now and ``found`` in the cache, their size, and what failed."""

    built: int = 0
    found: int = 0
    nbytes: int = 0
    wall_s: float = 0.0
    failed: list[Attempt] = field(default_factory=list)


def build_engines(
    request: BuildRequest, progress: Callable[[Attempt, int], None] = lambda attempt, total: None
) -> BuildSummary:
    """Build every engine asked for that the cache lacks; ``progress`` gets each, and how many there are.

    Stopped at any moment, the same request goes on where it was. Raises ``InputError`` for a backend
    without engines, ``StorageError`` where they cannot be kept, ``BundleError`` where all of them fail.
    """
    started, summary = time.perf_counter(), BuildSummary()
    for variant in request.variants:
        _backend(variant)
    model = load_model(request.source)
    cut = cut_model(model)
    recipe = _recipe(request, cut)
    bundles = [Bundle(0, len(cut.chain))] if request.whole else list(cut.chain.bundles())
    total = len(bundles) * len(request.variants) * len(request.batches)
    for batch in request.batches:
        batched = cut if batch == 1 else cut_model(model, batch)
        for variant in request.variants:
            setting = Setting(variant.precision, variant.fused, recipe=recipe, cache=request.cache)
            backend = _backend(variant)(batched, setting)
            try:
                for bundle in bundles:
                    attempt = _attempt(backend, bundle, variant)
                    _count(summary, attempt)
                    progress(attempt, total)
            finally:
                backend.close()
    summary.wall_s = time.perf_counter() - started
    if len(summary.failed) == total:
        raise BundleError(summary.failed[0].reason, "no engine could be built: use another precision")
    return summary


def _backend(variant: Variant) -> type[TensorRtBackend]:
    backend = backends.find(variant.backend, variant.precision)
    if not issubclass(backend, TensorRtBackend):
        raise InputError(f"backend {variant.backend} builds no engines", "use tensorrt or tensorrt-rtx")
    backend.trt_library.load()
    return backend


def _recipe(request: BuildRequest, cut: CutModel) -> Recipe | None:
    if not any(variant.precision in ("int8", "mixed") for variant in request.variants):
        return None
    return calibrated(request.calibration, cut, SampleStore(request.samples, cut.chain))


def _attempt(backend: TensorRtBackend, bundle: Bundle, variant: Variant) -> Attempt:
    try:
        engine = backend.engine(bundle)
    except BundleError as error:
        return Attempt(bundle, variant, backend.cut.batch, None, error.message)
    if engine.unkept:
        raise StorageError(engine.unkept, "engines kept before are found again when this is repeated")
    return Attempt(bundle, variant, backend.cut.batch, engine)


def _count(summary: BuildSummary, attempt: Attempt) -> None:
    if attempt.engine is None:
        summary.failed.append(attempt)
        return
    summary.found += attempt.engine.found
    summary.built += not attempt.engine.found
    summary.nbytes += attempt.engine.record.nbytes
