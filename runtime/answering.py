"""Whatever a deployed plan runs on, seen from its stream: inputs in, each answered exactly once, in order."""

from __future__ import annotations

import itertools
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from planner.chain import TensorSpec
from planner.errors import BusyError, InputError
from planner.itinerary import Segment
from planner.plan import Plan
from profiler.runner import Array
from runtime.clock_offset import Offset

if TYPE_CHECKING:
    from runtime.keeper import Switch


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


class Answering(ABC):
    """``plan``: the one it began with. ``window``: requests in flight at most."""

    def __init__(self, plan: Plan, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, found {window}")
        self.plan, self.window = plan, window
        self._slots = threading.Semaphore(window)
        self._failure: Exception | None = None

    @property
    def failure(self) -> Exception | None:
        """What ended the deployment."""
        return self._failure

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether a request would be sent at once; not while what it would be sent to is being replaced."""

    @property
    @abstractmethod
    def switches(self) -> Sequence[Switch]:
        """The changes of plan so far."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """How many requests are unanswered."""

    @property
    def power_w(self) -> Mapping[str, float]:
        """What devices of the present plan draw, where they tell."""
        return {}

    @abstractmethod
    def submit(self, inputs: Sequence[Array], timeout_s: float | None = None) -> Future[Answer]:
        """Send one request, waiting while ``window`` are in flight; its answer comes in the future.

        The future cannot be cancelled: what is sent is answered, or lost with the deployment. Raises ``InputError``
        for arrays that are not the network's inputs, ``BusyError`` where there is no room for so long, and what
        ended the deployment.
        """

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

    def _admitted(self, inputs: Sequence[Array], timeout_s: float | None) -> tuple[Array, ...]:
        """A request's arrays, checked, once one of the window's slots is its own. Raises as ``submit``."""
        arrays = tuple(inputs)
        self._check(arrays)
        if not self._slots.acquire(timeout=timeout_s):
            raise BusyError(
                f"{self.window} requests are in flight", "wait for an answer, or widen the window"
            )
        return arrays

    def _check(self, arrays: tuple[Array, ...]) -> None:
        expected = self.plan.chain.boundaries[0].batched(self.plan.batch).tensors
        found = tuple(TensorSpec(array.shape, array.dtype.name) for array in arrays)
        if found != expected:
            shown, wanted = (" + ".join(map(str, specs)) or "nothing" for specs in (found, expected))
            raise InputError(f"a request is {wanted}, found {shown}", "give arrays of this shape and type")
