"""Pickled arrays over ZeroMQ, as its guide's pipeline pattern has it: PUSH to PULL, pyzmq's send_pyobj."""

from __future__ import annotations

import zmq

from peers.chain import Array, Chain, Contender, Processes, load


def serve(chain: Chain, place: int) -> None:
    run = load(chain.files[place])
    source = _pull(chain, place)
    target = _push(chain, place + 1)
    while True:
        target.send_pyobj(run(source.recv_pyobj()))


class Client(Contender):
    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._processes = Processes("zeromq", chain)
        self._target = _push(chain, 0)
        self._source = _pull(chain, len(chain.files))

    def send(self, array: Array) -> None:
        self._target.send_pyobj(array)

    def receive(self) -> Array:
        return self._source.recv_pyobj()

    def close(self) -> None:
        self._processes.close()
        self._source.close(0)
        self._target.close(0)


def _pull(chain: Chain, place: int) -> zmq.Socket[bytes]:
    """Where ``place`` receives; the client is the last place."""
    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.set_hwm(chain.window)
    socket.bind(f"tcp://{_host(chain, place)}:{chain.port + place}")
    return socket


def _push(chain: Chain, place: int) -> zmq.Socket[bytes]:
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.set_hwm(chain.window)
    socket.connect(f"tcp://{_host(chain, place)}:{chain.port + place}")
    return socket


def _host(chain: Chain, place: int) -> str:
    return (*chain.hosts, chain.hosts[0])[place]
