"""The clocks of a device whose bundles run at several frequencies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from planner.plan import Variant
from profiler import backends
from profiler.clocks.choice import find
from profiler.clocks.domain import ClockError, hertz
from profiler.clocks.journal import recover
from profiler.clocks.session import ClockSession

_ROOT = Path("/")


class Switch:
    """Sets the clock for one variant after the other. Use as a context manager, then ``at``.

    Entering restores what a killed session left, and holds each clock that one of ``variants`` needs;
    variants at the clock as found need none. ``notes``: what the user must be told, in words.
    """

    def __init__(
        self,
        variants: Iterable[Variant],
        cpus: tuple[int, ...] | None = None,
        root: Path = _ROOT,
        folder: Path | None = None,
    ) -> None:
        self._needed: dict[bool, Variant] = {}
        for variant in variants:
            if variant.frequency_hz:
                self._needed.setdefault(backends.entry(variant.backend).gpu, variant)
        self._cpus, self._root, self._folder = cpus, root, folder
        self._sessions: dict[bool, ClockSession] = {}
        self._stack = contextlib.ExitStack()
        self._recovered: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Complete after the block."""
        told = [note for session in self._sessions.values() for note in session.notes]
        return tuple(dict.fromkeys([*self._recovered, *told]))

    def __enter__(self) -> Switch:
        """Raises ``ClockError`` for a clock that cannot be set, ``MismatchError`` for one that is held."""
        self._recovered = recover(self._folder, self._root)
        with contextlib.ExitStack() as stack:
            for gpu, variant in self._needed.items():
                clock = find(variant.backend, self._root, self._cpus)
                if clock is None:
                    problem = f"{variant}: this machine has no {'gpu' if gpu else 'cpu'} clock to set"
                    raise ClockError(problem, "edgecut clocks")
                if found := clock.obstacle():
                    raise ClockError(f"{variant}: {found.problem}", found.remedy)
                self._sessions[gpu] = stack.enter_context(ClockSession(clock, self._folder, self._root))
            self._stack = stack.pop_all()
        return self

    @contextlib.contextmanager
    def at(self, variant: Variant) -> Iterator[float | None]:
        """Run the block at the variant's clock; gives the clock as it really is, None for as found.

        The clock stays until the next variant wants another, so repeating one costs nothing. Raises
        ``ClockError`` for a frequency that the device does not offer, or that it refuses.
        """
        session = self._sessions.get(backends.entry(variant.backend).gpu)
        if variant.frequency_hz is None:
            if session:
                session.release()
            yield None
            return
        if session is None:
            raise ClockError(f"{variant} was not announced", "name every variant when the switch is made")
        if session.held_hz != variant.frequency_hz and not session.clock.offers(variant.frequency_hz):
            raise ClockError(
                f"{variant}: the {session.clock.name} clock does not offer {hertz(variant.frequency_hz)}",
                "edgecut clocks",
            )
        yield session.set(variant.frequency_hz)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
