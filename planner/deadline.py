"""How long everything that is asked may take together, beside what each search may take alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from planner.errors import SolverError
from planner.problem import Problem

_ENDS: ContextVar[float] = ContextVar("ends", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Searches in this block end in so many seconds, all together; those that still have to begin then raise."""
    token = _ENDS.set(min(_ENDS.get(), time.perf_counter() + seconds))
    try:
        yield
    finally:
        _ENDS.reset(token)


def left_s(time_limit_s: float, problem: Problem) -> float:
    """What a search that may take so long has left. Raises ``SolverError`` where that is nothing, unless the problem
    is a shortest path, which takes no time."""
    if not problem.resources and not problem.clock_device.size:
        return time_limit_s
    left = min(time_limit_s, _ENDS.get() - time.perf_counter())
    if left <= 0:
        raise SolverError("there was no time for all that was asked", "ask for less, or give more time")
    return left
