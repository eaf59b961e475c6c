"""The rows of a run: what each request took in each part of the plan, as lines of ``run.csv``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from planner.documents import document, from_data, unit_remedy
from planner.errors import DocumentError

Kind = Literal["stage", "hop", "encode", "wire", "decode", "total"]


@document()
class RunRow:
    """One part of one request. ``plan``: the number of the plan that answered it, 0 for the run's first.

    A hop in a codec has rows for ``encode``, ``wire`` and ``decode`` too, of which its own is the sum.
    ``measured_s`` is without the time spent waiting for a busy device or link, which is ``queue_s``.
    The total's ``measured_s`` is from input on the source to output on the sink, waiting included.
    ``begin_s``: when its work began, in seconds of the run on the coordinator's clock; before, it waited. The
    total begins with the input on the source, a hop with the first of its parts; None is of no deployment.
    The rest is given in total rows. ``output_error``: largest difference from the whole fp32 model's
    output, relative to its largest value. ``bundle_error``: the same against the plan's bundles run in
    one process, where the plan loses something: a stage below fp32, a lossy codec. ``output_noise``: power
    of the difference from the fp32 model's output over that output's. ``top1_agreement`` with the fp32 model and
    ``accuracy`` are shares of the request's samples, ``whole_accuracy`` is the fp32 model's. They are None in
    requests that were not compared.
    """

    request: int
    kind: Kind
    index: int
    forecast_s: float
    measured_s: float
    queue_s: float
    output_error: float | None = None
    output_noise: float | None = None
    bundle_error: float | None = None
    top1_agreement: float | None = None
    accuracy: float | None = None
    whole_accuracy: float | None = None
    plan: int = 0
    begin_s: float | None = None

    def __post_init__(self) -> None:
        if min(self.request, self.index, self.plan) < 0:
            raise ValueError("request, index and plan are at least 0")
        for name in ("forecast_s", "measured_s", "queue_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, found {getattr(self, name)}")


_OPTIONAL = (
    "begin_s",
    "output_error",
    "output_noise",
    "bundle_error",
    "top1_agreement",
    "accuracy",
    "whole_accuracy",
)
COLUMNS = ("request", "plan", "kind", "index", "forecast_s", "measured_s", "error_s", "queue_s", *_OPTIONAL)


def format_run_row(row: RunRow) -> str:
    """The row as one line of CSV; ``error_s`` is measured less forecast."""
    cells = [row.request, row.plan, row.kind, row.index, row.forecast_s, row.measured_s]
    cells += [row.measured_s - row.forecast_s, row.queue_s]
    optional = [getattr(row, name) for name in _OPTIONAL]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        cells + ["" if value is None else value for value in optional]
    )
    return buffer.getvalue()


def run_header() -> str:
    return ",".join(COLUMNS) + "\n"


def check_columns(found: Sequence[str], file: Path) -> None:
    """Raises ``DocumentError`` for another header."""
    if tuple(found) == COLUMNS:
        return
    strange: Iterable[str] = [name for name in found if name not in COLUMNS]
    remedy = next(filter(None, map(unit_remedy, strange)), f"the header is {','.join(COLUMNS)}")
    raise DocumentError(
        file, "line 1", f"expected the columns of a run, found {','.join(found)!r:.120}", remedy
    )


def parse_run_row(cells: list[str], file: Path, number: int, plans: int) -> RunRow:
    """The row on line ``number``; ``plans``: how many there are beside the run's first. Raises ``DocumentError``."""
    place = f"line {number}"
    if len(cells) != len(COLUMNS):
        raise DocumentError(file, place, f"expected {len(COLUMNS)} cells, found {len(cells)}")
    given = dict(zip(COLUMNS, cells, strict=True))
    try:
        data = {
            "request": int(given["request"]),
            "plan": int(given["plan"]),
            "kind": given["kind"],
            "index": int(given["index"]),
            "forecast_s": float(given["forecast_s"]),
            "measured_s": float(given["measured_s"]),
            "queue_s": float(given["queue_s"]),
            **{name: float(given[name]) if given[name] else None for name in _OPTIONAL},
        }
    except ValueError as error:
        raise DocumentError(file, place, f"not a number: {error}") from None
    if int(given["plan"]) > plans:
        raise DocumentError(file, place, f"column plan names a plan beyond plan-{plans}.json")
    return from_data(RunRow, data, f"{file}: {place}")
