"""One ONNX export of the whole network, sliced into bundles.

Every boundary is an output of the export, so a bundle is the part between two named values. The
weights lie once in a file beside the slices; a slice holds only operations, and ONNX Runtime maps the
weights it needs. The export is not optimised: the engine does that for each slice, and a cut that an
optimiser merged away could not be sliced.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import torch

from planner.chain import Bundle
from planner.errors import BundleError, MissingDependencyError, StorageError
from profiler.capture import quiet
from profiler.cut import CutModel

try:
    import onnx_ir as ir
    import onnxscript  # noqa: F401 - the exporter needs it
except ImportError as error:
    raise MissingDependencyError(error.name or "onnxscript", "exporting to ONNX", "onnx") from error


class OnnxModel:
    """The whole network as ONNX in a temporary folder. Raises ``BundleError`` if it cannot be exported."""

    def __init__(self, cut: CutModel) -> None:
        self._names = [
            [f"boundary_{k}_{place}" for place in range(len(boundary.tensors))]
            for k, boundary in enumerate(cut.chain.boundaries)
        ]
        self._folder = tempfile.TemporaryDirectory(prefix="edgecut-onnx-")
        folder = Path(self._folder.name)
        try:
            ir.save(self._export(cut), folder / "whole.onnx", external_data="weights.bin")
        except OSError as error:
            raise StorageError(f"cannot write the ONNX export to {folder}: {error}", "free space") from error
        self._model = ir.load(folder / "whole.onnx")

    def _export(self, cut: CutModel) -> ir.Model:
        layers = len(cut.chain)
        module = cut.module(Bundle(0, layers), outputs=range(1, layers + 1))
        dtypes = {spec.dtype: getattr(torch, spec.dtype) for spec in cut.specs(0)}
        inputs = tuple(torch.zeros(spec.shape, dtype=dtypes[spec.dtype]) for spec in cut.specs(0))
        try:
            with quiet(), contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                program = torch.onnx.export(
                    module,
                    inputs,
                    dynamo=True,
                    optimize=False,
                    verbose=False,
                    input_names=self._names[0],
                    output_names=[name for names in self._names[1:] for name in names],
                )
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise BundleError(
                f"{cut.chain.source.name} cannot be exported to ONNX: {reason:.300}", "use backend torch"
            ) from error
        assert program is not None  # dynamo=True always returns the program
        return program.model

    def _part(self, bundle: Bundle) -> ir.Model:
        inputs, outputs = self._names[bundle.start], self._names[bundle.stop]
        try:
            graph = ir.convenience.extract(self._model.graph, inputs=inputs, outputs=outputs)
        except ValueError as error:
            raise BundleError(f"bundle {bundle} cannot be sliced from the ONNX export: {error}") from None
        return ir.Model(graph, ir_version=self._model.ir_version)

    def slice(self, bundle: Bundle) -> Path:
        """The bundle as an ONNX file that refers to the shared weights; valid until the next slice."""
        file = Path(self._folder.name) / "slice.onnx"
        try:
            file.write_bytes(ir.to_proto(self._part(bundle)).SerializeToString())
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}", "free space") from error
        return file

    def save(self, bundle: Bundle, file: Path) -> None:
        """The bundle as one ONNX file with its weights inside (at most 2 GB, protobuf's limit)."""
        part = self._part(bundle)
        for value in part.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
        try:
            file.write_bytes(ir.to_proto(part).SerializeToString())
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}", "free space") from error
        except ValueError as error:
            problem = f"bundle {bundle} does not fit one ONNX file: {error}"
            raise BundleError(problem, "use backend torch for it") from None

    def close(self) -> None:
        self._folder.cleanup()
