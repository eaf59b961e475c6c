"""A plan's bundles as files, ready to be sent to the devices that run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.documents import file_digest
from planner.errors import MismatchError
from planner.fleet import Device, Emulation
from planner.itinerary import Segment
from planner.plan import Plan, Variant
from profiler import backends
from profiler.cut import CutModel, cut_model
from profiler.model import LoadedModel, load_model
from profiler.runner import Backend, Setting
from runtime.itinerary import SegmentOrder, StageOrder, WorkOrder


@dataclass(frozen=True)
class Prepared:
    """A stage's bundle in a file here, and the order to load it there."""

    file: Path
    order: StageOrder


# What gives the bundles of a plan, one per stage.
Preparation = Callable[[Plan], tuple[Prepared, ...]]


def prepare_bundles(plan: Plan, cut: CutModel, folder: Path) -> tuple[Prepared, ...]:
    """Write each stage's bundle to ``folder``. Raises ``BundleError`` or ``StorageError``."""
    made: dict[tuple[str, Variant], Backend] = {}
    prepared = []
    try:
        for place, stage in enumerate(plan.stages):
            name, precision = stage.variant.backend, stage.variant.precision
            reduced = precision in ("int8", "mixed")
            recipe = plan.recipes.get(stage.device) if reduced else None
            setting = Setting(precision, stage.variant.fused, recipe=recipe)
            way = stage.device, stage.variant
            if way not in made:
                made[way] = backends.find(name, precision)(cut, setting)
            file = folder / f"stage-{place}.bundle"
            made[way].save(stage.bundle, file)
            inputs = plan.chain.boundaries[stage.bundle.start].batched(plan.batch)
            outputs = plan.chain.boundaries[stage.bundle.stop].batched(plan.batch)
            clock = stage.variant.frequency_hz
            order = StageOrder(file_digest(file), name, inputs, outputs, clock, stage.memory_bytes)
            prepared.append(Prepared(file, order))
    finally:
        for backend in made.values():
            backend.close()
    return tuple(prepared)


def preparation(cut: CutModel, folder: Path) -> Preparation:
    """Bundles of any plan for this model, each plan's made once, in a folder of its own."""
    made: dict[tuple[object, ...], tuple[Prepared, ...]] = {}

    def prepare(plan: Plan) -> tuple[Prepared, ...]:
        key = tuple((stage.device, stage.bundle, stage.variant) for stage in plan.stages)
        if key not in made:
            place = folder / f"plan-{len(made)}"
            place.mkdir(parents=True)
            made[key] = prepare_bundles(plan, cut, place)
        return made[key]

    return prepare


def segment_order(plan: Plan, place: int, segment: Segment, bundles: Sequence[Prepared]) -> SegmentOrder:
    """The order of a segment; ``bundles``: of the plan's stages."""
    inputs = plan.chain.boundaries[segment.boundary].batched(plan.batch)
    stages = tuple(bundles[stage].order for stage in segment.stages)
    encodes = segment.leaves if segment.encodes else None
    return SegmentOrder(
        place, segment.boundary, inputs, stages, segment.link, segment.arrives, segment.decodes, encodes
    )


def work_order(device: Device, installation: str, window: int, segments: Sequence[SegmentOrder]) -> WorkOrder:
    """All that a device has to load, with the threads and the slowdown of one that is emulated."""
    emulation = device.emulate or Emulation()
    return WorkOrder(installation, emulation.threads, emulation.slowdown, window, tuple(segments))


def load_planned(plan: Plan) -> tuple[LoadedModel, CutModel]:
    """The plan's model, cut as planned. Raises ``MismatchError`` where it is another one."""
    model = load_model(plan.chain.source)
    cut = cut_model(model, plan.batch)
    if cut.chain.digest != plan.chain.digest:
        raise MismatchError(
            f"the plan is for {plan.chain.source.name} {plan.chain.digest[:12]}, "
            f"what is loaded here is {cut.chain.digest[:12]}",
            "use the weights that were profiled, or profile and solve again",
        )
    return model, cut
