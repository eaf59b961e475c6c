"""How long large profile tables take to read: python benchmarks/reading.py [LAYERS] [DEVICES] [VARIANTS]

Writes one table per device to a temporary folder, every bundle in every variant with full-precision floats, and
reads them all in a fresh process, three times; then a tenth of the rows with the row-by-row parser. The goal for
200 layers x 8 devices x 12 variants (1.93 million rows) on two cores is 3 s and 2 GB.
"""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from planner import Boundary, Chain, Environment, Layer, ModelSource, ProfileTable, Sidecar, TensorSpec
from planner.table import COLUMNS, header, parse_rows


def main() -> None:
    given = list(map(int, sys.argv[1:4]))
    layers, devices, variants = given + [200, 8, 12][len(given) :]
    with tempfile.TemporaryDirectory() as name:
        files = [write(Path(name) / f"device{k}.csv", layers, variants, k) for k in range(devices)]
        print(f"{devices} files, {sum(file.stat().st_size for file in files) / 1e6:.0f} MB", flush=True)
        for _ in range(3):
            command = [sys.executable, __file__, "--read", *map(str, files)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows, wall, cpu, peak = map(float, said.split())
            print(
                f"{rows:.0f} rows: {wall:.2f} s, {cpu:.2f} s of processor time, peak {peak:.2f} GB",
                flush=True,
            )
        begun, some = time.process_time(), 0
        for file in files:
            lines = file.read_text().splitlines(keepends=True)
            some += len(parse_rows("".join(lines[: 1 + len(lines) // 10]), file))
        one = (time.process_time() - begun) / some
    print(f"row by row: {one * 1e6:.1f} us of processor time a row, {one * rows / cpu:.0f} times as much")


def read(files: list[str]) -> None:
    begun, used = time.perf_counter(), time.process_time()
    table = ProfileTable.load(map(Path, files))
    wall, cpu = time.perf_counter() - begun, time.process_time() - used
    print(len(table.columns), wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def write(file: Path, layers: int, variants: int, device: int) -> Path:
    """A table such as a profile leaves, with its sidecar."""
    import pyarrow as pa
    from pyarrow import csv

    numbers = np.random.default_rng(device)
    starts, stops = np.triu_indices(layers, k=1, m=layers + 1)
    count = starts.size * variants
    kinds = list(
        itertools.islice(itertools.product(("fp32", "fp16", "int8"), (6e8, 9e8, 12e8, 15e8)), variants)
    )
    layer_s = np.append(0.0, numbers.uniform(1e-4, 1e-2, layers)).cumsum()
    speed = np.repeat(numbers.uniform(0.3, 1.0, variants), starts.size)
    time_s = np.tile(layer_s[stops] - layer_s[starts], variants) * speed * numbers.uniform(0.9, 1.1, count)
    shares = {
        "latency_s": (1, 1), "latency_median_s": (0.98, 1), "latency_p95_s": (1, 1.2), "latency_std_s": (0.01, 0.1),
        "cpu_time_s": (0.9, 2), "load_s": (0.1, 3), "latency_ci_s": (0.001, 0.02), "build_s": (1, 50),
        "energy_j": (2, 9),
    }  # fmt: skip
    columns = {name: time_s * numbers.uniform(*share, count) for name, share in shares.items()}
    columns |= {
        "start": np.tile(starts, variants),
        "stop": np.tile(stops, variants),
        "frequency_hz": np.repeat([clock for _, clock in kinds], starts.size),
        "batch": np.ones(count, dtype=int),
        "fused": np.zeros(count, dtype=int),
        "stable": np.ones(count, dtype=int),
        "runs": numbers.integers(10, 300, count),
        "sqnr_db": numbers.uniform(20, 60, count),
        "max_error": numbers.uniform(1e-4, 1e-1, count),
        "samples_per_s": 1 / columns["latency_s"],
        **{
            f"{name}_bytes": numbers.integers(10**5, 10**8, count)
            for name in ("peak_memory", "artifact", "weight")
        },
    }
    texts = {
        "device": np.full(count, file.stem),
        "backend": np.full(count, "onnxruntime"),
        "precision": np.repeat([precision for precision, _ in kinds], starts.size),
    }
    table = pa.table({name: pa.array({**columns, **texts}[name]) for name in COLUMNS})
    with file.open("wb") as stream:
        stream.write(header().encode())
        csv.write_csv(table, stream, csv.WriteOptions(include_header=False, quoting_style="none"))
    tensor = Boundary((TensorSpec((1, 1000)),))
    chain = Chain(
        ModelSource("net"), "0" * 64,
        tuple(Layer(f"layer{k}", 1, 4, 10) for k in range(layers)), (tensor,) * (layers + 1),
    )  # fmt: skip
    environment = Environment("host", "x86", "3.11", {}, 1, (0,))
    Sidecar(file.stem, chain, environment, "now", "samples").save(file.with_suffix(".json"))
    return file


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read(sys.argv[2:])
    else:
        main()
