"""The worker as a process: ``python -m runtime.worker_process --device edge --connect tcp/...``.

It pins itself before any library starts threads, and ends when its standard input closes, which happens
however its coordinator ends.
"""

from __future__ import annotations

import os
import signal
import time

import click

from runtime.commands.options import parse_numbers
from runtime.processes import on_parent_gone, pin

_GRACE_S = 3.0


@click.command()
@click.option("--device", required=True)
@click.option("--connect", required=True)
@click.option("--cpus", callback=parse_numbers)
def main(device: str, connect: str, cpus: tuple[int, ...] | None) -> None:
    """Serve one device of a deployment."""
    pin(cpus)
    on_parent_gone(_end_with_coordinator)

    from profiler.allocator import tune_allocator
    from runtime.worker import Worker
    from runtime.zenoh_transport import ZenohTransport

    tune_allocator()
    with ZenohTransport(connect) as transport:
        Worker(device, transport).run()


def _end_with_coordinator() -> None:
    # Clocks that were set are restored on this signal; a worker that hangs is ended all the same.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    main()
