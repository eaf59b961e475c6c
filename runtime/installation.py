"""One plan loaded on its agents, as the coordinator sees it.

::

    open      send bundles ─► load, on all devices at once ─► run ─► the first channel is there
    post      a request's inputs; sent in order by a thread of its own
    close     unload, as far as the agents are there

It fails once, as a whole: a stage that reports an error, an agent that is gone or silent, a channel that
ends. Then nothing more comes from it; a request that it did not answer has to be posted to another one.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from planner.documents import from_data, to_data
from planner.errors import EdgecutError, TransportError, WorkerError
from planner.itinerary import itinerary
from planner.plan import Plan
from profiler.runner import Array
from runtime.agent_messages import Body
from runtime.artifacts import send_files
from runtime.bundles import Prepared, segment_order, work_order
from runtime.clock_offset import HostClock, Offset
from runtime.fleet_agents import FleetAgents
from runtime.itinerary import CLOCK, LOAD, RUN, UNLOAD, Stamp, leg, output
from runtime.link_probe import clock_name
from runtime.stage_service import HEARTBEAT_S
from runtime.timing import marks_of
from runtime.wire import Frame, check_boundary

LOAD_TIMEOUT_S = 300.0
START_TIMEOUT_S = 20.0
UNLOAD_TIMEOUT_S = 15.0
SILENCE_TIMEOUT_S = 10 * HEARTBEAT_S
_HEADER_BYTES = 1 << 16

Answered = Callable[["Installation", Frame], None]
Failed = Callable[["Installation"], None]


class Installation:
    """``answered`` and ``failed`` are called from threads of the installation, ``failed`` once at most.

    ``power_w``: what devices draw, where their agents tell. ``suspects``: after a failure, the devices it came
    from, and the links that may be the cause.
    """

    def __init__(self, plan: Plan, agents: FleetAgents, window: int) -> None:
        self.plan, self.window = plan, window
        self.id = secrets.token_hex(8)
        self.segments = itinerary(plan)
        self.devices = tuple(dict.fromkeys(segment.device for segment in self.segments))
        self.failure: EdgecutError | None = None
        self.suspects: tuple[frozenset[str], frozenset[tuple[str, str]]] = frozenset(), frozenset()
        self.power_w: dict[str, float] = {}
        self._agents = agents
        self._clocks: dict[str, HostClock] = {}
        self._outbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closing = False

    def open(
        self, bundles: Sequence[Prepared], answered: Answered, failed: Failed, patience_s: float = 0.0
    ) -> None:
        """Load and start it. Raises what kept it from that; nothing of it stays then.

        ``patience_s``: so long agents that vanish while bundles are sent to them are waited for.
        """
        self._answered, self._told = answered, failed
        transport = self._agents.transport
        most = 2 * self.plan.chain.wire_bytes(len(self.plan.chain), self.plan.batch) + _HEADER_BYTES
        self._output = transport.receiver(output(self.id), self.window + 1, most)
        self._input = transport.sender(leg(self.segments[0].device, self.id, 0))
        try:
            with ThreadPoolExecutor(len(self.devices)) as each:
                list(each.map(lambda device: self._load(device, bundles, patience_s), self.devices))
            for device in self.devices:
                threading.Thread(target=self._run, args=(device,), daemon=True).start()
            self._await_started()
            self._input.wait_ready(START_TIMEOUT_S)
            self.align()
        except BaseException:
            self.close()
            raise
        for part in (self._feed, self._collect):
            threading.Thread(target=part, daemon=True).start()

    def post(self, request: int, tensors: tuple[Array, ...]) -> None:
        """Send a request's inputs, once."""
        self._outbox.put(Frame(tensors, request=request))

    def align(self) -> None:
        """Find how far each device's clock is from the one here; again and again, to see it drift."""
        for device in self.devices:
            clock = self._clocks.get(device)
            if clock:
                clock.update()
                continue
            here, there = clock_name(), self._clock(device)
            shared = bool(here) and here == there.name
            self._clocks[device] = HostClock(partial(self._stamp_ns, device), shared=shared)

    @property
    def offsets(self) -> dict[str, Offset]:
        """Each device's clock against the one here."""
        return {device: clock.offset for device, clock in self._clocks.items()}

    def _stamp_ns(self, device: str) -> int:
        return self._clock(device).stamp_ns

    def _clock(self, device: str) -> Stamp:
        found = self._agents[device].request(CLOCK, timeout_s=START_TIMEOUT_S)
        return from_data(Stamp, found, f"clock of {device}")

    @property
    def one_clock(self) -> bool:
        """Whether all devices share the clock of this process."""
        return all(offset.drift_error == 0 == offset.offset_ns for offset in self.offsets.values())

    def fail(self, error: EdgecutError, device: str | None = None) -> None:
        """Note the first failure, and tell."""
        with self._lock:
            if self._closing or self.failure:
                return
            self.failure = error
            links = self._links(device) if isinstance(error, TransportError) and device else frozenset()
            self.suspects = frozenset([device] if device and not links else []), links
        self._told(self)

    def close(self) -> None:
        """Unload it wherever its agents are there, and wait for that."""
        with self._lock:
            self._closing = True
        self._outbox.put(None)
        with ThreadPoolExecutor(len(self.devices)) as each:
            list(each.map(self._unload, self.devices))
        self._output.close()
        self._input.close()

    def _load(self, device: str, bundles: Sequence[Prepared], patience_s: float) -> None:
        agent = self._agents[device]
        orders = [(place, one) for place, one in enumerate(self.segments) if one.device == device]
        try:
            stages = [bundles[stage] for _, segment in orders for stage in segment.stages]
            files = {made.order.sha256: made.file for made in stages}
            send_files(agent, files, "deploy again", patience_s=patience_s)
            segments = [segment_order(self.plan, place, one, bundles) for place, one in orders]
            work = work_order(self.plan.fleet.device(device), self.id, self.window, segments)
            agent.request(LOAD, to_data(work), timeout_s=LOAD_TIMEOUT_S)
        except EdgecutError:
            self.suspects = frozenset([device]), frozenset()
            raise

    def _run(self, device: str) -> None:
        """Wait for as long as the device runs its part; how that ends tells what became of it."""

        def heard(body: Body) -> None:
            if body.get("state") == "started":
                self._started.put(device)
            power_w = body.get("power_w")
            if isinstance(power_w, float):
                self.power_w[device] = power_w

        try:
            which = {"installation": self.id}
            self._agents[device].request(RUN, which, timeout_s=SILENCE_TIMEOUT_S, progress=heard)
            error: EdgecutError = WorkerError(f"{device} ended its part of the plan", "deploy again")
        except EdgecutError as found:
            error = found
        self.fail(error, device)
        self._started.put(None)

    def _await_started(self) -> None:
        for _ in self.devices:
            try:
                device = self._started.get(timeout=START_TIMEOUT_S)
            except queue.Empty:
                raise WorkerError(
                    f"the plan did not start within {START_TIMEOUT_S:g} s", "deploy again"
                ) from None
            if device is None:
                assert self.failure
                raise self.failure

    def _feed(self) -> None:
        try:
            while (frame := self._outbox.get()) is not None:
                self._input.send(frame)
        except EdgecutError as error:
            self.fail(error)

    def _collect(self) -> None:
        expected = self.plan.chain.boundaries[-1].batched(self.plan.batch)
        marks = sum(map(marks_of, self.segments))
        try:
            while not self._closing:
                frame = self._output.receive(HEARTBEAT_S)
                if frame is not None:
                    check_boundary(frame, expected, len(self.plan.chain))
                    if len(frame.marks) != marks:
                        raise TransportError(f"expected {marks} marks of an answer, found {len(frame.marks)}")
                    self._answered(self, frame)
        except EdgecutError as error:
            self.fail(error)

    def _unload(self, device: str) -> None:
        if device in self._agents.alive():
            with contextlib.suppress(EdgecutError):
                self._agents[device].request(UNLOAD, {"installation": self.id}, timeout_s=UNLOAD_TIMEOUT_S)

    def _links(self, device: str) -> frozenset[tuple[str, str]]:
        """Over which a device sends."""
        return frozenset(one.link.pair for one in self.segments if one.device == device and one.link)
