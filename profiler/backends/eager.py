"""PyTorch, eager: the captured operations, one after the other, on the CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import fx

from planner.chain import Bundle, TensorSpec
from planner.errors import BundleError
from profiler.graph_file import graph_bytes, load_graph, save_graph
from profiler.half import Caster
from profiler.runner import Array, Artifact, Backend, Runner, Setting

if TYPE_CHECKING:
    from profiler.cut import CutModel


class TorchRunner(Runner):
    """A module on ``device``; running out of memory, or an operation refused, is a ``BundleError``."""

    def __init__(
        self,
        module: fx.GraphModule,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        artifact: Artifact,
        device: str,
    ) -> None:
        super().__init__(inputs, outputs, artifact)
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        if self._on_gpu:
            # Its convolutions otherwise round fp32 to TensorFloat-32, with ten bits of mantissa.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            torch.cuda.reset_peak_memory_stats()
        self._module = _on_device(module, self._device)

    @property
    def device_memory_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self._on_gpu else None

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            with torch.inference_mode():
                results = self._module(*(torch.from_numpy(array).to(self._device) for array in arrays))
                # Copying to the host waits for the device.
                return tuple(result.contiguous().cpu().numpy() for result in results)
        except (RuntimeError, NotImplementedError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BundleError(
                f"PyTorch cannot run the bundle: {reason:.300}", "use another backend"
            ) from None

    def close(self) -> None:
        del self._module
        if self._on_gpu:
            torch.cuda.empty_cache()


def _on_device(module: fx.GraphModule, device: torch.device) -> fx.GraphModule:
    """The module's weights, and the tensors it makes itself, on ``device``."""
    if device.type == "cpu":
        return module
    for node in module.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
    module.recompile()
    return module.to(device)


class TorchBackend(Backend):
    device = "cpu"
    runner_type: type[TorchRunner] = TorchRunner

    def __init__(self, cut: CutModel, setting: Setting) -> None:
        super().__init__(cut, setting)
        check_device(self.device)
        self._cut = cut.fused() if setting.fused else cut
        self._cast = Caster(setting.precision)

    def _module(self, bundle: Bundle) -> fx.GraphModule:
        """The bundle in this precision, on the host."""
        return self._cast(self._cut.module(bundle), *self.specs(bundle))

    def runner(self, bundle: Bundle) -> Runner:
        torch.set_num_threads(self.setting.threads)
        module, specs = self._module(bundle), self.specs(bundle)
        weight_bytes = _weight_bytes(module)
        artifact = Artifact(
            graph_bytes(module, *specs), weight_bytes, shared_bytes=0 if self.setting.fused else weight_bytes
        )
        return self.runner_type(module, *specs, artifact, self.device)

    def save(self, bundle: Bundle, file: Path) -> None:
        save_graph(self._module(bundle), *self.specs(bundle), file)

    @classmethod
    def load(cls, file: Path, threads: int) -> Runner:
        check_device(cls.device)
        torch.set_num_threads(threads)
        module, inputs, outputs = load_graph(file)
        artifact = Artifact(file.stat().st_size, _weight_bytes(module))
        return cls.runner_type(module, inputs, outputs, artifact, cls.device)


class TorchCudaBackend(TorchBackend):
    device = "cuda"


def _weight_bytes(module: fx.GraphModule) -> int:
    return sum(weight.nbytes for weight in module.buffers())


def check_device(device: str) -> None:
    """Refuse (``BundleError``) a device that PyTorch does not see here."""
    if device == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise BundleError(
            f"PyTorch sees no CUDA device here (torch {torch.__version__}, {built})",
            "use backend torch, or a machine with an NVIDIA GPU and its driver",
        )
