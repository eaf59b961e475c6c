"""How far two profiles of the same thing differ: python benchmarks/repeat.py [MODEL] [BACKEND]

Two full profiles, one after the other, on one processor. Limits, on an otherwise idle machine: the median
relative difference of a bundle's latency 2 %, the 95th percentile 6 %.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from planner import ModelSource, ProfileTable, Variant
from profiler import ProfileRequest, Protocol, cut_model, load_model, placement, profile, write_samples
from profiler.inputs import model_samples


def main() -> None:
    source = ModelSource(sys.argv[1] if len(sys.argv) > 1 else "alexnet")
    variants = tuple(
        Variant(name) for name in (sys.argv[2] if len(sys.argv) > 2 else "torch,onnxruntime").split(",")
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = load_model(source)
        write_samples(cut_model(model), list(model_samples(model, None, None, [])), folder / "samples")
        where = placement(threads=1, cpus=(0,))
        found = []
        for place in range(2):
            table = folder / f"{place}.csv"
            request = ProfileRequest(
                source, "here", variants, (1,), folder / "samples", table, where, Protocol()
            )
            summary = profile(request)
            rows = ProfileTable.load([table]).rows
            found.append({row.key: row for row in rows})
            drift = "unknown" if summary.drift is None else f"{summary.drift:+.1%}"
            runs = sum(row.runs for row in rows)
            print(
                f"profile {place + 1}: {len(rows)} rows, {runs} runs in {summary.wall_s:.0f} s "
                f"({summary.wall_s / summary.timed_s:.2f} x inference), "
                f"{len(summary.unstable)} not stable, drift {drift}",
                flush=True,
            )
        for chosen in variants:
            keys = [key for key in found[0] if key[2] == chosen]
            differences = [
                abs(found[1][key].latency_s - found[0][key].latency_s)
                / min(found[0][key].latency_s, found[1][key].latency_s)
                for key in keys
            ]
            median, most = np.percentile(differences, [50, 95])
            print(
                f"{chosen}: median difference {median:.2%}, 95th percentile {most:.2%}, largest {max(differences):.2%}"
            )


if __name__ == "__main__":
    main()
