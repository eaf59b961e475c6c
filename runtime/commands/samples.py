"""edgecut samples: store feature maps."""

from __future__ import annotations

from pathlib import Path

import click

from planner.chain import ModelSource
from runtime.commands.options import FILE, FOLDER, model_options


@click.command()
@model_options
@click.option("--images", type=FOLDER, help="JPEG or PNG files.  [default: crops of one photograph]")
@click.option(
    "--inputs",
    "arrays",
    type=FILE,
    help="Arrays (.npz with one per input, or .npy), samples along axis 0.  [default without images: random]",
)
@click.option("--labels", type=FILE, help="Classes of the images: lines PREFIX,CLASS of their file names.")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Samples at most.")
@click.option("-o", "--output", type=FOLDER, help="Folder to write.  [default: samples/MODEL]")
def samples(
    source: ModelSource,
    images: Path | None,
    arrays: Path | None,
    labels: Path | None,
    count: int,
    output: Path | None,
) -> None:
    """Run samples through MODEL once and store the feature map at every boundary."""
    from profiler.cut import cut_model
    from profiler.inputs import model_samples
    from profiler.model import load_model
    from profiler.samples import stored_bytes, write_samples
    from runtime.console import console, megabytes
    from runtime.progress import progress_bar

    if images and arrays:
        raise click.BadParameter("pass --images or --inputs, not both", param_hint="--inputs")
    out = console()
    folder = output or Path("samples") / source.label
    skipped: list[str] = []
    model = load_model(source)
    found = list(model_samples(model, images or arrays, count, skipped, labels))
    for problem in skipped:
        out.print(f"skipped {problem}", style="yellow", soft_wrap=True)
    cut = cut_model(model)
    size = megabytes(stored_bytes(cut.chain, len(found)))
    out.print(f"{len(found)} samples at {len(cut.chain) + 1} boundaries: {size} MB in {folder}")
    with progress_bar("samples", len(found)) as advance:
        write_samples(cut, found, folder, advance)
    known = sum(sample.label is not None for sample in found)
    note = f", {known} with their class" if labels else ""
    note += f"; {len(skipped)} unreadable files skipped" if skipped else ""
    out.print(f"wrote {folder} ({len(found)} samples{note})")
