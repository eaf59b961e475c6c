"""edgecut energy: logging power, and bringing it together with what was timed."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.errors import EnergyError
from runtime.commands.options import FILE, FOLDER

if TYPE_CHECKING:
    from rich.console import Console

    from profiler.energy.clocksync import AlignedPower
    from profiler.energy.dime import DimeMerged
    from profiler.energy.merge import Merged

_SOURCE = click.option(
    "--source", required=True, metavar="SPEC",
    help="smartpower3:/dev/ttyUSB0[,BAUD], smartpower3:udp:PORT, or a recording FILE.csv to play again.",
)  # fmt: skip


@click.group()
def energy() -> None:
    """Log power with a SmartPower3, here or on another host, and merge it into a profile table.

    Other meters (--meter of `edgecut profile`) fill the table's energy_j while it is measured.
    """


@energy.command()
@_SOURCE
@click.option("-o", "--output", type=FILE, required=True, help="CSV to write; it must not exist.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop by itself. Default: Ctrl-C."
)
def log(source: str, output: Path, seconds: float | None) -> None:
    """Log power into a CSV file until Ctrl-C. The file is whole up to its last row, whatever happens."""
    from profiler.energy.powerlog_server import Log
    from profiler.energy.sources import parse_source
    from runtime.console import console

    out = console()
    writing = Log(parse_source(source).open, output)
    try:
        out.print(f"logging into {output}", soft_wrap=True)
        with _until_stopped():
            writing.wait(seconds)
    finally:
        writing.close()
        out.print(writing.summary(), soft_wrap=True)
    if writing.failure:
        raise writing.failure


@energy.command()
@_SOURCE
@click.option("--directory", type=FOLDER, required=True, help="Where logs are written; nothing leaves it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="0: any free port."
)
@click.option(
    "--insecure", is_flag=True, help="Allow an address that other machines reach: nobody is asked who he is."
)
def serve(source: str, directory: Path, host: str, port: int, insecure: bool) -> None:
    """Log power when another host asks, in DIME's power-log protocol, until Ctrl-C."""
    from profiler.energy.powerlog_server import PowerlogServer
    from profiler.energy.sources import parse_source
    from runtime.console import console

    out = console()
    spec = parse_source(source)

    def said(text: str) -> None:
        out.print(text, soft_wrap=True)

    with PowerlogServer(directory, spec.open, host, port, insecure=insecure, said=said) as server:
        said(f"listening on {server.address[0]}:{server.address[1]}, logging {spec.place}")
        with _until_stopped():
            while True:
                time.sleep(1)


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Until Ctrl-C or SIGTERM, which are the way to end and no failure."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


@energy.command()
@click.argument("address", metavar="HOST:PORT")
@click.option(
    "--rounds", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Requests to make."
)
def offset(address: str, rounds: int) -> None:
    """Compare the clock of a logging host with this one's, for `energy merge --offset`."""
    from profiler.energy.powerlog import PowerlogClient, parse_address
    from runtime.console import console, milliseconds

    found = PowerlogClient(*parse_address(address)).offset(rounds)
    if found is None:
        raise EnergyError(f"{address} does not tell its time", "run `edgecut energy serve` there")
    said = (
        f"--offset {found.offset_s:.6f}  (± {milliseconds(found.error_s)} ms, half the quickest round trip)"
    )
    console().print(said, soft_wrap=True)


@energy.command()
@click.option(
    "--table", type=FILE, help="Profile table to fill, with its .json and .samples.jsonl beside it."
)
@click.option(
    "--timing", type=FILE, multiple=True, help="Or DIME's timing CSV. May be repeated, one a clock."
)
@click.option("--power", type=FILE, multiple=True, required=True, help="Power log (CSV). May be repeated.")
@click.option(
    "--channel",
    type=click.Choice(["0", "1", "input"]),
    default="0",
    show_default=True,
    help="What fed the device.",
)
@click.option(
    "--offset",
    type=float,
    default=0.0,
    metavar="S",
    help="Seconds to add to the power log's clock; see `energy offset`.",
)
@click.option(
    "--min-samples",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="A run with fewer samples of power is left empty.",
)
@click.option(
    "--frequency",
    type=click.IntRange(1),
    help="With --timing: the clock, where the file's name does not end in it.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    required=True,
    help="File to write: a table, or DIME's layout as .csv or .parquet.",
)
def merge(
    table: Path | None, timing: tuple[Path, ...], power: tuple[Path, ...], channel: str, offset: float,
    min_samples: int, frequency: int | None, output: Path,
) -> None:  # fmt: skip
    """Fill in the energy of each bundle from a power log, by when the bundle ran."""
    from profiler.energy.clocksync import AlignedPower
    from runtime.console import console

    if bool(table) == bool(timing):
        raise click.UsageError("pass either --table or --timing")
    if frequency and len(timing) != 1:
        raise click.UsageError("--frequency goes with one --timing")
    out = console()
    pieces = [piece for file in power for piece in _read_power(file, channel, out).pieces]
    aligned = AlignedPower(tuple(pieces)).shifted(offset)
    if table:
        from profiler.energy.merge import merge_table

        _say_merged(merge_table(table, aligned, output, min_samples), out)
    else:
        from profiler.energy.dime import frequency_in, merge_runs, read_runs, write_merged

        tables = []
        for file in timing:
            merged = merge_runs(*read_runs(file), aligned, min_samples)
            tables.append((frequency or frequency_in(file.name), merged))
            _say_dime(file, *tables[-1], out)
        write_merged(tables, output)
    out.print(str(output), soft_wrap=True)


def _read_power(file: Path, channel: str, out: Console) -> AlignedPower:
    from profiler.energy.clocksync import align
    from profiler.energy.log_file import read_log
    from profiler.energy.smartpower3 import describe
    from runtime.console import milliseconds

    read = read_log(file, channel)
    aligned = align(read)
    first, last = aligned.pieces[0], aligned.pieces[-1]
    span_s = last.trace.time_s[-1] - first.trace.time_s[0]
    out.print(
        f"{file}: {len(read)} samples every {milliseconds(first.period_s)} ms over {span_s:.1f} s, "
        f"meter's clock {first.fit.drift * 1e6:+.0f} ppm, aligned to {milliseconds(first.fit.error_s)} ms",
        soft_wrap=True,
    )
    jumps = len(aligned.pieces) - 1
    if jumps:
        out.print(f"  a clock jumped {jumps} times; runs across a jump are left out", soft_wrap=True)
    if read.faults:
        out.print(f"  left out: {describe(read.faults)}", soft_wrap=True)
    return aligned


def _say_merged(merged: Merged, out: Console) -> None:
    from profiler.energy.clocksync import Lack

    known = len(merged.rows) - len(merged.lacks)
    out.print(f"energy of {known} of {len(merged.rows)} rows, from {merged.used} of {merged.windows} visits")
    left: dict[str, list[str]] = defaultdict(list)
    for (bundle, variant, batch), lack in merged.lacks.items():
        reason = lack.value if lack else "the table does not tell when it ran"
        left[reason].append(f"{bundle} {variant}" + (f" batch {batch}" if batch > 1 else ""))
    for reason, names in left.items():
        out.print(f"  {len(names)} left empty, {reason}: {', '.join(names)}", soft_wrap=True)
    if Lack.SAMPLES in merged.lacks.values():
        out.print(
            "  let the meter log faster (5 ms is its least), or lower --min-samples and trust them less",
            soft_wrap=True,
        )


def _say_dime(file: Path, frequency: int, merged: DimeMerged, out: Console) -> None:
    known = sum(energy is not None for _, energy in merged.runs)
    out.print(f"{file}: energy of {known} of {len(merged.runs)} runs, frequency {frequency}", soft_wrap=True)
    for lack, count in merged.lacks.items():
        out.print(f"  {count} left empty: {lack.value}", soft_wrap=True)
    if merged.bad_rows:
        out.print(f"  {merged.bad_rows} rows cannot be read", soft_wrap=True)


@energy.command()
@click.option(
    "--meter",
    required=True,
    metavar="SPEC",
    help="auto, nvml, rapl, hwmon, jetson, smartpower3:PORT[,BAUD][@CHANNEL].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="How long to watch.",
)
def idle(meter: str, seconds: float) -> None:
    """Measure what this device draws while it does nothing, for idle_power_w of the fleet file."""
    from profiler.energy.meter import open_meter
    from profiler.energy.window import idle_power
    from runtime.console import console

    with open_meter(meter) as opened:
        power_w = idle_power(opened, seconds)
        console().print(f"idle_power_w = {power_w:.3f}   # {opened.domain}", soft_wrap=True)
