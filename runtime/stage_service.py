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
from pathlib import Path

from planner.documents import from_data, to_data
from planner.errors import EdgecutError, WorkerError
from planner.fleet import Link
from runtime.agent import Agent
from runtime.agent_messages import Body
from runtime.artifact_store import ArtifactStore
from runtime.itinerary import (
    CLOCK,
    LOAD,
    RUN,
    UNLOAD,
    SegmentOrder,
    Stamp,
    Which,
    WorkOrder,
    leg,
    output,
)
from runtime.link_probe import clock_name
from runtime.loading import check_memory, equipped
from runtime.orders import Progress
from runtime.power_gauge import PowerGauge
from runtime.segment import Segment
from runtime.shaping import Pacer, shape_sender
from runtime.transport import Receiver, Sender, Transport

HEARTBEAT_S = 1.0
STOP_TIMEOUT_S = 10.0
_MAX_INSTALLED = 8
_HEADER_BYTES = 1 << 16  # what a frame has beside its tensors, amply


class StageService:
    """``store`` has the bundles that were sent here; those loaded are held in it. ``gauge``: of the device's power."""

    def __init__(
        self, name: str, transport: Transport, store: ArtifactStore, gauge: PowerGauge | None = None
    ) -> None:
        self._name, self._transport, self._store, self._gauge = name, transport, store, gauge
        self._installed: dict[str, _Installed] = {}
        self._lock = threading.Lock()
        self._computing = threading.Lock()

    def serve(self, agent: Agent) -> None:
        agent.handle(LOAD, self.load, begins=True)
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
            made = _Installed(self._name, progress.request.client, work)
            self._installed[work.installation] = made
        try:
            files = made.hold(self._store)
            check_memory(self._name, work, files)
            made.load(self._transport, self._computing, files)
            progress.check()
        except BaseException:
            self._drop(made)
            raise
        return {}

    def run(self, body: Body, progress: Progress) -> Body:
        """Pass requests through until unloaded. Raises the error that ended it."""
        made, gauge = self._find(body), self._gauge
        try:
            made.start()
            progress({"state": "started"})
            with gauge.watching() if gauge else contextlib.nullcontext():
                while not made.ended.wait(HEARTBEAT_S):
                    made.check()
                    progress({**made.statistics(), "power_w": gauge.mean_w() if gauge else None})
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

    def loaded(self) -> tuple[str, ...]:
        """What is loaded, a text per plan: which bundles, for people."""
        with self._lock:
            works = [made.work for made in self._installed.values()]
        return tuple(
            f"plan {work.installation[:8]}: {sum(len(each.stages) for each in work.segments)} bundles"
            for work in works
        )

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


class _Installed:
    """The segments of one plan on this device."""

    def __init__(self, device: str, client: str, work: WorkOrder) -> None:
        self.device, self.client, self.work = device, client, work
        self.started = False
        self.ended, self.gone = threading.Event(), threading.Event()
        self.failure: EdgecutError | None = None
        self._segments: list[Segment] = []
        self._pacers: dict[Link, Pacer] = {}
        self._held = contextlib.ExitStack()  # files; clocks of stages that have one; channels; bundles
        self._closing = threading.Lock()

    def hold(self, store: ArtifactStore) -> dict[str, Path]:
        """The files of its bundles, checked, by their digests."""
        wanted = {stage.sha256 for order in self.work.segments for stage in order.stages}
        return {digest: self._held.enter_context(store.hold(digest)) for digest in sorted(wanted)}

    def load(self, transport: Transport, computing: threading.Lock, files: dict[str, Path]) -> None:
        for segment in equipped(self.work, files, computing, self._held):
            ends = self._receiver(transport, segment.order), self._sender(transport, segment.order)
            self._segments.append(Segment(segment, ends, self.work.window, self._fail))

    def start(self) -> None:
        for segment in self._segments:
            segment.start()

    def check(self) -> None:
        """Raises ``TransportError`` where a channel has lost its receiver."""
        for segment in self._segments:
            segment.check()

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
        channel = leg(self.device, self.work.installation, order.place)
        receiver = transport.receiver(channel, self.work.window + 1, most)
        self._held.callback(receiver.close)
        return receiver

    def _sender(self, transport: Transport, order: SegmentOrder) -> Sender:
        """Paced if its link is emulated; segments share a link's time."""
        name, link = self.work.installation, order.link
        sender = transport.sender(leg(link.target, name, order.place + 1) if link else output(name))
        emulated = link if link and link.emulate else None
        return shape_sender(sender, emulated, self._pacers)
