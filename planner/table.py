"""Profile tables: what was measured, one row per device x bundle x variant x batch.

``NAME.csv`` holds the rows, ``NAME.json`` the sidecar (device, chain, environment),
``NAME.samples.jsonl`` every raw sample. All units are SI and stand in the column names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from planner.active_note import ActiveNote
from planner.chain import Bundle, Chain
from planner.codec_table import CodecRow, codec_file, load_codec_rows
from planner.columns import Columns
from planner.documents import write_text
from planner.errors import DocumentError, InputError, MismatchError
from planner.notebook import Displayed
from planner.origin import TableFile
from planner.plan import Plan, Variant
from planner.recipe import Recipe
from planner.row import COLUMNS, ProfileRow, format_row, header, parse_rows, read_cells, row_cells
from planner.sidecar import Environment, LeftOut, Sidecar
from planner.table_reader import read_columns

__all__ = [
    "COLUMNS",
    "ProfileRow",
    "ProfileTable",
    "format_row",
    "header",
    "parse_rows",
    "plan_table",
    "read_cells",
    "row_cells",
    "save_table",
    "without_codecs",
]


def save_table(file: Path, sidecar: Sidecar, rows: Iterable[ProfileRow]) -> None:
    """Write one device's whole table at once; a profile that grows is ``profiler.journal``'s."""
    sidecar.save(file.with_suffix(".json"))
    write_text(file, header() + "".join(map(format_row, rows)))


def without_codecs(files: Iterable[Path | str]) -> list[Path]:
    """The files but for the codecs' beside a table among them, as `NAME-*.csv` in a shell names both."""
    named = [Path(file) for file in files]
    return [file for file in named if file not in {codec_file(table) for table in named}]


class _Rows:
    """``ProfileTable.rows``: given as rows or as columns, and a tuple of rows to whoever asks."""

    def __get__(self, table: ProfileTable | None, kind: type) -> tuple[ProfileRow, ...]:
        if table is None:
            raise AttributeError("rows")  # so that the field has no default
        held = table.__dict__
        if "rows" not in held:
            held["rows"] = table.columns.rows()
        found: tuple[ProfileRow, ...] = held["rows"]
        return found

    def __set__(self, table: ProfileTable, given: Iterable[ProfileRow] | Columns) -> None:
        if isinstance(given, Columns):
            table.__dict__["columns"] = given
        else:
            table.__dict__["rows"] = tuple(given)


@dataclass(frozen=True, repr=False)
class ProfileTable(Displayed):
    """Rows of one chain, from one or several devices, and how each device's were measured.

    ``rows`` may be given as ``Columns``; rows and columns are made from each other when first asked for.
    ``files``: what they were read from; none for a table made in memory.
    """

    chain: Chain
    rows: _Rows = _Rows()
    environments: Mapping[str, Environment] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    left_out: Mapping[str, tuple[LeftOut, ...]] = field(default_factory=dict)
    active: Mapping[str, ActiveNote] = field(default_factory=dict)
    codecs: tuple[CodecRow, ...] = ()
    files: tuple[TableFile, ...] = ()

    @cached_property
    def columns(self) -> Columns:
        return Columns.of(self.rows)

    def frame(self) -> pd.DataFrame:
        """The table as pandas sees it: the columns of the CSV, see docs/formats.md."""
        return self.columns.frame()

    def missing(self, device: str, variant: Variant, batch: int) -> list[Bundle]:
        """The bundles this device and variant has no row for."""
        columns = self.columns
        have: set[tuple[int, int]] = set()
        if device in columns.devices and variant in columns.variants:
            mine = columns.device == columns.devices.index(device)
            mine &= (columns.variant == columns.variants.index(variant)) & (columns.batch == batch)
            have.update(zip(columns.start[mine].tolist(), columns.stop[mine].tolist(), strict=True))
        return [bundle for bundle in self.chain.bundles() if (bundle.start, bundle.stop) not in have]

    def headline(self) -> str:
        columns = self.columns
        ways = f"{', '.join(columns.devices)}; {', '.join(map(str, columns.variants))}"
        return f"{self.chain.source.name}: {len(columns):,} rows of {ways}"

    def summary_frame(self) -> pd.DataFrame:
        """A row per ``device``, ``variant`` and ``batch``: how many ``bundles`` were measured and how many of those are
        ``stable``, and ``latency_s`` and ``energy_j`` of the whole chain as one bundle, NaN where it was not."""
        columns = self.columns
        whole = (columns.start == 0) & (columns.stop == len(self.chain))
        given = {
            "device": np.array(columns.devices, dtype=object)[columns.device],
            "variant": np.array([str(each) for each in columns.variants], dtype=object)[columns.variant],
            "batch": columns.batch,
            "bundles": 1,
            "stable": columns.stable.astype(int),
            "latency_s": np.where(whole, columns.latency_s, np.nan),
            "energy_j": np.where(whole, columns.energy_j, np.nan),
        }
        groups = pd.DataFrame(given).groupby(["device", "variant", "batch"], sort=False)
        found: pd.DataFrame = groups.sum(min_count=1).reset_index()
        return found

    def _tables(self) -> Sequence[pd.DataFrame]:
        return (self.summary_frame(),)

    @staticmethod
    def load(files: Iterable[Path | str]) -> ProfileTable:
        """Read and join the tables of several devices; they must be of one chain.

        Files of codecs beside them are read with them, named or not. Rows are kept as columns. Raises
        ``DocumentError`` and ``MismatchError``.
        """
        tables = [(file, Sidecar.load(file.with_suffix(".json"))) for file in without_codecs(files)]
        chain = _one_chain(tables)
        with ThreadPoolExecutor(2) as pool:
            read = list(pool.map(lambda each: TableFile.of(each[0]), tables))
            parts = list(pool.map(lambda each: read_columns(each[0], each[1].device, len(chain)), tables))
        return ProfileTable.joined(
            [
                ProfileTable(
                    chain,
                    columns,
                    {sidecar.device: sidecar.environment},
                    {sidecar.device: sidecar.recipe} if sidecar.recipe else {},
                    {sidecar.device: sidecar.left_out},
                    {sidecar.device: sidecar.active} if sidecar.active else {},
                    tuple(_codecs(file, sidecar)),
                    (origin,),
                )
                for (file, sidecar), columns, origin in zip(tables, parts, read, strict=True)
            ]
        )

    @staticmethod
    def joined(tables: Sequence[ProfileTable]) -> ProfileTable:
        """Tables of one chain, each of other devices, as one. Raises ``MismatchError``."""
        devices = [device for table in tables for device in table.columns.devices]
        if twice := next((name for name in devices if devices.count(name) > 1), None):
            raise MismatchError(f"two tables measure device {twice!r}", "pass one")
        if len({table.chain.digest for table in tables}) != 1:
            raise MismatchError(f"{len(tables)} tables are not of one chain", "pass tables of one model")
        return ProfileTable(
            tables[0].chain,
            Columns.joined([table.columns for table in tables]),
            {name: each for table in tables for name, each in table.environments.items()},
            {name: each for table in tables for name, each in table.recipes.items()},
            {name: each for table in tables for name, each in table.left_out.items()},
            {name: each for table in tables for name, each in table.active.items()},
            tuple(row for table in tables for row in table.codecs),
            tuple(file for table in tables for file in table.files),
        )


def plan_table(plan: Plan, plan_file: Path, given: Sequence[Path] = ()) -> ProfileTable:
    """The tables ``given``, otherwise those that a plan was solved from, unchanged; they may have moved with it.

    Raises ``InputError`` for a plan that names none, ``DocumentError`` and ``MismatchError``.
    """
    if not given and not plan.origin.profiles:
        raise InputError(f"{plan_file} does not say which tables it was solved from", "pass --profiles")
    return ProfileTable.load(given or plan.origin.find(plan_file.resolve().parent))


def _one_chain(tables: Sequence[tuple[Path, Sidecar]]) -> Chain:
    """The chain that all tables measure, each on another device. Raises ``MismatchError``."""
    if not tables:
        raise MismatchError("no profile table was given", "pass the CSV files that `edgecut profile` wrote")
    first_file, first = tables[0]
    devices: dict[str, Path] = {}
    for file, sidecar in tables:
        if sidecar.chain.digest != first.chain.digest:
            raise MismatchError(
                f"{file} was measured on {sidecar.chain.source.label} {sidecar.chain.digest[:12]}, "
                f"{first_file} on {first.chain.source.label} {first.chain.digest[:12]}",
                "profile one model, with the same weights and granularity, on every device",
            )
        if sidecar.device in devices:
            raise MismatchError(
                f"{file} and {devices[sidecar.device]} both measure device {sidecar.device!r}", "pass one"
            )
        devices[sidecar.device] = file
    return first.chain


def _codecs(table: Path, sidecar: Sidecar) -> list[CodecRow]:
    """The rows beside a table, none where no codec was measured."""
    file = codec_file(table)
    if not file.exists():
        return []
    rows = load_codec_rows(file)
    for row in rows:
        if row.device != sidecar.device or row.boundary > len(sidecar.chain):
            problem = f"{row.codec} of device {row.device!r} at boundary {row.boundary}"
            remedy = f"it stands beside a table of {sidecar.device!r}, {len(sidecar.chain)} layers"
            raise DocumentError(file, "", problem, remedy)
    return rows
