"""How a process may talk to others: encrypted with its keys, or unencrypted as far as that is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from planner.errors import InputError
from planner.fleet import Device, check_address, is_loopback
from runtime.credentials import Credentials


@dataclass(frozen=True)
class Security:
    """``insecure``: unencrypted addresses beyond this machine are allowed."""

    credentials: Credentials | None = None
    insecure: bool = False

    @classmethod
    def of(cls, keys: Path | None, insecure: bool = False) -> Security:
        """With the keys in a folder, checked. Raises ``InputError`` as ``Credentials.load``."""
        return cls(Credentials.load(keys) if keys else None, insecure)

    def check(self, address: str, whose: str = "") -> None:
        """Refuse (``InputError``) an address that this process may neither listen at nor connect to."""
        named = f"{whose}: {address}" if whose else address
        host = check_address(address)
        if address.startswith("tls/"):
            if self.credentials is None:
                remedy = "pass --keys FOLDER; `edgecut keys` makes them"
                raise InputError(f"{named} is encrypted, which takes keys", remedy)
        elif self.credentials is not None:
            remedy = f"write {address.replace('tcp/', 'tls/', 1)}, there too, or leave --keys out"
            raise InputError(f"{named} is unencrypted, and keys are given", remedy)
        elif not is_loopback(address) and not self.insecure:
            port = address.rpartition(":")[2]
            raise InputError(
                f"{named} is on the network, without encryption or password",
                f"use keys (`edgecut keys`, --keys FOLDER) and {address.replace('tcp/', 'tls/', 1)}; or reach "
                f"tcp/127.0.0.1:{port} by ssh -L {port}:127.0.0.1:{port} {_machine(host)}; or, on a network "
                "you trust, add --insecure",
            )

    def for_devices(self, devices: Iterable[Device], router: str | None = None) -> Security:
        """What a workstation uses to reach these devices, some of them perhaps through a router.

        Devices that are all emulated here stay unencrypted: there is no network between them. Raises
        ``InputError`` for an address that must not be used and for keys that give no orders.
        """
        devices = list(devices)
        for device in devices:
            if device.address:
                self.check(device.address, f"device {device.name}")
        if router:
            self.check(router, "router")
        if self.credentials is None or not (router or any(device.address for device in devices)):
            return Security(None, self.insecure)
        self.credentials.check_orders()
        return self.among([device.name for device in devices])

    def among(self, names: Collection[str]) -> Security:
        """The same for a process that deals with these devices only."""
        return replace(self, credentials=self.credentials.among(names) if self.credentials else None)


def _machine(host: str) -> str:
    return "HOST" if host in ("0.0.0.0", "::") else host
