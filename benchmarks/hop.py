"""How long a hop takes, tensor to tensor, between two processes over loopback; how true a shaped link is.

    python benchmarks/hop.py

First table: the Zenoh transport (encode, send, receive, decode) and a raw TCP socket (length, then the
bytes), one frame at a time, in turns within one run. Second table: the same with TLS and certificates on
both sides. Third table: frames sent back to back over links shaped to a rate. Both processes read one
monotonic clock.
"""

from __future__ import annotations

import argparse
import random
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from planner.fleet import Link
from profiler.allocator import tune_allocator
from runtime.authority import issue, make_authority
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials
from runtime.shaping import Pacer, ShapedReceiver, ShapedSender
from runtime.transport import Receiver, Sender
from runtime.wire import Frame
from runtime.zenoh_transport import ZenohTransport

SIZES = (150_000, 600_000, 3_000_000)
RATES_BITS_PER_S = (1e6, 10e6, 100e6, 1e9)
SHAPED_SIZES = (4_000, 150_000, 3_000_000)
LATENCY_S = 0.002
TIMEOUT_S = 60.0
PREFIX = struct.Struct("<Qq")  # bytes that follow, monotonic nanoseconds at the start
PAUSE_S = 0.002  # between hops: a hop starts on a quiet machine, as in a pipeline with one request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="hops of each size and kind")
    parser.add_argument("--longest", type=float, default=1.3, help="seconds a shaped frame may take")
    parser.add_argument("--peer", nargs=3, metavar=("ENDPOINT", "PORT", "KEYS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    tune_allocator()
    if options.peer:
        return peer(*options.peer)
    with two_processes("") as (transport, connection), connection:
        print("unencrypted")
        compare(transport, connection, options.rounds)
    with tempfile.TemporaryDirectory(prefix="edgecut-hop-") as folder:
        make_authority(Path(folder), "hop")
        issue(Path(folder), "peer", Path(folder))
        issue(Path(folder), "workstation", Path(folder), workstation=True)
        with two_processes(folder) as (transport, connection), connection:
            print("\nTLS, certificates on both sides")
            compare(transport, connection, options.rounds)
    with two_processes("") as (transport, connection), connection:
        accuracy(transport, options.longest)


@contextmanager
def two_processes(keys: str) -> Iterator[tuple[ZenohTransport, socket.socket]]:
    """This process's two ways to the other one."""
    credentials = Credentials.load(Path(keys, "workstation")) if keys else None
    with (
        ZenohTransport(credentials=credentials) as transport,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        port = str(server.getsockname()[1])
        child = subprocess.Popen([sys.executable, __file__, "--peer", transport.endpoint, port, keys])
        try:
            connection, _ = server.accept()
            yield transport, wrapped(connection, credentials, server=True)
        finally:
            child.kill()
            child.wait()


def wrapped(connection: socket.socket, credentials: Credentials | None, server: bool) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if credentials is None:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(credentials.file(AUTHORITY))
    context.load_cert_chain(credentials.file(CERTIFICATE), credentials.file(KEY))
    name = None if server else "127.0.0.1"
    return context.wrap_socket(connection, server_side=server, server_hostname=name)


def compare(transport: ZenohTransport, connection: socket.socket, rounds: int) -> None:
    back, sender = transport.receiver("probe/back", 1000), transport.sender("probe/plain")
    sender.wait_ready(TIMEOUT_S)
    show("bytes", "Zenoh us", "socket us", "difference us", "ratio")
    for size in SIZES:
        array = np.random.default_rng(0).random(size // 4, np.float32)
        times: dict[str, list[float]] = {"zenoh": [], "socket": []}
        for _ in range(rounds):
            for kind in random.sample(list(times), 2):
                time.sleep(PAUSE_S)
                started = time.monotonic_ns()
                if kind == "zenoh":
                    sender.send(Frame((array,), marks=(started,)))
                else:
                    connection.sendall(PREFIX.pack(array.nbytes, started))
                    connection.sendall(array.data.cast("B"))
                times[kind].append(answer(back)["ns"] / 1e3)
        ours, raw = (statistics.median(times[kind][rounds // 10 :]) for kind in ("zenoh", "socket"))
        show(f"{size:,}", f"{ours:.0f}", f"{raw:.0f}", f"{ours - raw:.0f}", f"{ours / raw:.2f}")


def accuracy(transport: ZenohTransport, longest_s: float) -> None:
    back, sender = transport.receiver("probe/back", 1000), transport.sender("probe/shaped")
    sender.wait_ready(TIMEOUT_S)
    show("\nMbit/s asked", "bytes", "achieved", "error %", "after due us", "late")
    for rate in RATES_BITS_PER_S:
        link = Link("a", "b", rate / 8, LATENCY_S)
        for size in SHAPED_SIZES:
            if link.transfer_s(size) > longest_s:
                continue
            count = min(max(int(longest_s / link.transfer_s(size)), 2), 100)
            paced = ShapedSender(sender, Pacer(link))
            for _ in range(count):
                paced.send(Frame((np.zeros(size, np.uint8),)))
            done = [answer(back) for _ in range(count)]
            seconds = (done[-1]["handed"] - done[0]["sent"]) / 1e9 - LATENCY_S
            achieved = size * count * 8 / seconds
            after = statistics.median(one["handed"] - one["due"] for one in done) / 1e3
            late = sum(one["late"] for one in done)
            error = f"{(achieved / rate - 1) * 100:+.2f}"
            show(
                f"{rate / 1e6:g}",
                f"{size:,}",
                f"{achieved / 1e6:.4g}",
                error,
                f"{after:.0f}",
                f"{late}/{count}",
            )


def peer(endpoint: str, port: str, keys: str) -> None:
    """The other process: answers every frame with what it measured."""
    credentials = Credentials.load(Path(keys, "peer")) if keys else None
    with (
        ZenohTransport(endpoint, credentials=credentials) as transport,
        wrapped(socket.create_connection(("127.0.0.1", int(port))), credentials, False) as connection,
    ):
        plain = transport.receiver("probe/plain", 10)
        shaped = ShapedReceiver(transport.receiver("probe/shaped", 1000))
        back = transport.sender("probe/back")
        back.wait_ready(TIMEOUT_S)
        for work, source in ((answer_plain, plain), (answer_shaped, shaped)):
            threading.Thread(target=work, args=(source, back), daemon=True).start()
        answer_socket(connection, back)


def answer_plain(plain: Receiver, back: Sender) -> None:
    while (frame := plain.receive()) is not None:
        back.send(Frame(body={"ns": time.monotonic_ns() - frame.marks[0]}))


def answer_shaped(shaped: Receiver, back: Sender) -> None:
    while (frame := shaped.receive()) is not None:
        handed, late = time.monotonic_ns(), frame.late_s > 0
        back.send(Frame(body={"sent": frame.sent_ns, "due": frame.due_ns, "handed": handed, "late": late}))


def answer_socket(connection: socket.socket, back: Sender) -> None:
    prefix = bytearray(PREFIX.size)
    while fill(connection, memoryview(prefix)):
        nbytes, started = PREFIX.unpack(prefix)
        array = np.empty(nbytes // 4, np.float32)
        fill(connection, array.data.cast("B"))
        back.send(Frame(body={"ns": time.monotonic_ns() - started}))


def fill(connection: socket.socket, view: memoryview) -> bool:
    while len(view):
        received = connection.recv_into(view)
        if not received:
            return False
        view = view[received:]
    return True


def answer(back: Receiver) -> dict[str, int]:
    frame = back.receive(TIMEOUT_S)
    if frame is None or frame.body is None:
        raise SystemExit("the other process does not answer")
    return frame.body


def show(*cells: str) -> None:
    print("".join(cell.rjust(14) for cell in cells).lstrip("\n"), flush=True)


if __name__ == "__main__":
    main()
