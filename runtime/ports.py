"""Why a port cannot be listened on, and who has it."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from planner.errors import TransportError

_LISTENING = "0A"  # /proc/net/tcp's number of the state


def listening_error(address: str, reason: str, proc: Path = Path("/proc")) -> TransportError:
    """What kept a session from listening at ``tcp/HOST:PORT``, from the system's ``reason``, and what to do."""
    host, _, port = address.partition("/")[2].rpartition(":")
    if f"os error {errno.EADDRINUSE}" in reason:
        who = port_holder(int(port), proc) or "another process"
        other = address.removesuffix(port) + str(int(port) % 65535 + 1)
        return TransportError(
            f"cannot listen on {address}: {who} has port {port}",
            f"stop it, or choose another port, such as --listen {other}",
        )
    if f"os error {errno.EADDRNOTAVAIL}" in reason:
        return TransportError(
            f"cannot listen on {address}: {host} is no address of this machine",
            f"`ip address` lists them; {address.partition('/')[0]}/0.0.0.0:{port} is all of them",
        )
    if f"os error {errno.EACCES}" in reason:
        problem = f"cannot listen on {address}: this user may not use port {port}"
        return TransportError(problem, "choose a port from 1024 up")
    return TransportError(f"cannot listen on {address}: {reason}", "choose a free port")


def port_holder(port: int, proc: Path = Path("/proc")) -> str:
    """The process that listens on a TCP port here, as ``process 12 (its command)``; empty where unknown."""
    sockets = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    if not sockets:
        return ""
    for process in sorted(proc.glob("[0-9]*"), key=lambda found: int(found.name)):
        with contextlib.suppress(OSError):  # of another user, or gone
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode(errors="replace").strip()
                return f"process {process.name} ({command:.200})"
    return ""
