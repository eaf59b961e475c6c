"""The links of a fleet as measured: a document with every sample, a CSV, and the fleet with their numbers."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from planner.documents import document, read_document, write_document, write_text
from planner.fleet import Fleet, Link
from planner.link_fit import ClockOffset, Exchanges, LinkFit, clock_offset, fit_link, one_way_s

SCHEMA = "edgecut.links/1"
COLUMNS = (
    *("source", "target", "latency_s", "bandwidth_bytes_per_s", "jitter_s", "clock_error_s"),
    *("nbytes", "n", "median_s", "p5_s", "p95_s", "fitted_s", "error"),
)


@document()
class MeasuredLink:
    """A directed link. ``nominal``: what the fleet said of it; an emulated link was paced to that.

    ``left_out``: sizes (bytes) that were asked for and take too long.
    """

    nominal: Link
    fit: LinkFit
    clock: ClockOffset
    exchanges: Exchanges
    left_out: tuple[int, ...] = ()

    @staticmethod
    def of(nominal: Link, exchanges: Exchanges, shared: bool, left_out: tuple[int, ...] = ()) -> MeasuredLink:
        """Fit what was exchanged. Raises ``PlanningError`` where it determines no fit."""
        clock = clock_offset(exchanges, shared)
        fit = fit_link(exchanges.nbytes, one_way_s(exchanges, clock))
        return MeasuredLink(nominal, fit, clock, exchanges, left_out)

    @property
    def link(self) -> Link:
        """The link with measured latency and bandwidth, and all else as it was."""
        return replace(
            self.nominal,
            latency_s=self.fit.latency_s,
            bandwidth_bytes_per_s=self.fit.bandwidth_bytes_per_s,
        )


@document()
class FailedLink:
    """A link that could not be measured, and why; ``exchanges`` where only the fit failed."""

    source: str
    target: str
    reason: str
    exchanges: Exchanges | None = None


@document()
class LinkReport:
    """One measurement of a fleet's links. ``started``: ISO 8601, UTC."""

    started: str
    links: tuple[MeasuredLink, ...]
    failed: tuple[FailedLink, ...] = ()

    def save(self, file: Path) -> None:
        write_document(self, file, SCHEMA)

    @staticmethod
    def load(file: Path) -> LinkReport:
        return read_document(LinkReport, file, SCHEMA)

    def save_csv(self, file: Path) -> None:
        """One row per link and size."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in self.links:
            fit = one.fit
            link = (*one.nominal.pair, fit.latency_s, fit.bandwidth_bytes_per_s, fit.jitter_s)
            for size in fit.sizes:
                times = size.median_s, size.p5_s, size.p95_s, fit.time_s(size.nbytes), size.error
                writer.writerow((*link, one.clock.error_s, size.nbytes, size.n, *times))
        write_text(file, text.getvalue())

    def applied(self, fleet: Fleet, emulated: bool = False) -> Fleet:
        """``fleet`` with the measured numbers of its links.

        An emulated link keeps its own, which are what it is paced to, unless ``emulated``.
        """
        found = {one.nominal.pair: one for one in self.links}
        links = []
        for link in fleet.links:
            one = found.get(link.pair)
            links.append(link if one is None or (link.emulate and not emulated) else one.link)
        return replace(fleet, links=tuple(links))
