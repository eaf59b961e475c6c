"""What a deployment is doing at one moment: figures for people and for those who scrape metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from planner.plan import Plan


class Part(NamedTuple):
    """A stage or a hop, the same in every plan that has it. ``where``: the device, or the route.

    ``what``: the bundle, or the boundary; ``how``: the variant, or the codec.
    """

    kind: Literal["stage", "hop"]
    where: str
    what: str
    how: str

    @property
    def label(self) -> str:
        return f"{self.where} {self.what}" if self.kind == "stage" else f"hop {self.where}"


@dataclass(frozen=True)
class DeviceState:
    """``busy``: share of the time; ``queue``: requests that wait for it, on average; ``power_w``: None if unknown."""

    name: str
    busy: float
    queue: float
    requests_per_s: float
    power_w: float | None


@dataclass(frozen=True)
class LinkState:
    """``use``: share of the bandwidth that the fleet gives it; ``queue``: requests that wait for it, on average."""

    source: str
    target: str
    bytes_per_s: float
    use: float
    queue: float


@dataclass(frozen=True)
class PartState:
    """``measured_s``: the median so far, None before the first answer."""

    label: str
    forecast_s: float
    measured_s: float | None

    @property
    def error(self) -> float | None:
        """Measured over forecast, less one."""
        return (
            self.measured_s / self.forecast_s - 1 if self.measured_s is not None and self.forecast_s else None
        )


@dataclass(frozen=True)
class State:
    """All at one moment. ``devices`` and ``links``: those of the present plan first, then those of plans before it.

    ``answered`` counts from the run's start; ``total`` is None where nobody knows. Latency is from input to output,
    all waiting included. ``parts``: the present plan's stages and hops in running order, and the total last; with
    several requests in flight without what waited, which no plan forecasts.
    """

    doing: str
    elapsed_s: float
    answered: int
    total: int | None
    refused: int
    failed: int
    in_flight: int
    requests_per_s: float
    median_s: float | None
    p95_s: float | None
    devices: tuple[DeviceState, ...]
    links: tuple[LinkState, ...]
    parts: tuple[PartState, ...]
    switches: int


def parts_of(plan: Plan) -> list[tuple[Part, float]]:
    """A plan's stages, then its hops, in their order there, each with the seconds it is forecast to take."""
    stages = [
        (Part("stage", each.device, str(each.bundle), str(each.variant)), each.cost.latency_s)
        for each in plan.stages
    ]
    hops = [
        (Part("hop", " → ".join(each.route), str(each.boundary), each.codec), each.cost.latency_s)
        for each in plan.hops
    ]
    return stages + hops
