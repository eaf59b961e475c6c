"""What a profile has to say beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator

from profiler.drift import NOTABLE
from profiler.request import ProfileSummary
from profiler.timing import Protocol


def summary_notes(summary: ProfileSummary, protocol: Protocol) -> Iterator[str]:
    """A sentence for each thing that a reader of the table should know."""
    for variant, reason in summary.lacking.items():
        yield f"left out: {variant}: {reason}"
    for entry in summary.left_out:
        yield f"left out: {entry.variant}, {entry.bundle}: {entry.reason}"
    yield from summary.notes
    if summary.unmetered:
        yield f"{len(summary.unmetered)} bundles have no energy, the first is {summary.unmetered[0]}"
    if summary.unchanged_by_fusion:
        yield "--fuse changed nothing: no convolution is followed by a batch normalisation alone"
    if summary.unstable:
        named = ", ".join(f"{row.bundle} {row.variant}" for row in summary.unstable[:5])
        more = f" and {len(summary.unstable) - 5} more" if len(summary.unstable) > 5 else ""
        yield (
            f"{len(summary.unstable)} bundles are not stable: their mean is not known to "
            f"{protocol.precision:.3g} of it after {protocol.max_runs} runs: {named}{more}"
        )
    if summary.drift is not None and abs(summary.drift) > NOTABLE:
        how = "slower" if summary.drift > 0 else "faster"
        yield (
            f"the machine drifted: the reference bundle became {abs(summary.drift):.0%} {how} during the session "
            "(heat, clock, or other work); rounds spread this over all bundles alike"
        )
