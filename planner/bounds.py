"""What an unmeasured bundle takes at the least, learnt from those that are measured.

A bundle takes less (fused, one copy in and out, one call) or more (a cold cache) than its layers one by
one. The difference is put down to its seams, the places where two of its layers meet::

    T[i, j) = sum of t[k] for its layers - sum of saving[k] for its seams + noise

Each seam's saving has a part that all seams of this way share (in proportion to the layers' time, to the
least layer's time, to the bytes that cross, to the logarithm of the length) and a part of its own. With
normal priors for all of these, bundles are a Gaussian process: measuring a bundle narrows what is known of
all that overlap it (Rasmussen and Williams 2006, sections 2.2 and 5.4). The bound lies ``z`` standard
deviations below the expected time; alpha is the bound divided by the sum of the layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.cost import FloatArray

# Prior standard deviations of what the seams share, relative to the features below.
_SHARED = np.array([0.3, 1.0, 0.1, 0.2])
# Candidates for the spread of a seam's own saving and of the measurements, relative to the time.
_SEAM = (0.02, 0.04, 0.08, 0.16)
_NOISE = (0.01, 0.02, 0.04)


@dataclass(frozen=True)
class Spread:
    """Relative standard deviations: of a seam's own saving, and of one measurement."""

    seam: float = 0.08
    noise: float = 0.02


class Bounds:
    """One way's times (or energies), some of them measured. Positive, in any unit."""

    def __init__(self, measured: FloatArray, nbytes: Sequence[int]) -> None:
        """``measured``: shape (layers, layers + 1) by start and stop, NaN where unmeasured, every single layer
        measured. ``nbytes``: of each boundary."""
        layers = len(measured)
        single = measured[np.arange(layers), np.arange(1, layers + 1)]
        self.starts, self.stops = np.triu_indices(layers, k=1, m=layers + 1)
        start, stop = self.starts, self.stops
        length = stop - start
        seam = (single[1:] + single[:-1]) / 2
        crossing = np.asarray(nbytes[1:-1], dtype=float)
        self._layer_square = np.append(0.0, np.cumsum(single**2))
        self._seam_square = np.append(0.0, np.cumsum(seam**2))
        total = np.append(0.0, np.cumsum(single))
        self.sums = total[stop] - total[start]

        def inside(values: FloatArray) -> FloatArray:
            sums = np.append(0.0, np.cumsum(values))
            return np.asarray(sums[stop - 1] - sums[start])

        scale = total[-1] / max(crossing.sum(), 1.0)
        self._features = np.column_stack(
            [
                inside(seam),
                (length - 1) * single.min(),
                inside(crossing) * scale,
                self.sums * np.log2(length) / max(np.log2(layers), 1.0),
            ]
        ) * _SHARED  # fmt: skip
        times = measured[start, stop]
        self.known: NDArray[np.int64] = np.flatnonzero(np.isfinite(times) & (length > 1))
        self.unknown: NDArray[np.int64] = np.flatnonzero(~np.isfinite(times))
        self._saved = times[self.known] - self.sums[self.known]
        # Searched again and again with nothing new measured in this way.
        self._likelihoods: dict[Spread, float] = {}
        self._foretold: dict[Spread, tuple[FloatArray, FloatArray]] = {}

    def likelihood(self, spread: Spread) -> float:
        """The logarithm of the density of what is measured."""
        if not self.known.size:
            return 0.0
        if spread not in self._likelihoods:
            lower = np.linalg.cholesky(self._of_known(spread))
            white = np.linalg.solve(lower, self._saved)
            density = float(-0.5 * white @ white - np.log(np.diag(lower)).sum())
            self._likelihoods[spread] = density
        return self._likelihoods[spread]

    def worst_miss(self, spread: Spread) -> float:
        """How many standard deviations a measured bundle lies below what all the others foretell of it."""
        if self.known.size < 3:
            return 0.0
        inverse = np.linalg.inv(self._of_known(spread))
        left_out = (inverse @ self._saved) / np.sqrt(np.diag(inverse))
        return float(max(0.0, -left_out.min()))

    def foretell(self, spread: Spread) -> tuple[FloatArray, FloatArray]:
        """Expected value and standard deviation of the unknown bundles, in the order of ``unknown``."""
        if spread not in self._foretold:
            self._foretold = {spread: self._compute(spread)}
        return self._foretold[spread]

    def _compute(self, spread: Spread) -> tuple[FloatArray, FloatArray]:
        unknown, sums = self.unknown, self.sums[self.unknown]
        prior = self._covariance(unknown, None, spread) + (spread.noise * sums) ** 2
        if not self.known.size:
            return sums, np.sqrt(prior)
        lower = np.linalg.cholesky(self._of_known(spread))
        white = np.linalg.solve(lower, self._covariance(self.known, unknown, spread))
        mean = np.linalg.solve(lower, self._saved) @ white
        variance = np.maximum(prior - (white**2).sum(axis=0), (spread.noise * sums) ** 2)
        return sums + mean, np.sqrt(variance)

    def _of_known(self, spread: Spread) -> FloatArray:
        noise = (spread.noise * self.sums[self.known]) ** 2
        return self._covariance(self.known, self.known, spread) + np.diag(noise)

    def _covariance(
        self, left: NDArray[np.int64], right: NDArray[np.int64] | None, spread: Spread
    ) -> FloatArray:
        """Between every two of ``left`` and ``right``; with ``right`` None, of each with itself."""
        if right is None:
            shared = (self._features[left] ** 2).sum(axis=1)
            start, stop = self.starts[left], self.stops[left]
        else:
            shared = self._features[left] @ self._features[right].T
            start = np.maximum.outer(self.starts[left], self.starts[right])
            stop = np.minimum.outer(self.stops[left], self.stops[right])
        stop = np.maximum(stop, start)  # equal where they share no layer
        seams = self._seam_square[np.maximum(stop - 1, start)] - self._seam_square[start]
        # The single layers are measured too: their errors are common to all bundles that hold them.
        layers = self._layer_square[stop] - self._layer_square[start]
        return np.asarray(shared + spread.seam**2 * seams + spread.noise**2 * layers)


def fit(bounds: Sequence[Bounds]) -> list[Spread]:
    """For each way the spread under which what is measured is most likely.

    A way has few measurements at first, so what is likely in the others counts as a prior: the mean of
    their posteriors.
    """
    if not bounds:
        return []
    candidates = [Spread(*pair) for pair in itertools.product(_SEAM, _NOISE)]
    own = np.array([[each.likelihood(spread) for spread in candidates] for each in bounds])
    posterior = np.exp(own - own.max(axis=1, keepdims=True))
    prior = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
    return [candidates[place] for place in (own + np.log(prior + 1e-9)).argmax(axis=1)]
