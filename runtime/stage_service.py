"""What an agent offers to those who deploy plans: stages loaded, run, and let go of.

::

    coordinator                    agent
        │  ── load (a work order) ──► │   bundles checked, loaded, warmed up, channels open
        │  ◄────────── result ─────── │
        │  ── run ──────────────────► │   the next device's channel is there
        │  ◄─ progress: started ───── │
        │     requests pass through   │   per segment: receive ─► decode, compute, encode ─► send
        │  ◄─ progress: statistics ── │   every second; its absence is a failure
        │  ── unload ───────────────► │
        │  ◄─ result of run ───────── │   or, at any time, the error that ended it

An installation ends with its ``run``, or with the coordinator that asked for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from planner.documents import file_digest, from_data, to_data
from planner.errors import EdgecutError, WorkerError
from planner.fleet import Link
from profiler import backends
from profiler.allocator import tune_allocator
from profiler.clocks import Switch
from profiler.machine import available_cpus, available_memory_bytes
from profiler.runner import Runner, slowed
from runtime.agent import Agent, Progress
from runtime.agent_messages import Body
from runtime.itinerary import (
    CLOCK,
    LOAD,
    RUN,
    UNLOAD,
    SegmentOrder,
    StageOrder,
    Stamp,
    Which,
    WorkOrder,
    leg,
    output,
)
from runtime.link_probe import clock_name
from runtime.segment import Device, Segment
from runtime.shaping import Pacer, shape_sender
from runtime.transport import Receiver, Sender, Transport

HEARTBEAT_S = 1.0
STOP_TIMEOUT_S = 10.0
_WARMUP_RUNS = 3
_MAX_INSTALLED = 8
_HEADER_BYTES = 1 << 16  # what a frame has beside its tensors, amply


class StageService:
    """``artifact`` gives the file of a digest that was sent here."""

    def __init__(self, name: str, transport: Transport, artifact: Callable[[str], Path]) -> None:
        self._name, self._transport, self._artifact = name, transport, artifact
        self._installed: dict[str, _Installed] = {}
        self._lock = threading.Lock()
        self._computing = threading.Lock()

    def serve(self, agent: Agent) -> None:
        agent.handle(LOAD, self.load)
        agent.handle(RUN, self.run)
        agent.handle(UNLOAD, self.unload)
        agent.handle(CLOCK, self.clock)
        agent.when_gone(self.part)

    def load(self, body: Body, progress: Progress) -> Body:
        """Raises ``WorkerError`` for what cannot be loaded; nothing of it stays then."""
        work = from_data(WorkOrder, body, f"work order for {self._name}")
        with self._lock:
            if work.installation in self._installed:
                raise WorkerError(f"{self._name} has {work.installation} already")
            if len(self._installed) >= _MAX_INSTALLED:
                raise WorkerError(f"{self._name} has {_MAX_INSTALLED} plans loaded", "end another deployment")
            made = _Installed(progress.request.client, work)
            self._installed[work.installation] = made
        try:
            self._check_memory(work)
            made.load(self._transport, self._computing, self._artifact)
            progress.check()
        except BaseException:
            self._drop(made)
            raise
        return {}

    def run(self, body: Body, progress: Progress) -> Body:
        """Pass requests through until unloaded. Raises the error that ended it."""
        made = self._find(body)
        try:
            made.start()
            progress({"state": "started"})
            while not made.ended.wait(HEARTBEAT_S):
                progress(made.statistics())
            if made.failure:
                raise made.failure
            return made.statistics()
        finally:
            self._drop(made)

    def unload(self, body: Body, progress: Progress) -> Body:
        which = from_data(Which, body, UNLOAD)
        made = self._installed.get(which.installation)
        if made is None:
            return {}
        made.ended.set()
        if made.started:
            made.gone.wait(STOP_TIMEOUT_S)
        else:
            self._drop(made)
        return {}

    def clock(self, body: Body, progress: Progress) -> Body:
        """What this host's clock shows."""
        return dict(to_data(Stamp(clock_name(), time.monotonic_ns())))

    def part(self, client: str | None) -> None:
        """What a coordinator loaded and did not run ends with it."""
        for made in list(self._installed.values()):
            if client in (None, made.client) and not made.started:
                self._drop(made)

    def _find(self, body: Body) -> _Installed:
        which = from_data(Which, body, RUN)
        with self._lock:
            made = self._installed.get(which.installation)
            if made is None or made.started:
                raise WorkerError(f"{self._name} has no {which.installation} to run", "deploy again")
            made.started = True
        return made

    def _drop(self, made: _Installed) -> None:
        made.close()
        with self._lock:
            self._installed.pop(made.work.installation, None)
        made.gone.set()

    def _check_memory(self, work: WorkOrder) -> None:
        stages = [stage for order in work.segments for stage in order.stages]
        needed = sum(max(stage.memory_bytes, self._nbytes(stage)) for stage in stages)
        free = available_memory_bytes()
        if needed > free:
            raise WorkerError(
                f"{self._name} has {free / 1e6:.0f} MB of memory free, the plan's {len(stages)} stages there "
                f"take {needed / 1e6:.0f} MB",
                f"set memory_bytes = {free * 9 // 10} under [device.{self._name}], and solve again",
            )

    def _nbytes(self, stage: StageOrder) -> int:
        try:
            return self._artifact(stage.sha256).stat().st_size
        except OSError:
            return 0


class _Installed:
    """The segments of one plan on this device."""

    def __init__(self, client: str, work: WorkOrder) -> None:
        self.client, self.work = client, work
        self.started = False
        self.ended, self.gone = threading.Event(), threading.Event()
        self.failure: EdgecutError | None = None
        self._segments: list[Segment] = []
        self._pacers: dict[Link, Pacer] = {}
        self._held = contextlib.ExitStack()  # clocks of stages that have one; channels; bundles
        self._closing = threading.Lock()

    def load(self, transport: Transport, computing: threading.Lock, artifact: Callable[[str], Path]) -> None:
        tune_allocator()
        work, cpus = self.work, available_cpus()
        threads = work.threads or len(cpus)
        variants = [stage.variant for order in work.segments for stage in order.stages]
        clocks = self._held.enter_context(Switch(variants, cpus))
        coding = threading.Lock() if len(cpus) > threads else computing
        device = Device(computing, coding, clocks, work.slowdown)
        for order in work.segments:
            runners = []
            for stage in order.stages:
                runner = load_stage(stage, artifact(stage.sha256), threads)
                self._held.callback(runner.close)
                runners.append(slowed(runner, work.slowdown))
            ends = self._receiver(transport, order), self._sender(transport, order)
            segment = Segment(order, runners, device, ends, work.window, self._fail)
            self._segments.append(segment)

    def start(self) -> None:
        for segment in self._segments:
            segment.start()

    def close(self) -> None:
        with self._closing:
            for segment in self._segments:
                segment.stop()
            for segment in self._segments:
                segment.close()
            self._segments = []
            self._held.close()

    def statistics(self) -> Body:
        return {"passed": [segment.passed for segment in self._segments]}

    def _fail(self, error: EdgecutError) -> None:
        self.failure = self.failure or error
        self.ended.set()

    def _receiver(self, transport: Transport, order: SegmentOrder) -> Receiver:
        # What a codec makes of tensors is at times a little larger than they are.
        most = 2 * sum(spec.nbytes for spec in order.inputs.tensors) + _HEADER_BYTES
        channel = leg(self.work.installation, order.place)
        receiver = transport.receiver(channel, self.work.window + 1, most)
        self._held.callback(receiver.close)
        return receiver

    def _sender(self, transport: Transport, order: SegmentOrder) -> Sender:
        """Paced if its link is emulated; segments share a link's time."""
        name = self.work.installation
        sender = transport.sender(output(name) if order.link is None else leg(name, order.place + 1))
        emulated = order.link if order.link and order.link.emulate else None
        return shape_sender(sender, emulated, self._pacers)


def load_stage(stage: StageOrder, file: Path, threads: int) -> Runner:
    """Load a bundle, check that it is the one ordered, and run it a few times.

    Raises ``WorkerError`` for another digest or other tensors than ordered, or where memory runs out;
    ``BundleError`` for a file that cannot be loaded or run.
    """
    try:
        found = file_digest(file)
    except OSError as error:
        raise WorkerError(
            f"cannot read bundle {stage.sha256[:12]}: {error.strerror}", "deploy again"
        ) from None
    if found != stage.sha256:
        problem = f"a bundle has SHA-256 {found[:12]}, ordered was {stage.sha256[:12]}"
        raise WorkerError(problem, "deploy again")
    try:
        loaded = backends.find(stage.backend).load(file, threads)
        for side, have, want in (
            ("input", loaded.inputs, stage.inputs.tensors),
            ("output", loaded.outputs, stage.outputs.tensors),
        ):
            if have != want:
                raise WorkerError(f"bundle {found[:12]}: {side} {have}, the plan says {want}", "deploy again")
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
