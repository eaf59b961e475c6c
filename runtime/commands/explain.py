"""edgecut explain: why a plan is the best, and by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runtime.commands.options import FILE, FOLDER, time_limit_option


@click.command()
@click.argument("plan_file", type=FILE, metavar="PLAN")
@click.option(
    "--profiles",
    "tables",
    type=FILE,
    multiple=True,
    metavar="FILE...",
    help="Profile tables to ask.  [default: those that the plan was solved from]",
)
@click.argument("more", type=FILE, nargs=-1, metavar="")
@click.option(
    "-n",
    "--top",
    type=click.IntRange(0, 1000),
    default=5,
    show_default=True,
    help="Plans to list that come next.",
)
@click.option(
    "--distinct",
    type=click.Choice(["devices", "cuts", "variants"]),
    default="cuts",
    show_default=True,
    help="What makes it another plan: other devices for some layer; or other cuts; or anything.",
)
@click.option(
    "--codecs",
    "codec_names",
    metavar="all|none|LIST",
    help="Codecs that hops may use.  [default: as the plan was solved]",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Use tables from which bundles are missing, even if the plan did not.",
)
@click.option(
    "--dime-layers",
    type=click.IntRange(min=1),
    help="Layers of a bundle at most in DIME's formulation.  [default: all]",
)
@time_limit_option("each search")
@click.option("--json", "json_file", type=FILE, help="Write everything as a document, too.")
@click.option("--csv", "csv_folder", type=FOLDER, help="Write each table as CSV into this folder, too.")
def explain(
    plan_file: Path,
    tables: tuple[Path, ...],
    more: tuple[Path, ...],
    top: int,
    distinct: Any,
    codec_names: str | None,
    partial: bool,
    dime_layers: int | None,
    time_limit_s: int,
    json_file: Path | None,
    csv_folder: Path | None,
) -> None:
    """Say why PLAN is the best: the plans that come next, what others would do, what each limit costs, and which
    measurements the choice hangs on.
    """
    from planner.codec_table import codecs_named
    from planner.explain import explain as find
    from planner.plan import Plan
    from planner.table import plan_table
    from runtime.explain_tables import show, write_csv

    plan = Plan.load(plan_file)
    if json_file is not None:
        _check_output(json_file)
    found = find(
        plan,
        plan_table(plan, plan_file, (*tables, *more)),
        count=top,
        distinct=distinct,
        codecs=codecs_named(codec_names) if codec_names is not None else None,
        partial=partial,
        dime_layers=dime_layers,
        time_limit_s=time_limit_s,
    )
    show(found)
    from runtime.console import console

    written = []
    if json_file is not None:
        found.save(json_file)
        written.append(json_file)
    if csv_folder is not None:
        written += write_csv(found, csv_folder)
    for file in written:
        console().print(f"wrote {file}", soft_wrap=True)


def _check_output(file: Path) -> None:
    """Refuse to write an explanation over something else."""
    import json

    from planner.documents import read_text
    from planner.errors import InputError
    from planner.explanation import SCHEMA

    if not file.exists():
        return
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError(f"{file} exists and is no explanation", "pass another --json")
