"""A study made from a seed: tables of every bundle of a chain on several devices, a plan solved from them, a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from planner import (
    Boundary,
    Chain,
    Device,
    Environment,
    Fleet,
    Layer,
    Link,
    ModelSource,
    Plan,
    ProfileRow,
    ProfileTable,
    Sidecar,
    TensorSpec,
    Variant,
    solve,
)
from planner.columns import FloatArray
from planner.run import RunInfo
from planner.run_rows import RunRow, format_run_row, run_header
from planner.table import save_table

# Name, seconds per layer's work over the first's, and the same of variants.
DEVICES = (("edge", 1.0), ("gateway", 0.6), ("server", 0.2), ("cloud", 0.1))
VARIANTS = (("onnxruntime", "fp32", 1.0), ("torch", "fp32", 1.35), ("onnxruntime", "int8", 0.6))
_LINKS = (2e6, 1.5e6, 4e6)  # bytes per second


def make_study(
    folder: Path, layers: int, devices: int, variants: int, *, requests: int = 300, model: str = "torchvision:study",
    layer: str = "stage", seed: int = 0,
) -> list[Path]:  # fmt: skip
    """The files of a run, a plan and a table of each device; ``layer``: what names of layers begin with."""
    numbers = np.random.default_rng(seed)
    chain = make_chain(layers, model, layer, numbers)
    work_s = numbers.uniform(0.5, 2.0, layers) * 0.4 / layers
    tables = [
        write_table(folder / f"{name}.csv", chain, name, work_s * speed, VARIANTS[:variants], numbers)
        for name, speed in itertools.islice(_devices(), devices)
    ]
    names = [file.stem for file in tables]
    pairs = zip(itertools.permutations(names, 2), itertools.cycle(_LINKS))
    links = tuple(Link(a, b, rate, 0.002, 0.8, 0.5) for (a, b), rate in pairs)
    fleet = Fleet(names[0], names[0], tuple(Device(name, name == names[0], 4.0) for name in names), links)
    plan = solve(chain, fleet, ProfileTable.load(tables))
    plan.save(folder / "plan.json")
    write_run(plan, folder / "run", requests, numbers)
    return [folder / "run", folder / "plan.json", *tables]


def _devices() -> Iterator[tuple[str, float]]:
    yield from DEVICES
    for place in itertools.count(len(DEVICES)):
        name, speed = DEVICES[place % len(DEVICES)]
        yield f"{name}{place}", speed


def make_chain(layers: int, model: str, layer: str, numbers: np.random.Generator) -> Chain:
    shrink = np.linspace(1.4, 0.1, layers) ** 3 * numbers.uniform(0.5, 1.5, layers)
    inside = [Boundary((TensorSpec((1, max(int(share * 100_000), 10))),)) for share in shrink[1:]]
    boundaries = (Boundary((TensorSpec((1, 3, 224, 224)),)), *inside, Boundary((TensorSpec((1, 1000)),)))
    made = tuple(
        Layer(f"{layer}{k // 8}.block{k % 8}.conv", 40_000, 160_000, 80_000_000) for k in range(layers)
    )
    return Chain(ModelSource(model), f"{layers:08x}" * 8, made, boundaries)


def write_table(
    file: Path, chain: Chain, device: str, work_s: FloatArray, variants: Sequence[tuple[str, str, float]],
    numbers: np.random.Generator,
) -> Path:  # fmt: skip
    here = Environment(f"{device}.local", "x86_64", "3.11", {"onnxruntime": "1.20"}, 4, (0, 1, 2, 3))
    rows = _rows(chain, device, work_s, variants, numbers)
    save_table(file, Sidecar(device, chain, here, "2026-01-01T12:00:00", "samples.jsonl"), rows)
    return file


def _rows(
    chain: Chain,
    device: str,
    work_s: FloatArray,
    variants: Sequence[tuple[str, str, float]],
    numbers: np.random.Generator,
) -> Iterator[ProfileRow]:
    for backend, precision, speed in variants:
        for bundle in chain.bundles():
            time_s = (
                float(work_s[bundle.start : bundle.stop].sum() * speed * numbers.uniform(0.95, 1.02)) + 2e-5
            )
            sqnr_db = None if precision == "fp32" else float(numbers.uniform(28, 40))
            yield ProfileRow(
                device, bundle, Variant(backend, precision), 1, time_s, time_s * 0.99, time_s * 1.1, time_s * 0.03,
                time_s * 3.8, 40, 0.1, time_s * 0.01, True, 0.2, 10_000_000, 160_000 * len(bundle),
                160_000 * len(bundle), sqnr_db, None, time_s * 5.0,
            )  # fmt: skip


def write_run(plan: Plan, folder: Path, requests: int, numbers: np.random.Generator) -> None:
    folder.mkdir()
    RunInfo(plan, "2026-01-02T12:00:00", "zenoh", 1, 1e-4, 30.0, requests).save(folder / "run.json")
    rows, now_s = [], 0.0
    parts = [(2 * stage.bundle.start + 1, "stage", k, stage.cost) for k, stage in enumerate(plan.stages)]
    parts += [(2 * hop.boundary, "hop", k, hop.cost) for k, hop in enumerate(plan.hops)]
    for request in range(requests):
        begin_s = now_s
        for _, kind, index, cost in sorted(parts, key=lambda part: part[0]):
            took_s = cost.latency_s * float(numbers.lognormal(0.02, 0.05))
            rows.append(RunRow(request, kind, index, cost.latency_s, took_s, 0.0, begin_s=now_s))
            now_s += took_s
        whole = {"output_error": 1e-7, "top1_agreement": 1.0, "begin_s": begin_s}
        rows.append(RunRow(request, "total", 0, plan.cost.latency_s, now_s - begin_s, 0.0, **whole))
    (folder / "run.csv").write_text(run_header() + "".join(map(format_run_row, rows)))
