"""edgecut deploy: run a plan and record what happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.adviser_options import Advice, adviser_options
from runtime.commands.options import (
    FILE,
    FOLDER,
    discover_option,
    fleet_option,
    security_options,
    transport_option,
)
from runtime.commands.ray_options import ray_options

if TYPE_CHECKING:
    from rich.console import Console

    from planner.fleet_plan import Stream
    from runtime.monitor import Monitor
    from runtime.ray_engine import OnRay
    from runtime.security import Security


def _parse_check(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """A number of requests; -1 where nothing was said, None for all."""
    if text is None:
        return -1
    if text in ("all", "none"):
        return None if text == "all" else 0
    if not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not a number of requests, all or none")
    return int(text)


@contextmanager
def offered(monitor: Monitor, endpoint: tuple[str, int] | None, err: Console) -> Iterator[None]:
    """The monitor's figures to Prometheus, where that is wanted."""
    if endpoint is None:
        yield
        return
    from runtime.metrics import served

    with served(monitor, endpoint) as address:
        err.print(f"metrics: {address}", soft_wrap=True)
        yield


def _parse_metrics(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[str, int] | None:
    if text is None:
        return None
    from runtime.metrics import parse_endpoint

    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("plan_file", type=FILE, metavar="PLAN")
@fleet_option
@click.option(
    "--inputs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of JPEG or PNG files, .npz or .npy of arrays, or - for .npy arrays one after the other on standard "
    "input; several times for several streams.  [default: crops of one photograph]",
)
@click.option("--labels", type=FILE, help="CSV file that gives the images' classes.")
@click.option(
    "--requests",
    type=click.IntRange(min=1),
    help="Of each stream; its inputs come again where there are fewer.  [default: each input once; 50 of the "
    "default ones]",
)
@click.option(
    "--outputs",
    type=click.Path(path_type=Path),
    help="Folder, .npz file, or - for standard output.  [default: not kept]",
)
@click.option(
    "--check",
    callback=_parse_check,
    help="Compare so many different requests of each stream with the whole model, all or none.  [default: 20; all "
    "with --labels]",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "stop"]),
    default="skip",
    show_default=True,
    help="What an input that the model cannot take does to the others.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1, max=1024),
    default=1,
    show_default=True,
    help="Requests in flight; above 1 the stages work as a pipeline.",
)
@transport_option
@click.option(
    "--metrics",
    callback=_parse_metrics,
    metavar="HOST:PORT",
    help="Offer figures to Prometheus there while it runs; a port alone is this machine's own. Whoever reaches it "
    "may read them.",
)
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File for a trace of every request across devices, for ui.perfetto.dev; compressed if it ends in .gz.",
)
@ray_options
@discover_option
@adviser_options
@security_options
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    help="Folder of the run; one that was interrupted goes on.  [default: runs/MODEL-TIME]",
)
def deploy(
    plan_file: Path,
    advice: Advice,
    fleet_file: Path | None,
    inputs: tuple[Path, ...],
    labels: Path | None,
    requests: int | None,
    outputs: Path | None,
    check: int | None,
    on_error: str,
    concurrency: int,
    transport: Any,
    metrics: tuple[str, int] | None,
    trace: Path | None,
    on_ray: OnRay | None,
    discover_s: float,
    security: Security,
    output: Path | None,
) -> None:
    """Run PLAN on its devices' agents, and record forecast beside measurement.

    Devices that are emulated get an agent here. With --engine ray, PLAN may also be what `edgecut replicate` wrote.
    The run is a folder that `edgecut report` reads. Where a device
    fails, or another plan becomes better, that one takes over. Ctrl-C ends it after the requests on their way;
    with the same -o it goes on.
    """
    from planner.fleet_file import load_fleet
    from planner.fleet_plan import load_dealt

    plan, stream = load_dealt(plan_file)
    if stream:
        on_ray = _dealt(on_ray, stream)
    machines = load_fleet(fleet_file) if fleet_file else None

    from runtime.console import console
    from runtime.deployed import on_fleet
    from runtime.deployment import DeployRequest, record
    from runtime.discovery import located
    from runtime.live import on_screen, restore_terminal, watched
    from runtime.live_deploy import DeployView
    from runtime.monitor import Monitor
    from runtime.run_tables import show_run
    from runtime.stopping import Stopped, Stopping

    if on_ray is None:
        machines = located(machines or plan.fleet, plan.devices, discover_s, security)
        plan = on_fleet(plan, machines)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = output or Path("runs") / f"{plan.chain.source.label}-{stamp}"
    if check == -1:
        check = None if labels else 20
    out = console(stderr=str(outputs) == "-")

    def say(line: str) -> None:
        out.print(line, style="yellow", soft_wrap=True)

    adviser = None if on_ray else advice.adviser(plan, plan_file, say)
    request = DeployRequest(
        plan,
        folder,
        inputs,
        labels,
        requests,
        concurrency,
        transport,
        outputs,
        check,
        on_error == "skip",
        adviser,
        security,
        trace,
        on_ray,
    )
    skipped: list[str] = []
    err = console(stderr=True)
    stopping = Stopping(restore_terminal, say=not on_screen(err))
    title = f"{plan.chain.source.name} on {', '.join(plan.devices)}"
    total = request.limit and -(-request.limit // plan.batch) * max(len(inputs), 1)
    monitor = Monitor(plan, concurrency, total)
    try:
        with offered(monitor, metrics, err), stopping, watched(DeployView(monitor, title, stopping), err):
            run = record(request, skipped, monitor, lambda line: out.print(line, soft_wrap=True), stopping)
    except Stopped:
        run = None
    finally:
        for problem in skipped:
            out.print(f"refused {problem}", style="yellow", soft_wrap=True)
    if run and run.rows:
        for part in run.by_plan():
            show_run(part, out)
        forecast = f", forecast at most {stream.rate_per_s * plan.batch:.2f}" if stream else ""
        rate = run.info.requests * plan.batch / run.info.wall_s
        out.print(f"throughput: {rate:.2f} samples/s over {request.medium}{forecast}", soft_wrap=True)
        for switch in run.switches:
            out.print(f"{switch.at}: {switch.reason}; now {switch.stages}", soft_wrap=True)
        out.print(f"wrote {folder}", soft_wrap=True)
    if stopping.exit_code:
        again = "" if output else f" with -o {folder}"
        err.print(f"interrupted; what was finished is kept. The same command{again} goes on", soft_wrap=True)
        click.get_current_context().exit(stopping.exit_code)


def _dealt(on_ray: OnRay | None, stream: Stream) -> OnRay:
    from planner.errors import InputError

    if on_ray is None:
        raise InputError(
            f"{stream.name} is dealt out over {len(stream.shares)} plans, which agents do not do",
            "pass --engine ray",
        )
    return replace(on_ray, shares=stream.shares)
