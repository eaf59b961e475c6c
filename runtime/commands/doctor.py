"""edgecut doctor: what works on this machine, and what would mend the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runtime.commands.clocks import show_clocks
from runtime.commands.options import parse_names

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from profiler.doctor import Finding
    from profiler.energy.meter import Probe
    from profiler.machine import Machine

SCHEMA = "edgecut.doctor/1"


@click.command()
@click.option(
    "--backend",
    "--backends",
    "names",
    callback=parse_names,
    default="all",
    show_default=True,
    help="Backends, joined by commas.",
)
@click.option("--quick", is_flag=True, help="Only look for what is in the way; run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def doctor(names: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Say which backends, precisions, energy meters and clocks work on this machine.

    Each is tried on a small network and compared with fp32. For each that does not work: why, and the
    one command that would mend it.
    """
    from profiler import backends
    from profiler.clocks.survey import survey
    from profiler.doctor import examine
    from profiler.energy.probe import probe
    from profiler.machine import describe_machine
    from runtime.console import console
    from runtime.progress import progress_bar

    chosen = backends.NAMES if names == ("all",) else names
    count = sum(len(backends.entry(name).precisions) for name in chosen)
    machine, meters, clocks = describe_machine(), probe(), survey()
    with progress_bar("trying", count) as advance:
        findings = examine(chosen, quick=quick, progress=lambda what: advance(1, what))
    remedies = grouped(findings, lambda finding: finding.remedy)
    for meter in meters:
        if meter.remedy:
            remedies.setdefault(meter.remedy, []).append(meter.name)
    for clock in clocks:
        if clock.remedy:
            remedies.setdefault(clock.remedy, []).append(f"{clock.name} clock")
    if as_json:
        report = {
            "schema": SCHEMA,
            "machine": asdict(machine),
            "backends": [asdict(finding) for finding in findings],
            "meters": [asdict(meter) for meter in meters],
            "clocks": [asdict(clock) for clock in clocks],
            "remedies": remedies,
        }
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from rich.padding import Padding

    out = console()
    _show_machine(out, machine)
    _show_findings(out, findings)
    _show_meters(out, meters)
    show_clocks(out, clocks)
    if remedies:
        out.print("what would mend it", style="bold")
    for remedy, mended in remedies.items():
        out.print(f"  {remedy}", soft_wrap=True)  # in one piece, to be copied
        out.print(Padding(f"for {', '.join(mended)}", (0, 0, 0, 6)), style="dim")


def grouped(findings: Sequence[Finding], key: Callable[[Finding], str]) -> dict[str, list[str]]:
    """The backends by what ``key`` says of them, each with its precisions unless it says so of them all.

    Findings of which it says nothing are left out.
    """
    precisions: dict[str, dict[str, list[str]]] = {}
    for finding in findings:
        if text := key(finding):
            precisions.setdefault(text, {}).setdefault(finding.backend, []).append(finding.precision)
    counts = Counter(finding.backend for finding in findings)
    return {
        text: [
            name if len(listed) == counts[name] else f"{name} {' '.join(listed)}"
            for name, listed in by.items()
        ]
        for text, by in precisions.items()
    }


def _two_columns(rows: Iterable[tuple[str, str]]) -> Table:
    """A name and a text each, folded within their own columns."""
    from rich.table import Table

    shown = Table.grid(padding=(0, 2))
    shown.add_column(max_width=40)
    shown.add_column()
    for row in rows:
        shown.add_row(*row)
    return shown


def _show_machine(out: Console, machine: Machine) -> None:
    memory = f", {machine.memory_bytes / 1e9:.1f} GB memory" if machine.memory_bytes else ""
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    rows = [
        ("processor", f"{machine.processor}, {machine.processors} usable{memory}"),
        ("instructions", " ".join(machine.instructions) or "not known"),
        ("GPU", machine.gpu or "none visible"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("libraries", libraries),
    ]
    out.print(_two_columns(rows))
    out.print()


def _show_findings(out: Console, findings: Sequence[Finding]) -> None:
    from planner.recipe import PRECISIONS
    from profiler.doctor import State
    from runtime.console import table

    cells: dict[str, dict[str, str]] = {}
    for finding in findings:
        text = finding.state.value
        if finding.state is State.WORKS:
            text = "exact" if finding.sqnr_db is None else f"{finding.sqnr_db:.0f} dB"
        elif finding.state is State.LACKING:
            text = "no"
        cells.setdefault(finding.backend, {})[finding.precision] = text
    rows = [(name, *(of.get(precision, "") for precision in PRECISIONS)) for name, of in cells.items()]
    title = "backends: signal over error against fp32"
    out.print(table(title, ("backend", *PRECISIONS), rows))
    reasons = grouped(findings, lambda finding: finding.detail)
    out.print(_two_columns((", ".join(names), reason) for reason, names in reasons.items()))
    out.print()


def _show_meters(out: Console, meters: Sequence[Probe]) -> None:
    from runtime.console import table

    rows = [(meter.name, "works" if meter.works else "no", meter.detail) for meter in meters]
    out.print(table("energy meters", ("meter", "state", "detail"), rows, left=(0, 1, 2)))
