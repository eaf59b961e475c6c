"""What can be set on this machine, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from profiler.capability import gpu_obstacle, installed
from profiler.clocks.domain import Clock
from profiler.clocks.nvml import nvml_clock
from profiler.clocks.sysfs import boost, cpu_clock, jetson_gpu_clock

_ROOT = Path("/")


@dataclass(frozen=True)
class ClockState:
    """One clock of this machine. ``remedy``: what would let it be set; empty where it can be.

    ``frequencies_hz``: what is offered; where ``continuous``, anything between the ends too.
    """

    name: str
    settable: bool
    detail: str
    remedy: str = ""
    current_hz: float | None = None
    frequencies_hz: tuple[float, ...] = ()
    continuous: bool = False


def survey(root: Path = _ROOT) -> tuple[ClockState, ...]:
    """The processors' clocks, one for each cluster with limits of its own, and the GPU's. Changes nothing."""
    return (*_processors(root), _gpu(root))


def _processors(root: Path) -> list[ClockState]:
    clock = cpu_clock(root)
    if clock is None:
        detail = "the kernel offers no clock (cpufreq), as in most virtual machines"
        return [ClockState("cpu", False, detail, "use a machine of your own, or its firmware's settings")]
    alike: dict[tuple[object, ...], list[ClockState]] = {}
    for domain in clock.domains:
        state = _state("cpu", Clock("cpu", (domain,)), domain.where.rpartition("/")[2])
        alike.setdefault((state.frequencies_hz, state.remedy), []).append(state)
    states = []
    for group in alike.values():
        detail = group[0].detail
        if len(group) > 1:
            detail += (
                f" to {group[-1].detail.partition(':')[0]}"
                if ":" not in detail
                else f" (and {len(group) - 1} more)"
            )
        if switch := boost(root):
            detail += f"; boost is {switch}"
        states.append(
            ClockState(
                "cpu", group[0].settable, detail, group[0].remedy,
                max((each.current_hz for each in group if each.current_hz), default=None),
                group[0].frequencies_hz, group[0].continuous,
            )
        )  # fmt: skip
    return states


def _gpu(root: Path) -> ClockState:
    clock = jetson_gpu_clock(root) or nvml_clock(root)
    if clock:
        return _state("gpu", clock, clock.domains[0].where.rpartition("/")[2])
    if lacking := gpu_obstacle(root):
        return ClockState("gpu", False, lacking.problem, lacking.remedy)
    if not installed("pynvml"):
        return ClockState("gpu", False, "nvidia-ml-py is not installed", "pip install 'edgecut[energy]'")
    return ClockState("gpu", False, "the driver does not let its clock be set", "nvidia-smi")


def _state(name: str, clock: Clock, where: str) -> ClockState:
    found = clock.obstacle()
    return ClockState(
        name,
        found is None,
        f"{where}: {found.problem}" if found else where,
        found.remedy if found else "",
        clock.current_hz(),
        clock.frequencies_hz(),
        clock.continuous,
    )
