"""Requests of many clients through one pipeline.

::

    request ─► place (window + queue of them) ─► groups of the plan's batch ─► slot (window) ─► pipeline
                 none left: BusyError                                          in their turn

Which samples share a group depends on their request alone, so an answer depends on nobody else's inputs.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress

import numpy as np

from planner.errors import BusyError
from runtime.answering import Answer, Answering
from runtime.batching import Arrays, split, stacked, trimmed
from runtime.monitor import Monitor
from runtime.serving.statistics import Statistics
from runtime.timing import measured_rows

_SMOOTHING = 0.1  # what a new measurement weighs
_COUNTED_S = 0.005  # after an answer, which does not wait for that


class Dispatcher:
    """Lives on one event loop. ``held``: places that are taken; ``closing``: no more are given.

    ``monitor`` counts what the pipeline answers.
    """

    def __init__(self, pipeline: Answering, queue: int) -> None:
        self.pipeline, self.places = pipeline, pipeline.window + queue
        self.held, self.closing = 0, False
        self.statistics = Statistics()
        self.monitor = Monitor(pipeline.plan, pipeline.window)
        self.monitor.pipeline = pipeline
        self._slots = asyncio.Semaphore(pipeline.window)
        self._latency_s = pipeline.plan.cost.latency_s
        self._unsent = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a request. Raises ``BusyError`` where there is none."""
        if self.closing:
            raise BusyError("the server is stopping")
        if self.held >= self.places:
            raise BusyError(f"{self.held} requests are here already, as many as there is room for")
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    @property
    def retry_after_s(self) -> int:
        """When there will be room: those that wait, at the rate that was measured; whole seconds."""
        rate = self.pipeline.window / max(self._latency_s, 1e-6)
        return max(math.ceil((self._unsent + 1) / rate), 1)

    async def run(self, arrays: Arrays, samples: int) -> Arrays:
        """The outputs for so many samples. Cancelled, it sends no more; what is on its way keeps its slot.

        Raises what ended the deployment.
        """
        size, begun_s = self.pipeline.plan.batch, time.perf_counter()
        sent: list[asyncio.Future[Answer]] = []
        groups = list(_counts(samples, size))
        self._unsent += len(groups)
        try:
            for number, count in enumerate(groups):
                await self._slots.acquire()
                if number == 0:
                    self.statistics.queue.add(time.perf_counter() - begun_s)
                sent.append(self._send(_group(arrays, samples, number * size, count, size)))
            answers = [await each for each in sent]
        finally:
            self._unsent -= len(groups) - len(sent)
            for each in sent:
                if not each.cancel() and not each.cancelled():
                    each.exception()  # taken note of, where another one is raised
        parts = [trimmed(answer.outputs, size, count) for answer, count in zip(answers, groups, strict=True)]
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _send(self, arrays: Arrays) -> asyncio.Future[Answer]:
        loop, begun_s = asyncio.get_running_loop(), time.perf_counter()
        answer: asyncio.Future[Answer] = loop.create_future()
        try:
            asked = self.pipeline.submit(arrays, timeout_s=0)
        except BaseException:
            self._slots.release()
            raise
        self._unsent -= 1

        def hear(done: Future[Answer]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._settle, done, answer, begun_s)

        asked.add_done_callback(hear)
        return answer

    def _settle(self, done: Future[Answer], answer: asyncio.Future[Answer], begun_s: float) -> None:
        self._slots.release()
        error = done.exception()
        if error is None:
            latency_s = time.perf_counter() - begun_s
            self._latency_s += _SMOOTHING * (latency_s - self._latency_s)
            self.statistics.infer.add(latency_s)
            self.statistics.runs += 1
            asyncio.get_running_loop().call_later(_COUNTED_S, self._count, done.result())
        if answer.done():
            return
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)

    def _count(self, answer: Answer) -> None:
        if answer.plan is not self.monitor.plan:
            self.monitor.switched(answer.plan)
        rows = measured_rows(answer.plan, answer.segments, answer.request, answer.marks)
        self.monitor.took(answer, rows)


def _counts(samples: int, size: int) -> Iterator[int]:
    for begin in range(0, samples, size):
        yield min(size, samples - begin)


def _group(arrays: Arrays, samples: int, begin: int, count: int, size: int) -> Arrays:
    """``count`` samples from number ``begin`` on, padded to ``size``; a full group is a view."""
    rows = [len(array) // samples for array in arrays]
    part = tuple(
        array[begin * each : (begin + count) * each] for array, each in zip(arrays, rows, strict=True)
    )
    return part if count == size else stacked(list(split(part, count, count)), size)
