"""Rows that can be planned with and yet look wrong: edited, imported in another unit, or measured badly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from planner.columns import BoolArray, Columns

LONGEST_S, SHORTEST_S = 1e6, 1e-9
FACTOR = 300.0  # below what a slip between units makes, and far above what bundles and their layers differ by


def suspicious(columns: Columns) -> tuple[str, ...]:
    """A note for each kind of oddity, with how many rows show it and the first of them.

    Times above ``LONGEST_S`` or below ``SHORTEST_S``; mean, median and 95th percentile of one row that differ by
    more than ``FACTOR``; bundles that take more than ``FACTOR`` times as long as their layers together, or less
    than its inverse, where the same table has all these layers.
    """
    return tuple(
        f"{int(rows.sum())} suspicious {'row' if rows.sum() == 1 else 'rows'}: {what}: {columns.named(rows)}"
        for what, rows in _kinds(columns)
        if rows.any()
    )


def _kinds(columns: Columns) -> Iterator[tuple[str, BoolArray]]:
    mean, median, p95 = columns.latency_s, columns.latency_median_s, columns.latency_p95_s
    longest = np.maximum(np.maximum(mean, median), p95)
    shortest = np.minimum(np.minimum(mean, median), p95)
    yield "a bundle takes longer than eleven days", longest > LONGEST_S
    yield "a bundle takes less than a nanosecond", shortest < SHORTEST_S
    yield (
        "latency_s, latency_median_s and latency_p95_s differ more than 300 times, is one in another unit?",
        longest > FACTOR * shortest,
    )
    slow, quick = _against_layers(columns)
    yield "the bundle takes more than 300 times as long as its layers together", slow
    yield "the bundle takes less than a 300th of its layers together", quick


def _against_layers(columns: Columns) -> tuple[BoolArray, BoolArray]:
    """Which bundles are far slower, and which far quicker, than the sum of their layers in the same way."""
    way = (columns.device * len(columns.variants) + columns.variant) * (int(columns.batch.max(initial=0)) + 1)
    group, groups = pd.factorize(way + columns.batch)
    layers = int(columns.stop.max(initial=0))
    layer_s = np.full((len(groups), layers), np.nan)
    single = columns.stop - columns.start == 1
    layer_s[group[single], columns.start[single]] = columns.latency_s[single]
    edge = np.zeros((len(groups), 1))
    until = np.hstack([edge, np.nancumsum(layer_s, axis=1)])
    unknown = np.hstack([edge, np.cumsum(np.isnan(layer_s), axis=1)])
    first, last = (group, columns.start), (group, columns.stop)
    summed = np.where(unknown[last] == unknown[first], until[last] - until[first], np.nan)
    return columns.latency_s > FACTOR * summed, columns.latency_s * FACTOR < summed
