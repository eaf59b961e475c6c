"""What a report says beyond single tables: where a plan stands, what it hangs on, and how its runs went."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from planner.deadline import within
from planner.errors import EdgecutError, SolverError
from planner.plan import Plan
from planner.run import Run
from planner.table import ProfileTable
from runtime.reports.bandwidth_finding import bandwidth_finding
from runtime.reports.case import Case, lacking, table_of
from runtime.reports.deployment_figures import deployment_finding
from runtime.reports.distribution import distribution_finding
from runtime.reports.finding import Finding, Missing
from runtime.reports.front_finding import front_finding
from runtime.reports.sensitivity import sensitivity_finding
from runtime.reports.timeline import timeline_findings

Part = Finding | Missing
_MOST_S = 2.0  # for each question that only the solver can answer, shared by the plans


def analysis(
    chain_name: str,
    tables: Sequence[ProfileTable],
    plans: Sequence[tuple[str, Plan]],
    runs: Sequence[tuple[str, Run]],
    files: Mapping[str, str],
) -> list[tuple[str, list[Part]]]:
    """Headings with their findings, of plans and runs of one chain; what cannot be found out is ``Missing``.

    ``tables``: one per file; where they are not of all of a plan's devices, those that it was solved from are read.
    ``files``: where each named plan (file) and run (folder) is. Nothing is raised for what tables, plans or runs lack.
    """
    report = shlex.join(["edgecut", "report", *dict.fromkeys(files.values())])
    several = len(plans) + len(runs) > 1
    asked: list[tuple[str, Plan, Run | None]] = [(name, plan, None) for name, plan in plans]
    asked += [(name, run.info.plan, run) for name, run in runs]
    most_s = _MOST_S / max(len(asked), 1)
    cases: list[Case] = []
    for name, plan, run in asked:
        path = Path(files.get(name, name))
        same = next((each for each in cases if each.plan == plan), None)
        table = same.table if same else table_of(plan, tables, path if run is None else path / "run.json")
        cases.append(Case(f"{name}-" if several else "", path, plan, run, table, report, most_s))
    # Once for each plan, however many runs it had.
    distinct = [each for k, each in enumerate(cases) if all(each.plan != other.plan for other in cases[:k])]
    ran = [(each, each.run) for each in cases if each.run is not None]
    about: dict[str, list[Part]] = {
        asking.heading: [_answer(asking, each) for each in distinct] for asking in _QUESTIONS
    }
    about |= {
        "Timeline": [part for case, run in ran for part in timeline_findings(case, run)],
        "Latency of the requests": [distribution_finding(case, run) for case, run in ran],
        "The deployment in seven figures": [deployment_finding(each) for each in cases],
    }
    return [(heading, parts) for heading, parts in about.items() if parts]


class _Question(NamedTuple):
    """What the planner is asked of every plan; ``name`` begins its files, ``command`` asks the same alone."""

    heading: str
    name: str
    title: str
    command: str
    find: Callable[[Case, ProfileTable], Part]


_QUESTIONS = (
    _Question("Latency and energy", "front", "Latency against energy", "front", front_finding),
    _Question("Bandwidth", "bandwidth", "Latency against bandwidth", "break-even", bandwidth_finding),
    _Question(
        "What the choice hangs on", "sensitivity", "How far measurements may be off", "explain",
        sensitivity_finding,
    ),
)  # fmt: skip


def _answer(asking: _Question, case: Case) -> Part:
    name = case.stem + asking.name
    if isinstance(case.table, EdgecutError):
        return lacking(name, asking.title, case.table)
    try:
        with within(case.most_s):
            return asking.find(case, case.table)
    except SolverError:
        said = f"The solver found no answer in {case.most_s:.2g} s, which is what a report gives it."
        return Missing(name, asking.title, f"{said} `edgecut {asking.command}` takes a --time-limit.")
    except EdgecutError as error:
        return lacking(name, asking.title, error)
