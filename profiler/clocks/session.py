"""Setting a clock for a while, and leaving it as it was found, however the process ends.

::

    enter ── restore what a killed session left ── lock the clock
    set   ── (first time) journal what is found, on disk ── pin the clock ── read what it really is
    exit  ── restore ── remove the journal ── unlock        normal end, exception, SIGINT, SIGTERM, SIGHUP
    kill -9, power: the journal stays, and the next start or `edgecut clocks restore` honours it
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from planner.errors import EdgecutError, StorageError
from profiler.clocks.domain import Clock, ClockError, Setting, hertz
from profiler.clocks.journal import (
    RESTORE,
    journal_file,
    leftovers,
    locked,
    recover,
    restore,
    settle,
    state_folder,
    write_record,
)

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# A clock that differs by less than this from what was asked is a matter of rounding.
SAME = 0.0025


class ClockSession:
    """One clock for the length of a ``with`` block. ``notes``: what its user must be told, in words."""

    def __init__(self, clock: Clock, folder: Path | None = None, root: Path = Path("/")) -> None:
        """``folder`` takes the journal, by default the user's state folder."""
        self.clock, self.notes = clock, list[str]()
        self._folder, self._root = folder or state_folder(), root
        self._file = journal_file(self._folder, clock.domains)
        self._found: tuple[Setting, ...] = ()
        self._changed = False
        self._asked_hz: float | None = None
        self._real_hz = 0.0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ClockSession:
        """Raises ``MismatchError`` if another session holds the clock, ``StorageError`` without a journal."""
        with contextlib.ExitStack() as stack:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                problem = f"cannot write {self._folder}, where the clock as found is kept: {error.strerror}"
                raise StorageError(problem, "set XDG_STATE_HOME to a folder of yours") from None
            self.notes += recover(self._folder, self._root)
            stack.enter_context(locked(self.clock.domains, self._folder))
            stack.enter_context(_unwinding())
            self._stack = stack.pop_all()
        return self

    @property
    def held_hz(self) -> float | None:
        """What was asked for and is held now."""
        return self._asked_hz

    def set(self, hz: float) -> float:
        """Hold the clock at ``hz`` and say what it really is. Costs nothing where it is held there already.

        Raises ``ClockError`` where it cannot be set, ``StorageError`` where the journal cannot be written;
        what was found is restored at the end all the same.
        """
        if hz == self._asked_hz:
            return self._real_hz
        if not self._found:
            self._begin()
        self._asked_hz, self._changed = None, True
        self._real_hz = self.clock.pin(hz)
        self._asked_hz = hz
        if abs(self._real_hz - hz) > SAME * hz:
            note = f"the {self.clock.name} clock was asked for {hertz(hz)} and is {hertz(self._real_hz)}"
            if note not in self.notes:
                self.notes.append(note)
        return self._real_hz

    def release(self) -> None:
        """Back to the clock as found, without ending the session. Raises ``ClockError`` if it refuses."""
        if self._changed:
            self._asked_hz = None
            for problem in restore(self._found, self._root).values():
                raise ClockError(problem, RESTORE)
            self._changed = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self._found:
                with _undisturbed():
                    left = restore(self._found, self._root)
                    self.notes += [f"not restored: {each}; try: {RESTORE}" for each in left.values()]
                    settle(self._file, self._root, tuple(left))
                    self._found = ()

    def _begin(self) -> None:
        """Journal what is found; of what could not be restored before, keep the older."""
        found = {setting.where: setting for setting in self.clock.found()}
        for file, record in leftovers(self._folder, self._root):
            if isinstance(record, EdgecutError) or record.void or record.live:
                continue
            for setting in record.settings:
                if file == self._file or setting.where in found:
                    found[setting.where] = setting
        write_record(self._file, self._root, tuple(found.values()))
        self._found = tuple(found.values())


@contextlib.contextmanager
def _unwinding() -> Iterator[None]:
    """Signals that would end the process on the spot leave through every ``finally`` instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = [each for each in _SIGNALS if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put off signals until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {each: signal.getsignal(each) for each in (*_SIGNALS, signal.SIGINT)}
    before = {each: handler for each, handler in before.items() if handler is not None}
    for each in before:
        signal.signal(each, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came[:1]:
            os.kill(os.getpid(), number)
