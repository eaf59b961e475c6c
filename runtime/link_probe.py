"""Measuring one directed link: frames of several sizes, one at a time, each acknowledged.

::

    source                                      target
      warm-up   every size twice, upwards; a size that takes too long ends the list
      round     every size once and the smallest four times, in random order
        sent    ── tensor of nbytes ───────────►  received
                ◄── a few bytes of marks ───────  replied
        returned
      stop      once the medians of all sizes are known well enough, or at max_runs rounds

The frames pass the sender, the transport, the pacing (of an emulated link) and the receiver that a
deployment uses, so their times include framing and copies, as a hop's do. ``planner.link_fit`` says what
becomes of them.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from planner.documents import document
from planner.errors import TransportError
from planner.fleet import Link
from planner.link_fit import Exchanges, median_precision
from runtime.shaping import Pacer, ShapedReceiver, shape_sender
from runtime.transport import Receiver, Sender, Transport
from runtime.wire import MAX_FRAME_BYTES, Array, Frame

SMALLEST_BYTES = 64
SIZES = (SMALLEST_BYTES, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304)
MAX_SIZES = 32
MAX_RUNS = 2_000  # its samples fit into one answer
_MIN_SIZES = 3
_PINGS = 4
_WARMUP_RUNS = 2
_REST_S = 0.005  # a hop follows a stage: frames back to back find all awake, 0.2 ms instead of 0.5
_POLL_S = 0.2
_GONE_S = 1.0
_LARGEST_BYTES = MAX_FRAME_BYTES // 4


@document()
class ProbeProtocol:
    """How a link is measured.

    A frame that takes more than ``longest_s`` ends the list of ``sizes`` (bytes, ascending); one that is
    not acknowledged within ``timeout_s`` ends the measurement. ``precision``: half the 95 % confidence
    interval of a median over the median.
    """

    sizes: tuple[int, ...] = SIZES
    min_runs: int = 10
    max_runs: int = 60
    precision: float = 0.05
    longest_s: float = 1.0
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 2 <= len(self.sizes) <= MAX_SIZES or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must be 2 to {MAX_SIZES} numbers in ascending order")
        if self.sizes[0] < 1 or self.sizes[-1] > _LARGEST_BYTES:
            raise ValueError(f"sizes must be from 1 to {_LARGEST_BYTES} bytes")
        if not 1 <= self.min_runs <= self.max_runs <= MAX_RUNS:
            raise ValueError(f"runs must be from 1 to {MAX_RUNS}, found {self.min_runs} to {self.max_runs}")
        if not (self.precision > 0 and 0 < self.longest_s <= self.timeout_s <= 600):
            raise ValueError("precision must be above 0, longest_s above 0 and up to timeout_s, at most 600")


@document()
class ProbeOrder:
    """What to measure. ``back``: the link of the acknowledgements, where the fleet has one.

    ``channel`` is this measurement's own name on the network.
    """

    channel: str
    link: Link
    back: Link | None
    protocol: ProbeProtocol

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{8,32}", self.channel):
            raise ValueError(f"channel must be 8 to 32 hexadecimal digits, found {self.channel!r:.40}")
        if self.back and self.back.pair != self.link.pair[::-1]:
            raise ValueError(f"back must lead from {self.link.target} to {self.link.source}")


@document()
class ProbeResult:
    """What a source measured. ``left_out``: the sizes that take too long."""

    exchanges: Exchanges
    left_out: tuple[int, ...] = ()


def clock_name() -> str:
    """Names the clock that ``time.monotonic`` reads: processes that give the same name share it.

    Linux counts from the start of the machine, so the name is of that start. Empty where unknown.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Echo:
    """The target's part: acknowledges frames, on a thread, until told to end or nothing comes."""

    def __init__(self, transport: Transport, order: ProbeOrder) -> None:
        self._timeout_s = order.protocol.timeout_s
        self._stopping = threading.Event()
        there, back = _channels(order)
        self._receiver = ShapedReceiver(transport.receiver(there, 4))
        self._sender = shape_sender(transport.sender(back, urgent=True), _emulated(order.back))
        self._thread = threading.Thread(target=self._serve, name=f"echo {order.channel}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stopping.set()
        self._receiver.close()
        self._thread.join()

    def _serve(self) -> None:
        # Where the source is gone or the channel closed, there is nobody left to tell.
        with contextlib.suppress(TransportError):
            heard_s = time.monotonic()
            while not self._stopping.is_set() and time.monotonic() < heard_s + self._timeout_s:
                frame = self._receiver.receive(_POLL_S)
                if frame is None:
                    continue
                received_ns = time.monotonic_ns()
                if not frame.tensors:
                    break
                # The first frame may come before the network has told this sender of its receiver.
                self._sender.wait_ready(self._timeout_s)
                done = Frame(body={}, request=frame.request, marks=frame.marks)
                self._sender.send(done.marked(received_ns, time.monotonic_ns()))
                heard_s = time.monotonic()
        self._receiver.close()
        self._sender.close()


def probe(
    transport: Transport, order: ProbeOrder, progress: Callable[[str], None] = lambda note: None
) -> ProbeResult:
    """The source's part; the target's ``Echo`` is there already.

    ``progress`` gets a note between frames; what it raises ends the measurement. Raises
    ``TransportError`` where the target cannot be reached or ceases to answer.
    """
    there, back = _channels(order)
    pacers: dict[Link, Pacer] = {}
    receiver = ShapedReceiver(transport.receiver(back, 4))
    sender = shape_sender(transport.sender(there), _emulated(order.link), pacers)
    try:
        sender.wait_ready(order.protocol.timeout_s)
        result = _Probe(sender, receiver, order.protocol, progress).run()
        with contextlib.suppress(TransportError):  # the echo also ends by itself
            sender.send(Frame(body={}))
        return result
    finally:
        receiver.close()
        sender.close()


class _Probe:
    def __init__(
        self, sender: Sender, receiver: Receiver, protocol: ProbeProtocol, progress: Callable[[str], None]
    ) -> None:
        self._sender, self._receiver, self._protocol = sender, receiver, protocol
        self._progress, self._note = progress, ""
        # Random, or a network that compresses would look faster than it is.
        self._bytes: Array = np.random.default_rng(0).integers(0, 256, protocol.sizes[-1], np.uint8)
        self._request = 0

    def run(self) -> ProbeResult:
        protocol = self._protocol
        sizes = self._warm_up()
        taken: list[tuple[int, int, int, int, int]] = []
        round_trips: dict[int, list[float]] = {size: [] for size in sizes}
        generator = random.Random(0)
        for done in range(1, protocol.max_runs + 1):
            turn = [*sizes, *[sizes[0]] * (_PINGS - 1)]
            generator.shuffle(turn)
            for size in turn:
                sent, received, replied, returned = self._exchange(size)
                taken.append((size, sent, received, replied, returned))
                round_trips[size].append(((returned - sent) - (replied - received)) / 1e9)
            worst = max(median_precision(times) for times in round_trips.values())
            known = "" if math.isinf(worst) else f", known within {worst:.1%}"
            self._note = f"round {done}{known}"
            if done >= protocol.min_runs and worst <= protocol.precision:
                break
        return ProbeResult(Exchanges(*zip(*taken, strict=True)), protocol.sizes[len(sizes) :])

    def _warm_up(self) -> tuple[int, ...]:
        """Send every size, and return those that are not too slow."""
        for place, size in enumerate(self._protocol.sizes):
            self._note = f"warm-up, {size} B"
            for _ in range(_WARMUP_RUNS):
                sent, _, _, returned = self._exchange(size)
                if returned - sent > self._protocol.longest_s * 1e9 and place >= _MIN_SIZES:
                    return self._protocol.sizes[:place]
        return self._protocol.sizes

    def _exchange(self, size: int) -> tuple[int, int, int, int]:
        """Nanoseconds: sent and returned here, received and replied there between them."""
        self._request += 1
        time.sleep(_REST_S)
        sent_ns = time.monotonic_ns()
        self._sender.send(Frame((self._bytes[:size],), request=self._request, marks=(sent_ns,)))
        deadline = time.monotonic() + self._protocol.timeout_s
        while (frame := self._receiver.receive(_POLL_S)) is None:
            # Says soon that the target is gone, which a wait for its answer would not.
            self._sender.wait_ready(_GONE_S)
            self._progress(self._note)
            if time.monotonic() > deadline:
                waited = f"{size} B were not acknowledged within {self._protocol.timeout_s:g} s"
                raise TransportError(waited, "see whether the network between the two devices is up")
        returned_ns = time.monotonic_ns()
        if frame.request != self._request or len(frame.marks) != 3 or frame.marks[0] != sent_ns:
            raise TransportError(f"expected the acknowledgement of frame {self._request}, found another")
        self._progress(self._note)
        return sent_ns, frame.marks[1], frame.marks[2], returned_ns


def _emulated(link: Link | None) -> Link | None:
    return link if link and link.emulate else None


def _channels(order: ProbeOrder) -> tuple[str, str]:
    return f"probe/{order.channel}/there", f"probe/{order.channel}/back"
