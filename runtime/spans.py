"""What the marks of an answer say of devices and links: who was at work for it when, and what waited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from planner.fleet import Link
from planner.itinerary import Segment
from planner.plan import Plan

Work = Literal["stage", "encode", "decode", "wire"]


class Span(NamedTuple):
    """One piece of work for one request, in nanoseconds of the coordinator's clock.

    ``device`` did it; on the wire it is the sender, and ``link`` what was used. It could have begun at ``ready_ns``,
    and waited until ``begin_ns``. ``part``: the stage's place in the plan, else that of the hop.
    """

    work: Work
    part: int
    device: str
    link: Link | None
    ready_ns: int
    begin_ns: int
    end_ns: int


def spans(plan: Plan, segments: Sequence[Segment], aligned_marks: Sequence[int]) -> Iterator[Span]:
    """In the order of the path; the marks are those that ``runtime.segment`` describes, on one clock."""
    marks = iter(aligned_marks)
    hops = {hop.boundary: place for place, hop in enumerate(plan.hops)}
    sent: tuple[str, Link, int, int] | None = None  # by whom, over what, since when, when the link was free
    for segment in segments:
        device, done_ns = segment.device, next(marks)
        if sent:
            yield Span("wire", hops[segment.boundary], *sent, done_ns)
        if segment.decodes:
            begin_ns, end_ns = next(marks), next(marks)
            yield Span("decode", hops[segment.boundary], device, None, done_ns, begin_ns, end_ns)
            done_ns = end_ns
        for stage in segment.stages:
            begin_ns, end_ns = next(marks), next(marks)
            yield Span("stage", stage, device, None, done_ns, begin_ns, end_ns)
            done_ns = end_ns
        if segment.encodes:
            boundary = plan.stages[segment.stages[-1]].bundle.stop if segment.stages else segment.boundary
            begin_ns, end_ns = next(marks), next(marks)
            yield Span("encode", hops[boundary], device, None, done_ns, begin_ns, end_ns)
            done_ns = end_ns
        free_ns = next(marks)
        if segment.link:
            sent = device, segment.link, done_ns, free_ns
