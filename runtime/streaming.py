"""Streams through a plan: read ahead on threads, sent in turn, answered in order.

::

    source -> reader thread -> one group waiting -+
    source -> reader thread -> one group waiting -+-> at most `window` requests on their way -> answers, in order

A slow source holds back no other one. In memory are, of each stream, the group waiting and the one being read, and
the requests on their way; a source is read no faster than that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from planner.errors import InputError
from runtime.batching import Arrays, Group

_POLL_S = 0.1  # how soon a signal is seen while nothing else happens

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Settled(Generic[T]):
    """A group of stream ``stream`` and its answer; None where every input of it was refused."""

    stream: int
    group: Group
    answer: T | None


class Feed:
    """Groups of several streams, each read on a thread of its own. Use as a context manager.

    ``error``: the first that a stream ended with; the others go on.
    """

    def __init__(self, streams: Sequence[Iterable[Group]]) -> None:
        self.changed = threading.Condition()
        self.error: Exception | None = None
        self._waiting: list[Group | None] = [None] * len(streams)
        self._reading = len(streams)
        self._turn = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._read, args=(place, groups), daemon=True, name=f"input-{place}")
            for place, groups in enumerate(streams)
        ]

    def __enter__(self) -> Feed:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The threads end once they have read what they are reading."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def _read(self, place: int, groups: Iterable[Group]) -> None:
        try:
            for group in groups:
                with self.changed:
                    self.changed.wait_for(lambda: self._waiting[place] is None or self._closed)
                    if self._closed:
                        return
                    self._waiting[place] = group
                    self.changed.notify_all()
        except Exception as error:  # travels to whoever takes the groups
            with self.changed:
                self.error = self.error or error
        finally:
            with self.changed:
                self._reading -= 1
                self.changed.notify_all()

    @property
    def ready(self) -> bool:
        return any(group is not None for group in self._waiting)

    @property
    def ended(self) -> bool:
        return not self._reading and not self.ready

    def take(self) -> tuple[int, Group] | None:
        """The next group, each stream that has one in its turn; None where none waits. Hold ``changed``."""
        count = len(self._waiting)
        for place in (*range(self._turn, count), *range(self._turn)):
            group = self._waiting[place]
            if group is not None:
                self._waiting[place] = None
                self._turn = (place + 1) % count
                self.changed.notify_all()
                return place, group
        return None


def answers(
    feed: Feed,
    submit: Callable[[Arrays], Future[T]],
    window: int,
    stopping: Callable[[], bool] = lambda: False,
    on_refusal: Callable[[int, Group], None] = lambda stream, group: None,
) -> Iterator[Settled[T]]:
    """Send the groups, at most ``window`` on their way, and yield what became of each in the order they were sent.

    Once ``stopping()``, nothing more is sent, and what is on its way is waited for. ``on_refusal`` is told of a
    group with refused inputs before it is sent; ``InputError`` from there ends the sending likewise, and is
    raised at the end. So is the feed's own error; an error of a request is raised at once.
    """
    pending: deque[tuple[int, Group, Future[T] | None]] = deque()
    refused: InputError | None = None
    room = True

    def first_done() -> bool:
        return bool(pending) and (pending[0][2] is None or pending[0][2].done())

    def waited_for() -> bool:
        return first_done() or (room and feed.ready) or (feed.ended and not pending)

    def wake(_: object) -> None:
        with feed.changed:
            feed.changed.notify_all()

    while True:
        sending = refused is None and not stopping()
        with feed.changed:
            room = sending and len(pending) < window
            feed.changed.wait_for(waited_for, _POLL_S)
            taken = feed.take() if room and not stopping() else None
        if taken:
            stream, group = taken
            try:
                if group.refused:
                    on_refusal(stream, group)
            except InputError as error:
                refused = error
                continue
            future = submit(group.tensors) if group.tensors else None
            pending.append((stream, group, future))
            if future:
                future.add_done_callback(wake)
        while first_done():
            stream, group, future = pending.popleft()
            yield Settled(stream, group, future.result() if future else None)
        if not pending and (feed.ended or not sending):
            break
    if refused or feed.error:
        raise refused or feed.error  # type: ignore[misc]
