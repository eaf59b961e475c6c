"""What `edgecut profile` does without --device: every device of the fleet, by its agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from planner.fleet import Fleet

if TYPE_CHECKING:
    from profiler.request import ProfileRequest
    from profiler.timing import Protocol
    from runtime.fleet_profile import DeviceResult


def profile_devices(template: ProfileRequest, fleet: Fleet, names: Sequence[str]) -> None:
    """Profile these devices and print a line for each; exit code 1 if one failed."""
    from runtime.fleet_profile import profile_fleet
    from runtime.progress import progress_lines

    with progress_lines(names) as show:
        results = profile_fleet(template, fleet, names, show)
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
