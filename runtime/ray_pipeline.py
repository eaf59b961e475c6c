"""Requests through a plan's actors on a Ray cluster, each answered once.

::

    submit ──► plan of the request ──► replica of each of its devices ──► a chain of actor calls ──► answer
               by the plans' shares    the one with least to do           Ray moves the tensors

Ray starts an actor whose process has ended again, ``MAX_RESTARTS`` times, and gives it again what it had not answered.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from planner.errors import DeploymentError, EdgecutError
from planner.itinerary import Segment
from planner.plan import Plan
from profiler.runner import Array
from runtime.agent_messages import version
from runtime.answering import Answer, Answering
from runtime.clock_offset import HostClock, Offset
from runtime.keeper import Switch
from runtime.link_probe import clock_name
from runtime.ray_actor import Passed, Process
from runtime.ray_cluster import Cluster
from runtime.timing import marks_of
from runtime.wire import Frame

MAX_RESTARTS = 10
RESTART_TIMEOUT_S = 120.0
ALIGN_S = 5.0
_POLL_S = 0.5


@dataclass(frozen=True)
class Course:
    """A plan, and the number that each of its segments has on its device's actor."""

    plan: Plan
    share: float
    segments: tuple[Segment, ...]
    places: tuple[int, ...]


@dataclass(eq=False)
class Replica:
    """An actor of a device; ``waiting``: requests on their way that it has a part in."""

    device: str
    actor: Any
    waiting: int = 0
    process: Process | None = None


@dataclass(eq=False)
class _Request:
    future: Future[Answer]
    course: Course
    route: dict[str, Replica]
    posted_s: float


class Dealer:
    """Deals requests out by shares: of any number, each course has had its share to within one request."""

    def __init__(self, courses: Sequence[Course]) -> None:
        self._courses, self._given = courses, [0] * len(courses)

    def next(self) -> Course:
        dealt = sum(self._given) + 1
        owed = [each.share * dealt - given for each, given in zip(self._courses, self._given, strict=True)]
        place = owed.index(max(owed))
        self._given[place] += 1
        return self._courses[place]


class RayPipeline(Answering):
    """Use as a context manager, with actors that are loaded. ``replicas``: of each device."""

    switches: Sequence[Switch] = ()  # Ray mends; the plan stays

    def __init__(
        self,
        cluster: Cluster,
        courses: Sequence[Course],
        replicas: Mapping[str, Sequence[Replica]],
        window: int,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(courses[0].plan, window)
        self.replicas = dict(replicas)
        self._ray, self._dealer, self._log = cluster.ray, Dealer(courses), log
        latency_s = max(course.plan.cost.latency_s for course in courses)
        self.request_timeout_s = RESTART_TIMEOUT_S + 10 * latency_s * window
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._book: dict[int, _Request] = {}
        self._clocks: dict[Process, HostClock] = {}
        self._done: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._collect, "ray-answers"), (self._watch, "ray-watch"))
        ]

    def __enter__(self) -> RayPipeline:
        for replica in (replica for group in self.replicas.values() for replica in group):
            if replica.process:
                self._clock(replica, replica.process)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._done.put(None)
        self.fail(DeploymentError("the deployment was closed"))
        for thread in self._threads:
            thread.join()

    @property
    def in_flight(self) -> int:
        return len(self._book)

    @property
    def ready(self) -> bool:
        return self._failure is None

    def submit(self, inputs: Sequence[Array], timeout_s: float | None = None) -> Future[Answer]:
        arrays = self._admitted(inputs, timeout_s)
        with self._lock:
            if self._failure:
                self._slots.release()
                raise self._failure
            number, course = next(self._numbers), self._dealer.next()
            devices = {segment.device for segment in course.segments}
            route = {name: min(self.replicas[name], key=lambda each: each.waiting) for name in devices}
            for replica in route.values():
                replica.waiting += 1
            request = self._book[number] = _Request(Future(), course, route, time.monotonic())
            request.future.set_running_or_notify_cancel()
            passed: Any = Passed(Frame(arrays, request=number))
            for segment, place in zip(course.segments, course.places, strict=True):
                passed = route[segment.device].actor.pass_on.remote(place, passed)
        passed.future().add_done_callback(lambda done: self._done.put((number, done)))
        return request.future

    def fail(self, error: Exception) -> None:
        """End the deployment: every request that is unanswered, or comes later, raises ``error``."""
        with self._lock:
            self._failure = self._failure or error
            left = list(self._book.values())
            self._book.clear()
        for request in left:
            self._slots.release()
            request.future.set_exception(error)

    def _collect(self) -> None:
        while (item := self._done.get()) is not None:
            number, done = item
            try:
                self._answer(number, done.result())
            except Exception as error:
                self.fail(self._explained(error))

    def _answer(self, number: int, passed: Passed) -> None:
        with self._lock:
            request = self._book.get(number)
        if request is None:  # given up
            return
        course, left = request.course, list(passed.frame.marks)
        marks: list[int] = []
        offsets: dict[str, Offset] = {}
        error_ns = 0
        for segment, process in zip(course.segments, passed.processes, strict=True):
            own, left = left[: marks_of(segment)], left[marks_of(segment) :]
            offset = offsets[segment.device] = self._clock(request.route[segment.device], process).offset
            marks += map(offset.here_ns, own)
            error_ns = max(error_ns, offset.bound_ns(own[0]), offset.bound_ns(own[-1]))
        with self._lock:
            self._book.pop(number, None)
            for replica in request.route.values():
                replica.waiting -= 1
        self._slots.release()
        answer = Answer(
            number, passed.frame.tensors, tuple(marks), course.plan, course.segments, offsets, error_ns
        )
        request.future.set_result(answer)

    def _clock(self, replica: Replica, process: Process) -> HostClock:
        """The clock of the host that ran it; another process than before is one that Ray has started."""
        if process not in self._clocks:
            shared = bool(process.clock) and process.clock == clock_name()
            ping = replica.actor.stamp_ns.remote
            self._clocks[process] = HostClock(
                lambda: int(self._ray.get(ping(), timeout=RESTART_TIMEOUT_S)), shared=shared
            )
            if process != replica.process:
                if replica.process:
                    self._log(
                        f"{replica.device}: process {replica.process.pid} ended, Ray started {process.pid}"
                    )
                replica.process = process
        return self._clocks[process]

    def _watch(self) -> None:
        """Clocks of other hosts are looked at again; a request that takes too long ends the deployment."""
        aligned_s = time.monotonic()
        while not self._ended.wait(_POLL_S):
            now_s = time.monotonic()
            with self._lock:
                late = [one for one in self._book.values() if now_s > one.posted_s + self.request_timeout_s]
            if late:
                names = ", ".join(sorted({name for one in late for name in one.route}))
                self.fail(
                    DeploymentError(
                        f"a request got no answer within {self.request_timeout_s:.0f} s from {names}",
                        "see `ray status`: whether a node still carries each of them",
                    )
                )
            if now_s > aligned_s + ALIGN_S:
                aligned_s = now_s
                self._align()

    def _align(self) -> None:
        current = [replica.process for group in self.replicas.values() for replica in group]
        for process, clock in list(self._clocks.items()):
            if process in current and process.clock != clock_name():
                try:
                    clock.update()
                except Exception as error:  # of an actor that is being started again; its answers tell more
                    self._log(f"a clock could not be read: {type(error).__name__}")

    def _explained(self, error: Exception) -> Exception:
        return explained(error, [replica for group in self.replicas.values() for replica in group])


def explained(error: Exception, replicas: Sequence[Replica]) -> EdgecutError:
    """What Ray raised, as our own."""
    cause = getattr(error, "cause", None)
    for found in (error, cause):
        if isinstance(found, EdgecutError):
            return found
    actor = str(getattr(error, "actor_id", None))
    for replica in replicas:
        if replica.actor._actor_id.hex() == actor:
            lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
            if getattr(error, "actor_init_failed", False):
                raised = next((line for line in reversed(lines) if "Error" in line), lines[0])
                return DeploymentError(
                    f"the actor of {replica.device} did not start: {raised[:300]}",
                    f"on every node that carries it: pip install 'edgecut[ray]=={version()}', the same Python as here",
                )
            return DeploymentError(
                f"the actor of {replica.device} ended for good: {lines[-1][:300]}",
                f"Ray restarts it {MAX_RESTARTS} times; see the logs there, in /tmp/ray/session_latest/logs",
            )
    first = str(error).strip().partition("\n")[0][:300]
    return DeploymentError(
        f"Ray could not pass a request on: {type(error).__name__}: {first}", "see Ray's logs"
    )
