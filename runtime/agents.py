"""The workstation's side of agents: reaching them, asking them, noticing that one is gone."""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
import time
from collections.abc import Callable

from planner.documents import from_data, to_data
from planner.errors import EdgecutError, GoneError, TransportError, WorkerError
from runtime.agent_messages import CANCEL, HELLO, PROTOCOL, Body, Failure, Reply, Request, carried, version
from runtime.agent_network import AgentNetwork
from runtime.credentials import CERTIFICATE, WORKSTATION, Credentials
from runtime.processes import DeviceProcess
from runtime.transport import Sender, Transport
from runtime.wire import Frame

REACH_TIMEOUT_S = 10.0  # an agent that is listening answers in a fraction of this
START_TIMEOUT_S = 120.0  # a slow machine that starts several Python processes at once
REQUEST_TIMEOUT_S = 60.0
_POLL_S = 0.1


class AgentClient:
    """One device's agent. ``request`` may be called from several threads."""

    def __init__(
        self,
        name: str,
        network: AgentNetwork,
        where: str,
        process: DeviceProcess | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.name, self.where, self.process = name, where, process
        self._network, self._credentials = network, credentials
        network.expected.add(name)
        self._lock = threading.Lock()
        self._instance = ""
        self._sender: Sender | None = None
        self._running: set[int] = set()

    @property
    def transport(self) -> Transport:
        return self._network.transport

    def request(
        self,
        order: str,
        body: Body | None = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        progress: Callable[[Body], None] = lambda body: None,
    ) -> Body:
        """What the agent answers; ``progress`` gets what it tells meanwhile, on this thread.

        ``timeout_s``: the longest silence. Raises the agent's error as the ``EdgecutError`` that it was
        there, ``GoneError`` if the agent is gone or silent, ``TransportError`` if it is not reached.
        Left by an exception, ``progress``'s own among them, the order is cancelled.
        """
        sender = self._reach()
        return self._ask(sender, order, body or {}, timeout_s, progress)

    def cancel(self) -> None:
        """Ask the agent to stop all that this client asked for; each ``request`` then raises."""
        for number in list(self._running):
            self._tell(CANCEL, {}, number)

    def _ask(
        self, sender: Sender, order: str, body: Body, timeout_s: float, progress: Callable[[Body], None]
    ) -> Body:
        with self._network.replies() as (number, replies):
            self._running.add(number)
            try:
                self._tell(order, body, number)
                while True:
                    reply = self._next(replies, order, timeout_s)
                    if reply.state == "result":
                        return reply.body
                    if reply.state == "error":
                        raise carried(from_data(Failure, reply.body, f"error of {self.name}"))
                    progress(reply.body)
            except BaseException:
                with contextlib.suppress(TransportError):
                    self._tell(CANCEL, {}, number)
                raise
            finally:
                self._running.discard(number)

    def _next(
        self, replies: queue.SimpleQueue[Reply | TransportError], order: str, timeout_s: float
    ) -> Reply:
        deadline = time.monotonic() + timeout_s
        while True:
            gone = self._instance not in self._network.agents.get(self.name, ())
            with contextlib.suppress(queue.Empty):
                while True:
                    reply = replies.get(timeout=0 if gone else _POLL_S)
                    if isinstance(reply, TransportError):
                        raise reply
                    if not gone or reply.state != "progress":  # the last word of one that went counts
                        return reply
            if gone:
                if self.process:
                    self.process.wait(1.0)  # its connections close a moment before it has ended
                raise GoneError(
                    f"the agent of {self.name} {self._ended() or 'is gone'}, asked for {order}",
                    "start it again if need be, and run the same command again; it resumes",
                )
            if time.monotonic() > deadline:
                raise GoneError(
                    f"the agent of {self.name} said nothing for {timeout_s:g} s, asked for {order}{self._rule()}",
                    "see whether that machine hangs; then run the same command again",
                )

    def _tell(self, order: str, body: Body, number: int) -> None:
        assert self._sender
        who = f"{platform.node()} (process {os.getpid()})"
        request = Request(self._network.client, who, order, body)
        self._sender.send(Frame(body=to_data(request), request=number))

    def _reach(self) -> Sender:
        """The way to the one agent of this name, which may still be starting, or have been started anew."""
        network, patience_s = self._network, START_TIMEOUT_S if self.process else REACH_TIMEOUT_S
        deadline = time.monotonic() + patience_s
        with self._lock:
            self._check_keys()
            with network.changed:
                while not network.agents.get(self.name):
                    left_s = deadline - time.monotonic()
                    if self._ended() or left_s < 0:
                        raise self._absent(patience_s)
                    network.changed.wait(min(left_s, _POLL_S))
                instances = sorted(network.agents[self.name])
            if len(instances) > 1:
                problem = f"{len(instances)} agents are called {self.name}"
                raise WorkerError(problem, "stop all but one, or start them with names of their own")
            if self._sender is None or instances[0] != self._instance:
                if self._sender:
                    self._sender.close()
                self._sender = network.transport.sender(f"agent/{self.name}/{instances[0]}", urgent=True)
                try:
                    self._sender.wait_ready(patience_s)
                except TransportError as error:
                    problem = f"the agent of {self.name} is there and takes no orders from here{self._rule()}"
                    raise TransportError(problem, error.remedy) from None
                self._instance = instances[0]
                try:
                    self._greet(self._sender)
                except EdgecutError:  # whoever asks next greets again
                    self._sender.close()
                    self._sender = None
                    raise
            return self._sender

    def _greet(self, sender: Sender) -> None:
        """Ask who it is. An agent of another version is refused: what it measures and runs may differ."""
        found = self._ask(sender, HELLO, {}, REQUEST_TIMEOUT_S, lambda body: None)
        theirs, own = (found.get("version", "unknown"), found.get("protocol")), (version(), PROTOCOL)
        if theirs != own:
            raise WorkerError(
                f"the agent of {self.name} is edgecut {theirs[0]!s:.40} (protocol {theirs[1]!s:.10}), "
                f"here is {own[0]} (protocol {own[1]})",
                f"install the same version on both machines: pip install edgecut=={own[0]}",
            )

    def _check_keys(self) -> None:
        """Say at once what Zenoh would keep to itself: that one side refuses the other's keys."""
        if self._credentials and self.where.startswith("tls/") and not self._network.agents.get(self.name):
            from runtime.handshake import check_peer

            check_peer(self._credentials, self.where, self.name)

    def _rule(self) -> str:
        """What an encrypted network drops in silence."""
        if not self._credentials:
            return ""
        own = self._credentials
        return (
            f"; its rules take orders on agent/{self.name}/** only from certificates whose common name is "
            f"{WORKSTATION}, that of {own.folder / CERTIFICATE} is {own.common_name}"
        )

    def _absent(self, waited_s: float) -> EdgecutError:
        ended, known = self._ended(), self._network.expected
        if ended:
            return WorkerError(f"the agent of {self.name} {ended}", "see its log")
        others = sorted(name for name, found in self._network.agents.items() if found and name not in known)
        there = f"; there is {', '.join(others)}" if others else ""
        if self.where.startswith("tcp/"):
            from runtime.handshake import takes_keys

            if takes_keys(self.where):
                return TransportError(
                    f"the agent at {self.where} takes only encrypted connections",
                    f"write {self.where.replace('tcp/', 'tls/', 1)} in the fleet file, and pass --keys FOLDER",
                )
        return TransportError(
            f"no agent called {self.name} answers at {self.where} within {waited_s:g} s{there}",
            f"start it there: edgecut agent --name {self.name}",
        )

    def _ended(self) -> str | None:
        return self.process.ended() if self.process else None
