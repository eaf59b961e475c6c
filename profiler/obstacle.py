"""What keeps a network from being cut finer, by the operation that stands in the way."""

from __future__ import annotations

from profiler.capture import located
from profiler.cut import CutModel
from profiler.cuts import liveness, unfit

# Fewer operations between two cut points, or a smaller share of all, are not worth a word.
_FEW = 12
_SHARE = 1 / 3


def cut_obstacle(cut: CutModel) -> str | None:
    """Why the longest run of operations without a cut point has none; None where it is no large part."""
    calls, inputs, ends = cut.cuts.operations, cut.cuts.live[0], cut.cuts.live[-1]
    live = liveness(inputs, calls, ends)
    fit = [not any(unfit(node, cut.batch) for node in crossing) for crossing in live]
    limit = cut.chain.source.max_tensors
    points = [k + 1 for k in range(len(calls) - 1) if fit[k] and 0 < len(live[k]) <= limit]
    begin, end = max(
        zip([0, *points], [*points, len(calls)], strict=True), key=lambda span: span[1] - span[0]
    )
    if end - begin < max(_FEW, _SHARE * len(calls)):
        return None
    layer = next(name for name, stop in _stops(cut) if stop >= end)
    where = f"layer {layer} holds {end - begin} operations that no cut passes through"
    inner = range(begin, end - 1)
    counts = {k: len(live[k]) for k in inner if fit[k] and live[k]}
    if counts:
        fewest = min(counts.values())
        span = f"from {located(calls[begin])} to {located(calls[end - 1])}"
        return f"{where}: {fewest} or more tensors are live {span}; --max-tensors {fewest} would cut finer"
    node = next(node for node in live[begin] if unfit(node, cut.batch))
    return f"{where}: operation {located(node)} {unfit(node, cut.batch)}"


def _stops(cut: CutModel) -> list[tuple[str, int]]:
    """Each layer's name, and how many operations the network has up to its end."""
    stops, total = [], 0
    for layer, step in zip(cut.chain.layers, cut.cuts.steps, strict=True):
        total += len(step)
        stops.append((layer.name, total))
    return stops
