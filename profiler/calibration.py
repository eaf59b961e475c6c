"""Ranges for int8: once for a whole network, from its stored inputs.

Every image runs through the float network; of each tensor a histogram is kept, never the tensor itself.
A calibrator then says which part of the histogram int8 should cover:

- ``max``: all of it.
- ``percentile``: the given share of the values, tails cut off.
- ``entropy``: where the distribution loses least information, by Kullback-Leibler divergence (Migacz,
  "8-bit Inference with TensorRT", GTC 2017); ONNX Runtime's implementation, as for ``percentile``.
- ``mse``: where the mean squared error of rounding and clipping to 8 bits is least.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
from onnxruntime.quantization.calibrate import HistogramCollector

from planner.errors import BundleError, ImageError
from planner.recipe import Calibrator, Recipe
from profiler.capability import processor_features
from profiler.cut import CutModel
from profiler.onnx_model import export
from profiler.samples import SampleStore

Floats = npt.NDArray[np.float64]
Histogram = tuple[Floats, Floats]

# A histogram of fewer images says little about the tails that entropy, percentile and mse cut off.
LEAST_IMAGES: dict[Calibrator, int] = {"max": 1, "entropy": 8, "percentile": 8, "mse": 8}
_BINS = 1024
_LEVELS = 128
# Instructions that add four 8-bit products in 32 bits, by the kernel's names on x86-64 and ARM.
_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def calibrate(cut: CutModel, store: SampleStore, calibrator: Calibrator, percentile: float) -> Recipe:
    """The range of every floating-point tensor of the network, found on all stored inputs.

    Raises ``ImageError`` for too few images, ``BundleError`` where a tensor is not finite or the network
    cannot be exported.
    """
    least = LEAST_IMAGES[calibrator]
    if store.count < least:
        raise ImageError(
            f"calibrator {calibrator} needs {least} images or more, the samples hold {store.count}",
            "store more with `edgecut samples ... --count`, or pass --calibrator max",
        )
    collector = HistogramCollector("entropy", True, _BINS, _LEVELS, percentile, "same")
    extremes: dict[str, tuple[float, float]] = {}
    for values in _tensors(cut, store):
        for name, value in values.items():
            low, high = float(value.min()), float(value.max())
            if not np.isfinite([low, high]).all():
                raise BundleError(
                    f"tensor {name} is not finite on the stored feature maps", "check the weights"
                )
            before = extremes.get(name, (low, high))
            extremes[name] = min(before[0], low), max(before[1], high)
        if calibrator != "max":
            _silently(collector.collect, {name: [value] for name, value in values.items()})
    ranges = extremes
    if calibrator != "max":
        ranges = _cut_off(collector, calibrator, percentile, extremes)
    reduce_range = not processor_features() & _DOT_PRODUCT
    return Recipe(calibrator, percentile, ranges, reduce_range)


def _tensors(cut: CutModel, store: SampleStore) -> Any:
    """For each stored input, every floating-point tensor of the network by name."""
    model = export(cut.fused())
    graph = model.graph
    given = {value.name for value in graph.inputs}
    present = {value.name for value in graph.outputs}
    for node in graph:
        if node.op_type != "Constant":
            for value in node.outputs:
                if value.name not in present and value.dtype == ir.DataType.FLOAT:
                    graph.outputs.append(value)
    with tempfile.TemporaryDirectory(prefix="edgecut-calibration-") as folder:
        file = Path(folder) / "model.onnx"
        ir.save(model, file, external_data="weights.bin")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        for arrays in store.inputs(0, 1, store.count):
            feed = dict(zip(names, arrays, strict=True))
            found = dict(zip(outputs, session.run(None, feed), strict=True))
            found.update({name: array for name, array in feed.items() if name in given})
            yield {name: array for name, array in found.items() if array.dtype == np.float32 and array.size}


def _cut_off(
    collector: Any, calibrator: Calibrator, percentile: float, extremes: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Each tensor's range as the calibrator keeps it, never beyond what occurred."""
    ranges = {}
    for name, entry in collector.histogram_dict.items():
        histogram = np.asarray(entry[0], np.float64), np.asarray(entry[1], np.float64)
        low, high = extremes[name]
        if not low < high:
            ranges[name] = low, high
            continue
        if calibrator == "mse":
            most = least_error(histogram)
            kept = -most, most
        elif calibrator == "percentile":
            kept = within(histogram, percentile)
        else:
            found = _silently(collector.get_entropy_threshold, entry, _LEVELS)
            kept = float(found[0]), float(found[1])
        ranges[name] = max(low, kept[0]), min(high, kept[1])
    return ranges


def within(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The bins' edges between which ``percentile`` % of the values lie, as much cut off at each end."""
    counts, edges = histogram
    share = np.cumsum(counts) / counts.sum()
    tail = (1 - percentile / 100) / 2
    first = int(np.searchsorted(share, tail, side="right"))
    last = int(np.searchsorted(share, 1 - tail, side="left"))
    return float(edges[min(first, len(counts) - 1)]), float(edges[min(last, len(counts) - 1) + 1])


def least_error(histogram: Histogram) -> float:
    """The threshold whose 8-bit grid has the least mean squared error over the histogram."""
    counts, edges = histogram
    centres = (edges[:-1] + edges[1:]) / 2
    thresholds = np.unique(np.abs(edges))
    thresholds = thresholds[thresholds > 0]
    errors = [squared_error(counts, centres, float(threshold)) for threshold in thresholds]
    return float(thresholds[int(np.argmin(errors))])


def squared_error(counts: Floats, centres: Floats, threshold: float) -> float:
    """Of ``centres`` quantised to 127 steps up to ``threshold`` on each side."""
    step = threshold / 127
    kept = np.clip(np.round(centres / step), -127, 127) * step
    return float((counts * (centres - kept) ** 2).sum())


def _silently(work: Any, *arguments: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        return work(*arguments)
