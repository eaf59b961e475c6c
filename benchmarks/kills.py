"""What a killed profile loses: python benchmarks/kills.py [KILLS]

A profile of AlexNet in four layers is killed (SIGKILL) at random moments and begun again, until it has been killed so
often (50) and is then left to finish. Each visit that the profile had announced must be on disk; in the end the
table must equal an uninterrupted one in keys and schema.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from planner import ModelSource, ProfileTable, Variant
from profiler import ProfileRequest, Protocol, cut_model, load_model, placement, profile, write_samples
from profiler.inputs import model_samples


def profiled_until_killed(request: ProfileRequest, after_s: float) -> int:
    """Profile in a child that is killed so long after it announced its first visit; how many it announced."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        profile(request, lambda step: os.write(writing, b"." if step.bundle else b"") and None)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb", buffering=0) as announced:  # noqa: PTH123 - a file descriptor
        count = len(announced.read(1))
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        count += len(announced.read())
    os.waitpid(child, 0)
    return count


def visits(file: Path) -> int:
    """Whole lines of raw samples."""
    if not file.exists():
        return 0
    lines = file.read_bytes().splitlines(keepends=True)
    return sum(1 for line in lines if line.endswith(b"\n") and json.loads(line))


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = ModelSource("alexnet", max_layers=4)
        model = load_model(source)
        write_samples(cut_model(model), list(model_samples(model, None, 4, [])), folder / "samples")
        # Visits without end, so that a profile outlives all kills; the last one settles with what there is.
        endless = Protocol(precision=1e-9, rounds=5, visit_runs=4, visit_s=0.05, max_runs=10**9)
        request = ProfileRequest(
            source, "here", (Variant("torch"),), (1,), folder / "samples", folder / "killed.csv",
            placement(threads=1), endless,
        )  # fmt: skip
        lost, before = 0, 0
        for kill in range(kills):
            announced = profiled_until_killed(request, rng.uniform(0, 2))
            have = visits(folder / "killed.samples.jsonl")
            lost = max(lost, before + announced - have)
            before = have
            print(f"kill {kill + 1}: {announced} visits announced, {have} on disk in all", flush=True)
        profile(replace(request, protocol=replace(endless, max_runs=10)))
        profile(replace(request, protocol=replace(endless, max_runs=10), output=folder / "whole.csv"))
        tables = [ProfileTable.load([folder / file]) for file in ("killed.csv", "whole.csv")]
        keys = [{row.key for row in table.rows} for table in tables]
        columns = [list(table.frame().columns) for table in tables]
        print(
            f"{kills} kills, most visits lost by one: {max(lost, 0)}; "
            f"keys equal: {keys[0] == keys[1]}, columns equal: {columns[0] == columns[1]}"
        )


if __name__ == "__main__":
    main()
