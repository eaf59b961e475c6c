"""edgecut links: measure every directed link of a fleet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, discover_option, parse_numbers, security_options

if TYPE_CHECKING:
    from planner.fleet import Fleet, Link
    from planner.link_report import LinkReport, MeasuredLink
    from runtime.security import Security


def parse_pairs(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> tuple[tuple[str, str], ...] | None:
    """Directed links joined by commas: edge:server,server:edge."""
    if value is None:
        return None
    pairs = [tuple(part.split(":")) for part in value.split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise click.BadParameter(f"{value!r}: write SOURCE:TARGET, joined by commas, such as edge:server")
    return tuple(dict.fromkeys((source, target) for source, target in pairs))


@click.command()
@click.option("--fleet", "fleet_file", type=FILE, required=True, help="Devices and links.")
@click.option(
    "--links",
    "pairs",
    callback=parse_pairs,
    metavar="A:B,...",
    help="Only these directed links.  [default: all]",
)
@click.option(
    "--sizes",
    callback=parse_numbers,
    metavar="BYTES,...",
    help="Frame sizes; 64 is always among them.  [default: 64 B to 4 MiB]",
)
@click.option("--plan", "plan_file", type=FILE, help="Sizes: what this plan's hops carry.")
@click.option("--profiles", "table_file", type=FILE, help="Sizes: the boundaries of this table's model.")
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="For --profiles.")
@click.option(
    "--precision-target",
    type=click.FloatRange(0.1, 50),
    default=5.0,
    show_default=True,
    help="Stop once the 95 % confidence interval of each median is within so many per cent.",
)
@click.option(
    "--max-runs", type=click.IntRange(1, 2000), default=60, show_default=True, help="Frames per size."
)
@click.option(
    "--longest",
    "longest_s",
    type=click.FloatRange(0.01, 30),
    default=1.0,
    show_default=True,
    help="Leave out sizes whose frames take more seconds.",
)
@click.option(
    "--replace-emulated",
    is_flag=True,
    help="Write measured numbers of emulated links too, which are paced to what the fleet says.",
)
@discover_option
@security_options
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=Path("fleet-measured.toml"),
    show_default=True,
    help="Fleet to write; beside it the samples, as .links.json, and a table, as .links.csv.",
)
def links(
    fleet_file: Path,
    pairs: tuple[tuple[str, str], ...] | None,
    sizes: tuple[int, ...] | None,
    plan_file: Path | None,
    table_file: Path | None,
    batch: int,
    precision_target: float,
    max_runs: int,
    longest_s: float,
    replace_emulated: bool,
    discover_s: float,
    security: Security,
    output: Path,
) -> None:
    """Measure latency and bandwidth of every directed link, through the transport that deploys.

    Agents on the devices send frames to each other; emulated devices get theirs here.
    """
    if sum(given is not None for given in (sizes, plan_file, table_file)) > 1:
        raise click.UsageError("--sizes, --plan and --profiles exclude each other")

    from planner.documents import from_data
    from planner.fleet_file import load_fleet, save_fleet
    from runtime.discovery import located
    from runtime.link_measure import measure_fleet
    from runtime.link_probe import SIZES, SMALLEST_BYTES, ProbeProtocol

    fleet = load_fleet(fleet_file)
    wanted = _wanted(fleet, pairs)
    chosen = sizes or _sizes(plan_file, table_file, batch) or SIZES
    asked = {
        "sizes": sorted({SMALLEST_BYTES, *chosen}),
        "min_runs": min(10, max_runs),
        "max_runs": max_runs,
        "precision": precision_target / 100,
        "longest_s": longest_s,
    }
    protocol = from_data(ProbeProtocol, asked, "--sizes")
    reached = located(fleet, [end for link in wanted for end in link.pair], discover_s, security)

    from runtime.console import console
    from runtime.progress import progress_bar

    title = f"links of {fleet_file.name}"
    with progress_bar(title, len(wanted)) as advance:
        report = measure_fleet(
            reached,
            wanted,
            protocol,
            lambda link, note: advance(not note, f"{link.source} → {link.target} {note}"),
            lambda report: _save(report, output),
            security,
        )
    show_links(report)
    out = console()
    written = [str(output.with_suffix(f".links.{kind}")) for kind in ("json", "csv")]
    if report.links:
        save_fleet(report.applied(fleet, replace_emulated), output)
        written.insert(0, str(output))
    out.print(f"wrote {', '.join(written)}", soft_wrap=True)
    if report.failed:
        raise click.exceptions.Exit(1)


def _save(report: LinkReport, output: Path) -> None:
    report.save(output.with_suffix(".links.json"))
    report.save_csv(output.with_suffix(".links.csv"))


def _wanted(fleet: Fleet, pairs: Iterable[tuple[str, str]] | None) -> list[Link]:
    from planner.errors import InputError, UnknownNameError

    if not fleet.links:
        raise InputError("the fleet has no link", "add a [[link]]; docs/formats.md shows one")
    known = {f"{link.source}:{link.target}": link for link in fleet.links}
    names = list(known) if pairs is None else [":".join(pair) for pair in pairs]
    for name in names:
        if name not in known:
            raise UnknownNameError("link", name, known)
    return [known[name] for name in names]


def _sizes(plan_file: Path | None, table_file: Path | None, batch: int) -> tuple[int, ...]:
    """Wire bytes of a plan's hops or of a model's boundaries, at most 12 of them, evenly chosen."""
    import numpy as np

    from planner.plan import Plan
    from planner.table import ProfileTable

    if plan_file is not None:
        found = {hop.wire_bytes for hop in Plan.load(plan_file).hops}
    elif table_file is not None:
        chain = ProfileTable.load([table_file]).chain
        found = {chain.wire_bytes(k, batch) for k in range(len(chain) + 1)}
    else:
        return ()
    if not found:
        from planner.errors import InputError

        raise InputError("the plan has no hop, so it carries nothing over a link", "pass --sizes")
    ordered = sorted(found)
    return tuple({ordered[round(at)] for at in np.linspace(0, len(ordered) - 1, min(len(ordered), 12))})


def show_links(report: LinkReport) -> None:
    from runtime.console import console, table

    columns = (
        *("link", "latency ms", "Mbit/s", "jitter ms", "fit error", "n"),
        *("fleet: ms", "fleet: Mbit/s", ""),
    )
    out = console()
    if report.links:
        out.print(table("links", columns, map(_row, report.links), left=(0, 8)))
    apart = [one for one in report.links if not one.clock.shared]
    if apart:
        worst = max(apart, key=lambda one: one.clock.error_s)
        out.print(
            f"clocks are apart: latencies are half of a round trip, right within "
            f"{worst.clock.error_s * 1e3:.3g} ms if the two ways differ",
            soft_wrap=True,
        )
    for one in report.links:
        if one.left_out:
            sizes = ", ".join(f"{size:,}" for size in one.left_out)
            out.print(f"{_name(one)}: left out as too slow: {sizes} B (--longest)", soft_wrap=True)
    for gone in report.failed:
        out.print(f"{gone.source} → {gone.target} not measured: {gone.reason}", style="red", soft_wrap=True)


def _name(one: MeasuredLink) -> str:
    return f"{one.nominal.source} → {one.nominal.target}"


def _row(one: MeasuredLink) -> tuple[str, ...]:
    fit, nominal = one.fit, one.nominal
    return (
        _name(one),
        f"{fit.latency_s * 1e3:,.3f}",
        f"{fit.bandwidth_bytes_per_s / 125_000:,.5g}",
        f"{fit.jitter_s * 1e3:,.3f}",
        f"{fit.worst_error * 100:+.1f} %",
        str(fit.n),
        f"{nominal.latency_s * 1e3:,.3f}",
        f"{nominal.bandwidth_bytes_per_s / 125_000:,.5g}",
        "emulated" if nominal.emulate else "",
    )
