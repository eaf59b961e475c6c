"""edgecut profile: measure every bundle on this device, or on all devices of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.chain import ModelSource
from planner.plan import Variant
from planner.recipe import Calibration
from runtime.commands.options import (
    FILE,
    FOLDER,
    discover_option,
    model_options,
    parse_names,
    parse_numbers,
    protocol_options,
    security_options,
)
from runtime.commands.profile_fleet import ActiveOptions, active_options
from runtime.commands.variants import variant_options

if TYPE_CHECKING:
    from planner.codec_table import CodecName
    from profiler.timing import Protocol
    from runtime.security import Security


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
@click.option(
    "--device", help="Name of the device this machine is, or stands for.  [default: all of --fleet]"
)
@click.option("--fleet", type=FILE, help="Fleet file: the devices, their addresses and emulation.")
@click.option("--devices", callback=parse_names, help="Without --device: only these, joined by commas.")
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
@active_options
@discover_option
@security_options
@click.option("--samples", type=FOLDER, help="Stored feature maps.  [default: samples/MODEL]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Table to write or resume; without --device the folder of the tables.  "
    "[default: profiles/MODEL-DEVICE.csv]",
)
def profile(
    source: ModelSource,
    device: str | None,
    fleet: Path | None,
    devices: tuple[str, ...],
    variants: tuple[Variant, ...],
    calibration: Calibration,
    batches: tuple[int, ...],
    threads: int | None,
    cpus: tuple[int, ...] | None,
    frequency: str | None,
    meter: str | None,
    codecs: tuple[CodecName, ...],
    protocol: Protocol,
    active: ActiveOptions | None,
    discover_s: float,
    security: Security,
    samples: Path | None,
    output: Path | None,
) -> None:
    """Measure every contiguous bundle of MODEL's layers from stored feature maps.

    Rows are on disk as soon as they are measured: stopped at any moment, the same command resumes. Without
    --device, the agents of all devices in --fleet measure, side by side, and their tables are gathered
    here. With --strategy active they measure only what an optimal plan could use.
    """
    from planner.fleet import Device
    from planner.fleet_file import load_fleet

    if device and devices:
        raise click.UsageError("pass --device (this machine) or --devices (their agents), not both")
    if not device and not fleet:
        raise click.UsageError("pass --device NAME to profile this machine, or --fleet FILE for its devices")
    if device and active:
        raise click.UsageError("--strategy active plans for a whole fleet: pass --fleet, and no --device")
    if not device and (threads or cpus):
        raise click.UsageError("--threads and --cpus belong to one --device; write them in the fleet file")
    if device and (security.credentials or security.insecure):
        raise click.UsageError("--keys and --insecure reach agents; --device measures on this machine")
    if device and output and output.suffix != ".csv":
        raise click.BadParameter(f"{str(output)!r} must end in .csv", param_hint="--output")
    if min(batches) < 1:
        raise click.BadParameter("a batch has at least 1 sample", param_hint="--batch")
    machines = load_fleet(fleet) if fleet else None
    try:
        here = None
        if device:
            here = machines.device(device) if machines else Device(device)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--device") from None

    from profiler.placement import placement
    from profiler.request import ProfileRequest
    from profiler.session import profile as run_profile
    from runtime.commands.profile_fleet import profile_devices, profile_devices_actively
    from runtime.commands.profile_notes import summary_notes
    from runtime.console import console
    from runtime.live import watched
    from runtime.live_profile import ProfileView
    from runtime.profile_progress import Progressing

    request = ProfileRequest(
        source=source,
        device=device or "",
        variants=variants,
        batches=batches,
        samples=samples or Path("samples") / source.label,
        output=output or Path("profiles") / (f"{source.label}-{device}.csv" if device else ""),
        placement=placement(here.emulate if here else None, threads, cpus),
        protocol=protocol,
        calibration=calibration,
        frequency=frequency,
        meter=meter,
        codecs=codecs,
    )
    if machines and not device:
        from runtime.discovery import located

        names = devices or tuple(each.name for each in machines.devices)
        machines = located(machines, names, discover_s, security)
        if active:
            profile_devices_actively(request, machines, names, active, security)
        else:
            profile_devices(request, machines, names, security)
        return
    view, steps = ProfileView(f"profile of {source.name}", [request.device]), Progressing()
    with watched(view):
        summary = run_profile(request, lambda step: view.tell(request.device, steps.after(step)))
    out = console()
    resumed = f", {summary.resumed} were there before" if summary.resumed else ""
    for note in summary_notes(summary, protocol):
        out.print(note, style="yellow", soft_wrap=True)
    out.print(f"{device}: {summary.measured} bundles measured{resumed}", soft_wrap=True)
    if summary.measured:
        ratio = summary.wall_s / summary.timed_s
        out.print(
            f"{summary.wall_s:.1f} s, {summary.timed_s:.1f} s of them timed inference (ratio {ratio:.2f})"
        )
    if summary.idle_power_w is not None:
        out.print(f"idle power {summary.idle_power_w:.3g} W (the fleet's idle_power_w)")
    out.print(f"wrote {request.output}", soft_wrap=True)
