"""PyTorch's backends: precisions, fusion, compiling, and the files they ship."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from planner import Bundle, ModelSource
from planner.chain import InputSpec
from planner.errors import BundleError
from profiler import backends
from profiler.bundles import largest_error, signal_to_noise_db
from profiler.cut import CutModel, cut_model
from profiler.fusion import check_fusion
from profiler.model import load_model
from profiler.runner import Array, Runner, Setting

TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
# Signal to noise that a precision keeps at least, in dB: half its significant bits' 6 dB, over few layers.
LEAST_DB = {"fp32": 100, "fp16": 50, "bf16": 30}


@functools.cache
def cut(name: str, granularity: str = "layer") -> CutModel:
    source = TINY if name == "tiny" else ModelSource(name)
    return cut_model(load_model(dataclasses.replace(source, granularity=granularity)))


def images(made: CutModel, seed: int = 0) -> tuple[Array, ...]:
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal(spec.shape).astype(spec.dtype) for spec in made.specs(0))


def whole(made: CutModel) -> tuple[Array, ...]:
    with torch.inference_mode():
        results = made.module(Bundle(0, len(made.chain)))(*map(torch.from_numpy, images(made)))
    return tuple(result.numpy() for result in results)


def in_order(made: CutModel, backend: str, setting: Setting) -> tuple[Array, ...]:
    made_by = backends.find(backend, setting.precision)(made, setting)
    at = images(made)
    for place in range(len(made.chain)):
        with made_by.runner(Bundle(place, place + 1)) as runner:
            at = runner(at)
    return at


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("precision", LEAST_DB)
@pytest.mark.parametrize("name", ["tiny", "resnet18"])
def test_bundles_in_order_are_the_network_in_that_precision(name: str, precision: str, fused: bool) -> None:
    made = cut(name)
    found = in_order(made, "torch", Setting(precision, fused))
    ratio = signal_to_noise_db(list(zip(found, whole(made), strict=True)))
    assert ratio is None or ratio > LEAST_DB[precision]
    assert (ratio is None) == (precision == "fp32" and not fused)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_bundles_are_the_network(precision: str) -> None:
    made = cut("tiny")
    found = in_order(made, "torch-compile", Setting(precision))
    ratio = signal_to_noise_db(list(zip(found, whole(made), strict=True)))
    assert ratio is None or ratio > LEAST_DB[precision]


def test_compiling_is_reported_apart() -> None:
    with backends.find("torch-compile")(cut("tiny"), Setting()).runner(Bundle(0, 2)) as runner:
        assert runner.artifact.build_s > 0
    with backends.find("torch")(cut("tiny"), Setting()).runner(Bundle(0, 2)) as runner:
        assert runner.artifact.build_s == 0


@pytest.mark.parametrize("precision", LEAST_DB)
@pytest.mark.parametrize("fused", [False, True])
def test_a_shipped_bundle_is_the_one_profiled(tmp_path: Path, precision: str, fused: bool) -> None:
    made = cut("tiny")
    backend = backends.find("torch", precision)(made, Setting(precision, fused))
    bundle, file = Bundle(0, len(made.chain)), tmp_path / "a.bundle"
    backend.save(bundle, file)
    with backend.runner(bundle) as here, type(backend).load(file, 1) as there:
        assert np.array_equal(here(images(made))[0], there(images(made))[0])
        assert here.artifact.nbytes == there.artifact.nbytes == file.stat().st_size
        assert here.artifact.weight_bytes == there.artifact.weight_bytes < file.stat().st_size
        if precision != "fp32" and not fused:
            full = backends.find("torch")(made, Setting()).runner(bundle).artifact
            assert here.artifact.weight_bytes == full.weight_bytes // 2


# How many batch normalisations each can take in: densenet's stand before their convolutions, but for
# the second of each layer's two and the stem's; alexnet has none.
@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 20), ("densenet121", 59), ("alexnet", 0), ("tiny", 1)]
)
def test_what_is_folded(name: str, count: int) -> None:
    made = cut(name)
    assert check_fusion(made, images(made)) == count


def test_nothing_is_folded_across_a_cut() -> None:
    made = cut("tiny", "op")
    names = [layer.name for layer in made.chain.layers]
    place = next(k for k, name in enumerate(names) if "batch_norm" in name)
    with torch.inference_mode():
        at = tuple(map(torch.from_numpy, images(made)))
        for bundle in (Bundle(0, place), Bundle(place, len(names))):
            at = made.fused().module(bundle)(*at)
    assert largest_error(at[0].numpy(), whole(made)[0]) < 1e-6


def test_a_folding_that_changes_the_outputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(weight: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        return weight, weight[:, 0, 0, 0]

    monkeypatch.setattr("profiler.fusion.fuse_conv_bn_weights", wrong)
    made = cut("tiny")
    with pytest.raises(BundleError, match="--no-fuse"):
        check_fusion(made, images(made))


def test_numbers_out_of_range_stay_finite_in_half_precision() -> None:
    """A mask adds the least fp32 number, which would be -inf in fp16."""
    made = cut_model(load_model(ModelSource("models:Masked", inputs=(InputSpec((4, 8)),))))
    (found,) = in_order(made, "torch", Setting("fp16"))
    assert np.isfinite(found).all()
    assert largest_error(found, whole(made)[0]) < 1e-2


def test_signal_to_noise_by_hand() -> None:
    want = np.array([3.0, 4.0], np.float32)
    assert signal_to_noise_db([(want, want)]) is None
    assert signal_to_noise_db([(want + np.float32(0.5), want)]) == pytest.approx(10 * np.log10(25 / 0.5))
    with pytest.raises(BundleError, match="NaN"):
        signal_to_noise_db([(want * np.float32("nan"), want)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("backend", ["torch-cuda", "torch-compile-cuda"])
def test_without_a_gpu_cuda_is_refused_by_name(backend: str) -> None:
    with pytest.raises(BundleError, match="no CUDA device"):
        backends.find(backend)(cut("tiny"), Setting())


def test_an_operation_that_fails_is_named() -> None:
    made = cut("tiny")
    runner: Runner = backends.find("torch")(made, Setting()).runner(Bundle(0, 1))
    runner.inputs = (dataclasses.replace(made.specs(0)[0], shape=(1, 5, 32, 32)),)
    with pytest.raises(BundleError, match="PyTorch cannot run the bundle"):
        runner([np.zeros((1, 5, 32, 32), np.float32)])
