"""ONNX slices in every precision: right at every boundary, calibrated once, refused in words."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import Bundle, ModelSource
from planner.chain import InputSpec
from planner.errors import BundleError, DocumentError, ImageError, InputError
from planner.policy_file import load_policy
from planner.recipe import CALIBRATORS, Policy, Recipe
from profiler import backends
from profiler.accuracy import agreement, classes
from profiler.bundles import signal_to_noise_db
from profiler.calibration import LEAST_IMAGES, calibrate, least_error, squared_error, within
from profiler.cut import CutModel, cut_model
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.onnx_model import OnnxModel
from profiler.quantize import Target
from profiler.runner import Array, Setting
from profiler.samples import SampleStore, write_samples

SHAPES = {"models:Tiny": (3, 32, 32), "models:Views": (8, 12), "models:Masked": (4, 8)}
MIXED = Policy("name", "int8", {"head": "fp16", "features.0": "fp32"})


@functools.cache
def cut(name: str, max_layers: int | None = None) -> CutModel:
    inputs = (InputSpec(SHAPES[name]),) if name in SHAPES else ()
    return cut_model(load_model(ModelSource(name, inputs=inputs, max_layers=max_layers)))


@functools.cache
def store(name: str, count: int = 10) -> SampleStore:
    made = cut(name)
    folder = Path(tempfile.mkdtemp(prefix="edgecut-test-")) / "samples"
    write_samples(made, list(model_samples(load_model(made.chain.source), None, count, [])), folder)
    return SampleStore(folder, made.chain)


@functools.cache
def recipe(name: str, calibrator: str = "max") -> Recipe:
    return calibrate(cut(name), store(name), calibrator, 99.99)


def setting(name: str, precision: str) -> Setting:
    if precision in ("int8", "mixed"):
        return Setting(precision, recipe=replace(recipe(name), policy=MIXED))
    return Setting(precision)


def in_order(made: CutModel, chosen: Setting, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    backend = backends.find("onnxruntime", chosen.precision)(made, chosen)
    for place in range(len(made.chain)):
        with backend.runner(Bundle(place, place + 1)) as runner:
            arrays = runner(arrays)
    backend.close()
    return arrays


def at_once(made: CutModel, chosen: Setting, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    backend = backends.find("onnxruntime", chosen.precision)(made, chosen)
    with backend.runner(Bundle(0, len(made.chain))) as runner:
        found = runner(arrays)
    backend.close()
    return found


_open: list[OnnxModel] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def onnx_model(made: CutModel, chosen: Setting, target: Target = "cpu") -> OnnxModel:
    """Closed after the test."""
    _open.append(OnnxModel(made, chosen, target))
    return _open[-1]


# Least signal to noise against fp32, in dB, and against the same precision run in one piece.
CASES = [
    ("models:Tiny", "fp32", 100, 100), ("models:Tiny", "fp16", 50, 50), ("models:Tiny", "int8", 25, 60),
    ("models:Tiny", "mixed", 25, 50), ("models:Views", "fp16", 50, 50), ("models:Views", "int8", 25, 60),
    ("models:Masked", "fp16", 40, 40), ("resnet18", "fp16", 45, 45), ("resnet18", "int8", 20, 60),
    ("models:Masked", "int8", 20, 60),
]  # fmt: skip


@pytest.mark.parametrize(("name", "precision", "least_db", "least_chain_db"), CASES)
def test_slices_in_order_are_the_whole(
    name: str, precision: str, least_db: float, least_chain_db: float
) -> None:
    made, chosen = cut(name), setting(name, precision)
    arrays = store(name).inputs(0, 1, 1)[0]
    want = store(name).inputs(len(made.chain), 1, 1)[0]
    whole = at_once(made, chosen, arrays)
    found = in_order(made, chosen, arrays)
    against = signal_to_noise_db(list(zip(whole, want, strict=True)))
    between = signal_to_noise_db(list(zip(found, whole, strict=True)))
    assert against is None or against > least_db
    assert between is None or between > least_chain_db
    assert [array.dtype for array in found] == [np.float32]


def test_int8_is_int8_inside(tmp_path: Path) -> None:
    """Every convolution but none of the activation functions has its inputs and weights quantised."""
    made = cut("resnet18")
    model = onnx_model(made, setting("resnet18", "int8"))
    model.save(Bundle(0, len(made.chain)), tmp_path / "whole.onnx")
    graph = onnx.load(tmp_path / "whole.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 20
    for node in convolutions:
        assert [made_by[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    scales = {tensor.name: tensor for tensor in graph.initializer}
    per_channel = scales[made_by[convolutions[0].input[1]].input[1]]
    assert list(per_channel.dims) == [64]


def test_the_tensorrt_scheme_is_symmetric(tmp_path: Path) -> None:
    made = cut("resnet18")
    model = onnx_model(made, setting("resnet18", "int8"), "tensorrt")
    model.save(Bundle(0, len(made.chain)), tmp_path / "whole.onnx")
    graph = onnx.load(tmp_path / "whole.onnx").graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantising = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantising
    for node in quantising:
        zero = tensors[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    biases = [node.input[2] for node in graph.node if node.op_type == "Conv"]
    assert all(tensors[name].dtype == np.float32 for name in biases)


def test_weights_of_a_half_and_a_quarter() -> None:
    made, whole = cut("resnet18"), Bundle(0, len(cut("resnet18").chain))
    size = {}
    for precision in ("fp32", "fp16", "int8"):
        model = onnx_model(made, setting("resnet18", precision))
        size[precision] = model.weight_bytes(whole)
    assert size["fp16"] == pytest.approx(size["fp32"] / 2, rel=0.01)
    assert size["int8"] == pytest.approx(size["fp32"] / 4, rel=0.02)


def test_digests_tell_bundles_precisions_and_weights_apart(tmp_path: Path) -> None:
    made = cut("models:Tiny")
    found = {}
    for precision in ("fp32", "fp16", "int8"):
        model = onnx_model(made, setting("models:Tiny", precision))
        again = onnx_model(made, setting("models:Tiny", precision))
        for bundle in made.chain.bundles():
            assert model.digest(bundle) == again.digest(bundle)
            found[precision, bundle] = model.digest(bundle)
            model.save(bundle, tmp_path / "saved.onnx")
            assert model.nbytes(bundle) == pytest.approx((tmp_path / "saved.onnx").stat().st_size, abs=400)
    other = cut_model(load_model(replace(made.chain.source, seed=1)))
    found["seed"] = onnx_model(other, Setting()).digest(Bundle(0, 1))
    assert len(set(found.values())) == len(found)


def test_slices_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    model = onnx_model(cut("models:Tiny"), Setting())
    model.save(Bundle(0, 2), tmp_path / "a.onnx")
    assert str(Path(__file__).parent).encode() not in (tmp_path / "a.onnx").read_bytes()


# Calibration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_ranges_are_found_once_and_again_the_same(calibrator: str) -> None:
    first, most = recipe("models:Tiny", calibrator), recipe("models:Tiny")
    assert calibrate(cut("models:Tiny"), store("models:Tiny"), calibrator, 99.99) == first
    assert first.ranges.keys() == most.ranges.keys()
    for name, (low, high) in first.ranges.items():
        assert most.ranges[name][0] <= low <= high <= most.ranges[name][1]


def test_max_covers_all_that_occurred() -> None:
    made = cut("models:Tiny")
    for k in range(len(made.chain)):
        values = np.concatenate([arrays[0].ravel() for arrays in store("models:Tiny").inputs(k, 1, 99)])
        low, high = recipe("models:Tiny").ranges[f"boundary_{k}_0"]
        assert low <= values.min() + 1e-6
        assert values.max() - 1e-6 <= high


histograms = st.lists(st.integers(0, 1000), min_size=8, max_size=64).filter(any).map(
    lambda counts: (np.array(counts, float), np.linspace(-1.0, 1.0, len(counts) + 1))
)  # fmt: skip


@given(histograms)
def test_no_threshold_has_less_error_than_mse_chooses(histogram: tuple[np.ndarray, np.ndarray]) -> None:
    counts, edges = histogram
    centres = (edges[:-1] + edges[1:]) / 2
    chosen = squared_error(counts, centres, least_error(histogram))
    assert chosen <= min(squared_error(counts, centres, t) for t in np.abs(edges) if t > 0)


@given(histograms, st.floats(50.1, 100))
def test_percentile_keeps_that_share(histogram: tuple[np.ndarray, np.ndarray], percentile: float) -> None:
    counts, edges = histogram
    low, high = within(histogram, percentile)
    inside = counts[(edges[:-1] >= low) & (edges[1:] <= high)].sum()
    assert inside >= counts.sum() * percentile / 100 - 1e-6
    occupied = np.flatnonzero(counts)
    assert edges[occupied[0]] <= low + 1e-12 or percentile < 100
    assert edges[occupied[0]] - 1e-12 <= low
    assert high <= edges[occupied[-1] + 1] + 1e-12


@pytest.mark.parametrize("calibrator", ["entropy", "percentile", "mse"])
def test_too_few_images_are_refused(calibrator: str) -> None:
    few = store("models:Tiny", LEAST_IMAGES[calibrator] - 1)
    with pytest.raises(ImageError, match="needs 8 images or more"):
        calibrate(cut("models:Tiny"), few, calibrator, 99.99)


# Policies --------------------------------------------------------------------------------------------


def test_a_policy_by_name_and_by_type(tmp_path: Path) -> None:
    made, whole = cut("models:Tiny"), Bundle(0, len(cut("models:Tiny").chain))
    for policy, quantised, half in [
        (MIXED, ["node_conv2d_1"], ["node_linear"]),
        (
            Policy("type", "fp32", {"Gemm": "int8", "Conv": "fp16"}),
            ["node_linear"],
            ["node_conv2d", "node_conv2d_1"],
        ),
    ]:
        model = onnx_model(made, Setting("mixed", recipe=replace(recipe("models:Tiny"), policy=policy)))
        model.save(whole, tmp_path / "m.onnx")
        graph = onnx.load(tmp_path / "m.onnx").graph
        made_by = {name: node.op_type for node in graph.node for name in node.output}
        half_weights = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16}
        weighted = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
        assert [n.name for n in weighted if made_by.get(n.input[1]) == "DequantizeLinear"] == quantised
        assert [n.name for n in weighted if n.input[1] in half_weights] == half


def test_our_policy_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(
        'schema = "edgecut.policy/1"\nby = "name"\ndefault = "int8"\n[rules]\n"features.0" = "fp32"\nhead = "fp16"\n'
    )
    assert load_policy(file) == MIXED


def test_a_maser_policy_file(tmp_path: Path) -> None:
    file = tmp_path / "maser.toml"
    file.write_text(
        """
        [passes.tensorrt]
        by = "type"
        [passes.tensorrt.default.config]
        quantize = true
        calibrators = ["percentile", "mse"]
        percentiles = [99.0, 99.9]
        precision = "int8"
        [passes.tensorrt.linear.config]
        precision = "fp16"
        [passes.tensorrt.relu.config]
        quantize = false
        """
    )
    assert load_policy(file) == Policy("type", "int8", {"Gemm": "fp16", "Relu": "fp32"})
    file.write_text(
        """
        [passes.tensorrt]
        by = "name"
        [passes.tensorrt.default.config]
        precision = "int8"
        [passes.tensorrt.features_0.config]
        precision = "fp16"
        """
    )
    policy = load_policy(file)
    made = Setting("mixed", recipe=replace(recipe("models:Tiny"), policy=policy))
    onnx_model(cut("models:Tiny"), made)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("by = ", "is no TOML"),
        ('by = "name"\ndefault = "fp32"\n', "schema"),
        ('schema = "edgecut.policy/1"\nby = "name"\ndefault = "int4"\n', "int4"),
        ('schema = "edgecut.policy/1"\nby = "size"\ndefault = "fp32"\n', "size"),
        ('schema = "edgecut.policy/1"\nby = "name"\ndefault = "fp32"\nrule = 3\n', "unknown key"),
        ('[passes.tensorrt]\nby = "type"\n[passes.tensorrt.lstm.config]\nprecision = "int8"\n', "unknown type"),
        ('[passes.tensorrt]\nby = "type"\n[passes.tensorrt.default]\nconfig = 3\n', "expected a table"),
    ],
)  # fmt: skip
def test_broken_policies_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(DocumentError, match=says):
        load_policy(file)


def test_a_rule_that_matches_nothing_names_the_nearest() -> None:
    wrong = replace(recipe("models:Tiny"), policy=Policy("name", "int8", {"feature.0": "fp32"}))
    with pytest.raises(InputError, match=r"features\.0"):
        onnx_model(cut("models:Tiny"), Setting("mixed", recipe=wrong))


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "mixed"])
def test_int8_without_its_recipe_is_refused(precision: str) -> None:
    with pytest.raises(BundleError, match="needs calibrated ranges"):
        backends.find("onnxruntime", precision)(cut("models:Tiny"), Setting(precision))
    with pytest.raises(BundleError, match="needs a policy"):
        backends.find("onnxruntime")(cut("models:Tiny"), Setting("mixed", recipe=recipe("models:Tiny")))


def test_a_recipe_of_another_export_is_refused() -> None:
    foreign = replace(recipe("models:Tiny"), ranges={"val_1": (0.0, 1.0)})
    with pytest.raises(BundleError, match="profile again"):
        onnx_model(cut("models:Tiny"), Setting("int8", recipe=foreign))


def test_an_operator_without_a_kernel_is_named() -> None:
    backend = backends.find("onnxruntime", "bf16")(cut("models:Tiny"), Setting("bf16"))
    with contextlib.closing(backend), pytest.raises(BundleError, match=r"bundle \[0, 1\).*Conv"):
        backend.runner(Bundle(0, 1))


def test_a_weight_beyond_fp16_is_named() -> None:
    made = cut_model(load_model(ModelSource("models:heavy", inputs=(InputSpec((4,)),))))
    with pytest.raises(BundleError, match=r"weight \S*2\S* of Gemm .* holds 1\.0e\+05"):
        backends.find("onnxruntime", "fp16")(made, Setting("fp16"))


@pytest.mark.parametrize("damage", ["truncated", "text", "external", "empty"])
def test_a_damaged_or_hostile_file_is_refused(tmp_path: Path, damage: str) -> None:
    model = onnx_model(cut("models:Tiny"), Setting())
    file = tmp_path / "a.onnx"
    model.save(Bundle(0, 2), file)
    content = file.read_bytes()
    if damage == "external":
        secret = tmp_path / "secret.bin"
        secret.write_bytes(bytes(10_000))
        proto = onnx.load(file)
        weight = next(tensor for tensor in proto.graph.initializer if len(tensor.raw_data) > 800)
        entries = [("location", "secret.bin"), ("offset", "0"), ("length", str(len(weight.raw_data)))]
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries:
            weight.external_data.add(key=key, value=value)
        content = proto.SerializeToString()
    file.write_bytes({"truncated": content[:-500], "text": b"hello", "empty": b""}.get(damage, content))
    with pytest.raises(BundleError, match="ONNX Runtime refuses"):
        backends.find("onnxruntime").load(file, 1)


# A network with its trained weights ------------------------------------------------------------------


def test_int8_keeps_a_trained_networks_classes() -> None:
    name = "models:efficientnet_lite0"
    made = cut(name, 1)
    trained = load_model(made.chain.source)
    folder = Path(tempfile.mkdtemp(prefix="edgecut-test-")) / "samples"
    write_samples(made, list(model_samples(trained, None, 10, [])), folder)
    kept = SampleStore(folder, made.chain)
    ranges = calibrate(made, kept, "max", 100)
    backend = backends.find("onnxruntime", "int8")(made, Setting("int8", recipe=ranges))
    with backend.runner(Bundle(0, 1)) as runner:
        found = np.concatenate([runner(arrays)[0] for arrays in kept.inputs(0, 1, 10)])
    backend.close()
    want = np.concatenate([arrays[0] for arrays in kept.inputs(1, 1, 10)])
    assert agreement(classes([found]), classes([want])) >= 0.8
    assert signal_to_noise_db([(found, want)]) > 10
