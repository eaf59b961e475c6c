"""The backends by name. Listing them imports none; adding one is one file and one line here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import UnknownNameError

if TYPE_CHECKING:
    from profiler.runner import Backend


@dataclass(frozen=True)
class Entry:
    """Where a backend's class is, the precisions it can be asked for, and whether it needs a GPU."""

    where: str
    precisions: tuple[str, ...]
    gpu: bool = False


_FLOATS = ("fp32", "fp16", "bf16")
_ALL = (*_FLOATS, "int8", "mixed")
_BACKENDS = {
    "torch": Entry("profiler.backends.eager:TorchBackend", _FLOATS),
    "torch-cuda": Entry("profiler.backends.eager:TorchCudaBackend", _FLOATS, gpu=True),
    "torch-compile": Entry("profiler.backends.compiled:CompileBackend", _FLOATS),
    "torch-compile-cuda": Entry("profiler.backends.compiled:CompileCudaBackend", _FLOATS, gpu=True),
    "onnxruntime": Entry("profiler.backends.ort:OnnxRuntimeBackend", _ALL),
    "onnxruntime-cuda": Entry("profiler.backends.ort:OnnxRuntimeCudaBackend", _ALL, gpu=True),
    "onnxruntime-tensorrt": Entry("profiler.backends.ort:OnnxRuntimeTensorRtBackend", _ALL, gpu=True),
    "tensorrt": Entry("profiler.backends.trt:TensorRtBackend", _ALL, gpu=True),
    "tensorrt-rtx": Entry("profiler.backends.trt:TensorRtRtxBackend", _ALL, gpu=True),
}
NAMES = tuple(_BACKENDS)


def entry(name: str) -> Entry:
    """What is known of a backend without importing it. Raises ``UnknownNameError``."""
    if name not in _BACKENDS:
        raise UnknownNameError("backend", name, _BACKENDS)
    return _BACKENDS[name]


def check(name: str, precision: str) -> None:
    """Refuse (``UnknownNameError``) a backend, or a precision it cannot run; imports no library."""
    known = entry(name).precisions
    if precision not in known:
        raise UnknownNameError(f"precision for backend {name}:", precision, known)


def find(name: str, precision: str = "fp32") -> type[Backend]:
    """The backend's class; imports its library.

    Raises ``UnknownNameError``, or ``MissingDependencyError`` with the command that installs it.
    """
    check(name, precision)
    module, _, attribute = entry(name).where.partition(":")
    backend: type[Backend] = getattr(importlib.import_module(module), attribute)
    return backend
