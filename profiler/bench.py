"""Whole models side by side: every backend, precision and batch, against PyTorch in fp32."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from planner.chain import Bundle, ModelSource
from planner.errors import BundleError
from planner.plan import Variant
from planner.recipe import Calibration, Recipe
from planner.sidecar import LeftOut
from planner.table import ProfileRow
from profiler import backends
from profiler.accuracy import accuracy, agreement, classes
from profiler.bundles import OpenBundle
from profiler.clocks import Switch
from profiler.cut import CutModel, cut_model
from profiler.fusion import check_fusion
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.placement import Placement, placed
from profiler.recipes import calibrated
from profiler.request import Key, usable
from profiler.rounds import open_group, rounds
from profiler.runner import Array, Backend, Setting
from profiler.samples import SampleStore, write_samples
from profiler.timing import Protocol


@dataclass(frozen=True)
class BenchRequest:
    """What to measure. ``inputs``: see ``profiler.inputs``; ``count``: samples at most."""

    source: ModelSource
    variants: tuple[Variant, ...]
    batches: tuple[int, ...]
    placement: Placement
    protocol: Protocol
    calibration: Calibration = field(default_factory=Calibration)
    inputs: Path | None = None
    labels: Path | None = None
    count: int = 20


@dataclass(frozen=True)
class BenchRow:
    """The whole model in one variant and batch.

    ``speed_up`` over PyTorch fp32 of the same batch. ``predicted``: the first sample's class.
    """

    row: ProfileRow
    speed_up: float | None
    top1_agreement: float | None
    accuracy: float | None
    predicted: str | None


@dataclass
class Bench:
    """``fused_operations``: batch normalisations that fusing folds; None where it was not asked for."""

    rows: list[BenchRow] = field(default_factory=list)
    lacking: dict[Variant, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    samples: int = 0
    first_sample: str = ""
    fused_operations: int | None = None


def bench(
    request: BenchRequest,
    skipped: list[str],
    progress: Callable[[Variant, int], None] = lambda variant, batch: None,
) -> Bench:
    """Measure the model as one bundle in every variant and batch, and PyTorch fp32 beside them.

    ``progress`` is told before each measurement. Variants that this machine lacks or that fail are left
    out by name. Raises an ``EdgecutError``.
    """
    found = Bench()
    variants = usable(request.variants, found.lacking)
    gpu = all(backends.entry(variant.backend).gpu for variant in variants)
    reference = Variant("torch-cuda" if gpu else "torch")
    variants = [reference, *(variant for variant in variants if variant != reference)]
    with placed(request.placement), tempfile.TemporaryDirectory(prefix="edgecut-bench-") as name:
        # As one layer, the model's feature maps are its inputs and outputs.
        model = load_model(replace(request.source, granularity="layer", max_layers=1, max_tensors=1))
        cut = cut_model(model)
        samples = list(model_samples(model, request.inputs, request.count, skipped, request.labels))
        found.samples, found.first_sample = len(samples), samples[0].source
        folder = Path(name) / "samples"
        write_samples(cut, samples, folder)
        store = SampleStore(folder, cut.chain)
        if any(variant.fused for variant in variants):
            found.fused_operations = check_fusion(cut, store.inputs(0, 1, 1)[0])
        recipe = None
        if any(variant.precision in ("int8", "mixed") for variant in variants):
            recipe = calibrated(request.calibration, cut, store)
        for batch in request.batches:
            batched = cut if batch == 1 else cut_model(model, batch)
            measured = _measured(request, batched, store, variants, recipe, found, progress)
            base_s = measured[reference][0].latency_s if reference in measured else None
            for row, predicted in measured.values():
                found.rows.append(_judged(row, base_s, predicted, store, model.categories))
    return found


def _measured(
    request: BenchRequest,
    cut: CutModel,
    store: SampleStore,
    variants: Sequence[Variant],
    recipe: Recipe | None,
    found: Bench,
    progress: Callable[[Variant, int], None],
) -> dict[Variant, tuple[ProfileRow, Array | None]]:
    """Each variant's row, and the class it predicts for each sample; all of them timed in rounds."""
    whole, predicted = Bundle(0, 1), dict[Variant, Array | None]()
    rows: dict[Variant, ProfileRow] = {}

    def open_bundle(key: Key) -> OpenBundle:
        progress(key.variant, key.batch)
        setting = Setting(key.variant.precision, key.variant.fused, request.placement.threads, recipe)
        backend: Backend = backends.find(key.variant.backend, key.variant.precision)(cut, setting)
        stack.callback(backend.close)
        opened = OpenBundle(
            backend,
            whole,
            store,
            device="this machine",
            variant=key.variant,
            place=request.placement,
            protocol=request.protocol,
        )
        known = [classes(opened.runner(arrays)) for arrays in store.inputs(0, cut.batch, store.count)]
        # A batch larger than the store repeats its samples.
        have = [each for each in known if each is not None]
        predicted[key.variant] = np.concatenate(have)[: store.count] if have else None
        return opened

    def failed(key: Key, error: BundleError) -> None:
        found.left_out.append(LeftOut(whole, key.variant, cut.batch, error.message))

    waiting = [Key(whole, variant, cut.batch) for variant in variants]
    while waiting:
        with ExitStack() as stack:
            switch = stack.enter_context(Switch(()))
            group = open_group(waiting, open_bundle, switch, failed, stack)
            for key, opened, made in rounds(group, switch, lambda: None):
                if isinstance(made, BundleError):
                    failed(key, made)
                elif opened.settled:
                    rows[key.variant] = opened.row()
    return {variant: (rows[variant], predicted[variant]) for variant in variants if variant in rows}


def _judged(
    row: ProfileRow,
    base_s: float | None,
    predicted: Array | None,
    store: SampleStore,
    categories: Sequence[str],
) -> BenchRow:
    count = 0 if predicted is None else len(predicted)
    expected = [classes(outputs) for outputs in store.inputs(1, 1, count)]
    whole = None if predicted is None else np.concatenate([each for each in expected if each is not None])
    first = None
    if predicted is not None:
        first = categories[predicted[0]] if categories else f"class {predicted[0]}"
    return BenchRow(
        row,
        None if base_s is None else base_s / row.latency_s,
        agreement(predicted, whole),
        accuracy(predicted, store.labels[:count]),
        first,
    )
