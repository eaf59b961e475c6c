"""A server around a pipeline, in this process, as tests call it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runtime.pipeline import Pipeline
from runtime.serving.app import Service, application
from runtime.serving.guard import Endpoint
from runtime.serving.protocol import Signature
from runtime.serving.server import listener, serve

PATIENCE_S = 60.0
BODY_BYTES = 1_000_000


@dataclass
class Served:
    """``stop`` is what a signal does; ``ended`` holds what the server raised, once it has ended."""

    host: str
    port: int
    service: Service
    stop: threading.Event
    thread: threading.Thread
    ended: list[BaseException | None]

    @property
    def url(self) -> str:
        return f"{self.host}:{self.port}"

    def wait(self) -> BaseException | None:
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        return self.ended[0]


@contextmanager
def served(
    pipeline: Pipeline, what: Signature, endpoint: Endpoint | None = None, **bounds: Any
) -> Iterator[Served]:
    """A server on a thread; ``bounds`` are those of ``application``."""
    endpoint = endpoint or Endpoint("127.0.0.1", 0)
    app = application(pipeline, what, **{"max_body_bytes": BODY_BYTES, **bounds})
    stop = threading.Event()
    ended: list[BaseException | None] = []
    with listener(endpoint) as listening:

        def work() -> None:
            try:
                serve(app, endpoint, listening, stop.is_set)
            except BaseException as error:
                ended.append(error)
            else:
                ended.append(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield Served(endpoint.host, listening.getsockname()[1], app.state.service, stop, thread, ended)
        finally:
            stop.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
