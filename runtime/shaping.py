"""A link made slower than the network under it: an emulated bandwidth and latency.

::

    sender    start   = max(now, the link is next free)
              free    = start + bytes / bandwidth        send returns shortly before
              due     = free + latency                   travels with the frame
    receiver  hands the frame over at due, or at once if it arrived later: then it was late

Both ends read one monotonic clock, so both are processes of one machine. The frame itself crosses the
real network while its sender and receiver wait; a frame that arrives after it was due shows that the
network is slower than the link it stands for.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from planner.fleet import Link
from profiler.runner import sleep_until
from runtime.transport import Receiver, Sender
from runtime.wire import Frame

# A sender returns so long before the link is free, or it would be idle until the next send.
_LEAD_NS = 300_000


class Clock:
    """Monotonic time in nanoseconds, and waiting for it to come."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at ``deadline_ns``, late by a fraction of a millisecond."""
        remaining = deadline_ns - time.monotonic_ns()
        if remaining > 0:
            time.sleep(remaining / 1e9)

    def spin_until(self, deadline_ns: int) -> None:
        """Return at ``deadline_ns``, late by microseconds."""
        sleep_until(deadline_ns)


CLOCK = Clock()


@dataclass(frozen=True)
class Slot:
    """A frame's time on a link, monotonic nanoseconds: busy from ``start`` to ``free``, there at ``due``."""

    start: int
    free: int
    due: int


class Pacer:
    """The time of one directed link. All senders over that link share one; threads may share it too."""

    def __init__(self, link: Link, clock: Clock = CLOCK) -> None:
        self.link = link
        self.clock = clock
        self._lock = threading.Lock()
        self._free_ns = 0

    @property
    def free_ns(self) -> int:
        """When the link is next free: monotonic nanoseconds, possibly past."""
        return self._free_ns

    def take(self, wire_bytes: int) -> Slot:
        """Reserve the link for ``wire_bytes``, from now or from when it is next free."""
        with self._lock:
            start = max(self.clock.now_ns(), self._free_ns)
            free = start + round(self.link.transfer_s(wire_bytes) * 1e9)
            self._free_ns = free
        return Slot(start, free, free + round(self.link.latency_s * 1e9))


class ShapedSender(Sender):
    """Sends over a paced link.

    ``send`` returns when the link has all but taken the frame, as on a socket with a small buffer; with
    ``wait=False`` it returns at once and frames line up in the receiver's queue.
    """

    def __init__(self, sender: Sender, pacer: Pacer, wait: bool = True) -> None:
        super().__init__(sender.channel)
        self._sender = sender
        self._pacer = pacer
        self._wait = wait
        self._lock = threading.Lock()

    def wait_ready(self, timeout_s: float) -> None:
        self._sender.wait_ready(timeout_s)

    def send(self, frame: Frame) -> None:
        with self._lock:  # frames leave in the order of their slots
            slot = self._pacer.take(frame.nbytes)
            self._sender.send(replace(frame, sent_ns=slot.start, due_ns=slot.due))
        if self._wait:
            self._pacer.clock.sleep_until(slot.free - _LEAD_NS)

    @property
    def free_ns(self) -> int:
        return self._pacer.free_ns

    def close(self) -> None:
        self._sender.close()


class ShapedReceiver(Receiver):
    """Hands each frame over when it is due, in the order of arrival.

    Of ``shaped`` frames, ``late`` arrived after they were due, by at most ``worst_late_s``.
    """

    def __init__(self, receiver: Receiver, clock: Clock = CLOCK) -> None:
        super().__init__(receiver.channel)
        self.shaped = 0
        self.late = 0
        self.worst_late_s = 0.0
        self._receiver = receiver
        self._clock = clock
        self._held: Frame | None = None

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        deadline = None if timeout_s is None else self._clock.now_ns() + round(timeout_s * 1e9)
        frame = self._held or self._receiver.receive(timeout_s)
        if frame is None:
            return None
        self._held = frame
        if deadline is not None and deadline < frame.due_ns:
            self._clock.sleep_until(deadline)
            return None
        self._clock.spin_until(frame.due_ns)
        self._held = None
        self._note(frame)
        return frame

    def close(self) -> None:
        self._receiver.close()

    def _note(self, frame: Frame) -> None:
        self.shaped += bool(frame.due_ns)
        self.late += frame.late_s > 0
        self.worst_late_s = max(self.worst_late_s, frame.late_s)


def shape_sender(sender: Sender, link: Link | None, pacers: dict[Link, Pacer] | None = None) -> Sender:
    """``sender`` paced to ``link``; itself for None, a link to be used as it is.

    Channels over one link share its time: pass the same ``pacers`` for all of a device's channels.
    """
    if link is None:
        return sender
    pacers = {} if pacers is None else pacers
    return ShapedSender(sender, pacers.setdefault(link, Pacer(link)))
