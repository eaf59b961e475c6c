"""edgecut router: let agents and workstations of several sites reach each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtime.commands.options import security_options

if TYPE_CHECKING:
    from runtime.security import Security


@click.command()
@click.option("--listen", required=True, metavar="tls/HOST:PORT", help="Where, such as tls/0.0.0.0:7447.")
@click.option(
    "--connect",
    multiple=True,
    metavar="tls/HOST:PORT",
    help="Another router: this one is then that of a site, whose agents talk directly.",
)
@security_options
def router(listen: str, connect: tuple[str, ...], security: Security) -> None:
    """Pass on what agents and workstations send each other, where they have no direct way.

    It needs a port that all of them reach; agents connect with --connect, workstations by `router` in the
    fleet file. Its keys are those of a workstation, for it passes on orders. It serves until it is stopped.
    """
    import threading

    from runtime.agent_messages import LEASE_S
    from runtime.commands.agent import check_addresses
    from runtime.stopping import on_stop
    from runtime.zenoh_transport import ZenohTransport

    check_addresses(security, [listen], connect)
    if security.credentials:
        security.credentials.check_orders()
    stopped = threading.Event()
    with ZenohTransport(
        connect, listen=listen, lease_s=LEASE_S, credentials=security.credentials, router=True
    ) as transport:
        on_stop(stopped.set)
        where = transport.endpoint if listen.endswith(":0") else listen
        click.echo(f"routes at {where}; agents connect with --connect, a fleet file names it as router")
        while not stopped.wait(1.0):
            pass
    click.echo("router stopped")
