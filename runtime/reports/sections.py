"""The findings of one chain, under their headings."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from planner.errors import EdgecutError
from planner.plan import Plan
from planner.run import Run
from planner.verdict import verdict
from runtime.reports.analysis import analysis
from runtime.reports.bundle_pictures import bundle_findings
from runtime.reports.case import lacking
from runtime.reports.chain_picture import chain_finding
from runtime.reports.finding import Finding, Missing
from runtime.reports.plan_pictures import baselines_finding, forecast_finding
from runtime.reports.subjects import Study, Subject
from runtime.reports.theme import sentence

Parts = list[Finding | Missing]


@dataclass(frozen=True)
class _Decided:
    """A plan of the study, and what of a run it answered. ``label`` names it, ``stem`` begins its files' names."""

    subject: Subject
    label: str
    stem: str
    plan: Plan
    run: Run | None


def sections(study: Study) -> list[tuple[str, Parts]]:
    """What is decided first, then whether it held, then what was measured."""
    decided = _decided(study)
    found: list[tuple[str, Parts]] = [
        ("Where the network runs", list(_where(study, decided))),
        ("Forecast beside measurement", list(_measured(decided))),
        *_analysed(study),
    ]
    labels = {each.stem: each.label for each in decided} if len(decided) > 1 else {}
    found = [(heading, [_labelled(part, labels) for part in parts]) for heading, parts in found]
    found.append(("Latency of every bundle", [*_bundles(study), *study.missing]))
    return [(heading, parts) for heading, parts in found if parts]


def verdicts(study: Study) -> Iterator[tuple[str, list[str]]]:
    """Of each plan its name, what was decided, and whether it held where a run answered anything."""
    for each in _decided(study):
        said = [sentence(verdict(each.plan)) + "."]
        if each.run is not None:
            with contextlib.suppress(EdgecutError):
                said.append(sentence(each.run.verdict()) + ".")
        yield each.label, said


def command(subject: Subject) -> str:
    return f"edgecut report {shlex.quote(str(subject.file))}"


def _decided(study: Study) -> list[_Decided]:
    several = len(study.runs) + len(study.plans) > 1
    found = []
    for subject, run in study.runs:
        stem = f"{subject.name}-" if several else ""
        answered = {id(part.info.plan): part for part in run.by_plan()} or {id(run.info.plan): run}
        for number, plan in enumerate((run.info.plan, *run.others)):
            which, label = (f"plan-{number}-", f", plan-{number}") if number else ("", "")
            part = answered.get(id(plan))
            found.append(_Decided(subject, subject.name + label, stem + which, plan, part))
    for subject, plan in study.plans:
        found.append(_Decided(subject, subject.name, f"{subject.name}-" if several else "", plan, None))
    return found


def _labelled(part: Finding | Missing, labels: Mapping[str, str]) -> Finding | Missing:
    """With the name of its run or plan, that of the longest stem which its own name begins with."""
    stem = max((stem for stem in labels if part.name.startswith(stem)), key=len, default=None)
    if isinstance(part, Missing) or stem is None or part.subject:
        return part
    return replace(part, subject=labels[stem])


def _where(study: Study, decided: Sequence[_Decided]) -> Iterator[Finding]:
    shown: list[Plan] = []
    for each in decided:
        if each.plan in shown:  # a run and the plan that it deployed
            continue
        shown.append(each.plan)
        made = command(each.subject)
        yield chain_finding(f"{each.stem}chain", study.chain, each.plan, made)
        yield baselines_finding(f"{each.stem}baselines", each.plan, made)
    if not decided:
        yield chain_finding("chain", study.chain, None, command(study.tables[0][0]))


def _measured(decided: Sequence[_Decided]) -> Iterator[Finding | Missing]:
    for each in decided:
        if each.run is not None:
            name = f"{each.stem}forecast"
            try:
                yield forecast_finding(name, each.run, command(each.subject))
            except EdgecutError as error:
                yield lacking(name, f"Forecast beside measurement of {each.label}", error)


def _analysed(study: Study) -> list[tuple[str, Parts]]:
    plans = [(subject.name, plan) for subject, plan in study.plans]
    runs = [(subject.name, run) for subject, run in study.runs]
    files = {subject.name: str(subject.file) for subject in study.subjects}
    return analysis(study.label, [table for _, table in study.tables], plans, runs, files)


def _bundles(study: Study) -> Iterator[Finding]:
    plans = [plan for _, run in study.runs for plan in (run.info.plan, *run.others)]
    plans += [plan for _, plan in study.plans]
    devices = [device for _, table in study.tables for device in table.columns.devices]
    plain = len(set(devices)) == len(devices)
    for subject, table in study.tables:
        yield from bundle_findings(table, plans, "" if plain else f"{subject.name}-", command(subject))
