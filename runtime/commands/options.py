"""Options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from planner.chain import InputSpec, ModelSource

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def with_options(command: F, *options: Callable[[Any], Any]) -> F:
    """``command`` with these options before those that it has."""
    made: Any = command
    for option in reversed(options):
        made = option(made)
    return cast(F, made)


def gathered(command: F, collect: Callable[..., Any], *options: Callable[[Any], Any]) -> F:
    """``collect``, which makes one value of these options and calls ``command``, in the place of it."""
    return with_options(cast(F, functools.update_wrapper(collect, command)), *options)


def parse_inputs(
    ctx: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> tuple[InputSpec, ...]:
    """[NAME=]SHAPE[:DTYPE], extents joined by x: 3x224x224, input_ids=128:int64."""
    found: list[InputSpec] = []
    for text in value:
        name, equals, rest = text.rpartition("=")
        shape, _, dtype = rest.partition(":")
        try:
            if equals and not name.isidentifier():
                raise ValueError(f"{name!r} is no name of an argument")
            spec = InputSpec(tuple(int(extent) for extent in shape.split("x")), dtype or "float32", name)
        except ValueError as error:
            reason = "" if "invalid literal" in str(error) else f" ({error})"
            raise click.BadParameter(
                f"{text!r} is no input{reason}; write [NAME=]SHAPE[:DTYPE], such as 3x224x224 or ids=128:int64"
            ) from None
        if name and name in {each.name for each in found}:
            raise click.BadParameter(f"{name} is given twice")
        found.append(spec)
    return tuple(found)


def parse_config(ctx: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """KEY=VALUE, each key once."""
    keys = [text.partition("=")[0] for text in value]
    for text, key in zip(value, keys, strict=True):
        if "=" not in text or not key.isidentifier():
            raise click.BadParameter(f"{text!r}: write KEY=VALUE, such as num_classes=10")
        if keys.count(key) > 1:
            raise click.BadParameter(f"{key} is given twice")
    return value


def parse_numbers(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Whole numbers joined by commas: 0,1."""
    if value is None:
        return None
    if not all(part.isdecimal() for part in value.split(",")):
        raise click.BadParameter(f"{value!r}: expected whole numbers joined by commas, such as 1,2")
    return tuple(dict.fromkeys(int(part) for part in value.split(",")))


def parse_names(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names joined by commas: torch,onnxruntime; none where the option is not given."""
    return () if value is None else tuple(dict.fromkeys(value.split(",")))


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]?)(i?)B")


def parse_size(ctx: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Bytes: 500MB, 8GB, 7.5GiB."""
    if value is None:
        return None
    found = _SIZE.fullmatch(value)
    nbytes = 0
    if found:
        number, prefix, binary = found.groups()
        nbytes = int(float(number) * (1024 if binary else 1000) ** " kMGT".index(prefix or " "))
    if not 0 < nbytes < 1 << 60:
        raise click.BadParameter(f"{value!r} is no size; write it as 500MB or 8GB")
    return nbytes


def model_options(command: F) -> F:
    """MODEL, and how it is loaded and cut; the command receives one ``source``."""

    def collect(
        model: str,
        weights: str,
        seed: int,
        granularity: Any,
        max_layers: int | None,
        max_tensors: int,
        inputs: tuple[InputSpec, ...],
        config: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        if weights not in ("none", "default"):
            weights = os.path.abspath(weights)  # noqa: PTH100 - the table may be read from another folder
        source = ModelSource(model, weights, seed, granularity, max_layers, max_tensors, inputs, config)
        return command(source=source, **rest)

    return gathered(
        command,
        collect,
        click.argument("model"),
        click.option(
            "--weights", default="none", show_default=True, metavar="none|default|FILE",
            help="Random (seeded), the model's own, or a .safetensors/.pth state dict.",
        ),
        click.option(
            "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
            help="Seed of random weights.",
        ),
        click.option(
            "--granularity", type=click.Choice(["layer", "op"]), default="layer", show_default=True,
            help="Cut before each weighted operation, or at every cut point.",
        ),
        click.option(
            "--max-layers", type=click.IntRange(min=1),
            help="Join neighbours of little work until so many are left.",
        ),
        click.option(
            "--max-tensors", type=click.IntRange(1, 64), default=1, show_default=True,
            help="Cut also where so many tensors are live (DenseNet, U-Net, a masked transformer).",
        ),
        click.option(
            "--input-shape", "inputs", multiple=True, callback=parse_inputs, metavar="[NAME=]SHAPE[:DTYPE]",
            help="One sample of each tensor passed, where the model does not say it: 3x224x224, "
            "ids=128:int64. May be repeated.",
        ),
        click.option(
            "--config", multiple=True, callback=parse_config, metavar="KEY=VALUE",
            help="Argument of what builds the model, or field of a transformer's configuration. "
            "May be repeated.",
        ),
    )  # fmt: skip


def fleet_option(command: F) -> F:
    """Where a plan's devices are now; the command receives ``fleet_file``."""
    said = "Fleet file with the agents' addresses.  [default: in the plan]"
    return click.option("--fleet", "fleet_file", type=FILE, help=said)(command)


def transport_option(command: F) -> F:
    """The command receives ``transport``, for ``runtime.pipeline.opened``."""
    option = click.option(
        "--transport",
        type=click.Choice(["zenoh", "in-process"]),
        default="zenoh",
        show_default=True,
        help="A process per device over loopback, or threads of this one.",
    )
    return option(command)


def discover_option(command: F) -> F:
    """The command receives ``discover_s``, for ``runtime.discovery.located``."""
    option = click.option(
        "--discover",
        "discover_s",
        type=click.FloatRange(0, 60),
        default=0.0,
        metavar="SECONDS",
        help="Look for devices without address on this LAN for so long: agents started with --discoverable.",
    )
    return option(command)


def security_options(command: F) -> F:
    """How to reach agents; the command receives one ``security``, its keys checked."""

    def collect(keys: Path | None, insecure: bool, **rest: Any) -> Any:
        from runtime.security import Security

        return command(security=Security.of(keys, insecure), **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--keys", type=FOLDER,
            help="This machine's keys, for encrypted (tls/) addresses; `edgecut keys` makes them.",
        ),
        click.option(
            "--insecure", is_flag=True,
            help="Allow unencrypted (tcp/) addresses beyond this machine, open to everyone on the network.",
        ),
    )  # fmt: skip


def protocol_options(command: F) -> F:
    """How long to measure; the command receives one ``protocol``."""

    def collect(precision_target: float, max_runs: int, visit_ms: float, **rest: Any) -> Any:
        from profiler.timing import Protocol

        protocol = Protocol(precision=precision_target / 100, max_runs=max_runs, visit_s=visit_ms / 1e3)
        return command(protocol=protocol, **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--precision-target", type=click.FloatRange(0.1, 50), default=2.0, show_default=True,
            metavar="PERCENT", help="Measure until half the 95 % interval of the mean is within this.",
        ),
        click.option(
            "--max-runs", type=click.IntRange(4, 100_000), default=200, show_default=True,
            help="Timed runs at most of each bundle; one that needs more is not stable.",
        ),
        click.option(
            "--visit-ms", type=click.FloatRange(0, 60_000), default=100.0, show_default=True,
            help="Length of a visit to a bundle, if a tenth of --max-runs lasts so long; a power log merged "
            "later may need longer ones.",
        ),
    )  # fmt: skip


def time_limit_option(what: str) -> Callable[[Any], Any]:
    """``--time-limit``, in seconds; ``what`` it bounds."""
    return click.option(
        "--time-limit",
        "time_limit_s",
        type=click.IntRange(1, 86400),
        default=60,
        show_default=True,
        help=f"Seconds {what} may take.",
    )
