"""edgecut agent: offer this machine for measuring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, FOLDER, parse_names, parse_size, security_options

if TYPE_CHECKING:
    from runtime.security import Security

_PORT = 7447


@click.command()
@click.option("--name", required=True, help="The device's name in the fleet file.")
@click.option(
    "--fleet",
    type=FILE,
    help="Fleet file: the device's address in it is where to listen. With --keys, its devices are admitted, "
    "no others.",
)
@click.option(
    "--listen",
    help=f"Where to listen.  [default: tcp/127.0.0.1:{_PORT}; with --keys tls/]",
    metavar="tls/HOST:PORT",
)
@security_options
@click.option(
    "--modules",
    callback=parse_names,
    help="Your own Python modules that networks may be built from, joined by commas.",
)
@click.option("--folder", type=FOLDER, help="What it measured and was sent.  [default: agent-NAME]")
@click.option(
    "--cache-limit",
    callback=parse_size,
    metavar="SIZE",
    help="What the files it was sent may take, such as 8GB.  [default: half of the free disk]",
)
def agent(
    name: str,
    fleet: Path | None,
    listen: str | None,
    security: Security,
    modules: tuple[str, ...],
    folder: Path | None,
    cache_limit: int | None,
) -> None:
    """Offer this machine to `edgecut profile --fleet` and other commands of a workstation.

    It serves until it is stopped (Ctrl-C), whatever becomes of the workstation; what it measured stays in
    its folder.
    """
    from planner.fleet import Device, check_address
    from planner.fleet_file import load_fleet

    try:
        known = load_fleet(fleet) if fleet else None
        device = known.device(name) if known else Device(name)
        scheme = "tls" if security.credentials else "tcp"
        where = listen or device.address or f"{scheme}/127.0.0.1:{_PORT}"
        check_address(where)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen" if listen else "--name") from None
    security.check(where)
    if security.credentials:
        security.credentials.check_device(name)
        if known:
            security = security.among([each.name for each in known.devices])
    serve(name, where, folder or Path(f"agent-{name}"), modules, cache_limit, security)


def serve(
    name: str,
    where: str,
    folder: Path,
    modules: tuple[str, ...],
    cache_limit_bytes: int | None,
    security: Security,
) -> None:
    import signal

    from runtime.agent_files import AgentFiles
    from runtime.agent_messages import LEASE_S
    from runtime.agent_service import make_agent
    from runtime.zenoh_transport import ZenohTransport

    files = AgentFiles(folder, cache_limit_bytes)
    store = files.store
    with ZenohTransport(listen=where, lease_s=LEASE_S, credentials=security.credentials) as transport:
        served = make_agent(name, transport, files, modules)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: served.stop())
        where = transport.endpoint if where.endswith(":0") else where
        click.echo(f"{name} listens on {where}; its files are in {folder}")
        if security.credentials:
            click.echo(f"encrypted; its keys are valid until {security.credentials.valid_until:%Y-%m-%d}")
        sizes = [f"{each / 1e6:,.0f}" for each in (store.nbytes, store.limit_bytes)]
        click.echo(f"what it was sent takes {sizes[0]} of at most {sizes[1]} MB")
        served.serve()
    click.echo(f"{name} stopped; what it measured is in {folder}")
