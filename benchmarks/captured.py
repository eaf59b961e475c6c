"""What running the captured graph costs over the module it was captured from: python benchmarks/captured.py [MODEL...]

Both run the whole network in eager mode on the same input, by turns, one thread; the ratio is that of the median
times. The goal is at most 1.03. ``layers`` is the chain run layer by layer, as if every cut were taken.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from planner import Bundle, ModelSource
from profiler import cut_model, load_model

ROUNDS = 40


def medians_s(runs: list[Callable[[], object]]) -> list[float]:
    samples_s: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, found_s in zip(runs, samples_s, strict=True):
            started = time.perf_counter()
            run()
            found_s.append(time.perf_counter() - started)
    return [statistics.median(each[ROUNDS // 10 :]) for each in samples_s]


def measure(name: str) -> None:
    model = load_model(ModelSource(name))
    cut = cut_model(model)
    inputs, layers = model.example(), len(cut.chain)
    whole = cut.module(Bundle(0, layers))
    parts = [cut.module(Bundle(k, k + 1)) for k in range(layers)]

    def by_layer() -> object:
        at = inputs
        for part in parts:
            at = part(*at)
        return at

    with torch.inference_mode():
        eager_s, captured_s, by_layer_s = medians_s(
            [lambda: model.module(*inputs), lambda: whole(*inputs), by_layer]
        )
    shown = "".join(f"{value * 1e3:12.2f}" for value in (eager_s, captured_s, by_layer_s))
    print(f"{name:14}{shown}{captured_s / eager_s:9.3f}{by_layer_s / eager_s:9.3f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    heads = "".join(f"{each:>12}" for each in ("module ms", "captured ms", "layers ms"))
    print(f"{'model':14}{heads}{'ratio':>9}{'layers':>9}")
    for name in sys.argv[1:] or ["resnet50", "mobilenet_v2"]:
        measure(name)


if __name__ == "__main__":
    main()
