"""edgecut keys: the certificates of a fleet."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import FOLDER

_DAYS = click.IntRange(1, 36_500)


@click.group()
def keys() -> None:
    """Make the keys with which the machines of a fleet know each other.

    \b
    edgecut keys init keys --name lab                              once
    edgecut keys issue laptop --keys keys --workstation            a machine that gives orders
    edgecut keys issue nano --keys keys --address 192.168.1.5      a device
    """


@keys.command()
@click.argument("folder", type=FOLDER)
@click.option("--name", default="fleet", show_default=True, help="Of the fleet, for people.")
@click.option("--days", type=_DAYS, default=3650, show_default=True, help="How long it is valid.")
def init(folder: Path, name: str, days: int) -> None:
    """Make a fleet's authority in FOLDER.

    Whoever reads authority-key.pem can admit machines to the fleet: keep FOLDER on one machine.
    """
    from runtime.authority import AUTHORITY_KEY, make_authority

    until = make_authority(folder, name, days)
    click.echo(f"authority of {name} in {folder}, valid until {until:%Y-%m-%d}")
    click.echo(f"keep {folder / AUTHORITY_KEY} to yourself: it admits machines to the fleet")


@keys.command()
@click.argument("name")
@click.option("--keys", "folder", type=FOLDER, required=True, help="The authority's folder.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="HOST",
    help="IP address or host name under which others connect to it; may be repeated.",
)
@click.option("--workstation", is_flag=True, help="It gives orders to agents, or routes them.")
@click.option("--days", type=_DAYS, default=365, show_default=True, help="How long they are valid.")
@click.option("-o", "--output", type=FOLDER, help="Where to make the folder NAME.  [default: --keys]")
def issue(
    name: str, folder: Path, addresses: tuple[str, ...], workstation: bool, days: int, output: Path | None
) -> None:
    """Make the keys of the machine NAME: for a device, its name in the fleet file."""
    from runtime.authority import issue as make

    where = output or folder
    until = make(folder, name, where, addresses=addresses, workstation=workstation, days=days)
    what = "may give orders" if workstation else f"device {name}"
    click.echo(f"{what}; valid until {until:%Y-%m-%d}")
    click.echo(f"copy {where / name} to that machine, and pass it as --keys there")
