"""ONNX Runtime on the CPU: every bundle a slice of one export of the whole network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.chain import Bundle, TensorSpec
from planner.errors import BundleError, MissingDependencyError
from profiler.runner import Array, Backend, Runner

if TYPE_CHECKING:
    from profiler.cut import CutModel

try:
    import onnxruntime
except ImportError as error:
    raise MissingDependencyError("onnxruntime", "backend onnxruntime", "onnx") from error

# ONNX's element types by the names ONNX Runtime reports.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxRuntimeRunner(Runner):
    """A session over an ONNX file whose shapes are all fixed."""

    def __init__(self, file: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise BundleError(f"ONNX Runtime refuses {file.name}: {error}", "use another backend") from None
        self._names = [value.name for value in self._session.get_inputs()]
        super().__init__(_specs(self._session.get_inputs()), _specs(self._session.get_outputs()))

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            results = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        except Exception as error:
            raise BundleError(f"ONNX Runtime failed: {error}", "use another backend") from None
        return tuple(results)

    def close(self) -> None:
        del self._session


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    try:
        return tuple(TensorSpec(tuple(value.shape), _DTYPES[value.type]) for value in values)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the ONNX file has a tensor of no fixed shape or known type: {error}") from None


class OnnxRuntimeBackend(Backend):
    def __init__(self, cut: CutModel, threads: int) -> None:
        super().__init__(cut, threads)
        # Only exporting needs torch and onnx; a worker that loads a finished slice does without them.
        from profiler.onnx_model import OnnxModel

        self._model = OnnxModel(cut)

    def runner(self, bundle: Bundle) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(self._model.slice(bundle), self.threads)

    def save(self, bundle: Bundle, file: Path) -> None:
        self._model.save(bundle, file)

    @staticmethod
    def load(file: Path, threads: int) -> OnnxRuntimeRunner:
        return OnnxRuntimeRunner(file, threads)

    def close(self) -> None:
        self._model.close()
