"""How much longer a profile takes than the inference it times: python benchmarks/profile_overhead.py [MODEL...]

Ratio of wall time to timed inference, both of one run: loading, capturing, exporting, preparing every bundle,
warm-up and writing are the difference. The goal is at most 1.3.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from planner import ModelSource, Variant
from profiler import ProfileRequest, Protocol, cut_model, load_model, placement, profile, write_samples
from profiler.inputs import model_samples


def measure(name: str, backend: str, folder: Path) -> None:
    source = ModelSource(name)
    samples = folder / name
    if not samples.exists():
        model = load_model(source)
        write_samples(cut_model(model), list(model_samples(model, None, None, [])), samples)
    table = folder / f"{name}-{backend}.csv"
    where = placement(threads=1)
    found = profile(
        ProfileRequest(source, "here", (Variant(backend),), (1,), samples, table, where, Protocol())
    )
    ratio = found.wall_s / found.timed_s
    shown = f"{found.measured:8} {found.wall_s:9.1f} {found.timed_s:9.1f} {ratio:7.2f}"
    print(f"{name:12} {backend:12} {shown}", flush=True)


def main() -> None:
    print(f"{'model':12} {'backend':12} {'bundles':>8} {'wall s':>9} {'timed s':>9} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or ["alexnet", "resnet18"]:
            for backend in ("torch", "onnxruntime"):
                measure(name, backend, Path(folder))


if __name__ == "__main__":
    main()
