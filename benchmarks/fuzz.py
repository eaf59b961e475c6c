"""Malformed frames and files, sent to an agent: python benchmarks/fuzz.py [--frames N] [--connections N]

One `edgecut agent` with keys, two peers:

    stranger      without the fleet's keys: random bytes, spoilt TLS records and handshakes, no certificate,
                  another authority's; a connection sends RECORDS of them, and has to be closed
    workstation   with keys: on the agent's channels random bytes, spoilt frames and chunks, bad JSON, orders
                  with bodies that cannot be, pieces of files that do not fit

The agent must not end, grow (memory, threads, open files), accept one of them or keep a file of theirs, and
serve an order afterwards; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from malformed import CLIENT, ORDERS, bad_json, client_hello, damaged, spoilt, with_body

from planner import Device, Fleet
from planner.errors import EdgecutError
from runtime.access import FRAMES
from runtime.agents import AgentClient
from runtime.artifacts import send_file
from runtime.authority import issue, make_authority
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY
from runtime.fleet_agents import fleet_agents
from runtime.security import Security
from runtime.wire import Frame, encode

RECORDS = 50
BURST = 24  # an agent takes 64 orders that wait; more would be lost rather than refused
ANSWER_TIMEOUT_S = 5.0
GROWTH_BYTES = 40 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=50_000, help="of the workstation")
    parser.add_argument(
        "--connections", type=int, default=1_000, help=f"of the stranger, {RECORDS} records each"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="edgecut-fuzz-") as name, agent(Path(name)) as (process, address):
        folder = Path(name)
        security = Security.of(folder / "lab" / "laptop")
        fleet = Fleet("nano", "nano", (Device("nano", address=address),), ())
        ok = True
        with fleet_agents(fleet, ["nano"], folder / "unused", security=security) as agents:
            peer = Workstation(agents["nano"], folder, rng)
            peer.run(max(options.frames // 10, 50))  # what it loads once is not growth
            strangers(address, folder, 5, rng)
            for what, run in (
                ("stranger", lambda: strangers(address, folder, options.connections, rng)),
                ("workstation", lambda: peer.run(options.frames)),
            ):
                before, begun = state(process.pid), time.perf_counter()
                counted = run()
                peer.serves()
                ok &= judge(what, counted, before, state(process.pid), time.perf_counter() - begun)
        kept = [each.name for each in (folder / "agent").rglob("*") if each.is_file() and each.name[0] != "."]
        print(f"files kept: {len(kept)}, those that were sent whole")
        ok &= process.poll() is None and set(kept) == peer.whole
    print("passed" if ok else "FAILED")
    sys.exit(not ok)


def judge(
    what: str, counted: Counter[str], before: dict[str, int], after: dict[str, int], took_s: float
) -> bool:
    print(
        f"{what}: {', '.join(f'{value} {name}' for name, value in sorted(counted.items()))}, {took_s:.0f} s"
    )
    print("   ", ", ".join(f"{name} {before[name]:,} -> {after[name]:,}" for name in before))
    small = after["bytes"] - before["bytes"] < GROWTH_BYTES
    steady = all(after[name] <= before[name] + 8 for name in ("threads", "files"))
    return small and steady and not counted["accepted"] and not counted["open"]


def state(pid: int) -> dict[str, int]:
    time.sleep(6.0)  # until orders of clients that never were are given up
    status = Path(f"/proc/{pid}/status").read_text()
    found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.split()[1:]}
    files = len([*Path(f"/proc/{pid}/fd").iterdir()])
    return {"bytes": int(found["VmRSS"]) << 10, "threads": int(found["Threads"]), "files": files}


@contextmanager
def agent(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    for fleet in ("lab", "other"):
        make_authority(folder / fleet, fleet)
        for name in ("nano", "laptop"):
            issue(folder / fleet, name, folder / fleet, workstation=name == "laptop")
    command = [sys.executable, "-c", "from runtime.cli import main; main()", "agent", "--name", "nano"]
    command += ["--listen", "tls/127.0.0.1:0", "--keys", str(folder / "lab" / "nano")]
    command += ["--folder", str(folder / "agent"), "--cache-limit", "50MB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            logger = threading.Thread(target=list, args=(process.stdout,))
            logger.start()
            yield process, line.split()[3].rstrip(";")
        finally:
            process.terminate()
            logger.join()


# --- a stranger


def strangers(address: str, folder: Path, connections: int, rng: random.Random) -> Counter[str]:
    port = int(address.rpartition(":")[2])
    counted: Counter[str] = Counter()
    hello = client_hello()
    for _ in range(connections):
        kind = rng.choice((noise, spoilt_hello, bad_records, no_certificate, other_authority))
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.settimeout(10)
            try:
                kind(connection, folder, hello, rng)
                closed = answered_by_closing(connection)
            except TimeoutError:
                closed = False
            except OSError:
                closed = True
            counted["refused" if closed else "open"] += RECORDS
    return counted


def answered_by_closing(connection: socket.socket) -> bool:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 16):
        pass
    return True


def noise(connection: socket.socket, folder: Path, hello: bytes, rng: random.Random) -> None:
    for _ in range(RECORDS):
        connection.sendall(rng.randbytes(rng.randrange(1, 2000)))


def spoilt_hello(connection: socket.socket, folder: Path, hello: bytes, rng: random.Random) -> None:
    for _ in range(RECORDS):
        connection.sendall(spoilt(hello, rng))


def bad_records(connection: socket.socket, folder: Path, hello: bytes, rng: random.Random) -> None:
    connection.sendall(hello)
    for _ in range(RECORDS):
        body = rng.randbytes(rng.randrange(0, 500))
        connection.sendall(bytes([rng.randrange(20, 25), 3, 3]) + len(body).to_bytes(2, "big") + body)


def no_certificate(connection: socket.socket, folder: Path, hello: bytes, rng: random.Random) -> None:
    handshake(connection, folder, None, rng)


def other_authority(connection: socket.socket, folder: Path, hello: bytes, rng: random.Random) -> None:
    handshake(connection, folder, folder / "other" / "laptop", rng)


def handshake(connection: socket.socket, folder: Path, keys: Path | None, rng: random.Random) -> None:
    """A good handshake with the wrong keys, and then what Zenoh would say, spoilt."""
    context = ssl.create_default_context(cafile=str(folder / "lab" / AUTHORITY))
    if keys:
        context.load_cert_chain(keys / CERTIFICATE, keys / KEY)
    with context.wrap_socket(connection, server_hostname="127.0.0.1") as tls:
        for _ in range(RECORDS):
            tls.sendall(rng.randbytes(2) + b"\x01\x08" + rng.randbytes(rng.randrange(100)))
        answered_by_closing(tls)


# --- a workstation


class Workstation:
    """``whole``: the files that it sent as they should be."""

    def __init__(self, client: AgentClient, folder: Path, rng: random.Random) -> None:
        self._client, self._folder, self._rng = client, folder, rng
        self.whole: set[str] = set()
        self._session = client.transport._session
        self.serves()
        self._address = client._sender.channel

    def serves(self) -> None:
        """An order and a file, as they should be. Raises what comes instead."""
        data = self._rng.randbytes(700_000)
        digest = hashlib.sha256(data).hexdigest()
        file = self._folder / "sent"
        file.write_bytes(data)
        for patience in (6, 6, 0):
            try:
                assert self._client.request("hello", timeout_s=ANSWER_TIMEOUT_S)["name"] == "nano"
                send_file(self._client, file, digest, "")
                break
            except EdgecutError:  # orders of clients that never were are given up after 5 s
                if not patience:
                    raise
                time.sleep(patience)
        self.whole.add(digest)

    def run(self, count: int) -> Counter[str]:
        """``count`` malformed frames; what became of them."""
        counted: Counter[str] = Counter()
        while count > 0:
            for _ in range(BURST):
                self._put(*self._frame())
            counted["frames"] += BURST
            order = self._rng.choice(list(ORDERS))
            counted[self._asked(order, damaged(ORDERS[order], self._rng))] += 1
            if self._rng.random() < 0.2:
                counted[self._pieces()] += 1
                count -= 1
            count -= BURST + 1
        return counted

    def _put(self, channel: str, data: bytes, place: bytes | None) -> None:
        self._session.put(FRAMES + channel, data, attachment=place)

    def _frame(self) -> tuple[str, bytes, bytes | None]:
        """A channel, bytes and attachment, of which at least one is wrong."""
        rng = self._rng
        request = {"client": CLIENT, "who": "fuzz", "order": "no such order", "body": {}}
        good = bytes(encode(Frame(body=request, request=rng.getrandbits(31))))
        kind = rng.randrange(6)
        if kind == 0:
            return self._address, rng.randbytes(rng.randrange(1, 3000)), None
        if kind == 1:
            return self._address, spoilt(good, rng), None
        if kind == 2:  # chunks: of no frame, past its end, of one too large, never finished
            total, offset = rng.choice(
                ((1 << 60, 0), (len(good), 7), (5, 0), (16 << 20, 0), (1 << 63, 1 << 63))
            )
            packed = b"".join(each.to_bytes(8, "little") for each in (rng.getrandbits(64), total, offset))
            return self._address, good, packed
        if kind == 3:
            return self._address, good, rng.randbytes(rng.randrange(0, 40))
        if kind == 4:
            return self._address, with_body(good, bad_json(rng)), None
        channel = (
            rng.choice(("artifact/nano/", "leg/nano/", "agent/nano/", "probe/")) + rng.randbytes(8).hex()
        )
        return channel, spoilt(bytes(encode(Frame((np.zeros(9, np.float32),)))), rng), None

    def _asked(self, order: str, body: Any) -> str:
        try:
            self._client.request(order, body, timeout_s=ANSWER_TIMEOUT_S)
            print("accepted:", order, body)
            return "accepted"
        except EdgecutError as error:
            if "orders under way" not in error.message:
                return "unanswered" if "said nothing" in error.message else "orders refused"
            time.sleep(1)
            return "orders too many"

    def _pieces(self) -> str:
        """The start of a good file and then a piece that does not fit."""
        rng = self._rng
        digest = rng.randbytes(32).hex()

        def sent(arrival: dict[str, Any]) -> None:
            size, mark = rng.choice(((100, 1 << 40), (1 << 21, 0), (100, -1), (10_000, 0), (1000, 0)))
            dtype = rng.choice((np.uint8, np.int64))
            tensors = (np.zeros(size, dtype),) * rng.choice((1, 1, 2))
            frame = bytes(encode(Frame(tensors, marks=(mark,))))
            frame = frame if rng.random() < 0.5 else spoilt(frame, rng)
            self._put(f"artifact/nano/{arrival['channel']}", frame, None)

        try:
            body = {"digest": digest, "nbytes": 1000}
            self._client.request("put", body, timeout_s=ANSWER_TIMEOUT_S, progress=sent)
            return "accepted"
        except EdgecutError:
            return "files refused"


if __name__ == "__main__":
    main()
