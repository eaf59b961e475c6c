"""A segment at work: what one device does to a request between two links.

::

    channel ──► receive, decode ──► compute ──► encode, send ──► channel
                     └── threads joined by bounded queues ──┘

Receiving, computing and sending overlap. A device runs one bundle at a time, as it was profiled. Where it
has a processor to spare beyond the bundles' threads, packing and unpacking overlap with that too; where it
has none, they take turns with it, or the times that the forecast adds up would stretch each other.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from planner.errors import EdgecutError, WorkerError
from profiler.clocks import Switch
from profiler.codecs import pack, timed, unpack
from profiler.runner import Runner
from runtime.itinerary import SegmentOrder
from runtime.shaping import ShapedReceiver
from runtime.transport import Receiver, Sender
from runtime.wire import Frame, check_boundary

PEER_TIMEOUT_S = 5.0  # until the next device's channel is there
_POLL_S = 0.2
_END_TIMEOUT_S = 2.0  # a thread that waits for the network is left to it

Failed = Callable[[EdgecutError], None]


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


class Segment:
    """Use ``start`` once the next device receives, then ``stop`` and ``close``. The runners stay the caller's.

    ``failed`` is called once from a thread of the segment when it cannot go on.

    Marks it adds to a frame, in nanoseconds: when the tensors were ready here; begin and end of decoding
    (where it decodes), of each stage, and of encoding (where it encodes); when the outgoing link could
    take them.
    """

    def __init__(
        self,
        order: SegmentOrder,
        runners: Sequence[Runner],
        device: Device,
        ends: tuple[Receiver, Sender],
        window: int,
        failed: Failed,
    ) -> None:
        self.order = order
        self.passed = 0  # requests that were sent on
        self._runners, self._device, self._failed = runners, device, failed
        self._receiver, self._sender = ShapedReceiver(ends[0]), ends[1]
        self._stopping = threading.Event()
        # There is always room: a queue holds as many as the window lets into the pipeline.
        self._ready: queue.Queue[Frame | None] = queue.Queue(window + 2)
        self._done: queue.Queue[tuple[Frame, int] | None] = queue.Queue(window + 2)
        self._threads = [
            threading.Thread(target=self._guard, args=(part,), daemon=True)
            for part in (self._receive, self._compute, self._send)
        ]

    def start(self) -> None:
        """Raises ``TransportError`` where the next device does not receive."""
        self._sender.wait_ready(PEER_TIMEOUT_S)
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raises ``TransportError`` if the next device receives no more: nobody may send for long."""
        if not self._stopping.is_set():
            self._sender.wait_ready(0)

    def stop(self) -> None:
        self._stopping.set()
        self._receiver.close()

    def close(self) -> None:
        """Return once no bundle runs any more; they can be freed then."""
        for thread, timeout_s in zip(self._threads, (_END_TIMEOUT_S, None, _END_TIMEOUT_S), strict=True):
            if thread.is_alive():
                thread.join(timeout_s)
        self._sender.close()

    def _guard(self, part: Callable[[], None]) -> None:
        try:
            part()
        except Exception as error:
            if not self._stopping.is_set():  # a closed channel is how a stop looks from here
                if not isinstance(error, EdgecutError):  # a fault nobody foresaw
                    error = WorkerError(f"{type(error).__name__}: {error}")
                self._failed(error)
            self.stop()
        finally:
            # Whoever waits for this part ends too.
            if part == self._receive:
                self._ready.put_nowait(None)
            elif part == self._compute:
                self._done.put_nowait(None)

    def _receive(self) -> None:
        order = self.order
        while not self._stopping.is_set():
            called_ns = time.monotonic_ns()
            frame = self._receiver.receive(_POLL_S)
            if frame is None:
                continue
            # A frame that waited for this thread was ready before it was fetched.
            due_ns = max(frame.arrived_ns, frame.due_ns)
            frame = frame.marked(time.monotonic_ns() if due_ns >= called_ns else due_ns)
            check_boundary(frame, order.inputs, order.boundary, order.arrives)
            self._ready.put_nowait(self._decoded(frame) if order.decodes else frame)

    def _decoded(self, frame: Frame) -> Frame:
        with self._device.coding:
            tensors, *times = timed(lambda: unpack(frame.packed, frame.codec), self._device.slowdown)
        return replace(frame.marked(*times), tensors=tensors, codec="raw", packed=())

    def _compute(self) -> None:
        stages = list(zip(self.order.stages, self._runners, strict=True))
        while (frame := self._ready.get()) is not None:
            tensors, marks = frame.tensors, []
            for stage, runner in stages:
                with self._device.computing, self._device.clocks.at(stage.variant):
                    marks.append(time.monotonic_ns())
                    tensors = runner(tensors)
                    marks.append(time.monotonic_ns())
            done = replace(frame.marked(*marks), tensors=tensors)
            self._done.put_nowait((done, time.monotonic_ns()))

    def _send(self) -> None:
        sent_ns = 0
        while (item := self._done.get()) is not None:
            frame, offered_ns = item
            if self.order.encodes:
                frame = self._encoded(frame)
                offered_ns = frame.marks[-1]
            onward = Frame(frame.tensors, codec=frame.codec, packed=frame.packed, request=frame.request)
            free_ns = max(offered_ns, self._sender.free_ns or sent_ns)
            self._sender.send(onward.marked(*frame.marks, free_ns))
            self.passed += 1
            sent_ns = time.monotonic_ns()

    def _encoded(self, frame: Frame) -> Frame:
        codec = self.order.encodes
        assert codec
        with self._device.coding:
            packed, *times = timed(lambda: pack(frame.tensors, codec), self._device.slowdown)
        return replace(frame.marked(*times), tensors=(), codec=codec, packed=packed)
