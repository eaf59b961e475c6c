"""edgecut inspect: the chain of a model."""

from __future__ import annotations

import click

from planner.chain import Chain, ModelSource
from runtime.commands.options import model_options


@click.command()
@model_options
def inspect(source: ModelSource) -> None:
    """Print the layers of MODEL and what crosses between them.

    MODEL is a torchvision classification model, package.module:callable for your own, or a transformer:
    hf:CLASS (hf:BertModel), hf:FOLDER with a checkpoint, or hf:org/name.
    """
    from profiler.cut import cut_model
    from profiler.model import load_model
    from profiler.obstacle import cut_obstacle
    from runtime.console import console

    cut = cut_model(load_model(source))
    show_chain(cut.chain)
    obstacle = cut_obstacle(cut)
    if obstacle:
        console().print(obstacle, style="yellow", soft_wrap=True)


def show_chain(chain: Chain) -> None:
    from runtime.console import console, megabytes, table

    rows = [
        (
            str(place),
            layer.name,
            f"{layer.parameters:,}",
            f"{layer.macs / 1e6:,.1f}",
            str(after),
            megabytes(after.nbytes),
        )
        for place, (layer, after) in enumerate(zip(chain.layers, chain.boundaries[1:], strict=True))
    ]
    source = chain.source
    total = sum(layer.macs for layer in chain.layers)
    parameters = sum(layer.parameters for layer in chain.layers)
    title = f"{source.name}: {len(chain)} layers, {parameters:,} parameters, {total / 1e9:.2f} GMAC"
    shown = table(
        title, ("layer", "name", "parameters", "MMAC", "boundary after it", "MB"), rows, left=(1, 4)
    )
    out = console()
    out.print(shown)
    out.print(
        f"input: {chain.boundaries[0]}, {megabytes(chain.boundaries[0].nbytes)} MB; weights: {source.weights}"
    )
    out.print(f"digest: {chain.digest}", soft_wrap=True)
