"""What a running meter adds to latency: python benchmarks/metering.py [PAIRS]

The worst case: network and sampling thread share one processor, so that every sample delays a run. One forward pass
is timed in short blocks, with the meter running and without, in pairs whose order changes from pair to pair, so that
drift hits both alike; pairs of which neither is metered show how much of the difference is noise. Beside the ratio of
latencies: the processor time of other threads than the network's, as a share of the time that passed. The sensor is a
tree of files like a Jetson's: opening, reading and parsing are real; the conversion of a real sensor is waiting, which
takes no processor time. The goal is a ratio below 1.01.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torchvision

from profiler.energy.meter import Meter, open_meter
from profiler.timing import trimmed_mean

BLOCK_S = 0.5


def sensor(root: Path) -> Meter:
    """The two INA3221 of an AGX Xavier: six rails, none of which feeds the others."""
    for chip, labels in enumerate((("GPU", "CPU", "SOC"), ("CV", "VDDRQ", "SYS5V"))):
        folder = root / f"sys/class/hwmon/hwmon{chip}"
        folder.mkdir(parents=True)
        (folder / "name").write_text("ina3221\n")
        for channel, label in enumerate(labels, 1):
            (folder / f"in{channel}_label").write_text(label)
            (folder / f"in{channel}_input").write_text("5000\n")
            (folder / f"curr{channel}_input").write_text("400\n")
    return open_meter("jetson", root)


class Running:
    """A window of the meter, as a context."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def __enter__(self) -> None:
        self.meter.start()

    def __exit__(self, *error: object) -> None:
        reading = self.meter.stop()
        if not reading.valid:
            print(f"  a window did not hold: {reading.reason}")


def block(run: Callable[[], object], meter: Meter | None) -> tuple[float, float]:
    """Latency of a run, and the processor time of other threads as a share of the time that passed."""
    samples_s: list[float] = []
    with Running(meter) if meter else nullcontext():
        all_s, own_s, began_s = time.process_time(), time.thread_time(), time.perf_counter()
        while time.perf_counter() - began_s < BLOCK_S:
            before_s = time.perf_counter()
            run()
            samples_s.append(time.perf_counter() - before_s)
        own_s, all_s = time.thread_time() - own_s, time.process_time() - all_s
        passed_s = time.perf_counter() - began_s
    return trimmed_mean(samples_s), (all_s - own_s) / passed_s


def compare(name: str, run: Callable[[], object], meter: Meter | None, pairs: int) -> None:
    for _ in range(5):
        run()
    ratios, shares = [], []
    for pair in range(pairs):
        found = {kind: block(run, meter if kind else None) for kind in (pair % 2, 1 - pair % 2)}
        ratios.append(found[1][0] / found[0][0])
        shares.append(found[1][1] - found[0][1])
    medians = np.median(np.random.default_rng(0).choice(ratios, (2000, pairs)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    what = "metered" if meter else "neither"
    print(
        f"{name:12} {what:8} {np.median(ratios):7.4f}   {low:.4f} to {high:.4f} {np.median(shares):9.2%}",
        flush=True,
    )


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        meter = sensor(Path(folder))
        print(f"{pairs} pairs of {BLOCK_S} s; one sample of 6 rails every {1e3 * meter.period_s:.0f} ms")
        print(f"{'model':12} {'pairs':8} {'ratio':>7}   {'95 % interval':16} {'processor':>9}")
        for name in ("squeezenet1_1", "alexnet", "resnet18"):
            network = getattr(torchvision.models, name)(weights=None).eval()
            image = torch.randn(1, 3, 224, 224)
            for each in (None, meter):
                compare(name, lambda network=network, image=image: network(image), each, pairs)


if __name__ == "__main__":
    main()
