"""ONNX Runtime: every bundle a slice of one export of the whole network."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from planner.chain import Bundle, TensorSpec
from planner.errors import BundleError, MissingDependencyError
from profiler.runner import Array, Artifact, Backend, Runner, Setting

if TYPE_CHECKING:
    from profiler.cut import CutModel

try:
    import onnxruntime
except ImportError as error:
    raise MissingDependencyError("onnxruntime", "backend onnxruntime", "onnx") from error

# Otherwise it rounds fp32 to TensorFloat-32, with ten bits of mantissa.
_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
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
    """A session over an ONNX file (or the bytes of one) whose shapes are all fixed."""

    def __init__(
        self, model: Path | bytes, threads: int, providers: Sequence[str], artifact: Artifact, what: str
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        given = [_OPTIONS.get(name, {}) for name in providers]
        try:
            self._session = onnxruntime.InferenceSession(model, options, list(providers), given)
        except Exception as error:  # its exceptions have no common base
            raise BundleError(
                f"ONNX Runtime refuses {what}: {_reason(error)}", "use another backend"
            ) from None
        lost = [name for name in providers[:1] if name not in self._session.get_providers()]
        if lost:
            raise BundleError(
                f"ONNX Runtime could not start {lost[0]}", "check the GPU's driver and libraries"
            )
        self._binding: Any = self._session.io_binding()
        self._names = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        super().__init__(_specs(self._session.get_inputs()), _specs(self._session.get_outputs()), artifact)

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        try:
            for name, array in zip(self._names, arrays, strict=True):
                self._binding.bind_cpu_input(name, array)
            for name in self._outputs:
                self._binding.bind_output(name, "cpu")
            # Outputs bound to the host are there when it returns.
            self._session.run_with_iobinding(self._binding)
            return tuple(self._binding.copy_outputs_to_cpu())
        except Exception as error:
            raise BundleError(f"ONNX Runtime failed: {_reason(error)}", "use another backend") from None

    def close(self) -> None:
        del self._binding, self._session


# The key that names the other file, without which there is none (onnx.proto, TensorProto.external_data).
_REFERENCE = b"location"


def _may_refer(file: Path) -> bool:
    """Whether an ONNX file may have weights in another file."""
    end = b""
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            if _REFERENCE in end + block:
                return True
            end = block[1 - len(_REFERENCE) :]
    return False


def _reason(error: Exception) -> str:
    """What ONNX Runtime says, the operator it cannot run first."""
    text = " ".join(str(error).split())
    found = re.search(r"Could not find an implementation for (\w+)\(\d+\) node with name '([^']*)'", text)
    return f"it has no {found[1]} for these types (node {found[2]})" if found else f"{text:.300}"


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    try:
        return tuple(TensorSpec(tuple(value.shape), _DTYPES[value.type]) for value in values)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the ONNX file has a tensor of no fixed shape or known type: {error}") from None


class OnnxRuntimeBackend(Backend):
    providers: ClassVar[tuple[str, ...]] = ("CPUExecutionProvider",)

    def __init__(self, cut: CutModel, setting: Setting) -> None:
        super().__init__(cut, setting)
        self._check_provider()
        # Only exporting needs torch and onnx; a worker that loads a finished slice does without them.
        from profiler.onnx_model import OnnxModel

        tensorrt = self.providers[0] == "TensorrtExecutionProvider"
        self._model = OnnxModel(cut, setting, "tensorrt" if tensorrt else "cpu")

    @classmethod
    def _check_provider(cls) -> None:
        if cls.providers[0] not in onnxruntime.get_available_providers():
            raise BundleError(
                f"the ONNX Runtime installed here has no {cls.providers[0]}",
                "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
            )

    def runner(self, bundle: Bundle) -> Runner:
        started = time.perf_counter()
        file = self._model.slice(bundle)
        build_s = time.perf_counter() - started
        artifact = Artifact(self._model.nbytes(bundle), self._model.weight_bytes(bundle), build_s)
        return OnnxRuntimeRunner(file, self.setting.threads, self.providers, artifact, f"bundle {bundle}")

    def save(self, bundle: Bundle, file: Path) -> None:
        self._model.save(bundle, file)

    @classmethod
    def load(cls, file: Path, threads: int) -> Runner:
        cls._check_provider()
        try:
            nbytes = file.stat().st_size
            # By its path it is parsed as it is read, instead of being in memory twice. Only as bytes is it kept
            # from having another file read as its weights.
            model = file.read_bytes() if _may_refer(file) else file
        except OSError as error:
            raise BundleError(f"cannot read {file}: {error.strerror}") from None
        return OnnxRuntimeRunner(model, threads, cls.providers, Artifact(nbytes, nbytes), file.name)

    def close(self) -> None:
        self._model.close()


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    providers: ClassVar[tuple[str, ...]] = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxRuntimeTensorRtBackend(OnnxRuntimeBackend):
    providers: ClassVar[tuple[str, ...]] = (
        "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider",
    )  # fmt: skip
