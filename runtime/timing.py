"""What the marks of an answer say: how long each stage, each hop and the whole took, and what waited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from planner.itinerary import Segment
from planner.plan import Plan
from planner.run import Kind, RunRow
from runtime.clock_offset import Offset

_HOP_PARTS: tuple[Kind, ...] = ("encode", "wire", "decode")


def marks_of(segment: Segment) -> int:
    """How many marks a segment adds to a request (see ``runtime.segment``)."""
    return 2 + 2 * (segment.decodes + len(segment.stages) + segment.encodes)


def aligned(
    marks: Sequence[int], segments: Sequence[Segment], offsets: Mapping[str, Offset]
) -> tuple[int, ...]:
    """The marks, in nanoseconds of each device's clock, on the coordinator's."""
    found: list[int] = []
    for segment in segments:
        offset = offsets[segment.device]
        own = marks[len(found) : len(found) + marks_of(segment)]
        found += map(offset.here_ns, own)
    return tuple(found)


def measured_rows(
    plan: Plan, segments: Sequence[Segment], request: int, aligned_marks: Sequence[int]
) -> Iterator[RunRow]:
    """Rows of an answered request: its stages, its hops, and the total last.

    Along the path there are, per segment: when the tensors were ready; begin and end of decoding, of each
    stage and of encoding; and when the outgoing link was free for them. What a hop spends in its parts, of
    which there are several only with a codec, has a row of its own beside the hop's. Clocks of two hosts
    agree to within the error of their offset: a time on a link that comes out below 0 is 0.
    """
    marks = iter(aligned_marks)
    hops = {hop.boundary: place for place, hop in enumerate(plan.hops)}
    spent = [dict.fromkeys(_HOP_PARTS, 0.0) for _ in plan.hops]
    queued = [dict.fromkeys(_HOP_PARTS, 0.0) for _ in plan.hops]

    first_ns = done_ns = free_ns = 0
    busy_s = 0.0

    def coding(part: Kind, boundary: int) -> None:
        nonlocal done_ns
        begin_ns, end_ns = next(marks), next(marks)
        spent[hops[boundary]][part] += _seconds(end_ns - begin_ns)
        queued[hops[boundary]][part] += _seconds(begin_ns - done_ns)
        done_ns = end_ns

    for place, segment in enumerate(segments):
        ready_ns = next(marks)
        if place == 0:
            first_ns = ready_ns
        else:
            hop = hops[segment.boundary]
            spent[hop]["wire"] += _seconds(ready_ns - free_ns)
            queued[hop]["wire"] += _seconds(free_ns - done_ns)
        done_ns = ready_ns
        if segment.decodes:
            coding("decode", segment.boundary)
        for stage in segment.stages:
            begin_ns, end_ns = next(marks), next(marks)
            forecast_s = plan.stages[stage].cost.latency_s
            measured_s, queue_s = _seconds(end_ns - begin_ns), _seconds(begin_ns - done_ns)
            yield RunRow(request, "stage", stage, forecast_s, measured_s, queue_s)
            busy_s += measured_s
            done_ns = end_ns
        if segment.encodes:
            last = plan.stages[segment.stages[-1]].bundle.stop if segment.stages else segment.boundary
            coding("encode", last)
        free_ns = next(marks)
    for place, part in enumerate(plan.hops):
        took_s, waited_s = math.fsum(spent[place].values()), math.fsum(queued[place].values())
        yield RunRow(request, "hop", place, part.cost.latency_s, took_s, waited_s)
        busy_s += took_s
        if part.codec != "raw":
            for kind, forecast_s in zip(_HOP_PARTS, (part.encode_s, part.wire_s, part.decode_s), strict=True):
                yield RunRow(request, kind, place, forecast_s, spent[place][kind], queued[place][kind])
    total_s = _seconds(done_ns - first_ns)
    yield RunRow(request, "total", 0, plan.cost.latency_s, total_s, max(total_s - busy_s, 0.0))


def _seconds(nanoseconds: int) -> float:
    return max(nanoseconds, 0) / 1e9
