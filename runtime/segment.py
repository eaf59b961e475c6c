"""A segment at work: what one device does to a request between two links.

::

    channel ──► receive, decode ──► compute ──► encode, send ──► channel
                              threads joined by bounded queues

Receiving, computing and sending overlap; frames change threads only where that gains something. A device runs
one bundle at a time, as it was profiled. Where it has a processor to spare beyond the bundles' threads, packing
and unpacking overlap with that too; where it has none, they take turns with it, or the times that the forecast
adds up would stretch each other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from planner.errors import EdgecutError, WorkerError
from profiler.clocks import Switch
from profiler.codecs import pack, timed, unpack
from profiler.runner import Runner
from runtime.itinerary import SegmentOrder
from runtime.shaping import ShapedReceiver
from runtime.transport import Receiver, Sender
from runtime.wire import Frame, check_boundary

PEER_TIMEOUT_S = 5.0  # until the next device's channel is there; less than the silence a coordinator bears
_POLL_S = 0.2
_END_TIMEOUT_S = 2.0  # a thread that waits for the network is left to it

Failed = Callable[[EdgecutError], None]
_Item = tuple[Frame, int]  # and when it was ready to go on, monotonic nanoseconds


@dataclass(frozen=True)
class Device:
    """What the segments of one installation share on a device.

    ``computing`` is held by whoever runs a bundle, ``coding`` by whoever packs or unpacks; they are one lock
    where the device has no processor to spare.
    """

    computing: threading.Lock
    coding: threading.Lock
    clocks: Switch
    slowdown: float


class SegmentWork:
    """What a segment does to one frame; each part adds its marks. The runners stay the caller's."""

    def __init__(self, order: SegmentOrder, runners: Sequence[Runner], device: Device) -> None:
        self.order, self.device = order, device
        self._stages = list(zip(order.stages, runners, strict=True))

    def received(self, frame: Frame, arrived_ns: int, ready_ns: int) -> Frame:
        """Marked, checked and decoded. Raises ``TransportError`` for other tensors than ordered."""
        frame = frame.marked(arrived_ns, ready_ns)
        check_boundary(frame, self.order.inputs, self.order.boundary, self.order.arrives)
        if not self.order.decodes:
            return frame
        with self.device.coding:
            tensors, *times = timed(lambda: unpack(frame.packed, frame.codec), self.device.slowdown)
        return replace(frame.marked(*times), tensors=tensors, codec="raw", packed=())

    def computed(self, frame: Frame) -> Frame:
        tensors, marks = frame.tensors, []
        for stage, runner in self._stages:
            with self.device.computing, self.device.clocks.at(stage.variant):
                marks.append(time.monotonic_ns())
                tensors = runner(tensors)
                marks.append(time.monotonic_ns())
        return replace(frame.marked(*marks), tensors=tensors)

    def encoded(self, frame: Frame) -> Frame:
        """As the next hop takes it."""
        codec = self.order.encodes
        if not codec:
            return frame
        with self.device.coding:
            packed, *times = timed(lambda: pack(frame.tensors, codec), self.device.slowdown)
        return replace(frame.marked(*times), tensors=(), codec=codec, packed=packed)


class Segment:
    """Use ``start`` once the next device receives, then ``stop`` and ``close``.

    ``failed`` is called once from a thread of the segment when it cannot go on.

    Marks it adds to a frame, in nanoseconds: when it had arrived; when its tensors were ready here; begin and
    end of decoding (where it decodes), of each stage, and of encoding (where it encodes); when the outgoing
    link could take them.
    """

    def __init__(self, work: SegmentWork, ends: tuple[Receiver, Sender], window: int, failed: Failed) -> None:
        self.passed = 0  # requests that were sent on
        self._work, self._failed = work, failed
        self._receiver, self._sender = ShapedReceiver(ends[0]), ends[1]
        self._window = window
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Raises ``TransportError`` where the next device does not receive."""
        self._sender.wait_ready(PEER_TIMEOUT_S)
        order, device = self._work.order, self._work.device
        frames = self._received()
        if order.decodes and device.coding is not device.computing:
            frames = self._apart(frames)
        if order.stages:
            frames = self._apart(self._computed(frames))
        self._thread(lambda: self._send(frames))

    def check(self) -> None:
        """Raises ``TransportError`` if the next device receives no more: nobody may send for long."""
        if not self._stopping.is_set():
            self._sender.wait_ready(0)

    def stop(self) -> None:
        self._stopping.set()
        self._receiver.close()

    def close(self) -> None:
        """Return once no bundle runs any more; they can be freed then."""
        # The last thread waits for the network and is left to it; those before it end with the receiver.
        for thread in self._threads:
            thread.join(_END_TIMEOUT_S if thread is self._threads[-1] else None)
        self._sender.close()

    def _apart(self, frames: Iterator[_Item]) -> Iterator[_Item]:
        """The same frames, worked out on a thread of their own."""
        waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                for item in frames:
                    if waiting.qsize() > self._window:
                        raise WorkerError(f"more requests came than the {self._window} that were agreed")
                    waiting.put(item)
            finally:
                waiting.put(None)

        self._thread(work)
        return iter(waiting.get, None)

    def _thread(self, part: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(part,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _guard(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:
            if not self._stopping.is_set():  # a closed channel is how a stop looks from here
                if not isinstance(error, EdgecutError):  # a fault nobody foresaw
                    error = WorkerError(f"{type(error).__name__}: {error}")
                self._failed(error)
            self.stop()

    def _received(self) -> Iterator[_Item]:
        while not self._stopping.is_set():
            called_ns = time.monotonic_ns()
            frame = self._receiver.receive(_POLL_S)
            if frame is None:
                continue
            # A frame that waited for this thread was ready before it was fetched.
            due_ns = max(frame.arrived_ns, frame.due_ns)
            ready_ns = time.monotonic_ns() if due_ns >= called_ns else due_ns
            frame = self._work.received(frame, due_ns, ready_ns)
            yield frame, time.monotonic_ns()

    def _computed(self, frames: Iterator[_Item]) -> Iterator[_Item]:
        for frame, _ in frames:
            yield self._work.computed(frame), time.monotonic_ns()

    def _send(self, frames: Iterator[_Item]) -> None:
        sent_ns = 0
        for frame, offered_ns in frames:
            if self._work.order.encodes:
                frame = self._work.encoded(frame)
                offered_ns = frame.marks[-1]
            onward = Frame(frame.tensors, codec=frame.codec, packed=frame.packed, request=frame.request)
            free_ns = max(offered_ns, self._sender.free_ns or sent_ns)
            self._sender.send(onward.marked(*frame.marks, free_ns))
            self.passed += 1
            sent_ns = time.monotonic_ns()
