"""Devices and the directed links between them. A person writes them in TOML: see `fleet_file`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.documents import document
from planner.errors import UnknownNameError
from planner.notebook import Displayed, frame_of

if TYPE_CHECKING:
    import pandas as pd

_ADDRESS = re.compile(r"(?:tcp|tls)/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")


def check_address(address: str) -> str:
    """The host of ``tcp/HOST:PORT`` or ``tls/HOST:PORT``. Raises ``ValueError`` for anything else."""
    found = _ADDRESS.fullmatch(address)
    if not found or int(found[2]) > 65535:
        raise ValueError(
            f"address {address!r}: write tcp/HOST:PORT or tls/HOST:PORT, such as tls/192.168.1.5:7447"
        )
    return found[1].strip("[]")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address. Raises ``ValueError`` as ``check_address``."""
    host = check_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@document()
class Emulation:
    """How this machine stands in for a device: a pinned process, slowed by a factor.

    After each run of t seconds a worker waits (slowdown - 1) x t.
    """

    threads: int | None = None
    cpus: tuple[int, ...] | None = None
    slowdown: float = 1.0

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, found {self.threads}")
        if self.cpus is not None and (not self.cpus or min(self.cpus) < 0):
            raise ValueError(f"cpus must name at least one processor from 0 up, found {list(self.cpus)}")
        if not self.slowdown >= 1:
            raise ValueError(f"slowdown must be at least 1, found {self.slowdown}")


@document()
class Device:
    """A machine.

    ``battery``: its energy counts. ``active_power_w``: mean power while computing, used where a
    profile has no metered energy. ``idle_power_w``: power while it waits. ``address``: where its agent
    listens, such as tls/192.168.1.5:7447. ``memory_bytes``: what stages may take there, with
    ``worker_memory_bytes`` once for the process that runs them. ``price_per_s``: of its computing time, in any
    currency.
    """

    name: str
    battery: bool = False
    active_power_w: float | None = None
    idle_power_w: float = 0.0
    emulate: Emulation | None = None
    address: str | None = None
    memory_bytes: int | None = None
    worker_memory_bytes: int = 0
    price_per_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise ValueError(f"device name {self.name!r}: use letters, digits, '-', '_' and '.'")
        if (self.active_power_w is not None and self.active_power_w < 0) or self.idle_power_w < 0:
            raise ValueError(f"device {self.name}: a power is negative")
        if (self.memory_bytes is not None and self.memory_bytes < 1) or self.worker_memory_bytes < 0:
            raise ValueError(f"device {self.name}: memory_bytes is below 1 or worker_memory_bytes negative")
        if self.price_per_s < 0:
            raise ValueError(f"device {self.name}: price_per_s is negative")
        if self.address is not None:
            check_address(self.address)


@document()
class Link:
    """A directed path. A hop over it takes latency_s + bytes / bandwidth_bytes_per_s.

    ``send_power_w`` is the source's radio power while bytes flow, ``receive_power_w`` the target's.
    ``price_per_byte``: of what is sent, in the currency of the devices' prices. ``emulate``: the runtime
    paces this link to its bandwidth and latency.
    """

    source: str
    target: str
    bandwidth_bytes_per_s: float
    latency_s: float = 0.0
    send_power_w: float = 0.0
    receive_power_w: float = 0.0
    emulate: bool = False
    price_per_byte: float = 0.0

    def __post_init__(self) -> None:
        name = f"link {self.source} -> {self.target}"
        if self.source == self.target:
            raise ValueError(f"{name} joins a device to itself")
        if not self.bandwidth_bytes_per_s > 0:
            raise ValueError(
                f"{name}: bandwidth_bytes_per_s must be above 0, found {self.bandwidth_bytes_per_s}"
            )
        if self.latency_s < 0:
            raise ValueError(f"{name}: latency_s is negative ({self.latency_s})")
        if min(self.send_power_w, self.receive_power_w) < 0:
            raise ValueError(f"{name}: a radio power is negative")
        if self.price_per_byte < 0:
            raise ValueError(f"{name}: price_per_byte is negative")

    def transfer_s(self, wire_bytes: int) -> float:
        """Seconds during which ``wire_bytes`` keep the link busy."""
        return wire_bytes / self.bandwidth_bytes_per_s

    @property
    def pair(self) -> tuple[str, str]:
        """Source and target."""
        return self.source, self.target


@document()
class Fleet(Displayed):
    """All devices and links. Inputs start at ``source``; outputs end at ``sink``.

    ``router``: the address of the router through which agents are reached that have no address.
    """

    source: str
    sink: str
    devices: tuple[Device, ...]
    links: tuple[Link, ...]
    router: str | None = None

    def __post_init__(self) -> None:
        if self.router is not None:
            check_address(self.router)
        names = [device.name for device in self.devices]
        if len(set(names)) != len(names):
            raise ValueError(f"two devices share a name: {', '.join(names)}")
        for role, name in (("source", self.source), ("sink", self.sink)):
            if name not in names:
                raise ValueError(f"{role} {name!r} is not a device; devices: {', '.join(names)}")
        pairs = set()
        for link in self.links:
            for end in link.pair:
                if end not in names:
                    known = ", ".join(names)
                    raise ValueError(
                        f"link {link.source} -> {link.target}: {end!r} is not a device; devices: {known}"
                    )
            if link.pair in pairs:
                raise ValueError(f"two links {link.source} -> {link.target}")
            pairs.add(link.pair)

    def device(self, name: str) -> Device:
        """Raises ``UnknownNameError``, naming the nearest."""
        for device in self.devices:
            if device.name == name:
                return device
        raise UnknownNameError("device", name, (device.name for device in self.devices))

    def link(self, source: str, target: str) -> Link | None:
        """The directed link between two devices; None where there is none."""
        return next((link for link in self.links if link.pair == (source, target)), None)

    def headline(self) -> str:
        where = f"source {self.source}, sink {self.sink}"
        return f"{len(self.devices)} devices, {len(self.links)} directed links, {where}"

    def frame(self) -> pd.DataFrame:
        """A row per device: ``name``, ``battery``, ``active_power_w``, ``idle_power_w``, ``memory_bytes``,
        ``price_per_s``, ``address``."""
        columns = (
            "name", "battery", "active_power_w", "idle_power_w", "memory_bytes", "price_per_s", "address",
        )  # fmt: skip
        return frame_of(self.devices, columns)

    def link_frame(self) -> pd.DataFrame:
        """A row per directed link: ``source``, ``target``, ``bandwidth_bytes_per_s``, ``latency_s``,
        ``send_power_w``, ``receive_power_w``, ``price_per_byte``."""
        columns = (
            "source", "target", "bandwidth_bytes_per_s", "latency_s", "send_power_w", "receive_power_w",
            "price_per_byte",
        )  # fmt: skip
        return frame_of(self.links, columns)

    def _tables(self) -> Sequence[pd.DataFrame]:
        return self.frame(), self.link_frame()
