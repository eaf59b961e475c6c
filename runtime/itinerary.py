"""What a coordinator and the agents tell each other about a plan's segments, and the channels between them.

Orders are documents, checked on arrival like any other.
"""

from __future__ import annotations

import re

from planner.chain import Boundary
from planner.codec_table import CodecName
from planner.documents import document
from planner.fleet import Link
from planner.plan import Variant

LOAD, RUN, UNLOAD, CLOCK = "load", "run", "unload", "clock"
_ID, _DIGEST = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}")


@document()
class StageOrder:
    """A bundle to load: the SHA-256 of a file that the backend's ``save`` wrote, and the clock it runs at.

    ``memory_bytes``: what it takes, as it was profiled.
    """

    sha256: str
    backend: str
    inputs: Boundary
    outputs: Boundary
    frequency_hz: float | None = None
    memory_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256 has 64 hexadecimal digits")

    @property
    def variant(self) -> Variant:
        """What decides the clock: the backend and the frequency."""
        return Variant(self.backend, frequency_hz=self.frequency_hz)


@document()
class SegmentOrder:
    """One segment: it receives on channel ``leg/DEVICE/ID/PLACE`` the tensors at ``boundary``, in codec ``arrives``.

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
    """All that a device has to load of one installation of a plan.

    ``threads`` per bundle, None for all that the device has. ``window``: requests in flight at most.
    """

    installation: str
    threads: int | None
    slowdown: float
    window: int
    segments: tuple[SegmentOrder, ...]

    def __post_init__(self) -> None:
        check_installation(self.installation)
        if not 1 <= self.window <= MAX_WINDOW:
            raise ValueError(f"window must be 1 to {MAX_WINDOW}, found {self.window}")
        if not 1 <= self.slowdown <= MAX_SLOWDOWN:
            raise ValueError(f"slowdown must be 1 to {MAX_SLOWDOWN:g}, found {self.slowdown:g}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, found {self.threads}")
        if not self.segments:
            raise ValueError("a device has at least one segment")


@document()
class Which:
    """The installation that an order is about."""

    installation: str

    def __post_init__(self) -> None:
        check_installation(self.installation)


@document()
class Stamp:
    """What a host's monotonic clock shows, and the name by which processes know that they share it."""

    name: str
    stamp_ns: int


MAX_WINDOW = 1024
MAX_SLOWDOWN = 1e6


def check_installation(text: str) -> None:
    if not _ID.fullmatch(text):
        raise ValueError(f"an installation has 16 hexadecimal digits, found {text[:40]!r}")


def leg(device: str, installation: str, place: int) -> str:
    """The channel on which segment ``place`` receives, on ``device``: nobody else may (``runtime.access``)."""
    return f"leg/{device}/{installation}/{place}"


def output(installation: str) -> str:
    """The channel on which the coordinator receives answers."""
    return f"output/{installation}"
