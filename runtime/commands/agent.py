"""edgecut agent: offer this machine for measuring."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import FILE, FOLDER, parse_names, parse_size

_PORT = 7447


@click.command()
@click.option("--name", required=True, help="The device's name in the fleet file.")
@click.option("--fleet", type=FILE, help="Fleet file: the device's address in it is where to listen.")
@click.option("--listen", help=f"Where to listen.  [default: tcp/127.0.0.1:{_PORT}]", metavar="tcp/HOST:PORT")
@click.option(
    "--insecure",
    is_flag=True,
    help="Listen beyond this machine, unencrypted and open to everyone who reaches it.",
)
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
    insecure: bool,
    modules: tuple[str, ...],
    folder: Path | None,
    cache_limit: int | None,
) -> None:
    """Offer this machine to `edgecut profile --fleet` and other commands of a workstation.

    It serves until it is stopped (Ctrl-C), whatever becomes of the workstation; what it measured stays in
    its folder.
    """
    from planner.fleet import Device, is_loopback
    from planner.fleet_file import load_fleet

    try:
        device = load_fleet(fleet).device(name) if fleet else Device(name)
        where = listen or device.address or f"tcp/127.0.0.1:{_PORT}"
        local = is_loopback(where)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--listen" if listen else "--name") from None
    if not local and not insecure:
        host, _, port = where.removeprefix("tcp/").rpartition(":")
        raise click.UsageError(
            f"{where} can be reached from other machines, without encryption or password. On a network you "
            f"trust add --insecure; else listen on tcp/127.0.0.1:{port} and let the workstation reach it by "
            f"ssh -L {port}:127.0.0.1:{port} {host if host != '0.0.0.0' else 'HOST'}"
        )
    serve(name, where, folder or Path(f"agent-{name}"), modules, cache_limit)


def serve(
    name: str, where: str, folder: Path, modules: tuple[str, ...], cache_limit_bytes: int | None
) -> None:
    import signal

    from runtime.agent_files import AgentFiles
    from runtime.agent_messages import LEASE_S
    from runtime.agent_service import make_agent
    from runtime.console import megabytes
    from runtime.zenoh_transport import ZenohTransport

    files = AgentFiles(folder, cache_limit_bytes)
    store = files.store
    with ZenohTransport(listen=where, lease_s=LEASE_S) as transport:
        served = make_agent(name, transport, files, modules)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: served.stop())
        click.echo(f"{name} listens on {where}; its files are in {folder}")
        click.echo(
            f"what it was sent takes {megabytes(store.nbytes)} of at most {megabytes(store.limit_bytes)} MB"
        )
        served.serve()
    click.echo(f"{name} stopped; what it measured is in {folder}")
