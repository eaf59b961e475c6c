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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from planner.errors import DeploymentError
from profiler.runner import Array
from runtime.adviser import Adviser
from runtime.answering import Answer, Answering
from runtime.bundles import Preparation
from runtime.fleet_agents import FleetAgents, fleet_agents, thread_agents
from runtime.installation import Installation
from runtime.keeper import Keeper, Switch
from runtime.security import Security
from runtime.timing import aligned, alignment_error_ns, measured_rows
from runtime.wire import Frame

TransportName = Literal["zenoh", "in-process"]
# A request is lost with every installation that fails with it; one that makes them fail is given up.
MAX_ATTEMPTS = 10


@dataclass
class _Request:
    inputs: tuple[Array, ...]
    future: Future[Answer]
    installation: Installation | None = None
    attempts: int = 0
    posted_s: float = 0.0


class Pipeline(Answering):
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
        super().__init__(adviser.start(), window)
        self.duplicates = 0
        self._adviser = adviser
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._book: dict[int, _Request] = {}
        self._target: Installation | None = None
        # A request that takes this long is lost: ten times its forecast, waiting behind the window.
        self.request_timeout_s = 30.0 + 10 * self.plan.cost.latency_s * window
        self.keeper = Keeper(self, adviser, agents, prepare, log)

    @property
    def switches(self) -> Sequence[Switch]:
        return self.keeper.switches

    def __enter__(self) -> Pipeline:
        self.keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keeper.stop()
        self.fail(DeploymentError("the deployment was closed"))

    @property
    def ready(self) -> bool:
        return self._target is not None and self._failure is None

    def submit(self, inputs: Sequence[Array], timeout_s: float | None = None) -> Future[Answer]:
        arrays = self._admitted(inputs, timeout_s)
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
        return len(self._book)

    @property
    def power_w(self) -> dict[str, float]:
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
