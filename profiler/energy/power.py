"""Power over time, and the energy of a window of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost import FloatArray
from planner.errors import EnergyError


@dataclass(frozen=True, eq=False)
class PowerTrace:
    """Samples of power.

    ``time_s``: shape (n,), strictly increasing, in seconds of one clock, whichever it is; windows are asked
    for in the same. ``power_w``: shape (n,). Raises ``EnergyError`` for anything else.
    """

    time_s: FloatArray
    power_w: FloatArray

    def __post_init__(self) -> None:
        for name in ("time_s", "power_w"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.time_s.ndim != 1 or self.time_s.shape != self.power_w.shape:
            shapes = f"{self.time_s.shape} and {self.power_w.shape}"
            raise EnergyError(f"a power trace has one time and one power a sample; found shapes {shapes}")
        if not (np.isfinite(self.time_s).all() and np.isfinite(self.power_w).all()):
            raise EnergyError("a power trace holds a value that is not finite", "leave such samples out")
        back = np.flatnonzero(np.diff(self.time_s) <= 0)
        if back.size:
            at = int(back[0])
            raise EnergyError(
                f"the clock of a power trace stands still or jumps back after sample {at}: "
                f"{self.time_s[at]:.6f} s, then {self.time_s[at + 1]:.6f} s",
                "split the trace there",
            )

    def __len__(self) -> int:
        return len(self.time_s)

    def energy_j(self, start_s: float, stop_s: float) -> float:
        """Energy between two times: trapezoidal rule, power at both ends interpolated linearly.

        Raises ``EnergyError`` unless the trace covers the window, or if the window ends before it starts.
        """
        self._check(start_s, stop_s)
        inside = slice(
            int(np.searchsorted(self.time_s, start_s, "right")),
            int(np.searchsorted(self.time_s, stop_s, "left")),
        )
        start_w, stop_w = np.interp([start_s, stop_s], self.time_s, self.power_w)
        time_s = np.concatenate(([start_s], self.time_s[inside], [stop_s]))
        power_w = np.concatenate(([start_w], self.power_w[inside], [stop_w]))
        return float(np.dot(np.diff(time_s), (power_w[:-1] + power_w[1:]) / 2))

    def mean_power_w(self, start_s: float, stop_s: float) -> float:
        """Energy of the window over its length. Raises as ``energy_j`` does, and for a window of no length."""
        if start_s == stop_s:
            raise EnergyError(f"a window of no length has no mean power: {start_s:.6f} s")
        return self.energy_j(start_s, stop_s) / (stop_s - start_s)

    def samples_in(self, start_s: float, stop_s: float) -> int:
        """How many samples fall into the window, its ends included."""
        first = np.searchsorted(self.time_s, start_s, "left")
        return max(0, int(np.searchsorted(self.time_s, stop_s, "right") - first))

    def longest_gap_s(self, start_s: float, stop_s: float) -> float:
        """The longest time within the window that passed without a sample. Raises as ``energy_j`` does."""
        self._check(start_s, stop_s)
        inside = self.time_s[(self.time_s > start_s) & (self.time_s < stop_s)]
        return float(np.diff(np.concatenate(([start_s], inside, [stop_s]))).max())

    def _check(self, start_s: float, stop_s: float) -> None:
        if not start_s <= stop_s:  # refuses NaN as well
            raise EnergyError(f"a window cannot end before it starts: {start_s:.6f} s to {stop_s:.6f} s")
        if not len(self):
            raise EnergyError(f"no sample of power between {start_s:.6f} s and {stop_s:.6f} s")
        if start_s < self.time_s[0] or stop_s > self.time_s[-1]:
            raise EnergyError(
                f"power is known from {self.time_s[0]:.6f} s to {self.time_s[-1]:.6f} s; "
                f"asked from {start_s:.6f} s to {stop_s:.6f} s",
                "log power from before the first run until after the last",
            )
