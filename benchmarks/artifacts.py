"""How quickly a file gets to an agent over loopback: python benchmarks/artifacts.py [MB ...]

In turns within one run, to a process that hashes it, writes it and syncs it to disk: as artifacts travel (pieces of
uint8 with credit), up to 100 MB as base64 in JSON requests of 4 MiB, one after the other (how inputs travelled
before), and over a bare TCP socket. Then a file that was cut off half-way.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from runtime.agent import Agent, Progress
from runtime.agent_messages import LEASE_S, Body
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.artifact_store import ArtifactStore
from runtime.artifacts import ArtifactService, send_file
from runtime.zenoh_transport import ZenohTransport

SIZES_MB = (12, 100, 350)
BASE64_MB = 100
ROUNDS = 5
BASE64_BYTES = 4 << 20


def main() -> None:
    if sys.argv[1:2] == ["--agent"]:
        return serve(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    sizes = [int(each) for each in sys.argv[1:]] or SIZES_MB
    with tempfile.TemporaryDirectory(prefix="edgecut-artifacts-") as name, ZenohTransport() as transport:
        folder = Path(name)
        with AgentNetwork(transport) as network, socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            arguments = [sys.executable, __file__, "--agent", transport.endpoint, port, str(folder / "agent")]
            process = subprocess.Popen(arguments)
            connection, _ = server.accept()
            try:
                client = AgentClient("nano", network, transport.endpoint)
                client.request("hello")
                compare(client, connection, folder, sizes)
                cut_off(client, folder, max(sizes))
            finally:
                process.kill()


def compare(client: AgentClient, connection: socket.socket, folder: Path, sizes: Sequence[int]) -> None:
    ways: dict[str, Callable[[Path, str], object]] = {
        "artifact": lambda file, digest: send_file(client, file, digest, ""),
        "base64": lambda file, digest: send_base64(client, file),
        "socket": lambda file, digest: send_socket(connection, file),
    }
    print(f"{'MB':>6}  {'way':>9}  {'median s':>9}  {'MB/s':>6}  {'sender CPU s':>12}")
    for megabytes in sizes:
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(ROUNDS):
            file, digest = made(folder / "file", megabytes, turn)
            for way, send in ways.items():
                if way == "base64" and megabytes > BASE64_MB:
                    continue
                begun, worked = time.perf_counter(), time.process_time()
                send(file, digest)
                seconds[way].append((time.perf_counter() - begun, time.process_time() - worked))
        for way, taken in ((way, taken) for way, taken in seconds.items() if taken):
            wall, cpu = (statistics.median(each) for each in zip(*taken, strict=True))
            print(
                f"{megabytes:>6}  {way:>9}  {wall:>9.2f}  {megabytes / wall:>6.0f}  {cpu:>12.2f}", flush=True
            )


def cut_off(client: AgentClient, folder: Path, megabytes: int) -> None:
    file, digest = made(folder / "file", megabytes, 99)

    def break_off(sent: int, total: int) -> None:
        if sent > total / 2:
            raise KeyboardInterrupt

    begun = time.perf_counter()
    try:
        send_file(client, file, digest, "", break_off)
    except KeyboardInterrupt:
        first_s = time.perf_counter() - begun
    arrived: list[int] = []
    begun = time.perf_counter()
    send_file(client, file, digest, "", lambda sent, total: arrived.append(sent))
    at = next(each for each in arrived if each) / 1e6
    print(
        f"{megabytes} MB cut off after {first_s:.2f} s, resumed at {at:.0f} MB: {time.perf_counter() - begun:.2f} s"
    )


def made(file: Path, megabytes: int, seed: int) -> tuple[Path, str]:
    content = np.random.default_rng([megabytes, seed]).bytes(megabytes * 1_000_000)
    file.write_bytes(content)
    return file, hashlib.sha256(content).hexdigest()


def send_base64(client: AgentClient, file: Path) -> None:
    with file.open("rb") as stream:
        while data := stream.read(BASE64_BYTES):
            client.request("base64", {"data": base64.b64encode(data).decode()})
    client.request("end")


def send_socket(connection: socket.socket, file: Path) -> None:
    with file.open("rb") as stream:
        connection.sendall(file.stat().st_size.to_bytes(8, "little"))
        connection.sendfile(stream)
    assert connection.recv(1)


class Sink:
    """A file that is hashed, written and synced."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._open()

    def _open(self) -> None:
        self._sha256, self._stream = hashlib.sha256(), self._file.open("wb")

    def write(self, data: bytes) -> None:
        self._sha256.update(data)
        self._stream.write(data)

    def end(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._sha256.hexdigest()
        self._open()


def serve(endpoint: str, port: int, folder: Path) -> None:
    store = ArtifactStore(folder, 1 << 40)
    plain, coded = Sink(folder / "plain"), Sink(folder / "coded")
    connection = socket.create_connection(("127.0.0.1", port))

    def take() -> None:
        while head := connection.recv(8, socket.MSG_WAITALL):
            left = int.from_bytes(head, "little")
            while left:
                data = connection.recv(min(left, 1 << 19))
                plain.write(data)
                left -= len(data)
            plain.end()
            connection.sendall(b"!")

    def decode(body: Body, progress: Progress) -> Body:
        coded.write(base64.b64decode(body["data"], validate=True))
        return {}

    def end(body: Body, progress: Progress) -> Body:
        coded.end()
        return {}

    threading.Thread(target=take, daemon=True).start()
    with ZenohTransport(endpoint, lease_s=LEASE_S) as transport:
        agent = Agent("nano", transport)
        ArtifactService(agent, store)
        agent.handle("base64", decode)
        agent.handle("end", end)
        agent.serve()


if __name__ == "__main__":
    main()
