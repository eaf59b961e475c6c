"""Ctrl-C and SIGTERM: the first asks to finish what was begun, the second ends at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SAID = b"no more input is read; what is on its way is finished (again: stops at once)\n"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Asked to stop where nothing was to be finished first; ``exit_code`` is the shell's for the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Stopping:
    """Handles both signals in the main thread while it is entered. ``restore`` is called before the second one ends
    the process; ``say``: whether to tell, on standard error, what the first one does.

    Within ``draining`` the first signal is noted (``exit_code``) and told on standard error; elsewhere it raises
    ``Stopped``. A second one ends the process, without a word to anybody: what is on disk is whole at any moment.
    """

    def __init__(self, restore: Callable[[], None] = lambda: None, say: bool = True) -> None:
        self._restore, self._say = restore, say
        self._draining = False
        self.exit_code: int | None = None
        self._before: list[Any] = []

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.exit_code is not None

    @contextmanager
    def draining(self) -> Iterator[None]:
        self._draining = True
        try:
            yield
        finally:
            self._draining = False

    def __enter__(self) -> Stopping:
        self._before = [signal.signal(number, self._handle) for number in SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None:
            self._restore()
            os._exit(128 + number)
        self.exit_code = 128 + number
        if not self._draining:
            raise Stopped(number)
        if self._say:
            os.write(2, _SAID)  # a stream may be in the middle of a line


def on_stop(first: Callable[[], None]) -> None:
    """For a process that serves: call ``first``, which must return at once, at the first signal; end at the second."""
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            # Not by an exception: what is under way may take long to unwind. What was measured is on disk.
            os.write(2, b"stopped at once\n")
            os._exit(128 + number)
        asked = True
        first()

    for number in SIGNALS:
        signal.signal(number, hear)
