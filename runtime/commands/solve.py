"""edgecut solve: the best plan for a fleet and its profile tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.options import FILE

if TYPE_CHECKING:
    from planner.plan import Baseline, Plan


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
@click.option(
    "--objective",
    type=click.Choice(["latency", "energy"]),
    default="latency",
    show_default=True,
    help="What to minimise, per inference.",
)
@click.option("--max-energy-mj", type=float, help="At most so many millijoules per inference.")
@click.option("--max-latency-ms", type=float, help="At most so many milliseconds per inference.")
@click.option(
    "--min-sqnr-db", type=float, help="Signal to noise that fewer bits must leave, over the whole plan."
)
@click.option(
    "--codecs",
    "codec_names",
    metavar="all|none|LIST",
    help="Codecs that hops may use.  [default: lossless ones; all with --min-sqnr-db]",
)
@click.option("--batch", type=click.IntRange(min=1), help="Batch to plan for, where tables hold several.")
@click.option(
    "--time-limit",
    "time_limit_s",
    type=click.IntRange(1, 86400),
    default=60,
    show_default=True,
    help="Seconds the solver may take.",
)
@click.option(
    "-o", "--output", type=FILE, default=Path("plan.json"), show_default=True, help="Plan to write."
)
def solve(
    tables: tuple[Path, ...],
    more: tuple[Path, ...],
    fleet_file: Path,
    objective: Any,
    max_energy_mj: float | None,
    max_latency_ms: float | None,
    min_sqnr_db: float | None,
    codec_names: str | None,
    batch: int | None,
    time_limit_s: int,
    output: Path,
) -> None:
    """Find the best split with CBC, check it against a dynamic programme, and write the plan.

    Prints the plan, what each part costs, and what it gains over the plans one would try by hand.
    """
    from planner.codec_table import codecs_named
    from planner.errors import InputError
    from planner.fleet_file import load_fleet
    from planner.plan import Limits
    from planner.solver import solve as find_plan
    from planner.table import ProfileTable

    check_output(output)
    try:
        limits = Limits(
            max_latency_ms / 1e3 if max_latency_ms is not None else None,
            max_energy_mj / 1e3 if max_energy_mj is not None else None,
            min_sqnr_db,
        )
    except ValueError as error:
        raise InputError(str(error), "give a limit above 0, or none") from None
    table = ProfileTable.load([*tables, *more])
    plan = find_plan(
        table.chain,
        load_fleet(fleet_file),
        table,
        objective=objective,
        limits=limits,
        batch=batch,
        codecs=codecs_named(codec_names) if codec_names is not None else None,
        time_limit_s=time_limit_s,
    )
    plan.save(output)
    show_plan(plan)
    from runtime.console import console

    console().print(f"wrote {output}", soft_wrap=True)


def check_output(file: Path) -> None:
    """Refuse to write a plan over something else."""
    from planner.errors import InputError
    from planner.plan import is_plan

    if file.exists() and not is_plan(file):
        raise InputError(f"{file} exists and is no plan", "pass another --output")


def show_plan(plan: Plan) -> None:
    from planner.verdict import verdict
    from runtime.console import console, megabytes, millijoules, milliseconds, table

    out = console()
    parts = [
        (2 * stage.bundle.start + 1, (stage.device, str(stage.bundle), str(stage.variant), "", stage.cost))
        for stage in plan.stages
    ]
    for hop in plan.hops:
        route, codec = " → ".join(hop.route), str(hop.codec)
        if hop.codec != "raw":
            codec += f" ({milliseconds(hop.encode_s)} + {milliseconds(hop.decode_s)} ms)"
        shown = (route, f"at {hop.boundary}", codec, megabytes(hop.wire_bytes), hop.cost)
        parts.append((2 * hop.boundary, shown))
    rows = [
        (where, what, how, size, milliseconds(cost.latency_s), millijoules(cost.energy_j))
        for _, (where, what, how, size, cost) in sorted(parts, key=lambda part: part[0])
    ]
    rows.append(("total", "", "", "", milliseconds(plan.cost.latency_s), millijoules(plan.cost.energy_j)))
    title = f"{plan.chain.source.name}: least {plan.proof.objective} for a batch of {plan.batch}"
    columns = ("where", "layers", "how", "MB", "latency ms", "energy mJ")
    out.print(table(title, columns, rows, left=(0, 1, 2)))
    proof = plan.proof
    out.print(
        f"{proof.outcome.value} by {proof.solver}: gap {proof.gap:.2g}, {proof.arcs:,} arcs, "
        f"{proof.build_s + proof.solve_s:.2f} s; {proof.check}",
        soft_wrap=True,
    )
    if plan.cost.noise:
        out.print(f"forecast signal to noise at the output: {plan.cost.sqnr_db:.1f} dB")
    for note in plan.notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)
    out.print()
    out.print(_baseline_table(plan))
    out.print(f"{plan.chain.source.name}: {verdict(plan)}", style="bold", soft_wrap=True)


def _baseline_table(plan: Plan) -> Any:
    from planner.verdict import objective_value
    from runtime.console import millijoules, milliseconds, table

    rows = []
    entries: list[tuple[str, Plan | Baseline]] = [("this plan", plan)]
    entries += [(each.name, each) for each in plan.baselines]
    best = objective_value(plan, plan)
    for name, entry in entries:
        computing = sum(stage.cost.latency_s for stage in entry.stages)
        moving = sum(hop.cost.latency_s for hop in entry.hops)
        against = "" if entry is plan or not best else f"{objective_value(entry, plan) / best:.2f} x"
        rows.append(
            (name, milliseconds(computing), milliseconds(moving), milliseconds(entry.cost.latency_s),
             millijoules(entry.cost.energy_j), against)
        )  # fmt: skip
    columns = ("baseline", "computing ms", "moving ms", "latency ms", "energy mJ", plan.proof.objective)
    return table("what one would try by hand", columns, rows)
