"""What a plan says of the requests it answers: where they pass, what each part is, and what it should take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.itinerary import itinerary
from planner.plan import Plan
from runtime.reports.trace_threads import Place
from runtime.timing import Part

Args = dict[str, Any]


def kind_of(part: Part) -> str:
    return "compute" if part.kind == "stage" else part.kind


class Planned:
    """A plan of the run: the path of its requests, and what is known of its parts beforehand."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.segments = plan, itinerary(plan)
        self._stages = [
            {"device": stage.device, "bundle": str(stage.bundle), "variant": str(stage.variant)}
            for stage in plan.stages
        ]
        self._hops = [
            {
                "boundary": hop.boundary,
                "route": " → ".join(hop.route),
                "bytes": hop.wire_bytes,
                "codec": hop.codec,
            }
            for hop in plan.hops
        ]
        self.forecast = list(self._expected())

    @property
    def places(self) -> Iterator[Place]:
        for segment in self.segments:
            yield Place.device(segment.device)
            if segment.link:
                yield Place.link(segment)

    def about(self, part: Part) -> Args:
        return self._stages[part.index] if part.kind == "stage" else self._hops[part.index]

    def _expected(self) -> Iterator[tuple[str, float, Args]]:
        """What a request should do, in order: name, seconds, details."""
        hops = {hop.boundary: place for place, hop in enumerate(self.plan.hops)}
        for place, boundary in enumerate(
            [*(stage.bundle.start for stage in self.plan.stages), len(self.plan.chain)]
        ):
            if boundary in hops:
                hop, about = self.plan.hops[hops[boundary]], self._hops[hops[boundary]]
                for name, seconds in (
                    ("encode", hop.encode_s),
                    ("wire", hop.wire_s),
                    ("decode", hop.decode_s),
                ):
                    if name == "wire" or hop.codec != "raw":
                        yield name, seconds, about
            if place < len(self.plan.stages):
                yield "compute", self.plan.stages[place].cost.latency_s, self._stages[place]
