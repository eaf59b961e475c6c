"""A plan in operation: its workers started and loaded, inputs streamed through, outputs in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from planner.documents import file_digest, to_data
from planner.errors import DeploymentError, TransportError, WorkerError
from planner.itinerary import Segment, itinerary
from planner.plan import Plan, Variant
from profiler import backends
from profiler.cut import CutModel
from profiler.placement import Placement, placement
from profiler.runner import Array, Backend, Setting
from runtime.itinerary import (
    OUTPUT,
    STATUS,
    SegmentOrder,
    StageOrder,
    WorkOrder,
    control,
    leg,
)
from runtime.pool import Pool, ProcessPool, ThreadPool
from runtime.transport import Receiver, Sender
from runtime.wire import Frame, check_boundary

READY_TIMEOUT_S = 120.0
LOAD_TIMEOUT_S = 300.0
_POLL_S = 0.1

TransportName = Literal["zenoh", "in-process"]


@dataclass(frozen=True)
class Answer:
    """The outputs of one request, and the times it passed each place (see ``runtime.worker``)."""

    request: int
    outputs: tuple[Array, ...]
    marks: tuple[int, ...]


def prepare_bundles(plan: Plan, cut: CutModel, folder: Path) -> tuple[StageOrder, ...]:
    """Write each stage's bundle to ``folder``. Raises ``BundleError`` or ``StorageError``."""
    made: dict[tuple[str, Variant], Backend] = {}
    orders = []
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
            orders.append(StageOrder(str(file), file_digest(file), name, inputs, outputs, clock))
    finally:
        for backend in made.values():
            backend.close()
    return tuple(orders)


class Pipeline:
    """A deployed plan. Use as a context manager: entering starts and loads the workers.

    ``window``: requests in flight at most. Raises ``DeploymentError`` where a worker cannot be started,
    loaded or reached.
    """

    def __init__(
        self,
        plan: Plan,
        bundles: Sequence[StageOrder],
        folder: Path,
        *,
        window: int = 1,
        transport: TransportName = "zenoh",
    ) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, found {window}")
        self.plan, self.window = plan, window
        self.segments = itinerary(plan)
        self._bundles = bundles
        self._folder = folder
        self._transport_name = transport
        self._placements = _placements(plan)
        self._controls: dict[str, Sender] = {}
        # A request that takes this long is lost: ten times its forecast, waiting behind the window.
        self.request_timeout_s = 30.0 + 10 * plan.cost.latency_s * window

    def __enter__(self) -> Pipeline:
        self._pool: Pool = ThreadPool() if self._transport_name == "in-process" else ProcessPool(self._folder)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        network = self._pool.transport
        self._status: Receiver = network.receiver(STATUS, 16 * len(self._placements))
        self._output: Receiver = network.receiver(OUTPUT, self.window + 1)
        for device, place in self._placements.items():
            self._pool.start(device, place)
        self._await("ready", READY_TIMEOUT_S)
        for device in self._placements:
            self._controls[device] = network.sender(control(device), urgent=True)
            self._controls[device].wait_ready(READY_TIMEOUT_S)
            work = to_data(self._work(device))
            self._controls[device].send(Frame(body={"order": "load", "work": work}))
        self._await("loaded", LOAD_TIMEOUT_S)
        self._tell("start")
        self._await("started", READY_TIMEOUT_S)
        self._input: Sender = network.sender(leg(0))
        self._input.wait_ready(READY_TIMEOUT_S)

    def _work(self, device: str) -> WorkOrder:
        orders = [self._segment_order(k, one) for k, one in enumerate(self.segments) if one.device == device]
        place = self._placements[device]
        return WorkOrder(place.threads, place.slowdown, self.window, tuple(orders))

    def _segment_order(self, place: int, segment: Segment) -> SegmentOrder:
        inputs = self.plan.chain.boundaries[segment.boundary].batched(self.plan.batch)
        stages = tuple(self._bundles[stage] for stage in segment.stages)
        encodes = segment.leaves if segment.encodes else None
        return SegmentOrder(
            place, segment.boundary, inputs, stages, segment.link, segment.arrives, segment.decodes, encodes
        )

    def map(self, inputs: Iterable[tuple[Array, ...]]) -> Iterator[Answer]:
        """Stream inputs through, at most ``window`` at a time; one answer each, in order.

        Raises ``WorkerError`` or ``TransportError`` where the stream cannot go on.
        """
        waiting = iter(enumerate(inputs))
        sent = answered = 0
        more = True
        while more or answered < sent:
            while more and sent - answered < self.window:
                request, tensors = next(waiting, (sent, None))
                more = tensors is not None
                if tensors is not None:
                    self._input.send(Frame(tensors, request=request))
                    sent += 1
            if answered < sent:
                yield self._next(answered)
                answered += 1

    def _next(self, request: int) -> Answer:
        deadline = time.monotonic() + self.request_timeout_s
        while (frame := self._output.receive(_POLL_S)) is None:
            self._check()
            if time.monotonic() > deadline:
                problem = f"request {request} got no answer within {self.request_timeout_s:.0f} s"
                raise WorkerError(problem, "see whether the machine is overloaded, and deploy again")
        if frame.request != request:
            raise TransportError(f"expected the answer to request {request}, found {frame.request}")
        check_boundary(frame, self.plan.chain.boundaries[-1].batched(self.plan.batch), len(self.plan.chain))
        return Answer(request, frame.tensors, frame.marks)

    def _await(self, state: str, timeout_s: float) -> None:
        """Wait until every worker has reported ``state``."""
        missing = set(self._placements)
        deadline = time.monotonic() + timeout_s
        while missing:
            report = self._report(_POLL_S)
            if report.get("state") == state:
                missing.discard(str(report.get("device")))
            if missing and time.monotonic() > deadline:
                problem = f"{', '.join(sorted(missing))} did not become {state} within {timeout_s:.0f} s"
                raise WorkerError(problem, "see whether the machine is overloaded, and deploy again")

    def _report(self, timeout_s: float) -> dict[str, object]:
        """What a worker reports, or nothing. Raises ``WorkerError`` for a failure."""
        frame = self._status.receive(timeout_s)
        body = (frame.body if frame else None) or {}
        if body.get("state") == "failed":
            raise WorkerError(f"the worker of {body.get('device')} failed: {body.get('reason')}")
        if frame is None:
            self._pool.check()
        return body

    def _check(self) -> None:
        while self._report(0):
            pass

    def _tell(self, order: str) -> None:
        for sender in self._controls.values():
            sender.send(Frame(body={"order": order}))

    def close(self) -> None:
        """Stop the workers and wait until they are gone."""
        for sender in self._controls.values():
            with contextlib.suppress(TransportError):  # it is gone already
                sender.send(Frame(body={"order": "stop"}))
        self._pool.stop(told=len(self._controls) == len(self._placements))


def _placements(plan: Plan) -> dict[str, Placement]:
    """Where each device's worker runs. Raises ``DeploymentError`` for a device that is not emulated."""
    found = {}
    for name in plan.devices:
        emulation = plan.fleet.device(name).emulate
        if emulation is None:
            raise DeploymentError(
                f"device {name!r} is not emulated, and this version deploys to emulated devices only",
                f"add emulate = {{ threads = 1, cpus = [0] }} under [device.{name}] and solve again",
            )
        found[name] = placement(emulation)
    return found
