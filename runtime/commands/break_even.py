"""edgecut break-even: at which bandwidths, or loads of a device, the best plan changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.options import FILE
from runtime.commands.question_options import Question, question_options

if TYPE_CHECKING:
    from planner.fleet import Fleet
    from planner.parametric import Interval, Parameter

# Bytes per second of one Mbit/s.
_MBPS = 125e3


@click.command("break-even")
@question_options("max_latency_ms", "max_energy_mj", "min_sqnr_db")
@click.option(
    "--link", "links", multiple=True, metavar="A->B|all",
    help="Scale this link's bandwidth; repeated, or `all`, several in proportion.",
)  # fmt: skip
@click.option("--load", "device", metavar="DEVICE", help="Instead: scale the computing times of this device.")
@click.option("--from-mbps", type=float, help="Least bandwidth, in Mbit/s.  [default: 0.1]")
@click.option("--to-mbps", type=float, help="Greatest bandwidth.  [default: 1000]")
@click.option("--from-load", type=float, help="Least factor of the computing times.  [default: 1]")
@click.option("--to-load", type=float, help="Greatest factor.  [default: 20]")
@click.option(
    "--objective", type=click.Choice(["latency", "energy"]), default="latency", show_default=True,
    help="What to minimise, per inference.",
)  # fmt: skip
@click.option(
    "--weigh", multiple=True, metavar="CRITERION=FACTOR",
    help="Instead: minimise a weighted sum, in seconds and joules. May be repeated.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=FILE, default=Path("breakeven.csv"), show_default=True,
    help="Table to write; the picture goes beside it.",
)  # fmt: skip
def break_even(
    question: Question,
    links: tuple[str, ...],
    device: str | None,
    from_mbps: float | None,
    to_mbps: float | None,
    from_load: float | None,
    to_load: float | None,
    objective: Any,
    weigh: tuple[str, ...],
    output: Path,
) -> None:
    """At which bandwidths of a link, or loads of a device, the best plan changes, and what it is in between.

    All break points in the range are found, not only those that steps would meet.
    """
    from planner.parametric import alone
    from planner.parametric import break_even as find_intervals
    from planner.pricing import priced
    from planner.solver import weights_of
    from runtime.console import console
    from runtime.reports.break_even_plots import break_even_figure
    from runtime.reports.front_files import break_even_rows, save_rows
    from runtime.reports.theme import save_figure

    fleet, table = question.load()
    parameter, low, high = _range(fleet, links, device, (from_mbps, to_mbps), (from_load, to_load))
    wanted = _weights(weigh) if weigh else objective
    weights, limits = weights_of(wanted), question.limits
    model, notes = priced(table.chain, fleet, table, wanted, limits, question.batch, question.codecs, "mean")
    intervals = find_intervals(
        *(model, parameter, low, high), weights=weights, limits=limits, time_limit_s=question.time_limit_s
    )
    name = " + ".join(f"{factor:g} {each}" for each, factor in weights.items()) if weigh else objective
    save_rows(output, break_even_rows(parameter, name, intervals))
    picture = output.with_suffix(".png")
    title = f"{table.chain.source.name}: {_finding(intervals)}"
    lines = alone(model, parameter, low, high, weights=weights)
    figure = break_even_figure(parameter, name, intervals, lines, fleet)
    save_figure(figure, picture, title)
    out = console()
    out.print(_table(table.chain.source.name, parameter, name, intervals))
    for note in notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)
    if not all(each.proven for each in intervals):
        out.print("note: the solver did not prove every plan in time; see column proven", style="yellow")
    out.print(title, style="bold", soft_wrap=True)
    out.print(f"wrote {output}, {picture}", soft_wrap=True)


def _range(
    fleet: Fleet,
    links: tuple[str, ...],
    device: str | None,
    mbps: tuple[float | None, float | None],
    loads: tuple[float | None, float | None],
) -> tuple[Parameter, float, float]:
    """The parameter and its range in SI units."""
    from planner.errors import InputError
    from planner.parametric import Bandwidth, Load

    if bool(links) == (device is not None):
        raise InputError(
            "break-even of a link or of a load", "give either --link A->B (or all) or --load DEVICE"
        )
    given, other = (mbps, loads) if links else (loads, mbps)
    if other != (None, None):
        raise InputError(
            "a range of the other parameter", f"give --from-{'mbps' if links else 'load'} and --to-..."
        )
    low, high = (
        value if value is not None else default
        for value, default in zip(given, (0.1, 1000.0) if links else (1.0, 20.0), strict=True)
    )
    if links:
        return Bandwidth.of(fleet, list(links)), low * _MBPS, high * _MBPS
    return Load.of(fleet, device or ""), low, high


def _weights(texts: tuple[str, ...]) -> dict[Any, float]:
    from planner.errors import InputError

    try:
        return {name: float(factor) for name, factor in (text.split("=") for text in texts)}
    except ValueError:
        raise InputError(f"weights {' '.join(texts)}", "write CRITERION=FACTOR, such as latency=1") from None


def _finding(intervals: tuple[Interval, ...]) -> str:
    if len(intervals) == 1:
        return "one plan is best over the whole range"
    return f"{len(intervals)} plans, each best in its interval"


def _table(model: str, parameter: Parameter, objective: str, intervals: tuple[Interval, ...]) -> Any:
    from planner.parametric import Bandwidth
    from runtime.console import table
    from runtime.reports.front_files import plan_name

    bandwidth = isinstance(parameter, Bandwidth)
    scale, unit = (1 / _MBPS, "Mbit/s") if bandwidth else (1.0, "times")
    shown, factor = {"latency": ("ms", 1e3), "energy": ("mJ", 1e3)}.get(objective, ("", 1.0))
    rows = [
        (
            *(f"{value * scale:,.4g}" for value in (each.low, each.high)),
            *(f"{value * factor:,.2f}" for value in each.values),
            "yes" if each.proven else "no",
            plan_name(each.stages, each.hops),
        )
        for each in intervals
    ]
    columns = (f"from {unit}", f"to {unit}", f"{objective} {shown}".strip(), "at the end", "proven", "plan")
    return table(f"{model}: least {objective} by {parameter}", columns, rows, left=(5,))
