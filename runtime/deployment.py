"""Deploying a plan once: its inputs streamed through, answers checked, outputs and times recorded as they come."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import DeploymentError, InputError, VerificationError
from planner.plan import Plan
from planner.run import Run, RunInfo
from planner.run_marks import Marks
from planner.run_plans import RunPlans
from planner.run_rows import RunRow
from profiler.cut import CutModel
from profiler.model import LoadedModel
from runtime.adviser import Adviser, StaticAdviser
from runtime.answering import Answer, Answering
from runtime.batching import Group, grouped
from runtime.bundles import Preparation, load_planned, preparation
from runtime.checking import KEPT, Checker, Verdict, tolerance
from runtime.monitor import Monitor
from runtime.pipeline import TransportName, opened
from runtime.reports.trace import write_trace
from runtime.results import open_outputs
from runtime.run_folder import RunFolder, StreamNote
from runtime.security import Security
from runtime.sources import STANDARD_INPUT, Source, open_source
from runtime.stopping import Stopping
from runtime.streaming import Feed, answers
from runtime.timing import measured_rows

if TYPE_CHECKING:
    from runtime.ray_engine import OnRay

DEFAULT_REQUESTS = 50
_WARMUP_REQUESTS = 5


@dataclass(frozen=True)
class DeployRequest:
    """What to send through a plan, and where to record it.

    ``inputs``: a stream each (see ``runtime.sources``), the default inputs where there is none. ``labels``: the
    file that gives the images' classes. ``requests``: of each stream, its inputs again where there are fewer; None
    for each input once, and ``DEFAULT_REQUESTS`` of the default ones. ``outputs``: see ``runtime.results``.
    ``check``: so many different requests at most are compared with the whole model, None for all. ``skip``:
    refused inputs are left out; otherwise the first one ends the run. ``adviser``: what other plans it may switch
    to, None for none. ``security``: how its agents may be reached. ``trace``: the file for a trace of the run,
    written at its end, however it ends. ``on_ray``: the cluster that it runs on in place of agents; no transport,
    adviser or security then.
    """

    plan: Plan
    output: Path
    inputs: tuple[Path, ...] = ()
    labels: Path | None = None
    requests: int | None = None
    concurrency: int = 1
    transport: TransportName = "zenoh"
    outputs: Path | None = None
    check: int | None = KEPT
    skip: bool = True
    adviser: Adviser | None = None
    security: Security = Security()
    trace: Path | None = None
    on_ray: OnRay | None = None

    @property
    def medium(self) -> str:
        """What carries the tensors."""
        return "ray" if self.on_ray else self.transport

    @property
    def limit(self) -> int | None:
        """How many inputs of each stream; None for each once."""
        requests = self.requests or (None if self.inputs else DEFAULT_REQUESTS)
        return requests and requests * self.plan.batch


def record(
    request: DeployRequest,
    skipped: list[str] | None = None,
    monitor: Monitor | None = None,
    log: Callable[[str], None] = lambda line: None,
    stopping: Stopping | None = None,
) -> Run:
    """Run the plan and record it; inputs that are refused go to ``skipped``.

    ``monitor`` counts along, ``log`` is told of each change of plan. A run that is there goes on where it
    ended. Once ``stopping`` says so, nothing more is read, and what is on its way is finished.

    Raises ``DeploymentError`` or another ``EdgecutError``; what was answered before it is in the run.
    ``VerificationError`` is raised after the run is complete.
    """
    if request.inputs.count(STANDARD_INPUT) > 1:
        raise InputError("standard input is one stream", "pass --inputs - once")
    plan, skipped = request.plan, [] if skipped is None else skipped
    model, cut = load_planned(plan)
    sources = [open_source(where, model, request.labels) for where in request.inputs or (None,)]
    outputs = open_outputs(request.outputs, request.output, len(sources), plan.chain.boundaries[-1].tensors)
    notes = [StreamNote(source.name, source.fingerprint) for source in sources]
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    info = RunInfo(plan, started, request.medium, request.concurrency, tolerance(plan), 0.0, 0)
    with RunFolder(request.output, info, notes, outputs, request.outputs) as run:
        deployment = _Deployment(request, model, cut, sources, run)
        try:
            if not deployment.complete:
                deployment.run(skipped, monitor or Monitor(plan), log, stopping)
        finally:
            run.finish()
            if request.trace:
                log(write_trace(request.output, request.trace).wrote(request.trace))
    found = Run.load(request.output)
    if max(deployment.worst, found.deviation / found.info.tolerance) > 1:
        whole = "the whole model's" if plan.exact else "those of the plan's bundles run here"
        raise VerificationError(
            f"the deployed outputs differ from {whole} by {found.deviation:.1e} of the largest output, "
            f"tolerated are {found.info.tolerance:.0e}; the run is in {request.output}",
            "try another backend for the stages, one at a time",
        )
    return found


@dataclass
class _Deployment:
    """What is left of a run. ``worst``: the largest difference found, over what is tolerated there."""

    request: DeployRequest
    model: LoadedModel
    cut: CutModel
    sources: Sequence[Source]
    run_folder: RunFolder
    worst: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every input was answered before."""
        limit = self.request.limit
        ends = [limit if limit is not None else source.length for source in self.sources]
        begins = self.run_folder.next_inputs
        return all(end is not None and begin >= end for end, begin in zip(ends, begins, strict=True))

    def run(
        self,
        skipped: list[str],
        monitor: Monitor,
        log: Callable[[str], None],
        stopping: Stopping | None,
    ) -> None:
        request, plan, cut = self.request, self.request.plan, self.cut
        monitor.doing = "loading the plan"
        most = None if request.check is None else request.check * len(self.sources)
        with tempfile.TemporaryDirectory(prefix="edgecut-deploy-") as name:
            folder = Path(name)
            prepare = preparation(cut, folder / "bundles")
            with Checker(cut, prepare, most) as checker:
                self._expect(checker)
                with self._opened(prepare, folder, log) as pipeline:
                    monitor.doing, monitor.pipeline = "warming up", pipeline
                    warm = tuple(value.numpy() for value in self.model.example(plan.batch))
                    for _ in pipeline.map([warm] * _WARMUP_REQUESTS):
                        pass
                    with stopping.draining() if stopping else nullcontext():
                        try:
                            self._stream(pipeline, checker, skipped, monitor, stopping or (lambda: False))
                        except DeploymentError:
                            monitor.missed(failed=1)  # it ends the run
                            raise
                        monitor.doing = "unloading the plan"

    def _opened(
        self, prepare: Preparation, folder: Path, log: Callable[[str], None]
    ) -> AbstractContextManager[Answering]:
        request = self.request
        if request.on_ray:
            from runtime.ray_engine import opened_on_ray

            return opened_on_ray(request.plan, prepare, request.on_ray, window=request.concurrency, log=log)
        return opened(
            request.adviser or StaticAdviser(request.plan),
            prepare,
            folder,
            window=request.concurrency,
            transport=request.transport,
            security=request.security,
            log=log,
        )

    def _expect(self, checker: Checker) -> None:
        """Find what the first requests give before anything is timed, where their inputs can be read again."""
        first = KEPT if self.request.check is None else self.request.check
        for stream, source in enumerate(self.sources):
            for group in itertools.islice(self._groups(stream, 0), first if source.length else 0):
                if group.tensors:
                    checker.expect(self.request.plan, self._key(stream, group), group.tensors)
        checker.rest()

    def _stream(
        self,
        pipeline: Answering,
        checker: Checker,
        skipped: list[str],
        monitor: Monitor,
        stopping: Callable[[], bool],
    ) -> None:
        run = self.run_folder
        origin_ns = time.monotonic_ns() - round(run.at_s * 1e9)  # a run that goes on does so in its own time
        plans, noted = RunPlans(run.folder, self.request.plan), 0
        monitor.begin(run.next_request)

        def refuse(stream: int, group: Group) -> None:
            for each in group.refused:
                said = f"input {each.number} of {self.sources[stream].name}: {each.reason}"
                if not self.request.skip:
                    raise InputError(
                        f"refused {said}", "mend it, or pass --on-error skip to go on without it"
                    )
                skipped.append(said)
                monitor.missed(refused=1)

        with Feed([self._groups(*each) for each in enumerate(run.next_inputs)]) as feed:
            for settled in answers(feed, pipeline.submit, pipeline.window, stopping, refuse):
                group, key = settled.group, self._key(settled.stream, settled.group)
                answer, rows, marks = settled.answer, [], None
                if answer:
                    answer = replace(answer, request=run.next_request)
                    verdict = checker.judge(answer.plan, key, group.tensors, answer.outputs, group.labels)
                    number = plans.number(answer.plan)
                    rows = answer_rows(number, answer, verdict, origin_ns)
                    since_ns = tuple(mark - origin_ns for mark in answer.marks)
                    marks = Marks(run.next_request, number, answer.error_ns, since_ns)
                    run.note_clocks(answer.clocks, rows[-1].begin_s or 0.0)
                    monitor.took(answer, rows)
                    self.worst = checker.worst
                    run.note(tolerance(answer.plan))
                run.add(
                    settled.stream,
                    group,
                    answer.outputs if answer else (),
                    rows,
                    (time.monotonic_ns() - origin_ns) / 1e9,
                    marks,
                )
                for switch in pipeline.switches[noted:]:
                    plans.switched(switch.at, switch.plan, switch.reason)
                    monitor.switched(switch.plan)
                    noted += 1

    def _groups(self, stream: int, begin: int) -> Iterator[Group]:
        return grouped(self.sources[stream].stream(begin, self.request.limit), self.request.plan.batch)

    def _key(self, stream: int, group: Group) -> tuple[int, tuple[int, ...]]:
        """The same for the same inputs, when they are read again."""
        length = self.sources[stream].length
        return stream, tuple(number % length if length else number for number in group.numbers)


def answer_rows(plan: int, answer: Answer, found: Verdict, origin_ns: int = 0) -> list[RunRow]:
    """What a run that began at ``origin_ns`` records of an answer that its plan number ``plan`` gave."""
    rows = list(measured_rows(answer.plan, answer.segments, answer.request, answer.marks, origin_ns))
    rows[-1] = replace(rows[-1], **asdict(found))
    return [replace(row, plan=plan) for row in rows]
