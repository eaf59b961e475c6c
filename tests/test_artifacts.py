"""Files on their way to agents: sent once, resumed, checked, and refused before they come."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_agent import Place, remote_agent

from planner.chain import Boundary, TensorSpec
from planner.documents import to_data
from planner.errors import DocumentError, EdgecutError, InputError, StorageError, TransportError
from runtime import artifacts
from runtime.agent_messages import LEASE_S, Body
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.artifact_store import ArtifactStore
from runtime.artifacts import PIECE_BYTES, WINDOW, ArtifactService, send_file, send_files
from runtime.commands.options import parse_size
from runtime.in_process import InProcessTransport
from runtime.itinerary import LOAD, SegmentOrder, StageOrder, WorkOrder
from runtime.stage_service import StageService
from runtime.transport import Sender
from runtime.wire import Frame
from runtime.zenoh_transport import ZenohTransport

LIMIT = 100 << 20
LARGE = (WINDOW + 5) * PIECE_BYTES + 321


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack)


def random_file(file: Path, nbytes: int, seed: int = 0) -> tuple[Path, str]:
    content = np.random.default_rng(seed).bytes(nbytes)
    file.write_bytes(content)
    return file, hashlib.sha256(content).hexdigest()


def serve(place: Place, folder: Path, limit: int = LIMIT) -> ArtifactStore:
    store = ArtifactStore(folder, limit)
    ArtifactService(place.agent(), store)
    return store


class Frames:
    """Sees every tensor frame that an in-process network carries, and may change it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent_bytes = 0
        self.change: Callable[[Frame], Frame] = lambda frame: frame
        plain = InProcessTransport._sender

        def wrapped(transport: InProcessTransport, channel: str, urgent: bool) -> Sender:
            sender = plain(transport, channel, urgent)
            if channel.startswith("artifact/"):
                send = sender.send

                def seen(frame: Frame) -> None:
                    self.sent_bytes += frame.nbytes
                    send(self.change(frame))

                sender.send = seen
            return sender

        patch.setattr(InProcessTransport, "_sender", wrapped)


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Frames:
    return Frames(monkeypatch)


@pytest.mark.parametrize("nbytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, LARGE])
def test_a_file_arrives_whole_and_once(place: Place, tmp_path: Path, frames: Frames, nbytes: int) -> None:
    store, client, told = serve(place, tmp_path / "store"), place.client(), list[tuple[int, int]]()
    file, digest = random_file(tmp_path / "file", nbytes)
    send_file(client, file, digest, "", lambda sent, total: told.append((sent, total)))
    with store.hold(digest) as held:
        assert held.read_bytes() == file.read_bytes()
    assert told[-1] == (nbytes, nbytes)
    assert told == sorted(told)
    send_file(client, file, digest, "")
    assert frames.sent_bytes == nbytes


def test_only_what_is_missing_is_sent(place: Place, tmp_path: Path, frames: Frames) -> None:
    serve(place, tmp_path / "store")
    client, told = place.client(), list[tuple[int, int]]()
    files = {}
    for k in range(4):
        file, digest = random_file(tmp_path / f"{k}", 1000 * (k + 1), seed=k)
        files[digest] = file
    send_files(client, dict(list(files.items())[1:2]), "")
    send_files(client, files, "", lambda sent, total: told.append((sent, total)))
    assert frames.sent_bytes == 10_000
    assert told[-1] == (8_000, 8_000)


def test_several_senders_of_one_file_send_it_once(place: Place, tmp_path: Path, frames: Frames) -> None:
    store, (file, digest) = serve(place, tmp_path / "store"), random_file(tmp_path / "file", LARGE)
    threads = [threading.Thread(target=send_file, args=(place.client(), file, digest, "")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.has(digest)
    assert frames.sent_bytes == LARGE


def test_one_who_breaks_off_is_taken_over_from(place: Place, tmp_path: Path, frames: Frames) -> None:
    store, (file, digest) = serve(place, tmp_path / "store"), random_file(tmp_path / "file", LARGE)
    begun = threading.Event()
    first, second, told = place.client(), place.client(), list[int]()

    def break_off(sent: int, total: int) -> None:
        if sent > 2 * PIECE_BYTES:
            begun.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send_file(first, file, digest, "", break_off)
    assert begun.is_set()
    send_file(second, file, digest, "", lambda sent, total: told.append(sent))
    assert store.has(digest)
    assert min(sent for sent in told if sent) > 2 * PIECE_BYTES


def flip(frame: Frame) -> Frame:
    changed = frame.tensors[0].copy()
    changed[len(changed) // 2] ^= 1
    return Frame((changed,), marks=frame.marks)


def test_what_was_damaged_on_the_way_is_sent_again(place: Place, tmp_path: Path, frames: Frames) -> None:
    store, (file, digest) = serve(place, tmp_path / "store"), random_file(tmp_path / "file", 3000)
    seen = list[Frame]()

    def once(frame: Frame) -> Frame:
        seen.append(frame)
        return flip(frame) if len(seen) == 1 else frame

    frames.change = once
    send_file(place.client(), file, digest, "")
    assert (store.has(digest), len(seen)) == (True, 2)


def test_what_is_always_damaged_is_given_up(place: Place, tmp_path: Path, frames: Frames) -> None:
    store, (file, digest) = serve(place, tmp_path / "store"), random_file(tmp_path / "file", 3000)
    frames.change = flip
    with pytest.raises(TransportError, match="arrived with another content"):
        send_file(place.client(), file, digest, "")
    assert not store.has(digest)
    assert store.nbytes == 0


def test_a_file_that_is_another_is_named(place: Place, tmp_path: Path, frames: Frames) -> None:
    serve(place, tmp_path / "store")
    client, (file, digest) = place.client(), random_file(tmp_path / "file", 3000)
    random_file(file, 3000, seed=1)
    with pytest.raises(DocumentError, match="differs from its digest") as found:
        send_file(client, file, digest, "make it again")
    assert found.value.remedy == "make it again"
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        send_file(client, tmp_path / "none", digest, "")
    file, digest = random_file(tmp_path / "file", LARGE)
    with pytest.raises(DocumentError, match="has become shorter"):
        send_file(client, file, digest, "", lambda sent, total: file.write_bytes(b"x"))


def test_what_does_not_fit_is_refused_before_it_comes(place: Place, tmp_path: Path, frames: Frames) -> None:
    store = serve(place, tmp_path / "store", 2_000_000)
    client, files = place.client(), {}
    for k in range(3):
        file, digest = random_file(tmp_path / f"{k}", 900_000, seed=k)
        files[digest] = file
    with pytest.raises(
        StorageError, match=r"3 artifacts have 2\.7 MB, the cache of nano takes 2\.0"
    ) as found:
        send_files(client, files, "")
    assert found.value.remedy == "start that agent with --cache-limit 3MB or more"
    assert frames.sent_bytes == 0
    first, second, third = files
    send_files(client, {digest: files[digest] for digest in (first, second)}, "")
    with store.hold(first), store.hold(second), pytest.raises(StorageError, match="are in use"):
        send_file(client, files[third], third, "")
    assert frames.sent_bytes == 1_800_000


@pytest.mark.parametrize(
    "body",
    [
        {"digest": "../../etc/passwd", "nbytes": 6},
        {"digest": "a" * 63, "nbytes": 6},
        {"digest": "a" * 64, "nbytes": -1},
        {"digest": "a" * 64, "nbytes": 1 << 60},
        {"digest": "a" * 64, "nbytes": "6"},
        {"digest": "a" * 64, "nbytes": 6, "path": "/tmp/x"},
        {"digest": "a" * 64},
    ],
)
def test_an_artifact_that_is_none_is_refused(place: Place, tmp_path: Path, body: Body) -> None:
    store, client = serve(place, tmp_path / "store"), place.client()
    for order, asked in (("put", body), ("has", {"artifacts": [body]})):
        with pytest.raises(InputError):
            client.request(order, asked)
    assert store.nbytes == 0


def uint8(nbytes: int) -> np.ndarray:
    return np.ones(nbytes, np.uint8)


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        (Frame((uint8(10),), marks=(1,)), "expected the piece at byte 0"),
        (Frame((uint8(10),)), "expected the piece at byte 0"),
        (Frame((uint8(10), uint8(10)), marks=(0,)), "expected the piece at byte 0"),
        (Frame((uint8(10).reshape(2, 5),), marks=(0,)), "expected the piece at byte 0"),
        (Frame((uint8(10).view(np.int8),), marks=(0,)), "expected the piece at byte 0"),
        (Frame(body={}, marks=(0,)), "expected the piece at byte 0"),
        (Frame((uint8(101),), marks=(0,)), "101 bytes came of an artifact of 100"),
        (Frame((uint8(2 * PIECE_BYTES),), marks=(0,)), "at most"),
    ],
)
def test_a_piece_that_is_none_is_refused(place: Place, tmp_path: Path, piece: Frame, said: str) -> None:
    store, client = serve(place, tmp_path / "store"), place.client()
    body, sent = {"digest": "a" * 64, "nbytes": 100}, list[str]()

    def send(arrival: Body) -> None:
        if not sent:
            sent.append(arrival["channel"])
            client.transport.sender(f"artifact/nano/{sent[0]}").send(piece)

    with pytest.raises(TransportError, match=said):
        client.request("put", body, progress=send)
    assert store.nbytes == 0


def test_pieces_beyond_the_credit_are_refused(place: Place, tmp_path: Path) -> None:
    serve(place, tmp_path / "store")
    client, body = place.client(), {"digest": "a" * 64, "nbytes": 1 << 20}

    def flood(arrival: Body) -> None:
        sender = client.transport.sender(f"artifact/nano/{arrival['channel']}")
        for k in range(100_000):
            sender.send(Frame((uint8(1),), marks=(k,)))

    with pytest.raises(TransportError, match=r"a frame arrived while|has no receiver"):
        client.request("put", body, progress=flood)


@pytest.mark.parametrize("arrival", [{"channel": "../x", "nbytes": 0}, {"channel": "", "nbytes": -1}, {}])
def test_an_agent_cannot_choose_where_pieces_go(place: Place, tmp_path: Path, arrival: Body) -> None:
    file, digest = random_file(tmp_path / "file", 10)

    def put(body: Body, progress: Any) -> Body:
        progress(arrival)
        return {}

    place.agent(has=lambda body, progress: {"digests": [digest]}, put=put)
    with pytest.raises(InputError, match="answer of nano"):
        send_file(place.client(), file, digest, "")


def test_pieces_that_do_not_come_end_the_order(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "STALL_TIMEOUT_S", 0.3)
    store, (file, digest) = serve(place, tmp_path / "store"), random_file(tmp_path / "file", 3000)
    client = place.client()
    with pytest.raises(TransportError, match=r"nano: no piece came for 0\.3 s"):
        client.request("put", {"digest": digest, "nbytes": 3000})
    send_file(client, file, digest, "")
    assert store.has(digest)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("1B", 1), ("500MB", 500_000_000), ("7.5 GB", 7_500_000_000), ("8GiB", 8 << 30)]
)
def test_a_size_is_read_in_its_unit(text: str, nbytes: int) -> None:
    assert parse_size(None, None, text) == nbytes


def test_a_bundle_that_was_not_sent_is_not_loaded(place: Place, tmp_path: Path) -> None:
    agent = place.agent()
    StageService("nano", agent.transport, ArtifactStore(tmp_path, LIMIT)).serve(agent)
    shape = Boundary((TensorSpec((1,), "float32"),))
    order = SegmentOrder(0, 0, shape, (StageOrder("a" * 64, "onnxruntime", shape, shape),), None)
    work = WorkOrder("0" * 16, 1, 1.0, 1, (order,))
    for _ in range(2):  # nothing of the first stays
        with pytest.raises(StorageError, match="has no artifact aaaaaaaaaaaa"):
            place.client().request(LOAD, to_data(work))


# --- over Zenoh: processes that are killed, connections that are cut


def client_of(stack: ExitStack, address: str) -> AgentClient:
    transport = stack.enter_context(ZenohTransport([address], lease_s=LEASE_S))
    return AgentClient("nano", stack.enter_context(AgentNetwork(transport)), address)


def part_bytes(folder: Path) -> int:
    sizes = [file.stat().st_size for file in (folder / "artifacts").glob("*.part")]
    return sizes[0] if sizes else 0


SENDER = """
import sys
from pathlib import Path
from runtime.agents import AgentClient
from runtime.agent_network import AgentNetwork
from runtime.artifacts import send_file
from runtime.zenoh_transport import ZenohTransport
file, digest, address = sys.argv[1:]
with ZenohTransport([address]) as transport, AgentNetwork(transport) as network:
    send_file(AgentClient("nano", network, address), Path(file), digest, "")
"""
HUGE = 200 << 20


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    return random_file(tmp_path_factory.mktemp("huge") / "file", HUGE)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = Path(__file__).parent.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        folder = tmp_path_factory.mktemp("nano")
        with remote_agent(folder) as (_, address):
            yield folder, address


def test_a_killed_sender_is_resumed(nano: tuple[Path, str], huge: tuple[Path, str]) -> None:
    folder, address = nano
    file, digest = huge
    kill_at = random.randrange(HUGE * 3 // 4)
    with subprocess.Popen([sys.executable, "-c", SENDER, str(file), digest, address]) as sender:
        while part_bytes(folder) <= kill_at:
            assert sender.poll() is None
        sender.send_signal(signal.SIGKILL)
    reached, told = part_bytes(folder), list[int]()
    with ExitStack() as stack:
        send_file(client_of(stack, address), file, digest, "", lambda sent, total: told.append(sent))
    assert min(sent for sent in told if sent) >= reached > kill_at
    assert hashlib.sha256((folder / "artifacts" / digest).read_bytes()).hexdigest() == digest


def test_a_killed_agent_that_comes_back_is_sent_the_rest(
    tmp_path: Path, huge: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    file, digest = huge
    told, failed = list[int](), list[EdgecutError]()
    kill_at = random.randrange(HUGE * 3 // 4)

    def send(client: AgentClient) -> None:
        try:
            send_file(client, file, digest, "", lambda sent, total: told.append(sent))
        except EdgecutError as error:
            failed.append(error)

    with ExitStack() as stack:
        with remote_agent(tmp_path) as (agent, address):
            client = client_of(stack, address)
            thread = threading.Thread(target=send, args=(client,))
            thread.start()
            while part_bytes(tmp_path) <= kill_at:
                assert not failed
            agent.send_signal(signal.SIGKILL)
        reached = part_bytes(tmp_path)
        with remote_agent(tmp_path, address=address):
            thread.join()
            assert failed == []
            assert told == sorted(told)
            assert told[-1] == HUGE
            assert reached > kill_at
            with ArtifactStore(tmp_path / "artifacts").hold(digest) as held:
                assert held.stat().st_size == HUGE


class Relay:
    """A cable to ``target`` that can be cut."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp/").rpartition(":")
        self._target = host, int(port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp/127.0.0.1:{self._server.getsockname()[1]}"
        self._ends: list[socket.socket] = []
        self._whole = True
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        self._whole = False
        for end in self._ends:
            hang_up(end)

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        hang_up(self._server)
        for thread in self._threads:
            thread.join(5)
        for each in (self._server, *self._ends):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._ends += [near, far]
            for one, other in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._forward, args=(one, other), daemon=True))
                self._threads[-1].start()

    @staticmethod
    def _forward(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        hang_up(one)
        hang_up(other)


def hang_up(end: socket.socket) -> None:
    with suppress(OSError):  # the other side was first
        end.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_is_cut_is_waited_for(nano: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = nano
    file, digest = random_file(tmp_path / "file", HUGE, seed=5)
    relay, told = Relay(address), list[int]()
    cuts = sorted(random.sample(range(HUGE * 3 // 4), 2))

    def cut(sent: int, total: int) -> None:
        told.append(sent)
        if cuts and sent > cuts[0]:
            cuts.pop(0)
            relay.cut()
            threading.Timer(0.3, relay.mend).start()

    with ExitStack() as stack:
        stack.callback(relay.close)
        send_file(client_of(stack, relay.address), file, digest, "", cut)
    assert cuts == []
    assert told == sorted(told)
    assert hashlib.sha256((folder / "artifacts" / digest).read_bytes()).hexdigest() == digest
