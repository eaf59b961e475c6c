"""Deploying a plan once: stream images through it, check every output, and record a run."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from planner.errors import MismatchError, StorageError, VerificationError
from planner.plan import Plan
from planner.run import Run, RunInfo, RunRow, format_run_row, run_header
from planner.run_plans import RunPlans, SwitchRow
from profiler.cut import CutModel, cut_model
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.runner import Array
from runtime.adviser import Adviser, StaticAdviser
from runtime.bundles import preparation
from runtime.checking import Expectation, Judges, Verdict
from runtime.pipeline import Answer, Pipeline, TransportName, opened
from runtime.timing import measured_rows

_WARMUP_REQUESTS = 5


@dataclass(frozen=True)
class DeployRequest:
    """What to send through a plan, and where to record it.

    ``inputs``: images or arrays (see ``profiler.inputs``), None for the default ones. ``labels``: the file
    that gives their classes. ``adviser``: what other plans it may switch to, None for none.
    """

    plan: Plan
    output: Path
    inputs: Path | None = None
    labels: Path | None = None
    requests: int = 50
    concurrency: int = 1
    transport: TransportName = "zenoh"
    adviser: Adviser | None = None


def deploy(
    request: DeployRequest,
    skipped: list[str],
    progress: Callable[[str], None] = lambda note: None,
    log: Callable[[str], None] = lambda line: None,
) -> Run:
    """Run the plan and record it; unreadable images go to ``skipped``.

    ``progress`` is told of each request, ``log`` of each change of plan.

    Raises ``DeploymentError`` or another ``EdgecutError``; what was measured before it is in the run.
    ``VerificationError`` is raised after the run is complete.
    """
    plan = request.plan
    if (request.output / "run.csv").exists():
        raise StorageError(f"{request.output} holds a run already", "pass another --output")
    inputs, labels, cut = _inputs(request, skipped)
    with tempfile.TemporaryDirectory(prefix="edgecut-deploy-") as name:
        folder = Path(name)
        prepare = preparation(cut, folder / "bundles")
        judges = Judges(cut, prepare, inputs, labels)
        judges.of(plan)
        with opened(
            request.adviser or StaticAdviser(plan),
            prepare,
            folder,
            window=request.concurrency,
            transport=request.transport,
            log=log,
        ) as pipeline:
            for _ in pipeline.map(itertools.islice(itertools.cycle(inputs), _WARMUP_REQUESTS)):
                progress("warm-up")
            run = _stream(request, pipeline, inputs, judges, progress)
        for part in run.by_plan():
            _verify(part, judges.of(part.info.plan), request.output)
    return run


def _verify(run: Run, expected: Expectation, folder: Path) -> None:
    if run.deviation > expected.tolerance:
        what = "the whole model's" if expected.bundles is None else "those of the plan's bundles run here"
        raise VerificationError(
            f"the deployed outputs differ from {what} by {run.deviation:.1e} of the largest output, "
            f"tolerated are {expected.tolerance:.0e}; the run is in {folder}",
            "try another backend for the stages, one at a time",
        )


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
    judges: Judges,
    progress: Callable[[str], None],
) -> Run:
    """Send the requests and write each answer's rows as it comes; an interrupted run is a shorter one."""
    plan, folder = request.plan, request.output
    expected, plans = judges.of(plan), RunPlans(folder, plan)
    rows: list[RunRow] = []
    switches: list[SwitchRow] = []

    def note() -> None:
        for each in pipeline.keeper.switches[len(switches) :]:
            switches.append(plans.switched(each.at, each.plan, each.reason))

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
                    verdict = judges.of(answer.plan).judge(answer.request % len(inputs), answer.outputs)
                    found = answer_rows(plans.number(answer.plan), answer, verdict)
                    table.writelines(map(format_run_row, found))
                    table.flush()
                    rows += found
                    note()
                    progress(f"{found[-1].measured_s * 1e3:.1f} ms")
            finally:
                note()
                info().save(folder / "run.json")
    except OSError as error:
        raise StorageError(f"cannot write the run to {folder}: {error}", "pass another --output") from error
    return Run(info(), tuple(rows), tuple(plans.plans[1:]), tuple(switches))


def answer_rows(plan: int, answer: Answer, found: Verdict) -> list[RunRow]:
    """What the run records of an answer that its plan number ``plan`` gave."""
    rows = list(measured_rows(answer.plan, answer.segments, answer.request, answer.marks))
    rows[-1] = dataclasses.replace(rows[-1], **dataclasses.asdict(found))
    return [dataclasses.replace(row, plan=plan) for row in rows]
