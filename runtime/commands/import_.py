"""edgecut import: other tools' measurements as our tables and fleets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.commands.options import FILE, FOLDER, parse_names

if TYPE_CHECKING:
    from planner.imports.result import Import

_SHOWN = 5
_files = click.argument("files", type=FILE, nargs=-1, required=True)
_output = click.option(
    "-o", "--output", type=FOLDER, default=Path("profiles"), show_default=True, help="Folder for the tables."
)
_size = click.IntRange(min=1)


@click.group("import")
def import_() -> None:
    """Read other tools' measurements: tables and fleets in our formats, which `edgecut solve` takes.

    What a file leaves open (a unit, a size) is inferred or assumed, and said. Entries that cannot be used are
    counted and listed. SmartPower3 power logs belong to `edgecut energy`, MaseRT's TOML to --policy.
    """


def _sizes(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    parts = value.split(",") if value else []
    if not all(part.isdecimal() and len(part) < 16 for part in parts):
        raise click.BadParameter(f"{value!r}: expected whole numbers joined by commas")
    return tuple(map(int, parts))


@import_.command()
@_files
@click.option("--device", required=True, help="The device that these files are of.")
@click.option("--network", help="alexnet, vgg11 or vit_b_16.  [default: recognised by its bundles]")
@click.option("--layers", help="Another network's layers in running order, joined by commas.")
@click.option(
    "--boundary-bytes", callback=_sizes, help="Bytes of its input, between its layers, of its output."
)
@click.option(
    "--separator", type=click.Choice(["_", "__"]), default="_", show_default=True, help="Between its names."
)
@click.option("--unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Of durs.  [default: inferred]")
@click.option(
    "--frequency-mhz", type=click.FloatRange(10, 10_000), help="Clock, where neither column nor name has it."
)
@click.option(
    "--skip-iterations",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Warm-up to leave out.",
)
@_output
def dime(
    files: tuple[Path, ...],
    device: str,
    network: str | None,
    layers: str | None,
    boundary_bytes: tuple[int, ...],
    separator: str,
    unit: str | None,
    frequency_mhz: float | None,
    skip_iterations: int,
    output: Path,
) -> None:
    """DIME's timing CSVs and latency_and_energy.parquet, of one device.

    Several FILES are several clocks; a CSV's is the number that ends its name.
    """
    from planner.errors import InputError
    from planner.imports.dime import custom_network, find_network, read_dime
    from planner.imports.result import device_name

    if bool(layers) != bool(boundary_bytes):
        raise InputError("--layers and --boundary-bytes belong together", "pass both, or a known --network")
    known = find_network(network) if network and not layers else None
    if layers:
        known = custom_network(network or "network", layers.split(","), boundary_bytes, separator)
    clock = frequency_mhz * 1e6 if frequency_mhz else None
    found = read_dime(
        files,
        device_name(device),
        network=known,
        unit=unit,
        frequency_hz=clock,
        skip_iterations=skip_iterations,
    )
    _finish(found, output)


@import_.command()
@_files
@click.option("--model", help="Which of the models in the files.")
@click.option("--network", type=FILE, help="Ping and bandwidth between the machines: also write a fleet.")
@click.option("--input-bytes", type=_size, default=150_000, show_default=True, help="Size of the input.")
@click.option(
    "--sink", help="Where the result is wanted.  [default: the source, over links assumed as fast back]"
)
@_output
def scission(
    files: tuple[Path, ...],
    model: str | None,
    network: Path | None,
    input_bytes: int,
    sink: str | None,
    output: Path,
) -> None:
    """Scission's benchmarks: CSV, or TYPE-DEVICE.dat pickles, which are read without unpickling."""
    from planner.imports.result import device_name
    from planner.imports.scission import read_scission

    sink = device_name(sink) if sink else None
    _finish(read_scission(files, model=model, network=network, input_bytes=input_bytes, sink=sink), output)


@import_.command()
@click.argument("models", type=FILE)
@click.argument("device_types", type=FILE)
@click.argument("devices", type=FILE)
@click.option("--model", help="Which of the models in the files.")
@click.option("--dtype", default="torch.float32", show_default=True, help="Which profiles to read.")
@_output
def pipeedge(
    models: Path, device_types: Path, devices: Path, model: str | None, dtype: str, output: Path
) -> None:
    """PipeEdge's models.yml, device_types.yml and devices.yml."""
    from planner.imports.pipeedge import read_pipeedge

    _finish(read_pipeedge(models, device_types, devices, model=model, dtype=dtype), output)


@import_.command("dnn-partitioning")
@click.argument("file", type=FILE)
@click.option(
    "--unit",
    type=click.Choice(["s", "ms", "us", "ns"]),
    default="ms",
    show_default=True,
    help="Of latencies and costs.",
)
@click.option("--input-bytes", type=_size, help="Size of the input, which the file may not say.")
@click.option("--output-bytes", type=_size, help="Size of the output, which the file may not say.")
@click.option(
    "--max-tensors",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Most tensors that may cross where the graph is cut.",
)
@_output
def dnn_partitioning(
    file: Path, unit: str, input_bytes: int | None, output_bytes: int | None, max_tensors: int, output: Path
) -> None:
    """A JSON graph of msr-fiddle's dnn-partitioning, as a chain."""
    from planner.imports.partitioning import read_partitioning

    found = read_partitioning(
        file, unit=unit, input_bytes=input_bytes, output_bytes=output_bytes, max_tensors=max_tensors
    )
    _finish(found, output)


@import_.command()
@click.argument("file", type=FILE)
@click.option("--device", required=True, help="What the graph was profiled on.")
@click.option("--model", help="Name of the network.  [default: the file's folder]")
@_output
def pipedream(file: Path, device: str, model: str | None, output: Path) -> None:
    """A graph.txt of PipeDream's profiler, as a chain."""
    from planner.imports.partitioning import read_pipedream

    _finish(read_pipedream(file, device, model=model), output)


@import_.command()
@_files
@click.option(
    "-o", "--output", type=FILE, default=Path("masert.csv"), show_default=True, help="CSV to write, in SI."
)
def masert(files: tuple[Path, ...], output: Path) -> None:
    """Result JSON of MaseRT's runtime analysis: accuracy, latency, power and energy for a batch."""
    from planner.imports.masert import read_masert, write_results
    from runtime.console import console, millijoules, milliseconds, table

    results = [read_masert(file) for file in files]
    write_results(results, output)
    rows = [
        (each.name, "" if each.accuracy is None else f"{each.accuracy:.4f}", milliseconds(each.latency_s),
         f"{each.power_w:.2f}", millijoules(each.energy_j))
        for each in results
    ]  # fmt: skip
    out = console()
    out.print(
        table("MaseRT results, per batch", ("result", "accuracy", "latency ms", "power W", "energy mJ"), rows)
    )
    for each in results:
        if not each.consistent:
            out.print(
                f"note: {each.name}: energy is not power x latency within 5 %", style="yellow", soft_wrap=True
            )
    out.print(f"wrote {output}", soft_wrap=True)


@import_.command()
@click.argument("name")
@click.option(
    "--profiles",
    "tables",
    type=FILE,
    multiple=True,
    required=True,
    help="Profile tables, one of each device.",
)
@click.option("--fleet", "fleet_file", type=FILE, required=True, help="Devices and links.")
@click.option(
    "--on", "devices", required=True, callback=parse_names, help="A device for each stage, joined by commas."
)
@click.option(
    "-o", "--output", type=FILE, default=Path("plan.json"), show_default=True, help="Plan to write."
)
def preset(
    name: str, tables: tuple[Path, ...], fleet_file: Path, devices: tuple[str, ...], output: Path
) -> None:
    """A ready split (resnet50-2, resnet152-3), priced on your tables, with its gap to the optimum."""
    from planner.fleet_file import load_fleet
    from planner.imports.presets import preset_plan
    from planner.table import ProfileTable
    from runtime.commands.solve import check_output
    from runtime.console import console
    from runtime.plan_tables import show_plan

    check_output(output)
    plan = preset_plan(name, ProfileTable.load(tables), load_fleet(fleet_file), devices)
    plan.save(output)
    show_plan(plan)
    console().print(f"wrote {output}", soft_wrap=True)


def _finish(found: Import, folder: Path) -> None:
    """Write an import and say what it holds."""
    from planner.imports.result import save
    from runtime.console import console, table

    files = save(found, folder)
    rows = []
    for each in found.tables:
        clocks = {row.variant.frequency_hz for row in each.rows} - {None}
        metered = sum(row.energy_j is not None for row in each.rows)
        rows.append(
            (
                each.device,
                str(len(each.rows)),
                str(len(each.left_out)),
                str(len(clocks) or ""),
                str(metered or ""),
            )
        )
    out = console()
    title = f"{found.chain.source.name}: {len(found.chain)} layers, {found.used} entries used"
    out.print(table(title, ("device", "bundles", "not there", "clocks", "with energy"), rows))
    for note in found.notes:
        out.print(f"note: {note}", soft_wrap=True)
    if found.refused:
        out.print(f"{len(found.refused)} entries were not used:", style="yellow")
        for reason in found.refused[:_SHOWN]:
            out.print(f"  {reason}", style="yellow", soft_wrap=True)
        if len(found.refused) > _SHOWN:
            out.print(f"  ... and {len(found.refused) - _SHOWN} more", style="yellow")
    for file in files:
        out.print(f"wrote {file}", soft_wrap=True)
