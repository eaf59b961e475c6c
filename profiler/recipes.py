"""The recipe of int8 and mixed bundles: the one there is, or one calibrated on the stored feature maps."""

from __future__ import annotations

from dataclasses import replace

from planner.recipe import Calibration, Recipe
from profiler.cut import CutModel
from profiler.samples import SampleStore


def calibrated(
    wanted: Calibration, cut: CutModel, store: SampleStore, before: Recipe | None = None
) -> Recipe:
    """``before`` where it was made as is wanted now, else a recipe calibrated on the stored feature maps."""
    if before and (before.calibrator, before.percentile) == (wanted.calibrator, wanted.percentile):
        return replace(before, policy=wanted.policy)
    from profiler.calibration import calibrate

    found = calibrate(cut, store, wanted.calibrator, wanted.percentile)
    return replace(found, policy=wanted.policy)
