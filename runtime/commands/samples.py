"""edgecut samples: store feature maps of real images."""

from __future__ import annotations

from pathlib import Path

import click

from planner.chain import ModelSource
from runtime.commands.options import FOLDER, model_options


@click.command()
@model_options
@click.option("--images", type=FOLDER, help="JPEG or PNG files.  [default: crops of one photograph]")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Images at most.")
@click.option("-o", "--output", type=FOLDER, help="Folder to write.  [default: samples/MODEL]")
def samples(source: ModelSource, images: Path | None, count: int, output: Path | None) -> None:
    """Run real images through MODEL once and store the feature map at every boundary."""
    from profiler.cut import cut_model
    from profiler.images import pictures
    from profiler.model import load_model
    from profiler.samples import stored_bytes, write_samples
    from runtime.console import console, megabytes
    from runtime.progress import progress_bar

    out = console()
    folder = output or Path("samples") / source.label
    skipped: list[str] = []
    found = list(pictures(images, count, skipped))
    for problem in skipped:
        out.print(f"skipped {problem}", style="yellow", soft_wrap=True)
    model = load_model(source)
    cut = cut_model(model)
    size = megabytes(stored_bytes(cut.chain, len(found)))
    out.print(f"{len(found)} images at {len(cut.chain) + 1} boundaries: {size} MB in {folder}")
    with progress_bar("images", len(found)) as advance:
        write_samples(cut, model.preparation, found, folder, advance)
    note = f"; {len(skipped)} unreadable files skipped" if skipped else ""
    out.print(f"wrote {folder} ({len(found)} images{note})")
