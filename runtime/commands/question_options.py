"""What `front` and `break-even` ask of: tables, fleet, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.limit_options import limits_from, some_limit_options
from runtime.commands.options import FILE, F, gathered, time_limit_option, with_options

if TYPE_CHECKING:
    from planner.fleet import Fleet
    from planner.limits import Limits
    from planner.table import ProfileTable


@dataclass(frozen=True)
class Question:
    tables: tuple[Path, ...]
    fleet_file: Path
    limits: Limits
    codec_names: str | None
    batch: int | None
    time_limit_s: int

    def load(self) -> tuple[Fleet, ProfileTable]:
        from planner.table import ProfileTable

        return _fleet(self.fleet_file), ProfileTable.load(list(self.tables))

    @property
    def codecs(self) -> Any:
        from planner.codec_table import codecs_named

        return codecs_named(self.codec_names) if self.codec_names is not None else None


def _fleet(file: Path) -> Fleet:
    """A fleet as written by hand, or that of a plan or of a run's ``run.json``."""
    from planner import run
    from planner.fleet_file import load_fleet
    from planner.plan import Plan, holds

    if file.suffix != ".json":
        return load_fleet(file)
    if holds(file, run.SCHEMA):
        return run.RunInfo.load(file).plan.fleet
    return Plan.load(file).fleet


def question_options(*limits: str) -> Callable[[F], F]:
    """The command receives one ``question``, with these limits; names as in `limit_options`."""

    def decorate(command: F) -> F:
        def collect(
            tables: tuple[Path, ...],
            more: tuple[Path, ...],
            fleet_file: Path,
            asked: dict[str, Any],
            codec_names: str | None,
            batch: int | None,
            time_limit_s: int,
            **rest: Any,
        ) -> Any:
            question = Question(
                (*tables, *more), fleet_file, limits_from(asked), codec_names, batch, time_limit_s
            )
            return command(question=question, **rest)

        return with_options(some_limit_options(*limits)(gathered(command, collect)), *_OPTIONS)

    return decorate


_OPTIONS = [
    click.option(
        "--profiles", "tables", type=FILE, multiple=True, required=True, metavar="FILE...",
        help="Profile tables, one of each device.",
    ),
    click.argument("more", type=FILE, nargs=-1, metavar=""),
    click.option("--fleet", "fleet_file", type=FILE, required=True,
        help="Devices and links; or a plan, whose fleet is meant.",
    ),
    click.option(
        "--codecs", "codec_names", metavar="all|none|LIST",
        help="Codecs that hops may use.  [default: lossless ones; all with --min-sqnr-db]",
    ),
    click.option("--batch", type=click.IntRange(min=1), help="Batch to plan for, where tables hold several."),
    time_limit_option("each call of the solver"),
]  # fmt: skip
