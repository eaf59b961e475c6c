"""What coordinator and workers tell each other about a plan's segments, and the channels between them.

Orders are documents, checked on arrival like any other.
"""

from __future__ import annotations

from planner.chain import Boundary
from planner.codec_table import CodecName
from planner.documents import document
from planner.fleet import Link
from planner.plan import Variant


@document()
class StageOrder:
    """A bundle to load: a file written by the backend's ``save``, its SHA-256, and the clock it runs at."""

    file: str
    sha256: str
    backend: str
    inputs: Boundary
    outputs: Boundary
    frequency_hz: float | None = None

    @property
    def variant(self) -> Variant:
        """What decides the clock: the backend and the frequency."""
        return Variant(self.backend, frequency_hz=self.frequency_hz)


@document()
class SegmentOrder:
    """One segment: it receives on channel ``leg/PLACE`` the tensors at ``boundary``, in codec ``arrives``.

    ``decodes``: it unpacks them; ``encodes``: it packs what it sends, in this codec.
    """

    place: int
    boundary: int
    inputs: Boundary
    stages: tuple[StageOrder, ...]
    link: Link | None
    arrives: CodecName = "raw"
    decodes: bool = False
    encodes: CodecName | None = None


@document()
class WorkOrder:
    """All that a worker has to load. ``window``: requests in flight at most."""

    threads: int
    slowdown: float
    window: int
    segments: tuple[SegmentOrder, ...]


def leg(place: int) -> str:
    """The channel on which segment ``place`` receives."""
    return f"leg/{place}"


OUTPUT, STATUS = "output", "status"


def control(device: str) -> str:
    return f"control/{device}"
