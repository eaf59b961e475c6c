"""Bundles loaded on a device as they were profiled, for the segments that run them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from planner.errors import WorkerError
from profiler import backends
from profiler.allocator import sparing_allocator, tune_allocator
from profiler.clocks import Switch
from profiler.machine import available_cpus, available_memory_bytes
from profiler.runner import Runner, slowed
from runtime.itinerary import StageOrder, WorkOrder
from runtime.segment import Device, SegmentWork

_WARMUP_RUNS = 3


def check_memory(device: str, work: WorkOrder, files: Mapping[str, Path]) -> None:
    """Raises ``WorkerError`` where the order's bundles take more memory than is free."""
    stages = {stage for order in work.segments for stage in order.stages}
    needed = sum(max(stage.memory_bytes, files[stage.sha256].stat().st_size) for stage in stages)
    free = available_memory_bytes()
    if needed > free:
        raise WorkerError(
            f"{device} has {free / 1e6:.0f} MB of memory free, the plan's {len(stages)} stages there "
            f"take {needed / 1e6:.0f} MB",
            f"set memory_bytes = {free * 9 // 10} under [device.{device}], and solve again",
        )


def equipped(
    work: WorkOrder, files: Mapping[str, Path], computing: threading.Lock, held: ExitStack
) -> list[SegmentWork]:
    """The order's segments with their bundles loaded, each once; ``held`` frees them. Raises as ``load_stage``."""
    tune_allocator()
    cpus = available_cpus()
    threads = work.threads or len(cpus)
    variants = [stage.variant for order in work.segments for stage in order.stages]
    clocks = held.enter_context(Switch(variants, cpus))
    coding = threading.Lock() if len(cpus) > threads else computing
    device = Device(computing, coding, clocks, work.slowdown)
    loaded: dict[StageOrder, Runner] = {}
    for stage in (stage for order in work.segments for stage in order.stages):
        if stage not in loaded:
            runner = load_stage(stage, files[stage.sha256], threads)
            held.callback(runner.close)
            loaded[stage] = slowed(runner, work.slowdown)
    return [SegmentWork(order, [loaded[stage] for stage in order.stages], device) for order in work.segments]


def load_stage(stage: StageOrder, file: Path, threads: int) -> Runner:
    """Load a bundle, check its tensors, and run it a few times.

    Raises ``WorkerError`` for other tensors than ordered, or where memory runs out; ``BundleError`` for a
    file that cannot be loaded or run.
    """
    try:
        backend = backends.find(stage.backend)
        with sparing_allocator():
            loaded = backend.load(file, threads)
        for side, have, want in (
            ("input", loaded.inputs, stage.inputs.tensors),
            ("output", loaded.outputs, stage.outputs.tensors),
        ):
            if have != want:
                problem = f"bundle {stage.sha256[:12]}: {side} {have}, the plan says {want}"
                raise WorkerError(problem, "deploy again")
        zeros = tuple(np.zeros(spec.shape, spec.dtype) for spec in loaded.inputs)
        for _ in range(_WARMUP_RUNS):
            loaded(zeros)
    except MemoryError:
        free = available_memory_bytes()
        problem = (
            f"a bundle of {file.stat().st_size / 1e6:.0f} MB does not fit into the {free / 1e6:.0f} MB free"
        )
        raise WorkerError(problem, "set memory_bytes for this device, and solve again") from None
    return loaded
