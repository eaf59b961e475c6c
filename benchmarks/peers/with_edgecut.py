"""edgecut itself: an agent on each host, unencrypted like the others, and a pipeline."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from peers.chain import HERE, Array, Chain, Contender, end, spawn
from planner import Plan
from planner.documents import file_digest
from runtime.adviser import StaticAdviser
from runtime.answering import Answer
from runtime.bundles import Prepared
from runtime.itinerary import StageOrder
from runtime.pipeline import opened
from runtime.security import Security


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._open = ExitStack()
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        plan = Plan.load(Path(chain.plan))
        devices = []
        for place, device in enumerate(plan.fleet.devices):
            address = f"tcp/{chain.hosts[place]}:{chain.port + place}"
            devices.append(dataclasses.replace(device, address=address, emulate=None))
            self._open.callback(end, _agent(chain, place, device.name, address, folder))
        plan = dataclasses.replace(plan, fleet=dataclasses.replace(plan.fleet, devices=tuple(devices)))
        bundles = []
        for file, stage in zip(chain.files, plan.stages, strict=True):
            ends = (plan.chain.boundaries[k] for k in (stage.bundle.start, stage.bundle.stop))
            order = StageOrder(file_digest(Path(file)), stage.variant.backend, *ends)
            bundles.append(Prepared(Path(file), order))
        self._waiting: deque[Future[Answer]] = deque()
        adviser, open_to_all = StaticAdviser(plan), Security(insecure=True)
        self._pipeline = self._open.enter_context(
            opened(adviser, lambda _: tuple(bundles), folder, window=chain.window, security=open_to_all)
        )

    def send(self, array: Array) -> None:
        self._waiting.append(self._pipeline.submit((array,)))

    def receive(self) -> Array:
        return self._waiting.popleft().result().outputs[0]

    def close(self) -> None:
        self._open.close()


def _agent(chain: Chain, place: int, name: str, address: str, folder: Path) -> subprocess.Popen[bytes]:
    pinned = *chain.prefix(place), "taskset", "-c", str(chain.cpus[place])
    command = [
        *pinned,
        sys.executable,
        "-c",
        "from runtime.cli import main; main()",
        "agent",
        "--name",
        name,
        "--listen",
        address,
    ]
    environment = {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    return spawn([*command, "--insecure", "--folder", str(folder / name)], environment)
