"""A report: one page, and the CSV files and pictures of which it is made, of runs, plans and profile tables."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from planner.errors import StorageError
from planner.plan import Plan
from planner.run import Run
from runtime.reports.finding import Finding, Missing
from runtime.reports.page import Chapter, Section, Shown, page
from runtime.reports.picture import save_picture
from runtime.reports.sections import sections, verdicts
from runtime.reports.subjects import Study, Subject, load_subjects, studies

_LONGEST_STEM = 100


@dataclass
class Report:
    """What was written, what plans and runs say in a sentence each, and what could not be shown."""

    page: Path
    files: list[Path] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


def write_report(files: Sequence[Path], folder: Path) -> Report:
    """Report on runs (folders), plans (JSON) and profile tables (CSV).

    What cannot be read or shown is a ``Missing`` with its reason. Raises ``InputError`` where no file can be read,
    before anything is written, and ``StorageError``.
    """
    subjects, missing = load_subjects(files)
    found = studies(subjects)
    report = Report(folder / "report.html", missing=list(missing))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = Writer(folder, report)
        chapters = [writer.chapter(study, alone=len(found) == 1) for study in found]
        text = page(chapters, missing, _subjects(found), _made())
        report.page.write_bytes(text.encode("utf-8", "replace"))
    except OSError as error:
        raise StorageError(f"cannot write the report to {folder}: {error}", "pass another -o") from error
    return report


class Writer:
    """Writes each finding's files under a name of its own."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report
        self._used = {"report"}

    def chapter(self, study: Study, *, alone: bool) -> Chapter:
        """``alone``: the only chain, so that its name need not stand before those of its files."""
        prefix = "" if alone else f"{study.label}-"
        said = list(verdicts(study))
        self._report.said += [f"{study.label}: {name}: {' '.join(sentences)}" for name, sentences in said]
        written = [
            Section(heading, [self._write(part, study.label, prefix) for part in parts])
            for heading, parts in sections(study)
        ]
        return Chapter(study.label, _facts(study), said, written)

    def _write(self, part: Finding | Missing, label: str, prefix: str) -> Shown | Missing:
        if isinstance(part, Missing):
            self._report.missing.append(part)
            return part
        stem = self.stem(prefix + part.name)
        files = [self._folder / f"{stem}.csv"]
        part.table.to_csv(files[0], index=False, errors="replace", lineterminator="\n")
        picture = None
        if part.draw:
            picture = save_picture(part.draw(), self._folder / stem, f"{label}: {part.title}")
            files += [self._folder / f"{stem}.png", self._folder / f"{stem}.svg"]
        self._report.files += files
        return Shown(stem, part, picture, files)

    def stem(self, name: str) -> str:
        """A name that any file system takes, and that no other finding has."""
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".-") or "finding"
        plain = plain.encode()[:_LONGEST_STEM].decode(errors="ignore")
        stem, count = plain, 1
        while stem.casefold() in self._used:
            count += 1
            stem = f"{plain}-{count}"
        self._used.add(stem.casefold())
        return stem


def _facts(study: Study) -> list[str]:
    chain = study.chain
    return [
        f"{len(chain)} layers",
        f"{sum(layer.parameters for layer in chain.layers) / 1e6:,.3g} million parameters",
        f"{sum(layer.weight_bytes for layer in chain.layers) / 1e6:,.3g} MB of weights",
        f"{sum(layer.macs for layer in chain.layers) / 1e9:,.3g} GMAC",
        f"input {chain.boundaries[0]}",
        f"digest {chain.digest[:12]}",
    ]


def _subjects(found: Sequence[Study]) -> pd.DataFrame:
    """A row of each run, plan and table: what, of which network, on which machines, when."""
    rows = []
    for study in found:
        for subject in study.subjects:
            kind, devices, how = _described(subject)
            rows.append({
                "subject": subject.name,
                "what": kind,
                "network": study.label,
                "devices": devices,
                "how": how,
                "when": subject.when.replace("T", " ")[:19],
                "file": str(subject.file),
            })  # fmt: skip
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def _described(subject: Subject) -> tuple[str, str, str]:
    value = subject.value
    if isinstance(value, Run):
        info = value.info
        how = f"{info.requests} requests, {info.concurrency} at once, over {info.transport}, in {info.wall_s:.3g} s"
        return "run", ", ".join(info.plan.devices), how
    if isinstance(value, Plan):
        proof = value.proof
        how = f"{proof.outcome.value} in {proof.objective}, {proof.solver}, gap {proof.gap:.2g}, {proof.solve_s:.3g} s"
        return "plan", ", ".join(value.devices), how
    machines = {
        f"{each.host} ({each.machine}, {each.threads} threads)" for each in value.environments.values()
    }
    how = f"{len(value.columns):,} rows, {len(value.columns.variants)} variants, on {', '.join(sorted(machines))}"
    return "profile", ", ".join(value.columns.devices), how


def _made() -> list[str]:
    now = datetime.datetime.now(datetime.timezone.utc)
    return [f"edgecut {version('edgecut')}", f"written {now:%Y-%m-%d %H:%M} UTC"]
