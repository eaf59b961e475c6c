"""edgecut profile: measure every bundle on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.chain import ModelSource
from planner.plan import Variant
from planner.recipe import Calibration
from runtime.commands.options import FILE, FOLDER, model_options, parse_numbers, protocol_options
from runtime.commands.variants import variant_options

if TYPE_CHECKING:
    from planner.codec_table import CodecName
    from profiler.timing import Protocol


def check_frequency(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """all, max, or frequencies joined by commas; which of them there are, the device says later."""
    if value is not None:
        from profiler.clocks import parse

        parse(value)
    return value


def check_codecs(ctx: click.Context, option: click.Parameter, value: str) -> tuple[CodecName, ...]:
    """all, none, or codecs joined by commas."""
    from planner.codec_table import codecs_named

    return codecs_named(value)


@click.command()
@model_options
@click.option("--device", required=True, help="Name of the device this machine is, or stands for.")
@click.option("--fleet", type=FILE, help="Fleet file: the device's emulation is taken from it.")
@variant_options
@click.option(
    "--batch",
    "batches",
    callback=parse_numbers,
    default="1",
    show_default=True,
    help="Batch sizes, joined by commas.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Default: the device's, else one per processor."
)
@click.option(
    "--cpus",
    callback=parse_numbers,
    help="Processors to pin to, such as 0,1. Default: the device's, else all.",
)
@click.option(
    "--frequency",
    metavar="all|max|LIST",
    callback=check_frequency,
    help="Clocks to measure at, such as 800MHz,1.2GHz. Default: the clock as found.",
)
@click.option(
    "--meter",
    metavar="auto|NAME[:WHERE]",
    help="Meter the energy of each bundle; `edgecut doctor` lists the meters.",
)
@click.option(
    "--codecs",
    callback=check_codecs,
    default="all",
    show_default=True,
    metavar="all|none|LIST",
    help="Ways to pack what crosses a boundary (zstd, fp16, int8, int8-zstd), to measure beside the table.",
)
@protocol_options
@click.option("--samples", type=FOLDER, help="Stored feature maps.  [default: samples/MODEL]")
@click.option(
    "-o", "--output", type=FILE, help="Table to write or resume.  [default: profiles/MODEL-DEVICE.csv]"
)
def profile(
    source: ModelSource,
    device: str,
    fleet: Path | None,
    variants: tuple[Variant, ...],
    calibration: Calibration,
    batches: tuple[int, ...],
    threads: int | None,
    cpus: tuple[int, ...] | None,
    frequency: str | None,
    meter: str | None,
    codecs: tuple[CodecName, ...],
    protocol: Protocol,
    samples: Path | None,
    output: Path | None,
) -> None:
    """Measure every contiguous bundle of MODEL's layers from stored feature maps.

    Rows are on disk as soon as they are measured: stopped at any moment, the same command resumes.
    """
    from planner.fleet import Device
    from planner.fleet_file import load_fleet

    if output and output.suffix != ".csv":
        raise click.BadParameter(f"{str(output)!r} must end in .csv", param_hint="--output")
    if min(batches) < 1:
        raise click.BadParameter("a batch has at least 1 sample", param_hint="--batch")
    try:
        emulation = load_fleet(fleet).device(device).emulate if fleet else Device(device).emulate
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from None

    from profiler.drift import NOTABLE
    from profiler.placement import placement
    from profiler.request import ProfileRequest, Step
    from profiler.session import profile as run_profile
    from runtime.console import console
    from runtime.progress import progress_bar

    request = ProfileRequest(
        source=source,
        device=device,
        variants=variants,
        batches=batches,
        samples=samples or Path("samples") / source.label,
        output=output or Path("profiles") / f"{source.label}-{device}.csv",
        placement=placement(emulation, threads, cpus),
        protocol=protocol,
        calibration=calibration,
        frequency=frequency,
        meter=meter,
        codecs=codecs,
    )
    with progress_bar(f"{source.name} on {device}", 1.0) as advance:

        def show(step: Step) -> None:
            note = f"{step.bundle} {step.variant}" if step.bundle else ""
            advance(step.work / step.total, note)

        summary = run_profile(request, show)
    out = console()
    resumed = f", {summary.resumed} were there before" if summary.resumed else ""
    for variant, reason in summary.lacking.items():
        out.print(f"left out: {variant}: {reason}", style="yellow", soft_wrap=True)
    for entry in summary.left_out:
        out.print(
            f"left out: {entry.variant}, {entry.bundle}: {entry.reason}", style="yellow", soft_wrap=True
        )
    if summary.idle_power_w is not None:
        out.print(f"idle power {summary.idle_power_w:.3g} W (the fleet's idle_power_w)")
    if summary.unmetered:
        reason = next(iter(summary.unmetered.values()))
        out.print(
            f"{len(summary.unmetered)} bundles have no energy: {reason}", style="yellow", soft_wrap=True
        )
    for note in summary.notes:
        out.print(note, style="yellow", soft_wrap=True)
    if summary.unchanged_by_fusion:
        out.print(
            "--fuse changed nothing: no convolution is followed by a batch normalisation alone",
            style="yellow",
        )
    out.print(f"{device}: {summary.measured} bundles measured{resumed}", soft_wrap=True)
    if summary.measured:
        ratio = summary.wall_s / summary.timed_s
        out.print(
            f"{summary.wall_s:.1f} s, {summary.timed_s:.1f} s of them timed inference (ratio {ratio:.2f})"
        )
    if summary.unstable:
        named = ", ".join(f"{row.bundle} {row.variant}" for row in summary.unstable[:5])
        more = f" and {len(summary.unstable) - 5} more" if len(summary.unstable) > 5 else ""
        out.print(
            f"{len(summary.unstable)} bundles are not stable: their mean is not known to "
            f"{protocol.precision:.3g} of it after {protocol.max_runs} runs: {named}{more}",
            style="yellow",
            soft_wrap=True,
        )
    if summary.drift is not None and abs(summary.drift) > NOTABLE:
        how = "slower" if summary.drift > 0 else "faster"
        out.print(
            f"the machine drifted: the reference bundle became {abs(summary.drift):.0%} {how} during the session "
            "(heat, clock, or other work); rounds spread this over all bundles alike",
            style="yellow",
            soft_wrap=True,
        )
    out.print(f"wrote {request.output}", soft_wrap=True)
