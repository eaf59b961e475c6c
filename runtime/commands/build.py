"""edgecut build: engines ahead of time."""

from __future__ import annotations

from pathlib import Path

import click

from planner.chain import ModelSource
from planner.plan import Variant
from planner.recipe import Calibration
from runtime.commands.options import FOLDER, model_options, parse_numbers
from runtime.commands.variants import variant_options


@click.command(context_settings={"default_map": {"backend_names": "tensorrt-rtx"}})
@model_options
@variant_options
@click.option(
    "--batch",
    "batches",
    callback=parse_numbers,
    default="1",
    show_default=True,
    help="Batch sizes, joined by commas.",
)
@click.option("--samples", type=FOLDER, help="Stored feature maps, for int8.  [default: samples/MODEL]")
@click.option("--whole", is_flag=True, help="Only the whole network, not every bundle.")
@click.option("--cache", type=FOLDER, help="Where to keep them.  [default: ~/.cache/edgecut/engines]")
def build(
    source: ModelSource,
    variants: tuple[Variant, ...],
    calibration: Calibration,
    batches: tuple[int, ...],
    samples: Path | None,
    whole: bool,
    cache: Path | None,
) -> None:
    """Build the TensorRT engine of every bundle of MODEL's layers, and keep them.

    tensorrt-rtx needs no GPU for it: copy the cache folder to the machine that has one. Engines that are
    there already are kept: stopped at any moment, the same command goes on.
    """
    if min(batches) < 1:
        raise click.BadParameter("a batch has at least 1 sample", param_hint="--batch")

    from profiler.prebuild import Attempt, BuildRequest, build_engines
    from runtime.console import console, megabytes
    from runtime.progress import progress_bar

    request = BuildRequest(
        source=source,
        variants=variants,
        batches=batches,
        samples=samples or Path("samples") / source.label,
        calibration=calibration,
        whole=whole,
        cache=cache,
    )
    with progress_bar(f"engines of {source.name}", 1.0) as advance:

        def show(attempt: Attempt, total: int) -> None:
            advance(1 / total, f"{attempt.bundle} {attempt.variant}")

        summary = build_engines(request, show)
    out = console()
    for attempt in summary.failed:
        what = f"{attempt.variant}, {attempt.bundle}, batch {attempt.batch}"
        out.print(f"failed: {what}: {attempt.reason}", style="yellow", soft_wrap=True)
    out.print(
        f"{source.name}: {summary.built} engines built, {summary.found} found, {len(summary.failed)} failed; "
        f"{megabytes(summary.nbytes)} MB, {summary.wall_s:.1f} s"
    )
