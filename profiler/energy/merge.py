"""Timing and power brought together: when each bundle ran, from the table; what it drew, from the power log.

::

    NAME.samples.jsonl   ├─ visit to [0,3) ─┤     ├─ visit to [3,8) ─┤      host's wall clock
    power log            · · · · · · · · · · · · · · · · · · · · · · · ·     laid on the same clock
                         └── energy / runs ──┘    └── energy / runs ──┘
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.chain import Bundle
from planner.documents import read_text, write_text
from planner.errors import DocumentError, EnergyError, InputError
from planner.plan import Variant
from planner.sample_lines import parse_samples, samples_file
from planner.sidecar import Sidecar
from planner.table import ProfileRow, format_row, header, parse_rows
from profiler.energy.clocksync import AlignedPower, Lack

MIN_SAMPLES = 5

Key = tuple[Bundle, Variant, int]


@dataclass(frozen=True)
class RunWindow:
    """Consecutive runs of one bundle, on the wall clock of the host that ran them."""

    start_s: float
    stop_s: float
    runs: int


@dataclass(frozen=True)
class Merged:
    """The rows with their energy, and why it is not known of the others.

    ``lacks``: by key of the row; None where the table holds no time of any run. ``windows`` and ``used``:
    visits in the table, and those whose energy counts.
    """

    rows: tuple[ProfileRow, ...]
    lacks: Mapping[Key, Lack | None]
    windows: int
    used: int


def read_windows(file: Path) -> dict[Key, list[RunWindow]]:
    """When each bundle ran, from ``NAME.samples.jsonl``; a half-written last line is left out.

    Raises ``DocumentError``, also for samples that were stored without their times.
    """
    windows: dict[Key, list[RunWindow]] = defaultdict(list)
    for number, line in enumerate(parse_samples(read_text(file), file), start=1):
        if line.start_ns is None or line.stop_ns is None:
            problem = "does not say when the bundle ran"
            raise DocumentError(file, f"line {number}", problem, "profile again, with power being logged")
        runs = len(line.latency_s)
        windows[line.key].append(RunWindow(line.start_ns / 1e9, line.stop_ns / 1e9, runs))
    return windows


def merge_rows(
    rows: Sequence[ProfileRow],
    windows: Mapping[Key, Sequence[RunWindow]],
    power: AlignedPower,
    min_samples: int = MIN_SAMPLES,
) -> Merged:
    """Energy per run of each row: that of its windows over their runs.

    A window counts if the power log covers it without a gap and holds ``min_samples`` samples of it; a row
    of which no window counts has no energy.
    """
    merged, lacks, seen, used = [], {}, 0, 0
    for row in rows:
        mine = windows.get(row.key[1:], ())
        found = [(window, power.window(window.start_s, window.stop_s, min_samples)) for window in mine]
        energies = [(each.energy_j, window.runs) for window, each in found if each.energy_j is not None]
        seen, used = seen + len(found), used + len(energies)
        energy_j = None
        if energies:
            energy_j = sum(energy for energy, _ in energies) / sum(runs for _, runs in energies)
        else:
            reasons = Counter(each.lack for _, each in found)
            lacks[row.key[1:]] = reasons.most_common(1)[0][0] if reasons else None
        merged.append(replace(row, energy_j=energy_j))
    return Merged(tuple(merged), lacks, seen, used)


def merge_table(table: Path, power: AlignedPower, output: Path, min_samples: int = MIN_SAMPLES) -> Merged:
    """Write ``table`` with its ``energy_j`` column filled, its sidecar and its samples, as ``output``.

    Raises ``DocumentError``; ``EnergyError`` if no bundle's energy is known (nothing is written then);
    ``InputError`` if ``output`` is ``table``; ``StorageError``.
    """
    if output.resolve() == table.resolve():
        raise InputError(f"{output} is the table itself", "write to another name with -o")
    sidecar = Sidecar.load(table.with_suffix(".json"))
    samples = samples_file(table)
    merged = merge_rows(parse_rows(read_text(table), table), read_windows(samples), power, min_samples)
    if len(merged.lacks) == len(merged.rows):
        raise EnergyError(nothing_known(merged, power), "check --offset, and that power was logged meanwhile")
    copied = samples_file(output)
    write_text(copied, read_text(samples))
    replace(sidecar, samples=copied.name).save(output.with_suffix(".json"))
    write_text(output, header() + "".join(map(format_row, merged.rows)))
    return merged


def nothing_known(merged: Merged, power: AlignedPower) -> str:
    """Why no row got an energy, in words."""
    reasons = sorted(
        {lack.value if lack else "the table tells no time of a run" for lack in merged.lacks.values()}
    )
    start_s, stop_s = power.pieces[0].trace.time_s[0], power.pieces[-1].trace.time_s[-1]
    return (
        f"the energy of none of {len(merged.rows)} bundles is known: {'; '.join(reasons) or 'no rows'} "
        f"(power from {start_s:.3f} s to {stop_s:.3f} s, Unix time)"
    )
