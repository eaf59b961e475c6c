"""Measuring a fleet's links: agents told what to do, one link at a time, and what they found, fitted.

::

    workstation ── probe-echo ──► target's agent    its echo is there
                ── probe ───────► source's agent    frames to the target, samples back
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from planner.documents import document, from_data, to_data
from planner.errors import EdgecutError, InputError, PlanningError, WorkerError
from planner.fleet import Fleet, Link
from planner.link_fit import Exchanges
from planner.link_report import FailedLink, LinkReport, MeasuredLink
from runtime.agent_messages import HELLO
from runtime.link_probe import Echo, ProbeOrder, ProbeProtocol, ProbeResult, clock_name, probe
from runtime.security import Security
from runtime.transport import Transport

ECHO, PROBE = "probe-echo", "probe"
_MAX_ECHOES = 8
_NOTE_S = 1.0  # notes of progress share the network that is being measured

Body = dict[str, Any]
Note = Callable[[Body], None]


class Client(Protocol):
    """Where a device is told what to do: see ``runtime.agents``."""

    def request(self, order: str, body: Body, *, timeout_s: float = ..., progress: Note = ...) -> Body: ...


@document()
class EchoAnswer:
    """The target is ready; ``clock`` names what its stamps count on."""

    clock: str


@document()
class ProbeAnswer:
    clock: str
    result: ProbeResult


class LinkService:
    """What an agent offers to those who measure links: ``echo`` for ``ECHO``, ``probe`` for ``PROBE``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._echoes: list[Echo] = []

    def echo(self, body: Body, progress: Note) -> Body:
        """Acknowledge the frames of this measurement, until it ends. Raises ``WorkerError`` at too many."""
        order = from_data(ProbeOrder, body, ECHO)
        self._echoes = [one for one in self._echoes if not one.ended]
        if len(self._echoes) >= _MAX_ECHOES:
            raise WorkerError(f"{_MAX_ECHOES} measurements of links lead here already", "try again later")
        self._echoes.append(Echo(self._transport, order))
        return dict(to_data(EchoAnswer(clock_name())))

    def probe(self, body: Body, progress: Note) -> Body:
        """Measure. Raises ``TransportError`` where the target does not answer."""
        order = from_data(ProbeOrder, body, PROBE)
        told_s = time.monotonic()

        def tell(note: str) -> None:
            nonlocal told_s
            if time.monotonic() > told_s + _NOTE_S:
                progress({"note": note})
                told_s = time.monotonic()

        return dict(to_data(ProbeAnswer(clock_name(), probe(self._transport, order, tell))))


def measure_links(
    fleet: Fleet,
    links: Iterable[Link],
    agents: Mapping[str, Client],
    protocol: ProbeProtocol,
    progress: Callable[[Link, str], None],
) -> Iterator[MeasuredLink | FailedLink]:
    """Each of ``links`` measured as ``protocol`` says, in turn: two at once would share a medium.

    A link that cannot be measured does not keep the others from it.
    """
    gone: dict[str, EdgecutError] = {}
    for link in links:
        exchanges: Exchanges | None = None
        try:
            for end in link.pair:
                _reach(end, agents, gone)
            back = fleet.link(link.target, link.source)
            order = ProbeOrder(secrets.token_hex(8), link, back, protocol)
            exchanges, shared, left_out = _measure(order, agents, progress)
            yield MeasuredLink.of(link, exchanges, shared, left_out)
        except EdgecutError as error:
            reason = (
                error.message if isinstance(error, PlanningError) else str(error).replace("\n  try", "; try")
            )
            yield FailedLink(*link.pair, reason, exchanges)
        progress(link, "")


def _reach(device: str, agents: Mapping[str, Client], gone: dict[str, EdgecutError]) -> None:
    """Raise what keeps ``device`` from answering; waited for once, not at each of its links."""
    if device not in agents:
        raise InputError(
            f"device {device} has no address, and is not emulated",
            f'start `edgecut agent --name {device}` there and add address = "tls/HOST:7447" to [device.{device}], '
            "or look for it on this LAN with --discover 3; or name a router in the fleet",
        )
    if device not in gone:
        try:
            agents[device].request(HELLO, {})
            return
        except EdgecutError as error:
            gone[device] = error
    raise gone[device]


def _measure(
    order: ProbeOrder, agents: Mapping[str, Client], progress: Callable[[Link, str], None]
) -> tuple[Exchanges, bool, tuple[int, ...]]:
    link, protocol, body = order.link, order.protocol, to_data(order)
    ready = agents[link.target].request(ECHO, body, timeout_s=protocol.timeout_s)
    echo = from_data(EchoAnswer, ready, f"answer of {link.target}")
    found = agents[link.source].request(
        PROBE,
        body,
        timeout_s=2 * protocol.timeout_s,
        progress=lambda note: progress(link, str(note.get("note", ""))),
    )
    answer = from_data(ProbeAnswer, found, f"answer of {link.source}")
    shared = bool(echo.clock) and echo.clock == answer.clock
    return answer.result.exchanges, shared, answer.result.left_out


def measure_fleet(
    fleet: Fleet,
    links: Sequence[Link],
    protocol: ProbeProtocol,
    progress: Callable[[Link, str], None],
    keep: Callable[[LinkReport], None],
    security: Security = Security(),
) -> LinkReport:
    """Measure ``links`` by agents of the fleet's devices; ``keep`` gets the report after every link.

    ``progress`` gets a link with notes while it is measured, and with an empty one once it is done.
    """
    from runtime.fleet_agents import fleet_agents

    report = LinkReport(datetime.now(timezone.utc).isoformat(timespec="seconds"), ())
    ends = dict.fromkeys(end for link in links for end in link.pair)
    names = [
        name for name in ends if fleet.router or fleet.device(name).address or fleet.device(name).emulate
    ]
    with (
        tempfile.TemporaryDirectory(prefix="edgecut-links-") as folder,
        fleet_agents(fleet, names, Path(folder), security=security) as agents,
    ):
        for found in measure_links(fleet, links, agents, protocol, progress):
            if isinstance(found, MeasuredLink):
                report = replace(report, links=(*report.links, found))
            else:
                report = replace(report, failed=(*report.failed, found))
            keep(report)
    return report
