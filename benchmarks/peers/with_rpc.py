"""torch RPC (TensorPipe), as PyTorch's tutorial on pipeline parallelism has it: each stage gets a remote
reference to what the stage before it computed, and fetches it from there. Its shared-memory transport is off, as
loopback stands for a network here."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

import torch
from torch.distributed import rpc

from peers.chain import Array, Chain, Contender, Processes, interfaces, load

_run: Callable[[Array], Array]
_computing = threading.Lock()


def forward(before: rpc.RRef) -> torch.Tensor:
    array = before.to_here().numpy()
    with _computing:
        return torch.from_numpy(_run(array))


def serve(chain: Chain, place: int) -> None:
    global _run
    _run = load(chain.files[place])
    _join(chain, place + 1)
    rpc.shutdown()


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._processes = Processes("rpc", chain)
        self._waiting: deque[torch.futures.Future[torch.Tensor]] = deque()
        os.environ |= interfaces(chain)
        _join(chain, 0)

    def send(self, array: Array) -> None:
        at = rpc.RRef(torch.from_numpy(array))
        last = len(self.chain.files)
        for stage in range(1, last):
            at = rpc.remote(f"stage{stage}", forward, (at,))
        self._waiting.append(rpc.rpc_async(f"stage{last}", forward, (at,)))

    def receive(self) -> Array:
        return self._waiting.popleft().wait().numpy()

    def close(self) -> None:
        rpc.shutdown(graceful=False)
        self._processes.close()


def _join(chain: Chain, rank: int) -> None:
    torch.set_num_threads(1)
    options = rpc.TensorPipeRpcBackendOptions(
        num_worker_threads=2 * chain.window,
        init_method=f"tcp://{chain.hosts[0]}:{chain.port}",
        _transports=["uv"],
        _channels=["basic"],
    )
    rpc.init_rpc(f"stage{rank}", rank=rank, world_size=len(chain.files) + 1, rpc_backend_options=options)
