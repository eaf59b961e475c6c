"""Preparing bundles: seconds and megabytes, and the memory that a profile takes. Prints one line each.

    python benchmarks/preparation.py [--quick]

Slicing: one ONNX export of resnet50, then every bundle sliced and loaded by ONNX Runtime. Building: every
TensorRT-RTX engine of alexnet into an empty cache, where tensorrt-rtx is installed. Memory: the peak of a
process that profiles vgg16's bundles once each, against 3 x its weights + 2 GB.
"""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planner.chain import ModelSource
from profiler import backends
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from profiler.placement import placement
from profiler.runner import Setting

EDGECUT = str(Path(sys.executable).with_name("edgecut"))


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        return profile_once(sys.argv[2], Path(sys.argv[3]))
    _slicing("resnet18" if "--quick" in sys.argv else "resnet50")
    if importlib.util.find_spec("tensorrt_rtx"):
        for precision in ("fp32", "fp16"):
            _building("alexnet", precision)
    _memory("alexnet" if "--quick" in sys.argv else "vgg16")
    return None


def _slicing(name: str) -> None:
    began = time.perf_counter()
    cut = _cut(name)
    captured_s = time.perf_counter() - began
    began = time.perf_counter()
    backend = backends.find("onnxruntime")(cut, Setting(threads=2))
    exported_s = time.perf_counter() - began
    began, count = time.perf_counter(), 0
    for bundle in cut.chain.bundles():
        with backend.runner(bundle):
            count += 1
    loaded_s = time.perf_counter() - began
    backend.close()
    print(
        f"{name}, ONNX Runtime fp32: captured and cut in {captured_s:.1f} s, exported once in {exported_s:.1f} s, "
        f"{count} bundles sliced and loaded in {loaded_s:.1f} s"
    )


def _building(name: str, precision: str) -> None:
    with tempfile.TemporaryDirectory(prefix="edgecut-benchmark-") as folder:
        command = [EDGECUT, "build", name, "--backend", "tensorrt-rtx"]
        command += ["--precision", precision, "--cache", folder]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        taken = time.perf_counter() - began
        if done.returncode:
            print(f"{name}, TensorRT-RTX {precision}: {done.stderr.strip()}")
            return
        engines = list(Path(folder).rglob("engine"))
        size = sum(file.stat().st_size for file in engines) / 1e6
        print(f"{name}, TensorRT-RTX {precision}: {len(engines)} engines in {taken:.1f} s, {size:.0f} MB")


def _memory(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="edgecut-benchmark-") as folder:
        subprocess.run([EDGECUT, "samples", name, "--count", "4", "-o", f"{folder}/samples"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        done = subprocess.run(
            [sys.executable, __file__, "--memory", name, folder], check=True, capture_output=True
        )
        peak, weights = map(int, done.stdout.split())
    limit = 3 * weights + 2 * 10**9
    print(
        f"profile {name}: peak {peak / 1e6:.0f} MB, weights {weights / 1e6:.0f} MB, "
        f"limit 3 x weights + 2 GB = {limit / 1e6:.0f} MB: {'kept' if peak <= limit else 'BROKEN'}"
    )


def profile_once(name: str, folder: Path) -> None:
    """Profile every bundle a few times on both backends; prints this process's peak memory and the weights."""
    from planner.plan import Variant
    from profiler.request import ProfileRequest
    from profiler.session import profile
    from profiler.timing import Protocol

    protocol = Protocol(rounds=1, visit_runs=2, visit_s=0, max_runs=2)
    variants = (Variant("torch"), Variant("onnxruntime"))
    request = ProfileRequest(
        ModelSource(name), "here", variants, (1,), folder / "samples", folder / "t.csv", placement(), protocol
    )
    profile(request)
    weights = sum(layer.weight_bytes for layer in _cut(name).chain.layers)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, weights)


def _cut(name: str) -> CutModel:
    return cut_model(load_model(ModelSource(name)))


if __name__ == "__main__":
    main()
