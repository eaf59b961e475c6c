"""An agent that a workstation starts on its own machine for an emulated device.

``python -m runtime.agent_process --name edge --connect tcp/... --folder ...``; it ends when its standard
input closes, which happens however the workstation ends.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import click

from runtime.commands.options import parse_names, parse_numbers
from runtime.processes import STOP_TIMEOUT_S, on_parent_gone, pin


@click.command()
@click.option("--name", required=True)
@click.option("--connect", required=True, multiple=True)
@click.option("--folder", required=True, type=click.Path(path_type=Path))
@click.option("--modules", callback=parse_names)
@click.option("--keys", type=click.Path(path_type=Path))
@click.option("--cpus", callback=parse_numbers)
def main(
    name: str,
    connect: tuple[str, ...],
    folder: Path,
    modules: tuple[str, ...],
    keys: Path | None,
    cpus: tuple[int, ...] | None,
) -> None:
    """Serve one emulated device."""
    pin(cpus)

    from runtime.agent_files import AgentFiles
    from runtime.agent_messages import LEASE_S
    from runtime.agent_service import make_agent
    from runtime.credentials import Credentials
    from runtime.zenoh_transport import ZenohTransport

    credentials = Credentials.load(keys) if keys else None
    where = connect if len(connect) > 1 else connect[0]
    with ZenohTransport(where, lease_s=LEASE_S, credentials=credentials) as transport:
        agent = make_agent(name, transport, AgentFiles(folder), modules)

        def parent_gone() -> None:
            agent.stop()
            # A bundle in hand may take long, and nobody waits for it any more.
            threading.Event().wait(STOP_TIMEOUT_S)
            os._exit(1)

        on_parent_gone(parent_gone)
        agent.serve()


if __name__ == "__main__":
    main()
