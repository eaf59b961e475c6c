"""How long a stream stands still when a middle stage is killed: python benchmarks/recovery.py [KILLS] [MODEL]

Three stages of a network (ResNet-18) run on agents of their own, four requests on their way. The agent of the middle
one is killed (SIGKILL), and the stream goes on over the best plan without it, worked out beforehand. Once the agent is
back and the first plan runs again, it is killed again. Per kill: from the kill to the first answer of the other plan,
and the longest pause between two answers. The goal is 5 s, and no answer lost or given twice. The tables are made up:
the middle device is a little faster than the one that stands by.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from planner import (
    Bundle,
    Device,
    Emulation,
    Fleet,
    Limits,
    Link,
    ModelSource,
    Placement,
    Plan,
    ProfileRow,
    ProfileTable,
    Variant,
    solve,
)
from planner.chain import Chain
from planner.replan import Replanner
from planner.watch import Watch
from profiler import cut_model, load_model
from profiler.runner import Array
from runtime.answering import Answer
from runtime.bundles import preparation
from runtime.pipeline import Pipeline, opened
from runtime.profiled_adviser import ProfiledAdviser

GOAL_S = 5.0
DWELL_S = 2.0
WINDOW = 4
INPUTS = 4
LAYER_S = {"camera": 0.02, "server": 0.02, "standby": 0.025, "cloud": 0.02}
VICTIM = "server"


def planned(chain: Chain) -> tuple[Plan, ProfileTable]:
    """The first layer on the camera, the last in the cloud, the rest on the server; and the table of that."""
    names = list(LAYER_S)
    devices = tuple(Device(name, emulate=Emulation(threads=1)) for name in names)
    links = tuple(Link(one, other, 1e9, 1e-3) for one in names for other in names if one != other)
    rows = [
        ProfileRow(name, bundle, Variant("torch"), 1, *[layer_s * len(bundle)] * 3, 0.0, layer_s, 20, 0.0)
        for name, layer_s in LAYER_S.items()
        for bundle in chain.bundles()
    ]
    table, last = ProfileTable(chain, tuple(rows)), len(chain) - 1
    ends = (
        Placement("camera", Bundle(0, 1), whole=True),
        Placement("cloud", Bundle(last, last + 1), whole=True),
    )
    fleet, limits = Fleet("camera", "camera", devices, links), Limits(pins=ends, max_bundles=1)
    return solve(chain, fleet, table, limits=limits), table


@dataclass
class Kill:
    """``request``: the one answered then. ``pause_s``: the longest between two answers since."""

    at_s: float
    request: int
    gone_on_s: float | None = None
    pause_s: float = 0.0


class Stream:
    """Requests until the victim was killed ``left`` times, and the stream has gone on."""

    def __init__(self, pipeline: Pipeline, left: int, inputs: list[Array]) -> None:
        self.pipeline, self.left, self.inputs = pipeline, left, inputs
        self.kills: list[Kill] = []
        self._ended = False
        self._answered_s = time.monotonic()

    def feed(self) -> Iterator[tuple[Array, ...]]:
        number = 0
        while not self._ended:
            yield (self.inputs[number % INPUTS],)
            number += 1

    def note(self, answer: Answer) -> None:
        """When the stream went on; and kill, once the first plan has run for a while."""
        now_s, before_s = time.monotonic(), self._answered_s
        self._answered_s = now_s
        runs = VICTIM in [stage.device for stage in answer.plan.stages]
        last = self.kills[-1] if self.kills else None
        if last:
            last.pause_s = max(last.pause_s, now_s - before_s)
            if last.gone_on_s is None and not runs:
                last.gone_on_s = now_s - last.at_s
                print(f"kill {len(self.kills)}: gone on after {last.gone_on_s * 1e3:.0f} ms", flush=True)
        if not self.left:
            self._ended = last is None or last.gone_on_s is not None
        elif runs and (last is None or (last.gone_on_s and answer.request > last.request + 20)):
            process = self.pipeline.keeper._agents[VICTIM].process
            assert process
            os.kill(process.pid, signal.SIGKILL)
            self.kills.append(Kill(time.monotonic(), answer.request))
            self.left -= 1


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    model = load_model(ModelSource(sys.argv[2] if len(sys.argv) > 2 else "resnet18", max_layers=6))
    cut = cut_model(model)
    plan, table = planned(cut.chain)
    draw = np.random.default_rng(0)
    shapes = [spec.shape for spec in plan.chain.boundaries[0].tensors]
    inputs = [draw.normal(size=shapes[0]).astype(np.float32) for _ in range(INPUTS)]
    whole = cut.module(Bundle(0, len(cut.chain)))
    with torch.inference_mode():
        expected = [whole(torch.from_numpy(each))[0].numpy() for each in inputs]
    # The times are made up, so none of them counts as drift.
    adviser = ProfiledAdviser(Replanner(plan, table), watch=Watch(1e9), dwell_s=DWELL_S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare = preparation(cut, folder / "bundles")
        with opened(adviser, prepare, folder, window=WINDOW) as pipeline:
            stream, wrong, count = Stream(pipeline, kills, inputs), 0, 0
            for count, answer in enumerate(pipeline.map(stream.feed()), start=1):
                assert answer.request == count - 1, "lost or out of order"
                error = np.abs(answer.outputs[0] - expected[answer.request % INPUTS]).max()
                wrong += bool(error > 1e-4 * np.abs(expected[answer.request % INPUTS]).max())
                stream.note(answer)
            twice = pipeline.duplicates
    times = sorted(kill.gone_on_s or 0.0 for kill in stream.kills)
    pauses = sorted(kill.pause_s for kill in stream.kills)
    print(
        f"{kills} kills over {count} requests: gone on after {times[len(times) // 2] * 1e3:.0f} ms in the median, "
        f"{times[-1] * 1e3:.0f} ms at most (goal {GOAL_S:g} s); longest pause {pauses[-1] * 1e3:.0f} ms; "
        f"0 lost, {wrong} wrong, {twice} second answers dropped"
    )


if __name__ == "__main__":
    main()
