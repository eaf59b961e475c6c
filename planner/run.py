"""A run: one deployment of a plan, what was measured next to what was forecast.

A run is a folder: ``run.json`` (the plan and how it was deployed) and ``run.csv``, one row per request
and part of the plan (each stage, each hop, and the total). Plans that took over on the way are in it, too: see
``planner.run_plans``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.documents import document, read_document, read_text, write_document
from planner.errors import DocumentError
from planner.notebook import Displayed, frame_of
from planner.plan import Plan
from planner.run_plans import SwitchRow, load_plans, load_switches
from planner.run_rows import COLUMNS, Kind, RunRow, check_columns, parse_run_row
from planner.table import read_cells

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "edgecut.run/5"


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
        """Write it as JSON. Raises ``StorageError``."""
        write_document(self, file, SCHEMA)

    @staticmethod
    def load(file: Path) -> RunInfo:
        """Read it; ``DocumentError`` says where it is wrong."""
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


@dataclass(frozen=True, repr=False)
class Run(Displayed):
    """``others``: the plans beside ``info.plan``, numbered from 1; ``switches`` from one to another, in order.

    What it tells of forecast and measurement is about the requests that ``info.plan`` answered.
    """

    info: RunInfo
    rows: tuple[RunRow, ...]
    others: tuple[Plan, ...] = ()
    switches: tuple[SwitchRow, ...] = ()

    def headline(self) -> str:
        name = self.info.plan.chain.source.name
        try:
            return f"{name}: {self.verdict()}"
        except DocumentError:
            return f"{name}: {len(self.rows)} rows, no answer of its first plan among them"

    def frame(self) -> pd.DataFrame:
        """The rows, with the columns of ``run.csv``; ``RunRow`` says what they are."""
        found = frame_of(self.rows, [name for name in COLUMNS if name != "error_s"])
        found.insert(COLUMNS.index("error_s"), "error_s", found["measured_s"] - found["forecast_s"])
        return found

    def comparison_frame(self) -> pd.DataFrame:
        """A row for each of ``comparisons()``: ``kind``, ``index``, ``label``, ``forecast_s``, ``measured_s`` (median),
        ``error`` (relative), ``low_s``, ``high_s`` (5th and 95th percentile), ``queue_s``."""
        columns = (
            "kind",
            "index",
            "label",
            "forecast_s",
            "measured_s",
            "error",
            "low_s",
            "high_s",
            "queue_s",
        )
        return frame_of(self.comparisons(), columns)

    def _tables(self) -> Sequence[pd.DataFrame]:
        """Empty where rows are missing, as in a run that was cut off early."""
        try:
            return (self.comparison_frame(),)
        except DocumentError:
            return ()

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
        """Of all compared requests, relative to the fp32 model's largest output."""
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
        """Share of samples that get their own class; None where classes are not known."""
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
    def load(folder: Path | str, damaged: list[DocumentError] | None = None) -> Run:
        """Read a run; ``DocumentError`` says where it is wrong. A half-written last row is left out.

        With a list ``damaged``, rows that cannot be read are left out, too, and the list says which.
        """
        folder = Path(folder)
        info = RunInfo.load(folder / "run.json")
        file = folder / "run.csv"
        text = read_text(file)
        lines = text[: text.rfind("\n") + 1].splitlines()
        check_columns(next(iter(read_cells(lines[:1], file)), []), file)
        others, switches = load_plans(folder), load_switches(folder)
        rows = []
        for number, cells in enumerate(read_cells(lines[1:], file), start=2):
            try:
                rows.append(parse_run_row(cells, file, number, len(others)))
            except DocumentError as error:
                if damaged is None:
                    raise
                damaged.append(error)
        return Run(info, tuple(rows), tuple(others), tuple(switches))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
