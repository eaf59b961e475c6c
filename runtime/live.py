"""What goes on, on standard error while it does: a view drawn anew a few times a second, or now and then a line.

::

    terminal       the view, in place; what is printed meanwhile stands above it; nothing of it stays
    anything else  a line every ten seconds, plain text
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.text import Text

from runtime.console import console

REFRESH_S = 0.25
LINE_S = 10.0
_SHOW_CURSOR = b"\x1b[?25h\r\n"


class View(Protocol):
    """What can be watched."""

    def drawn(self, size: ConsoleDimensions) -> RenderableType:
        """Not wider, and at most as high as this."""

    def line(self) -> str:
        """All of it in a line; empty where there is nothing to say yet."""


@contextmanager
def watched(view: View, out: Console | None = None, line_s: float = LINE_S) -> Iterator[None]:
    """Show the view meanwhile, on ``out`` (standard error)."""
    out = out or console(stderr=True)
    ended = threading.Event()
    work = _Screen(view, out).run if on_screen(out) else lambda ended: _say(view, out, ended, line_s)
    thread = threading.Thread(target=work, args=(ended,), name="live", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def on_screen(out: Console) -> bool:
    """Whether it is a terminal on which one can draw."""
    return out.is_interactive and out.file.isatty()


def restore_terminal() -> None:
    """For who ends the process without a word: the cursor is there again."""
    if os.isatty(2):
        os.write(2, _SHOW_CURSOR)


def plain(text: str) -> str:
    """A name as one may print it: what would move a cursor is shown as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _say(view: View, out: Console, ended: threading.Event, line_s: float) -> None:
    while not ended.wait(line_s):
        if line := view.line():
            out.print(plain(line), soft_wrap=True)


class _Screen:
    """The view on a terminal."""

    def __init__(self, view: View, out: Console) -> None:
        self._view, self._out = view, out

    def run(self, ended: threading.Event) -> None:
        shown, size = self._started(), self._out.size
        try:
            while not ended.wait(REFRESH_S):
                if self._out.size != size:
                    # What the terminal made of the lines that were there, nobody knows: begin on an empty screen.
                    shown.stop()
                    self._out.clear()
                    shown, size = self._started(), self._out.size
                shown.refresh()
        finally:
            shown.stop()

    def _started(self) -> Live:
        live = Live(
            console=self._out,
            auto_refresh=False,
            transient=True,
            # Where standard output goes elsewhere, it is none of the view's.
            redirect_stdout=sys.stdout.isatty(),
            vertical_overflow="crop",
            get_renderable=self._drawn,
        )
        live.start(refresh=True)
        return live

    def _drawn(self) -> RenderableType:
        size = self._out.size
        # A line less than there are, and one for what was printed last.
        return self._view.drawn(ConsoleDimensions(size.width, max(size.height - 2, 1))) or Text()
