"""What profiling is asked for, and what it tells: requests, keys, steps and summaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from planner.chain import Bundle, ModelSource
from planner.codec_table import CodecName
from planner.errors import InputError
from planner.plan import Variant
from planner.recipe import Calibration
from planner.sidecar import LeftOut
from planner.table import ProfileRow
from profiler import backends
from profiler.capability import obstacle
from profiler.placement import Placement, placement
from profiler.timing import Protocol


class Key(NamedTuple):
    """What one row measures on a device."""

    bundle: Bundle
    variant: Variant
    batch: int


@dataclass(frozen=True)
class Step:
    """A visit made, or (``row``) a bundle finished, or passed over (``bundle`` None).

    ``work`` and ``total`` share a unit that grows with the time bundles take. ``done``: bundles in the table or
    left out; ``left``: those still to be measured.
    """

    bundle: Bundle | None
    variant: Variant
    batch: int
    work: float
    total: float
    row: ProfileRow | None
    done: int
    left: int


Progress = Callable[[Step], None]


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure, on which device, from which samples, into which table.

    ``placement``: left out, all processors of this machine. ``frequency``: "all", "max" or a list, see
    ``profiler.clocks.choose``; None is the clock as found. ``meter``: see ``profiler.open_meter``; None meters
    nothing. ``codecs``: those to measure at every boundary. ``root``: the file system where clocks and meters are
    looked for.
    """

    source: ModelSource
    device: str
    variants: tuple[Variant, ...]
    batches: tuple[int, ...]
    samples: Path
    output: Path
    placement: Placement = field(default_factory=placement)
    protocol: Protocol = field(default_factory=Protocol)
    calibration: Calibration = field(default_factory=Calibration)
    frequency: str | None = None
    meter: str | None = None
    codecs: tuple[CodecName, ...] = ()
    root: Path = Path("/")


@dataclass
class ProfileSummary:
    """``measured`` bundles now, ``resumed`` from before; ``timed_s`` of ``wall_s`` was inference.

    ``lacking``: variants this machine cannot run at all, and why. ``left_out``: bundles that failed.
    ``unstable``: rows whose interval stayed wider than asked. ``drift``: relative change of the reference
    bundle over the session, None where it was seen too seldom. ``unchanged_by_fusion``: fusing was asked
    for, and this network has nothing to fuse. ``idle_power_w``: before the first bundle ran; None without a
    meter. ``unmetered``: rows without energy although a meter was asked for, and why. ``notes``: what the
    clocks have to say.
    """

    measured: int = 0
    resumed: int = 0
    timed_s: float = 0.0
    wall_s: float = 0.0
    lacking: dict[Variant, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    unstable: list[ProfileRow] = field(default_factory=list)
    drift: float | None = None
    unchanged_by_fusion: bool = False
    idle_power_w: float | None = None
    unmetered: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def usable(variants: Sequence[Variant], lacking: dict[Variant, str]) -> list[Variant]:
    """The variants this machine has; the others go to ``lacking``. Raises ``InputError`` if none is left."""
    usable = []
    for variant in variants:
        found = obstacle(variant.backend, variant.precision)
        if found is None:
            backends.find(variant.backend, variant.precision)
            usable.append(variant)
            continue
        lacking[variant] = f"{found.problem} (try: {found.remedy})"
        last = found
    if not usable:
        listed = "; ".join(f"{variant}: {reason}" for variant, reason in lacking.items())
        raise InputError(f"this machine can run none of the variants asked for: {listed}", last.remedy)
    return usable
