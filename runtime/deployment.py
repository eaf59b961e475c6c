"""Deploying a plan once: stream images through it, check every output, and record a run."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from planner.chain import Bundle
from planner.errors import MismatchError, ModelError, StorageError, VerificationError
from planner.plan import Plan
from planner.run import Run, RunInfo, RunRow, format_run_row, run_header
from profiler.cut import CutModel, cut_model
from profiler.images import pictures, prepare
from profiler.model import load_model
from profiler.runner import Array
from runtime.itinerary import Segment
from runtime.pipeline import Answer, Pipeline, TransportName, prepare_bundles

# Of the largest output: what fp32 engines that sum in another order may differ by.
TOLERANCE = 1e-4
_WARMUP_REQUESTS = 5


@dataclass(frozen=True)
class DeployRequest:
    """What to send through a plan, and where to record it. ``images``: None for the default ones."""

    plan: Plan
    output: Path
    images: Path | None = None
    requests: int = 50
    concurrency: int = 1
    transport: TransportName = "zenoh"


def deploy(
    request: DeployRequest, skipped: list[str], progress: Callable[[str], None] = lambda note: None
) -> Run:
    """Run the plan and record it; ``progress`` is told of each request, unreadable images go to ``skipped``.

    Raises ``DeploymentError`` or another ``EdgecutError``; what was measured before it is in the run.
    ``VerificationError`` is raised after the run is complete.
    """
    plan = request.plan
    if (request.output / "run.csv").exists():
        raise StorageError(f"{request.output} holds a run already", "pass another --output")
    inputs, expected, cut = _inputs(plan, request.images, request.requests, skipped)
    with tempfile.TemporaryDirectory(prefix="edgecut-deploy-") as name:
        folder = Path(name)
        bundles = prepare_bundles(plan, cut, folder)
        pipeline = Pipeline(plan, bundles, folder, window=request.concurrency, transport=request.transport)
        with pipeline:
            for _ in pipeline.map(itertools.islice(itertools.cycle(inputs), _WARMUP_REQUESTS)):
                progress("warm-up")
            run = _stream(request, pipeline, inputs, expected, progress)
    if run.largest_output_error > TOLERANCE:
        raise VerificationError(
            f"the deployed outputs differ from the whole model's by {run.largest_output_error:.1e} of the "
            f"largest output, tolerated are {TOLERANCE:.0e}; the run is in {request.output}",
            "try another backend for the stages, one at a time",
        )
    return run


def _inputs(
    plan: Plan, images: Path | None, requests: int, skipped: list[str]
) -> tuple[list[tuple[Array, ...]], list[tuple[Array, ...]], CutModel]:
    """Batches of prepared images, the whole model's output for each, and the model cut as planned."""
    model = load_model(plan.chain.source)
    cut = cut_model(model, plan.batch)
    if cut.chain.digest != plan.chain.digest:
        raise MismatchError(
            f"the plan is for {plan.chain.source.name} {plan.chain.digest[:12]}, "
            f"what is loaded here is {cut.chain.digest[:12]}",
            "use the weights that were profiled, or profile and solve again",
        )
    if model.preparation is None:
        raise ModelError(f"{model.source.name} takes {plan.chain.boundaries[0]}, which no image becomes")
    spec = plan.chain.boundaries[0].tensors[0]
    count = requests * plan.batch
    singles = [prepare(picture, model.preparation, spec) for picture in pictures(images, count, skipped)]
    batches = [
        np.concatenate([singles[(place + i) % len(singles)] for i in range(plan.batch)])
        for place in range(0, max(len(singles) // plan.batch, 1) * plan.batch, plan.batch)
    ]
    whole = cut.module(Bundle(0, len(cut.chain)))
    with torch.inference_mode():
        expected = [tuple(value.numpy() for value in whole(torch.from_numpy(batch))) for batch in batches]
    return [(batch,) for batch in batches], expected, cut


def _stream(
    request: DeployRequest,
    pipeline: Pipeline,
    inputs: Sequence[tuple[Array, ...]],
    expected: Sequence[tuple[Array, ...]],
    progress: Callable[[str], None],
) -> Run:
    """Send the requests and write each answer's rows as it comes; an interrupted run is a shorter one."""
    plan, folder = request.plan, request.output
    rows: list[RunRow] = []
    started, begun = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()

    def info() -> RunInfo:
        requests = sum(row.kind == "total" for row in rows)
        wall_s = time.perf_counter() - begun
        return RunInfo(plan, started, request.transport, request.concurrency, TOLERANCE, wall_s, requests)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        info().save(folder / "run.json")
        with (folder / "run.csv").open("w") as table:
            table.write(run_header())
            try:
                stream = itertools.islice(itertools.cycle(inputs), request.requests)
                for answer in pipeline.map(stream):
                    error = output_error(answer.outputs, expected[answer.request % len(expected)])
                    found = list(measured_rows(plan, pipeline.segments, answer, error))
                    table.writelines(map(format_run_row, found))
                    table.flush()
                    rows += found
                    progress(f"{found[-1].measured_s * 1e3:.1f} ms")
            finally:
                info().save(folder / "run.json")
    except OSError as error:
        raise StorageError(f"cannot write the run to {folder}: {error}", "pass another --output") from error
    return Run(info(), tuple(rows))


def output_error(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest of the outputs' errors; infinite where one is not a number."""
    errors = [_error(have, want) for have, want in zip(found, expected, strict=True)]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _error(found: Array, expected: Array) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(difference.max() / (np.abs(expected.astype(np.float64)).max() or 1.0))


def measured_rows(plan: Plan, segments: Sequence[Segment], answer: Answer, error: float) -> Iterator[RunRow]:
    """What an answer's marks say of each stage, each hop and the whole.

    Along the path there are, per segment: when the tensors were ready, begin and end of each stage, and
    when the outgoing link was free for them.
    """
    marks = iter(answer.marks)
    hop_s: dict[int, float] = {}
    hop_queue_s: dict[int, float] = {}
    first_ns = done_ns = free_ns = 0
    busy_s = 0.0
    for place, segment in enumerate(segments):
        ready_ns = next(marks)
        if place == 0:
            first_ns = ready_ns
        else:
            k = segment.boundary
            hop_s[k] = hop_s.get(k, 0.0) + (ready_ns - free_ns) / 1e9
            hop_queue_s[k] = hop_queue_s.get(k, 0.0) + (free_ns - done_ns) / 1e9
        done_ns = ready_ns
        for stage in segment.stages:
            begin_ns, end_ns = next(marks), next(marks)
            forecast_s = plan.stages[stage].cost.latency_s
            measured_s, queue_s = (end_ns - begin_ns) / 1e9, (begin_ns - done_ns) / 1e9
            yield RunRow(answer.request, "stage", stage, forecast_s, measured_s, queue_s)
            busy_s += measured_s
            done_ns = end_ns
        free_ns = next(marks)
    for place, hop in enumerate(plan.hops):
        k = hop.boundary
        yield RunRow(answer.request, "hop", place, hop.cost.latency_s, hop_s[k], hop_queue_s[k])
    total_s = (done_ns - first_ns) / 1e9
    waited_s = max(total_s - busy_s - sum(hop_s.values()), 0.0)
    yield RunRow(answer.request, "total", 0, plan.cost.latency_s, total_s, waited_s, error)
