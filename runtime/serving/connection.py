"""One HTTP connection, with bounds that its web server does not set.

::

    connected ──► first byte ──► headers ──► body ──► answer ──► first byte of the next ...
      IDLE_S          GRACE_S, and more as bytes come at least at LEAST_BYTES_PER_S    WRITE_S for a client that
                                                                                       does not read its answer

What is not body (request line, headers, trailers, chunk sizes) may be ``HEADER_BYTES`` and as much as the body.
A body that nobody reads any more is thrown away up to ``LINGER_BYTES``: a client reads its answer once it has sent.
"""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import TimerHandle

from planner.errors import MissingDependencyError

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as error:
    raise MissingDependencyError(error.name or "uvicorn", "serving a plan", "serve") from error

IDLE_S = 75.0
GRACE_S = 10.0
WRITE_S = 30.0
LEAST_BYTES_PER_S = 50_000
HEADER_BYTES = 1 << 16
BUFFERED_BYTES = 1 << 20  # of a body, before the application takes it
LINGER_BYTES = 1 << 26
MOST_HEADERS = 100
MOST_PIPELINED = 8
MOST_CONNECTIONS = 256


class Connection(HttpToolsProtocol):
    """Given to uvicorn as its HTTP protocol."""

    _timer: TimerHandle | None = None
    _write_timer: TimerHandle | None = None
    _begun_s = 0.0
    _received = _body = _messages = 0  # since nothing was asked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if not self._room():
            transport.abort()
        # asyncio does so for a socket that was made for TCP by name, which socket.create_server does not.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._listen()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        first = not self._received
        self._received += len(data)
        if first and self._timer:
            self._begun_s = self.loop.time()
            self._watch()
        super().data_received(data)
        other = self._received - self._body
        if other > HEADER_BYTES * max(self._messages, 1) + self._body:
            self._refuse(431, f"more than {HEADER_BYTES} bytes are no body")
        elif self._answered and self._body > LINGER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MOST_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests before an answer")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self.cycle.response_complete:
            return
        # As uvicorn does, but for how much: pausing and going on at every 64 KiB takes longer than what is read.
        self.cycle.body += body
        if len(self.cycle.body) > BUFFERED_BYTES:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._answered:
            self._listen()
        elif self._timer:
            self._timer.cancel()
            self._timer = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the timer here is for that, too
        if not self.transport.is_closing() and (self._answered or self.cycle.more_body):
            self._listen()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "this is no HTTP/1.1 request, or one with too many headers")

    @property
    def _answered(self) -> bool:
        """Whether there is no request that still has to be answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _idle(self) -> bool:
        return self._answered and not self._received

    def _room(self) -> bool:
        """Whether there is room for one more, at the cost of the one that has been idle longest."""
        others = [one for one in self.connections if not one.transport.is_closing()]
        if len(others) < MOST_CONNECTIONS:
            return True
        idle = [one for one in others if isinstance(one, Connection) and one._idle]
        if idle:
            min(idle, key=lambda one: one._begun_s).transport.abort()
        return bool(idle)

    def _listen(self) -> None:
        self._begun_s = self.loop.time()
        self._received = self._body = self._messages = 0
        self._watch()

    def _watch(self) -> None:
        """Wait until what is being received is late, and end it then."""
        if self.transport.is_closing():
            return
        allowed_s = GRACE_S + self._received / LEAST_BYTES_PER_S if self._received else IDLE_S
        left_s = self._begun_s + allowed_s - self.loop.time()
        if self._timer:
            self._timer.cancel()
        if left_s > 0:
            self._timer = self.loop.call_later(left_s, self._watch)
        elif self._idle:
            self.transport.close()
        else:
            self._refuse(408, "the request came too slowly")

    def _refuse(self, status: int, problem: str) -> None:
        """Answer what the application does not see, unless it is answering already, and end the connection."""
        if self.transport.is_closing():
            return
        if self._answered or not self.cycle.response_started:
            reason = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[
                status
            ]
            content = json.dumps({"error": problem}).encode()
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\n"
            head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + content)
        self.transport.close()
