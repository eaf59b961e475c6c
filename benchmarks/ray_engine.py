"""One plan by agents and on Ray, in turns: python benchmarks/ray_engine.py [--model resnet18] [--rounds 3]

Two stages, a third of the work on the camera and the rest on the server, both four times slower than this machine (a
device waits after each run), so that three actors need less than its two processors. Links are loopback's. Each round
sends requests one at a time, then as a stream with eight on their way: by agents over Zenoh, on a Ray cluster of three
nodes here, and there with two actors of the server. Columns: medians of a request alone, its total against the
forecast, each hop (800 KB and 4 KB in resnet18), and the rate of the stream.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import by_hand
import numpy as np

from planner import Device, Emulation, Fleet, Link, Plan
from planner.run import RunRow
from profiler.cut import CutModel
from profiler.runner import Array
from runtime.adviser import StaticAdviser
from runtime.answering import Answering
from runtime.bundles import preparation
from runtime.pipeline import opened
from runtime.ray_engine import OnRay, opened_on_ray
from runtime.timing import measured_rows

WINDOW, ALONE, SLOWDOWN = 8, 20, 4.0
LOOPBACK_BYTES_PER_S = 1e9


@dataclass
class Found:
    rows: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    rates: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=60, help="of each stream")
    options = parser.parse_args()
    cut = by_hand.load(options.model)
    plan = planned(cut)
    draw = np.random.default_rng(0)
    inputs = tuple(draw.random(spec.shape, np.float32) for spec in plan.chain.boundaries[0].tensors)
    found: dict[str, Found] = defaultdict(Found)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = preparation(cut, folder / "bundles")
        begun = time.perf_counter()
        where = OnRay("local", {"server": 2})
        with opened_on_ray(plan, prepare, where, window=WINDOW) as on_ray:
            print(f"Ray: started and loaded in {time.perf_counter() - begun:.1f} s", flush=True)
            begun = time.perf_counter()
            with opened(StaticAdviser(plan), prepare, folder, window=WINDOW) as agents:
                print(f"agents: started and loaded in {time.perf_counter() - begun:.1f} s", flush=True)
                servers = on_ray.replicas["server"]
                for _ in range(options.rounds):
                    for label, pipeline, count in (
                        ("agents", agents, 2),
                        ("ray", on_ray, 1),
                        ("ray, 2 servers", on_ray, 2),
                    ):
                        on_ray.replicas["server"] = servers[:count]
                        measure(pipeline, inputs, options.requests, found[label])
                on_ray.replicas["server"] = servers
    forecast_s = [part.cost.latency_s for part in (plan, *plan.stages, *plan.hops)]
    rate = 1 / max(stage.cost.latency_s for stage in plan.stages)
    show("", "total ms", "error", "stage ms", "stage ms", "hop ms", "hop ms", "requests/s")
    line("forecast", forecast_s, forecast_s[0], rate)
    for label, each in found.items():
        parts = [
            ("total", 0),
            *(("stage", k) for k in range(2)),
            *(("hop", k) for k in range(len(plan.hops))),
        ]
        line(
            label,
            [statistics.median(each.rows[part]) for part in parts],
            forecast_s[0],
            statistics.median(each.rates),
        )


def planned(cut: CutModel) -> Plan:
    """Cut where a third of the work is done."""
    times = by_hand.layer_times(cut)
    done = list(itertools.accumulate(times))
    boundary = 1 + min(range(len(done) - 1), key=lambda k: abs(done[k] - done[-1] / 3))
    names = ["camera", "server"]
    devices = tuple(Device(name, emulate=Emulation(1, slowdown=SLOWDOWN)) for name in names)
    links = tuple(Link(a, b, LOOPBACK_BYTES_PER_S) for a, b in itertools.permutations(names, 2))
    fleet = Fleet(names[0], names[0], devices, links)
    return by_hand.plan_by_hand(cut, fleet, (boundary,), names, [SLOWDOWN * each for each in times])


def measure(pipeline: Answering, inputs: tuple[Array, ...], requests: int, found: Found) -> None:
    for _ in range(3):
        pipeline.submit(inputs).result()
    for _ in range(ALONE):
        answer = pipeline.submit(inputs).result()
        rows: list[RunRow] = list(measured_rows(answer.plan, answer.segments, answer.request, answer.marks))
        for row in rows:
            found.rows[row.kind, row.index].append(row.measured_s)
    times = []
    for _ in pipeline.map(itertools.repeat(inputs, requests)):
        times.append(time.perf_counter())
    full = times[WINDOW : requests - WINDOW]  # neither filling nor draining
    found.rates.append((len(full) - 1) / (full[-1] - full[0]))


def line(label: str, seconds: list[float], forecast_s: float, rate: float) -> None:
    total, *parts = (f"{each * 1e3:.2f}" for each in seconds)
    show(label, total, f"{seconds[0] / forecast_s - 1:+.1%}", *parts, f"{rate:.2f}")


def show(*cells: str) -> None:
    print(cells[0].ljust(16), *(cell.rjust(11) for cell in cells[1:]), flush=True)


if __name__ == "__main__":
    main()
