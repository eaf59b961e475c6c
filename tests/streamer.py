"""A coordinator in a process of its own, told what to stream over pipes: ``python streamer.py WINDOW PAUSE_S PLAN``.

A line with files of plans, by rank, begins a stream of requests over the first of them that can run; an empty line ends
it. A line of JSON tells of each event, of each answer, compared with the whole network's, and of the end.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
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
from runtime.security import Security

INPUTS = 7
OPEN = Security(insecure=True)
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


_SAYING = threading.Lock()


def say(**line: object) -> None:
    with _SAYING:  # events and answers come from threads of their own
        print(json.dumps(line), flush=True)


class Streamer:
    def __init__(self, plan: Plan, folder: Path, window: int, pause_s: float) -> None:
        self._window, self._pause_s = window, pause_s
        cut = cut_model(load_model(plan.chain.source))
        draw, whole = np.random.default_rng(0), cut.module(Bundle(0, len(cut.chain)))
        shape = plan.chain.boundaries[0].batched(1).tensors[0].shape
        self._inputs = [draw.normal(size=shape).astype(np.float32) for _ in range(INPUTS)]
        with torch.inference_mode():
            self._expected = [whole(torch.from_numpy(image))[0].numpy() for image in self._inputs]
        self._prepare, self._folder = preparation(cut, folder / "bundles"), folder
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._hear, daemon=True).start()

    def serve(self) -> None:
        while files := self._told.get():
            try:
                self._stream([Plan.load(Path(file)) for file in files.split()])
                say(end="done")
            except EdgecutError as error:
                say(end=error.message)

    def _hear(self) -> None:
        for line in sys.stdin:
            self._told.put(line.strip())

    def _stream(self, plans: list[Plan]) -> None:
        def log(line: str) -> None:
            say(event=line)

        with opened(
            Ranked(plans), self._prepare, self._folder, window=self._window, security=OPEN, log=log
        ) as pipeline:
            for answer in pipeline.map(self._requests()):
                wanted = self._expected[answer.request % INPUTS]
                right = np.allclose(answer.outputs[0], wanted, atol=TOLERANCE)
                say(answer=answer.request, right=right, plan=plans.index(answer.plan))

    def _requests(self) -> Iterator[tuple[Array, ...]]:
        for number in itertools.count():
            with suppress(queue.Empty):  # between requests the machine may have some time
                self._told.get(timeout=self._pause_s)
                return
            yield (self._inputs[number % INPUTS],)


if __name__ == "__main__":
    window, pause_s, plan = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        Streamer(Plan.load(Path(plan)), Path(name), int(window), float(pause_s)).serve()
