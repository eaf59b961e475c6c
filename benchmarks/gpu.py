"""Whole models on a GPU, in every backend and precision: python benchmarks/gpu.py [MODEL...]

Writes docs/gpu.md. Every time is from host array to host array, so copies to and from the GPU are in it;
published figures mostly leave them out. Without a GPU it says so and ends.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from planner import ModelSource, Variant
from planner.errors import EdgecutError
from profiler.bench import Bench, BenchRequest, bench
from profiler.cuda import find_gpu
from profiler.machine import describe_machine
from profiler.placement import placement
from profiler.timing import Protocol

MODELS = ("alexnet", "resnet50", "vit_b_16", "hf:BertModel")
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PRECISIONS = {
    "torch-cuda": ("fp32", "fp16", "bf16"),
    "torch-compile-cuda": ("fp32", "fp16"),
    "onnxruntime-cuda": ("fp32", "fp16"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
}
# What others publish for BERT beside PyTorch in fp32, by batch 1 to 256.
CLAIMS = {
    ("torch-cuda", "fp16"): "1.5",
    ("torch-compile-cuda", "fp32"): "2 to 3",
    ("onnxruntime-cuda", "fp16"): "2 to 3",
    ("tensorrt", "fp16"): "5 to 8",
    ("tensorrt-rtx", "fp16"): "5 to 8",
}
# torch2trt's published table: Jetson Nano, fp16, batch 1, milliseconds by PyTorch and by TensorRT.
JETSON_NANO_MS = {"alexnet": (22.1, 14.7), "resnet50": (81.7, 29.8)}
FILE = Path(__file__).parent.parent / "docs" / "gpu.md"


def section(name: str, found: Bench) -> list[str]:
    """One model's table, what was left out, and what others publish for it."""
    lines = [
        f"## {name}",
        "",
        "| backend | precision | batch | latency ms | p95 ms | samples/s | speed-up | published | GPU MB | SQNR dB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found.rows:
        row, variant = each.row, each.row.variant
        cells = (
            variant.backend,
            variant.precision,
            row.batch,
            f"{row.latency_s * 1e3:.3f}",
            f"{row.latency_p95_s * 1e3:.3f}",
            f"{row.samples_per_s:.1f}",
            "" if each.speed_up is None else f"{each.speed_up:.2f}",
            CLAIMS.get((variant.backend, variant.precision), ""),
            "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:.0f}",
            "" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines.append("")
    if name in JETSON_NANO_MS:
        torch_ms, trt_ms = JETSON_NANO_MS[name]
        lines += [
            f"torch2trt publishes for a Jetson Nano, fp16, batch 1: PyTorch {torch_ms} ms, TensorRT {trt_ms} ms, "
            f"{torch_ms / trt_ms:.2f} times faster.",
            "",
        ]
    lines += [f"- left out: {variant}: {reason}" for variant, reason in found.lacking.items()]
    lines += [f"- left out: {each.variant}, batch {each.batch}: {each.reason}" for each in found.left_out]
    return [*lines, ""]


def main() -> None:
    gpu = find_gpu()
    if gpu is None:
        print("benchmarks/gpu.py needs an NVIDIA GPU and its driver; none is visible here: docs/gpu.md stays")
        return
    libraries = ", ".join(f"{name} {version}" for name, version in describe_machine().libraries.items())
    lines = [
        "# On a GPU",
        "",
        f"Written by `python benchmarks/gpu.py` on {date.today().isoformat()}: {gpu}; {libraries}.",
        "Random weights; times from host array to host array. `speed-up` is over PyTorch fp32 of the same batch;",
        "`published` is what others state for BERT, mostly without the copies.",
        "",
    ]
    variants = tuple(Variant(name, precision) for name, each in PRECISIONS.items() for precision in each)
    for name in sys.argv[1:] or MODELS:
        request = BenchRequest(ModelSource(name), variants, BATCHES, placement(), Protocol())
        try:
            found = bench(
                request,
                [],
                lambda variant, batch, name=name: print(f"{name}: {variant}, {batch}", flush=True),
            )
        except EdgecutError as error:
            lines += [f"## {name}", "", f"- left out: {error.message}", ""]
        else:
            lines += section(name, found)
        FILE.write_text("\n".join(lines))
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
