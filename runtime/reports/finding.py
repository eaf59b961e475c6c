"""One finding of a report: a picture whose title says what it shows, the table behind it, and the command.

Every section of a report is a list of these; ``runtime.reports.report`` writes their files and the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Finding:
    """``name``: stem of its files, any text; ``title``: what it shows, a sentence with its number and unit.

    ``draw`` makes the picture without the title, which whoever saves it sets above it (``theme.save_figure``); None
    where the table says all. ``table`` is what it was drawn from, in SI units; ``columns``: those of it that the page
    shows, all where empty. ``command`` gives its numbers again; ``notes``: sentences below it (definitions, what is
    missing). ``subject``: the run or plan that it is about, where there are several.
    """

    name: str
    title: str
    draw: Callable[[], Figure] | None
    table: pd.DataFrame
    command: str
    notes: tuple[str, ...] = field(default=())
    columns: tuple[str, ...] = field(default=())
    subject: str = ""


@dataclass(frozen=True)
class Missing:
    """A part of a report that cannot be given: what is asked, and why it is not there (what would bring it)."""

    name: str
    title: str
    reason: str
