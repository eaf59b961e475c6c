"""edgecut front: every plan that no other beats in both latency and energy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, FOLDER
from runtime.commands.question_options import Question, question_options

if TYPE_CHECKING:
    from planner.front import Front

_MOST_SHOWN = 24


def _budgets(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    """20,30,exact; exact is more than any arithmetic that loses something keeps."""
    if value is None:
        return ()
    from planner.front import EXACT_DB

    try:
        return tuple(EXACT_DB if part.strip() == "exact" else float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: write dB joined by commas, such as 20,30,exact") from None


@click.command()
@question_options("max_latency_ms", "max_energy_mj")
@click.option("--points", type=click.IntRange(min=2), help="So many points, spread evenly over each front.")
@click.option(
    "--min-sqnr-db", callback=_budgets, metavar="DB,...",
    help="A front for each of these budgets of precision; `exact` is one.",
)  # fmt: skip
@click.option(
    "--noise-levels", type=click.IntRange(min=1), metavar="N",
    help="Instead: every level of noise that matters, if N suffice, else N budgets evenly spaced.",
)  # fmt: skip
@click.option("--save-plans", "plans", type=FOLDER, help="Write every point as a plan into this folder.")
@click.option(
    "-o", "--output", type=FILE, default=Path("front.csv"), show_default=True,
    help="Table to write; the picture goes beside it.",
)  # fmt: skip
def front(
    question: Question,
    points: int | None,
    min_sqnr_db: tuple[float, ...],
    noise_levels: int | None,
    plans: Path | None,
    output: Path,
) -> None:
    """Every plan that no other beats in both latency and energy, as table, picture and plans.

    The front is exact: also the plans that no weighing of latency against energy would find.
    """
    from planner.front import front as find_front
    from runtime.console import console
    from runtime.reports.front_files import front_rows, save_rows
    from runtime.reports.front_plots import front_figure, front_title
    from runtime.reports.theme import save_figure

    fleet, table = question.load()
    found = find_front(
        *(table.chain, fleet, table),
        limits=question.limits,
        min_sqnr_db=min_sqnr_db,
        noise_levels=noise_levels,
        points=points,
        batch=question.batch,
        codecs=question.codecs,
        time_limit_s=question.time_limit_s,
    )
    files = [""] * len(found.points)
    if plans is not None:
        plans.mkdir(parents=True, exist_ok=True)
        for place, point in enumerate(found.points):
            file = plans / f"point-{place + 1:03d}.json"
            found.plan(point).save(file)
            files[place] = file.name
    save_rows(output, front_rows(found, files))
    picture = output.with_suffix(".png")
    save_figure(front_figure(found), picture, front_title(found))
    _show(found)
    written = [str(output), str(picture), *([f"{len(files)} plans in {plans}"] if plans else [])]
    console().print(f"wrote {', '.join(written)}", soft_wrap=True)


def _show(front: Front) -> None:
    from runtime.console import console, millijoules, milliseconds, table
    from runtime.reports.front_files import budget_name, plan_name

    out, knee = console(), front.knee
    shown = front.points
    if len(shown) > _MOST_SHOWN:
        step = (len(shown) - 1) / (_MOST_SHOWN - 1)
        shown = tuple(shown[round(place * step)] for place in range(_MOST_SHOWN))
    several = front.budgets != [None]
    rows = [
        (
            str(front.points.index(point) + 1),
            milliseconds(point.cost.latency_s),
            millijoules(point.cost.energy_j),
            *((budget_name(point.min_sqnr_db),) if several else ()),
            "knee" if point is knee else "",
            plan_name(point.stages, point.hops),
        )
        for point in shown
    ]
    columns = ("point", "latency ms", "energy mJ", *(("at least dB",) if several else ()), "", "plan")
    title = f"{front.chain.source.name}: the latency-energy front, {front.all_points} points"
    out.print(table(title, columns, rows, left=(len(columns) - 2, len(columns) - 1)))
    if len(front.points) < front.all_points:
        out.print(f"{len(front.points)} of them, evenly spread over the front")
    if len(shown) < len(front.points):
        out.print(
            f"every {len(front.points) / len(shown):.1f}th of {len(front.points)} points; all are in the table"
        )
    for note in front.notes:
        out.print(f"note: {note}", style="yellow", soft_wrap=True)
    first = front.at(front.budgets[0])[0]
    if len(front.at(front.budgets[0])) == 1:
        out.print("one plan is best in both latency and energy", style="bold")
        return
    gain = 1 - knee.cost.energy_j / first.cost.energy_j if first.cost.energy_j else 0.0
    loss = knee.cost.latency_s / first.cost.latency_s - 1
    out.print(
        f"at the knee {gain * 100:.1f} % less energy than the fastest plan, for {loss * 100:.1f} % more latency",
        style="bold",
        soft_wrap=True,
    )
