"""Processes that offer a device's part in link measurements, told over pipes; network namespaces for them.

``python link_peers.py CONNECT LISTEN`` (CONNECT may be ``-``) is one such process: a line of JSON in, notes
of progress and then an answer out.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from planner.errors import TransportError, WorkerError
from runtime.agent_messages import HELLO
from runtime.link_measure import ECHO, PROBE, LinkService
from runtime.transport import Transport
from runtime.zenoh_transport import ZenohTransport


def offered(transport: Transport) -> dict[str, Any]:
    """Handlers by order: those of an agent that links need."""
    links = LinkService(transport)
    return {HELLO: lambda body, progress: {}, ECHO: links.echo, PROBE: links.probe}


def serve(connect: str, listen: str) -> None:
    with ZenohTransport(None if connect == "-" else connect, listen) as transport:

        def say(line: dict[str, Any]) -> None:
            print(json.dumps(line), flush=True)  # noqa: T201

        say({"endpoint": transport.endpoint})
        handlers = offered(transport)
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                answer = {"result": handlers[asked["order"]](asked["body"], say)}
            except TransportError as error:
                answer = {"error": error.message}
            say(answer)


class Peer:
    """A process as in ``serve``, ``prefix`` before its command; it meets the interface of an agent."""

    def __init__(
        self, connect: str = "-", listen: str = "tcp/127.0.0.1:0", prefix: tuple[str, ...] = ()
    ) -> None:
        command = [*prefix, sys.executable, __file__, connect, listen]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        self.endpoint = self._answer()["endpoint"]

    def request(self, order: str, body: dict[str, Any], *, timeout_s: float = 0, progress: Any = None) -> Any:
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps({"order": order, "body": body}).encode() + b"\n")
        except BrokenPipeError:
            raise WorkerError("the peer has gone") from None
        while "note" in (answer := self._answer()):
            progress(answer)
        if "error" in answer:
            raise TransportError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError("the peer has gone")
        return json.loads(line)


class Namespaces:
    """Two network namespaces joined by a cable, each end with an address."""

    def __init__(self, name: str) -> None:
        self.names = f"{name}a", f"{name}b"
        self.addresses = "10.77.0.1", "10.77.0.2"

    def prefix(self, end: int) -> tuple[str, ...]:
        return "ip", "netns", "exec", self.names[end]

    def inside(self, end: int, *command: str) -> None:
        _run(*self.prefix(end), *command)

    def limit(self, end: int, bits_per_s: float) -> None:
        """What leaves this end does so at the rate, after a burst of 16 KB."""
        rate = f"{bits_per_s:.0f}bit"
        self.inside(
            *(end, "tc", "qdisc", "replace", "dev", "cable", "root"),
            *("tbf", "rate", rate, "burst", "16kb", "latency", "2000ms"),
        )

    def cut(self, end: int) -> None:
        self.inside(end, "ip", "link", "set", "cable", "down")


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Skips the test, by name, where the system permits none."""
    if os.name != "posix" or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("needs the commands ip and tc")
    made = Namespaces(f"ec{secrets.token_hex(3)}")
    try:
        try:
            for name in made.names:
                _run("ip", "netns", "add", name)
            one, other = made.names
            cable = "ip", "link", "add", "cable", "netns", one, "type", "veth"
            _run(*cable, "peer", "name", "cable", "netns", other)
            for end in (0, 1):
                made.inside(end, "ip", "address", "add", f"{made.addresses[end]}/24", "dev", "cable")
                made.inside(end, "ip", "link", "set", "cable", "up")
                made.inside(end, "ip", "link", "set", "lo", "up")
                made.limit(end, 1e9)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.strip()}")
        yield made
    finally:
        for name in made.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
