"""edgecut serve: a plan behind HTTP, for the clients that people have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.adviser_options import Advice, adviser_options
from runtime.commands.options import (
    FILE,
    discover_option,
    fleet_option,
    parse_size,
    security_options,
    transport_option,
)

if TYPE_CHECKING:
    from runtime.security import Security

_LEAST_BODY_BYTES = 16_000_000


def _parse_name(context: click.Context, option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", text):
        raise click.BadParameter(f"{text!r}: use letters, digits, '-', '_' and '.'")
    return text


@click.command()
@click.argument("plan_file", type=FILE, metavar="PLAN")
@click.option(
    "--http",
    "address",
    default="127.0.0.1:8000",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option("--name", callback=_parse_name, help="Of the model, in paths.  [default: the network's]")
@fleet_option
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=4,
    show_default=True,
    help="Requests in the stages at once; above 1 they work as a pipeline.",
)
@click.option(
    "--queue",
    type=click.IntRange(0, 10_000),
    default=16,
    show_default=True,
    help="Requests that wait beside these; more are turned away with 503.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0, 3600, min_open=True),
    default=60.0,
    show_default=True,
    help="Until a request is answered, or given up with 504; a client may ask for less.",
)
@click.option(
    "--max-body",
    "max_body_bytes",
    callback=parse_size,
    metavar="SIZE",
    help="Of a request, unpacked.  [default: 16MB, or four batches]",
)
@transport_option
@click.option("--tls-cert", type=FILE, help="Certificate to serve HTTPS with, in PEM form.")
@click.option("--tls-key", type=FILE, help="Its key.  [default for other machines: both of --keys]")
@click.option("--token-file", type=FILE, help="File with the bearer token that clients must send.")
@discover_option
@adviser_options
@security_options
def serve(
    plan_file: Path,
    advice: Advice,
    address: str,
    name: str | None,
    fleet_file: Path | None,
    concurrency: int,
    queue: int,
    timeout_s: float,
    max_body_bytes: int | None,
    transport: Any,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    discover_s: float,
    security: Security,
) -> None:
    """Serve PLAN over HTTP in the Open Inference protocol, which Triton's and KServe's clients speak.

    Ctrl-C answers what is on its way, and ends. This machine alone is answered unless there are a certificate and
    a token.
    """  # fmt: skip
    import runtime.serving.connection  # says what is not installed, before anything is loaded  # noqa: F401
    from planner.fleet_file import load_fleet
    from planner.plan import Plan
    from runtime.serving.guard import Endpoint

    plan = Plan.load(plan_file)
    machines = load_fleet(fleet_file) if fleet_file else None
    endpoint = Endpoint.of(address, tls_cert, tls_key, token_file, security)

    from runtime.console import console
    from runtime.deployed import on_fleet
    from runtime.discovery import located
    from runtime.serving.command import ServeRequest, serve_plan
    from runtime.stopping import Stopping

    plan = on_fleet(plan, located(machines or plan.fleet, plan.devices, discover_s, security))
    out = console()

    def say(line: str) -> None:
        out.print(line, soft_wrap=True)

    most = max_body_bytes or max(_LEAST_BODY_BYTES, 4 * plan.chain.wire_bytes(0, plan.batch))
    request = ServeRequest(
        plan,
        endpoint,
        name or plan.chain.source.label,
        concurrency,
        queue,
        timeout_s,
        most,
        transport,
        advice.adviser(plan, plan_file, say),
        security,
    )
    with Stopping() as stopping:
        serve_plan(request, stopping, say)
