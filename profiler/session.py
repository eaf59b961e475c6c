"""Profiling a device: every contiguous bundle, in every variant and batch, from stored feature maps."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from planner.chain import Bundle, ModelSource
from planner.plan import Variant
from planner.table import ProfileRow, Sidecar
from profiler import backends
from profiler.cut import CutModel, cut_model
from profiler.journal import Journal
from profiler.model import load_model
from profiler.placement import Placement, environment, placed
from profiler.runner import Backend, slowed
from profiler.samples import SampleStore
from profiler.timing import Measurement, Protocol, measure


@dataclass(frozen=True)
class Step:
    """One bundle measured, or (``row`` None) those passed over because the table has them already.

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


@dataclass(frozen=True)
class ProfileSummary:
    """``measured`` bundles now, ``resumed`` from before; ``timed_s`` of ``wall_s`` was inference."""

    measured: int
    resumed: int
    timed_s: float
    wall_s: float


def profile(request: ProfileRequest, progress: Callable[[Step], None] = lambda step: None) -> ProfileSummary:
    """Measure every bundle not yet in the table; ``progress`` is told before and after each.

    Raises an ``EdgecutError``; whatever was measured before it is in the table.
    """
    started, timed_s = time.perf_counter(), 0.0
    for variant in request.variants:
        backends.find(variant.backend, variant.precision)
    with placed(request.placement):
        model = load_model(request.source)
        cut = cut_model(model)
        store = SampleStore(request.samples, cut.chain)
        work = [_work(cut, bundle) for bundle in cut.chain.bundles()]
        total = sum(work) * len(request.batches) * len(request.variants)
        with Journal(request.output, _sidecar(request, cut)) as journal:
            done = {row.key for row in journal.rows}
            for batch in request.batches:
                batched = cut if batch == 1 else cut_model(model, batch)
                for variant in request.variants:
                    keys = {
                        bundle: (request.device, bundle, variant, batch) for bundle in cut.chain.bundles()
                    }
                    todo = [bundle for bundle, key in keys.items() if key not in done]
                    skipped = sum(_work(cut, bundle) for bundle, key in keys.items() if key in done)
                    progress(Step(None, variant, batch, skipped, total, None))
                    for bundle, found, load_s in _measured(request, batched, store, variant, todo):
                        row = _row(request.device, bundle, variant, batch, found, load_s)
                        journal.append(row, found.samples_s)
                        timed_s += sum(found.samples_s)
                        progress(Step(bundle, variant, batch, _work(cut, bundle), total, row))
    return ProfileSummary(len(journal.rows) - len(done), len(done), timed_s, time.perf_counter() - started)


def _measured(
    request: ProfileRequest, cut: CutModel, store: SampleStore, variant: Variant, bundles: Sequence[Bundle]
) -> Iterator[tuple[Bundle, Measurement, float]]:
    """Each bundle with its measurement and the seconds it took to load."""
    if not bundles:
        return
    backend: Backend = backends.find(variant.backend, variant.precision)(cut, request.placement.threads)
    try:
        # A capture or export leaves many objects behind; collecting them before each bundle takes long.
        gc.collect()
        gc.freeze()
        for bundle in bundles:
            inputs = store.inputs(bundle.start, cut.batch, request.protocol.min_runs)
            started = time.perf_counter()
            with slowed(backend.runner(bundle), request.placement.slowdown) as runner:
                load_s = time.perf_counter() - started
                yield bundle, measure(runner, inputs, request.protocol), load_s
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


def _row(
    device: str, bundle: Bundle, variant: Variant, batch: int, found: Measurement, load_s: float
) -> ProfileRow:
    return ProfileRow(
        device=device,
        bundle=bundle,
        variant=variant,
        batch=batch,
        latency_s=found.latency_s,
        latency_median_s=found.median_s,
        latency_p95_s=found.p95_s,
        latency_std_s=found.std_s,
        cpu_time_s=found.cpu_time_s,
        runs=len(found.samples_s),
        load_s=load_s,
    )


def _work(cut: CutModel, bundle: Bundle) -> float:
    """About how long a bundle takes to measure: a fixed part, and one that grows with its work."""
    macs = [layer.macs for layer in cut.chain.layers]
    return 1.0 + sum(macs[bundle.start : bundle.stop]) / 2e9
