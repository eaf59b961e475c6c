"""A workstation's place among agents."""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from planner.documents import from_data
from planner.errors import EdgecutError, TransportError
from runtime.agent_messages import LEAVING, MAX_CONTROL_BYTES, Reply
from runtime.transport import Transport

_WAITING = 1024
_PAUSE_S = 0.1


class AgentNetwork:
    """One workstation's place among agents: who is there, and whose answer is whose.

    Use as a context manager; ``transport`` stays open.
    """

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.client = secrets.token_hex(8)
        self.changed = threading.Condition()
        self.agents: dict[str, set[str]] = {}  # who is there: instances by name
        self.leaving: set[tuple[str, str]] = set()  # of those: names and instances that will end soon
        self.expected: set[str] = set()  # whom this workstation asks
        self._numbers = itertools.count(1)
        self._waiting: dict[int, queue.SimpleQueue[Reply | TransportError]] = {}
        self._closed = False

    def __enter__(self) -> AgentNetwork:
        # The workstation's own channel comes first: an agent that hears of it can answer.
        self._receiver = self.transport.receiver(f"client/{self.client}", _WAITING, MAX_CONTROL_BYTES)
        self.transport.declare_alive(f"client/{self.client}")
        self.transport.watch(self._seen)
        self._thread = threading.Thread(target=self._dispatch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._receiver.close()
        self._thread.join()

    @contextmanager
    def replies(self) -> Iterator[tuple[int, queue.SimpleQueue[Reply | TransportError]]]:
        """A fresh request number, and where its replies come."""
        number = next(self._numbers)
        found: queue.SimpleQueue[Reply | TransportError] = queue.SimpleQueue()
        self._waiting[number] = found
        try:
            yield number, found
        finally:
            del self._waiting[number]

    def _dispatch(self) -> None:
        while True:
            try:
                frame = self._receiver.receive()
                assert frame is not None
                reply = from_data(Reply, frame.body, "reply of an agent")
                waiting = self._waiting.get(frame.request)
                if waiting is not None:  # else it was given up
                    waiting.put(reply)
            except EdgecutError as error:
                if self._closed:
                    return
                for waiting in list(self._waiting.values()):
                    waiting.put(TransportError(error.message, error.remedy))
                time.sleep(_PAUSE_S)  # a channel that ended says so every time

    def _seen(self, name: str, alive: bool) -> None:
        kind, _, rest = name.partition("/")
        agent, _, rest = rest.partition("/")
        instance, _, state = rest.partition("/")
        if kind != "agent" or not instance or state not in ("", LEAVING):
            return
        with self.changed:
            if state:
                (self.leaving.add if alive else self.leaving.discard)((agent, instance))
            else:
                instances = self.agents.setdefault(agent, set())
                (instances.add if alive else instances.discard)(instance)
            self.changed.notify_all()
