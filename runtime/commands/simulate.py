"""edgecut simulate: what would happen to a plan, without a device."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, FOLDER

if TYPE_CHECKING:
    from planner.simulate_rate import LinkTrace
    from planner.simulate_result import Simulation
    from planner.simulate_scenario import Outage, Slowdown


def parse_pairs(
    ctx: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE, both given."""
    for text in value:
        name, _, rest = text.partition("=")
        if not name or not rest:
            raise click.BadParameter(f"{text!r}: write {option.metavar}")
    return tuple((text.partition("=")[0], text.partition("=")[2]) for text in value)


@click.command()
@click.argument("plan_files", type=FILE, nargs=-1, required=True, metavar="PLAN...")
@click.option(
    "--arrivals",
    "arrival_texts",
    multiple=True,
    metavar="closed:N|constant:RATE|poisson:RATE|FILE",
    help="N requests in flight as `edgecut deploy --concurrency`; so many per second; or a CSV file with the column "
    "time_s. Once for all plans, or once for each.  [default: closed:1]",
)
@click.option(
    "--requests",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Of each plan, where no file says it.",
)
@click.option(
    "--bandwidth-trace",
    "trace_files",
    multiple=True,
    callback=parse_pairs,
    metavar="A:B=FILE",
    help="CSV of this link: time_s, bandwidth_bytes_per_s, and latency_s if it changes.",
)
@click.option(
    "--bandwidth-mbps",
    "bandwidths",
    multiple=True,
    callback=parse_pairs,
    metavar="A:B=MBIT",
    help="Mbit/s of this link, all the time.",
)
@click.option(
    "--bandwidth-factor", type=float, default=1.0, show_default=True, help="Of all links, traces included."
)
@click.option(
    "--jitter",
    type=float,
    default=0.0,
    show_default=True,
    metavar="CV",
    help="Devices vary: lognormal with this coefficient of variation.",
)
@click.option(
    "--profiles",
    "tables",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="Draw what stages take from the raw samples beside this profile table. May be repeated.",
)
@click.option(
    "--slowdown",
    "slowdown_pairs",
    multiple=True,
    callback=parse_pairs,
    metavar="DEVICE=FACTOR[@SECOND]",
    help="A device takes FACTOR times as long, from a moment on.",
)
@click.option(
    "--outage",
    "outage_pairs",
    multiple=True,
    callback=parse_pairs,
    metavar="DEVICE|A:B=FROM-TO",
    help="A device or link does nothing from one second to another; requests wait.",
)
@click.option("--deadline-ms", type=float, help="Count answers that take longer.")
@click.option(
    "--drop-late", is_flag=True, help="Drop requests that are past the deadline before they are done."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "-o", "--output", type=FOLDER, default=Path("simulation"), show_default=True, help="Folder to write."
)
def simulate(
    plan_files: tuple[Path, ...],
    arrival_texts: tuple[str, ...],
    requests: int,
    trace_files: tuple[tuple[str, str], ...],
    bandwidths: tuple[tuple[str, str], ...],
    bandwidth_factor: float,
    jitter: float,
    tables: tuple[Path, ...],
    slowdown_pairs: tuple[tuple[str, str], ...],
    outage_pairs: tuple[tuple[str, str], ...],
    deadline_ms: float | None,
    drop_late: bool,
    seed: int,
    output: Path,
) -> None:
    """Run PLAN (or several that share one fleet) event by event: requests arrive, wait, compute, travel.

    Gives the spread of latencies, throughput, queues, utilisation and energy. Nothing is deployed.
    """
    from planner.errors import InputError
    from planner.plan import Plan
    from planner.simulate_result import save_requests
    from planner.simulate_run import simulate as run
    from planner.simulate_scenario import Scenario, parse_arrivals
    from planner.simulate_steps import read_samples

    plans = [Plan.load(file) for file in plan_files]
    if len(arrival_texts) not in (0, 1, len(plans)):
        problem = f"{len(plans)} plans and {len(arrival_texts)} times --arrivals"
        raise InputError(problem, "give it once for all plans, or once for each in their order")
    arrivals = [parse_arrivals(text) for text in arrival_texts or ("closed:1",)]
    arrivals *= len(plans) // len(arrivals)
    try:
        scenario = Scenario(
            requests, seed, jitter, bool(tables), bandwidth_factor, _traces(trace_files, bandwidths),
            _slowdowns(slowdown_pairs), _outages(outage_pairs),
            deadline_ms / 1e3 if deadline_ms is not None else None, drop_late,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error), "see `edgecut simulate --help`") from None
    found, passed = run(plans, arrivals, scenario, read_samples(tables))
    found.save(output / "simulation.json")
    save_requests(passed, scenario, output / "requests.csv")
    show_simulation(found)

    from runtime.console import console
    from runtime.reports.simulation_plot import draw_simulation

    draw_simulation(found, passed, output / "simulation.png")
    console().print(f"wrote {output}: simulation.json, requests.csv, simulation.png", soft_wrap=True)


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number", param_hint=option) from None


def _link(text: str, option: str) -> tuple[str, str]:
    source, colon, target = text.partition(":")
    if not (source and colon and target):
        raise click.BadParameter(f"{text!r} is no link: write SOURCE:TARGET", param_hint=option)
    return source, target


def _traces(files: Iterable[tuple[str, str]], bandwidths: Iterable[tuple[str, str]]) -> tuple[LinkTrace, ...]:
    from planner.simulate_rate import LinkTrace, read_link_trace

    found = [read_link_trace(Path(file), _link(name, "--bandwidth-trace")) for name, file in files]
    for name, text in bandwidths:
        pair, option = _link(name, "--bandwidth-mbps"), "--bandwidth-mbps"
        found.append(LinkTrace(*pair, (0.0,), (_number(text, option) * 125_000,)))
    return tuple(found)


def _slowdowns(pairs: Iterable[tuple[str, str]]) -> tuple[Slowdown, ...]:
    from planner.simulate_scenario import Slowdown

    found = []
    for device, text in pairs:
        factor, at, start = text.partition("@")
        start_s = _number(start, "--slowdown") if at else 0.0
        found.append(Slowdown(device, _number(factor, "--slowdown"), start_s))
    return tuple(found)


def _outages(pairs: Iterable[tuple[str, str]]) -> tuple[Outage, ...]:
    from planner.simulate_scenario import Outage

    found = []
    for name, text in pairs:
        start, dash, stop = text.partition("-")
        if not dash:
            raise click.BadParameter(
                f"{text!r}: write FROM-TO in seconds, such as 10-12", param_hint="--outage"
            )
        place = _link(name, "--outage") if ":" in name else (name,)
        found.append(Outage(place, _number(start, "--outage"), _number(stop, "--outage")))
    return tuple(found)


def show_simulation(found: Simulation) -> None:
    from planner.simulate_scenario import place_name
    from runtime.console import console, millijoules, milliseconds, table

    out = console()
    rows: list[tuple[str, ...]] = []
    for stream, plan in zip(found.streams, found.plans, strict=True):
        spread = stream.latency
        times = ("-",) * 6 if spread is None else tuple(
            milliseconds(value)
            for value in (spread.mean_s, spread.median_s, spread.p95_s, spread.p99_s, spread.max_s, spread.queue_s)
        )  # fmt: skip
        rows.append(
            (
                stream.model, str(stream.arrivals), f"{stream.finished:,}", milliseconds(plan.cost.latency_s),
                *times, f"{stream.throughput_per_s:,.4g}", f"{stream.capacity_per_s:,.4g}",
            )
        )  # fmt: skip
    columns = (
        "plan", "arrivals", "answers", "forecast ms", "mean", "median", "p95", "p99", "max", "waited", "per s",
        "at most",
    )  # fmt: skip
    out.print(table(f"{found.duration_s:,.2f} s simulated", columns, rows, left=(0, 1)))
    rows = [
        (place_name(each.place), f"{each.utilisation:.1%}", f"{each.mean_queue:.2f}", f"{each.max_queue:,}")
        for each in found.places
    ]
    out.print(table("devices and links", ("", "busy", "mean queue", "longest queue"), rows))
    if found.batteries:
        rows = [
            (each.device, *map(millijoules, (each.compute_j, each.radio_j, each.idle_j, each.total_j)))
            for each in found.batteries
        ]
        kinds = ("battery device", "compute mJ", "radio mJ", "idle mJ", "total mJ")
        out.print(table("energy", kinds, rows))
        forecast = ", ".join(f"{millijoules(plan.cost.energy_j)} mJ" for plan in found.plans)
        out.print(f"{millijoules(found.energy_per_request_j)} mJ per answer, forecast {forecast}")
    for stream in found.streams:
        if found.scenario.deadline_s is not None:
            share = (stream.late + stream.dropped) / stream.requests
            out.print(
                f"{stream.model}: {stream.late:,} answers late, {stream.dropped:,} requests dropped ({share:.1%})"
            )
    for note in found.notes:
        out.print(note, style="yellow", soft_wrap=True)
    if not found.notes:
        out.print(found.verdict(), style="bold", soft_wrap=True)
