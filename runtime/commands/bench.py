"""edgecut bench: a whole model in every backend, precision and batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.chain import ModelSource
from planner.plan import Variant
from planner.recipe import Calibration
from runtime.commands.options import FILE, FOLDER, model_options, parse_numbers, protocol_options
from runtime.commands.variants import variant_options

if TYPE_CHECKING:
    from profiler.timing import Protocol


@click.command()
@model_options
@variant_options
@click.option(
    "--batch",
    "--batches",
    "batches",
    callback=parse_numbers,
    default="1",
    show_default=True,
    help="Batch sizes, joined by commas.",
)
@click.option(
    "--matrix",
    type=click.Choice(["fusion,backend"]),
    help="The four-mode table: fusion off and on, without and with each other backend.",
)
@click.option(
    "--inputs",
    "where",
    type=click.Path(path_type=Path),
    help="Folder of images, or .npz of arrays.  [default: crops of one photograph, or random numbers]",
)
@click.option("--labels", type=FILE, help="CSV file that gives the images' classes.")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Samples at most.")
@protocol_options
@click.option("--threads", type=click.IntRange(1, 1024), help="Default: one per processor.")
@click.option("--cpus", callback=parse_numbers, help="Processors to pin to, such as 0,1. Default: all.")
@click.option("-o", "--output", type=FOLDER, help="Folder to write.  [default: bench/MODEL]")
def bench(
    source: ModelSource,
    variants: tuple[Variant, ...],
    calibration: Calibration,
    batches: tuple[int, ...],
    matrix: str | None,
    where: Path | None,
    labels: Path | None,
    count: int,
    protocol: Protocol,
    threads: int | None,
    cpus: tuple[int, ...] | None,
    output: Path | None,
) -> None:
    """Measure all of MODEL as one bundle, beside PyTorch in fp32.

    Latency, throughput, speed-up, memory, size, and what each precision costs in accuracy; a table here,
    a CSV file and a picture in the folder.
    """
    from profiler.bench import BenchRequest
    from profiler.bench import bench as run_bench
    from profiler.placement import placement
    from runtime.console import console
    from runtime.progress import progress_bar
    from runtime.reports.bench_report import show_bench, show_matrix, write_bench

    if min(batches) < 1:
        raise click.BadParameter("a batch has at least 1 sample", param_hint="--batches")
    if matrix:
        variants = _four_modes(variants)
    request = BenchRequest(
        source, variants, batches, placement(None, threads, cpus), protocol, calibration,
        where, labels, count,
    )  # fmt: skip
    skipped: list[str] = []
    out = console()
    try:
        with progress_bar(source.name, (len(variants) + 1) * len(batches)) as advance:
            found = run_bench(
                request, skipped, lambda variant, batch: advance(1, f"{variant}, batch {batch}")
            )
    finally:
        for problem in skipped:
            out.print(f"skipped {problem}", style="yellow", soft_wrap=True)
    for variant, reason in found.lacking.items():
        out.print(f"left out: {variant}: {reason}", style="yellow", soft_wrap=True)
    for entry in found.left_out:
        out.print(
            f"left out: {entry.variant}, batch {entry.batch}: {entry.reason}", style="yellow", soft_wrap=True
        )
    show_bench(source, found)
    if matrix:
        show_matrix(found)
    if found.fused_operations == 0:
        out.print(
            "fusing changed nothing: no batch normalisation follows a convolution alone", style="yellow"
        )
    elif found.fused_operations:
        out.print(f"fusing folds {found.fused_operations} batch normalisations into convolutions")
    for file in write_bench(source, found, output or Path("bench") / source.label):
        out.print(f"wrote {file}", soft_wrap=True)


def _four_modes(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """PyTorch and the other backends asked for (ONNX Runtime if none), each without and with fusion."""
    others = [variant for variant in variants if variant.backend != "torch"] or [Variant("onnxruntime")]
    modes: list[Any] = [Variant("torch"), *others]
    return tuple(
        Variant(mode.backend, mode.precision, fused=fused) for fused in (False, True) for mode in modes
    )
