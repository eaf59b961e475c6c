"""The plans of one run: the one it began with, those that took over, when and why.

In the run's folder ``plan-1.json``, ``plan-2.json``, ... are the plans beside the one in ``run.json``, which is
number 0; ``switches.csv`` has a line for each change of plan.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from planner.documents import document, from_data, read_text
from planner.errors import DocumentError
from planner.plan import Plan, described, same_path
from planner.table import read_cells

_COLUMNS = ("at", "plan", "stages", "reason")


@document()
class SwitchRow:
    """A change of plan: at what time (UTC), to which of the run's plans, its stages in words, and why."""

    at: str
    plan: int
    stages: str
    reason: str


class RunPlans:
    """The plans of a run that is being written to ``folder``, which ``first`` began; those there are go on."""

    def __init__(self, folder: Path, first: Plan) -> None:
        self._folder = folder
        self.plans = [first, *load_plans(folder)]

    def number(self, plan: Plan) -> int:
        """The number of a plan; a new one is saved. Raises ``StorageError``."""
        for number, known in enumerate(self.plans):
            if known is plan or same_path(known, plan):
                return number
        plan.save(self._folder / f"plan-{len(self.plans)}.json")
        self.plans.append(plan)
        return len(self.plans) - 1

    def switched(self, at: str, plan: Plan, reason: str) -> SwitchRow:
        """Note a change of plan. Raises ``OSError`` and ``StorageError``."""
        switch = SwitchRow(at, self.number(plan), described(plan.stages), reason)
        file, text = self._folder / "switches.csv", io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        if not file.exists():
            lines.writerow(_COLUMNS)
        lines.writerow([getattr(switch, name) for name in _COLUMNS])
        with file.open("a") as table:
            table.write(text.getvalue())
        return switch


def load_plans(folder: Path) -> list[Plan]:
    """The plans beside the first. Raises ``DocumentError``."""
    files = (folder / f"plan-{number}.json" for number in itertools.count(1))
    return [Plan.load(file) for file in itertools.takewhile(Path.exists, files)]


def load_switches(folder: Path) -> list[SwitchRow]:
    """The changes of plan, in order. Raises ``DocumentError``."""
    file = folder / "switches.csv"
    if not file.exists():
        return []
    text = read_text(file)
    head, *lines = read_cells(text[: text.rfind("\n") + 1].splitlines(), file) or [[]]
    if tuple(head) != _COLUMNS:
        raise DocumentError(file, "line 1", "has other columns", f"the header is {','.join(_COLUMNS)}")
    return [_switch(cells, file, number) for number, cells in enumerate(lines, start=2)]


def _switch(cells: Sequence[str], file: Path, number: int) -> SwitchRow:
    given: dict[str, object] = dict(zip(_COLUMNS, cells, strict=False))
    plan = str(given.get("plan"))
    if plan.isdecimal():
        given["plan"] = int(plan)
    return from_data(SwitchRow, given, f"{file}: line {number}")
