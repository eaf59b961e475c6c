"""Plans made by hand for the benchmarks: cut evenly by layer times, or where asked."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planner import Bundle, Cost, Fleet, Hop, Limits, ModelSource, Outcome, Plan, Proof, Stage, Variant
from planner.documents import file_digest
from profiler import cut_model, load_model
from profiler.backends.ort import OnnxRuntimeBackend
from profiler.cut import CutModel
from profiler.runner import Setting
from runtime.bundles import Preparation, Prepared
from runtime.itinerary import StageOrder

VARIANT = Variant("onnxruntime")


def load(name: str, batch: int = 1) -> CutModel:
    return cut_model(load_model(ModelSource(name)), batch)


def layer_times(cut: CutModel, runs: int = 7) -> list[float]:
    """Seconds of each layer on one thread: the least of ``runs``, whatever else the machine does."""
    backend = OnnxRuntimeBackend(cut, Setting())
    found = []
    try:
        for layer in range(len(cut.chain)):
            with backend.runner(Bundle(layer, layer + 1)) as runner:
                inputs = [np.zeros(spec.shape, spec.dtype) for spec in runner.inputs]
                times = []
                for _ in range(runs):
                    begun = time.perf_counter()
                    runner(inputs)
                    times.append(time.perf_counter() - begun)
                found.append(min(times))
    finally:
        backend.close()
    return found


def preparation(cut: CutModel, backend: OnnxRuntimeBackend, folder: Path) -> Preparation:
    """Bundles of any plans, each written once."""
    made: dict[Bundle, Prepared] = {}

    def prepared(bundle: Bundle) -> Prepared:
        if bundle not in made:
            file = folder / f"{bundle.start}-{bundle.stop}.bundle"
            backend.save(bundle, file)
            ends = (cut.chain.boundaries[k] for k in (bundle.start, bundle.stop))
            made[bundle] = Prepared(file, StageOrder(file_digest(file), VARIANT.backend, *ends))
        return made[bundle]

    return lambda plan: tuple(prepared(stage.bundle) for stage in plan.stages)


def even_cuts(times: Sequence[float], stages: int) -> tuple[int, ...]:
    """The boundaries between ``stages`` runs of layers, the longest of which is as short as it can be."""
    ends = range(1, len(times))

    def longest(cuts: tuple[int, ...]) -> float:
        return max(sum(times[a:b]) for a, b in itertools.pairwise((0, *cuts, len(times))))

    return min(itertools.combinations(ends, stages - 1), key=longest)


def plan_by_hand(
    cut: CutModel,
    fleet: Fleet,
    cuts: Sequence[int],
    devices: Sequence[str],
    times: Sequence[float],
    batch: int = 1,
) -> Plan:
    """Stages between ``cuts``, one on each device, forecast as the sum of their layers' ``times``."""
    chain = cut.chain
    stages, hops = [], []
    at = fleet.source
    bounds = (0, *cuts, len(chain))
    for device, (start, stop) in zip(devices, itertools.pairwise(bounds), strict=True):
        if device != at:
            hops.append(_hop(cut, fleet, start, at, device, batch))
        stages.append(Stage(device, Bundle(start, stop), VARIANT, Cost(sum(times[start:stop]), 0.0)))
        at = device
    if at != fleet.sink:
        hops.append(_hop(cut, fleet, len(chain), at, fleet.sink, batch))
    total = sum(part.cost.latency_s for part in (*stages, *hops))
    proof = Proof("by hand", Outcome.FEASIBLE, "latency", total, 0.0, 1.0, 1, 1, {}, "none", {"latency": 1.0})
    return Plan(chain, fleet, batch, Limits(), tuple(stages), tuple(hops), Cost(total, 0.0), proof)


def _hop(cut: CutModel, fleet: Fleet, boundary: int, source: str, target: str, batch: int) -> Hop:
    size = cut.chain.wire_bytes(boundary) * batch
    link = fleet.link(source, target)
    assert link is not None
    return Hop(boundary, (source, target), "raw", size, Cost(link.latency_s + link.transfer_s(size), 0.0))
