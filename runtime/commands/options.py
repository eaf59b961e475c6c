"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from planner.chain import ModelSource

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def parse_shape(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Extents joined by x: 3x224x224."""
    if value is None:
        return None
    try:
        shape = tuple(int(extent) for extent in value.split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise click.BadParameter(f"{value!r} is no shape; write for example 3x224x224")
    return shape


def parse_numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers joined by commas: 0,1."""
    if value is None:
        return None
    if not all(part.isdecimal() for part in value.split(",")):
        raise click.BadParameter(f"{value!r}: expected whole numbers joined by commas, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in value.split(",")))


def parse_names(ctx: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    """Names joined by commas: torch,onnxruntime."""
    return tuple(dict.fromkeys(value.split(",")))


def model_options(command: F) -> F:
    """MODEL, and how it is loaded and cut; the command receives one ``source``."""

    def collect(
        model: str,
        weights: str,
        seed: int,
        granularity: Any,
        max_layers: int | None,
        input_shape: tuple[int, ...] | None,
        **rest: Any,
    ) -> Any:
        if weights not in ("none", "default"):
            weights = os.path.abspath(weights)  # noqa: PTH100 - the table may be read from another folder
        source = ModelSource(model, weights, seed, granularity, max_layers, input_shape)
        return command(source=source, **rest)

    collect.__name__, collect.__doc__ = command.__name__, command.__doc__
    collect.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for decorate in reversed(
        [
            click.argument("model"),
            click.option(
                "--weights", default="none", show_default=True, metavar="none|default|FILE",
                help="Random (seeded), torchvision's own, or a .safetensors/.pth state dict.",
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
                help="Seed of random weights.",
            ),
            click.option(
                "--granularity", type=click.Choice(["layer", "op"]), default="layer", show_default=True,
                help="Cut before each weighted operation, or wherever one tensor is live.",
            ),
            click.option(
                "--max-layers", type=click.IntRange(min=1),
                help="Join neighbours of little work until so many are left.",
            ),
            click.option(
                "--input-shape", callback=parse_shape, metavar="CxHxW",
                help="Shape of one sample, where the model does not say it itself.",
            ),
        ]
    ):  # fmt: skip
        collect = decorate(collect)
    return collect  # type: ignore[return-value]
