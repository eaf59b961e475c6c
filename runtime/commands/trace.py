"""edgecut trace: a run as a trace of every request across devices."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.commands.options import FOLDER


@click.command()
@click.argument("run", type=FOLDER)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, compressed if it ends in .gz.  [default: trace.json in the run's folder]",
)
def trace(run: Path, output: Path | None) -> None:
    """Write what became of every request of RUN, a folder of `edgecut deploy`, on one clock, beside the forecast.

    ui.perfetto.dev and chrome://tracing open the file.
    """
    from runtime.console import console
    from runtime.reports.trace import write_trace

    file = output or run / "trace.json"
    console().print(write_trace(run, file).wrote(file), soft_wrap=True)
