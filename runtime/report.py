"""A report: CSV files and pictures of what a profile, a plan or a run says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from planner.chain import Chain
from planner.documents import read_text
from planner.errors import DocumentError, StorageError
from planner.plan import SCHEMA as PLAN_SCHEMA
from planner.plan import Plan
from planner.run import Run
from planner.table import ProfileTable
from runtime import plots


def write_report(subjects: Sequence[Path], folder: Path) -> list[Path]:
    """Report on runs (folders), plans (JSON) and profile tables (CSV); returns the files written.

    Raises ``DocumentError`` for a file that is none of these.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for subject in subjects:
            prefix = f"{subject.resolve().stem}-" if len(subjects) > 1 else ""
            written += _report(subject, folder, prefix)
    except OSError as error:
        raise StorageError(f"cannot write the report to {folder}: {error}", "pass another -o") from error
    return written


def _report(subject: Path, folder: Path, prefix: str) -> list[Path]:
    if subject.is_dir():
        return _run_report(Run.load(subject), folder, prefix)
    if subject.suffix == ".csv":
        if subject.name == "run.csv":
            return _run_report(Run.load(subject.parent), folder, prefix)
        return _profile_report(ProfileTable.load([subject]), folder, prefix)
    text = read_text(subject)
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        data = None
    if isinstance(data, dict) and data.get("schema") == PLAN_SCHEMA:
        return _plan_report(Plan.load(subject), folder, prefix)
    raise DocumentError(
        subject,
        "",
        "is neither a run, a plan nor a profile",
        "pass a run's folder, a plan.json or a profile .csv",
    )


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
    bundles = folder / f"{prefix}bundles.csv"
    table.frame().to_csv(bundles, index=False)
    written.append(bundles)
    groups = dict.fromkeys((row.device, row.batch) for row in table.rows)
    for device, batch in groups:
        rows = [row for row in table.rows if (row.device, row.batch) == (device, batch)]
        picture = folder / f"{prefix}bundles-{device}{f'-batch{batch}' if batch > 1 else ''}.png"
        plots.draw_bundles(table.chain, rows, picture)
        written.append(picture)
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
                "latency_s": stage.cost.latency_s,
                "energy_j": stage.cost.energy_j,
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
                "latency_s": hop.cost.latency_s,
                "energy_j": hop.cost.energy_j,
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
