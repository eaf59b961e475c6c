"""edgecut beside what a user would pick instead, on the same cut, links, bundles and processors.

    python benchmarks/peers.py [--model resnet50] [--stages 2] [--links loopback 1000 100] [--peers ...]

Contenders: pickled arrays over ZeroMQ, a gRPC stream, torch.distributed over gloo, torch RPC, and Ray's plain
actors (only where asked for, as it keeps a cluster of processes running). Each runs the same ONNX files with one
thread per stage, pinned to the same processors; all are up at once and take turns in rounds of random order: first
requests one at a time, then a stream with four in flight. Every output is compared with the whole chain's.
Processor time is that of the client and all stages, per request of the stream; it says what a busy machine's clock
cannot. Links: plain loopback, or network namespaces paced to so many Mbit/s. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from peers.chain import Array, Chain, Contender, load
from peers.spaces import namespaces

PEERS = ("zeromq", "grpc", "gloo", "rpc")
WINDOW = 4
PORT = 20_000
CPUS = (0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--links", nargs="+", default=["loopback", "1000", "100"], help="loopback, or Mbit/s")
    parser.add_argument("--peers", nargs="+", default=PEERS, help="zeromq grpc gloo rpc ray")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=16, help="of each kind in a round")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    contenders = ["edgecut", *options.peers]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stages and namespaces end with this process
    if options.inside:
        return compare(Chain.read(options.inside), contenders, options.rounds, options.requests)
    with tempfile.TemporaryDirectory() as folder:
        chain = prepared(options.model, options.stages, Path(folder))
        for link in options.links:
            print(
                f"\n{options.model} in {options.stages} stages, {link}" + " Mbit/s" * link.isdigit(),
                flush=True,
            )
            with ExitStack() as stack:
                placed = chain
                if link != "loopback":
                    spaces, hosts = stack.enter_context(namespaces(options.stages, float(link) * 1e6))
                    placed = dataclasses.replace(chain, spaces=spaces, hosts=hosts)
                # In a process of its own on the first host; contenders leave threads and state behind.
                command = [*placed.prefix(0), sys.executable, __file__, "--inside", placed.dump()]
                command += ["--rounds", str(options.rounds), "--requests", str(options.requests), "--peers"]
                with subprocess.Popen([*command, *options.peers]) as inside:
                    try:
                        if inside.wait():
                            raise SystemExit(1)  # it has said why
                    finally:
                        inside.terminate()


def prepared(model: str, stages: int, folder: Path) -> Chain:
    """The model cut into stages as even as its layers permit, their files written to ``folder``."""
    import by_hand

    from planner import Device, Emulation, Fleet, Link
    from runtime.bundles import prepare_bundles

    cut = by_hand.load(model)
    times = by_hand.layer_times(cut)
    cuts = by_hand.even_cuts(times, stages)
    names = [f"host{place}" for place in range(stages)]
    cpus = tuple(itertools.islice(itertools.cycle(CPUS), stages))
    devices = tuple(Device(name, emulate=Emulation(1, (cpu,))) for name, cpu in zip(names, cpus, strict=True))
    links = tuple(Link(a, b, 1e9) for a, b in itertools.permutations(names, 2))
    plan = by_hand.plan_by_hand(cut, Fleet(names[0], names[0], devices, links), cuts, names, times)
    plan.save(folder / "plan.json")
    files = tuple(str(one.file) for one in prepare_bundles(plan, cut, folder))
    for start, stop in itertools.pairwise((0, *cuts, len(times))):
        print(f"layers {start}..{stop - 1}: {sum(times[start:stop]) * 1e3:.1f} ms, then "
              f"{cut.chain.wire_bytes(stop) / 1e3:.0f} KB")  # fmt: skip
    shapes = tuple(cut.chain.boundaries[k].tensors[0].shape for k in (0, *cuts, len(times)))
    hosts = ("127.0.0.1",) * stages
    return Chain(str(folder / "plan.json"), files, shapes, hosts, cpus, PORT, WINDOW)


def compare(chain: Chain, names: list[str], rounds: int, requests: int) -> None:
    """Take turns, and print the medians."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(chain.shapes[0]).astype(np.float32) for _ in range(4)]
    expected = [whole(chain, array) for array in inputs]
    latencies: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        running = {}
        for place, name in enumerate(names):
            begun = time.perf_counter()
            own = dataclasses.replace(chain, port=chain.port + 100 * place)
            contender = importlib.import_module(f"peers.with_{name}").Client(own)
            stack.callback(contender.close)
            stream(contender, inputs, expected, 8, chain.window)
            print(f"{name} is up after {time.perf_counter() - begun:.1f} s", flush=True)
            running[name] = contender
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                latencies[name] += stream(running[name], inputs, expected, requests, 1)[1:]
                begun_s = cpu_s()
                finished = np.cumsum(stream(running[name], inputs, expected, requests, chain.window))
                costs[name].append((cpu_s() - begun_s) / requests)
                # Between two answers with the pipeline full: from the first to the last but those that drain it.
                full = finished[: requests - chain.window + 1]
                rates[name].append((len(full) - 1) / (full[-1] - full[0]))
        table(names, latencies, rates, costs)


def stream(
    contender: Contender, inputs: list[Array], expected: list[Array], requests: int, window: int
) -> list[float]:
    """Seconds until the first answer, and between the others, with ``window`` in flight."""
    gaps, sent = [], 0
    before = time.perf_counter()
    for got in range(requests):
        while sent < requests and sent < got + window:
            contender.send(inputs[sent % len(inputs)])
            sent += 1
        answer = contender.receive()
        now = time.perf_counter()
        gaps.append(now - before)
        before = now
        if not np.allclose(answer, expected[got % len(inputs)], atol=1e-4):
            raise SystemExit(f"{type(contender).__module__} answered request {got} wrongly")
    return gaps


def whole(chain: Chain, array: Array) -> Array:
    for file in chain.files:
        array = load(file)(array)
    return array


def cpu_s() -> float:
    """Processor seconds of this process and all under it, so far."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            spent[int(folder.name)] = int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    for pid in sorted(parents):  # a child has a higher number than its parent
        if parents[pid] in ours:
            ours.add(pid)
    return sum(spent[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


Samples = dict[str, list[float]]


def table(names: list[str], latencies: Samples, rates: Samples, costs: Samples) -> None:
    latency, rate, cost = (
        {name: statistics.median(found[name]) for name in names} for found in (latencies, rates, costs)
    )
    print(f"{'':10}{'latency ms':>14}{'of edgecut':>14}{'requests/s':>14}{'of edgecut':>14}{'CPU ms':>14}")
    for name in names:
        print(
            f"{name:10}{latency[name] * 1e3:14.2f}{latency[name] / latency['edgecut']:14.3f}"
            f"{rate[name]:14.2f}{rate[name] / rate['edgecut']:14.3f}{cost[name] * 1e3:14.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
