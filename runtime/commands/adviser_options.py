"""Which plans a deployment may switch to: options of `deploy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.commands.options import FILE, F, gathered

if TYPE_CHECKING:
    from planner.plan import Plan
    from runtime.adviser import Adviser


@dataclass(frozen=True)
class Advice:
    tables: tuple[Path, ...]
    static: bool
    drift_percent: float

    def adviser(self, plan: Plan, plan_file: Path, say: Callable[[str], None]) -> Adviser:
        """Says so where there are no tables to plan with. Raises for tables that were named and cannot be used."""
        from planner.errors import InputError
        from runtime.adviser import StaticAdviser
        from runtime.profiled_adviser import adviser_for

        if self.static and self.tables:
            raise InputError("--static keeps to one plan and needs no tables", "leave out --profiles")
        if self.static:
            return StaticAdviser(plan)
        return adviser_for(plan, plan_file, self.tables, drift=self.drift_percent / 100, say=say)


def adviser_options(command: F) -> F:
    """The command receives one ``advice``."""

    def collect(
        tables: tuple[Path, ...], more: tuple[Path, ...], static: bool, drift: float, **rest: Any
    ) -> Any:
        return command(advice=Advice((*tables, *more), static, drift), **rest)

    return gathered(
        command,
        collect,
        click.option(
            "--profiles", "tables", type=FILE, multiple=True, metavar="FILE...",
            help="Tables to plan with when a device fails or slows down.  [default: those PLAN was solved from]",
        ),
        click.argument("more", type=FILE, nargs=-1, metavar=""),
        click.option("--static", is_flag=True, help="Keep to PLAN, whatever happens."),
        click.option(
            "--drift", type=click.FloatRange(min=0, min_open=True), default=20, show_default=True,
            metavar="PERCENT",
            help="Plan again when a device or link differs by so much from its table.",
        ),
    )  # fmt: skip
