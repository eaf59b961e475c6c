"""Tables of a live view: aligned with each other, and cut to the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

WIDE = 76  # columns from which on there is room for bars
BAR = 22
_GAP = 2
_LEAST_NAME = 10


class Column(NamedTuple):
    """``width``: of its cells; bars fill it, text stands at the right unless said otherwise."""

    head: str
    width: int
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True)
class Section:
    """Rows under a head. The first cell of each is a name, the others belong to ``columns``.

    ``rank``: who gets room first where there is little. ``last``: its last row is shown whatever is left out.
    """

    head: str
    columns: Sequence[Column]
    rows: Sequence[tuple[RenderableType, ...]]
    rank: int
    last: bool = False


def bar_column(wide: bool) -> list[Column]:
    return [Column("", BAR)] * wide


def bars(share: float, wide: bool) -> list[RenderableType]:
    """The cell of a bar's column, where there is one."""
    made = ProgressBar(
        1.0, min(max(share, 0.0), 1.0), width=BAR, complete_style="cyan", finished_style="cyan"
    )
    return [made] * wide


def ends(left: Text, right: Text) -> Table:
    """One text at the left, one at the right; the left one gives way."""
    row = Table.grid(expand=True, padding=(0, 1, 0, 0))
    row.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    row.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    row.add_row(left, right)
    return row


def clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def stacked(head: Sequence[RenderableType], sections: Sequence[Section], size: ConsoleDimensions) -> Group:
    """The head, a line each, and below it what there is room for, a blank line before each section."""
    shown = [section for section in sections if section.rows]
    rows = _shared_out(shown, size.height - len(head))
    name_width = _name_width(shown, size.width)
    parts: list[RenderableType] = list(head[: size.height])
    for section, count in zip(shown, rows, strict=True):
        if count:
            parts += [Text(), _table(section, count, name_width)]
    return Group(*parts)


def _shared_out(sections: Sequence[Section], lines: int) -> list[int]:
    """How many rows each gets: one first, as far as that goes, and then as many as it has."""
    given = [0] * len(sections)
    order = sorted(range(len(sections)), key=lambda k: sections[k].rank)
    for k in order:
        if lines >= 3:  # a blank line, the head, a row
            given[k], lines = 1, lines - 3
    for k in order:
        if given[k]:
            more = min(len(sections[k].rows) - 1, lines)
            given[k], lines = given[k] + more, lines - more
    return given


def _name_width(sections: Sequence[Section], width: int) -> int:
    """As wide as the longest name, where the widest section leaves that much."""
    others = max((sum(_GAP + column.width for column in each.columns) for each in sections), default=0)
    names = [Text(str(row[0])).cell_len for each in sections for row in each.rows]
    longest = max([*names, *(len(each.head) for each in sections), _LEAST_NAME], default=0)
    return max(min(longest, width - others), 1)


def _table(section: Section, count: int, name_width: int) -> Table:
    made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    made.add_column(section.head, width=name_width, no_wrap=True, overflow="ellipsis")
    for column in section.columns:
        made.add_column(
            column.head, width=column.width, justify=column.side, no_wrap=True, overflow="ellipsis"
        )
    for row in _chosen(section, count):
        made.add_row(*row)
    return made


def _chosen(section: Section, count: int) -> list[tuple[RenderableType, ...]]:
    rows = list(section.rows)
    if count >= len(rows):
        return rows
    end = rows[-1:] if section.last else []
    begin = rows[: max(count - len(end) - 1, 0)]
    if count == len(end):
        return end
    if count == 1:
        return rows[:1]
    return [*begin, (Text(f"… {len(rows) - len(begin) - len(end)} more", style="dim"),), *end]
