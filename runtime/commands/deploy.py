"""edgecut deploy: run a plan and record what happened."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.adviser_options import Advice, adviser_options
from runtime.commands.options import FILE, FOLDER

if TYPE_CHECKING:
    from planner.run import Run


@click.command()
@click.argument("plan_file", type=FILE, metavar="PLAN")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    help="Folder of JPEG or PNG files, or .npz of arrays.  [default: crops of one photograph]",
)
@click.option("--labels", type=FILE, help="CSV file that gives the images' classes.")
@click.option("--requests", type=click.IntRange(min=1), default=50, show_default=True)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=1024),
    default=1,
    show_default=True,
    help="Requests in flight; above 1 the stages work as a pipeline.",
)
@click.option(
    "--transport",
    type=click.Choice(["zenoh", "in-process"]),
    default="zenoh",
    show_default=True,
    help="A process per device over loopback, or threads of this one.",
)
@adviser_options
@click.option("-o", "--output", type=FOLDER, help="Folder of the run.  [default: runs/MODEL-TIME]")
def deploy(
    plan_file: Path,
    advice: Advice,
    inputs: Path | None,
    labels: Path | None,
    requests: int,
    concurrency: int,
    transport: Any,
    output: Path | None,
) -> None:
    """Run PLAN on its devices' agents, and record forecast beside measurement.

    Every output is compared with the whole model's. The run is a folder that `edgecut report` reads. Where a device
    fails, or another plan becomes better, that one takes over.
    """
    from planner.plan import Plan

    plan = Plan.load(plan_file)

    from runtime.console import console
    from runtime.deployment import DeployRequest
    from runtime.deployment import deploy as run_deploy
    from runtime.progress import progress_bar

    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = output or Path("runs") / f"{plan.chain.source.label}-{stamp}"
    out = console()
    adviser = advice.adviser(plan, plan_file, lambda line: out.print(line, style="yellow", soft_wrap=True))
    request = DeployRequest(plan, folder, inputs, labels, requests, concurrency, transport, adviser)
    skipped: list[str] = []
    try:
        with progress_bar(f"{plan.chain.source.name} on {', '.join(plan.devices)}", requests) as advance:
            run = run_deploy(
                request,
                skipped,
                lambda note: advance(note != "warm-up", note),
                lambda line: out.print(line, soft_wrap=True),
            )
    finally:
        for problem in skipped:
            out.print(f"skipped {problem}", style="yellow", soft_wrap=True)
    for part in run.by_plan():
        show_run(part)
    for switch in run.switches:
        out.print(f"{switch.at}: {switch.reason}; now {switch.stages}", soft_wrap=True)
    out.print(f"wrote {folder}", soft_wrap=True)


_PARTS = ("encode", "wire", "decode")


def show_run(run: Run) -> None:
    from runtime.console import console, milliseconds, percent, table

    info = run.info
    rows = [
        (
            f"hop {part.label}"
            if part.kind == "hop"
            else f"  {part.label}"
            if part.kind in _PARTS
            else part.label,
            milliseconds(part.forecast_s),
            milliseconds(part.measured_s),
            percent(part.error),
            f"{milliseconds(part.low_s)} to {milliseconds(part.high_s)}",
            milliseconds(part.queue_s),
        )
        for part in run.comparisons()
    ]
    columns = ("part", "forecast ms", "measured ms", "error", "5 to 95 %", "waited ms")
    title = f"{info.plan.chain.source.name}: {info.requests} requests, {info.concurrency} in flight"
    out = console()
    out.print(table(title, columns, rows))
    rate = info.requests * info.plan.batch / info.wall_s
    out.print(f"throughput: {rate:.2f} samples/s over {info.transport}")
    out.print(run.verdict(), style="bold")
    difference = f"they differ by {run.deviation:.1e}, tolerated {info.tolerance:.0e}"
    if info.plan.exact:
        out.print(f"outputs equal the whole model's: {difference}")
    else:
        out.print(f"outputs equal those of the same stages in one process: {difference}")
        sqnr_db = run.output_sqnr_db
        said = f": {sqnr_db:.1f} dB, forecast {info.plan.cost.sqnr_db:.1f} dB" if sqnr_db else ""
        out.print(
            f"against the whole model in fp32 they differ by {run.largest_output_error:.1e}{said}",
            soft_wrap=True,
        )
    if run.top1_agreement is not None:
        out.print(f"top-1 agreement with the fp32 model: {run.top1_agreement:.1%}")
    if run.accuracy is not None:
        whole = "" if info.whole_accuracy is None else f" (fp32 model: {info.whole_accuracy:.1%})"
        out.print(f"top-1 accuracy: {run.accuracy:.1%}{whole}")
