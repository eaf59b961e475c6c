"""The statistics of a row's latency, one definition for what is measured and what is imported."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TRIMMED = 0.1  # share of the samples left out at each end, by rank


def trimmed_mean(samples: Sequence[float], share: float = TRIMMED) -> float:
    """Mean without the ``share`` lowest and the ``share`` highest samples, by rank."""
    cut = int(len(samples) * share)
    return float(np.mean(sorted(samples)[cut : len(samples) - cut]))
