"""Drift of a machine while it measures: one small bundle visited again in every round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.chain import Bundle, Chain
from planner.sidecar import DriftPoint
from profiler.bundles import OpenBundle

# Relative change of the reference from which a reader is told.
NOTABLE = 0.05


def reference_bundle(chain: Chain) -> Bundle:
    """One layer, of a quarter's rank among those that compute: quick to run, and not all overhead."""
    places = sorted(range(len(chain)), key=lambda place: chain.layers[place].macs)
    computing = [place for place in places if chain.layers[place].macs] or places
    place = computing[len(computing) // 4]
    return Bundle(place, place + 1)


def drift_point(reference: OpenBundle) -> DriftPoint:
    """One more visit to the reference. Raises ``BundleError``."""
    found = reference.visit()
    return DriftPoint(found.start_ns / 1e9, float(np.median(found.samples_s)))


def drift(points: Sequence[DriftPoint]) -> float | None:
    """Relative change of the reference, from the first third of its visits to the last; None below 6."""
    third = len(points) // 3
    if third < 2:
        return None
    times = [point.latency_s for point in points]
    return float(np.median(times[-third:]) / np.median(times[:third]) - 1)
