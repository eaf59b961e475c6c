"""How far a device's profile has come, as its agent tells it."""

from __future__ import annotations

from collections.abc import Callable

from planner.documents import document
from profiler.request import Step


@document()
class Advance:
    """``share`` of the work; ``note``: what is being done. ``done``: bundles in the table or left out by name;
    ``left``: those still to be measured. ``power_w``: mean power of the last bundle, where it was metered.
    """

    share: float
    note: str = ""
    done: int | None = None
    left: int | None = None
    power_w: float | None = None


Show = Callable[[str, Advance], None]


class Progressing:
    """Adds up the steps of a profile."""

    def __init__(self) -> None:
        self._work = 0.0
        self._power_w: float | None = None

    def after(self, step: Step) -> Advance:
        self._work += step.work
        if step.row and step.row.energy_j is not None:
            self._power_w = step.row.energy_j / step.row.latency_s
        note = f"{step.bundle} {step.variant}" if step.bundle else ""
        return Advance(min(self._work / step.total, 1.0), note, step.done, step.left, self._power_w)
