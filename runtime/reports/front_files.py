"""Fronts and break-even tables as rows of CSV; docs/front.md describes the columns."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from planner.errors import StorageError
from planner.front import EXACT_DB, Front
from planner.notebook import path_text
from planner.parametric import Bandwidth, Interval, Parameter
from planner.plan import Hop, Stage

Row = Mapping[str, object]


def save_rows(file: Path, rows: Sequence[Row]) -> None:
    """Raises ``StorageError``."""
    try:
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise StorageError(
            f"cannot write {file}: {error.strerror or error}", "pass another --output"
        ) from error


def front_rows(front: Front, files: Sequence[str]) -> list[Row]:
    """One row per point; ``files``: its plan's, empty where none was saved."""
    table = front.frame().assign(file=list(files)).astype(object)
    rows: list[Row] = table.where(table.notna(), "").to_dict("records")
    return rows


def break_even_rows(parameter: Parameter, objective: str, intervals: Sequence[Interval]) -> list[Row]:
    unit = "bytes_per_s" if isinstance(parameter, Bandwidth) else "load"
    return [
        {
            f"from_{unit}": each.low,
            f"to_{unit}": each.high,
            "objective": objective,
            "value_from": each.values[0],
            "value_to": each.values[1],
            "latency_from_s": each.costs[0].latency_s,
            "latency_to_s": each.costs[1].latency_s,
            "energy_from_j": each.costs[0].energy_j,
            "energy_to_j": each.costs[1].energy_j,
            "proven": each.proven,
            "plan": path_text(each.stages, each.hops),
        }
        for each in intervals
    ]


def plan_name(stages: Sequence[Stage], hops: Sequence[Hop] = ()) -> str:
    """Where layers run and in which codec they move, short enough for a picture: ``edge 0-2 > int8 > server 3-7``."""
    runs: list[tuple[str, int, int]] = []
    for stage in stages:
        if runs and runs[-1][0] == stage.device:
            runs[-1] = (stage.device, runs[-1][1], stage.bundle.stop)
        else:
            runs.append((stage.device, stage.bundle.start, stage.bundle.stop))
    coded = {hop.boundary: f" > {hop.codec} > " for hop in hops if hop.codec != "raw"}
    if len(runs) == 1:
        bundles = f" in {len(stages)} bundles" if len(stages) > 1 else ""
        return f"all on {runs[0][0]}{bundles}" + "".join(
            f", {text.strip(' >')} at {at}" for at, text in coded.items()
        )
    text = coded.get(0, "").lstrip(" >")
    for name, start, stop in runs:
        text += coded.get(start, " > ") if start else ""
        text += f"{name} {start}" + (f"-{stop - 1}" if stop - start > 1 else "")
    return text


def budget_name(min_sqnr_db: float | None) -> str:
    if min_sqnr_db is None:
        return "any"
    return "exact" if min_sqnr_db == EXACT_DB else f"{min_sqnr_db:.4g}"
