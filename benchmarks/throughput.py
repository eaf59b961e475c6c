"""Plans of least period: python benchmarks/throughput.py [SHARED_DATA]

First table: synthetic tables of 200 layers on 8 distinct devices with 12 variants each, in memory, and fleets of
equal hosts; seconds from the cost model to the proven plan, each device once, of the clock and of the processor,
and with the plans somebody would try by hand. Second table: others' own data, others' best values beside ours.
PipeEdge's is the longest stage or link of its published schedule. That of dnn-partitioning charges an accelerator for
what it computes, takes in and gives out, so here that is what a bundle takes, and links take nothing; ours, with
links that work while devices compute, is below it.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from instances import instance

from planner.baselines import baselines
from planner.chain import Chain
from planner.cost import CostModel
from planner.fleet import Device, Fleet, Link
from planner.imports.partitioning import read_partitioning
from planner.imports.pipeedge import read_pipeedge
from planner.limits import Limits
from planner.solver import NO_LIMITS, solve
from planner.table import ProfileRow, ProfileTable
from planner.throughput import least_period_plan

SEEDS = 20
ACCELERATORS, ACCELERATOR_BYTES = 6, 17185374208  # maxFPGAs, maxSizePerFPGA of both files


def main() -> None:
    show("layers", "devices", "limits", "proven", "median s", "worst s", "worst CPU s", "with baselines")
    for layers, devices in ((64, 8), (200, 8), (200, 10)):
        timed(layers, devices, "none", NO_LIMITS)
    for layers, kinds, each in ((48, 2, 4), (48, 2, 32), (200, 2, 32)):
        equal_hosts(layers, kinds, each)
    beside = Path(__file__).parent.parent.parent / "shared" / "data"
    shared = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EDGECUT_SHARED_DATA", beside))
    if not shared.is_dir():
        print(f"others' files are not in {shared}")
        return
    print()
    show("network", "theirs", "ours", "outcome", "stages", "s")
    pipeedge(shared / "pipeedge")
    for name, best in (("bert24", 17.7899), ("resnet50", 33.7747)):
        partitioning(shared / "msr" / f"{name}_inference.json", best)


def timed(layers: int, devices: int, label: str, limits: Limits) -> None:
    seconds, computing, in_all, proven = [], [], [], 0
    for seed in range(SEEDS):
        model = instance(layers, devices, 12, seed)
        begun, worked = time.perf_counter(), time.process_time()
        proof = least_period_plan(model, limits).proof(model, "mean")
        seconds.append(time.perf_counter() - begun)
        computing.append(time.process_time() - worked)
        baselines(model, {})
        in_all.append(time.perf_counter() - begun)
        proven += proof.outcome.value == "optimal" and proof.gap < 1e-9
    row = (statistics.median(seconds), max(seconds), max(computing), max(in_all))
    show(str(layers), f"{devices} distinct", label, f"{proven} of {SEEDS}", *(f"{each:.2f}" for each in row))


def equal_hosts(layers: int, kinds: int, each: int) -> None:
    """Fleets of so many hosts of each kind, all of them linked alike."""
    model = multiplied(instance(layers, kinds, 4, 0), each)
    begun, worked = time.perf_counter(), time.process_time()
    proof = least_period_plan(model, NO_LIMITS).proof(model, "mean")
    seconds, computing = time.perf_counter() - begun, time.process_time() - worked
    show(
        str(layers),
        f"{kinds} x {each}",
        "none",
        proof.outcome.value,
        "",
        f"{seconds:.2f}",
        f"{computing:.2f}",
    )


def multiplied(model: CostModel, count: int) -> CostModel:
    """The model with ``count`` devices like each of its own."""
    own = model.fleet.devices
    names = {device.name: [device.name, *(f"{device.name}-{k}" for k in range(1, count))] for device in own}
    devices = tuple(replace(device, name=name) for device in own for name in names[device.name])
    links = tuple(Link(a.name, b.name, 125e6, 1e-3) for a in devices for b in devices if a != b)
    places = [
        k
        for device in own
        for _ in names[device.name]
        for k, way in enumerate(model.ways)
        if way.device == device.name
    ]
    ways = tuple(
        way._replace(device=name)
        for device in own
        for name in names[device.name]
        for way in model.ways
        if way.device == device.name
    )
    arrays = {
        name: getattr(model, name)[places] for name in ("latency_s", "energy_j", "noise", "memory_bytes")
    }
    return replace(model, fleet=replace(model.fleet, devices=devices, links=links), ways=ways, **arrays)


def pipeedge(folder: Path) -> None:
    found = read_pipeedge(*(folder / f"{name}.yml" for name in ("models", "device_types", "devices")))
    rows = tuple(row for table in found.tables for row in table.rows)
    assert found.fleet is not None
    report(
        "PipeEdge, ViT-Base on 4 + 4 hosts, s", 1.7262, found.chain, found.fleet, rows, unit_s=1.0, batch=8
    )


def partitioning(file: Path, best: float) -> None:
    found = read_partitioning(file, max_tensors=2)
    assert found.fleet is not None
    rate = found.fleet.links[0].bandwidth_bytes_per_s
    cpu, accelerator = found.tables
    names = [f"accelerator{k}" for k in range(ACCELERATORS)]
    devices = Device("cpu"), *(Device(name, memory_bytes=ACCELERATOR_BYTES) for name in names)
    every = [device.name for device in devices]

    def fleet(bandwidth: float) -> Fleet:
        return Fleet(
            "cpu", "cpu", devices, tuple(Link(a, b, bandwidth) for a in every for b in every if a != b)
        )

    def moving_s(boundary: int) -> float:
        return found.chain.wire_bytes(boundary) / rate if 0 < boundary < len(found.chain) else 0.0

    charged = [
        replace(
            row, device=name, latency_s=row.latency_s + moving_s(row.bundle.start) + moving_s(row.bundle.stop)
        )
        for name in names
        for row in accelerator.rows
    ]
    apart = [replace(row, device=name) for name in names for row in accelerator.rows]
    label = f"dnn-partitioning, {file.stem.removesuffix('_inference')}"
    report(f"{label}, ms", best, found.chain, fleet(1e30), (*cpu.rows, *charged))
    report(f"{label}, links at work meanwhile, ms", best, found.chain, fleet(rate), (*cpu.rows, *apart))


def report(
    label: str,
    theirs: float,
    chain: Chain,
    fleet: Fleet,
    rows: tuple[ProfileRow, ...],
    *,
    unit_s: float = 1e-3,
    batch: int = 1,
) -> None:
    begun = time.perf_counter()
    plan = solve(chain, fleet, ProfileTable(chain, rows), objective="period", batch=batch)
    seconds = time.perf_counter() - begun
    ours = plan.proof.objective_value / unit_s
    assert ours <= theirs + 5e-5, f"{label}: {ours} is worse than {theirs}"
    show(
        label,
        f"{theirs:.4f}",
        f"{ours:.4f}",
        plan.proof.outcome.value,
        str(len(plan.stages)),
        f"{seconds:.2f}",
    )


def show(*cells: str) -> None:
    first = 48 if len(cells) == 6 else 8
    print(cells[0].ljust(first), *(cell.rjust(12) for cell in cells[1:]), flush=True)


if __name__ == "__main__":
    main()
