"""What a plan runs on: options of `deploy`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from runtime.commands.options import F, gathered

# What Ray does in its own way, so that none of these would change anything.
_OF_AGENTS = (
    "fleet_file",
    "transport",
    "discover_s",
    "keys",
    "insecure",
    "tables",
    "more",
    "static",
    "drift",
)
_OF_RAY = ("ray_address", "replicas")


def _parse_replicas(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, int]:
    """DEVICE=N, each device once."""
    found: dict[str, int] = {}
    for text in texts:
        name, _, count = text.rpartition("=")
        if not name or not count.isdecimal() or not 1 <= int(count) <= 1024:
            raise click.BadParameter(f"{text!r}: write DEVICE=N, such as server=2")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = int(count)
    return found


def ray_options(command: F) -> F:
    """The command receives ``on_ray``: an ``OnRay``, None where agents run the plan."""

    def collect(engine: str, ray_address: str, replicas: dict[str, int], **rest: Any) -> Any:
        context = click.get_current_context()
        odd = _OF_AGENTS if engine == "ray" else _OF_RAY
        for parameter in context.command.params:
            given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
            if parameter.name in odd and given and context.params.get(parameter.name) != ():
                raise click.UsageError(
                    f"{parameter.opts[0]} does nothing with --engine {engine}; leave it out"
                )
        if engine == "agents":
            return command(on_ray=None, **rest)
        from runtime.ray_engine import OnRay

        return command(on_ray=OnRay(ray_address, replicas), **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--engine", type=click.Choice(["agents", "ray"]), default="agents", show_default=True,
            help="Run PLAN on its devices' agents, or on a Ray cluster whose nodes carry them.",
        ),
        click.option(
            "--ray-address", default="auto", show_default=True, metavar="auto|local|HOST:PORT",
            help="The cluster: this machine's, one started here for emulated devices, or another.  "
            "auto starts one where there is none and all devices are emulated.",
        ),
        click.option(
            "--replicas", multiple=True, callback=_parse_replicas, metavar="DEVICE=N",
            help="With Ray, run the stages of DEVICE on N nodes by turns; may be repeated.",
        ),
    )  # fmt: skip
