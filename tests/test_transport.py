"""Both transports keep the same promises; Zenoh also between real processes."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np
import pytest

from planner.errors import TransportError
from runtime.in_process import Hub, InProcessTransport
from runtime.transport import Mailbox, Receiver, Sender, Transport
from runtime.wire import Frame, encode
from runtime.zenoh_transport import _CHUNK, ZenohTransport, _Assembler, _chunks

PATIENCE_S = 30.0

Joining = Callable[[], Transport]


@pytest.fixture(params=["in-process", "zenoh"])
def join(request: pytest.FixtureRequest) -> Iterator[Joining]:
    """Makes one more transport on the same network; the first is the coordinator's."""
    with ExitStack() as stack:
        made: list[ZenohTransport] = []
        hub = Hub()

        def new() -> Transport:
            if request.param == "in-process":
                return stack.enter_context(InProcessTransport(hub))
            made.append(stack.enter_context(ZenohTransport(made[0].endpoint if made else None)))
            return made[-1]

        yield new


def numbered(count: int) -> list[Frame]:
    return [Frame((np.full(3, k, np.int32),), request=k, marks=(k,)) for k in range(count)]


def take(receiver: Receiver) -> Frame:
    frame = receiver.receive(PATIENCE_S)
    assert frame is not None
    return frame


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process brings about."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def refused(sender: Sender) -> bool:
    try:
        sender.send(Frame())
    except TransportError as error:
        return "has no receiver" in str(error)
    return False


def test_frames_arrive_once_in_order_and_whole(join: Joining) -> None:
    here, there = join(), join()
    sender, receiver = here.sender("hop/1/edge-server"), there.receiver("hop/1/edge-server", 300)
    sender.wait_ready(PATIENCE_S)
    before = time.monotonic_ns()
    for frame in numbered(300):
        sender.send(frame)
    for k in range(300):
        frame = take(receiver)
        assert (frame.request, frame.marks) == (k, (k,))
        assert before <= frame.arrived_ns <= time.monotonic_ns()
        np.testing.assert_array_equal(frame.tensors[0], np.full(3, k, np.int32))
    assert receiver.receive(0) is None
    assert receiver.receive(0.001) is None


def test_several_senders_share_a_channel(join: Joining) -> None:
    coordinator, *workers = join(), join(), join(), join()
    receiver = coordinator.receiver("results", 100)
    senders = [worker.sender("results", urgent=True) for worker in workers]
    big = np.zeros(1_500_000, np.uint8)  # chunks of different senders interleave

    def work(place: int) -> None:
        senders[place].wait_ready(PATIENCE_S)
        for k in range(10):
            senders[place].send(Frame((big + place,), request=k, attempt=place))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for _ in range(30):
        frame = take(receiver)
        assert (frame.tensors[0] == frame.attempt).all()
        found[frame.attempt].append(frame.request)
    for thread in threads:
        thread.join()
    assert found == {place: list(range(10)) for place in range(3)}


def test_workers_reach_each_other_directly(join: Joining) -> None:
    coordinator, one, two = join(), join(), join()
    sender, receiver = one.sender("hop/2/two"), two.receiver("hop/2/two", 1)
    sender.wait_ready(PATIENCE_S)
    coordinator.close()
    sender.send(Frame(body={"from": "one"}))
    assert take(receiver).body == {"from": "one"}


def test_a_large_frame_arrives_whole_and_may_be_written_to(join: Joining) -> None:
    here, there = join(), join()
    sender, receiver = here.sender("large"), there.receiver("large", 1)
    sender.wait_ready(PATIENCE_S)
    array = np.arange(12_500_000, dtype=np.int64)  # 100 MB
    thread = threading.Thread(target=lambda: sender.send(Frame((array, np.array(1)), request=1)))
    thread.start()
    frame = take(receiver)
    thread.join()
    np.testing.assert_array_equal(frame.tensors[0], array)
    assert frame.tensors[1] == 1
    frame.tensors[0][0] = -1
    assert array[0] == 0


def test_the_sender_may_reuse_its_array_at_once(join: Joining) -> None:
    here, there = join(), join()
    sender, receiver = here.sender("reuse"), there.receiver("reuse", 20)
    sender.wait_ready(PATIENCE_S)
    array = np.zeros(100_000, np.float32)
    for k in range(20):
        array[:] = k
        sender.send(Frame((array,), request=k))
    array[:] = -1
    for k in range(20):
        assert (take(receiver).tensors[0] == k).all()


def test_overflow_surfaces_after_what_was_queued(join: Joining) -> None:
    here, there = join(), join()
    sender, receiver = here.sender("full"), there.receiver("full", 2)
    assert isinstance(receiver, Mailbox)
    sender.wait_ready(PATIENCE_S)
    for frame in numbered(10):
        sender.send(frame)
    until(lambda: receiver._error)
    assert [take(receiver).request, take(receiver).request] == [0, 1]
    for _ in range(2):
        with pytest.raises(TransportError, match="channel full: a frame arrived while 2 were waiting"):
            receiver.receive(PATIENCE_S)


def test_a_channel_without_a_receiver_says_so(join: Joining) -> None:
    here, there = join(), join()
    sender = here.sender("nobody")
    with pytest.raises(TransportError, match=r"channel nobody has no receiver after 0\.01 s"):
        sender.wait_ready(0.01)
    with pytest.raises(TransportError, match="channel nobody has no receiver"):
        sender.send(Frame())
    receiver = there.receiver("nobody", 1)
    sender.wait_ready(PATIENCE_S)
    sender.send(Frame(request=3))
    assert take(receiver).request == 3


def test_a_receiver_that_left_is_missed_and_may_come_back(join: Joining) -> None:
    here, there = join(), join()
    sender = here.sender("again")
    for request in range(3):
        receiver = there.receiver("again", 1)
        sender.wait_ready(PATIENCE_S)
        sender.send(Frame(request=request))
        assert take(receiver).request == request
        receiver.close()
        until(lambda: refused(sender))


def test_closing_ends_a_waiting_receive(join: Joining) -> None:
    transport = join()
    receiver = transport.receiver("quiet", 1)
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def wait() -> None:
        try:
            receiver.receive()
        except TransportError as error:
            ended.put(str(error))

    threading.Thread(target=wait, daemon=True).start()
    transport.close()
    assert ended.get(timeout=PATIENCE_S) == "channel quiet was closed"
    with pytest.raises(TransportError, match="was closed"):
        receiver.receive(0)


def test_one_receiver_per_channel(join: Joining) -> None:
    transport = join()
    transport.receiver("mine", 1)
    with pytest.raises(TransportError, match="channel mine has a receiver already"):
        transport.receiver("mine", 1)


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/*", "a b", "a/$x", "a#", "a?b"])
def test_a_name_that_means_something_to_the_network_is_refused(join: Joining, name: str) -> None:
    transport = join()
    with pytest.raises(TransportError, match="use letters, digits"):
        transport.sender(name)
    with pytest.raises(TransportError, match="use letters, digits"):
        transport.receiver(name, 1)
    with pytest.raises(TransportError, match="use letters, digits"):
        transport.declare_alive(name)


def test_who_is_alive(join: Joining) -> None:
    coordinator, early, late = join(), join(), join()
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    early.declare_alive("early")
    coordinator.watch(lambda name, alive: seen.put((name, alive)))
    assert seen.get(timeout=PATIENCE_S) == ("early", True)
    late.declare_alive("late")
    assert seen.get(timeout=PATIENCE_S) == ("late", True)
    early.close()
    assert seen.get(timeout=PATIENCE_S) == ("early", False)
    late.close()
    assert seen.get(timeout=PATIENCE_S) == ("late", False)


def test_a_malformed_frame_is_refused_and_the_next_one_is_not() -> None:
    mailbox = Mailbox("a", 2, lambda: None)
    mailbox.deliver(b"nonsense")
    mailbox.deliver(encode(Frame(request=4)))
    with pytest.raises(TransportError, match="malformed frame"):
        mailbox.receive(0)
    assert take(mailbox).request == 4
    with pytest.raises(ValueError, match="at least 1 frame"):
        Mailbox("a", 0, lambda: None)


class Sample:
    """What Zenoh hands to a subscriber."""

    class Bytes(bytes):
        def to_bytes(self) -> bytes:
            return self

    def __init__(self, payload: bytes, attachment: bytes | None) -> None:
        self.payload = Sample.Bytes(payload)
        self.attachment = None if attachment is None else Sample.Bytes(attachment)


def deliver(*chunks: tuple[bytes, bytes | None]) -> Mailbox:
    mailbox = Mailbox("a", 10, lambda: None)
    assembler = _Assembler(mailbox)
    for payload, attachment in chunks:
        assembler.take(Sample(payload, attachment))
    return mailbox


def test_chunks_of_several_frames_interleave() -> None:
    frames = [bytes(encode(frame)) for frame in numbered(2)]
    pieces = [
        (frame[start : start + 50], _CHUNK.pack(stream, len(frame), start))
        for start in range(0, len(frames[0]), 50)
        for stream, frame in enumerate(frames)
    ]
    mailbox = deliver(*pieces, (frames[0], None))
    assert [take(mailbox).request for _ in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"x" * 10, _CHUNK.pack(1, 30, 10))],
        [(b"x" * 10, _CHUNK.pack(1, 30, 0)), (b"x" * 10, _CHUNK.pack(1, 30, 20))],
        [(b"x" * 10, _CHUNK.pack(1, 30, 0)), (b"x" * 10, _CHUNK.pack(1, 40, 10))],
        [(b"x" * 10, _CHUNK.pack(1, 30, 0)), (b"x" * 10, _CHUNK.pack(2, 30, 10))],
        [(b"x" * 10, _CHUNK.pack(1, 30, 0)), (b"x" * 21, _CHUNK.pack(1, 30, 10))],
        [(b"x" * 10, _CHUNK.pack(1, 1 << 60, 0))],
        [(b"x" * 10, _CHUNK.pack(1, 5, 2**63))],
        [(b"", None)],
        [(b"x", b"short")],
        [*((b"x", _CHUNK.pack(stream, 2, 0)) for stream in range(17)), (b"x", _CHUNK.pack(0, 2, 1))],
    ],
)
def test_chunks_that_do_not_fit_are_refused_and_the_next_frame_is_not(
    chunks: list[tuple[bytes, bytes | None]],
) -> None:
    mailbox = deliver(*chunks, (bytes(encode(Frame(request=4))), None))
    with pytest.raises(TransportError, match="channel a: "):
        mailbox.receive(0)
    assert take(mailbox).request == 4
    assert not mailbox.ended


def test_refusals_take_no_more_room_than_frames() -> None:
    mailbox = deliver(*[(b"x", b"short")] * 1000)
    for _ in range(10):
        with pytest.raises(TransportError):
            mailbox.receive(0)
    assert mailbox.receive(0) is None


def test_chunks_cover_every_byte_once() -> None:
    parts = [np.full(size, size % 251, np.uint8).data for size in (1, 700_000, 3, 524_288, 64)]
    chunks = list(_chunks(parts))
    assert b"".join(chunks) == b"".join(parts)
    assert {len(chunk) for chunk in chunks[:-1]} == {524_288}


def test_a_coordinator_that_is_not_there() -> None:
    with pytest.raises(TransportError, match=r"cannot connect to tcp/127\.0\.0\.1:9"):
        ZenohTransport("tcp/127.0.0.1:9", timeout_s=0.2)


def test_an_address_that_is_taken() -> None:
    with ZenohTransport() as first, pytest.raises(TransportError, match="cannot listen on"):
        ZenohTransport(listen=first.endpoint)


WORKER = """
import sys
from runtime.zenoh_transport import ZenohTransport

with ZenohTransport(sys.argv[1]) as transport:
    back = transport.sender("back")
    there = transport.receiver("there", 8)
    back.wait_ready(30)
    transport.declare_alive("echo")
    while (frame := there.receive(60)) is not None:
        back.send(frame)
"""


def test_another_process_answers_and_its_death_is_seen() -> None:
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    with ZenohTransport() as transport:
        back, there = transport.receiver("back", 8), transport.sender("there")
        transport.watch(lambda name, alive: seen.put((name, alive)))
        with subprocess.Popen([sys.executable, "-c", WORKER, transport.endpoint]) as worker:
            try:
                assert seen.get(timeout=PATIENCE_S) == ("echo", True)
                there.wait_ready(PATIENCE_S)
                for k, size in enumerate((1, 60_000, 3_000_000)):
                    array = np.arange(size, dtype=np.float32)
                    there.send(Frame((array,), request=k))
                    frame = take(back)
                    assert frame.request == k
                    np.testing.assert_array_equal(frame.tensors[0], array)
            finally:
                worker.kill()
        assert seen.get(timeout=PATIENCE_S) == ("echo", False)
        until(lambda: refused(there))
