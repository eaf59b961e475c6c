"""Profile tables as columns: a numpy array for each, for tables of millions of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from planner.chain import Bundle
from planner.plan import Variant
from planner.row import COLUMNS, ProfileRow

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SHOWN = 3  # rows that a message names before it only counts


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of a table, of one or several devices, column by column.

    Every array has the shape (rows,). ``device`` and ``variant`` are places in ``devices`` and ``variants``, which
    stand in the order of their first row. What nothing measured is NaN among floats and -1 among counts;
    otherwise the columns are those of ``ProfileRow``. ``files``: the files the rows come from, and how many of
    each, in order; empty where they come from none.
    """

    devices: tuple[str, ...]
    variants: tuple[Variant, ...]
    device: IntArray
    variant: IntArray
    start: IntArray
    stop: IntArray
    batch: IntArray
    latency_s: FloatArray
    latency_median_s: FloatArray
    latency_p95_s: FloatArray
    latency_std_s: FloatArray
    cpu_time_s: FloatArray
    runs: IntArray
    load_s: FloatArray
    latency_ci_s: FloatArray
    stable: BoolArray
    build_s: FloatArray
    peak_memory_bytes: IntArray
    artifact_bytes: IntArray
    weight_bytes: IntArray
    sqnr_db: FloatArray
    max_error: FloatArray
    energy_j: FloatArray
    files: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return self.device.size

    @staticmethod
    def of(rows: Iterable[ProfileRow], file: object = None) -> Columns:
        """The same rows as columns; ``file`` is where they stand, from its second line on."""
        rows = list(rows)
        devices = {name: place for place, name in enumerate(dict.fromkeys(row.device for row in rows))}
        variants = {each: place for place, each in enumerate(dict.fromkeys(row.variant for row in rows))}
        found: dict[str, list[Any]] = {
            "device": [devices[row.device] for row in rows],
            "variant": [variants[row.variant] for row in rows],
            "start": [row.bundle.start for row in rows],
            "stop": [row.bundle.stop for row in rows],
        }
        arrays: dict[str, Any] = {}
        for name, kind in KINDS.items():
            values = found.get(name) or [getattr(row, name) for row in rows]
            nothing = np.nan if kind is float else -1
            arrays[name] = np.array([nothing if value is None else value for value in values], dtype=kind)
        files = ((str(file), len(rows)),) if file is not None else ()
        return Columns(tuple(devices), tuple(variants), **arrays, files=files)

    @staticmethod
    def joined(parts: Sequence[Columns]) -> Columns:
        """The rows of all parts, one part after the other."""
        devices = {name: None for part in parts for name in part.devices}
        variants = {each: None for part in parts for each in part.variants}
        arrays: dict[str, Any] = {
            name: np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])
            for name, kind in KINDS.items()
            if name not in ("device", "variant")
        }
        device = [_recoded(part.device, part.devices, list(devices)) for part in parts]
        variant = [_recoded(part.variant, part.variants, list(variants)) for part in parts]
        nothing = np.zeros(0, dtype=np.int64)
        return Columns(
            *(tuple(devices), tuple(variants), np.concatenate([nothing, *device])),
            *(np.concatenate([nothing, *variant]),),
            **arrays,
            files=tuple(file for part in parts for file in part.files),
        )

    def rows(self) -> tuple[ProfileRow, ...]:
        """The same as ``ProfileRow`` objects: for small tables and parts of large ones."""
        return tuple(self._rows())

    def _rows(self) -> Iterator[ProfileRow]:
        places = (self.device, self.variant, self.start, self.stop)
        names = list(KINDS)[len(places) :]
        cells = [_values(getattr(self, name)) for name in names]
        for (device, variant, start, stop), values in zip(
            zip(*(each.tolist() for each in places), strict=True), zip(*cells, strict=True), strict=True
        ):
            yield ProfileRow(
                device=self.devices[device],
                bundle=Bundle(start, stop),
                variant=self.variants[variant],
                **dict(zip(names, values, strict=True)),
            )

    def frame(self) -> pd.DataFrame:
        """As pandas reads them from a CSV: NaN where nothing was measured, 0 and 1 for flags."""
        found: dict[str, Any] = {"device": np.array(self.devices, dtype=object)[self.device]}
        for name, kind in (
            ("backend", object),
            ("precision", object),
            ("frequency_hz", float),
            ("fused", int),
        ):
            found[name] = np.array([getattr(each, name) for each in self.variants], dtype=kind)[self.variant]
        for name in list(KINDS)[2:]:
            column = getattr(self, name)
            counts = column.dtype == np.int64 and (column == -1).any()
            found[name] = np.where(column == -1, np.nan, column) if counts else column + 0
        found["samples_per_s"] = self.batch / self.latency_s
        table: pd.DataFrame = pd.DataFrame(found)[list(COLUMNS)]
        return table

    def bundle(self, row: int) -> Bundle:
        return Bundle(int(self.start[row]), int(self.stop[row]))

    def of_batch(self, batch: int) -> Columns:
        """The rows of one batch; of a part of the rows it is not known in which files they stand."""
        mine = self.batch == batch
        if mine.all():
            return self
        parts = {name: getattr(self, name)[mine] for name in KINDS}
        return replace(self, **parts, files=())

    def devices_of(self, batch: int) -> tuple[str, ...]:
        """The devices with rows of this batch."""
        return tuple(self.devices[code] for code in pd.unique(self.device[self.batch == batch]).tolist())

    def batches(self) -> tuple[int, ...]:
        return tuple(sorted(pd.unique(self.batch).tolist()))

    def place(self, row: int) -> str:
        """Where a row stands and what it measures, for a message."""
        what = f"[{self.start[row]}, {self.stop[row]}) {self.variants[self.variant[row]]}"
        first = 0
        for file, count in self.files:
            if row < first + count:
                return f"{file} line {row - first + 2} ({what})"
            first += count
        return f"{self.devices[self.device[row]]} {what}, batch {self.batch[row]}"

    def named(self, rows: BoolArray) -> str:
        """The places of the rows marked, the first few of them."""
        found = np.flatnonzero(rows)
        more = f" and {found.size - SHOWN} more" if found.size > SHOWN else ""
        return ", ".join(self.place(int(row)) for row in found[:SHOWN]) + more


# The numpy type of each column that is an array.
KINDS: dict[str, type] = {
    field.name: {"FloatArray": float, "IntArray": np.int64, "BoolArray": bool}[str(field.type)]
    for field in fields(Columns)
    if str(field.type).endswith("Array")
}


def _recoded(codes: IntArray, names: Sequence[Any], known: Sequence[Any]) -> IntArray:
    """Places in ``names`` as places in ``known``."""
    places: IntArray = np.array([known.index(name) for name in names], dtype=np.int64)
    return places[codes]


def _values(column: NDArray[Any]) -> list[Any]:
    """The cells as Python has them, None where nothing was measured."""
    lacking = np.isnan(column) if column.dtype == float else (column == -1) & (column.dtype != bool)
    return [None if none else value for value, none in zip(column.tolist(), lacking.tolist(), strict=True)]
