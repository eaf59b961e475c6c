"""What a plan must keep: budgets over all of it, per device, and on where layers may run."""

from __future__ import annotations

import math
import re
from dataclasses import field
from typing import Literal, NamedTuple

from planner.chain import Bundle
from planner.documents import document
from planner.errors import InputError

_BUDGETS = (
    "max_latency_s", "max_energy_j", "min_sqnr_db", "max_period_s", "max_price", "max_upload_bytes",
)  # fmt: skip
_PLACEMENT = re.compile(r"(?:\[(\d+),\s*(\d+)\)|(\d+)(?:-(\d+))?)=(.+)")


@document(order=True)
class Placement:
    """Layers and a device. ``whole``: the bundle itself as one stage, otherwise each of its layers."""

    device: str
    bundle: Bundle
    whole: bool = False

    @staticmethod
    def parse(text: str) -> Placement:
        """``3=edge`` (layer 3), ``3-6=edge`` (layers 3 to 6) or ``[3,7)=edge`` (that bundle as one stage)."""
        found = _PLACEMENT.fullmatch(text.strip())
        if not found:
            raise InputError(f"{text!r} places nothing", "write LAYER=DEVICE, 3-6=DEVICE or [3,7)=DEVICE")
        start, stop, first, last, device = found.groups()
        try:
            bundle = Bundle(int(start), int(stop)) if start else Bundle(int(first), int(last or first) + 1)
        except ValueError as error:
            raise InputError(f"{text!r}: {error}", "layers count from 0, the smaller first") from None
        return Placement(device, bundle, whole=start is not None)

    def __str__(self) -> str:
        start, stop = self.bundle.start, self.bundle.stop
        layers = str(start) if stop == start + 1 else f"{start}-{stop - 1}"
        return f"{f'[{start},{stop})' if self.whole else layers}={self.device}"


@document()
class Limits:
    """What a plan must keep; None and empty are no limit.

    ``max_period_s``: of the pipeline, the busiest device's or link's seconds per inference. ``min_sqnr_db``:
    what the errors of all stages and hops may come to, in dB below the signal. ``max_upload_bytes``: what the
    source sends. ``max_memory_bytes``: per device, over its stages (each its weights and activations) and its
    ``worker_memory_bytes``; where it names no device, the fleet's ``memory_bytes`` holds.
    ``max_share``: per device, the share of the plan's latency that it may be busy. ``max_bundles``: on one
    device. ``max_bundle_layers``: of one bundle; then bundles of one variant may follow each other.
    ``ceil_rule``: with ``max_bundle_layers`` M, a device that runs l layers runs at most ceil(l / M) bundles
    (DIME). ``once``: a device's stages follow each other. ``one_clock``: all stages of a device run at one
    clock. ``clocks_hz``: per device, the one it runs at. ``private_layers``: so many first layers run on the
    source. ``pins``, ``forbidden``: where layers must and must not run. ``without_devices``,
    ``without_links`` ("a->b"): neither computes nor relays.
    """

    max_latency_s: float | None = None
    max_energy_j: float | None = None
    min_sqnr_db: float | None = None
    max_period_s: float | None = None
    max_price: float | None = None
    max_upload_bytes: float | None = None
    max_memory_bytes: dict[str, float] = field(default_factory=dict)
    max_share: dict[str, float] = field(default_factory=dict)
    max_bundles: int | None = None
    max_bundle_layers: int | None = None
    ceil_rule: bool = False
    once: bool = False
    one_clock: bool = False
    clocks_hz: dict[str, float] = field(default_factory=dict)
    private_layers: int = 0
    pins: tuple[Placement, ...] = ()
    forbidden: tuple[Placement, ...] = ()
    without_devices: tuple[str, ...] = ()
    without_links: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _BUDGETS:
            value = getattr(self, name)
            least = 0 if name != "max_upload_bytes" and name != "max_price" else -1e-300
            if value is not None and not least < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, found {value}")
        for name in ("max_memory_bytes", "max_share", "clocks_hz"):
            for device, value in getattr(self, name).items():
                if not 0 < value < math.inf:
                    raise ValueError(f"{name} of {device} must be above 0 and finite, found {value}")
                if name == "max_share" and value > 1:
                    raise ValueError(f"max_share of {device} must be at most 1, found {value}")
        for name in ("max_bundles", "max_bundle_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if self.private_layers < 0:
            raise ValueError(f"private_layers must be at least 0, found {self.private_layers}")
        if self.ceil_rule and self.max_bundle_layers is None:
            raise ValueError("ceil_rule needs max_bundle_layers")
        for link in self.without_links:
            if len(link.split("->")) != 2:
                raise ValueError(f"without_links: {link!r} is no link, write a->b")


Criterion = Literal["latency", "energy", "noise", "price", "upload"]
CRITERIA: tuple[Criterion, ...] = ("latency", "energy", "noise", "price", "upload")
Objective = Literal["latency", "energy", "price", "period"]


class Unit(NamedTuple):
    """In what people count a criterion, and how much SI one of it is in theirs."""

    name: str
    per_si: float


UNITS: dict[Criterion, Unit] = {
    "latency": Unit("ms", 1e3),
    "energy": Unit("mJ", 1e3),
    "noise": Unit("noise", 1.0),
    "price": Unit("price", 1.0),
    "upload": Unit("MB", 1e-6),
}
