"""A run: one deployment of a plan, what was measured next to what was forecast.

A run is a folder: ``run.json`` (the plan and how it was deployed) and ``run.csv``, one row per request
and part of the plan (each stage, each hop, and the total). Plans that took over on the way are in it, too: see
``planner.run_plans``.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from planner.documents import document, from_data, read_document, read_text, unit_remedy, write_document
from planner.errors import DocumentError
from planner.plan import Plan
from planner.run_plans import SwitchRow, load_plans, load_switches
from planner.table import read_cells

SCHEMA = "edgecut.run/5"
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


@document()
class RunInfo:
    """How a plan was deployed.

    ``tolerance`` bounds ``Run.deviation`` of a verified run.
    """

    plan: Plan
    started: str
    transport: str
    concurrency: int
    tolerance: float
    wall_s: float
    requests: int

    def save(self, file: Path) -> None:
        write_document(self, file, SCHEMA)

    @staticmethod
    def load(file: Path) -> RunInfo:
        return read_document(RunInfo, file, SCHEMA)


@dataclass(frozen=True)
class Comparison:
    """A part of the plan over all requests: forecast, and the measured median with its spread."""

    kind: Kind
    index: int
    label: str
    forecast_s: float
    measured_s: float
    low_s: float
    high_s: float
    queue_s: float

    @property
    def error(self) -> float:
        """Measured over forecast, less one; 0 where nothing was forecast."""
        return self.measured_s / self.forecast_s - 1 if self.forecast_s else 0.0


@dataclass(frozen=True)
class Run:
    """``others``: the plans beside ``info.plan``, numbered from 1; ``switches`` from one to another, in order.

    What it tells of forecast and measurement is about the requests that ``info.plan`` answered.
    """

    info: RunInfo
    rows: tuple[RunRow, ...]
    others: tuple[Plan, ...] = ()
    switches: tuple[SwitchRow, ...] = ()

    def by_plan(self) -> list[Run]:
        """What each plan answered, as a run of its own; plans that answered nothing are left out."""
        found = []
        for number, plan in enumerate((self.info.plan, *self.others)):
            rows = tuple(replace(row, plan=0) for row in self.rows if row.plan == number)
            if rows:
                requests = sum(row.kind == "total" for row in rows)
                found.append(Run(replace(self.info, plan=plan, requests=requests), rows))
        return found

    def comparisons(self) -> list[Comparison]:
        """Stages and hops in running order, a hop's parts after it, the total last. Spread: 5th to 95th percentile."""
        plan = self.info.plan
        parts: list[tuple[int, Kind, int, str]] = []
        for index, stage in enumerate(plan.stages):
            parts.append((2 * stage.bundle.start + 1, "stage", index, f"{stage.device} {stage.bundle}"))
        for index, hop in enumerate(plan.hops):
            parts.append((2 * hop.boundary, "hop", index, " → ".join(hop.route)))
        parts.sort(key=lambda part: part[0])
        found = []
        for _, kind, index, label in parts:
            found.append(self._compare(kind, index, label))
            if kind == "hop" and plan.hops[index].codec != "raw":
                codec = plan.hops[index].codec
                found.append(self._compare("encode", index, f"encode {codec}"))
                found.append(self._compare("wire", index, "wire"))
                found.append(self._compare("decode", index, f"decode {codec}"))
        return [*found, self._compare("total", 0, "total")]

    def _compare(self, kind: Kind, index: int, label: str) -> Comparison:
        rows = [row for row in self.rows if (row.plan, row.kind, row.index) == (0, kind, index)]
        if not rows:
            raise DocumentError(
                "run.csv", "", f"no row for {kind} {index} ({label})", "deploy the plan again"
            )
        # What waits behind other requests is not in the forecast of one.
        apart = kind == "total" and self.info.concurrency > 1
        measured = np.array([row.measured_s - apart * row.queue_s for row in rows])
        low, middle, high = np.percentile(measured, [5, 50, 95])
        queue = float(np.median([row.queue_s for row in rows]))
        return Comparison(
            kind, index, label, rows[0].forecast_s, float(middle), float(low), float(high), queue
        )

    def verdict(self) -> str:
        """How close the forecast came, in one sentence."""
        total = self._compare("total", 0, "total")
        count = sum((row.plan, row.kind) == (0, "total") for row in self.rows)
        waiting = f", without {total.queue_s * 1e3:.2f} ms of waiting" if self.info.concurrency > 1 else ""
        return (
            f"forecast {total.forecast_s * 1e3:.2f} ms, measured {total.measured_s * 1e3:.2f} ms "
            f"(median of {count}{waiting}): error {total.error * 100:+.1f} %"
        )

    @property
    def largest_output_error(self) -> float:
        return max(self._totals("output_error"), default=0.0)

    @property
    def deviation(self) -> float:
        """Largest difference from what the plan's bundles should give: what deploying them added."""
        return max(self._totals("bundle_error") or self._totals("output_error"), default=0.0)

    @property
    def output_sqnr_db(self) -> float | None:
        """Signal to noise of the outputs against the fp32 model's; None where nothing differs."""
        noise = _mean(self._totals("output_noise"))
        return -10 * math.log10(noise) if noise else None

    @property
    def top1_agreement(self) -> float | None:
        """Share of samples to which the plan gives the fp32 model's class."""
        return _mean(self._totals("top1_agreement"))

    @property
    def accuracy(self) -> float | None:
        return _mean(self._totals("accuracy"))

    @property
    def whole_accuracy(self) -> float | None:
        """Of the fp32 model on the same samples; None where not all were compared."""
        found = self._totals("whole_accuracy")
        return _mean(found) if len(found) == len(self._totals("accuracy")) else None

    @property
    def checked(self) -> int:
        """How many answers were compared with what they should be."""
        return len(self._totals("output_error"))

    def _totals(self, name: str) -> list[float]:
        values = [getattr(row, name) for row in self.rows]
        return [value for value in values if value is not None]

    @staticmethod
    def load(folder: Path, damaged: list[DocumentError] | None = None) -> Run:
        """Read a run; ``DocumentError`` says where it is wrong. A half-written last row is left out.

        With a list ``damaged``, rows that cannot be read are left out, too, and the list says which.
        """
        info = RunInfo.load(folder / "run.json")
        file = folder / "run.csv"
        text = read_text(file)
        lines = text[: text.rfind("\n") + 1].splitlines()
        _check_columns(next(iter(read_cells(lines[:1], file)), []), file)
        others, switches = load_plans(folder), load_switches(folder)
        rows = []
        for number, cells in enumerate(read_cells(lines[1:], file), start=2):
            try:
                row = _parse(cells, file, number)
                if row.plan > len(others):
                    problem = f"column plan names a plan beyond plan-{len(others)}.json"
                    raise DocumentError(file, f"line {number}", problem)
                rows.append(row)
            except DocumentError as error:
                if damaged is None:
                    raise
                damaged.append(error)
        return Run(info, tuple(rows), tuple(others), tuple(switches))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _check_columns(found: Sequence[str], file: Path) -> None:
    if tuple(found) == COLUMNS:
        return
    strange: Iterable[str] = [name for name in found if name not in COLUMNS]
    remedy = next(filter(None, map(unit_remedy, strange)), f"the header is {','.join(COLUMNS)}")
    raise DocumentError(
        file, "line 1", f"expected the columns of a run, found {','.join(found)!r:.120}", remedy
    )


def _parse(cells: list[str], file: Path, number: int) -> RunRow:
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
    return from_data(RunRow, data, f"{file}: {place}")
