"""What commands print: tables, and numbers in the units people read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    # Names are printed as they are: brackets and colons in them are not markup.
    out = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = _PIPE_WIDTH  # a file or a pipe has no width; a table must not be folded into it
    return out


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)
) -> Table:
    """A table whose columns are right-aligned, except those in ``left``."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        shown.add_column(name, justify="left" if place in left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}"


def millijoules(joules: float) -> str:
    return f"{joules * 1e3:,.2f}"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.3f}"


def percent(share: float) -> str:
    return f"{share * 100:+.1f} %"
