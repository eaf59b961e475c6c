"""A plan as the path its tensors take: segments on devices, joined by links.

::

    input ──► segment 0 ──link──► segment 1 ──link──► ... ──► segment m ──► output
              on the source       stages, or none             on the sink
                                  (then it only passes on)

A segment is what happens on one device between two links: it decodes what a hop brought, computes, and
encodes what the next hop takes on; where nothing is computed between two links, the tensors stay as they
came.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from planner.codec_table import CodecName
from planner.fleet import Link
from planner.plan import Plan


@dataclass(frozen=True)
class Segment:
    """Stages (places in ``Plan.stages``) that run on ``device`` one after the other.

    It receives the tensors at ``boundary`` in the codec ``arrives`` and passes its last stage's on over
    ``link`` (None: the last) in the codec ``leaves``.
    """

    device: str
    boundary: int
    stages: tuple[int, ...]
    link: Link | None
    arrives: CodecName = "raw"
    leaves: CodecName = "raw"

    @property
    def decodes(self) -> bool:
        return self.arrives != "raw" and (bool(self.stages) or self.leaves != self.arrives)

    @property
    def encodes(self) -> bool:
        return self.leaves != "raw" and (bool(self.stages) or self.leaves != self.arrives)


def itinerary(plan: Plan) -> tuple[Segment, ...]:
    """The plan's segments in running order; relays on a hop's route are segments without stages."""
    hops = {hop.boundary: hop for hop in plan.hops}
    segments = [Segment(plan.fleet.source, 0, (), None)]
    for place, stage in enumerate([*plan.stages, None]):
        boundary = stage.bundle.start if stage else len(plan.chain)
        if boundary in hops:
            codec = hops[boundary].codec
            for source, target in itertools.pairwise(hops[boundary].route):
                link = plan.fleet.link(source, target)
                segments[-1] = replace(segments[-1], link=link, leaves=codec)
                segments.append(Segment(target, boundary, (), None, arrives=codec))
        if stage:
            segments[-1] = replace(segments[-1], stages=(*segments[-1].stages, place))
    return tuple(segments)
