"""What findings are made from: a plan or a run, with the tables it is to be judged by."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.errors import EdgecutError, InputError
from planner.limits import Limits
from planner.plan import Plan
from planner.run import Run
from planner.table import ProfileTable, plan_table
from runtime.reports.finding import Missing


@dataclass(frozen=True, eq=False)
class Case:
    """A plan, or a run of one.

    ``stem``: what its files are called, with a dash at the end, or nothing. ``path``: the plan's file or the run's
    folder. ``table``: as `table_of` gives it. ``report``: the command that makes the whole report.
    ``most_s``: what a question that the solver must decide may take.
    """

    stem: str
    path: Path
    plan: Plan
    run: Run | None
    table: ProfileTable | EdgecutError
    report: str
    most_s: float

    @property
    def file(self) -> Path:
        """What holds the plan."""
        return self.path if self.run is None else self.path / "run.json"

    def asking(self, command: str, *options: str) -> str:
        """`edgecut front` and its like for what the plan was asked; the report where that has no such options."""
        plan, table = self.plan, self.table
        plain = plan.limits == Limits() and plan.proof.statistic == "mean" and not plan.origin.partial
        if not plain or isinstance(table, EdgecutError) or not table.files:
            return self.report
        words = ["edgecut", command, *_profiles(table), "--fleet", shown(self.file), *options]
        if plan.origin.codecs is not None:
            words += ["--codecs", ",".join(plan.origin.codecs) or "none"]
        if len(table.columns.batches()) > 1:
            words += ["--batch", str(plan.batch)]
        return shlex.join(words)

    def explaining(self) -> str:
        """`edgecut explain` of the plan; the report where no file holds only it."""
        if self.run is not None or isinstance(self.table, EdgecutError):
            return self.report
        return shlex.join(["edgecut", "explain", shown(self.path), *_profiles(self.table)])


def _profiles(table: ProfileTable) -> list[str]:
    files = [shown(Path(each.file)) for each in table.files]
    return ["--profiles", *files] if files else []


def shown(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def table_of(plan: Plan, given: Sequence[ProfileTable], file: Path) -> ProfileTable | EdgecutError:
    """The tables ``given`` where they are of as many devices as the plan was solved from, and of all that it uses;
    otherwise those that it was solved from, if they are still there. The error says why there are none."""
    mine = [table for table in given if table.chain.digest == plan.chain.digest]
    devices = [device for table in mine for device in table.columns.devices]
    enough = len(devices) >= len(plan.origin.profiles) and {stage.device for stage in plan.stages} <= {
        *devices
    }
    try:
        if mine and enough:
            return ProfileTable.joined(mine)
        if not plan.origin.profiles:
            raise InputError(
                "the plan does not say which tables it was solved from", "report its tables with it"
            )
        return plan_table(plan, file)
    except EdgecutError as error:
        return error


def reason(error: EdgecutError) -> str:
    """What lacks, and what would bring it, in one text."""
    return (
        f"{error.message}. {error.remedy[:1].upper()}{error.remedy[1:]}."
        if error.remedy
        else f"{error.message}."
    )


def lacking(name: str, title: str, error: EdgecutError) -> Missing:
    """A part of the report that an error keeps from it."""
    return Missing(name, title, reason(error))
