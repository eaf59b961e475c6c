"""What `edgecut profile` does without --device: every device of the fleet, by its agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from planner.fleet import Fleet
from planner.limits import Limits
from runtime.commands.options import F, gathered

if TYPE_CHECKING:
    from profiler.request import ProfileRequest
    from profiler.timing import Protocol
    from runtime.fleet_profile import DeviceResult
    from runtime.security import Security


@dataclass(frozen=True)
class ActiveOptions:
    """What an active profile is to be complete for; see ``planner.active.active_profile``."""

    objective: Literal["latency", "energy", "front"]
    limits: Limits
    gap: float
    verify: int


def active_options(command: F) -> F:
    """The command receives ``active``, None for a full profile."""

    def collect(
        strategy: str,
        objective: Any,
        max_latency_ms: float | None,
        max_energy_mj: float | None,
        gap: float,
        verify: int,
        **rest: Any,
    ) -> Any:
        given = (objective, max_latency_ms, max_energy_mj, gap or None, verify or None)
        if strategy == "full":
            if any(value is not None for value in given):
                raise click.UsageError(
                    "--objective, --max-latency-ms, --max-energy-mj, --gap and --verify belong to --strategy active"
                )
            return command(active=None, **rest)
        try:
            limits = Limits(
                max_latency_ms / 1e3 if max_latency_ms is not None else None,
                max_energy_mj / 1e3 if max_energy_mj is not None else None,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        return command(active=ActiveOptions(objective or "latency", limits, gap / 100, verify), **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--strategy", type=click.Choice(["full", "active"]), default="full", show_default=True,
            help="Measure all bundles, or only what an optimal plan of --fleet could use.",
        ),
        click.option(
            "--objective", type=click.Choice(["latency", "energy", "front"]),
            help="Active: what plans will minimise; front is every weighing of both.  [default: latency]",
        ),
        click.option("--max-latency-ms", type=float, help="Active: a limit that plans will keep."),
        click.option("--max-energy-mj", type=float, help="Active: a limit that plans will keep."),
        click.option(
            "--gap", type=click.FloatRange(0, 50), default=0.0, metavar="PERCENT",
            help="Active: how much better a plan of unmeasured bundles may still be.  [default: 0]",
        ),
        click.option(
            "--verify", type=click.IntRange(min=0), default=0,
            help="Active: measure so many of the skipped bundles to check what the result rests on.",
        ),
    )  # fmt: skip


def profile_devices_actively(
    template: ProfileRequest, fleet: Fleet, names: Sequence[str], active: ActiveOptions, security: Security
) -> None:
    """Profile these devices actively; prints each round and what came of it."""
    from runtime.active_profile import show_result
    from runtime.console import console
    from runtime.fleet_active import profile_actively
    from runtime.fleet_profile import table_of
    from runtime.live import watched
    from runtime.live_profile import ProfileView

    view = ProfileView(f"active profile of {template.source.name}", names)
    with watched(view):
        result = profile_actively(
            template,
            fleet,
            names,
            objective=active.objective,
            limits=active.limits,
            gap=active.gap,
            verify=active.verify,
            show=view.tell,
            security=security,
        )
    show_result(result, active.objective)
    for name in names:
        console().print(f"wrote {table_of(template, name)}", soft_wrap=True)


def profile_devices(template: ProfileRequest, fleet: Fleet, names: Sequence[str], security: Security) -> None:
    """Profile these devices and print a line for each; exit code 1 if one failed."""
    from runtime.fleet_profile import profile_fleet
    from runtime.live import watched
    from runtime.live_profile import ProfileView

    view = ProfileView(f"profile of {template.source.name}", names)
    with watched(view):
        results = profile_fleet(template, fleet, names, view.tell, security)
    show_results(template.source.name, results, template.protocol)
    if any(result.error for result in results):
        sys.exit(1)


def show_results(model: str, results: Sequence[DeviceResult], protocol: Protocol) -> None:
    from runtime.commands.profile_notes import summary_notes
    from runtime.console import console, table

    out, err = console(), console(stderr=True)
    rows = []
    for result in results:
        found = result.summary
        counts = (str(found.measured), str(found.resumed), f"{found.wall_s:.1f}") if found else ("-",) * 3
        rows.append((result.device, *counts, str(result.rows), str(result.output)))
    columns = ("device", "measured", "there before", "s", "rows here", "table")
    out.print(table(f"{model}: profiles of {len(results)} devices", columns, rows, left=(0, 5)))
    for result in results:
        if result.summary:
            for note in summary_notes(result.summary, protocol):
                out.print(f"{result.device}: {note}", style="yellow", soft_wrap=True)
    for result in results:
        if result.error:
            err.print(f"error: {result.device}: {result.error}", style="red", soft_wrap=True)
    if any(result.error for result in results):
        err.print("what was measured is kept; the same command resumes", soft_wrap=True)
