"""Profiling a device: every contiguous bundle, in every variant and batch, from stored feature maps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from planner.chain import Bundle, ModelSource
from planner.errors import BundleError, InputError
from planner.plan import Variant
from planner.recipe import Calibration, Recipe
from planner.sidecar import LeftOut, Sidecar
from planner.table import ProfileRow
from profiler import backends
from profiler.bundles import measure_bundle
from profiler.capability import obstacle
from profiler.cut import CutModel, cut_model
from profiler.fusion import check_fusion
from profiler.journal import Journal
from profiler.model import load_model
from profiler.placement import Placement, environment, placed
from profiler.runner import Backend, Setting
from profiler.samples import SampleStore
from profiler.timing import Measurement, Protocol


@dataclass(frozen=True)
class Step:
    """One bundle measured, or (``row`` None) those passed over: in the table already, or left out.

    ``work`` and ``total`` share a unit that grows with the time bundles take.
    """

    bundle: Bundle | None
    variant: Variant
    batch: int
    work: float
    total: float
    row: ProfileRow | None


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure, on which device, from which samples, into which table."""

    source: ModelSource
    device: str
    variants: tuple[Variant, ...]
    batches: tuple[int, ...]
    samples: Path
    output: Path
    placement: Placement
    protocol: Protocol
    calibration: Calibration = field(default_factory=Calibration)


@dataclass
class ProfileSummary:
    """``measured`` bundles now, ``resumed`` from before; ``timed_s`` of ``wall_s`` was inference.

    ``lacking``: variants this machine cannot run at all, and why. ``left_out``: bundles that failed.
    ``unchanged_by_fusion``: fusing was asked for, and this network has nothing to fuse.
    """

    measured: int = 0
    resumed: int = 0
    timed_s: float = 0.0
    wall_s: float = 0.0
    lacking: dict[Variant, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    unchanged_by_fusion: bool = False


def profile(request: ProfileRequest, progress: Callable[[Step], None] = lambda step: None) -> ProfileSummary:
    """Measure every bundle not yet in the table; ``progress`` is told before and after each.

    A variant that this machine lacks, and a bundle that a backend cannot run, are left out by name.
    Raises an ``EdgecutError``, also where no variant is left; what was measured before it is in the table.
    """
    started, summary = time.perf_counter(), ProfileSummary()
    variants = usable(request.variants, summary.lacking)
    with placed(request.placement):
        model = load_model(request.source)
        cut = cut_model(model)
        store = SampleStore(request.samples, cut.chain)
        if any(variant.fused for variant in variants):
            summary.unchanged_by_fusion = check_fusion(cut, store.inputs(0, 1, 1)[0]) == 0
        work = {bundle: _work(cut, bundle) for bundle in cut.chain.bundles()}
        total = sum(work.values()) * len(request.batches) * len(variants)
        with Journal(request.output, _sidecar(request, cut)) as journal:
            done = {row.key for row in journal.rows}
            summary.resumed = len(done)
            if any(variant.precision in ("int8", "mixed") for variant in variants):
                journal.agree(calibrated(request.calibration, cut, store, journal.sidecar.recipe))
            for batch in request.batches:
                batched = cut if batch == 1 else cut_model(model, batch)
                for variant in variants:
                    keys = {bundle: (request.device, bundle, variant, batch) for bundle in work}
                    todo = [bundle for bundle, key in keys.items() if key not in done]
                    skipped = sum(work[bundle] for bundle in work if keys[bundle] in done)
                    progress(Step(None, variant, batch, skipped, total, None))
                    measured = _measured(request, batched, store, variant, todo, journal.sidecar.recipe)
                    for bundle, found in measured:
                        row = None
                        if isinstance(found, BundleError):
                            entry = LeftOut(bundle, variant, batch, found.message)
                            journal.leave_out(entry)
                            summary.left_out.append(entry)
                        else:
                            row, timed = found
                            journal.append(row, timed.samples_s)
                            summary.measured += 1
                            summary.timed_s += sum(timed.samples_s)
                        progress(Step(bundle, variant, batch, work[bundle], total, row))
    summary.wall_s = time.perf_counter() - started
    if not summary.measured + summary.resumed and summary.left_out:
        raise BundleError(summary.left_out[0].reason, "no bundle could be measured: use another backend")
    return summary


def usable(variants: Sequence[Variant], lacking: dict[Variant, str]) -> list[Variant]:
    """The variants this machine has; the others go to ``lacking``. Raises ``InputError`` if none is left."""
    usable = []
    for variant in variants:
        found = obstacle(variant.backend, variant.precision)
        if found is None:
            backends.find(variant.backend, variant.precision)
            usable.append(variant)
            continue
        lacking[variant] = f"{found.problem} (try: {found.remedy})"
        last = found
    if not usable:
        listed = "; ".join(f"{variant}: {reason}" for variant, reason in lacking.items())
        raise InputError(f"this machine can run none of the variants asked for: {listed}", last.remedy)
    return usable


def calibrated(
    wanted: Calibration, cut: CutModel, store: SampleStore, before: Recipe | None = None
) -> Recipe:
    """``before`` where it was made as is wanted now, else a recipe calibrated on the stored feature maps."""
    if before and (before.calibrator, before.percentile) == (wanted.calibrator, wanted.percentile):
        return replace(before, policy=wanted.policy)
    from profiler.calibration import calibrate

    found = calibrate(cut, store, wanted.calibrator, wanted.percentile)
    return replace(found, policy=wanted.policy)


def _measured(
    request: ProfileRequest,
    cut: CutModel,
    store: SampleStore,
    variant: Variant,
    bundles: Sequence[Bundle],
    recipe: Recipe | None,
) -> Iterator[tuple[Bundle, tuple[ProfileRow, Measurement] | BundleError]]:
    """Each bundle with its row, or with what kept this variant from running it."""
    if not bundles:
        return
    setting = Setting(variant.precision, variant.fused, request.placement.threads, recipe)
    try:
        backend: Backend = backends.find(variant.backend, variant.precision)(cut, setting)
    except BundleError as error:  # the whole network cannot be prepared
        yield from ((bundle, error) for bundle in bundles)
        return
    try:
        # A capture or export leaves many objects behind; collecting them before each bundle takes long.
        gc.collect()
        gc.freeze()
        for bundle in bundles:
            found: tuple[ProfileRow, Measurement] | BundleError
            try:
                found = measure_bundle(
                    backend,
                    bundle,
                    store,
                    device=request.device,
                    variant=variant,
                    place=request.placement,
                    protocol=request.protocol,
                )
            except BundleError as error:
                found = error
            yield bundle, found
    finally:
        gc.unfreeze()
        backend.close()


def _sidecar(request: ProfileRequest, cut: CutModel) -> Sidecar:
    return Sidecar(
        device=request.device,
        chain=cut.chain,
        environment=environment(request.placement),
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        samples=request.output.with_suffix(".samples.jsonl").name,
    )


def _work(cut: CutModel, bundle: Bundle) -> float:
    """About how long a bundle takes to measure: a fixed part, and one that grows with its work."""
    macs = [layer.macs for layer in cut.chain.layers]
    return 1.0 + sum(macs[bundle.start : bundle.stop]) / 2e9
