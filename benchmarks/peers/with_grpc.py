"""gRPC, a bidirectional stream from each stage to the next: raw bytes as messages, answers back along the chain.

The stage that receives a stream opens one to the next; gRPC's threads receive and send while it computes.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from peers.chain import Array, Chain, Contender, Processes, load

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def serve(chain: Chain, place: int) -> None:
    run, shape = load(chain.files[place]), chain.shapes[place]
    onward = _stub(chain, place + 1) if place + 1 < len(chain.files) else None

    def computed(requests: Iterator[bytes]) -> Iterator[bytes]:
        for data in requests:
            yield run(np.frombuffer(data, np.float32).reshape(shape)).tobytes()

    def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        outputs = computed(requests)
        return onward(outputs) if onward else outputs

    server = grpc.server(ThreadPoolExecutor(4), options=_OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Stage", {"Run": handler})])
    server.add_insecure_port(_address(chain, place))
    server.start()
    server.wait_for_termination()


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._processes = Processes("grpc", chain)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._answers = _stub(chain, 0)(iter(self._requests.get, None))

    def send(self, array: Array) -> None:
        self._requests.put(array.tobytes())

    def receive(self) -> Array:
        return np.frombuffer(next(self._answers), np.float32).reshape(self.chain.shapes[-1])

    def close(self) -> None:
        self._answers.cancel()
        self._processes.close()


def _stub(chain: Chain, place: int) -> grpc.StreamStreamMultiCallable:
    channel = grpc.insecure_channel(_address(chain, place), _OPTIONS)
    grpc.channel_ready_future(channel).result(120)
    return channel.stream_stream("/Stage/Run")


def _address(chain: Chain, place: int) -> str:
    return f"{chain.hosts[place]}:{chain.port + place}"
