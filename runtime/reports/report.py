"""A report: CSV files and pictures of what a profile, a plan or a run says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from planner.chain import Chain
from planner.documents import to_data
from planner.errors import DocumentError, StorageError
from planner.plan import Plan, is_plan
from planner.run import Run
from planner.table import ProfileTable
from planner.verdict import verdict
from runtime.reports import plots

Subject = Run | Plan | ProfileTable


def write_report(subjects: Sequence[Path], folder: Path) -> tuple[list[Path], list[str]]:
    """Report on runs (folders), plans (JSON) and profile tables (CSV).

    Returns the files written, and what each plan and run says in a sentence.

    Raises ``DocumentError`` for a file that is none of these, before anything is written.
    """
    # Tables first: a plan's picture of the chain, which shows the cuts, replaces theirs.
    loaded = sorted(((file, _load(file)) for file in subjects), key=lambda each: _ORDER[type(each[1])])
    tables = [subject for _, subject in loaded if isinstance(subject, ProfileTable)]
    devices = [device for table in tables for device in dict.fromkeys(row.device for row in table.rows)]
    alike = len({_chain(subject).digest for _, subject in loaded}) == 1
    plain_tables = alike and len(set(devices)) == len(devices)
    plain_plans = alike and len(loaded) - len(tables) == 1
    names = _distinct([file.resolve().stem for file, _ in loaded])
    written: dict[Path, None] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (_, subject) in zip(names, loaded, strict=True):
            plain = plain_tables if isinstance(subject, ProfileTable) else plain_plans
            prefix = "" if plain else f"{name}-"
            if isinstance(subject, ProfileTable):
                files = _profile_report(subject, folder, prefix)
            elif isinstance(subject, Run):
                files = _run_report(subject, folder, prefix)
            else:
                files = _plan_report(subject, folder, prefix)
            written.update(dict.fromkeys(files))
    except OSError as error:
        raise StorageError(f"cannot write the report to {folder}: {error}", "pass another -o") from error
    return list(written), [
        _finding(subject) for _, subject in loaded if not isinstance(subject, ProfileTable)
    ]


def _finding(subject: Run | Plan) -> str:
    said = subject.verdict() if isinstance(subject, Run) else verdict(subject)
    return f"{_chain(subject).source.name}: {said}"


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again."""
    return [
        f"{name}-{names[:k].count(name) + 1}" if name in names[:k] else name for k, name in enumerate(names)
    ]


_ORDER = {ProfileTable: 0, Plan: 1, Run: 2}


def _chain(subject: Subject) -> Chain:
    if isinstance(subject, Run):
        return subject.info.plan.chain
    return subject.chain


def _load(file: Path) -> Subject:
    if file.is_dir():
        return Run.load(file)
    if file.name in ("run.csv", "run.json"):
        return Run.load(file.parent)
    if file.suffix == ".csv":
        return ProfileTable.load([file])
    if is_plan(file):
        return Plan.load(file)  # which says what to do about another version's
    remedy = "pass a run's folder, a plan.json or a profile .csv"
    raise DocumentError(file, "", "is neither a run, a plan nor a profile", remedy)


def _chain_report(chain: Chain, plan: Plan | None, folder: Path, prefix: str) -> list[Path]:
    rows = [
        {
            "layer": place,
            "name": layer.name,
            "parameters": layer.parameters,
            "weight_bytes": layer.weight_bytes,
            "macs": layer.macs,
            "boundary_after": str(after),
            "boundary_bytes": after.nbytes,
        }
        for place, (layer, after) in enumerate(zip(chain.layers, chain.boundaries[1:], strict=True))
    ]
    table, picture = folder / f"{prefix}chain.csv", folder / f"{prefix}chain.png"
    pd.DataFrame(rows).to_csv(table, index=False)
    plots.draw_chain(chain, plan, picture)
    return [table, picture]


def _profile_report(table: ProfileTable, folder: Path, prefix: str) -> list[Path]:
    written = _chain_report(table.chain, None, folder, prefix)
    groups = dict.fromkeys((row.device, row.batch) for row in table.rows)
    for device, batch in groups:
        rows = [row for row in table.rows if (row.device, row.batch) == (device, batch)]
        name = f"{prefix}bundles-{device}" + (f"-batch{batch}" if batch > 1 else "")
        bundles, picture = folder / f"{name}.csv", folder / f"{name}.png"
        ProfileTable(table.chain, tuple(rows)).frame().to_csv(bundles, index=False)
        plots.draw_bundles(table.chain, rows, picture)
        written += [bundles, picture]
    return written


def _plan_report(plan: Plan, folder: Path, prefix: str) -> list[Path]:
    written = _chain_report(plan.chain, plan, folder, prefix)
    table, picture = folder / f"{prefix}baselines.csv", folder / f"{prefix}baselines.png"
    pd.DataFrame(_baseline_rows(plan)).to_csv(table, index=False)
    plots.draw_baselines(plan, picture)
    return [*written, table, picture]


def _baseline_rows(plan: Plan) -> Iterable[dict[str, object]]:
    entries = [("this plan", plan.stages, plan.hops)]
    entries += [(baseline.name, baseline.stages, baseline.hops) for baseline in plan.baselines]
    for name, stages, hops in entries:
        for stage in stages:
            yield {
                "plan": name,
                "part": "stage",
                "where": stage.device,
                "start": stage.bundle.start,
                "stop": stage.bundle.stop,
                "how": str(stage.variant),
                "wire_bytes": None,
                **to_data(stage.cost),
                "encode_s": None,
                "decode_s": None,
            }
        for hop in hops:
            yield {
                "plan": name,
                "part": "hop",
                "where": " > ".join(hop.route),
                "start": hop.boundary,
                "stop": hop.boundary,
                "how": hop.codec,
                "wire_bytes": hop.wire_bytes,
                **to_data(hop.cost),
                "encode_s": hop.encode_s,
                "decode_s": hop.decode_s,
            }


def _run_report(run: Run, folder: Path, prefix: str) -> list[Path]:
    written = _plan_report(run.info.plan, folder, prefix)
    rows = [
        {
            "part": part.kind,
            "label": part.label,
            "forecast_s": part.forecast_s,
            "measured_median_s": part.measured_s,
            "measured_p5_s": part.low_s,
            "measured_p95_s": part.high_s,
            "error": part.error,
            "queue_median_s": part.queue_s,
        }
        for part in run.comparisons()
    ]
    table, picture = folder / f"{prefix}forecast.csv", folder / f"{prefix}forecast.png"
    pd.DataFrame(rows).to_csv(table, index=False)
    plots.draw_forecast(run, picture)
    return [*written, table, picture]
