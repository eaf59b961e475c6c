"""Active profiling of a fleet from the command line: asks the devices, prints the rounds, notes the outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from planner.active import active_profile
from planner.active_note import ActiveNote, ActiveObjective
from planner.active_paths import Request
from planner.active_result import ActiveResult, Progress
from planner.active_state import Found
from planner.chain import Bundle, Chain
from planner.codec_table import CodecRow
from planner.cost import Way
from planner.errors import DeploymentError, UnknownNameError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.plan import Variant
from planner.sidecar import LeftOut, Sidecar
from planner.table import ProfileRow
from runtime.console import console, millijoules, milliseconds

# Measures bundles of one device, and has them on disk before it yields them.
DeviceMeasure = Callable[[Sequence[tuple[Variant, Bundle]]], Iterable[ProfileRow | LeftOut]]


def run_active(
    chain: Chain,
    fleet: Fleet,
    ways: Sequence[Way],
    devices: Mapping[str, DeviceMeasure],
    *,
    objective: ActiveObjective = "latency",
    limits: Limits | None = None,
    batch: int = 1,
    gap: float = 0.0,
    verify: int = 0,
    seed: int = 0,
    known: Iterable[ProfileRow] = (),
    codecs: Iterable[CodecRow] = (),
    side_by_side: bool = False,
) -> ActiveResult:
    """Profile actively, and print each round and what came of it.

    ``devices`` measures by device; one that raises a ``DeploymentError`` is done without from then on.
    ``side_by_side``: ask all devices at once; only right where each is a machine of its own.
    Raises what `planner.active.active_profile` raises, and any other error of a device.
    """
    for way in ways:
        if way.device not in devices:
            raise UnknownNameError("device to measure on", way.device, devices)
    limits = limits or Limits()
    result = active_profile(
        chain,
        fleet,
        ways,
        asking(devices, side_by_side),
        objective=objective,
        limits=limits,
        batch=batch,
        gap=gap,
        verify=verify,
        seed=seed,
        known=known,
        codecs=codecs,
        progress=lambda progress: _show_round(progress, objective),
    )
    return result


def asking(
    devices: Mapping[str, DeviceMeasure], side_by_side: bool = False
) -> Callable[[Sequence[Request]], Iterator[Found]]:
    """One measure function out of one for each device."""

    def ask(device: str, wanted: list[tuple[Variant, Bundle]]) -> list[Found]:
        found: list[Found] = []
        try:
            for each in devices[device](wanted):
                found.append((device, each))
        except DeploymentError as error:
            found.append((device, error))
        return found

    def measure(requests: Sequence[Request]) -> Iterator[Found]:
        wanted: dict[str, list[tuple[Variant, Bundle]]] = {}
        for way, bundle in requests:
            wanted.setdefault(way.device, []).append((way.variant, bundle))
        if not side_by_side:  # in this thread: placement on processors belongs to it
            for device, those in wanted.items():
                yield from ask(device, those)
            return
        with ThreadPoolExecutor(len(wanted)) as pool:
            for answer in as_completed([pool.submit(ask, *each) for each in wanted.items()]):
                yield from answer.result()

    return measure


def annotate(table: Path, note: ActiveNote) -> None:
    """Write into a table's sidecar why bundles are missing. No profile may have the table open."""
    file = table.with_suffix(".json")
    replace(Sidecar.load(file), active=note).save(file)


def _shown(value: float, objective: ActiveObjective) -> str:
    if objective == "front" or not math.isfinite(value):
        return "-"
    return f"{milliseconds(value)} ms" if objective == "latency" else f"{millijoules(value)} mJ"


def _show_round(progress: Progress, objective: ActiveObjective) -> None:
    share = progress.measured / progress.total
    known = ""
    if math.isfinite(progress.value) and objective != "front":
        best, bound = _shown(progress.value, objective), _shown(progress.bound, objective)
        known = f"; best plan {best}, none below {bound}"
    console().print(
        f"round {progress.round} ({progress.doing}): {progress.measured} of {progress.total} bundles "
        f"measured ({share:.1%}){known}",
        soft_wrap=True,
    )


def show_result(result: ActiveResult, objective: ActiveObjective) -> None:
    """What was skipped, why, and what the answer rests on."""
    out = console()
    measured = result.total - sum(result.skipped.values())
    out.print(
        f"measured {measured} of {result.total} bundles ({result.share:.1%}) in {result.rounds} rounds",
        soft_wrap=True,
    )
    for reason, count in result.skipped.items():
        out.print(f"skipped {count}: {reason}", soft_wrap=True)
    if objective == "front":
        out.print(f"{len(result.front)} plans on the latency-energy front")
    elif math.isfinite(result.value):
        best = _shown(result.value, objective)
        out.print(f"least {objective}: {best}, gap {result.gap:.2g}", soft_wrap=True)
    if result.verified:
        worst = f", the worst by {result.worst_violation:.1%}" if result.violated else ""
        out.print(
            f"verified {result.verified} skipped bundles: {result.violated} took less than their bound{worst}",
            soft_wrap=True,
        )
    style = None if result.outcome in ("proven", "calibrated") else "yellow"
    out.print(f"{result.outcome}: {result.assumption}", style=style, soft_wrap=True)
