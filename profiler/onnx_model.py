"""One ONNX export of the whole network, in one precision, sliced into bundles.

::

    torch.onnx.export ──► float32 ──► half precision, or quantised ──► weights in one file
      once, every boundary              once, on the whole                  │
      an output                                                             ▼
                                              slice: the part between two boundaries, float32 at both

The weights lie once in a file beside the slices; a slice holds only operations, and the engine maps the
weights it needs. The export is cleaned, never across a boundary: the engine optimises each slice.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
from pathlib import Path

import torch

from planner.chain import Bundle
from planner.errors import BundleError, MissingDependencyError, StorageError
from profiler.capture import quiet
from profiler.cut import CutModel
from profiler.runner import Setting

try:
    import onnx
    import onnx_ir as ir
    import onnxscript  # noqa: F401 - the exporter needs it
except ImportError as error:
    raise MissingDependencyError(error.name or "onnxscript", "exporting to ONNX", "onnx") from error

from profiler.onnx_cleanup import clean
from profiler.onnx_types import TYPES, cast_rim, convert
from profiler.policy import precisions
from profiler.quantize import Target, quantise


def boundary_names(cut: CutModel) -> list[list[str]]:
    """The name of every tensor at every boundary."""
    return [
        [f"boundary_{k}_{place}" for place in range(len(boundary.tensors))]
        for k, boundary in enumerate(cut.chain.boundaries)
    ]


def export(cut: CutModel) -> ir.Model:
    """The whole network in float32, every boundary an output. Raises ``BundleError``."""
    layers, names = len(cut.chain), boundary_names(cut)
    module = cut.module(Bundle(0, layers), outputs=range(1, layers + 1))
    inputs = tuple(torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in cut.specs(0))
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            program = torch.onnx.export(
                module,
                inputs,
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=names[0],
                output_names=[name for later in names[1:] for name in later],
            )
    except Exception as error:
        raise BundleError(
            f"{cut.chain.source.name} cannot be exported to ONNX: {_root(error):.300}", "use backend torch"
        ) from error
    assert program is not None  # dynamo=True always returns the program
    model = program.model
    clean(model)
    return model


def _root(error: BaseException) -> str:
    """What the first of a chain of errors says: it names the operation."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


class OnnxModel:
    """The network in one precision as ONNX, in a temporary folder.

    ``target`` decides how int8 is made (see ``profiler.quantize``). Raises ``BundleError`` if the network
    cannot be exported, or int8 and mixed lack their recipe.
    """

    def __init__(self, cut: CutModel, setting: Setting, target: Target) -> None:
        self._cut = cut
        self._names = boundary_names(cut)
        model = self._made(cut, setting, target)
        for node in model.graph:
            node.metadata_props.clear()  # stack traces: paths of the machine that exported
        self._folder = tempfile.TemporaryDirectory(prefix="edgecut-onnx-")
        file = Path(self._folder.name) / "whole.onnx"
        try:
            ir.save(model, file, external_data="weights.bin")
        except OSError as error:
            raise StorageError(f"cannot write the ONNX export to {file}: {error}", "free space") from error
        self._model = ir.load(file)
        self._digests: dict[str, bytes] = {}
        self._latest: tuple[Bundle, ir.Model] | None = None

    @staticmethod
    def _made(cut: CutModel, setting: Setting, target: Target) -> ir.Model:
        precision, source = setting.precision, cut.chain.source.name
        if precision in TYPES:
            model = export(cut.fused() if setting.fused else cut)
            if precision != "fp32":
                convert(model, lambda node: TYPES[precision])
            return model
        recipe = setting.recipe
        if recipe is None or (precision == "mixed" and recipe.policy is None):
            lacking = "a policy" if recipe else "calibrated ranges"
            raise BundleError(
                f"precision {precision} needs {lacking}", "profile it; the table keeps them for the plan"
            )
        # Quantised, a batch normalisation on its own would cost accuracy and time: it is always folded.
        model = export(cut.fused())
        policy = recipe.policy if precision == "mixed" else None
        chosen = precisions(model.graph, policy) if policy else {}
        kept = {name for name, each in chosen.items() if each != "int8"}
        made = quantise(model, recipe, target, kept, source)
        if "fp16" in chosen.values():
            half = {name for name, each in chosen.items() if each == "fp16"}
            convert(made, lambda node: TYPES["fp16" if node.name in half else "fp32"])
        return made

    def _part(self, bundle: Bundle) -> ir.Model:
        """The bundle's part; the latest is kept, as its file, size and digest are asked for in a row."""
        if self._latest is None or self._latest[0] != bundle:
            self._latest = bundle, self._extract(bundle)
        return self._latest[1]

    def _extract(self, bundle: Bundle) -> ir.Model:
        inputs, outputs = self._names[bundle.start], self._names[bundle.stop]
        try:
            graph = ir.convenience.extract(self._model.graph, inputs=inputs, outputs=outputs)
        except ValueError as error:
            raise BundleError(f"bundle {bundle} cannot be sliced from the ONNX export: {error}") from None
        # It comes out of a set, in another order each time: a digest must not depend on that.
        initializers = sorted(graph.initializers.items())
        graph.initializers.clear()
        graph.initializers.update(initializers)
        self._quantise_inputs(graph)
        cast_rim(graph)
        return ir.Model(graph, ir_version=self._model.ir_version)

    def _quantise_inputs(self, graph: ir.Graph) -> None:
        """Put an input that the whole network computes in int8 on its grid again."""
        made = {value.name: value for value in self._model.graph.outputs}
        for value in graph.inputs:
            origin = made.get(value.name)
            dequantise = origin.producer() if origin is not None else None
            if dequantise is None or dequantise.op_type != "DequantizeLinear" or not value.uses():
                continue
            quantise_node = dequantise.inputs[0].producer()  # type: ignore[union-attr]
            assert quantise_node is not None
            scale, zero = (self._initializer(graph, each) for each in quantise_node.inputs[1:3])
            steps = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_quantise")
            steps.outputs[0].name = f"{value.name}_quantised"
            back = ir.node("DequantizeLinear", [steps.outputs[0], scale, zero], name=f"{value.name}_back")
            back.outputs[0].name = f"{value.name}_on_grid"
            back.outputs[0].type = value.type
            value.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
            steps.replace_input_with(0, value)
            graph.insert_before(graph[0], [steps, back])

    @staticmethod
    def _initializer(graph: ir.Graph, value: ir.Value | None) -> ir.Value:
        assert value is not None
        name = str(value.name)
        if name not in graph.initializers:
            graph.initializers[name] = ir.Value(
                name=name, type=value.type, shape=value.shape, const_value=value.const_value
            )
        return graph.initializers[name]

    def slice(self, bundle: Bundle) -> Path:
        """The bundle as an ONNX file that refers to the shared weights; valid until the next slice."""
        file = Path(self._folder.name) / "slice.onnx"
        self._write(ir.to_proto(self._part(bundle)), file)
        return file

    def save(self, bundle: Bundle, file: Path) -> None:
        """The bundle as one ONNX file with its weights inside (at most 2 GB, protobuf's limit)."""
        part = self._extract(bundle)  # its weights are read into memory, which the kept one must not be
        for value in part.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.Tensor(value.const_value.numpy(), value.dtype, name=value.name)
        try:
            self._write(ir.to_proto(part), file)
        except ValueError as error:
            problem = f"bundle {bundle} does not fit one ONNX file: {error}"
            raise BundleError(problem, "use backend torch for it") from None

    @staticmethod
    def _write(proto: onnx.ModelProto, file: Path) -> None:
        try:
            file.write_bytes(proto.SerializeToString(deterministic=True))
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error}", "free space") from error

    def weight_bytes(self, bundle: Bundle) -> int:
        return sum(tensor.nbytes for tensor in _weights(self._part(bundle)).values())

    def nbytes(self, bundle: Bundle) -> int:
        """Size of the file that ``save`` writes, to within some bytes for each weight."""
        return len(_operations(self._part(bundle))) + self.weight_bytes(bundle)

    def digest(self, bundle: Bundle) -> str:
        """SHA-256 over the bundle's operations and the content of its weights."""
        part = self._part(bundle)
        digest = hashlib.sha256(_operations(part))
        for name, tensor in sorted(_weights(part).items()):
            if name not in self._digests:
                self._digests[name] = hashlib.sha256(tensor.tobytes()).digest()
            digest.update(name.encode() + self._digests[name])
        return digest.hexdigest()

    def close(self) -> None:
        self._folder.cleanup()


def _weights(part: ir.Model) -> dict[str, ir.TensorProtocol]:
    values = part.graph.initializers.items()
    return {name: value.const_value for name, value in values if value.const_value is not None}


def _operations(part: ir.Model) -> bytes:
    """The part without its weights' content, serialised."""
    proto = ir.to_proto(part)
    for tensor in proto.graph.initializer:
        tensor.ClearField("external_data")
        tensor.ClearField("raw_data")
    serialised: bytes = proto.SerializeToString(deterministic=True)
    return serialised
