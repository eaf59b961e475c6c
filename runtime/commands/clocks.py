"""edgecut clocks: what can be set on this machine, and the way back after a killed session."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FOLDER

if TYPE_CHECKING:
    from rich.console import Console

    from profiler.clocks.survey import ClockState

_MOST_SHOWN = 16
_root = click.option(
    "--root",
    type=FOLDER,
    default=Path("/"),
    show_default=True,
    help="File system to look in: a container may have the host's mounted elsewhere.",
)


@click.group(invoke_without_command=True)
@click.pass_context
def clocks(context: click.Context) -> None:
    """Show which clocks `edgecut profile --frequency` can set here, and restore what was left set."""
    if context.invoked_subcommand is None:
        context.invoke(show, root=Path("/"))


@clocks.command("list")
@_root
def show(root: Path) -> None:
    """Show the clocks, their frequencies, and what keeps them from being set. Changes nothing."""
    from profiler.clocks.journal import pending
    from profiler.clocks.nvpmodel import power_mode, power_modes
    from profiler.clocks.survey import survey
    from runtime.console import console

    out, states = console(), survey(root)
    show_clocks(out, states)
    if mode := power_mode(root):
        known = ", ".join(map(str, power_modes(root)))
        out.print(f"power mode {mode}" + (f" of {known}" if known else ""))
    for remedy in dict.fromkeys(state.remedy for state in states if state.remedy):
        out.print(f"try: {remedy}", soft_wrap=True)
    for line in pending(root=root):
        out.print(line, style="yellow", soft_wrap=True)


def show_clocks(out: Console, states: Sequence[ClockState]) -> None:
    from profiler.clocks import hertz
    from runtime.console import table

    rows = []
    for state in states:
        numbers = [f"{hz / 1e6:.7g}" for hz in state.frequencies_hz]
        if len(numbers) > _MOST_SHOWN:
            numbers = [*numbers[:3], f"... ({len(numbers)} in all)", *numbers[-3:]]
        offered = ", ".join(numbers)
        if state.continuous and state.frequencies_hz:
            offered += "; any between"
        now = hertz(state.current_hz) if state.current_hz else ""
        rows.append((state.name, "yes" if state.settable else "no", now, offered, state.detail))
    columns = ("clock", "can be set", "now", "offers, MHz", "detail")
    out.print(table("clocks", columns, rows, left=(0, 1, 3, 4)))


@clocks.command()
@_root
def restore(root: Path) -> None:
    """Restore the clocks that a killed session left set. The next profile does so by itself."""
    from profiler.clocks import recover
    from runtime.console import console

    out = console()
    for line in recover(root=root) or ["nothing to restore"]:
        out.print(line, soft_wrap=True)


@clocks.command()
@click.argument("number", type=click.IntRange(min=0))
@_root
def mode(number: int, root: Path) -> None:
    """Put a Jetson into power mode NUMBER (nvpmodel). It stays in it, over a reboot too."""
    from profiler.clocks.nvpmodel import power_mode, set_power_mode
    from runtime.console import console

    before = set_power_mode(number, root)
    out = console()
    out.print(f"power mode {power_mode(root)}; it was {before}: edgecut clocks mode {before.number}")
