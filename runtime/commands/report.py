"""edgecut report: a page, tables and pictures."""

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
    """Write a page (report.html) on runs (their folders), plans (JSON) and profile tables (CSV).

    The chain and its cuts, plan against baselines, forecast against measured, bundle latencies. Beside the page stand
    its tables as CSV and its pictures as PNG and SVG. What cannot be read is named there, with the reason.
    """
    from runtime.console import console
    from runtime.reports.report import write_report

    out = console()
    written = write_report(subjects, output)
    out.print(str(written.page), soft_wrap=True)
    for file in written.files:
        out.print(str(file), soft_wrap=True)
    for part in written.missing:
        out.print(f"not shown: {part.title}. {part.reason}", style="yellow", soft_wrap=True)
    for said in written.said:
        out.print(said, style="bold", soft_wrap=True)
