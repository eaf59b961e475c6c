"""What every contender gets: bundles in a chain, the hosts that run them, and the client's side of it.

::

    client ──► stage 0 ──► stage 1 ──► ... ──► client

The client stands on stage 0's host, as a camera does. Each stage is a process pinned to its processor, with
one thread to compute; ``python -m peers.stage CONTENDER PLACE CHAIN`` starts one.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
HERE = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Chain:
    """``plan``: its file, for edgecut. ``files``: an ONNX file per stage. ``shapes``: of the float32 tensor at
    each boundary, input and output included. ``hosts``, ``cpus``: of each stage. ``spaces``: the network
    namespaces the stages run in; none: all in this one. ``port``: the first of a hundred free ones. ``window``:
    requests in flight at most.
    """

    plan: str
    files: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    hosts: tuple[str, ...]
    cpus: tuple[int, ...]
    port: int
    window: int
    spaces: tuple[str, ...] = ()

    @property
    def interface(self) -> str:
        """The network interface that carries the hosts' addresses."""
        return "eth0" if self.spaces else "lo"

    def prefix(self, place: int) -> tuple[str, ...]:
        """What a command of stage ``place``'s host begins with."""
        return ("ip", "netns", "exec", self.spaces[place]) if self.spaces else ()

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def read(text: str) -> Chain:
        data = json.loads(text)
        return Chain(**{key: _frozen(value) for key, value in data.items()})


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Contender(ABC):
    """A chain in operation, seen from its client. Answers come in the order of requests."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    @abstractmethod
    def send(self, array: Array) -> None:
        """Begin a request; the caller keeps at most ``chain.window`` under way."""

    @abstractmethod
    def receive(self) -> Array:
        """The answer to the oldest request."""

    def close(self) -> None:  # noqa: B027 - a contender may have nothing to free
        """End the stages."""


class Processes:
    """The stages of a contender as processes of their own."""

    def __init__(self, contender: str, chain: Chain) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        self._running = [
            spawn(
                [
                    *chain.prefix(place),
                    sys.executable,
                    "-m",
                    "peers.stage",
                    contender,
                    str(place),
                    chain.dump(),
                ],
                {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", **interfaces(chain)},
            )
            for place in range(len(chain.files))
        ]

    def close(self) -> None:
        end(*self._running)


def spawn(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process that ends with this one, however that comes about short of SIGKILL."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    atexit.register(end, process)
    return process


def end(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def interfaces(chain: Chain) -> dict[str, str]:
    """Which interface PyTorch's two transports are to use."""
    return {"GLOO_SOCKET_IFNAME": chain.interface, "TP_SOCKET_IFNAME": chain.interface}


def load(file: str) -> Callable[[Array], Array]:
    """A bundle on one thread, as ONNX Runtime's documentation runs it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]
