"""A coordinator in a process of its own: ``python streamer.py WINDOW PLAN...``, plans by rank.

It runs the first of them that can run, and streams requests until its standard input ends. A line of JSON tells of each
event, of each answer, compared with the whole network's, and of the end.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from planner import Bundle, Plan
from planner.errors import EdgecutError
from profiler.cut import cut_model
from profiler.model import load_model
from profiler.runner import Array
from runtime.adviser import Devices, Links, StaticAdviser
from runtime.bundles import preparation
from runtime.pipeline import opened

INPUTS = 7
PAUSE_S = 0.005  # between requests, to leave the machine some time
TOLERANCE = 1e-5


class Ranked(StaticAdviser):
    """Plans, the better first: as soon as one can run, it is better than those behind it."""

    def __init__(self, plans: list[Plan]) -> None:
        super().__init__(plans[0])
        self._plans = plans

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for plan in self._plans for name in plan.devices))

    def without(self, devices: Devices, links: Links) -> Plan | None:
        return next((one for one in self._plans if StaticAdviser(one).without(devices, links)), None)

    def better(self, plan: Plan, devices: Devices, links: Links) -> tuple[Plan, str] | None:
        best = self.without(devices, links)
        return (
            (best, "it can run again") if best and self._plans.index(best) < self._plans.index(plan) else None
        )


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201


def stream(window: int, plans: list[Plan], folder: Path) -> None:
    cut = cut_model(load_model(plans[0].chain.source))
    draw, whole = np.random.default_rng(0), cut.module(Bundle(0, len(cut.chain)))
    shape = plans[0].chain.boundaries[0].batched(1).tensors[0].shape
    inputs = [draw.normal(size=shape).astype(np.float32) for _ in range(INPUTS)]
    with torch.inference_mode():
        expected = [whole(torch.from_numpy(image))[0].numpy() for image in inputs]
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()

    def requests() -> Iterator[tuple[Array, ...]]:
        for number in itertools.count():
            if told.wait(PAUSE_S):
                return
            yield (inputs[number % INPUTS],)

    prepare = preparation(cut, folder / "bundles")
    with opened(Ranked(plans), prepare, folder, window=window, log=lambda line: say(event=line)) as pipeline:
        for answer in pipeline.map(requests()):
            wanted = expected[answer.request % INPUTS]
            right = np.allclose(answer.outputs[0], wanted, atol=TOLERANCE)
            say(answer=answer.request, right=right, plan=plans.index(answer.plan))
        say(end="done", late=pipeline.duplicates)


def main() -> None:
    window, *files = sys.argv[1:]
    try:
        with tempfile.TemporaryDirectory() as folder:
            stream(int(window), [Plan.load(Path(file)) for file in files], Path(folder))
    except EdgecutError as error:
        say(end=error.message)


if __name__ == "__main__":
    main()
