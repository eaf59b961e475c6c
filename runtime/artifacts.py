"""Files to an agent, by their SHA-256: what is there is not sent, what broke off goes on where it ended.

::

    workstation                                  agent
        │ ── has: digests, sizes ─────────────────► │  will they fit?
        │ ◄─────────────────────── which are missing │
        │ ── put: digest, size ───────────────────► │  room is made, or the order refused
        │ ◄─────── arrival: channel, bytes it has ── │
        │ ══ pieces ══════════════════════════════► │  channel artifact/NAME/ID
        │ ◄────────────── arrival: bytes it has ──── │  credit: at most WINDOW pieces are under way
        │ ◄──────────────────────────────── result ─ │  whole, checked and on disk

A piece is one tensor of uint8; its mark is its place in the file. Of several who send the same file one
sends, and the others wait for it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from planner.documents import document, file_digest, from_data, to_data
from planner.errors import DocumentError, GoneError, StoppedError, StorageError, TransportError
from runtime.agent import Agent
from runtime.agent_messages import Body
from runtime.agents import AgentClient
from runtime.artifact_store import ArtifactStore, Incoming, check_digest
from runtime.orders import Progress
from runtime.transport import Receiver, Sender
from runtime.wire import Frame

PIECE_BYTES = (1 << 19) - (1 << 12)  # with its header less than a chunk of the transport: never put together
WINDOW = 16
STALL_TIMEOUT_S = 30.0  # no piece for so long: they were lost, or whoever sends them hangs
DISK_TIMEOUT_S = 300.0  # a slow disk that writes what it held back says nothing meanwhile
RESUME_TIMEOUT_S = 30.0  # a connection that is cut comes back, and an agent that died is started again
READY_TIMEOUT_S = 10.0
_POLL_S = 0.2
_PAUSE_S = 0.2
_MAX_RESTARTS = 2
_MAX_PIECE_BYTES = PIECE_BYTES + (1 << 10)

Told = Callable[[int, int], None]


@document()
class Artifact:
    """A file of ``nbytes``."""

    digest: str
    nbytes: int

    def __post_init__(self) -> None:
        check_digest(self.digest)
        if not 0 <= self.nbytes < 1 << 50:
            raise ValueError(f"a file has 0 to {1 << 50} bytes, found {self.nbytes}")


@document()
class Wanted:
    """Files that belong together: all of them are needed at once."""

    artifacts: tuple[Artifact, ...]


@document()
class Missing:
    """Which of them are not there."""

    digests: tuple[str, ...]


@document()
class Arrival:
    """How many bytes there are, and on which channel the next are awaited; "": another sends them."""

    channel: str
    nbytes: int

    def __post_init__(self) -> None:
        if not re.fullmatch("([0-9a-f]{16})?", self.channel) or self.nbytes < 0:
            raise ValueError("a channel has 16 hexadecimal digits or none, and bytes are not negative")


class ArtifactService:
    """The agent's side: keeps in ``store`` what is sent."""

    def __init__(self, agent: Agent, store: ArtifactStore) -> None:
        self._agent, self._store = agent, store
        agent.handle("has", self._has)
        agent.handle("put", self._put)

    def _has(self, body: Body, progress: Progress) -> Body:
        wanted = {each.digest: each.nbytes for each in from_data(Wanted, body, "has").artifacts}
        limit = self._store.limit_bytes
        if (total := sum(wanted.values())) > limit:
            raise StorageError(
                f"{len(wanted)} artifacts have {total / 1e6:.1f} MB, the cache of {self._agent.name} takes "
                f"{limit / 1e6:.1f} MB",
                f"start that agent with --cache-limit {-(-total // 10**6)}MB or more",
            )
        missing = Missing(tuple(digest for digest in wanted if not self._store.has(digest)))
        return dict(to_data(missing))

    def _put(self, body: Body, progress: Progress) -> Body:
        artifact = from_data(Artifact, body, "put")

        def told(nbytes: int) -> None:
            progress(to_data(Arrival("", nbytes)))

        while not self._store.has(artifact.digest):
            incoming = self._store.receive(artifact.digest, artifact.nbytes, told)
            if incoming is not None:
                with incoming:
                    self._take(incoming, progress)
                break
            told(0)
            time.sleep(_POLL_S)
        return {}

    def _take(self, incoming: Incoming, progress: Progress) -> None:
        channel = secrets.token_hex(8)
        name = _channel(self._agent.name, channel)
        receiver = self._agent.transport.receiver(name, WINDOW + 1, _MAX_PIECE_BYTES)

        def tell() -> None:
            progress(to_data(Arrival(channel, incoming.offset)))

        try:
            tell()
            while incoming.offset < incoming.nbytes:
                incoming.write(self._next(receiver, incoming.offset, tell))
                tell()
        finally:
            receiver.close()
        incoming.finish()

    def _next(self, receiver: Receiver, offset: int, tell: Callable[[], None]) -> memoryview:
        deadline = time.monotonic() + STALL_TIMEOUT_S
        while (frame := receiver.receive(_POLL_S)) is None:
            tell()
            if time.monotonic() > deadline:
                raise TransportError(
                    f"{self._agent.name}: no piece came for {STALL_TIMEOUT_S:g} s", "try again"
                )
        piece = frame.tensors[0] if len(frame.tensors) == 1 else None
        if piece is None or piece.dtype != np.uint8 or piece.ndim != 1 or frame.marks != (offset,):
            shown = " + ".join(map(str, frame.specs)) or "no tensor"
            raise TransportError(f"expected the piece at byte {offset}, found {shown} at {frame.marks}")
        return piece.data


def send_files(
    client: AgentClient,
    files: Mapping[str, Path],
    remedy: str,
    told: Told = lambda sent, total: None,
    patience_s: float = RESUME_TIMEOUT_S,
) -> None:
    """Give the agent these files, by their SHA-256, unless it has them.

    ``told`` gets how many bytes of how many have arrived, at least every few seconds; what it raises ends
    the sending, which then resumes at the next call. A connection that is cut, and an agent that is
    started again, are waited for as long as ``patience_s``. Raises ``DocumentError``, with ``remedy``, for
    a file that is not what its digest says, ``StorageError`` where the agent has no room.
    """
    artifacts = {}
    for digest, file in files.items():
        try:
            artifacts[digest] = Artifact(digest, file.stat().st_size)
        except OSError as error:
            raise DocumentError(file, "", f"cannot be read: {error.strerror}", remedy) from None
    answer = client.request("has", to_data(Wanted(tuple(artifacts.values()))))
    missing = from_data(Missing, answer, f"answer of {client.name}").digests
    sending = [artifacts[digest] for digest in artifacts if digest in missing]
    total = sum(artifact.nbytes for artifact in sending)
    before = 0
    for artifact in sending:
        base = before
        with _Sending(client, files[artifact.digest], artifact, remedy, patience_s) as one:
            one.run(lambda nbytes, base=base: told(base + nbytes, total))  # type: ignore[misc]
        before += artifact.nbytes


def send_file(
    client: AgentClient, file: Path, digest: str, remedy: str, told: Told = lambda sent, total: None
) -> None:
    """Give the agent this file unless it has it; see ``send_files``."""
    send_files(client, {digest: file}, remedy, told)


class _Sending:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self, client: AgentClient, file: Path, artifact: Artifact, remedy: str, patience_s: float
    ) -> None:
        self._client, self._file, self._artifact, self._remedy = client, file, artifact, remedy
        self._patience_s = patience_s
        self._sender: Sender | None = None
        self._sent = self._arrived = self._restarts = 0
        try:
            self._stream: IO[bytes] = file.open("rb")
        except OSError as error:
            raise self._changed(f"cannot be read: {error.strerror}") from None

    def __enter__(self) -> _Sending:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()
        self._stream.close()

    def run(self, told: Callable[[int], None]) -> None:
        moved_s = time.monotonic()
        while True:
            before = self._arrived

            def hear(body: Body) -> None:
                self._hear(from_data(Arrival, body, f"answer of {self._client.name}"))
                told(self._arrived)

            try:
                self._client.request("put", to_data(self._artifact), timeout_s=DISK_TIMEOUT_S, progress=hear)
                return
            except (TransportError, GoneError, StoppedError):
                self._check_file()
                now = time.monotonic()
                moved_s = now if self._arrived != before else moved_s
                if self._restarts > _MAX_RESTARTS or now - moved_s >= self._patience_s:
                    raise
            finally:
                self._hang_up()
            told(self._arrived)
            time.sleep(_PAUSE_S)

    def _hear(self, arrival: Arrival) -> None:
        """Send as many pieces as there is credit for."""
        if not arrival.channel:
            return
        if self._sender is None and arrival.nbytes < self._artifact.nbytes:
            self._sender = self._client.transport.sender(_channel(self._client.name, arrival.channel))
            self._sender.wait_ready(READY_TIMEOUT_S)
            self._restarts += arrival.nbytes < self._arrived
            self._sent = self._stream.seek(arrival.nbytes)
        self._arrived = arrival.nbytes
        while self._sender and self._sent < min(self._arrived + WINDOW * PIECE_BYTES, self._artifact.nbytes):
            try:
                piece = self._stream.read(min(PIECE_BYTES, self._artifact.nbytes - self._sent))
            except OSError as error:
                raise self._changed(f"cannot be read: {error.strerror}") from None
            if not piece:
                raise self._changed("has become shorter")
            self._sender.send(Frame((np.frombuffer(piece, np.uint8),), marks=(self._sent,)))
            self._sent += len(piece)

    def _check_file(self) -> None:
        """What was sent whole and not taken may be another file than it should."""
        if self._sent == self._artifact.nbytes and file_digest(self._file) != self._artifact.digest:
            raise self._changed("its content differs from its digest")

    def _changed(self, problem: str) -> DocumentError:
        return DocumentError(self._file, "", problem, self._remedy)

    def _hang_up(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None


def _channel(name: str, channel: str) -> str:
    return f"artifact/{name}/{channel}"
