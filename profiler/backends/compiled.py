"""PyTorch compiled by inductor: each bundle is compiled once, before it is timed."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx

from planner.chain import TensorSpec
from planner.errors import BundleError
from profiler.backends.eager import TorchBackend, TorchRunner
from profiler.capture import quiet
from profiler.runner import Artifact


class CompiledRunner(TorchRunner):
    """The bundle as inductor makes it; ``artifact.build_s`` is the time that took."""

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        artifact: Artifact,
        device: str,
    ) -> None:
        super().__init__(module, inputs, outputs, artifact, device)
        started = time.perf_counter()
        # Without it, bundles compiled before count against a limit on recompilations.
        torch.compiler.reset()
        self._module: Any = torch.compile(self._module, fullgraph=True, dynamic=False)
        try:
            with quiet():
                self._run(tuple(np.zeros(spec.shape, spec.dtype) for spec in inputs))
        except BundleError:
            raise
        except Exception as error:  # inductor's exceptions have no common base
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            remedy = "use backend torch; on a CPU inductor needs a C++ compiler such as g++"
            raise BundleError(f"inductor cannot compile the bundle: {reason:.300}", remedy) from None
        self.artifact = replace(artifact, build_s=time.perf_counter() - started)


class CompileBackend(TorchBackend):
    runner_type = CompiledRunner


class CompileCudaBackend(CompileBackend):
    device = "cuda"
