"""A device of a plan as a Ray actor: its segments, run as an agent runs them.

::

    request ──► segment on one actor ──► object store ──► segment on the next ──► ... ──► coordinator

Ray starts the actor again when its process ends, from the same order and the same bundles, and hands it again what it
had not answered: a segment depends on its inputs alone, so it may run twice.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.documents import document, from_data
from planner.errors import EdgecutError, WorkerError
from planner.fleet import Emulation
from profiler.placement import placed, placement
from profiler.runner import Array, sleep_until
from runtime.agent_messages import Body, Failure, carried, failure, version
from runtime.itinerary import WorkOrder
from runtime.link_probe import clock_name
from runtime.loading import check_memory, equipped
from runtime.segment import SegmentWork
from runtime.shaping import Pacer
from runtime.wire import Frame


@document()
class ActorOrder:
    """What a device has to load. ``paced``: links that the fleet emulates are made as slow as they are there, which
    takes actors that share a clock."""

    device: str
    work: WorkOrder
    cpus: tuple[int, ...] | None
    paced: bool


@dataclass(frozen=True)
class Process:
    """Which process ran a segment, and the clock that it reads."""

    clock: str
    pid: int


@dataclass(frozen=True)
class Passed:
    """A request on its way, and the process of each segment that it has passed."""

    frame: Frame
    processes: tuple[Process, ...] = ()


class DeviceActor:
    """``order``: an ``ActorOrder`` as data; ``bundles``: Ray's references to the files that it names, as bytes.

    What keeps it from loading is raised when it is used: Ray would not carry it from here.
    """

    def __init__(self, order: Body, bundles: Sequence[Any]) -> None:
        self._process = Process(clock_name(), os.getpid())
        self._held = ExitStack()
        # One thread runs bundles: requests keep their order, and libraries start no second set of threads.
        self._computing = ThreadPoolExecutor(1, "computing")
        self._failure: EdgecutError | None = None
        self._segments: list[SegmentWork] = []
        self._pacers: dict[tuple[str, str], Pacer] = {}
        try:
            self._order = from_data(ActorOrder, order, "order of a Ray actor")
            self._computing.submit(self._load, bundles).result()
        except EdgecutError as error:
            self._failure = error

    def _load(self, bundles: Sequence[Any]) -> None:
        import ray

        order = self._order
        emulation = Emulation(order.work.threads, order.cpus, order.work.slowdown)
        self._held.enter_context(placed(placement(emulation)))
        with tempfile.TemporaryDirectory(prefix="edgecut-actor-") as folder:
            files = {}
            bundle: Array
            for bundle in ray.get(list(bundles)):
                digest = hashlib.sha256(bundle.data).hexdigest()
                files[digest] = Path(folder) / digest
                bundle.tofile(files[digest])
            wanted = {stage.sha256 for segment in order.work.segments for stage in segment.stages}
            if absent := sorted(wanted - set(files)):
                raise WorkerError(f"{order.device} was sent no bundle {absent[0][:12]}", "deploy again")
            check_memory(order.device, order.work, files)
            self._segments = equipped(order.work, files, threading.Lock(), self._held)

    def about(self) -> tuple[Process, str]:
        """Its process, and the version of edgecut there. Raises what kept it from loading."""
        self._check()
        return self._process, version()

    def stamp_ns(self) -> int:
        """What this host's monotonic clock shows."""
        return time.monotonic_ns()

    def pass_on(self, place: int, passed: Passed) -> Passed:
        """What segment ``place`` of the order makes of a request. Raises ``EdgecutError``."""
        self._check()
        try:
            frame = self._through(self._segments[place], passed.frame)
        except EdgecutError as error:
            raise carried(from_data(Failure, failure(error), "error")) from None
        except Exception as error:  # a fault nobody foresaw
            raise WorkerError(f"{self._order.device}: {type(error).__name__}: {error}") from None
        return Passed(frame, (*passed.processes, self._process))

    def _through(self, segment: SegmentWork, frame: Frame) -> Frame:
        arrived_ns = max(time.monotonic_ns(), frame.due_ns)
        sleep_until(frame.due_ns)
        frame = segment.received(frame, arrived_ns, time.monotonic_ns())
        frame = self._computing.submit(segment.computed, frame).result()
        frame = segment.encoded(frame)
        sent_ns, due_ns, link = time.monotonic_ns(), 0, segment.order.link
        if link and link.emulate and self._order.paced:
            slot = self._pacers.setdefault(link.pair, Pacer(link)).take(frame.nbytes)
            sent_ns, due_ns = slot.start, slot.due
        return Frame(
            frame.tensors,
            codec=frame.codec,
            packed=frame.packed,
            request=frame.request,
            marks=(*frame.marks, sent_ns),
            sent_ns=sent_ns,
            due_ns=due_ns,
        )

    def _check(self) -> None:
        if self._failure:
            raise carried(from_data(Failure, failure(self._failure), "error"))
