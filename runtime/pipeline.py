"""A deployed plan: inputs streamed through, each answered exactly once, in order.

::

    submit ──► window (back-pressure) ──► request book ──► installation ──► answer ──► its future
                                              ▲
               keeper: another installation ──┘  unanswered requests are posted again

A request is posted to an installation at most once. When the installation fails, the keeper makes another
and everything unanswered goes there; the first answer to a request counts, a later one is dropped.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

from planner.chain import TensorSpec
from planner.errors import BusyError, DeploymentError, InputError
from planner.itinerary import Segment
from planner.plan import Plan
from profiler.runner import Array
from runtime.adviser import Adviser
from runtime.bundles import Preparation
from runtime.clock_offset import Offset
from runtime.fleet_agents import FleetAgents, fleet_agents, thread_agents
from runtime.installation import Installation
from runtime.keeper import Keeper
from runtime.security import Security
from runtime.timing import aligned, alignment_error_ns, measured_rows
from runtime.wire import Frame

TransportName = Literal["zenoh", "in-process"]
# A request is lost with every installation that fails with it; one that makes them fail is given up.
MAX_ATTEMPTS = 10


@dataclass(frozen=True)
class Answer:
    """The outputs of one request, the plan that gave them, and when it passed each place.

    ``request`` counts from 0 in its stream. ``marks`` are nanoseconds of the coordinator's clock (see
    ``runtime.segment``), within ``error_ns`` by what was known of the devices' ``clocks``.
    """

    request: int
    outputs: tuple[Array, ...]
    marks: tuple[int, ...]
    plan: Plan
    segments: tuple[Segment, ...]
    clocks: Mapping[str, Offset] = field(default_factory=dict)
    error_ns: int = 0


@dataclass
class _Request:
    inputs: tuple[Array, ...]
    future: Future[Answer]
    installation: Installation | None = None
    attempts: int = 0
    posted_s: float = 0.0


class Pipeline:
    """Use as a context manager: entering loads the plan on the agents, leaving unloads it.

    ``window``: requests in flight at most. ``log`` gets a line per event. Raises ``DeploymentError`` or
    another ``EdgecutError`` where the plan cannot be loaded.
    """

    def __init__(
        self,
        adviser: Adviser,
        agents: FleetAgents,
        prepare: Preparation,
        *,
        window: int = 1,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, found {window}")
        self.plan, self.window = adviser.start(), window
        self.duplicates = 0
        self._adviser = adviser
        self._numbers = itertools.count()
        self._slots = threading.Semaphore(window)
        self._lock = threading.Lock()
        self._book: dict[int, _Request] = {}
        self._target: Installation | None = None
        self._failure: Exception | None = None
        # A request that takes this long is lost: ten times its forecast, waiting behind the window.
        self.request_timeout_s = 30.0 + 10 * self.plan.cost.latency_s * window
        self.keeper = Keeper(self, adviser, agents, prepare, log)

    def __enter__(self) -> Pipeline:
        self.keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keeper.stop()
        self.fail(DeploymentError("the deployment was closed"))

    @property
    def failure(self) -> Exception | None:
        """What ended the deployment."""
        return self._failure

    @property
    def ready(self) -> bool:
        """Whether a request would be sent at once; not while another plan is installed for one that failed."""
        return self._target is not None and self._failure is None

    def submit(self, inputs: Sequence[Array], timeout_s: float | None = None) -> Future[Answer]:
        """Send one request, waiting while ``window`` are in flight; its answer comes in the future.

        The future cannot be cancelled: what is sent is answered, or lost with the deployment. Raises ``InputError``
        for arrays that are not the network's inputs, ``BusyError`` where there is no room for so long, and what
        ended the deployment.
        """
        arrays = tuple(inputs)
        self._check(arrays)
        if not self._slots.acquire(timeout=timeout_s):
            raise BusyError(
                f"{self.window} requests are in flight", "wait for an answer, or widen the window"
            )
        with self._lock:
            if self._failure:
                self._slots.release()
                raise self._failure
            number, request = next(self._numbers), _Request(arrays, Future())
            request.future.set_running_or_notify_cancel()
            self._book[number] = request
            if self._target:
                self._post(number, request, self._target)
        return request.future

    def map(self, inputs: Iterable[Sequence[Array]]) -> Iterator[Answer]:
        """Stream inputs through; one answer each, in order. Several threads may do so at once.

        With a window of 1, the next input is read once the answer before it was taken; else a thread reads
        ahead by as much as the window. Raises what ``submit`` does, and what reading the inputs raises.
        """
        if self.window == 1:
            for number, one in enumerate(inputs):
                yield replace(self.submit(one).result(), request=number)
            return
        waiting: queue.Queue[Future[Answer] | Exception | None] = queue.Queue(self.window)
        left = threading.Event()

        def feed() -> None:
            end: Exception | None = None
            try:
                for one in inputs:
                    waiting.put(self.submit(one))
                    if left.is_set():
                        return
            except Exception as error:
                end = error
            waiting.put(end)

        threading.Thread(target=feed, daemon=True).start()
        try:
            for number in itertools.count():
                item = waiting.get()
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield replace(item.result(), request=number)
        finally:
            left.set()
            while not waiting.empty():  # whoever waits for room sees that nobody listens
                waiting.get_nowait()

    def answered(self, installation: Installation, frame: Frame) -> None:
        """Take an answer; called by installations."""
        with self._lock:
            request = self._book.pop(frame.request, None)
            if request is None:
                self.duplicates += 1
                return
        self._slots.release()
        plan, segments = installation.plan, installation.segments
        clocks = installation.offsets
        marks = aligned(frame.marks, segments, clocks)
        error_ns = alignment_error_ns(frame.marks, segments, clocks)
        answer = Answer(frame.request, frame.tensors, marks, plan, segments, clocks, error_ns)
        request.future.set_result(answer)
        self._adviser.observe(plan, list(measured_rows(plan, segments, frame.request, marks)))

    def direct(self, target: Installation | None, again: bool = False) -> None:
        """Post what comes from now on to ``target``; ``again``: and all that is unanswered, in order.

        Called by the keeper; None holds requests back until there is a target.
        """
        with self._lock:
            self._target = target
            if target is None:
                return
            for number, request in self._book.items():
                if request.installation is not target and (again or request.installation is None):
                    self._post(number, request, target)

    def _post(self, number: int, request: _Request, target: Installation) -> None:
        request.installation = target
        request.attempts += 1
        request.posted_s = time.monotonic()
        target.post(number, request.inputs)

    @property
    def in_flight(self) -> int:
        """How many requests are unanswered."""
        return len(self._book)

    @property
    def power_w(self) -> dict[str, float]:
        """What devices of the present plan draw, where their agents tell."""
        target = self._target
        return dict(target.power_w) if target else {}

    def waiting_for(self, installation: Installation) -> int:
        """How many requests it has yet to answer."""
        with self._lock:
            return sum(request.installation is installation for request in self._book.values())

    def overdue(self) -> bool:
        """Whether a posted request should have been answered by now."""
        latest_s = time.monotonic() - self.request_timeout_s
        with self._lock:
            return any(one.installation and one.posted_s < latest_s for one in self._book.values())

    def exhausted(self) -> bool:
        """Whether a request has been tried as often as it may."""
        with self._lock:
            return any(one.attempts >= MAX_ATTEMPTS for one in self._book.values())

    def fail(self, error: Exception) -> None:
        """End the deployment: every request that is unanswered, or comes later, raises ``error``."""
        with self._lock:
            self._failure = self._failure or error
            left = list(self._book.values())
            self._book.clear()
            self._target = None
        for request in left:
            self._slots.release()
            request.future.set_exception(error)

    def _check(self, arrays: tuple[Array, ...]) -> None:
        expected = self.plan.chain.boundaries[0].batched(self.plan.batch).tensors
        found = tuple(TensorSpec(array.shape, array.dtype.name) for array in arrays)
        if found != expected:
            shown, wanted = (" + ".join(map(str, specs)) or "nothing" for specs in (found, expected))
            raise InputError(f"a request is {wanted}, found {shown}", "give arrays of this shape and type")


@contextmanager
def opened(
    adviser: Adviser,
    prepare: Preparation,
    folder: Path,
    *,
    window: int = 1,
    transport: TransportName = "zenoh",
    security: Security = Security(),
    log: Callable[[str], None] = lambda line: None,
) -> Iterator[Pipeline]:
    """A pipeline over the agents of its devices, reached or started; ``folder`` takes their files."""
    fleet, names = adviser.start().fleet, adviser.devices
    if transport == "in-process":
        reached = thread_agents(fleet, names, folder)
    else:
        reached = fleet_agents(fleet, names, folder, security=security)
    with (
        reached as agents,
        Pipeline(adviser, agents, prepare, window=window, log=log) as pipeline,
    ):
        yield pipeline
