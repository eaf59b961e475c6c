"""What the marks of an answer say: how long each stage, each hop and the whole took, and what waited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from planner.itinerary import Segment
from planner.plan import Plan
from planner.run_rows import Kind, RunRow
from runtime.clock_offset import Offset

PartKind = Literal["decode", "stage", "encode", "wire"]


def marks_of(segment: Segment) -> int:
    """How many marks a segment adds to a request (see ``runtime.segment``)."""
    return 3 + 2 * (segment.decodes + len(segment.stages) + segment.encodes)


def aligned(
    marks: Sequence[int], segments: Sequence[Segment], offsets: Mapping[str, Offset]
) -> tuple[int, ...]:
    """The marks, in nanoseconds of each device's clock, on the coordinator's."""
    parted = _parted(marks, segments)
    return tuple(offsets[device].here_ns(mark) for device, own in parted for mark in own)


def alignment_error_ns(
    marks: Sequence[int], segments: Sequence[Segment], offsets: Mapping[str, Offset]
) -> int:
    """How far a mark that ``aligned`` gives may be off, at most."""
    ends = [(offsets[device], own[0], own[-1]) for device, own in _parted(marks, segments)]
    return max(max(offset.bound_ns(first), offset.bound_ns(last)) for offset, first, last in ends)


def _parted(marks: Sequence[int], segments: Sequence[Segment]) -> Iterator[tuple[str, Sequence[int]]]:
    """Each segment's device and its own marks."""
    at = 0
    for segment in segments:
        yield segment.device, marks[at : at + marks_of(segment)]
        at += marks_of(segment)


@dataclass(frozen=True)
class Part:
    """What a request did in one place after another, and since when it waited for it.

    ``index`` is a stage's place in the plan, or a hop's. ``segment``: where; a ``wire`` is over its link. A hop
    over several links has a wire part for each, with ``arrived_ns``: before, it was sent and on its way; after,
    it was received.
    """

    kind: PartKind
    index: int
    segment: Segment
    begin_ns: int
    end_ns: int
    waits_ns: int
    arrived_ns: int = 0

    @property
    def measured_s(self) -> float:
        return _seconds(self.end_ns - self.begin_ns)

    @property
    def queue_s(self) -> float:
        return _seconds(self.begin_ns - self.waits_ns)


def passed(plan: Plan, segments: Sequence[Segment], aligned_marks: Sequence[int]) -> Iterator[Part]:
    """What the marks say a request did, in order.

    Along the path there are, per segment: when the frame had arrived; when its tensors were ready; begin and
    end of decoding, of each stage and of encoding; and when the outgoing link was free for them. Clocks of two
    hosts agree to within the error of their offset: a time on a link that comes out below 0 is 0.
    """
    marks = iter(aligned_marks)
    hops = {hop.boundary: place for place, hop in enumerate(plan.hops)}
    last: Segment | None = None
    done_ns = free_ns = 0
    for segment in segments:
        arrived_ns, ready_ns = next(marks), next(marks)
        if last:
            yield Part("wire", hops[segment.boundary], last, free_ns, ready_ns, done_ns, arrived_ns)
        done_ns = ready_ns
        works: list[tuple[PartKind, int]] = [("stage", stage) for stage in segment.stages]
        if segment.decodes:
            works.insert(0, ("decode", hops[segment.boundary]))
        if segment.encodes:
            leaves = plan.stages[segment.stages[-1]].bundle.stop if segment.stages else segment.boundary
            works.append(("encode", hops[leaves]))
        for kind, index in works:
            begin_ns, end_ns = next(marks), next(marks)
            yield Part(kind, index, segment, begin_ns, end_ns, done_ns)
            done_ns = end_ns
        free_ns, last = next(marks), segment


def measured_rows(
    plan: Plan, segments: Sequence[Segment], request: int, aligned_marks: Sequence[int], origin_ns: int = 0
) -> Iterator[RunRow]:
    """Rows of an answered request: its stages, its hops, and the total last.

    What a hop spends in its parts, of which there are several only with a codec, has a row of its own beside
    the hop's. Begins count from ``origin_ns``.
    """
    parts = list(passed(plan, segments, aligned_marks))

    def row(kind: Kind, index: int, forecast_s: float, own: Sequence[Part]) -> RunRow:
        measured_s = math.fsum(part.measured_s for part in own)
        queue_s = math.fsum(part.queue_s for part in own)
        begin_s = (own[0].begin_ns - origin_ns) / 1e9
        return RunRow(request, kind, index, forecast_s, measured_s, queue_s, begin_s=begin_s)

    busy = []
    for part in parts:
        if part.kind == "stage":
            busy.append(row("stage", part.index, plan.stages[part.index].cost.latency_s, [part]))
    yield from busy
    for place, hop in enumerate(plan.hops):
        own = [part for part in parts if part.kind != "stage" and part.index == place]
        busy.append(row("hop", place, hop.cost.latency_s, own))
        yield busy[-1]
        if hop.codec != "raw":
            forecasts: dict[Kind, float] = {
                "encode": hop.encode_s,
                "wire": hop.wire_s,
                "decode": hop.decode_s,
            }
            for kind, forecast_s in forecasts.items():
                yield row(kind, place, forecast_s, [part for part in own if part.kind == kind])
    # The last mark is when the answer could leave, which is at once.
    first_ns, done_ns = aligned_marks[1], parts[-1].end_ns
    total_s = _seconds(done_ns - first_ns)
    waited_s = max(total_s - sum(row.measured_s for row in busy), 0.0)
    begin_s = (first_ns - origin_ns) / 1e9
    yield RunRow(request, "total", 0, plan.cost.latency_s, total_s, waited_s, begin_s=begin_s)


def _seconds(nanoseconds: int) -> float:
    return max(nanoseconds, 0) / 1e9
