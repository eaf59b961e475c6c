"""edgecut solve: the best plan for a fleet and its profile tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.limit_options import limit_options, limits_from, objective_options
from runtime.commands.options import FILE

if TYPE_CHECKING:
    from planner.fleet import Fleet
    from planner.table import ProfileTable


@click.command()
@click.option(
    "--profiles",
    "tables",
    type=FILE,
    multiple=True,
    required=True,
    metavar="FILE...",
    help="Profile tables, one of each device.",
)
@click.argument("more", type=FILE, nargs=-1, metavar="")
@click.option("--fleet", "fleet_file", type=FILE, required=True, help="Devices and links.")
@objective_options
@limit_options
@click.option(
    "--several-stages", "several", is_flag=True, help="For throughput: let a device compute more than once."
)
@click.option(
    "--codecs",
    "codec_names",
    metavar="all|none|LIST",
    help="Codecs that hops may use.  [default: lossless ones; all with --min-sqnr-db]",
)
@click.option("--batch", type=click.IntRange(min=1), help="Batch to plan for, where tables hold several.")
@click.option(
    "--partial",
    is_flag=True,
    help="Plan with tables from which bundles are missing, over what is there, and say what measuring could gain.",
)
@click.option(
    "--override",
    metavar="PLAN",
    help="Price a hand-made plan instead: a plan.json, or stages such as "
    '"edge:0-3 server:4-7@onnxruntime-int8".',
)
@click.option(
    "-o", "--output", type=FILE, default=Path("plan.json"), show_default=True, help="Plan to write."
)
def solve(
    tables: tuple[Path, ...],
    more: tuple[Path, ...],
    fleet_file: Path,
    objective: Any,
    statistic: str,
    solver: str,
    time_limit_s: int,
    asked: dict[str, Any],
    several: bool,
    codec_names: str | None,
    batch: int | None,
    partial: bool,
    override: str | None,
    output: Path,
) -> None:
    """Find the best split, prove it, and write the plan.

    Prints the plan, what each part costs, what it takes of each limit, and what it gains over the plans one would try
    by hand. With --override, prints that of a plan of your own beside the best one, and writes nothing.
    """
    from planner.codec_table import codecs_named
    from planner.fleet_file import load_fleet
    from planner.solver import solve as find_plan
    from planner.table import ProfileTable
    from runtime.console import console
    from runtime.plan_tables import show_plan

    limits = limits_from(asked)
    if override is None:
        check_output(output)
    table = ProfileTable.load([*tables, *more])
    codecs = codecs_named(codec_names) if codec_names is not None else None
    question: dict[str, Any] = {
        "objective": objective,
        "limits": limits,
        "batch": batch,
        "codecs": codecs,
        "statistic": statistic,
        "partial": partial,
    }
    limited: dict[str, Any] = {"time_limit_s": time_limit_s, "solver": solver, "several": several}
    if override is not None:
        show_override(override, table, load_fleet(fleet_file), question, limited)
        return
    plan = find_plan(table.chain, load_fleet(fleet_file), table, **question, **limited)
    plan.save(output)
    show_plan(plan)
    console().print(f"wrote {output}", soft_wrap=True)


def show_override(
    text: str, table: ProfileTable, fleet: Fleet, question: dict[str, Any], limited: dict[str, Any]
) -> None:
    """Print what a hand-made plan costs, which limits it keeps, and how far it is from the best."""
    from dataclasses import replace

    from planner.errors import InfeasibleError
    from planner.override import load_override, priced_override
    from planner.pricing import priced
    from planner.solver import solve as find_plan
    from planner.solver import weights_of
    from runtime.console import console
    from runtime.plan_tables import show_by_hand

    given, limits = load_override(text), question["limits"]
    model, notes = priced(table.chain, fleet, table, *question.values())
    weights = weights_of(question["objective"])
    entry = priced_override(replace(model, fleet=fleet), limits, weights, given)
    try:
        best = find_plan(table.chain, fleet, table, **question, **limited)
    except InfeasibleError:
        show_by_hand(entry, fleet, limits, table.chain.source.name, None)
        raise
    show_by_hand(entry, fleet, limits, table.chain.source.name, best)
    for note in notes:
        console().print(f"note: {note}", style="yellow", soft_wrap=True)


def check_output(file: Path) -> None:
    """Refuse to write a plan over something else."""
    from planner.errors import InputError
    from planner.plan import is_plan

    if file.exists() and not is_plan(file):
        raise InputError(f"{file} exists and is no plan", "pass another --output")
