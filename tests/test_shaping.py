"""Shaped links, with a clock that only moves when something waits for it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import TransportError
from planner.fleet import Link
from runtime.in_process import Hub, InProcessTransport
from runtime.shaping import (
    CLOCK,
    Clock,
    Pacer,
    ShapedReceiver,
    ShapedSender,
    shape_sender,
)
from runtime.transport import Receiver, Sender
from runtime.wire import Frame

MS = 1_000_000
LINK = Link("a", "b", bandwidth_bytes_per_s=1e6, latency_s=0.005)  # 1000 bytes take 1 ms


class FakeClock(Clock):
    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, deadline_ns: int) -> None:
        self.now = max(self.now, deadline_ns)

    def spin_until(self, deadline_ns: int) -> None:
        self.sleep_until(deadline_ns)


class FakeNetwork(Sender, Receiver):
    """Delivers what was sent ``transit_ns`` after it was sent."""

    def __init__(self, clock: FakeClock, transit_ns: int = 0) -> None:
        super().__init__("fake")
        self.clock, self.transit_ns = clock, transit_ns
        self.frames: list[Frame] = []

    def wait_ready(self, timeout_s: float) -> None:
        raise TransportError("nobody")

    def send(self, frame: Frame) -> None:
        self.frames.append(Frame(**{**vars(frame), "arrived_ns": self.clock.now + self.transit_ns}))

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        if not self.frames:
            self.clock.now += round((timeout_s or 0) * 1e9)
            return None
        frame = self.frames.pop(0)
        self.clock.sleep_until(frame.arrived_ns)
        return frame

    def close(self) -> None:
        self.frames.clear()


def payload(nbytes: int, request: int = 0) -> Frame:
    return Frame((np.zeros(nbytes, np.uint8),), request=request)


def shaped(transit_ns: int = 0, wait: bool = True) -> tuple[FakeClock, ShapedSender, ShapedReceiver]:
    clock = FakeClock()
    network = FakeNetwork(clock, transit_ns)
    return clock, ShapedSender(network, Pacer(LINK, clock), wait), ShapedReceiver(network, clock)


def test_a_link_is_busy_for_the_bytes_and_delivers_after_its_latency() -> None:
    clock = FakeClock()
    pacer = Pacer(LINK, clock)
    first, second = pacer.take(1000), pacer.take(500)
    assert (first.start, first.free, first.due) == (0, 1 * MS, 6 * MS)
    assert (second.start, second.free, second.due) == (1 * MS, 1_500_000, 6_500_000)
    clock.now = 20 * MS
    third = pacer.take(0)
    assert (third.start, third.free, third.due) == (20 * MS, 20 * MS, 25 * MS)


@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**7)), min_size=1, max_size=30))
def test_slots_never_overlap_and_the_link_never_idles_with_work(steps: list[tuple[int, int]]) -> None:
    clock = FakeClock()
    pacer = Pacer(LINK, clock)
    free = 0
    for gap_ns, nbytes in steps:
        clock.now += gap_ns
        slot = pacer.take(nbytes)
        assert slot.start == max(clock.now, free)
        assert slot.free == slot.start + nbytes * 1000
        assert slot.due == slot.free + 5 * MS
        free = slot.free


def test_the_stamps_travel_and_the_frame_is_handed_over_when_due() -> None:
    clock, sender, receiver = shaped()
    sender.send(payload(2000, request=1))
    sender.send(payload(1000, request=2))
    for request, sent, due in ((1, 0, 7 * MS), (2, 2 * MS, 8 * MS)):
        frame = receiver.receive(1)
        assert frame is not None
        assert (frame.request, frame.sent_ns, frame.due_ns, clock.now) == (request, sent, due, due)
    assert (receiver.shaped, receiver.late, receiver.worst_late_s) == (2, 0, 0)


def test_send_returns_shortly_before_the_link_is_free() -> None:
    clock, sender, _ = shaped()
    for k in (1, 2, 3):
        sender.send(payload(10_000))
        assert clock.now == k * 10 * MS - 300_000


def test_send_need_not_wait() -> None:
    clock, sender, receiver = shaped(wait=False)
    for k in range(3):
        sender.send(payload(10_000, request=k))
    assert clock.now == 0
    for k in range(3):
        frame = receiver.receive(1)
        assert frame is not None
        assert (frame.request, clock.now) == (k, (k + 1) * 10 * MS + 5 * MS)


def test_channels_over_one_link_share_its_time() -> None:
    clock = FakeClock()
    pacers = {LINK: Pacer(LINK, clock)}
    networks = FakeNetwork(clock), FakeNetwork(clock)
    senders = [shape_sender(network, LINK, pacers) for network in networks]
    for sender in senders:
        sender.send(payload(10_000))
    assert [network.frames[0].sent_ns for network in networks] == [0, 10 * MS]
    other = Link("b", "a", 1e6)
    shape_sender(networks[0], other, pacers)
    assert list(pacers) == [LINK, other]


def test_a_frame_that_arrives_too_late_is_handed_over_at_once_and_counted() -> None:
    clock, sender, receiver = shaped(transit_ns=9 * MS, wait=False)
    sender.send(payload(1000))  # due at 6 ms, there at 9 ms
    sender.send(payload(9000))  # due at 15 ms, there at 9 ms
    late = receiver.receive(1)
    assert late is not None
    assert (clock.now, late.late_s) == (9 * MS, 0.003)
    in_time = receiver.receive(1)
    assert in_time is not None
    assert (clock.now, in_time.late_s) == (15 * MS, 0)
    assert (receiver.shaped, receiver.late, receiver.worst_late_s) == (2, 1, 0.003)


def test_a_frame_not_yet_due_is_held_beyond_the_time_limit() -> None:
    clock, sender, receiver = shaped(wait=False)
    sender.send(payload(1000, request=1))  # due at 6 ms
    assert receiver.receive(0.004) is None
    assert clock.now == 4 * MS
    assert receiver.receive(0.001) is None
    frame = receiver.receive(0.004)
    assert frame is not None
    assert (frame.request, clock.now) == (1, 6 * MS)
    assert receiver.receive(0.004) is None
    assert clock.now == 10 * MS


def test_a_link_used_as_it_is_passes_frames_on() -> None:
    clock = FakeClock()
    network = FakeNetwork(clock)
    sender, receiver = shape_sender(network, None), ShapedReceiver(network, clock)
    assert sender is network
    sender.send(payload(1_000_000))
    frame = receiver.receive(1)
    assert frame is not None
    assert (clock.now, frame.due_ns, frame.late_s, receiver.shaped) == (0, 0, 0, 0)


def test_the_rest_is_the_network_s() -> None:
    _, sender, receiver = shaped()
    assert sender.channel == receiver.channel == "fake"
    with pytest.raises(TransportError, match="nobody"):
        sender.wait_ready(1)
    sender.send(payload(1))
    receiver.close()
    assert receiver.receive(0) is None
    sender.close()


def test_with_the_real_clock() -> None:
    link = Link("a", "b", bandwidth_bytes_per_s=2e6, latency_s=0.002)
    hub = Hub()
    with InProcessTransport(hub) as here, InProcessTransport(hub) as there:
        receiver = ShapedReceiver(there.receiver("hop", 20))
        sender = shape_sender(here.sender("hop"), link)
        thread = threading.Thread(target=lambda: [sender.send(payload(2000, k)) for k in range(20)])
        before = CLOCK.now_ns()
        thread.start()
        free = before
        for k in range(20):
            frame = receiver.receive(30)
            assert frame is not None
            assert frame.request == k
            assert frame.sent_ns >= free
            assert frame.due_ns == frame.sent_ns + 1 * MS + 2 * MS
            assert CLOCK.now_ns() >= frame.due_ns
            free = frame.sent_ns + 1 * MS
        thread.join()
    assert receiver.shaped == 20
