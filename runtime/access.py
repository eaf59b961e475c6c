"""Zenoh's settings for an encrypted network: whom it admits, and who may send what.

::

    from            channel               to
    workstation     agent/NAME/**         NAME          orders
    workstation     artifact/NAME/**      NAME          files
    anyone          client/**, output/**  workstation   answers, outputs
    anyone          leg/NAME/**           NAME          tensors
    anyone          probe/**              anyone        frames that measure a link

A peer is who its certificate's common name says. What no rule allows is dropped in silence, on both ends:
a device can neither order nor pass for another, whatever its process sends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, WORKSTATION, Credentials

FRAMES, ALIVE = "edgecut/frames/", "edgecut/alive/"
_ANYONE = "*"
_BOTH = ["ingress", "egress"]


def settings(credentials: Credentials) -> dict[str, Any]:
    """Zenoh's settings of a process with these keys: TLS with certificates on both sides, and rules."""
    return {
        "transport/link/tls": {
            "root_ca_certificate": credentials.file(AUTHORITY),
            "listen_private_key": credentials.file(KEY),
            "listen_certificate": credentials.file(CERTIFICATE),
            "connect_private_key": credentials.file(KEY),
            "connect_certificate": credentials.file(CERTIFICATE),
            "enable_mtls": True,
            "verify_name_on_connect": True,
            "close_link_on_expiration": True,
        },
        "access_control": access_control(credentials.common_name, credentials.devices),
    }


def access_control(own: str, devices: Collection[str] | None) -> dict[str, Any]:
    """Zenoh's ``access_control`` for a process whose certificate's common name is ``own``.

    ``devices``: those that it deals with; None where it cannot know them, and then any device is taken at its
    word about its name. A router passes on orders, so its rules are a workstation's.
    """
    rules: list[dict[str, Any]] = []
    subjects: list[dict[str, Any]] = []
    policies: list[dict[str, Any]] = []
    others = [_ANYONE] if devices is None else sorted(set(devices) - {WORKSTATION})
    for peer in (WORKSTATION, *others):
        subject: dict[str, Any] = {"id": peer, "link_protocols": ["tls"]}
        if peer != _ANYONE:
            subject["cert_common_names"] = [peer]
        subjects.append(subject)
        allowed = [
            ("ingress", ["put"], _frames(peer, own)),
            ("ingress", ["declare_subscriber"], _frames(own, peer)),
            ("ingress", ["liveliness_token"], _alive(peer)),
            ("egress", ["put"], _frames(own, peer)),
            ("egress", ["declare_subscriber"], _frames(peer, own)),
            ("egress", ["liveliness_token"], _alive(own)),
        ]
        own_rules = []
        for flow, messages, keys in allowed:
            name = f"{peer} {flow} {messages[0]}"
            rule = {"id": name, "messages": messages, "flows": [flow], "permission": "allow"}
            rules.append({**rule, "key_exprs": keys})
            own_rules.append(name)
        policies.append({"rules": [*own_rules, "watch"], "subjects": [peer]})
    watching = ["declare_liveliness_subscriber", "liveliness_query"]
    watch = {"id": "watch", "messages": watching, "flows": _BOTH, "permission": "allow"}
    rules.append({**watch, "key_exprs": [f"{ALIVE}**"]})
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": rules,
        "subjects": subjects,
        "policies": policies,
    }


def _frames(sender: str, receiver: str) -> list[str]:
    """The key expressions of the channels that lead from one to the other."""
    # An emulated device's agent holds its workstation's keys.
    whose = "**" if receiver in (WORKSTATION, _ANYONE) else f"{receiver}/**"
    channels = [f"leg/{whose}", "probe/**"]
    if receiver == WORKSTATION:
        channels += ["client/**", "output/**"]
    if sender == WORKSTATION:
        channels += [f"agent/{whose}", f"artifact/{whose}"]
    return [FRAMES + channel for channel in channels]


def _alive(name: str) -> list[str]:
    """What one may declare alive."""
    whose = {WORKSTATION: "**", _ANYONE: "agent/**"}.get(name, f"agent/{name}/**")
    return [ALIVE + whose]
