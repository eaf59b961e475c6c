"""An agent: the process on a device that carries out orders, each by its handler.

::

    workstation                                     agent
        │ ── request: order, body ────────────────► │  channel agent/NAME/INSTANCE
        │ ◄────────────────────── progress: body ── │  channel client/CLIENT
        │ ◄────────────── result, or an error ───── │
        │ ── cancel ──────────────────────────────► │  the order ends at its next progress

One control frame each; a frame's ``request`` says which request it belongs to. Each order runs on a
thread of its own; of those that measure, one at a time. The orders of a workstation that vanishes are
cancelled, and the agent goes on serving. Asked to leave, it says so (token agent/NAME/INSTANCE/leaving), begins
nothing more, and ends with what is under way.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from planner.documents import from_data
from planner.errors import EdgecutError, TransportError, WorkerError
from runtime.agent_messages import (
    CANCEL,
    HELLO,
    LEAVING,
    MAX_CONTROL_BYTES,
    PROTOCOL,
    Body,
    Request,
    State,
    failure,
    version,
)
from runtime.orders import Handler, Progress
from runtime.transport import Receiver, Transport
from runtime.wire import Frame

CLIENT_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 30.0  # a deployment switches to another plan meanwhile
_POLL_S = 0.2
_MAX_ORDERS = 16
_MAX_THREADS = 64  # with those whose client is not seen yet, or never was
_WAITING = 64
_MAX_LINE = 400


class Agent:
    """Serves orders over ``transport``, which it leaves open. ``log`` gets a line per event."""

    def __init__(
        self, name: str, transport: Transport, log: Callable[[str], None] = lambda line: None
    ) -> None:
        self.name, self.transport = name, transport
        self._address = f"agent/{name}/{secrets.token_hex(4)}"
        self._print = log
        self._handlers: dict[str, tuple[Handler, bool, bool]] = {}
        self._stopping, self._leaving = threading.Event(), threading.Event()
        self._leave_s: float | None = None
        self._changed = threading.Condition()
        self._orders: dict[tuple[str, int], Progress] = {}
        self._measuring: Progress | None = None
        self._clients: set[str] = set()
        self._farewells: list[Callable[[str | None], None]] = []
        self.handle(HELLO, lambda body, progress: {"name": name, "version": version(), "protocol": PROTOCOL})

    def handle(self, order: str, handler: Handler, *, measures: bool = False, begins: bool = False) -> None:
        """Answer ``order`` with what ``handler(body, progress)`` returns, or with the error it raises.

        The body comes from the network: the handler checks it (``planner.documents.from_data``). It runs
        on a thread of its own; of the handlers that ``measures``, one at a time, a second is refused. An agent
        that is leaving refuses what ``measures`` or ``begins`` something.
        """
        self._handlers[order] = handler, measures, begins or measures

    def when_gone(self, then: Callable[[str | None], None]) -> None:
        """Call ``then(client)`` once a workstation vanished, and ``then(None)`` when serving ends.

        That client's orders have ended by then, and nothing measures meanwhile.
        """
        self._farewells.append(then)

    def serve(self) -> None:
        """Carry out orders until ``stop``, which cancels those under way, or ``leave``."""
        receiver = self._receiver()
        self.transport.watch(self._seen)
        self.transport.declare_alive(self._address)
        try:
            while not self._stopping.is_set() and not self._left():
                try:
                    frame = receiver.receive(_POLL_S)
                    if frame is not None:
                        self._accept(frame)
                except EdgecutError as error:
                    self._log(f"refused a request: {error.message}")
                    if receiver.ended:
                        receiver.close()
                        receiver = self._receiver()
        finally:
            self._end_orders()
            receiver.close()

    def stop(self) -> None:
        """Make ``serve`` return; may be called from a signal handler."""
        self._stopping.set()

    def leave(self) -> None:
        """Make ``serve`` return once what is under way has ended, or after ``DRAIN_TIMEOUT_S``; what measures
        is stopped at once, as it resumes. May be called from a signal handler."""
        self._leaving.set()

    @property
    def measuring(self) -> str:
        """What measures here, for whom and since when; empty if nothing does."""
        busy = self._measuring
        return f"{busy.request.order} for {busy.request.who} since {busy.since}" if busy else ""

    def _left(self) -> bool:
        if not self._leaving.is_set():
            return False
        now_s = time.monotonic()
        if self._leave_s is None:
            self._leave_s = now_s + DRAIN_TIMEOUT_S
            self.transport.declare_alive(f"{self._address}/{LEAVING}")
            with self._changed:
                if self._measuring:
                    self._measuring.cancel()
                under_way = ", ".join(sorted({each.request.order for each in self._orders.values()}))
            self._log(f"{self.name} is leaving" + (f"; under way: {under_way}" if under_way else ""))
        return not self._orders or now_s > self._leave_s

    def _log(self, line: str) -> None:
        """What came from the network must neither fill the log nor pass for other lines of it."""
        self._print("".join(each if each.isprintable() else "?" for each in line[:_MAX_LINE]))

    def _receiver(self) -> Receiver:
        return self.transport.receiver(self._address, _WAITING, MAX_CONTROL_BYTES)

    def _accept(self, frame: Frame) -> None:
        request = from_data(Request, frame.body, f"request to {self.name}")
        key = request.client, frame.request
        with self._changed:
            if request.order == CANCEL:
                if key in self._orders:
                    self._orders[key].cancel()
                    self._changed.notify_all()
                return
            if key in self._orders:
                return
            if len(self._orders) >= _MAX_THREADS:
                raise WorkerError(
                    f"{len(self._orders)} orders are under way, one more came from {request.who}"
                )
            progress = Progress(self.name, request, frame.request)
            self._orders[key] = progress
        threading.Thread(target=self._carry_out, args=(key, progress), daemon=True).start()

    def _carry_out(self, key: tuple[str, int], progress: Progress) -> None:
        request = progress.request
        try:
            with contextlib.ExitStack() as stack:
                progress.reply = self.transport.sender(f"client/{request.client}", urgent=True)
                stack.callback(progress.reply.close)
                self._await_client(progress)
                state, body = self._answer(progress)
                try:
                    progress.send(state, body)
                except Exception as error:  # a result that is too large, or no JSON
                    problem = f"{self.name}: the result of {request.order} cannot travel: {error!s:.200}"
                    progress.send("error", failure(TransportError(problem)))
        except EdgecutError as error:
            self._log(f"{request.order} for {request.who}: {error.message}")
        finally:
            with self._changed:
                del self._orders[key]
                self._changed.notify_all()

    def _await_client(self, progress: Progress) -> None:
        """A client that is not seen could not be missed when it vanishes."""
        assert progress.reply
        progress.reply.wait_ready(CLIENT_TIMEOUT_S)
        client = progress.request.client
        with self._changed:
            if not self._changed.wait_for(lambda: client in self._clients, CLIENT_TIMEOUT_S):
                raise TransportError(f"client {client} is not there")

    def _answer(self, progress: Progress) -> tuple[State, Body]:
        request = progress.request
        try:
            if len(self._orders) > _MAX_ORDERS:
                raise WorkerError(f"{self.name} has {_MAX_ORDERS} orders under way", "try again later")
            if request.order not in self._handlers:
                known = ", ".join(sorted(self._handlers))
                raise WorkerError(
                    f"{self.name}: unknown order {request.order[:40]!r}; it knows {known}",
                    "run the same version of edgecut on both machines",
                )
            handler, measures, begins = self._handlers[request.order]
            if begins and self._leaving.is_set():
                raise WorkerError(
                    f"{self.name} is stopping", "start it again, and run the same command again"
                )
            with self._exclusively(progress) if measures else contextlib.nullcontext():
                if measures:
                    self._log(f"{request.order} for {request.who}")
                return "result", handler(request.body, progress)
        except EdgecutError as error:
            return "error", failure(error)
        except Exception as error:  # a fault nobody foresaw must not leave the workstation waiting
            fault = WorkerError(f"{self.name}: {request.order} failed: {type(error).__name__}: {error}")
            self._log(fault.message)
            return "error", failure(fault)

    @contextlib.contextmanager
    def _exclusively(self, progress: Progress) -> Iterator[None]:
        """A second order that measures is refused, unless the first is on its way out."""
        with self._changed:
            while self._measuring is not None:
                busy = self._measuring
                if not busy.cancelled:
                    raise WorkerError(
                        f"{self.name} is busy: {self.measuring}",
                        "wait until that is done, or stop it there",
                    )
                progress.check()
                self._changed.wait(_POLL_S)
            self._measuring = progress
        try:
            yield
        finally:
            with self._changed:
                self._measuring = None
                self._changed.notify_all()

    def _seen(self, name: str, alive: bool) -> None:
        kind, _, client = name.partition("/")
        if kind != "client":
            return
        with self._changed:
            if alive:
                self._clients.add(client)
            else:
                self._clients.discard(client)
                for (owner, _), progress in self._orders.items():
                    if owner == client:
                        progress.cancel()
                threading.Thread(target=self._part, args=(client,), daemon=True).start()
            self._changed.notify_all()

    def _part(self, client: str | None) -> None:
        """What handlers keep for a client ends with it; whoever measures next ends it too."""
        farewell = Progress(self.name, Request(client or "0" * 16, self.name, "farewell", {}), 0)
        with self._changed:
            self._changed.wait_for(lambda: all(owner != client for owner, _ in self._orders))
        with contextlib.suppress(WorkerError), self._exclusively(farewell):
            for then in self._farewells:
                then(client)

    def _end_orders(self) -> None:
        with self._changed:
            for progress in self._orders.values():
                progress.cancel()
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: not self._orders, CLIENT_TIMEOUT_S)
        if ended:
            self._part(None)
