"""``NAME.samples.jsonl`` beside the table ``NAME.csv``: one line for each visit to a bundle, with its raw times."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from planner.chain import Bundle
from planner.documents import document, from_data, to_data
from planner.errors import DocumentError
from planner.plan import Variant


@document()
class SampleLine:
    """Consecutive runs of one bundle. ``first_s``: of the run before those in ``latency_s``; ``cpu_time_s``: of the
    processor per run; ``start_ns`` and ``stop_ns``: wall clock (Unix time) around them. A table that was imported
    knows only ``latency_s``.
    """

    bundle: Bundle
    variant: Variant
    batch: int
    latency_s: tuple[float, ...]
    first_s: float | None = None
    cpu_time_s: float | None = None
    start_ns: int | None = None
    stop_ns: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.latency_s:
            raise ValueError("batch must be at least 1, and latency_s hold a time")
        if not all(0 < value < math.inf for value in self.latency_s):
            raise ValueError("a time is not above 0 and finite")
        if (self.start_ns is None) != (self.stop_ns is None):
            raise ValueError("start_ns and stop_ns go together")
        if (
            self.start_ns is not None
            and self.stop_ns is not None
            and not self.start_ns < self.stop_ns < 1 << 63
        ):
            raise ValueError(f"an end, {self.stop_ns}, that does not follow its start, {self.start_ns}")

    @property
    def key(self) -> tuple[Bundle, Variant, int]:
        return self.bundle, self.variant, self.batch

    def format(self) -> str:
        """The line, its end included; what is not known is left out."""
        known = {name: value for name, value in to_data(self).items() if value is not None}
        return json.dumps(known) + "\n"


def samples_file(table: Path) -> Path:
    """Where the raw samples of the profile table ``NAME.csv`` are."""
    return table.with_suffix(".samples.jsonl")


def parse_samples(text: str, file: object) -> Iterator[SampleLine]:
    """The lines in order; a half-written last one (the profile was killed) is left out. Raises ``DocumentError``."""
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        place = f"line {number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            remedy = "remove the table and its samples, and profile anew"
            raise DocumentError(file, place, "is no JSON", remedy) from None
        yield from_data(SampleLine, data, f"{file}: {place}")
