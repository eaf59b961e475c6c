"""A worker: the process that stands for one device, loads its bundles and runs them when asked.

::

    coordinator                    worker
        │  ◄────────── ready ──────── │   it can be reached
        │  ── load (a work order) ──► │   bundles loaded, warmed up, channels open
        │  ◄────────── loaded ─────── │
        │  ── start ────────────────► │   the next device's channel is there
        │  ◄────────── started ────── │
        │     requests pass through   │   per segment: receive ─► decode, compute, encode ─► send,
        │                             │   a thread each end
        │  ── stop ─────────────────► │

A failure is reported once, in words, as ``failed``. A worker ends when its coordinator is gone.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planner.documents import file_digest, from_data
from planner.errors import EdgecutError, TransportError, WorkerError
from planner.fleet import Link
from profiler import backends
from profiler.clocks import Switch
from profiler.codecs import pack, timed, unpack
from profiler.machine import available_cpus
from profiler.runner import Runner, slowed
from runtime.itinerary import OUTPUT, STATUS, SegmentOrder, StageOrder, WorkOrder, control, leg
from runtime.shaping import Pacer, ShapedReceiver, shape_sender
from runtime.transport import Receiver, Sender, Transport
from runtime.wire import Frame, check_boundary

PEER_TIMEOUT_S = 30.0
_POLL_S = 0.2
_WARMUP_RUNS = 3


class Worker:
    """Serves one deployment over ``transport``, which it leaves open."""

    def __init__(self, device: str, transport: Transport) -> None:
        self.device = device
        self._transport = transport
        self._stopping = threading.Event()
        # A device runs one bundle at a time, as it was profiled; it packs and unpacks in between, so that
        # what the forecast adds up does not overlap.
        self._computing = threading.Lock()
        self._reporting = threading.Lock()
        self._segments: list[_Segment] = []
        self._pacers: dict[Link, Pacer] = {}
        self._held = contextlib.ExitStack()  # the clocks of stages that have one

    def run(self) -> None:
        """Serve until told to stop. Failures are reported to the coordinator, not raised."""
        orders = self._transport.receiver(control(self.device), 8)
        self._status = self._transport.sender(STATUS, urgent=True)
        try:
            self._status.wait_ready(PEER_TIMEOUT_S)
            self._transport.declare_alive(self.device)
            self._report("ready")
            while not self._stopping.is_set():
                frame = orders.receive(_POLL_S)
                if frame is not None:
                    self._obey(frame.body or {})
        except Exception as error:  # a fault nobody foresaw must not leave the coordinator waiting
            self.fail(error)
        finally:
            self.stop()
            orders.close()

    def stop(self) -> None:
        self._stopping.set()
        for segment in self._segments:
            segment.close()
        self._held.close()

    def fail(self, error: Exception) -> None:
        """Tell the coordinator, and stop."""
        reason = str(error) if isinstance(error, EdgecutError) else f"{type(error).__name__}: {error}"
        if not self._stopping.is_set():
            self._report("failed", reason)
        self._stopping.set()

    def _obey(self, body: dict[str, object]) -> None:
        order = body.get("order")
        if order == "load":
            self._load(from_data(WorkOrder, body.get("work"), f"work order for {self.device}"))
            self._report("loaded")
        elif order == "start":
            for segment in self._segments:
                segment.start()
            self._report("started")
        elif order == "stop":
            self._stopping.set()
        else:
            raise WorkerError(f"{self.device}: unknown order {order!r}")

    def _load(self, work: WorkOrder) -> None:
        variants = [stage.variant for order in work.segments for stage in order.stages]
        self.clocks = self._held.enter_context(Switch(variants, available_cpus()))
        for order in work.segments:
            runners = [load_stage(stage, work) for stage in order.stages]
            self._segments.append(_Segment(self, order, runners, work))

    def sender(self, order: SegmentOrder) -> Sender:
        """The sending end of a segment, paced if its link is emulated; segments share a link's time."""
        sender = self._transport.sender(OUTPUT if order.link is None else leg(order.place + 1))
        emulated = order.link if order.link and order.link.emulate else None
        return shape_sender(sender, emulated, self._pacers)

    def _report(self, state: str, reason: str = "") -> None:
        with self._reporting:
            self._status.send(Frame(body={"device": self.device, "state": state, "reason": reason}))

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def computing(self) -> threading.Lock:
        return self._computing

    @property
    def transport(self) -> Transport:
        return self._transport


def load_stage(stage: StageOrder, work: WorkOrder) -> Runner:
    """Load a bundle, check that it is the one ordered, and run it a few times.

    Raises ``WorkerError`` for another digest or other tensors than ordered, ``BundleError`` for a file
    that cannot be loaded or run.
    """
    file = Path(stage.file)
    try:
        found = file_digest(file)
    except OSError as error:
        raise WorkerError(f"cannot read bundle {file}: {error.strerror}") from None
    if found != stage.sha256:
        problem = f"{file.name} has SHA-256 {found[:12]}, ordered was {stage.sha256[:12]}"
        raise WorkerError(problem, "deploy again")
    loaded = backends.find(stage.backend).load(file, work.threads)
    for side, have, want in (
        ("input", loaded.inputs, stage.inputs.tensors),
        ("output", loaded.outputs, stage.outputs.tensors),
    ):
        if have != want:
            raise WorkerError(f"{file.name}: {side} {have}, the plan says {want}", "deploy again")
    zeros = tuple(np.zeros(spec.shape, spec.dtype) for spec in loaded.inputs)
    for _ in range(_WARMUP_RUNS):
        loaded(zeros)
    return slowed(loaded, work.slowdown)


class _Segment:
    """Receives at one end, computes, sends at the other.

    Marks it adds to a frame, in nanoseconds: when the tensors were ready here; begin and end of decoding
    (where it decodes), of each stage, and of encoding (where it encodes); when the outgoing link could
    take them.
    """

    def __init__(
        self, worker: Worker, order: SegmentOrder, runners: Sequence[Runner], work: WorkOrder
    ) -> None:
        self._worker, self._order, self._runners = worker, order, runners
        self._slowdown = work.slowdown
        incoming = worker.transport.receiver(leg(order.place), work.window + 1)
        self._receiver: Receiver = ShapedReceiver(incoming)
        self._sender = worker.sender(order)
        self._outgoing: queue.Queue[tuple[Frame, int] | None] = queue.Queue(work.window + 2)
        self._threads = [
            threading.Thread(target=self._guard, args=(part,), daemon=True)
            for part in (self._compute, self._send)
        ]

    def start(self) -> None:
        self._sender.wait_ready(PEER_TIMEOUT_S)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for thread in self._threads:
            if thread.is_alive():
                thread.join(PEER_TIMEOUT_S)
        for runner in self._runners:
            runner.close()

    def _guard(self, part) -> None:  # type: ignore[no-untyped-def]
        try:
            part()
        except TransportError as error:
            if not self._worker.stopping:  # a closed channel is how a stop looks from here
                self._worker.fail(error)
        except Exception as error:
            self._worker.fail(error)

    def _compute(self) -> None:
        try:
            while not self._worker.stopping:
                called_ns = time.monotonic_ns()
                frame = self._receiver.receive(_POLL_S)
                if frame is None:
                    continue
                # A frame that waited for this thread was ready before it was fetched.
                due_ns = max(frame.arrived_ns, frame.due_ns)
                marks = [time.monotonic_ns() if due_ns >= called_ns else due_ns]
                check_boundary(frame, self._order.inputs, self._order.boundary, self._order.arrives)
                done = self._processed(frame, marks)
                # There is always room: the queue holds as many as the window lets into the pipeline.
                self._outgoing.put_nowait((done, time.monotonic_ns()))
        finally:
            self._outgoing.put_nowait(None)

    def _processed(self, frame: Frame, marks: list[int]) -> Frame:
        """What goes on: decoded, computed and encoded as ordered."""
        order, tensors = self._order, frame.tensors
        codec, packed = frame.codec, frame.packed
        if order.decodes:
            with self._worker.computing:
                tensors, *times = timed(lambda: unpack(frame.packed, frame.codec), self._slowdown)
            marks += times
            codec, packed = "raw", ()
        for stage, runner in zip(order.stages, self._runners, strict=True):
            with self._worker.computing, self._worker.clocks.at(stage.variant):
                marks.append(time.monotonic_ns())
                tensors = runner(tensors)
                marks.append(time.monotonic_ns())
        if order.encodes:
            codec, plain = order.encodes, tensors
            with self._worker.computing:
                packed, *times = timed(lambda: pack(plain, codec), self._slowdown)
            marks += times
            tensors = ()
        passed = (*frame.marks, *marks)
        return Frame(tensors, codec=codec, packed=packed, request=frame.request, marks=passed)

    def _send(self) -> None:
        sent_ns = 0
        while (item := self._outgoing.get()) is not None:
            frame, offered_ns = item
            self._sender.send(frame.marked(max(offered_ns, self._sender.free_ns or sent_ns)))
            sent_ns = time.monotonic_ns()
