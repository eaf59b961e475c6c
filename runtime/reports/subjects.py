"""What a report is about: runs, plans and profile tables, as far as they can be read, chain by chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from planner.chain import Chain
from planner.errors import DocumentError, EdgecutError, InputError
from planner.plan import Plan, is_plan
from planner.run import Run, RunInfo
from planner.sidecar import Sidecar
from planner.table import ProfileTable, plan_table, without_codecs
from runtime.reports.case import reason
from runtime.reports.finding import Missing


@dataclass(frozen=True)
class Subject:
    """``name``: of its file, numbered where another has it, too. ``when``: it was measured; empty for a plan."""

    name: str
    file: Path
    value: Run | Plan | ProfileTable
    when: str = ""

    @property
    def chain(self) -> Chain:
        return self.value.info.plan.chain if isinstance(self.value, Run) else self.value.chain


@dataclass(frozen=True)
class Study:
    """All subjects of one chain; ``tables`` are those that the plans were solved from where none was given."""

    label: str
    chain: Chain
    runs: tuple[tuple[Subject, Run], ...]
    plans: tuple[tuple[Subject, Plan], ...]
    tables: tuple[tuple[Subject, ProfileTable], ...]
    missing: list[Missing] = field(default_factory=list)

    @property
    def subjects(self) -> list[Subject]:
        return [subject for subject, _ in (*self.runs, *self.plans, *self.tables)]


def load_subjects(files: Sequence[Path]) -> tuple[list[Subject], list[Missing]]:
    """What can be read, and why the rest cannot. Raises ``InputError`` where nothing can."""
    found: list[Subject] = []
    missing: list[Missing] = []
    problems: list[EdgecutError] = []
    files = without_codecs(files)
    for name, file in zip(_distinct([file.resolve().stem for file in files]), files, strict=True):
        try:
            subject, lacking = _load(name, file)
        except EdgecutError as error:
            problems.append(error)
            missing.append(Missing(name, f"{file} is not in this report", reason(error)))
        else:
            found.append(subject)
            missing += lacking
    if not found:
        if len(problems) == 1:
            raise problems[0]
        lines = "".join(f"\n  {problem.message}" for problem in problems)
        raise InputError(f"none of the {len(problems)} subjects can be read:{lines}", problems[0].remedy)
    return found, missing


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again."""
    return [
        f"{name}-{names[:k].count(name) + 1}" if name in names[:k] else name for k, name in enumerate(names)
    ]


def _load(name: str, file: Path) -> tuple[Subject, list[Missing]]:
    if file.is_dir():
        return _load_run(name, file)
    if file.name in ("run.csv", "run.json"):
        return _load_run(name, file.parent)
    if file.suffix == ".csv":
        table = ProfileTable.load([file])
        if not len(table.columns):
            raise DocumentError(file, "", "has no row", "go on with its profile: edgecut profile resumes it")
        return Subject(name, file, table, Sidecar.load(file.with_suffix(".json")).started), []
    if is_plan(file):
        return Subject(name, file, Plan.load(file)), []  # which says what to do about another version's
    remedy = "pass a run's folder, a plan.json or a profile .csv"
    raise DocumentError(file, "", "is neither a run, a plan nor a profile", remedy)


def _load_run(name: str, folder: Path) -> tuple[Subject, list[Missing]]:
    """A run without what cannot be read of it; of one whose rows cannot be read at all, the plan."""
    info = RunInfo.load(folder / "run.json")
    damaged: list[DocumentError] = []
    try:
        run = Run.load(folder, damaged)
    except DocumentError as error:
        lost = Missing(
            name, f"What was measured in {folder} is not shown", f"{reason(error)} Its plan is shown."
        )
        return Subject(name, folder, info.plan), [lost]
    missing = []
    if damaged:
        count = f"{len(damaged)} place{'s' * (len(damaged) > 1)} of {folder} could not be read"
        missing.append(Missing(name, count, f"{reason(damaged[0])} What is there without is shown."))
    return Subject(name, folder, run, info.started), missing


def studies(subjects: Sequence[Subject]) -> list[Study]:
    """The subjects by chain, in the order of their first."""
    chains: dict[str, list[Subject]] = {}
    for subject in subjects:
        chains.setdefault(subject.chain.digest, []).append(subject)
    names = [each[0].chain.source.name for each in chains.values()]
    found = []
    for digest, group in chains.items():
        chain = group[0].chain
        label = chain.source.name
        if names.count(label) > 1:
            label += f" ({len(chain)} layers, {digest[:8]})"
        runs = tuple((each, each.value) for each in group if isinstance(each.value, Run))
        plans = tuple((each, each.value) for each in group if isinstance(each.value, Plan))
        tables = tuple((each, each.value) for each in group if isinstance(each.value, ProfileTable))
        missing: list[Missing] = []
        if not tables:
            tables = _origin(runs, plans, missing)
        found.append(Study(label, chain, runs, plans, tables, missing))
    return found


def _origin(
    runs: Sequence[tuple[Subject, Run]], plans: Sequence[tuple[Subject, Plan]], missing: list[Missing]
) -> tuple[tuple[Subject, ProfileTable], ...]:
    """The tables that the first plan was solved from which still has them."""
    solved = [(subject, run.info.plan) for subject, run in runs] + list(plans)
    problem = ""
    for subject, plan in solved:
        beside = subject.file / "run.json" if isinstance(subject.value, Run) else subject.file
        try:
            table = plan_table(plan, beside)
        except EdgecutError as error:
            problem = problem or error.message
            continue
        file = Path(table.files[0].file)
        return ((Subject(f"tables of {subject.name}", file, table), table),)
    why = f"{problem}. Pass the profile tables (.csv) beside the plan."
    missing.append(Missing("bundles", "Latency of every bundle on each device", why))
    return ()
