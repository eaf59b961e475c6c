"""Ray's plain actors, one per stage, each taking the reference to what the one before it returned.

On loopback a single Ray node hands tensors over in shared memory. With network namespaces each is a Ray node.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

import ray

from peers.chain import HERE, Array, Chain, Contender, end, load, spawn

_PATH = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]), "OMP_NUM_THREADS": "1"}}


_START_TIMEOUT_S = 180.0


@ray.remote
class Stage:
    def __init__(self, file: str, cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})
        self._run: Callable[[Array], Array] = load(file)

    def run(self, array: Array) -> Array:
        return self._run(array)


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._waiting: deque[ray.ObjectRef[Array]] = deque()
        self._nodes: list[subprocess.Popen[bytes]] = []
        if chain.spaces:
            self._nodes = [_node(chain, place) for place in range(len(chain.hosts))]
            _join(f"{chain.hosts[0]}:{chain.port}")
        else:
            ray.init(num_cpus=2, include_dashboard=False, runtime_env=_PATH, logging_level="error")
        self._stages = [
            Stage.options(num_cpus=0, resources={f"host{place}": 1} if chain.spaces else None).remote(
                file, cpu
            )
            for place, (file, cpu) in enumerate(zip(chain.files, chain.cpus, strict=True))
        ]

    def send(self, array: Array) -> None:
        at = ray.put(array)
        for stage in self._stages:
            at = stage.run.remote(at)
        self._waiting.append(at)

    def receive(self) -> Array:
        return ray.get(self._waiting.popleft())

    def close(self) -> None:
        ray.shutdown()
        end(*self._nodes)


def _node(chain: Chain, place: int) -> subprocess.Popen[bytes]:
    """A Ray node on the stage's host; of the machine's memory, which they share, a small store each."""
    head = ["--head", "--port", str(chain.port), "--include-dashboard", "false"]
    role = head if place == 0 else ["--address", f"{chain.hosts[0]}:{chain.port}"]
    common = ["--object-store-memory", "200000000", "--num-cpus", "2", "--disable-usage-stats", "--block"]
    own = ["--node-ip-address", chain.hosts[place], "--resources", f'{{"host{place}": 1}}']
    command = [
        *chain.prefix(place),
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        *role,
        *common,
        *own,
    ]
    return spawn(command, {})


def _join(address: str) -> None:
    """Join the cluster once its first node is there; the others may still be starting."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not ray.is_initialized():
        try:
            ray.init(address, runtime_env=_PATH, logging_level="error")
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
