"""Agents of this LAN: asked for by multicast, as far as they were started to answer.

::

    workstation ── who is there? (UDP, to a group) ──► agents started with --discoverable
                ◄──── session, addresses ───────────── each
                ── connects to the first address that takes a connection; the agent says its name and session
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from planner.errors import InputError, TransportError
from planner.fleet import Fleet, check_address
from runtime.agent_messages import HELLO, LEASE_S
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.roles import scouting
from runtime.security import Security

_CONNECT_TIMEOUT_S = 1.0


def discover(seconds: float, security: Security) -> dict[str, str]:
    """An address of each session on this LAN that answers within so many seconds, by the session's identity.

    Raises ``TransportError`` where this machine cannot ask, ``InputError`` if ``security`` admits none of them.
    """
    import zenoh

    found: dict[str, list[str]] = {}
    heard = threading.Lock()

    def hear(hello: zenoh.Hello) -> None:
        with heard:
            found.setdefault(str(hello.zid), [str(locator) for locator in hello.locators])

    hear_any: Any = hear  # Zenoh's annotations leave out plain functions
    config = zenoh.Config()
    for key, value in scouting().items():
        config.insert_json5(key, json.dumps(value))
    try:
        asking: Any = zenoh.scout(hear_any, what="peer", config=config)
    except zenoh.ZError as error:
        reason = str(error).partition("\n")[0]
        raise TransportError(
            f"cannot ask on this LAN: {reason}", "give the agents' addresses instead"
        ) from None
    threading.Event().wait(seconds)
    asking.stop()
    with heard:
        offered = dict(sorted(found.items()))
    allowed = {
        zid: [each for each in addresses if _allows(security, each)] for zid, addresses in offered.items()
    }
    if offered and not any(allowed.values()):
        for addresses in offered.values():
            for address in addresses:
                security.check(address, "an agent on this LAN")  # says why
    taken = {zid: next(filter(_takes_connections, addresses), "") for zid, addresses in allowed.items()}
    return {zid: address for zid, address in taken.items() if address}


def located(
    fleet: Fleet,
    names: Sequence[str],
    seconds: float,
    security: Security = Security(),
) -> Fleet:
    """The fleet with the addresses of those of its devices that lack one and answer on this LAN.

    Raises ``TransportError`` if one of ``names`` is among those that do not answer, and the fleet has no router.
    """
    wanted = [device.name for device in fleet.devices if not device.address and not device.emulate]
    if not wanted or not seconds:
        return fleet
    found = discover(seconds, security)
    addresses: dict[str, str] = {}
    keys = security.credentials
    from runtime.zenoh_transport import ZenohTransport

    with (
        ZenohTransport(list(found.values()), lease_s=LEASE_S, credentials=keys) as transport,
        AgentNetwork(transport) as network,
    ):
        for name in wanted:
            where = f"this LAN, where {len(found) or 'nobody'} answered"
            client = AgentClient(name, network, where, credentials=keys)
            try:
                session = str(client.request(HELLO).get("session"))
            except TransportError:
                if name in names and not fleet.router:
                    raise
                continue
            if session in found:
                addresses[name] = found[session]
    devices = [replace(each, address=addresses.get(each.name, each.address)) for each in fleet.devices]
    return replace(fleet, devices=tuple(devices))


def _allows(security: Security, address: str) -> bool:
    try:
        security.check(address)
        return True
    except (InputError, ValueError):  # such as an address of a kind that edgecut has no use for
        return False


def _takes_connections(address: str) -> bool:
    """An agent that listens on all addresses of its machine names all of them, whoever can reach them."""
    with contextlib.suppress(OSError, ValueError):
        host, port = check_address(address), int(address.rpartition(":")[2])
        with socket.create_connection((host, port), _CONNECT_TIMEOUT_S):
            return True
    return False
