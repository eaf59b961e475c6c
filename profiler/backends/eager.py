"""PyTorch, eager: the captured operations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import fx

from planner.chain import Bundle, TensorSpec
from profiler.graph_file import load_graph, save_graph
from profiler.runner import Array, Backend, Runner


class TorchRunner(Runner):
    def __init__(
        self, module: fx.GraphModule, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        super().__init__(inputs, outputs)
        self._module = module

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        with torch.inference_mode():
            results = self._module(*map(torch.from_numpy, arrays))
            return tuple(result.contiguous().numpy() for result in results)


class TorchBackend(Backend):
    def runner(self, bundle: Bundle) -> TorchRunner:
        torch.set_num_threads(self.threads)
        return TorchRunner(self.cut.module(bundle), *self.specs(bundle))

    def save(self, bundle: Bundle, file: Path) -> None:
        save_graph(self.cut.module(bundle), *self.specs(bundle), file)

    @staticmethod
    def load(file: Path, threads: int) -> TorchRunner:
        torch.set_num_threads(threads)
        return TorchRunner(*load_graph(file))
