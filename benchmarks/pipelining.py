"""Throughput of a deployed plan against its bound, 1 / (time of the busiest stage or link).

    python benchmarks/pipelining.py [--cases resnet50-2 ...] [--rounds 3]

Two stages run on two processors of this machine, one thread each. Three are emulated as devices four times slower
than it (a device waits after each run): they need no more than the processors there are. Requests stream over
loopback with twice as many in flight as there are stages. The bound is taken of the same requests: the mean time of
the busiest stage while they streamed. The second bound takes the stages' times of requests sent one at a time, in
turns with the streams: what other threads cost the busiest stage counts as lost there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import by_hand
import numpy as np

from planner import Bundle, Device, Emulation, Fleet, Link, Plan
from planner.imports.presets import load_presets
from profiler.cut import CutModel
from runtime.adviser import StaticAdviser
from runtime.answering import Answer
from runtime.bundles import preparation
from runtime.pipeline import Pipeline, opened
from runtime.timing import measured_rows

CASES = ("resnet50-2", "resnet50-3", "vit_b_16-2", "vit_b_16-3", "resnet152-3")
PRESETS = ("resnet152-3",)
SLOWDOWN = 4.0
LOOPBACK_BYTES_PER_S = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each stream, about")
    options = parser.parse_args()
    print(
        f"{'case':14}{'stages ms':>22}{'requests/s':>12}{'of bound':>10}{'of 2nd bound':>14}{'latency ms':>12}"
    )
    for case in options.cases:
        measure(case, options.rounds, options.seconds)


def measure(case: str, rounds: int, seconds: float) -> None:
    model, count = case.rsplit("-", 1)
    cut = by_hand.load(model)
    plan = planned(case, cut, int(count))
    window = 2 * len(plan.stages)
    requests = max(round(seconds / plan.cost.latency_s * len(plan.stages)), 4 * window)
    draw = np.random.default_rng(0)
    inputs = [tuple(draw.random(spec.shape, np.float32) for spec in plan.chain.boundaries[0].tensors)]
    streamed, alone, rates, latencies = defaultdict(list), defaultdict(list), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = preparation(cut, folder / "bundles")
        with opened(StaticAdviser(plan), prepare, folder, window=window) as pipeline:
            stream(pipeline, inputs, window)
            for _ in range(rounds):
                for _ in range(5):
                    answer = pipeline.submit(inputs[0]).result()
                    latencies.append(note(alone, answer))
                finished, answers = stream(pipeline, inputs, requests)
                full = slice(window, requests - window)  # neither filling nor draining
                for answer in answers[full]:
                    note(streamed, answer)
                times = finished[full]
                rates.append((len(times) - 1) / (times[-1] - times[0]))
    rate = statistics.median(rates)
    shown = " ".join(f"{statistics.fmean(streamed[k]) * 1e3:.1f}" for k in sorted(streamed))
    bounds = [1 / max(map(statistics.fmean, each.values())) for each in (streamed, alone)]
    print(
        f"{case:14}{shown:>22}{rate:12.2f}{rate / bounds[0]:10.1%}{rate / bounds[1]:14.1%}"
        f"{statistics.median(latencies) * 1e3:12.1f}",
        flush=True,
    )


def planned(case: str, cut: CutModel, count: int) -> Plan:
    times = by_hand.layer_times(cut)
    if case in PRESETS:
        bundles: tuple[Bundle, ...] = load_presets()[case].bundles(cut.chain)
        cuts = tuple(bundle.start for bundle in bundles[1:])
    else:
        cuts = by_hand.even_cuts(times, count)
    names = [f"device{place}" for place in range(count)]
    slowdown = 1.0 if count == 2 else SLOWDOWN
    places = [(cpu,) for cpu in (0, 1)] if count == 2 else [None] * count
    devices = tuple(
        Device(name, emulate=Emulation(1, place, slowdown)) for name, place in zip(names, places, strict=True)
    )
    links = tuple(Link(a, b, LOOPBACK_BYTES_PER_S) for a, b in itertools.permutations(names, 2))
    fleet = Fleet(names[0], names[0], devices, links)
    return by_hand.plan_by_hand(cut, fleet, cuts, names, [slowdown * each for each in times])


def stream(
    pipeline: Pipeline, inputs: list[tuple[np.ndarray, ...]], requests: int
) -> tuple[list[float], list[Answer]]:
    """When each answer was there, and the answers."""
    finished, answers = [], []
    for answer in pipeline.map(itertools.islice(itertools.cycle(inputs), requests)):
        finished.append(time.perf_counter())
        answers.append(answer)
    return finished, answers


def note(times: dict[int, list[float]], answer: Answer) -> float:
    """Keep the seconds of each stage; the request's in all are returned."""
    total_s = 0.0
    for row in measured_rows(answer.plan, answer.segments, answer.request, answer.marks):
        if row.kind == "stage":
            times[row.index].append(row.measured_s)
        elif row.kind == "total":
            total_s = row.measured_s
    return total_s


if __name__ == "__main__":
    main()
