"""Malformed, oversized, slow and dishonest requests: answered or cut off, and the next good one is answered."""

from __future__ import annotations

import gc
import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from serving import BODY_BYTES, PATIENCE_S, Served, served
from test_serve import QUEUE, WINDOW, deployed, paused

from runtime.pipeline import Pipeline
from runtime.serving import connection as connections
from runtime.serving.openapi import openapi
from runtime.serving.protocol import Signature

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

VALUES = np.zeros((1, 3, 32, 32), np.float32)
HEADER = json.dumps(
    {
        "inputs": [
            {"name": "x", "shape": [1, 3, 32, 32], "datatype": "FP32",
             "parameters": {"binary_data_size": VALUES.nbytes}}
        ]
    }
).encode()  # fmt: skip
BODY = HEADER + VALUES.tobytes()
GOOD = {"Inference-Header-Content-Length": str(len(HEADER))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Signature]]:
    with deployed(tmp_path_factory.mktemp("abuse")) as found:
        yield found


@pytest.fixture(scope="module")
def server(made: tuple[Pipeline, Signature]) -> Iterator[Served]:
    with served(*made, queue=QUEUE) as found:
        yield found


@pytest.fixture(autouse=True)
def _answers_afterwards(server: Served) -> Iterator[None]:
    """Whatever a test sent, a good request is answered, and nothing is held for what is gone."""
    yield
    assert good(server) == 200
    until(lambda: server.service.dispatcher.held == 0)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def good(server: Served) -> int:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v2/models/tiny/infer", BODY, GOOD)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def head(length: int | str = len(BODY), **headers: str) -> bytes:
    lines = {"Host": "localhost", "Content-Length": str(length), "Connection": "close", **GOOD}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"POST /v2/models/tiny/infer HTTP/1.1\r\n{text}\r\n".encode("latin-1")


def sent(server: Served, data: bytes, ends: bool = False) -> bytes:
    """Everything the server answers to these bytes until it ends the connection; ``ends``: we do."""
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def send_on(connection: socket.socket, data: bytes) -> None:
    while True:
        connection.sendall(data)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            found += part
    return found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00" * 4000, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /v2 HTTP/9.9\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET http://[::1/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"BREW /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n", 200),
        (b"GET /v2 HTTP/1.1\r\nHo st: localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 200_000, 431),
        (b"GET /v2 HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 400),
        (head(length="-5"), 400),
        (head(length="5, 6"), 400),
        (head(length="9" * 30), 400),
        (head(length="1e3"), 400),
        (head(length=10**15), 413),
        (head(length=BODY_BYTES + 1), 413),
        (head(Transfer_Encoding="chunked"), 400),
        (head(length="", Transfer_Encoding="chunked") + b"zz\r\n", 400),
        (head(length="", Transfer_Encoding="chunked") + b"-1\r\n", 400),
        (head(length="", Transfer_Encoding="chunked") + b"f" * 20 + b"\r\n", 400),
        (head(length="", Transfer_Encoding="chunked") + b"1;" + b"x" * 300_000, 431),
        (head(length="", Transfer_Encoding="chunked") + b"1\r\nx\r\n" * 60_000, 431),
        (head(length="", Transfer_Encoding="chunked") + b"0\r\n" + b"X: y\r\n" * 60_000, 400),
        (head(length=2, Inference_Header_Content_Length="2") + b"{}", 400),
        (head(Inference_Header_Content_Length="9" * 25) + BODY, 400),
        (head(Inference_Header_Content_Length="\xb2".encode().decode("latin-1")) + BODY, 400),
        (head(Content_Encoding="gzip") + BODY, 400),
        (head(length=10, Content_Encoding="gzip") + b"\x1f\x8b" + bytes(8), 400),
    ],
    ids=lambda value: value[-24:].hex() if isinstance(value, bytes) else str(value),
)  # fmt: skip
def test_what_is_no_good_request_is_answered_or_cut_off(server: Served, data: bytes, status: int) -> None:
    found = sent(server, data)
    if found or status != 431:  # cut off in the middle of sending, an answer may be lost on its way
        assert found.startswith(b"HTTP/1.1 %d " % status), found[:300]
        assert b'{"error":' in found.replace(b'"error": ', b'"error":') or status == 200


@pytest.mark.parametrize("end", [0, 1, 40, 120, len(head()), len(head()) + 5, len(head()) + len(BODY) - 1])
def test_a_request_that_ends_early_leaves_nothing(server: Served, end: int) -> None:
    assert sent(server, (head() + BODY)[:end], ends=True) == b""


def test_a_packed_body_may_not_become_too_large(server: Served) -> None:
    bomb = gzip.compress(bytes(50 * BODY_BYTES))
    found = sent(server, head(length=len(bomb), Content_Encoding="gzip") + bomb)
    assert found.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_refused_body_is_thrown_away_and_the_connection_goes_on(server: Served, chunked: bool) -> None:
    if chunked:
        first = head(length="", Transfer_Encoding="chunked", Connection="")
        first += (b"10000\r\n" + bytes(65536) + b"\r\n") * 20 + b"0\r\n\r\n"
    else:
        first = head(length=2 * BODY_BYTES, Connection="") + bytes(2 * BODY_BYTES)
    found = sent(server, first + head() + BODY)
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"HTTP/1.1 200 OK" in found


def test_an_endless_refused_body_is_cut_off(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_BYTES", 1 << 20)
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head(length=10**15, Connection=""))
        with pytest.raises(ConnectionError):
            send_on(connection, bytes(1 << 16))


def test_requests_in_a_row_are_answered_in_order(server: Served) -> None:
    model = b"GET /v2/models/tiny HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = model.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    infer = head(Connection="") + BODY
    found = sent(server, infer + model + infer + last)
    places = [found.index(b"model_version"), found.index(b'"platform"'), found.rindex(b"model_version")]
    assert places == sorted(places)
    assert found.count(b"HTTP/1.1 200 OK") == 4


def test_too_many_requests_in_a_row_are_cut_off(server: Served) -> None:
    found = sent(server, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
    assert found.count(b"HTTP/1.1 200 OK") <= connections.MOST_PIPELINED + 1


@pytest.mark.parametrize(
    "begin", [b"", head()[:30], head(), head() + BODY[:50], head(length=10**15, Connection="") + BODY]
)
def test_a_client_that_stalls_is_cut_off(
    server: Served, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 0.2)
    monkeypatch.setattr(connections, "IDLE_S", 0.2)
    found = sent(server, begin)
    if begin:
        assert found.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 413 "))
    until(lambda: server.service.dispatcher.held == 0)


@pytest.mark.parametrize("begin", [b"", head(), head(length=10**15, Connection="")])
def test_a_client_that_drips_is_cut_off(
    server: Served, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 0.2)
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(begin)
        deadline_s = time.monotonic() + PATIENCE_S
        with suppress(ConnectionError):
            while time.monotonic() < deadline_s:
                connection.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() < deadline_s


def test_a_steady_body_is_waited_for(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "GRACE_S", 5.0)
    monkeypatch.setattr(connections, "LEAST_BYTES_PER_S", 1)
    with socket.create_connection((server.host, server.port), timeout=PATIENCE_S) as connection:
        data = head(Connection="close") + BODY
        for begin in range(0, len(data), 1000):
            connection.sendall(data[begin : begin + 1000])
            time.sleep(0.01)
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_cut_off(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_S", 0.2)
    lines = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect((server.host, server.port))
        with pytest.raises(ConnectionError):
            send_on(connection, lines)


def test_idle_connections_make_room_for_who_has_something_to_say(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 4)
    idle = [socket.create_connection((server.host, server.port), timeout=PATIENCE_S) for _ in range(10)]
    try:
        assert good(server) == 200
        until(lambda: sum(map(has_ended, idle)) >= 7)
    finally:
        for each in idle:
            each.close()


def has_ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_bodies_are_not_read_while_there_is_no_room(made: tuple[Pipeline, Signature], server: Served) -> None:
    places = WINDOW + QUEUE
    waiting = [
        socket.create_connection((server.host, server.port), timeout=PATIENCE_S) for _ in range(places)
    ]
    try:
        for each in waiting:
            each.sendall(head())  # and no body yet
        until(lambda: server.service.dispatcher.held == places)
        assert sent(server, head()).startswith(b"HTTP/1.1 503 ")
        for each in waiting:
            each.sendall(BODY)
        for each in waiting:
            assert each.recv(12) == b"HTTP/1.1 200"
    finally:
        for each in waiting:
            each.close()


def test_memory_does_not_grow(made: tuple[Pipeline, Signature], server: Served) -> None:
    bomb = gzip.compress(bytes(20 * BODY_BYTES))
    kinds = [
        head(length=10**15) + bytes(BODY_BYTES),
        head(length=len(bomb), Content_Encoding="gzip") + bomb,
        head(length=BODY_BYTES, Inference_Header_Content_Length="") + b"[" * BODY_BYTES,
        head(length="", Transfer_Encoding="chunked") + b"1\r\nx\r\n" * 20_000,
        b"GET /" + b"a" * 200_000,
    ]

    def round_(times: int) -> None:
        for _ in range(times):
            for each in kinds:
                sent(server, each)
            good(server)
        with paused(made[0]):
            for _ in range(WINDOW + QUEUE):
                with socket.create_connection((server.host, server.port)) as connection:
                    connection.sendall(head() + BODY)
                    until(lambda: server.service.dispatcher.held == 1)
                until(lambda: server.service.dispatcher.held == 0)
        gc.collect()

    round_(3)
    before, threads = resident_bytes(), threading.active_count()
    round_(25)
    assert resident_bytes() - before < 20_000_000
    assert threading.active_count() <= threads + 4  # those that unpack are kept
    until(lambda: not made[0].waiting_for(made[0]._target))


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


@pytest.fixture(scope="module")
def described(server: Served, made: tuple[Pipeline, Signature]) -> Any:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    connection.request("GET", "/openapi.json")
    found = json.loads(connection.getresponse().read())
    connection.close()
    assert found == openapi(made[1])
    return schemathesis.openapi.from_dict(found)


def test_the_endpoint_does_what_its_description_says(described: Any, server: Served) -> None:
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 15
    for operation in operations:
        takes_something = "{" in operation.path or operation.method == "post"
        for mode in list(GenerationMode) if takes_something else [GenerationMode.POSITIVE]:
            check = settings(max_examples=10, suppress_health_check=list(HealthCheck), deadline=None)
            check(given(case=operation.as_strategy(generation_mode=mode))(keeps(f"http://{server.url}")))()


def keeps(url: str) -> Callable[[Any], None]:
    def call(case: Any) -> None:
        # How many values a shape asks for, no schema can say.
        case.call_and_validate(url, excluded_checks=[positive_data_acceptance])

    return call
