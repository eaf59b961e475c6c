"""An order that an agent carries out, as its handler sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from planner.documents import to_data
from planner.errors import StoppedError
from runtime.agent_messages import Body, Reply, Request, State
from runtime.transport import Sender
from runtime.wire import Frame


class Progress:
    """What a handler tells whoever waits: call it with a JSON object, at least every few seconds.

    Calling it, or ``check``, raises ``StoppedError`` once the order is cancelled.
    """

    def __init__(self, name: str, request: Request, number: int) -> None:
        self.request, self.number = request, number
        self.since = time.strftime("%H:%M:%S")
        self.reply: Sender | None = None
        self._name = name
        self._cancelled = threading.Event()

    def __call__(self, body: Body) -> None:
        self.check()
        self.send("progress", body)

    def check(self) -> None:
        if self._cancelled.is_set():
            raise StoppedError(f"{self._name}: {self.request.order} was stopped")

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def send(self, state: State, body: Body) -> None:
        assert self.reply
        self.reply.send(Frame(body=to_data(Reply(state, body)), request=self.number))


Handler = Callable[[Body, Progress], Body]
