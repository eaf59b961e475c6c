"""edgecut report: tables and pictures."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import FOLDER

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("subjects", nargs=-1, required=True, type=_PATH, metavar="RUN|PLAN|PROFILE...")
@click.option(
    "-o", "--output", type=FOLDER, default=Path("report"), show_default=True, help="Folder to write."
)
def report(subjects: tuple[Path, ...], output: Path) -> None:
    """Write CSV files and pictures of a run (its folder), a plan (JSON) or a profile table (CSV).

    The chain and its cuts, bundle latencies, plan against baselines, forecast against measured.
    """
    from runtime.console import console
    from runtime.reports.report import write_report

    out = console()
    written, findings = write_report(subjects, output)
    for file in written:
        out.print(str(file), soft_wrap=True)
    for finding in findings:
        out.print(finding, style="bold", soft_wrap=True)
