"""edgecut agents: who is there, and what can run there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, security_options

if TYPE_CHECKING:
    from planner.fleet import Fleet
    from runtime.agent_status import AgentStatus
    from runtime.security import Security
    from runtime.survey import Found


@click.command()
@click.option("--fleet", "fleet_file", type=FILE, help="Ask the agents of these devices.")
@click.option(
    "--discover",
    "discover_s",
    type=click.FloatRange(0, 60),
    default=0.0,
    metavar="SECONDS",
    help="Look for agents on this LAN for so long: those started with --discoverable.",
)
@security_options
def agents(fleet_file: Path | None, discover_s: float, security: Security) -> None:
    """List agents: version, what runs there, memory, what they do; and who does not answer, and why.

    Exit code 1 if a device of the fleet that is not emulated does not answer.
    """
    if fleet_file is None and not discover_s:
        raise click.UsageError("pass --fleet FILE, or --discover SECONDS")

    from planner.fleet_file import load_fleet
    from runtime.survey import survey

    fleet = load_fleet(fleet_file) if fleet_file else None
    found = survey(fleet, discover_s, security)
    show(found, fleet, discover_s)
    if any(each.problem for each in found):
        raise click.exceptions.Exit(1)


def show(found: list[Found], fleet: Fleet | None, discover_s: float) -> None:
    from runtime.console import console, table

    out = console()
    columns = ("agent", "at", "edgecut", "processors", "MB free", "MB", "accelerator", "runs", "doing", "up")
    rows = [(each.name, each.where, *_row(each.status)) for each in found if each.status]
    if rows:
        out.print(table("agents", columns, rows, left=(0, 1, 2, 6, 7, 8)))
    for each in found:
        if each.problem:
            out.print(f"{each.name}: {each.problem}", style="red", soft_wrap=True)
    here = [device.name for device in fleet.devices if device.emulate and not device.address] if fleet else []
    if here:
        out.print(f"emulated here, started when needed: {', '.join(here)}", soft_wrap=True)
    if discover_s and not found:
        out.print(f"nobody answered on this LAN within {discover_s:g} s; agents answer with --discoverable")


def _row(status: AgentStatus) -> tuple[str, ...]:
    runs = "; ".join(f"{name} {' '.join(precisions)}" for name, precisions in status.backends.items())
    hours, seconds = divmod(int(status.uptime_s), 3600)
    total = f"{status.memory_bytes / 1e6:,.0f}" if status.memory_bytes else "?"
    return (
        status.version,
        f"{status.processors} x {status.processor}",
        f"{status.free_bytes / 1e6:,.0f}",
        total,
        status.accelerator or "-",
        runs or "-",
        "; ".join(filter(None, (status.measuring, *status.loaded))) or "-",
        f"{hours}:{seconds // 60:02}:{seconds % 60:02}",
    )
