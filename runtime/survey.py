"""Asking agents who they are: those of a fleet, and those found on this LAN."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from planner.documents import from_data
from planner.errors import EdgecutError
from planner.fleet import Fleet
from runtime.agent_messages import HELLO, LEASE_S
from runtime.agent_network import AgentNetwork
from runtime.agent_status import AgentStatus
from runtime.agents import AgentClient
from runtime.discovery import discover
from runtime.fleet_agents import whereabouts
from runtime.security import Security

SETTLE_S = 2.0  # in which those that were found on the LAN say their names
_AT_ONCE = 16


@dataclass(frozen=True)
class Found:
    """An agent that answered, or why one did not."""

    name: str
    where: str
    status: AgentStatus | None
    problem: str


def survey(
    fleet: Fleet | None,
    discover_s: float = 0.0,
    security: Security = Security(),
) -> list[Found]:
    """Ask the agents of the fleet's devices, but for those emulated here, and those that the LAN tells of.

    Raises ``TransportError`` where this machine cannot ask on the LAN, ``InputError`` for an address that
    ``security`` does not let it use.
    """
    from runtime.zenoh_transport import ZenohTransport

    nearby = discover(discover_s, security) if discover_s else {}
    asked = [each for each in fleet.devices if each.address or not each.emulate] if fleet else []
    addresses = [*(each.address for each in asked if each.address), *nearby.values()]
    if fleet and fleet.router:
        addresses.append(fleet.router)
    security.for_devices(asked, fleet.router if fleet else None)
    keys = security.credentials
    wheres: dict[str, str] = {}
    problems: list[Found] = []
    for device in asked:
        try:
            assert fleet
            wheres[device.name] = (
                "this LAN" if discover_s and not device.address else whereabouts(fleet, device)
            )
        except EdgecutError as error:
            problems.append(Found(device.name, "", None, str(error).replace("\n  try", "; try")))
    with (
        ZenohTransport(list(dict.fromkeys(addresses)), lease_s=LEASE_S, credentials=keys) as transport,
        AgentNetwork(transport) as network,
    ):
        if discover_s or (fleet and fleet.router):
            time.sleep(SETTLE_S)
            with network.changed:
                wheres = {**{name: "" for name, there in network.agents.items() if there}, **wheres}
        clients = [
            AgentClient(name, network, where or "this network", None, keys) for name, where in wheres.items()
        ]
        with ThreadPoolExecutor(_AT_ONCE) as each:
            found = list(each.map(lambda client: _ask(client, nearby), clients))
    return sorted([*found, *problems], key=lambda one: one.name)


def _ask(client: AgentClient, nearby: dict[str, str]) -> Found:
    try:
        status = from_data(AgentStatus, client.request(HELLO), f"answer of {client.name}")
        return Found(client.name, nearby.get(status.session, client.where), status, "")
    except EdgecutError as error:
        return Found(client.name, client.where, None, str(error).replace("\n  try", "; try"))
