"""Deploying a plan once: stream images through it, check every output, and record a run."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from planner.errors import MismatchError, StorageError, VerificationError
from planner.itinerary import Segment
from planner.plan import Plan
from planner.run import Kind, Run, RunInfo, RunRow, format_run_row, run_header
from profiler.cut import CutModel, cut_model
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.runner import Array
from runtime.checking import Expectation, Verdict, expectation
from runtime.pipeline import Answer, Pipeline, TransportName, prepare_bundles

_WARMUP_REQUESTS = 5
_HOP_PARTS: tuple[Kind, ...] = ("encode", "wire", "decode")


@dataclass(frozen=True)
class DeployRequest:
    """What to send through a plan, and where to record it.

    ``inputs``: images or arrays (see ``profiler.inputs``), None for the default ones. ``labels``: the file
    that gives their classes.
    """

    plan: Plan
    output: Path
    inputs: Path | None = None
    labels: Path | None = None
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
    inputs, labels, cut = _inputs(request, skipped)
    with tempfile.TemporaryDirectory(prefix="edgecut-deploy-") as name:
        folder = Path(name)
        bundles = prepare_bundles(plan, cut, folder)
        expected = expectation(plan, cut, bundles, inputs, labels)
        pipeline = Pipeline(plan, bundles, folder, window=request.concurrency, transport=request.transport)
        with pipeline:
            for _ in pipeline.map(itertools.islice(itertools.cycle(inputs), _WARMUP_REQUESTS)):
                progress("warm-up")
            run = _stream(request, pipeline, inputs, expected, progress)
    if run.deviation > expected.tolerance:
        what = "the whole model's" if expected.bundles is None else "those of the plan's bundles run here"
        raise VerificationError(
            f"the deployed outputs differ from {what} by {run.deviation:.1e} of the largest output, "
            f"tolerated are {expected.tolerance:.0e}; the run is in {request.output}",
            "try another backend for the stages, one at a time",
        )
    return run


def _inputs(
    request: DeployRequest, skipped: list[str]
) -> tuple[list[tuple[Array, ...]], list[list[int | None]], CutModel]:
    """Batches of samples, the class of each where it is known, and the model cut as planned."""
    plan = request.plan
    model = load_model(plan.chain.source)
    cut = cut_model(model, plan.batch)
    if cut.chain.digest != plan.chain.digest:
        raise MismatchError(
            f"the plan is for {plan.chain.source.name} {plan.chain.digest[:12]}, "
            f"what is loaded here is {cut.chain.digest[:12]}",
            "use the weights that were profiled, or profile and solve again",
        )
    count = request.requests * plan.batch
    samples = list(model_samples(model, request.inputs, count, skipped, request.labels))
    batches, labels = [], []
    for begin in range(0, max(len(samples) // plan.batch, 1) * plan.batch, plan.batch):
        picked = [samples[(begin + i) % len(samples)] for i in range(plan.batch)]
        batches.append(tuple(map(np.concatenate, zip(*(each.arrays for each in picked), strict=True))))
        labels.append([each.label for each in picked])
    return batches, labels, cut


def _stream(
    request: DeployRequest,
    pipeline: Pipeline,
    inputs: Sequence[tuple[Array, ...]],
    expected: Expectation,
    progress: Callable[[str], None],
) -> Run:
    """Send the requests and write each answer's rows as it comes; an interrupted run is a shorter one."""
    plan, folder = request.plan, request.output
    rows: list[RunRow] = []
    started, begun = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()

    def info() -> RunInfo:
        requests = sum(row.kind == "total" for row in rows)
        wall_s = time.perf_counter() - begun
        return RunInfo(
            plan,
            started,
            request.transport,
            request.concurrency,
            expected.tolerance,
            wall_s,
            requests,
            expected.whole_accuracy,
        )

    try:
        folder.mkdir(parents=True, exist_ok=True)
        info().save(folder / "run.json")
        with (folder / "run.csv").open("w") as table:
            table.write(run_header())
            try:
                stream = itertools.islice(itertools.cycle(inputs), request.requests)
                for answer in pipeline.map(stream):
                    verdict = expected.judge(answer.request % len(inputs), answer.outputs)
                    found = list(measured_rows(plan, pipeline.segments, answer, verdict))
                    table.writelines(map(format_run_row, found))
                    table.flush()
                    rows += found
                    progress(f"{found[-1].measured_s * 1e3:.1f} ms")
            finally:
                info().save(folder / "run.json")
    except OSError as error:
        raise StorageError(f"cannot write the run to {folder}: {error}", "pass another --output") from error
    return Run(info(), tuple(rows))


def measured_rows(
    plan: Plan, segments: Sequence[Segment], answer: Answer, found: Verdict
) -> Iterator[RunRow]:
    """What an answer's marks say of each stage, each hop and the whole.

    Along the path there are, per segment: when the tensors were ready; begin and end of decoding, of each
    stage and of encoding; and when the outgoing link was free for them. What a hop spends in its parts, of
    which there are several only with a codec, has a row of its own beside the hop's.
    """
    marks = iter(answer.marks)
    hops = {hop.boundary: place for place, hop in enumerate(plan.hops)}
    spent = [dict.fromkeys(_HOP_PARTS, 0.0) for _ in plan.hops]
    queued = [dict.fromkeys(_HOP_PARTS, 0.0) for _ in plan.hops]

    first_ns = done_ns = free_ns = 0
    busy_s = 0.0

    def coding(part: Kind, boundary: int) -> None:
        nonlocal done_ns
        begin_ns, end_ns = next(marks), next(marks)
        spent[hops[boundary]][part] += (end_ns - begin_ns) / 1e9
        queued[hops[boundary]][part] += (begin_ns - done_ns) / 1e9
        done_ns = end_ns

    for place, segment in enumerate(segments):
        ready_ns = next(marks)
        if place == 0:
            first_ns = ready_ns
        else:
            hop = hops[segment.boundary]
            spent[hop]["wire"] += (ready_ns - free_ns) / 1e9
            queued[hop]["wire"] += (free_ns - done_ns) / 1e9
        done_ns = ready_ns
        if segment.decodes:
            coding("decode", segment.boundary)
        for stage in segment.stages:
            begin_ns, end_ns = next(marks), next(marks)
            forecast_s = plan.stages[stage].cost.latency_s
            measured_s, queue_s = (end_ns - begin_ns) / 1e9, (begin_ns - done_ns) / 1e9
            yield RunRow(answer.request, "stage", stage, forecast_s, measured_s, queue_s)
            busy_s += measured_s
            done_ns = end_ns
        if segment.encodes:
            last = plan.stages[segment.stages[-1]].bundle.stop if segment.stages else segment.boundary
            coding("encode", last)
        free_ns = next(marks)
    for place, part in enumerate(plan.hops):
        took_s, waited_s = math.fsum(spent[place].values()), math.fsum(queued[place].values())
        yield RunRow(answer.request, "hop", place, part.cost.latency_s, took_s, waited_s)
        busy_s += took_s
        if part.codec != "raw":
            for kind, forecast_s in zip(_HOP_PARTS, (part.encode_s, part.wire_s, part.decode_s), strict=True):
                yield RunRow(answer.request, kind, place, forecast_s, spent[place][kind], queued[place][kind])
    total_s = (done_ns - first_ns) / 1e9
    waited_s = max(total_s - busy_s, 0.0)
    yield RunRow(
        answer.request, "total", 0, plan.cost.latency_s, total_s, waited_s, **dataclasses.asdict(found)
    )
