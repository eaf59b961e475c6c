"""Hosts of a test: network namespaces with an address each, joined by a switch in a namespace of its own.

::

    host a ── eth0 ═══ port-a ──┐                       ┌── port-b ═══ eth0 ── host b
                                ├── bridge "net" ───────┤
    host c ── eth0 ═══ port-c ──┘   (the switch)        └── port-d ─ br-d ─ relay ─ …  a delayed host

Nothing outside these namespaces is touched. A cut drops frames in silence, as a cable cut behind a switch does. Names
begin with the process that made them, so that what a killed test left is swept by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_PREFIX = "edgecut"
_FOLDER = Path("/run/netns")
_NOWHERE = "02:00:00:00:00:fe"  # no host has this hardware address
_BURST, _QUEUE = "16kb", "2000ms"
_END_S = 5.0
_CLONE_NEWNET = 0x40000000


class Hosts:
    """See the module. ``hosts`` makes one."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.addresses = {name: f"10.77.0.{place + 1}" for place, name in enumerate(names)}
        self._id = f"{_PREFIX}-{_owner(os.getpid())}-{secrets.token_hex(3)}"
        self._relays: dict[str, subprocess.Popen[str]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._cut: set[str] = set()

    def namespace(self, name: str) -> str:
        return f"{self._id}-{name}"

    def prefix(self, name: str) -> tuple[str, ...]:
        """What stands before a command to run it on that host."""
        return "ip", "netns", "exec", self.namespace(name)

    def run(self, name: str, *command: str) -> str:
        return _run(*self.prefix(name), *command)

    def start(
        self,
        name: str,
        *command: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        piped: bool = False,
    ) -> subprocess.Popen[bytes]:
        """A process on that host; it is killed in the end.

        Its output is appended to ``log``, unless it is ``piped``, input too: then that gets its errors alone.
        """
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*self.prefix(name), *command],
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else out,
                stderr=out if piped else subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        self._started.append(process)
        return process

    def socket(self, name: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this process on that host's network."""
        made: list[socket.socket] = []

        def make() -> None:  # a thread has a network namespace of its own
            libc = ctypes.CDLL(None, use_errno=True)
            with (_FOLDER / self.namespace(name)).open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET) == 0:
                    made.append(socket.socket(socket.AF_INET, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        assert made, f"cannot enter the namespace of {name}"
        return made[0]

    def throttle(self, name: str, up_bits_per_s: float, down_bits_per_s: float | None = None) -> None:
        """What leaves this host does so at the rate, after a burst of 16 KB; what reaches it likewise."""
        self._limit(name, "eth0", up_bits_per_s)
        if down_bits_per_s is not None:
            self._limit("switch", f"port-{name}", down_bits_per_s)

    def delay(self, name: str, delay_s: float, jitter_s: float = 0.0, loss: float = 0.0) -> None:
        """From now on what leaves or reaches this host takes longer; connections stay. All 0: as at first."""
        own = f"br-{name}"
        relay = self._relays.pop(name, None)
        if relay:
            self._place(name, "net")
            relay.kill()
            relay.communicate()
            self._switch("link", "delete", own)
        if delay_s or jitter_s or loss:
            taps = f"near-{name}", f"far-{name}"
            command = (*taps, str(delay_s), str(jitter_s), str(loss))
            self._relays[name] = relay = subprocess.Popen(
                [*self.prefix("switch"), sys.executable, str(Path(__file__).with_name("relay.py")), *command],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert relay.stdout
            assert relay.stdout.readline() == "ready\n", "the relay did not start"
            self._switch("link", "add", own, "type", "bridge", "forward_delay", "0")
            self._switch("link", "set", own, "up")
            for tap, bridge in zip(taps, (own, "net"), strict=True):
                self._switch("link", "set", tap, "master", bridge, "up")
        self._place(name)

    def cut(self, name: str, other: str | None = None) -> None:
        """Cut this host off, or from one other host only; nothing tells either of them."""
        if other is None:
            self._cut.add(name)
            self._switch("link", "set", f"port-{name}", "nomaster")
            return
        for here, there in ((name, other), (other, name)):
            entry = (self.addresses[there], "lladdr", _NOWHERE, "dev", "eth0", "nud", "permanent")
            self.run(here, "ip", "neighbour", "replace", *entry)

    def mend(self, name: str, other: str | None = None) -> None:
        if other is None:
            self._cut.discard(name)
            self._place(name)
            return
        for here, there in ((name, other), (other, name)):
            self.run(here, "ip", "neighbour", "delete", self.addresses[there], "dev", "eth0")

    def flap(self, name: str, other: str | None, times: int, down_s: float, up_s: float) -> None:
        """Cut and mend so often; it ends mended."""
        for _ in range(times):
            self.cut(name, other)
            time.sleep(down_s)
            self.mend(name, other)
            time.sleep(up_s)

    def make(self) -> None:
        for name in (*self.names, "switch"):
            _run("ip", "netns", "add", self.namespace(name))
            self.run(name, "ip", "link", "set", "lo", "up")
        self._switch("link", "add", "net", "type", "bridge", "forward_delay", "0")
        self._switch("link", "set", "net", "up")
        for name in self.names:
            here, switch = self.namespace(name), self.namespace("switch")
            pair = "eth0", "netns", here, "type", "veth", "peer", "name", f"port-{name}", "netns", switch
            _run("ip", "link", "add", *pair)
            self.run(name, "ip", "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            self.run(name, "ip", "link", "set", "eth0", "up")
            self._switch("link", "set", f"port-{name}", "up")
            self._place(name)
            self.throttle(name, 1e9, 1e9)

    def remove(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        for relay in self._relays.values():
            relay.kill()
            relay.communicate()
        _remove(self._id)

    def _switch(self, *command: str) -> None:
        self.run("switch", "ip", *command)

    def _place(self, name: str, bridge: str | None = None) -> None:
        """Plug the host's cable in where it belongs, unless it is cut."""
        where = bridge or (f"br-{name}" if name in self._relays else "net")
        if name not in self._cut:
            self._switch("link", "set", f"port-{name}", "master", where)

    def _limit(self, where: str, device: str, bits_per_s: float) -> None:
        bucket = "rate", f"{bits_per_s:.0f}bit", "burst", _BURST, "latency", _QUEUE
        self.run(where, "tc", "qdisc", "replace", "dev", device, "root", "tbf", *bucket)


@contextmanager
def hosts(*names: str) -> Iterator[Hosts]:
    """Skips the test, by name, where the system permits none."""
    if os.name != "posix" or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs the commands ip and tc")
    sweep()
    made = Hosts(names)
    try:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.strip()}")
        yield made
    finally:
        made.remove()


def sweep() -> None:
    """Remove what processes that are gone have left."""
    for found in _FOLDER.glob(f"{_PREFIX}-[0-9]*.[0-9]*-*"):
        owner = found.name.split("-")[1]
        if owner != _owner(int(owner.partition(".")[0])):
            _remove(found.name.rpartition("-")[0])


def _owner(process: int) -> str:
    """A process that runs, and its start: a number may be given again."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{process}.{fields[19]}"


def _remove(made: str) -> None:
    """Namespaces whose names begin so, with what still runs in them."""
    for found in _FOLDER.glob(f"{made}-*"):
        inside = subprocess.run(
            ["ip", "netns", "pids", found.name], capture_output=True, text=True, check=False
        )
        for process in map(int, inside.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", found.name], capture_output=True, check=False)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
