"""How chains, fleets, tables, plans and runs show themselves.

::

    str, repr     the headline: a line of text
    notebook      the headline, and a table or two: HTML without scripts and without colours, drawn in those of the
                  notebook, light or dark; whatever a file may have named is escaped

Every table is a pandas ``DataFrame`` in SI units, which its columns name.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from planner.plan import Hop, Stage

_MOST_ROWS = 60


class Displayed:
    """What shows itself by a headline and its tables. A dataclass that keeps this ``repr`` has none of its own."""

    __slots__ = ()

    def headline(self) -> str:
        """What it is, in one line."""
        raise NotImplementedError

    def frame(self) -> pd.DataFrame:
        raise NotImplementedError

    def _tables(self) -> Sequence[pd.DataFrame]:
        """What a notebook shows."""
        return (self.frame(),)

    def __str__(self) -> str:
        return self.headline()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.headline()}>"

    def _repr_html_(self) -> str:
        kind = type(self).__name__
        parts = [f"<p><strong>{kind}</strong> {html.escape(self.headline())}</p>"]
        parts += [_html(table) for table in self._tables() if len(table)]
        return f"<div>{''.join(parts)}</div>"


def _html(table: pd.DataFrame) -> str:
    shown = table.astype(object).where(table.notna(), "")  # or None would be spelled out
    text: str = shown.to_html(
        index=False,
        border=0,
        float_format="{:.4g}".format,
        max_rows=_MOST_ROWS,
        show_dimensions=len(table) > _MOST_ROWS,
    )
    return text


def table_of(rows: Iterable[Mapping[str, object]], columns: list[str] | None = None) -> pd.DataFrame:
    """A row for each of ``rows``; ``columns`` where there may be none."""
    import pandas as pd

    table: pd.DataFrame = pd.DataFrame(list(rows), columns=columns)
    return table


def frame_of(entries: Iterable[object], columns: Sequence[str]) -> pd.DataFrame:
    """A row for each entry, of its attributes."""
    return table_of([{name: getattr(entry, name) for name in columns} for entry in entries], list(columns))


def path_frame(stages: Sequence[Stage], hops: Sequence[Hop]) -> pd.DataFrame:
    """Stages and hops in running order, a row each.

    ``part``: "stage" or "hop"; ``where``: the device, or the route; ``start`` and ``stop``: the bundle's, for a hop
    both its boundary; ``how``: the variant, or the codec. Then ``wire_bytes`` (of hops), ``memory_bytes`` (of
    stages), ``latency_s``, of which ``encode_s`` and ``decode_s``, ``energy_j``, ``noise`` (its power over the
    signal's), ``price`` (in the fleet's currency), ``upload_bytes``.
    """
    rows: list[dict[str, Any]] = [
        {
            "part": "stage",
            "where": stage.device,
            "start": stage.bundle.start,
            "stop": stage.bundle.stop,
            "how": str(stage.variant),
            "wire_bytes": 0,
            "memory_bytes": stage.memory_bytes,
            "latency_s": stage.cost.latency_s,
            "encode_s": 0.0,
            "decode_s": 0.0,
            "energy_j": stage.cost.energy_j,
            "noise": stage.cost.noise,
            "price": stage.cost.price,
            "upload_bytes": stage.cost.upload_bytes,
        }
        for stage in stages
    ]
    rows += [
        {
            "part": "hop",
            "where": " → ".join(hop.route),
            "start": hop.boundary,
            "stop": hop.boundary,
            "how": hop.codec,
            "wire_bytes": hop.wire_bytes,
            "memory_bytes": 0.0,
            "latency_s": hop.cost.latency_s,
            "encode_s": hop.encode_s,
            "decode_s": hop.decode_s,
            "energy_j": hop.cost.energy_j,
            "noise": hop.cost.noise,
            "price": hop.cost.price,
            "upload_bytes": hop.cost.upload_bytes,
        }
        for hop in hops
    ]
    rows.sort(key=lambda row: (row["start"], row["stop"]))
    return table_of(rows)


def path_text(stages: Sequence[Stage], hops: Sequence[Hop]) -> str:
    """All of a plan in one cell: ``edge [0, 3) torch fp32 | 3: edge->server raw | server [3, 8) ...``."""
    parts = [
        (2 * stage.bundle.start + 1, f"{stage.device} {stage.bundle} {stage.variant}") for stage in stages
    ]
    parts += [(2 * hop.boundary, f"{hop.boundary}: {'->'.join(hop.route)} {hop.codec}") for hop in hops]
    return " | ".join(text for _, text in sorted(parts))
