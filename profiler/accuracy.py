"""Top-1 agreement and accuracy of a classifier's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profiler.runner import Array


def classes(outputs: Sequence[Array]) -> Array | None:
    """The predicted class of each sample; None where the first output is no table of scores."""
    scores = outputs[0]
    if scores.ndim != 2 or scores.shape[1] < 2:
        return None
    best: Array = np.argmax(scores, axis=1)
    return best


def agreement(found: Array | None, expected: Array | None) -> float | None:
    """Share of samples whose predicted class is the expected one; None without classes."""
    return None if found is None or expected is None else float(np.mean(found == expected))


def accuracy(found: Array | None, labels: Sequence[int | None]) -> float | None:
    """Share of the samples with a known class that are predicted right; None where none is known."""
    known = [place for place, label in enumerate(labels) if label is not None]
    if found is None or not known:
        return None
    return float(np.mean([found[place] == labels[place] for place in known]))
