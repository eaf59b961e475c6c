"""Network namespaces for the hosts of a chain, joined by a bridge, each paced to a rate by ``tc tbf``."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def namespaces(count: int, bits_per_s: float) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Names and addresses of ``count`` hosts; what leaves one does so at the rate, after a burst.

    ``SystemExit`` where the system permits none.
    """
    key = f"ec{secrets.token_hex(3)}"
    names = tuple(f"{key}{place}" for place in range(count))
    addresses = tuple(f"10.79.0.{place + 1}" for place in range(count))
    try:
        try:
            _make(key, names, addresses, bits_per_s)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"network namespaces are not permitted here: {error.stderr.strip()}") from None
        yield names, addresses
    finally:
        for command in (f"ip link delete {key}", *(f"ip netns delete {name}" for name in names)):
            subprocess.run(command.split(), capture_output=True, check=False)


def _make(bridge: str, names: tuple[str, ...], addresses: tuple[str, ...], bits_per_s: float) -> None:
    burst = max(round(bits_per_s / 8 / 2000), 16_000)  # bytes that pass unpaced
    _run(f"ip link add {bridge} type bridge")
    _run(f"ip link set {bridge} up")
    for name, address in zip(names, addresses, strict=True):
        _run(f"ip netns add {name}")
        _run(f"ip link add {name} type veth peer name eth0 netns {name}")
        _run(f"ip link set {name} master {bridge} up")
        _run(f"ip -n {name} address add {address}/24 dev eth0")
        for each in ("lo", "eth0"):
            _run(f"ip -n {name} link set {each} up")
        pace = f"tbf rate {bits_per_s:.0f}bit burst {burst} latency 2000ms"
        _run(f"ip netns exec {name} tc qdisc replace dev eth0 root {pace}")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, text=True)
