"""A small network run for real: ``python -m profiler.trial onnxruntime:fp32 tensorrt-rtx:fp16:build``.

One line of JSON on standard output for each argument, in order, as soon as it is known. A process of its
own, because a library that does not fit the machine may end the process that loads it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.errors import EdgecutError

if TYPE_CHECKING:
    from profiler.cut import CutModel
    from profiler.samples import SampleStore

# Enough for every calibrator; fewer are run.
_SAMPLES, _RUN = 16, 4


class Bench:
    """The network, its feature maps, and where a trial may write; made once for all trials."""

    def __init__(self, folder: Path) -> None:
        import torch
        from torch import nn

        from planner.chain import InputSpec, ModelSource
        from profiler.cut import cut_model
        from profiler.inputs import model_samples
        from profiler.model import LoadedModel, ModelInput
        from profiler.samples import SampleStore, write_samples

        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
        network.eval().requires_grad_(False)
        model = LoadedModel(ModelSource("trial"), network, (ModelInput.of(InputSpec((3, 32, 32))),))
        self.folder = folder
        self.cut: CutModel = cut_model(model)
        write_samples(self.cut, list(model_samples(model, None, _SAMPLES, [])), folder / "samples")
        self.store: SampleStore = SampleStore(folder / "samples", self.cut.chain)

    def run(self, name: str, precision: str, build: bool) -> dict[str, Any]:
        """What came of it: seconds to prepare and to run, and the signal-to-noise ratio against fp32."""
        from planner.chain import Bundle
        from profiler import backends
        from profiler.bundles import signal_to_noise_db
        from profiler.runner import Setting

        whole = Bundle(0, len(self.cut.chain))
        recipe = self._recipe(precision)
        started = time.perf_counter()
        backend = backends.find(name, precision)(
            self.cut, Setting(precision, recipe=recipe, cache=self.folder / "cache")
        )
        try:
            if build:
                backend.engine(whole)  # type: ignore[attr-defined] # the TensorRT backends have it
                return {"prepare_s": time.perf_counter() - started}
            with backend.runner(whole) as runner:
                prepare_s = time.perf_counter() - started
                inputs = self.store.inputs(0, 1, _RUN)
                expected = self.store.inputs(whole.stop, 1, _RUN)
                pairs = [
                    pair
                    for arrays, wanted in zip(inputs, expected, strict=True)
                    for pair in zip(runner(arrays), wanted, strict=True)
                ]
                started = time.perf_counter()
                for arrays in inputs:
                    runner(arrays)
                latency_s = (time.perf_counter() - started) / len(inputs)
            return {"prepare_s": prepare_s, "latency_s": latency_s, "sqnr_db": signal_to_noise_db(pairs)}
        finally:
            backend.close()

    def _recipe(self, precision: str) -> Any:
        """int8 throughout, or, mixed, the linear layer in fp16."""
        if precision not in ("int8", "mixed"):
            return None
        from planner.recipe import Calibration, Policy
        from profiler.recipes import calibrated

        policy = Policy("type", "int8", {"Gemm": "fp16"}) if precision == "mixed" else None
        return calibrated(Calibration(policy=policy), self.cut, self.store)


def trials(requests: list[str]) -> Iterator[dict[str, Any]]:
    """The outcome of each request; one that fails says why under ``problem`` and ``remedy``."""
    with tempfile.TemporaryDirectory(prefix="edgecut-trial-") as folder:
        bench: Bench | None = None
        for request in requests:
            name, precision, *rest = request.split(":")
            try:
                bench = bench or Bench(Path(folder))
                yield bench.run(name, precision, build=rest == ["build"])
            except EdgecutError as error:
                yield {"problem": error.message, "remedy": error.remedy}
            except Exception as error:  # whatever a library raises is what this machine's user must know
                reason = next((line for line in str(error).splitlines() if line.strip()), "")
                yield {"problem": f"{type(error).__name__}: {reason:.300}", "remedy": ""}


def main() -> None:
    # What libraries print goes elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for outcome in trials(sys.argv[1:]):
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
