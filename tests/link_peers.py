"""Processes that offer a device's part in link measurements, told over pipes.

``python link_peers.py CONNECT LISTEN`` (CONNECT may be ``-``) is one such process: a line of JSON in, notes
of progress and then an answer out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
            print(json.dumps(line), flush=True)

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


if __name__ == "__main__":
    serve(*sys.argv[1:])
