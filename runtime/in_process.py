"""Threads of one process as a network: frames are encoded and decoded as on a real one."""

from __future__ import annotations

import threading

from planner.errors import TransportError
from runtime.transport import Mailbox, Sender, Transport, Watcher
from runtime.wire import Frame, encode


class Hub:
    """Where the in-process transports of one process meet."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.mailboxes: dict[str, Mailbox] = {}
        self.alive: set[str] = set()
        self.watchers: list[Watcher] = []


class InProcessTransport(Transport):
    """Threads of one process, each with its own transport on a shared ``Hub``.

    Frames are encoded and decoded as on a network, so nothing is shared by accident.
    """

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._alive: set[str] = set()
        self._watchers: list[Watcher] = []

    def _declare_alive(self, name: str) -> None:
        with self._hub.changed:
            self._alive.add(name)
            self._hub.alive.add(name)
            for watcher in self._hub.watchers:
                watcher(name, True)

    def watch(self, watcher: Watcher) -> None:
        with self._hub.changed:
            self._watchers.append(watcher)
            self._hub.watchers.append(watcher)
            for name in sorted(self._hub.alive):
                watcher(name, True)

    def _sender(self, channel: str, urgent: bool) -> Sender:
        return _InProcessSender(channel, self._hub)

    def _attach(self, mailbox: Mailbox) -> None:
        with self._hub.changed:
            if mailbox.channel in self._hub.mailboxes:
                del self._receivers[mailbox.channel]
                raise TransportError(f"channel {mailbox.channel} has a receiver already")
            self._hub.mailboxes[mailbox.channel] = mailbox
            self._hub.changed.notify_all()

    def _detach(self, channel: str) -> None:
        with self._hub.changed:
            del self._hub.mailboxes[channel]

    def _close(self) -> None:
        with self._hub.changed:
            for own in self._watchers:
                self._hub.watchers.remove(own)
            self._watchers.clear()
            for name in self._alive:
                self._hub.alive.discard(name)
                for watcher in self._hub.watchers:
                    watcher(name, False)
            self._alive.clear()


class _InProcessSender(Sender):
    def __init__(self, channel: str, hub: Hub) -> None:
        super().__init__(channel)
        self._hub = hub

    def wait_ready(self, timeout_s: float) -> None:
        with self._hub.changed:
            if not self._hub.changed.wait_for(lambda: self.channel in self._hub.mailboxes, timeout_s):
                raise self._absent(timeout_s)

    def send(self, frame: Frame) -> None:
        data = encode(frame)
        mailbox = self._hub.mailboxes.get(self.channel)
        if mailbox is None:
            raise self._absent()
        mailbox.deliver(data)
