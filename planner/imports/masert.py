"""MaseRT's runtime analysis: one model's accuracy, latency, power and energy for a batch, as JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from planner.documents import read_text, write_text
from planner.errors import DocumentError, InputError

_AGREE = 0.05


@dataclass(frozen=True)
class Result:
    """Of one batch, in SI. ``accuracy`` is a share; ``consistent``: energy is power x latency within 5 %."""

    name: str
    accuracy: float | None
    latency_s: float
    power_w: float
    energy_j: float
    consistent: bool


def read_masert(file: Path) -> Result:
    """Raises ``DocumentError``. The file has ms, W and mWh; accuracy is None for a task without one."""
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DocumentError(file, "", f"is no JSON: {error!s:.100}") from None
    if not isinstance(data, dict):
        raise DocumentError(file, "", "expected an object", "is this a runtime analysis of MaseRT?")

    def number(key: str, most: float = math.inf) -> float:
        value = data.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 <= value <= most
            or value == math.inf
        ):
            raise DocumentError(file, key, f"expected a number from 0 up, found {value!r:.40}")
        return float(value)

    latency_s = number("Average Latency") * 1e-3
    power_w = number("Average GPU Power Usage")
    energy_j = number("Inference Energy Consumption") * 3.6
    accuracy = number("Average Accuracy", 1.0) if "Average Accuracy" in data else None
    consistent = math.isclose(energy_j, power_w * latency_s, rel_tol=_AGREE, abs_tol=1e-9)
    return Result(file.stem, accuracy, latency_s, power_w, energy_j, consistent)


def write_results(results: Iterable[Result], file: Path) -> None:
    """A CSV in SI. Raises ``InputError`` where ``file`` is something else, ``StorageError``."""
    columns = [field.name for field in fields(Result)]
    head = ",".join(columns)
    if file.exists() and read_text(file).partition("\n")[0].strip() != head:
        raise InputError(f"{file} exists and is no table of MaseRT's results", "pass another --output")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**asdict(result), "consistent": int(result.consistent)} for result in results)
    write_text(file, buffer.getvalue())
