"""edgecut solve-many and replicate: plans for several streams on one fleet, and stages on several devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, time_limit_option

if TYPE_CHECKING:
    from planner.fleet_plan import FleetPlan, Stream

_OUTPUT = click.option(
    "-o", "--output", type=FILE, default=Path("fleetplan.json"), show_default=True, help="Plans to write."
)


@click.command("solve-many")
@click.argument("job_file", type=FILE, metavar="JOB.toml")
@click.option(
    "--objective",
    type=click.Choice(["sum", "balanced"]),
    help="Least weighted sum of the streams' objectives, or least largest utilisation.  [default: the job's]",
)
@click.option(
    "--max-utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the time that a device or link may be busy.  [default: the job's]",
)
@time_limit_option("the search")
@_OUTPUT
def solve_many(
    job_file: Path, objective: str | None, max_utilisation: float | None, time_limit_s: int, output: Path
) -> None:
    """Find plans for several streams that share a fleet, and write them.

    No device and no link is asked for more of its time than --max-utilisation. Prints each stream's plan, and
    what each device and link is busy with.
    """
    from planner.fleet_solver import solve_many as find_plans
    from planner.job_file import demands_of, load_job

    _check_output(output)
    job = load_job(job_file)
    fleet, demands = demands_of(job, job_file.parent)
    plan = find_plans(
        fleet,
        demands,
        max_utilisation=job.max_utilisation if max_utilisation is None else max_utilisation,
        balanced=(objective or job.objective) == "balanced",
        time_limit_s=time_limit_s,
    )
    plan.save(output)
    _show(plan)
    _say_written(output)


@click.command()
@click.option(
    "--profiles", "tables", type=FILE, multiple=True, required=True, metavar="FILE...",
    help="Profile tables, one of each device.",
)  # fmt: skip
@click.argument("more", type=FILE, nargs=-1, metavar="")
@click.option("--fleet", "fleet_file", type=FILE, required=True, help="Devices and links.")
@click.option("--max-replicas", type=click.IntRange(min=1), help="Devices that may run one stage.")
@click.option(
    "--codecs",
    "codec_names",
    metavar="all|none|LIST",
    help="Codecs that hops may use.  [default: lossless ones]",
)
@click.option("--batch", type=click.IntRange(min=1), help="Batch to plan for, where tables hold several.")
@_OUTPUT
def replicate(
    tables: tuple[Path, ...],
    more: tuple[Path, ...],
    fleet_file: Path,
    max_replicas: int | None,
    codec_names: str | None,
    batch: int | None,
    output: Path,
) -> None:
    """Find the pipeline of highest throughput when several devices may run one stage by turns.

    Prints the stages, the share of the requests that each device serves, and what devices and links are busy with.
    """
    from planner.codec_table import codecs_named
    from planner.fleet_file import load_fleet
    from planner.replicas import replicate as find_stages
    from planner.table import ProfileTable

    _check_output(output)
    plan = find_stages(
        load_fleet(fleet_file),
        ProfileTable.load([*tables, *more]),
        max_replicas=max_replicas,
        batch=batch,
        codecs=codecs_named(codec_names) if codec_names is not None else None,
    )
    plan.save(output)
    _show(plan)
    _say_written(output)


def _check_output(file: Path) -> None:
    """Refuse to write plans over something else."""
    from planner.errors import InputError
    from planner.fleet_plan import SCHEMA
    from planner.plan import holds

    if file.exists() and not holds(file, SCHEMA):
        raise InputError(f"{file} exists and holds no plans of a fleet", "pass another --output")


def _say_written(file: Path) -> None:
    from runtime.console import console

    console().print(f"wrote {file}", soft_wrap=True)


def _show(plan: FleetPlan) -> None:
    from runtime.console import console, milliseconds, table

    out = console()
    for stream in plan.streams:
        _show_stream(stream)
    names = [stream.name for stream in plan.streams]
    rows = []
    for name, by_stream in plan.utilisation.items():
        total = sum(by_stream.values())
        if total >= 5e-4:
            shown = [_percent(by_stream[each]) if each in by_stream else "" for each in names]
            rows.append((total, (name, *shown, _percent(total))))
    most = f"{plan.max_utilisation * 100:g} %"
    out.print(f"share of the time that devices and links are busy, at most {most}", style="bold")
    ordered = [row for _, row in sorted(rows, key=lambda row: ("->" in row[1][0], -row[0]))]
    out.print(table("", ("device or link", *names, "in all"), ordered))
    proof = plan.proof
    out.print(
        f"{proof.outcome.value} by {proof.solver}: {proof.objective}, gap {proof.gap * 100:.2f} %, "
        f"{proof.arcs:,} arcs, {proof.arcs_after:,} at last, {proof.solve_s:.2f} s",
        soft_wrap=True,
    )
    if proof.objective == "period":
        rate = plan.streams[0].rate_per_s
        out.print(
            f"a request every {milliseconds(proof.objective_value)} ms, {rate:,.2f} a second; no pipeline "
            f"of stages does better than {milliseconds(proof.bound)} ms",
            style="bold", soft_wrap=True,
        )  # fmt: skip
    for note in plan.notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)


def _show_stream(stream: Stream) -> None:
    from runtime.console import console, millijoules, milliseconds, table

    rows = []
    for bundle, devices in stream.stages.items():
        for device, share in devices.items():
            stages = (stage for each in stream.shares for stage in each.plan.stages)
            stage = next(stage for stage in stages if (stage.bundle, stage.device) == (bundle, device))
            rows.append(
                (str(bundle), device, str(stage.variant), _percent(share), milliseconds(stage.cost.latency_s))
            )
    latency_s = sum(each.share * each.plan.cost.latency_s for each in stream.shares)
    energy_j = sum(each.share * each.plan.cost.energy_j for each in stream.shares)
    title = (
        f"{stream.name}: {stream.rate_per_s:,.2f} requests a second, {milliseconds(latency_s)} ms and "
        f"{millijoules(energy_j)} mJ each"
    )
    columns = ("layers", "device", "how", "requests", "latency ms")
    out = console()
    out.print(title, style="bold", soft_wrap=True)
    out.print(table("", columns, rows, left=(0, 1, 2)))


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
