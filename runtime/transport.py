"""The network seam: frames sent over named channels, and who is alive.

::

    Transport ──► Sender    many per channel     wait_ready, send
              ──► Receiver  one per channel      receive, from a bounded queue
              ──► declare_alive, watch           who is there, who has gone

A channel is a name such as ``hop/3/edge-server``. Frames of one sender arrive once and in order, or a
``TransportError`` says on either side that they do not; nothing is dropped in silence. The queue of a
receiver is bounded: the caller keeps fewer frames in flight than its capacity.

``runtime.in_process`` joins threads of one process; ``runtime.zenoh_transport`` joins processes and
machines.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

from planner.errors import TransportError
from runtime.wire import MAX_FRAME_BYTES, Buffer, Frame, decode

Watcher = Callable[[str, bool], None]


class Sender(ABC):
    """The sending end of a channel; ``send`` may be called from several threads."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    @abstractmethod
    def wait_ready(self, timeout_s: float) -> None:
        """Return once the channel has its receiver; ``TransportError`` after ``timeout_s`` seconds."""

    @abstractmethod
    def send(self, frame: Frame) -> None:
        """Hand the frame to the network, waiting while the network is full.

        The frame's arrays may be reused afterwards. Raises ``TransportError`` for a frame that cannot
        travel and for a channel without a receiver; a frame sent while the receiver dies may be lost.
        """

    @property
    def free_ns(self) -> int:
        """When the link under it is next free, monotonic nanoseconds; 0 where nobody knows."""
        return 0

    def close(self) -> None:  # noqa: B027 - a sender may hold nothing
        """Let go of the channel."""

    def _absent(self, waited_s: float = 0) -> TransportError:
        waited = f" after {waited_s:g} s" if waited_s else ""
        return TransportError(
            f"channel {self.channel} has no receiver{waited}",
            "see whether the process that receives it started, and still runs",
        )


class Receiver(ABC):
    """The receiving end of a channel; ``receive`` is for one thread."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame, ``arrived_ns`` set; None after ``timeout_s`` seconds (None: no limit).

        Raises ``TransportError`` for a malformed frame, and from then on once frames were lost or the
        channel was closed.
        """

    @property
    def ended(self) -> bool:
        """Whether nothing more can come: frames were lost, or the channel was closed."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Give up the channel; a waiting ``receive`` ends with ``TransportError``."""


class Mailbox(Receiver):
    """A bounded queue of encoded frames. ``deliver`` never blocks, so a network thread may call it."""

    def __init__(
        self, channel: str, capacity: int, closing: Callable[[], None], max_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a receiver needs room for at least 1 frame, found {capacity}")
        super().__init__(channel)
        self.max_bytes = min(max_bytes, MAX_FRAME_BYTES)
        self._capacity = capacity
        self._closing = closing
        self._lock = threading.Lock()
        self._error: TransportError | None = None
        self._queue: queue.SimpleQueue[tuple[Buffer, int] | TransportError] = queue.SimpleQueue()

    def deliver(self, data: Buffer) -> None:
        """Queue an encoded frame; a full queue is an error that ``receive`` raises after what it holds."""
        arrived_ns = time.monotonic_ns()
        with self._lock:
            if self._error is None and self._queue.qsize() < self._capacity:
                self._queue.put((data, arrived_ns))
                return
        self.fail(
            TransportError(
                f"channel {self.channel}: a frame arrived while {self._capacity} were waiting",
                "keep fewer requests in flight, or give the receiver a larger capacity",
            )
        )

    def refuse(self, error: TransportError) -> None:
        """Let ``receive`` raise ``error`` once, for something that is no frame; the channel goes on."""
        with self._lock:
            if self._error is None and self._queue.qsize() < self._capacity:
                self._queue.put(error)

    def fail(self, error: TransportError) -> None:
        """End the channel with ``error``; the first one stays."""
        with self._lock:
            if self._error is None:
                self._error = error
                self._queue.put(error)

    @property
    def ended(self) -> bool:
        return self._error is not None

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        try:
            # A channel that failed holds nothing after its error, which has to be raised every time.
            item = self._queue.get(timeout=0 if self._error else timeout_s)
        except queue.Empty:
            if self._error is None:
                return None
            item = self._error
        if isinstance(item, TransportError):
            raise TransportError(item.message, item.remedy)
        data, arrived_ns = item
        return decode(data, self.max_bytes, arrived_ns)

    def close(self) -> None:
        self.fail(TransportError(f"channel {self.channel} was closed"))
        self._closing()


class Transport(ABC):
    """One process's (or thread's) place on the network. Use as a context manager."""

    def __init__(self) -> None:
        self._receivers: dict[str, Mailbox] = {}

    @property
    def session(self) -> str:
        """This place's identity on the network; empty where there is none."""
        return ""

    def sender(self, channel: str, *, urgent: bool = False) -> Sender:
        """A sending end of ``channel``; ``urgent`` overtakes the frames of other channels."""
        return self._sender(_checked(channel), urgent)

    def receiver(self, channel: str, capacity: int, max_bytes: int = MAX_FRAME_BYTES) -> Receiver:
        """The receiving end of ``channel``, with room for ``capacity`` frames of ``max_bytes`` each.

        Raises ``TransportError`` if this transport receives it already.
        """
        if _checked(channel) in self._receivers:
            raise TransportError(f"channel {channel} has a receiver already")
        mailbox = Mailbox(channel, capacity, lambda: self._release(channel), max_bytes)
        self._receivers[channel] = mailbox
        self._attach(mailbox)
        return mailbox

    def declare_alive(self, name: str) -> None:
        """Let every watcher know ``name`` until this transport closes or its process dies."""
        self._declare_alive(_checked(name))

    @abstractmethod
    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher(name, alive)`` for everyone there now and at each change.

        It runs on a thread of the network: it must return at once and not raise.
        """

    def close(self) -> None:
        for mailbox in list(self._receivers.values()):
            mailbox.close()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self, channel: str) -> None:
        if self._receivers.pop(channel, None) is not None:
            self._detach(channel)

    @abstractmethod
    def _sender(self, channel: str, urgent: bool) -> Sender: ...

    @abstractmethod
    def _declare_alive(self, name: str) -> None: ...

    @abstractmethod
    def _attach(self, mailbox: Mailbox) -> None: ...

    @abstractmethod
    def _detach(self, channel: str) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


def _checked(name: str) -> str:
    """Refuse a name that would mean something else to the network."""
    if not all(part and all(c.isalnum() or c in "-_." for c in part) for part in name.split("/")):
        raise TransportError(f"{name!r}: use letters, digits, '-', '_' and '.', and '/' between them")
    return name
