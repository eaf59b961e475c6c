"""Zenoh's settings for what a session is to others: a peer, a router, or one that only connects outwards.

::

    workstation ◄────► agent ◄────► agent      peers: connected to each other, all of them; those that hear of
         ▲               ▲            ▲        each other by gossip connect by themselves
         └───────► router ◄───────────┘        passes on between its peers and those that only connect to it,
                     ▲   ▲                     and to other routers; not between its peers
    agent behind NAT ┘   └ router of a site    no port of that agent is open

All peers of a router must reach each other: an agent that others cannot reach connects outwards only, or
to a router of its site. (All as "routers" would need no such rule; but in Zenoh 1.10 two that join and leave
within 0.1 s may never hear of each other.)
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

from planner.fleet import is_loopback

Role = Literal["peer", "router", "client"]

# Not Zenoh's own group, on which other software may be.
GROUP = "224.0.0.224:7449"

_GOSSIP = {
    "scouting/gossip/enabled": True,
    "scouting/gossip/autoconnect": {"peer": ["router", "peer"], "router": [], "client": []},
    # Two that connect to each other at once would hold two links: the greater identity connects.
    "scouting/gossip/autoconnect_strategy": {"peer": {"to_router": "always", "to_peer": "greater-zid"}},
}


def role_of(listen: str, router: bool = False) -> Role:
    """What a session is that listens at this address, nowhere if it is empty; Zenoh's ``mode``."""
    if router:
        return "router"
    return "peer" if listen else "client"


def settings(listen: str, connects: bool, router: bool = False, discoverable: bool = False) -> dict[str, Any]:
    """Zenoh's settings of a session that listens at this address.

    ``connects``: it has others' addresses. ``discoverable``: it answers those who ask on the LAN.
    """
    return {
        **_GOSSIP,
        "mode": role_of(listen, router),
        "id": _identity(listen, connects),
        "scouting/multicast/enabled": discoverable,
        **(scouting() if discoverable else {}),
    }


def scouting() -> dict[str, Any]:
    """Zenoh's settings for asking on the LAN, and answering; neither makes it connect to anyone."""
    return {
        "scouting/multicast/enabled": True,
        "scouting/multicast/address": GROUP,
        "scouting/multicast/autoconnect": {"peer": [], "router": [], "client": []},
        "scouting/multicast/listen": True,
    }


def _identity(listen: str, connects: bool) -> str:
    """Random, and the greater the less this session can be reached: who cannot be must connect itself.

    Whatever order Zenoh compares the bytes in, the first and the last are the same.
    """
    unreachable = not listen or is_loopback(listen)
    # Who connects outwards may be behind NAT.
    rank = 0xC0 if unreachable else 0x80 if connects else 0x20
    return f"{rank:02x}{secrets.token_hex(14)}{rank:02x}"
