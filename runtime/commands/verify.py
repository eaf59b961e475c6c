"""edgecut verify: bundle by bundle against the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.chain import InputSpec, ModelSource
from planner.errors import EdgecutError, StorageError
from runtime.commands.options import FILE, parse_config, parse_inputs

if TYPE_CHECKING:
    from profiler.verify import Verification

_COLUMNS = (
    "model", "family", "layers", "cut points", "parameters (M)", "GMAC", "largest relative error",
    "tolerance", "seconds", "note",
)  # fmt: skip


@click.command()
@click.argument("models", nargs=-1)
@click.option("--torchvision", is_flag=True, help="All of torchvision's classification models.")
@click.option("--granularity", type=click.Choice(["layer", "op"]), default="layer", show_default=True)
@click.option("--max-tensors", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--input-shape", "inputs", multiple=True, callback=parse_inputs, metavar="[NAME=]SHAPE[:DTYPE]")
@click.option("--config", multiple=True, callback=parse_config, metavar="KEY=VALUE")
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="Table to write: Markdown (.md), or .csv. A line per model as it is done.",
)
def verify(
    models: tuple[str, ...],
    torchvision: bool,
    granularity: str,
    max_tensors: int,
    inputs: tuple[InputSpec, ...],
    config: tuple[str, ...],
    output: Path | None,
) -> None:
    """Cut each of MODELS, run it layer by layer and in halves, and compare with the whole in fp32.

    Options of a model go for all of them. Fails if one cannot be cut, or differs by more than its tolerance.
    """
    if output and output.suffix not in (".md", ".csv"):
        raise click.BadParameter(f"{str(output)!r} must end in .md or .csv", param_hint="--output")
    if torchvision:
        from profiler.torchvision_model import classifier_names

        models = (*models, *classifier_names())
    if not models:
        raise click.UsageError("name a model, or pass --torchvision")

    from profiler.verify import verify as verify_model
    from runtime.console import console
    from runtime.progress import progress_bar

    out = console()
    done: list[Verification] = []
    _write(output, done)
    with progress_bar("models", len(models)) as advance:
        for name in models:
            advance(0, name)
            source = ModelSource(
                name,
                granularity=granularity,  # type: ignore[arg-type]
                max_tensors=max_tensors,
                inputs=inputs,
                config=config,
            )
            done.append(verify_model(source))
            _write(output, done)
            out.print("  ".join(_cells(done[-1])), soft_wrap=True)
            advance(1, name)
    passed = sum(each.passed for each in done)
    out.print(f"{passed} of {len(done)} equal the whole" + (f"; wrote {output}" if output else ""))
    if passed < len(done):
        failed = ", ".join(each.model for each in done if not each.passed)
        raise EdgecutError(f"not equal to the whole, or not cut: {failed:.500}", "the note says why")


def _cells(found: Verification) -> list[str]:
    if found.largest_error is None:
        return [found.model, *["-"] * 7, f"{found.wall_s:.0f}", found.reason]
    return [
        found.model,
        found.family,
        str(found.layers),
        str(found.cut_points),
        f"{found.parameters / 1e6:.1f}",
        f"{found.macs / 1e9:.2f}",
        f"{found.largest_error:.1e}",
        f"{found.tolerance:.0e}",
        f"{found.wall_s:.0f}",
        found.reason,
    ]


def _write(output: Path | None, done: Sequence[Verification]) -> None:
    """The whole table anew: an interrupted run leaves a shorter one."""
    if output is None:
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(_markdown(done) if output.suffix == ".md" else _csv(done))
    except OSError as error:
        raise StorageError(f"cannot write {output}: {error.strerror}", "pass another --output") from error


def _csv(done: Sequence[Verification]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_COLUMNS, *map(_cells, done)])
    return text.getvalue()


def _markdown(done: Sequence[Verification]) -> str:
    import platform
    from importlib.metadata import distributions

    passed = sum(each.passed for each in done)
    installed = {each.name: each.version for each in distributions()}
    versions = ", ".join(
        f"{name} {installed[name]}" for name in ("torch", "torchvision", "transformers") if name in installed
    )
    lines = [
        "# Models: bundle by bundle against the whole",
        "",
        "Written by `edgecut verify`. Each model was cut, run layer by layer and in two halves, and compared",
        "with the module as it is in eager mode, in fp32, with random weights and a random input, batch 1.",
        "The error is the largest absolute difference of the outputs over their largest absolute value.",
        f"{passed} of {len(done)} are within their tolerance. {versions}, Python {platform.python_version()}, "
        f"{platform.machine()}.",
        "",
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "|".join([" --- | --- ", *[" ---: "] * 7, " --- "]) + "|",
    ]
    return (
        "\n".join([*lines, *("| " + " | ".join(_cells(each)).replace("\n", " ") + " |" for each in done)])
        + "\n"
    )
