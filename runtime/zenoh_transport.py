"""Eclipse Zenoh between processes and machines.

What sessions are to each other: see ``runtime.roles``.

A frame larger than a chunk is cut into chunks, each with its place in the frame as attachment; the
receiver puts them together while the later ones are still under way.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import TransportError
from runtime import roles
from runtime.access import ALIVE, FRAMES, settings
from runtime.credentials import WORKSTATION
from runtime.handshake import check_peer
from runtime.ports import listening_error
from runtime.transport import Mailbox, Sender, Transport, Watcher
from runtime.wire import Frame, encode_parts

if TYPE_CHECKING:
    import zenoh

    from runtime.credentials import Credentials

# Copies at both ends overlap with the transfer: 12 MB in 6 ms, against 9 ms in one piece.
_CHUNK_BYTES = 1 << 19
_CHUNK = struct.Struct("<QQQ")  # stream (one sender), bytes of the whole frame, offset of this chunk
_MAX_STREAMS = 16
_ACCEPT_TIMEOUT_MS = 2000  # half-open connections keep newcomers out for so long

_SETTINGS = {
    "adminspace/enabled": True,  # it tells which port the system chose
    # Loopback stands for a network, and shared memory would bypass it.
    "transport/shared_memory/enabled": False,
    "transport/link/tx/queue/size/data": 16,
    "transport/link/rx/buffer_size": 1 << 20,
    # A larger message than a chunk is nobody's of ours: it is dropped before it is put together.
    "transport/link/rx/max_message_size": 2 * _CHUNK_BYTES,
    "transport/unicast/accept_timeout": _ACCEPT_TIMEOUT_MS,
}


class ZenohTransport(Transport):
    """A Zenoh session. ``endpoint`` is where it listens: what others get as ``connect``; empty if nowhere.

    ``connect``: the one endpoint that it needs; or several, of agents and of a router, each tried again and
    again while the session is open, so that one that is down holds up none of the others. ``listen``: the
    address to listen on, one of this machine only if None; if empty, nowhere, and the first of ``connect`` that
    is there is the router through which it reaches others; port 0 takes a free one. ``lease_s``: a peer
    silent for so long is taken for dead, or for ``stall_s`` while a ``send`` to it waits (a slow link may
    take nothing for seconds; closing this transport ends the wait). ``credentials``: this process's keys; its
    addresses then begin with ``tls/``, and ``runtime.access`` says who may send what. ``router``: it passes on
    what others send. ``discoverable``: it answers ``runtime.discovery`` on its LAN. Raises ``TransportError``
    if it cannot listen, or not connect to the one endpoint within ``timeout_s``.
    """

    def __init__(
        self,
        connect: str | Sequence[str] | None = None,
        listen: str | None = None,
        lease_s: float = 1.5,
        stall_s: float = 60.0,
        timeout_s: float = 10.0,
        credentials: Credentials | None = None,
        *,
        router: bool = False,
        discoverable: bool = False,
    ) -> None:
        import zenoh

        super().__init__()
        if listen is None:
            listen = ("tls" if credentials else "tcp") + "/127.0.0.1:0"
        patience = f"#tls_handshake_timeout_ms={_ACCEPT_TIMEOUT_MS}" if credentials else ""
        one = isinstance(connect, str)
        own = {
            **roles.settings(listen, bool(connect), router, discoverable),
            "listen/endpoints": [listen + patience] if listen else [],
            "connect/endpoints": [connect] if one else list(connect or ()),
            "connect/exit_on_failure": one,
            "connect/timeout_ms": round(timeout_s * 1e3),
            "transport/link/tx/lease": round(lease_s * 1e3),
            "transport/link/tx/queue/congestion_control/block/wait_before_close": round(stall_s * 1e6),
        }
        self._zenoh, self._role = zenoh, roles.role_of(listen, router)
        self._subscribers: dict[str, Any] = {}
        self._tokens: list[Any] = []
        try:
            config = zenoh.Config()
            secure = settings(credentials) if credentials else {}
            for key, value in {**_SETTINGS, **own, **secure}.items():
                config.insert_json5(key, json.dumps(value))
            self._session: Any = zenoh.open(config)
        except zenoh.ZError as error:
            reason = _first_line(error)
            if listen and not one:
                raise listening_error(listen, reason) from None
            for each in [connect] if isinstance(connect, str) else connect or ():
                if credentials:
                    check_peer(credentials, each, WORKSTATION)  # raises the reason that Zenoh does not give
            where = connect if one else ", ".join(connect or ())
            remedy = "see whether it runs there, and whether this machine reaches it"
            raise TransportError(f"cannot connect to {where}: {reason}", remedy) from None
        self.endpoint = self._locator() if listen else ""

    @property
    def session(self) -> str:
        return str(self._session.zid())

    def _declare_alive(self, name: str) -> None:
        # A token lives as long as its object.
        self._tokens.append(self._session.liveliness().declare_token(ALIVE + name))

    def watch(self, watcher: Watcher) -> None:
        put = self._zenoh.SampleKind.PUT

        def heard(sample: zenoh.Sample) -> None:
            watcher(str(sample.key_expr).removeprefix(ALIVE), sample.kind == put)

        self._session.liveliness().declare_subscriber(ALIVE + "**", heard, history=True)

    def _sender(self, channel: str, urgent: bool) -> Sender:
        priority = self._zenoh.Priority.REAL_TIME if urgent else self._zenoh.Priority.DATA
        publisher = self._session.declare_publisher(
            FRAMES + channel,
            congestion_control=self._zenoh.CongestionControl.BLOCK,
            priority=priority,
            express=True,
        )
        return _ZenohSender(channel, publisher)

    def _attach(self, mailbox: Mailbox) -> None:
        take = _Assembler(mailbox).take
        self._subscribers[mailbox.channel] = self._session.declare_subscriber(FRAMES + mailbox.channel, take)

    def _detach(self, channel: str) -> None:
        self._subscribers.pop(channel).undeclare()

    def _close(self) -> None:
        self._session.close()

    def _locator(self) -> str:
        for reply in self._session.get(f"@/{self.session}/{self._role}"):
            if reply.ok is not None:
                locators = json.loads(reply.ok.payload.to_string())["locators"]
                if locators:
                    return str(locators[0])
        self._session.close()
        raise TransportError("the session listens nowhere")


class _ZenohSender(Sender):
    """``put`` neither fails nor waits for a subscriber: the matching status says whether there is one."""

    def __init__(self, channel: str, publisher: Any) -> None:
        super().__init__(channel)
        self._publisher = publisher
        self._stream = secrets.randbits(64)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._state = threading.Lock()
        self._closed = False
        publisher.declare_matching_listener(self._matched)
        self._matched(None)

    def wait_ready(self, timeout_s: float) -> None:
        if not self._ready.wait(timeout_s):
            raise self._absent(timeout_s)

    def send(self, frame: Frame) -> None:
        import zenoh

        parts = [memoryview(part) for part in encode_parts(frame)]
        total = sum(map(len, parts))
        with self._lock:
            offset = 0
            for chunk in _chunks(parts):
                if not self._ready.is_set():
                    raise self._absent()
                place = None if len(chunk) == total else _CHUNK.pack(self._stream, total, offset)
                try:
                    self._publisher.put(chunk, attachment=place)
                except zenoh.ZError as error:
                    raise TransportError(f"channel {self.channel}: {_first_line(error)}") from None
                offset += len(chunk)

    def close(self) -> None:
        import zenoh

        with self._state:  # the publisher must not be asked for its status while it is let go
            self._closed = True
        with contextlib.suppress(zenoh.ZError):  # a session that closed has undeclared it
            self._publisher.undeclare()

    def _matched(self, _: object) -> None:
        import zenoh

        # What is true now, not what the event says: the first call and an event can cross.
        with self._state:
            matching = False
            if not self._closed:
                with contextlib.suppress(zenoh.ZError):  # the session may be closed
                    matching = self._publisher.matching_status.matching
            if matching:
                self._ready.set()
            else:
                self._ready.clear()


class _Assembler:
    """Puts chunks together; runs on the session's callback thread and never waits."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._partial: dict[int, tuple[memoryview, int]] = {}

    def take(self, sample: zenoh.Sample) -> None:
        try:
            attachment = sample.attachment
            data = sample.payload.to_bytes()
            self._add(
                data, *(0, len(data), 0) if attachment is None else _CHUNK.unpack(attachment.to_bytes())
            )
        except TransportError as error:
            self._mailbox.refuse(error)
        except Exception as error:
            # Raised here, it would vanish on a thread of the session.
            self._mailbox.refuse(TransportError(f"channel {self._mailbox.channel}: {_first_line(error)}"))

    def _add(self, data: bytes, stream: int, total: int, offset: int) -> None:
        most = self._mailbox.max_bytes
        if not 0 < len(data) <= total - offset or total > most:
            self._refuse(f"a chunk within {most} bytes", f"{len(data)} at {offset} of {total}")
        if offset == 0:
            # A fresh array: unlike bytes, it makes tensors that libraries may write to.
            frame, received = np.empty(total, np.uint8).data, 0
        else:
            frame, received = self._partial.pop(stream, (memoryview(b""), 0))
        if (len(frame), received) != (total, offset):
            self._refuse(f"the chunk at {received} of {len(frame)}", f"the one at {offset} of {total}")
        frame[offset : offset + len(data)] = data
        if offset + len(data) == total:
            self._mailbox.deliver(frame)
        else:
            if len(self._partial) >= _MAX_STREAMS:  # the one that waited longest is of a sender that died
                del self._partial[next(iter(self._partial))]
            self._partial[stream] = frame, offset + len(data)

    def _refuse(self, expected: str, found: str) -> None:
        raise TransportError(f"channel {self._mailbox.channel}: expected {expected}, found {found}")


def _chunks(parts: list[memoryview]) -> Iterator[bytes]:
    """The bytes of ``parts`` in pieces of at most ``_CHUNK_BYTES``, each copied once."""
    pieces: list[memoryview] = []
    room = _CHUNK_BYTES
    for part in parts:
        while len(part):
            piece, part = part[:room], part[room:]
            pieces.append(piece)
            room -= len(piece)
            if not room:
                yield b"".join(pieces)
                pieces, room = [], _CHUNK_BYTES
    if pieces:
        yield b"".join(pieces)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" at /")[0]
