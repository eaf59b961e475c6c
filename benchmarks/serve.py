"""What serving a plan adds to its pipeline: time to an answer, and requests a second.

    python benchmarks/serve.py

A network of next to no work takes 600 KB and gives a thousand numbers, so that what is measured is the way there and
back. First table: one request at a time, given to the pipeline and sent over HTTP on loopback in turns. Second:
clients that send again as soon as they are answered, against the pipeline given as much at once. The server is a
process of its own, as `edgecut serve` is; so are the clients, and the stages' agents.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import by_hand
import numpy as np
import torch
from torch import nn

from planner import Device, Emulation, Fleet, InputSpec, ModelSource
from profiler import cut_model, load_model
from profiler.allocator import tune_allocator
from runtime.adviser import StaticAdviser
from runtime.bundles import preparation
from runtime.pipeline import Pipeline, opened
from runtime.serving.app import application
from runtime.serving.guard import Endpoint
from runtime.serving.server import listener, serve
from runtime.serving.signature import signature_of

SHAPE = (3, 224, 224)
HEADER = {
    "inputs": [
        {"name": "x", "shape": [1, *SHAPE], "datatype": "FP32", "parameters": {"binary_data_size": 602112}}
    ],
    "parameters": {"binary_data_output": True},
}
PAUSE_S = 0.002  # between requests of the first table: each begins on a quiet machine


class Thin(nn.Module):
    """Every input is read, and little is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="of each way, for the first table")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each cell of the second table")
    parser.add_argument("--rounds", type=int, default=3, help="of the second table")
    options = parser.parse_args()
    tune_allocator()
    with pipeline() as (made, port):
        latency(made, port, options.requests)
        throughput(made, port, options.seconds, options.rounds)


@contextmanager
def pipeline() -> Iterator[tuple[Pipeline, int]]:
    """One stage, on an agent over loopback; and the port of its server."""
    source = ModelSource("serve:Thin", inputs=(InputSpec(SHAPE),))
    model = load_model(source)
    cut = cut_model(model)
    fleet = Fleet("device", "device", (Device("device", emulate=Emulation(1)),), ())
    plan = by_hand.plan_by_hand(cut, fleet, (), ["device"], [0.001] * len(cut.chain))
    endpoint = Endpoint.of("127.0.0.1:0")
    with tempfile.TemporaryDirectory() as name, listener(endpoint) as listening:
        prepare = preparation(cut, Path(name, "bundles"))
        with opened(StaticAdviser(plan), prepare, Path(name), window=4) as made:
            signature = signature_of(model, plan.chain, 1, "thin", 16_000_000)
            app, stop = application(made, signature, max_body_bytes=16_000_000), threading.Event()
            server = threading.Thread(target=serve, args=(app, endpoint, listening, stop.is_set))
            server.start()
            try:
                yield made, listening.getsockname()[1]
            finally:
                stop.set()
                server.join()


def latency(made: Pipeline, port: int, requests: int) -> None:
    array = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=one_by_one, args=(theirs, port), daemon=True)
    child.start()
    times: dict[str, list[float]] = {}

    def note(way: str, seconds: float) -> None:
        times.setdefault(way, []).append(seconds)

    for _ in range(requests):
        time.sleep(PAUSE_S)
        begun = time.perf_counter()
        made.submit((array,)).result()
        note("pipeline", time.perf_counter() - begun)
        for way in ("http.client", "tritonclient"):
            time.sleep(PAUSE_S)
            ours.send(way)
            note(way, ours.recv())
    ours.send("")
    child.join()
    print(f"{'600 KB, one at a time':24}{'median ms':>12}{'added ms':>12}{'p10 ms':>12}{'added ms':>12}")
    alone: tuple[float, ...] = ()
    for way, each in times.items():
        kept = [seconds * 1e3 for seconds in each[len(each) // 10 :]]  # the first ones warm up
        found = statistics.median(kept), statistics.quantiles(kept, n=10)[0]
        alone = alone or found
        shown = "".join(f"{ms:12.3f}{ms - base:12.3f}" for ms, base in zip(found, alone, strict=True))
        print(f"{way:24}{shown}", flush=True)


def one_by_one(orders: Connection, port: int) -> None:
    """Send a request when told which way, and say how long it took."""
    import tritonclient.http as triton

    connection, body, headers = http.client.HTTPConnection("127.0.0.1", port), *request()
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    tensor = triton.InferInput("x", [1, *SHAPE], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, *SHAPE), np.float32))
    while way := orders.recv():
        begun = time.perf_counter()
        if way == "http.client":
            post(connection, body, headers)
        else:
            client.infer("thin", [tensor]).as_numpy("output0")
        orders.send(time.perf_counter() - begun)
    client.close()


def throughput(made: Pipeline, port: int, seconds: float, rounds: int) -> None:
    print(f"\n{'600 KB, requests/s':24}{'pipeline':>12}{'served':>12}{'share':>12}")
    for clients in (1, 4):
        alone, served = [], []
        for _ in range(rounds):
            alone.append(streamed(made, clients, seconds))
            served.append(asked(port, clients, seconds))
        rates = statistics.median(alone), statistics.median(served)
        print(
            f"{clients} at a time{'':13}{rates[0]:12.1f}{rates[1]:12.1f}{rates[1] / rates[0]:12.1%}",
            flush=True,
        )


def streamed(made: Pipeline, clients: int, seconds: float) -> float:
    array = np.random.default_rng(0).random((1, *SHAPE), np.float32)
    counts = [0] * clients
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        while time.perf_counter() < end:
            made.submit((array,)).result()
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def asked(port: int, clients: int, seconds: float) -> float:
    spawn = multiprocessing.get_context("spawn")
    begin, counts = spawn.Barrier(clients), spawn.SimpleQueue()
    children = [
        spawn.Process(target=again_and_again, args=(port, seconds, begin, counts)) for _ in range(clients)
    ]
    for child in children:
        child.start()
    total = sum(counts.get() for _ in children)
    for child in children:
        child.join()
    return total / seconds


def again_and_again(port: int, seconds: float, begin: object, counts: object) -> None:
    connection, body, headers = http.client.HTTPConnection("127.0.0.1", port), *request()
    post(connection, body, headers)
    begin.wait()
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        post(connection, body, headers)
        count += 1
    counts.put(count)


def request() -> tuple[bytes, dict[str, str]]:
    head = json.dumps(HEADER).encode()
    body = head + np.zeros((1, *SHAPE), np.float32).tobytes()
    return body, {"Inference-Header-Content-Length": str(len(head))}


def post(connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]) -> None:
    connection.request("POST", "/v2/models/thin/infer", body, headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(content)


if __name__ == "__main__":
    main()
