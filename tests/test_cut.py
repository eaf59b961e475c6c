"""Cutting: the bundles, run one after the other in any grouping, are the whole network."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Bundle, EdgecutError, InputSpec, ModelSource
from planner.errors import ModelError, UnknownNameError
from profiler.cut import CutModel, cut_model, relative_error
from profiler.model import load_model

MODELS = [
    "alexnet", "vgg11", "resnet18", "resnet50", "densenet121", "googlenet", "mobilenet_v3_small",
    "efficientnet_b0", "vit_b_16", "swin_t", "convnext_tiny", "regnet_y_400mf",
]  # fmt: skip
LAYERS = {"alexnet": 8, "vgg11": 11, "resnet18": 10, "resnet50": 18, "vit_b_16": 26}
# Parameters as torchvision's documentation lists them.
PARAMETERS = {"alexnet": 61_100_840, "resnet18": 11_689_512, "resnet50": 25_557_032, "vit_b_16": 86_567_656}
TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))


@functools.cache
def tiny() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.mark.parametrize("name", MODELS)
def test_split_equals_whole(name: str) -> None:
    model = load_model(ModelSource(name))
    cut = cut_model(model)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    layers = len(cut.chain)
    with torch.inference_mode():
        whole = model.module(x)
        at = (x,)
        for start, stop in ((0, 1), (1, layers // 2), (layers // 2, layers - 1), (layers - 1, layers)):
            if start < stop:
                at = cut.module(Bundle(start, stop))(*at)
    assert whole.abs().max() > 0, "an output of zeros proves nothing"
    assert relative_error(at[0], whole) < 1e-5
    assert layers == LAYERS.get(name, layers)
    assert sum(layer.parameters for layer in cut.chain.layers) == PARAMETERS.get(
        name, sum(layer.parameters for layer in cut.chain.layers)
    )


def test_multiply_accumulates_are_those_published() -> None:
    # torchvision's documentation: 4.09 and 17.56 GFLOPS (it counts multiply-accumulates).
    for name, gmac in (("resnet50", 4.09), ("vit_b_16", 17.56)):
        chain = cut_model(load_model(ModelSource(name))).chain
        assert sum(layer.macs for layer in chain.layers) / 1e9 == pytest.approx(gmac, abs=0.01)


@settings(max_examples=25)
@given(st.sets(st.integers(1, 9)), st.integers(0, 2**31))
def test_any_grouping_equals_the_whole(cuts: set[int], seed: int) -> None:
    cut = operations()
    layers = len(cut.chain)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    ends = [k for k in sorted(cuts) if k < layers]
    with torch.inference_mode():
        (whole,) = cut.module(Bundle(0, layers))(x)
        at = (x,)
        for start, stop in zip([0, *ends], [*ends, layers], strict=True):
            before = [value.clone() for value in at]
            after = cut.module(Bundle(start, stop))(*at)
            assert all(torch.equal(a, b) for a, b in zip(before, at, strict=True)), "input overwritten"
            at = after
    assert torch.equal(at[0], whole)


@functools.cache
def operations() -> CutModel:
    return cut_model(load_model(replace(TINY, granularity="op")))


def test_granularities() -> None:
    assert [layer.name for layer in tiny().chain.layers] == ["features.0", "features.3", "head"]
    assert len(operations().chain) == 8
    joined = cut_model(load_model(replace(TINY, max_layers=2)))
    assert len(joined.chain) == 2
    assert sum(layer.macs for layer in joined.chain.layers) == sum(
        layer.macs for layer in tiny().chain.layers
    )


def test_counts_by_hand() -> None:
    first, second, head = tiny().chain.layers
    assert first.macs == 3 * 8 * 9 * 32 * 32
    assert (second.parameters, head.parameters) == (8 * 8 * 9 + 8 + 8 + 8, 8 * 16 * 16 * 5 + 5)
    assert [str(boundary) for boundary in tiny().chain.boundaries] == [
        "1x3x32x32 float32", "1x8x16x16 float32", "1x2048 float32", "1x5 float32",
    ]  # fmt: skip


def test_views_cross_boundaries() -> None:
    model = load_model(ModelSource("models:Views", inputs=(InputSpec((8, 12)),)))
    cut = cut_model(model, batch=3)
    x = torch.randn(3, 8, 12)
    with torch.inference_mode():
        at = (x,)
        for place in range(len(cut.chain)):
            at = cut.module(Bundle(place, place + 1))(*(value.contiguous() for value in at))
        assert relative_error(at[0], model.module(x)) < 1e-5
    assert str(cut.chain.boundaries[-1]) == "1x6x3 float32"


def test_digest_tells_weights_and_cuts_apart() -> None:
    same = cut_model(load_model(TINY))
    other = cut_model(load_model(replace(TINY, seed=1)))
    assert same.chain.digest == tiny().chain.digest
    assert len({tiny().chain.digest, other.chain.digest, operations().chain.digest}) == 3
    flat, steep = (
        cut_model(load_model(ModelSource(name, inputs=(InputSpec((4,)),))))
        for name in ("models:Leaky", "models:steep")
    )
    assert flat.chain.digest != steep.chain.digest


def test_one_tensor_as_two_outputs() -> None:
    chain = cut_model(load_model(ModelSource("models:Twice", inputs=(InputSpec((4,)),)))).chain
    assert str(chain.boundaries[-1]) == "1x4 float32 + 1x4 float32"


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (ModelSource("alexnt"), UnknownNameError, "alexnet"),
        (ModelSource("models:Absent"), ModelError, "Absent"),
        (ModelSource("models:Scalar", inputs=(InputSpec((4,)),)), ModelError, "single number"),
        (ModelSource("models:Nothing", inputs=(InputSpec((4,)),)), ModelError, "below 1"),
        (ModelSource("nowhere:Net"), ModelError, "nowhere"),
        (ModelSource("models:not_a_module"), ModelError, "returned int"),
        (ModelSource("models:Tiny", weights="default"), ModelError, "no default weights"),
        (replace(TINY, weights="missing.pth"), ModelError, "no such file"),
        (ModelSource("models:Stateful", inputs=(InputSpec((4,)),)), ModelError, "changes its state"),
        (ModelSource("models:Branching", inputs=(InputSpec((4,)),)), ModelError, "cannot be captured"),
        (ModelSource("models:Noise", inputs=(InputSpec((4,)),)), ModelError, "differs from the whole"),
    ],
)
def test_what_cannot_be_cut_says_why(source: ModelSource, kind: type[EdgecutError], says: str) -> None:
    with pytest.raises(kind, match=says):
        cut_model(load_model(source))


def test_a_batch_must_stay_the_first_axis() -> None:
    model = load_model(ModelSource("models:Fixed", inputs=(InputSpec((4,)),)))
    with pytest.raises(ModelError, match="batch of 2"):
        cut_model(model, batch=2)


def test_weights_from_a_file(tmp_path) -> None:
    from safetensors.torch import save_file

    state = load_model(replace(TINY, seed=7)).module.state_dict()
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        module = load_model(replace(TINY, weights=str(tmp_path / name))).module
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_are_refused(tmp_path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="no readable weight file"):
        load_model(replace(TINY, weights=str(file)))


def test_hostile_weights_run_no_code(tmp_path) -> None:
    class Hostile:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'pwned')!r}, 'w')",))

    torch.save({"head.weight": Hostile()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="no readable weight file"):
        load_model(replace(TINY, weights=str(tmp_path / "w.pth")))
    assert not (tmp_path / "pwned").exists()


def test_weights_of_another_model_are_refused(tmp_path) -> None:
    torch.save({"other": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="does not fit"):
        load_model(replace(TINY, weights=str(tmp_path / "w.pth")))


def test_a_download_that_fails_says_how_to_get_the_file(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="--weights alexnet"):
        load_model(ModelSource("alexnet", weights="default"))
