"""edgecut agent: offer this machine for measuring and running."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, FOLDER, parse_names, parse_size, security_options

if TYPE_CHECKING:
    from planner.fleet import Device, Fleet
    from runtime.agent_files import AgentFiles
    from runtime.power_gauge import PowerGauge
    from runtime.security import Security
    from runtime.zenoh_transport import ZenohTransport

_PORT = 7447
_CONNECT_TIMEOUT_S = 5.0  # Ctrl-C is heard between attempts


@click.command()
@click.option("--name", required=True, help="The device's name in the fleet file.")
@click.option(
    "--fleet",
    "fleet_file",
    type=FILE,
    help="Fleet file: the device's address in it is where to listen, its router what to connect to. With --keys, "
    "its devices are admitted, no others.",
)
@click.option(
    "--listen",
    help=f"Where to listen.  [default: tcp/127.0.0.1:{_PORT}, with --keys tls/; with --connect nowhere]",
    metavar="tls/HOST:PORT",
)
@click.option(
    "--connect",
    multiple=True,
    help="A router to connect to: this machine then needs no open port.",
    metavar="tls/HOST:PORT",
)
@click.option("--discoverable", is_flag=True, help="Answer workstations that look for agents on this LAN.")
@security_options
@click.option(
    "--modules",
    callback=parse_names,
    help="Your own Python modules that networks may be built from, joined by commas.",
)
@click.option(
    "--meter",
    metavar="auto|NAME[:WHERE]",
    help="Tell those who deploy what this machine draws; `edgecut doctor` lists the meters.",
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
    fleet_file: Path | None,
    listen: str | None,
    connect: tuple[str, ...],
    discoverable: bool,
    security: Security,
    modules: tuple[str, ...],
    meter: str | None,
    folder: Path | None,
    cache_limit: int | None,
) -> None:
    """Offer this machine to `edgecut profile --fleet`, `deploy` and other commands of a workstation.

    It serves until it is stopped, whatever becomes of the workstation; what it measured stays in its folder.
    The first Ctrl-C or SIGTERM lets what is under way end or move elsewhere, the second stops at once.
    """
    from planner.fleet import Device
    from planner.fleet_file import load_fleet

    try:
        fleet = load_fleet(fleet_file) if fleet_file else None
        device = fleet.device(name) if fleet else Device(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--name") from None
    where, others = places(device, fleet, listen, connect, "tls" if security.credentials else "tcp")
    check_addresses(security, [where] if where else [], others)
    if discoverable and not where:
        raise click.UsageError("--discoverable needs --listen: who finds this agent must be able to connect")
    if discoverable and not (security.insecure or security.credentials):
        raise click.UsageError("--discoverable answers everyone on this LAN: add --keys, or --insecure")
    if security.credentials:
        security.credentials.check_device(name)
        if fleet:
            security = security.among([each.name for each in fleet.devices])
    from runtime.agent_files import AgentFiles

    files = AgentFiles(folder or Path(f"agent-{name}"), cache_limit)
    serve(name, where, others, discoverable, files, modules, security, power_gauge(meter))


def power_gauge(meter: str | None) -> PowerGauge | None:
    """Raises an ``EdgecutError`` where the meter does not work."""
    if meter is None:
        return None
    from profiler.energy.meter import open_meter
    from runtime.power_gauge import PowerGauge

    open_meter(meter).close()
    return PowerGauge(lambda: open_meter(meter))


def places(
    device: Device, fleet: Fleet | None, listen: str | None, connect: tuple[str, ...], scheme: str
) -> tuple[str, tuple[str, ...]]:
    """Where to listen (nowhere: empty), and what to connect to: as the options say, else the fleet file."""
    others = connect or ((fleet.router,) if fleet and fleet.router else ())
    if listen is not None:
        return listen, others
    if device.address and not connect:
        return device.address, others
    return ("" if others else f"{scheme}/127.0.0.1:{_PORT}"), others


def check_addresses(security: Security, listen: list[str], connect: tuple[str, ...]) -> None:
    """Refuse addresses that are none, or that others could reach or read, unless that is wanted."""
    for addresses, option in ((listen, "--listen"), (connect, "--connect")):
        for address in addresses:
            try:
                security.check(address)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint=option) from None


def serve(
    name: str,
    where: str,
    others: tuple[str, ...],
    discoverable: bool,
    files: AgentFiles,
    modules: tuple[str, ...],
    security: Security,
    gauge: PowerGauge | None = None,
) -> None:
    from runtime.agent_service import make_agent
    from runtime.stopping import on_stop

    stopping = threading.Event()
    on_stop(stopping.set)
    store = files.store
    with _joined(where, others, discoverable, security, stopping) as transport:
        served = make_agent(name, transport, files, modules, gauge)
        on_stop(served.leave)
        where = transport.endpoint if where.endswith(":0") else where
        doing = [f"listens on {where}"] if where else []
        doing += [f"connects to {', '.join(others)}"] if others else []
        click.echo(f"{name} {' and '.join(doing)}; its files are in {files.folder}")
        if security.credentials:
            click.echo(f"encrypted; its keys are valid until {security.credentials.valid_until:%Y-%m-%d}")
        sizes = [f"{each / 1e6:,.0f}" for each in (store.nbytes, store.limit_bytes)]
        click.echo(f"what it was sent takes {sizes[0]} of at most {sizes[1]} MB")
        if stopping.is_set():
            served.leave()
        served.serve()
    click.echo(f"{name} stopped; what it measured is in {files.folder}")


def _joined(
    where: str, others: tuple[str, ...], discoverable: bool, security: Security, stopping: threading.Event
) -> ZenohTransport:
    """The place on the network; an agent that only connects waits for its router, which may start later."""
    from planner.errors import TransportError
    from runtime.agent_messages import LEASE_S
    from runtime.zenoh_transport import ZenohTransport

    while True:
        try:
            return ZenohTransport(
                others,
                listen=where,
                lease_s=LEASE_S,
                timeout_s=_CONNECT_TIMEOUT_S,
                credentials=security.credentials,
                discoverable=discoverable,
            )
        except TransportError as error:
            if where or stopping.is_set():
                raise
            click.echo(f"{error.message}; trying again", err=True)
