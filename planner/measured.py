"""What a table's columns say of each bundle: dense arrays by way, start and stop, for the cost model."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from planner.chain import Chain
from planner.columns import BoolArray, Columns, FloatArray, IntArray
from planner.errors import InputError, MismatchError, PlanningError
from planner.plan import Variant
from planner.sidecar import LeftOut


class Way(NamedTuple):
    """One way to compute: a variant on a device."""

    device: str
    variant: Variant


@dataclass(frozen=True, eq=False)
class Measured:
    """One batch of a table.

    The ways of one device stand together, devices and variants in the order of their first row. The arrays have
    the shape (ways, layers, layers + 1), indexed by way, start and stop, and are NaN where start >= stop.
    ``latency_s`` is in the statistic asked for; ``metered_j`` is NaN where nothing metered the energy;
    ``noise`` is power over the signal's, 1 where nothing measured it; ``memory_bytes`` is known of every bundle.
    ``cannot``: bundles that the way cannot run, or of which the table says nothing on purpose.
    ``metered_w``: by device, joules over seconds of its rows whose energy was metered. ``unrated``: ways below
    fp32 whose error nothing measured.
    """

    ways: tuple[Way, ...]
    latency_s: FloatArray
    metered_j: FloatArray
    noise: FloatArray
    memory_bytes: FloatArray
    cannot: BoolArray
    metered_w: Mapping[str, float]
    unrated: tuple[Way, ...]


def measured(
    chain: Chain,
    columns: Columns,
    batch: int,
    left_out: Mapping[str, Sequence[LeftOut]] | None = None,
    incomplete: Container[str] = (),
    statistic: str = "mean",
) -> Measured:
    """The rows of this batch, the others left aside.

    ``left_out``: what each device cannot run. ``incomplete``: devices of which bundles may be missing; a plan
    does without them. ``statistic``: see ``times_of``. ``PlanningError``: a way of which some bundles are
    neither measured nor left out. ``MismatchError``: a bundle outside the chain.
    """
    columns = columns.of_batch(batch)
    ways, way = _ways(columns)
    if columns.stop.max(initial=0) > len(chain):
        problem = f"{columns.place(int(columns.stop.argmax()))} lies outside a chain of {len(chain)} layers"
        raise MismatchError(problem, "solve for the model, weights and granularity that were profiled")
    shape = len(ways), len(chain), len(chain) + 1
    cells = (way * shape[1] + columns.start) * shape[2] + columns.stop

    def dense(values: FloatArray) -> FloatArray:
        found = np.full(shape, np.nan)
        found.reshape(-1)[cells] = values
        return found

    latency_s = dense(times_of(columns, statistic))
    noise, unrated = _noise(columns)
    lacking = np.isnan(latency_s) & np.triu(np.ones(shape[1:], dtype=bool), k=1)
    cannot = lacking & unusable(shape, ways, batch, left_out or {}, incomplete)
    _check_complete(chain, batch, ways, lacking & ~cannot)
    return Measured(
        *(
            ways,
            latency_s,
            dense(columns.energy_j),
            dense(noise),
            _memory(chain, columns, cells, batch, shape),
        ),
        *(cannot, _metered_w(columns)),
        tuple(ways[place] for place in np.flatnonzero(np.bincount(way[unrated], minlength=len(ways)))),
    )


def times_of(columns: Columns, statistic: str) -> FloatArray:
    """Seconds of each row by "mean", "median", "p95", or the mean and so many standard deviations, "mean+2std".

    A plan adds its bundles' times up. Means add up whatever their distributions; medians, 95th percentiles and
    deviations do not: for bundles that vary independently the sum of their tails overstates the tail of the
    sum, so plans made with them guard against slow runs rather than forecast a percentile.
    """
    columns_of = {"mean": "latency_s", "median": "latency_median_s", "p95": "latency_p95_s"}
    if statistic in columns_of:
        times: FloatArray = getattr(columns, columns_of[statistic])
        return times
    found = re.fullmatch(r"mean\+(\d{1,3}(?:\.\d*)?|\.\d+)std", statistic.replace(" ", ""))
    if not found:
        raise InputError(f"{statistic!r} is no statistic", "known: mean, median, p95, and such as mean+2std")
    return columns.latency_s + float(found[1]) * columns.latency_std_s


def _ways(columns: Columns) -> tuple[tuple[Way, ...], IntArray]:
    """The ways, grouped by device, and the place among them of each row."""
    count = max(len(columns.variants), 1)
    codes, kinds = pd.factorize(columns.device * count + columns.variant)
    device, variant = np.divmod(kinds, count)
    order = np.argsort(pd.factorize(device)[0], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    ways = [Way(columns.devices[device[k]], columns.variants[variant[k]]) for k in order.tolist()]
    return tuple(ways), place[codes]


def unusable(
    shape: tuple[int, ...],
    ways: Sequence[Way],
    batch: int,
    left_out: Mapping[str, Sequence[LeftOut]],
    incomplete: Container[str],
) -> BoolArray:
    """By way, start and stop: what is left out for this batch, and everything of the ``incomplete`` devices."""
    cannot = np.zeros(shape, dtype=bool)
    place = {way: k for k, way in enumerate(ways)}
    for name, entries in left_out.items():
        for entry in entries:
            at = place.get(Way(name, entry.variant))
            if at is not None and entry.batch == batch:
                cannot[at, entry.bundle.start, entry.bundle.stop] = True
    for k, way in enumerate(ways):
        cannot[k] |= way.device in incomplete
    return cannot


def _noise(columns: Columns) -> tuple[FloatArray, BoolArray]:
    """Noise of each row's bundle as measured, and where nothing measured it. Differences in fp32 are rounding."""
    exact = np.array([variant.precision == "fp32" for variant in columns.variants], dtype=bool)[
        columns.variant
    ]
    silent = np.isnan(columns.sqnr_db)
    unrated = silent & ~exact & (columns.max_error != 0)
    noise = unrated.astype(float)
    rated = ~silent & ~exact
    noise[rated] = noise_powers(columns.sqnr_db[rated])
    return noise, unrated


def noise_powers(sqnr_db: FloatArray) -> FloatArray:
    """Noise-to-signal power of signal-to-noise ratios in dB."""
    powers: FloatArray = np.power(10.0, np.minimum(-sqnr_db / 10, 300.0))
    return powers


def _memory(
    chain: Chain, columns: Columns, cells: IntArray, batch: int, shape: tuple[int, ...]
) -> FloatArray:
    """Bytes that a stage takes: as measured, else its weights and the tensors at both its boundaries."""
    before = np.append(0, np.cumsum([layer.weight_bytes for layer in chain.layers], dtype=float))
    tensors = np.array([chain.wire_bytes(k, batch) for k in range(len(chain) + 1)], dtype=float)
    both: FloatArray = tensors[:-1, None] + tensors
    inside = np.triu(np.ones(shape[1:], dtype=bool), k=1)
    memory: FloatArray = np.broadcast_to(
        np.where(inside, before - before[:-1, None] + both, np.nan), shape
    ).copy()
    flat, peak, weights = memory.reshape(-1), columns.peak_memory_bytes, columns.weight_bytes
    flat[cells[peak >= 0]] = peak[peak >= 0]
    rest = (peak < 0) & (weights >= 0)
    flat[cells[rest]] = weights[rest] + both[columns.start[rest], columns.stop[rest]]
    return memory


def _metered_w(columns: Columns) -> dict[str, float]:
    metered = ~np.isnan(columns.energy_j)
    device, count = columns.device[metered], len(columns.devices)
    joules = np.bincount(device, columns.energy_j[metered], count)
    seconds = np.bincount(device, columns.latency_s[metered], count)
    return {name: float(joules[k] / seconds[k]) for k, name in enumerate(columns.devices) if seconds[k]}


def _check_complete(chain: Chain, batch: int, ways: Sequence[Way], lacking: BoolArray) -> None:
    for place, way in enumerate(ways):
        missing = np.argwhere(lacking[place])
        if missing.size:
            start, stop = missing[0].tolist()
            raise PlanningError(
                f"{way.device}, {way.variant}, batch {batch}: {len(missing)} of {len(chain) * (len(chain) + 1) // 2} "
                f"bundles are not measured, the first is [{start}, {stop})",
                f"run the same `{profile_command(chain, way.device)} ...` again: it resumes; or plan over what is "
                "there with --partial",
            )


def profile_command(chain: Chain, device: str) -> str:
    """The command that measures ``chain`` on ``device``."""
    return f"edgecut profile {chain.source.arguments} --device {device}"
