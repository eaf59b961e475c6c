"""torch.distributed over gloo: isend and irecv, double-buffered, so that a stage receives and sends while it
computes."""

from __future__ import annotations

import os
from collections import deque

import torch
import torch.distributed as dist

from peers.chain import Array, Chain, Contender, Processes, interfaces, load


def serve(chain: Chain, place: int) -> None:
    run = load(chain.files[place])
    _join(chain, place + 1)
    source, target = place, (place + 2) % (len(chain.files) + 1)
    buffers = [torch.empty(chain.shapes[place]) for _ in range(2)]
    receiving, sending = dist.irecv(buffers[0], source), None
    while True:
        receiving.wait()
        current = buffers[0]
        buffers.reverse()
        receiving = dist.irecv(buffers[0], source)
        output = torch.from_numpy(run(current.numpy()))
        if sending:
            sending.wait()
        sending, kept = dist.isend(output, target), output  # noqa: F841 - it must live until it is sent


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._processes = Processes("gloo", chain)
        self._sending: deque[tuple[dist.Work, torch.Tensor]] = deque()
        os.environ |= interfaces(chain)
        _join(chain, 0)

    def send(self, array: Array) -> None:
        tensor = torch.from_numpy(array)
        self._sending.append((dist.isend(tensor, 1), tensor))

    def receive(self) -> Array:
        output = torch.empty(self.chain.shapes[-1])
        dist.recv(output, len(self.chain.files))
        self._sending.popleft()[0].wait()
        return output.numpy()

    def close(self) -> None:
        self._processes.close()


def _join(chain: Chain, rank: int) -> None:
    torch.set_num_threads(1)
    where = f"tcp://{chain.hosts[0]}:{chain.port}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=len(chain.files) + 1)
