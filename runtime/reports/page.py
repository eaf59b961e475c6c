"""The page of a report: one HTML file with everything in it, no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from runtime.reports.finding import Finding, Missing
from runtime.reports.picture import Picture

_TEMPLATES = Path(__file__).parent / "templates"
# Rows of tables that a page holds: of one, and of all; the CSV files have the rest.
_MOST_ROWS, _ALL_ROWS = 3_000, 15_000
# Ends of column names, as people read them, with the factor; the first that fits.
_UNITS = (
    ("_bytes_per_s", "Mbit/s", 8e-6), ("_per_s", "1/s", 1.0), ("_s", "ms", 1e3), ("_j", "mJ", 1e3), ("_w", "W", 1.0),
    ("_hz", "MHz", 1e-6), ("_bytes", "MB", 1e-6), ("_db", "dB", 1.0),
)  # fmt: skip
# The same of units that stand in a row.
_OWN = {"s": ("ms", 1e3), "J": ("mJ", 1e3), "bytes": ("MB", 1e-6)}


@dataclass(frozen=True)
class Shown:
    """A finding and the files written of it; ``picture`` is None where its table says all."""

    stem: str
    finding: Finding
    picture: Picture | None
    files: Sequence[Path]

    @property
    def links(self) -> list[tuple[str, str]]:
        return [(file.suffix[1:].upper(), quote(file.name)) for file in self.files]


@dataclass(frozen=True)
class Section:
    heading: str
    parts: Sequence[Shown | Missing]


@dataclass(frozen=True)
class Chapter:
    """One chain: sentences on each of its runs and plans, and its sections."""

    label: str
    facts: Sequence[str]
    verdicts: Sequence[tuple[str, Sequence[str]]]
    sections: Sequence[Section]


@dataclass(frozen=True)
class Grid:
    """A table as text: ``heads`` are (name, unit), ``numeric`` says which columns are numbers."""

    heads: Sequence[tuple[str, str]]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[str]]
    left_out: int


def page(
    chapters: Sequence[Chapter], missing: Sequence[Missing], subjects: pd.DataFrame, made: Sequence[str]
) -> str:
    """``subjects``: a table of what the report is about; ``made``: facts of the report itself, for its foot."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    left = [_ALL_ROWS]

    def grid(finding: Finding) -> Grid:
        found = table_grid(finding.table, finding.columns, min(_MOST_ROWS, left[0]))
        left[0] -= len(found.rows)
        return found

    return environment.get_template("report.html").render(
        chapters=chapters,
        missing=missing,
        subjects=table_grid(subjects),
        made=made,
        css=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        grid=grid,
        is_missing=lambda part: isinstance(part, Missing),
        drawn=Markup,
    )


def table_grid(frame: pd.DataFrame, columns: Sequence[str] = (), most: int = _MOST_ROWS) -> Grid:
    """The table in the units people read. Numbers beside a column ``unit`` are in that unit, row by row."""
    names = list(columns or frame.columns)
    own = [_OWN.get(str(unit), (str(unit), 1.0)) for unit in frame.get("unit", [])]
    heads, numeric, cells = [], [], []
    for name in names:
        values = frame[name].head(most)
        found = bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))
        end, unit, factor = next(
            (each for each in _UNITS if found and str(name).endswith(each[0])), ("", "", 1.0)
        )
        factors = [each for _, each in own] if own and found and not unit else [factor] * len(values)
        heads.append((str(name).removesuffix(end).replace("_", " "), unit))
        numeric.append(found)
        texts = [each for each, _ in own] if name == "unit" else values.tolist()
        cells.append([_text(value, factor) for value, factor in zip(texts, factors, strict=False)])
    return Grid(heads, numeric, list(zip(*cells, strict=True)), max(len(frame) - most, 0))


def _text(value: object, factor: float) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and factor == 1:
        return f"{value:,}"
    if isinstance(value, (int, float)):
        scaled = value * factor
        return f"{scaled:,.0f}" if abs(scaled) >= 1e4 else f"{scaled:.4g}"
    return str(value)
