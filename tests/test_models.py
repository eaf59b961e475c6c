"""Networks of every kind: what they take, and how they are cut."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import BERT, DISTILBERT, FOUR, TINY, UNET, VIT, chained, cut

from planner import InputSpec, ModelSource
from planner.errors import EdgecutError, ModelError, UnknownNameError
from profiler.cut import cut_model, largest_difference
from profiler.model import load_model, parse_config
from profiler.obstacle import cut_obstacle
from runtime.commands.options import parse_inputs

NETS = [
    ModelSource("models:Recommender", max_tensors=2),
    ModelSource("models:Recommender", granularity="op", max_tensors=3),
    ModelSource("models:Tied", inputs=(InputSpec((2, 6)),)),
    ModelSource("models:Aliases", inputs=(InputSpec((8,)),), max_tensors=3),
    replace(UNET, max_tensors=4),
    replace(UNET, granularity="op", max_tensors=9),
    BERT,
    replace(BERT, granularity="op"),
    ModelSource("models:Attention", granularity="op", inputs=(InputSpec((6, 8)),)),
    ModelSource("models:Choosing", granularity="op", config=("how=inside",), inputs=FOUR),
    ModelSource("models:Spectrum", granularity="op", inputs=FOUR),
    DISTILBERT,
    VIT,
]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("source", NETS, ids=lambda source: source.label)
def test_bundles_equal_the_whole(source: ModelSource, batch: int) -> None:
    model, made = cut(source, batch)
    inputs = model.example(batch, seed=5)
    whole = model.run(inputs)
    layers = len(made.chain)
    assert layers > 1
    assert all(output.abs().max() > 0 for output in whole), "an output of zeros proves nothing"
    for ends in ([layers], list(range(1, layers + 1)), [layers // 2, layers]):
        assert largest_difference(chained(made, inputs, ends), whole) < 1e-5
    for k in range(1, layers):
        assert len(made.chain.boundaries[k].tensors) <= source.max_tensors


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(1, 30)), st.integers(0, 2**31))
def test_any_grouping_of_a_masked_transformer(ends: set[int], seed: int) -> None:
    model, made = cut(replace(BERT, granularity="op"))
    layers = len(made.chain)
    inputs = model.example(1, seed)
    found = chained(made, inputs, [*(k for k in sorted(ends) if k < layers), layers])
    assert largest_difference(found, model.run(inputs)) < 1e-5


@given(st.integers(1, 6))
@settings(max_examples=6, deadline=None)
def test_more_tensors_never_cut_coarser(tensors: int) -> None:
    fewer, more = (
        cut(replace(UNET, granularity="op", max_tensors=limit))[1].chain for limit in (tensors, tensors + 1)
    )
    assert len(fewer) <= len(more)
    assert sum(layer.macs for layer in fewer.layers) == sum(layer.macs for layer in more.layers)


def test_published_sizes_of_bert() -> None:
    # BERT-base has 109.48 million parameters with its pooler (Devlin et al. count 110 million).
    model, made = cut(ModelSource("hf:BertModel", max_tensors=2))
    assert sum(parameter.numel() for parameter in model.module.parameters()) == 109_482_240
    assert sum(layer.parameters for layer in made.chain.layers) == 109_482_240
    assert str(made.chain.boundaries[0]) == "1x128 int64 + 1x128 int64"
    assert len(made.chain) >= 24
    assert made.cuts.points >= 60


def test_random_weights_are_seeded() -> None:
    first, again, other = (cut_model(load_model(replace(VIT, seed=seed))).chain.digest for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("source", "described", "boundaries"),
    [
        (
            ModelSource("models:Recommender"),
            ["history=1x3 int64", "user=1x4 float32", "unused=1x2 float32"],
            3,
        ),
        (BERT, ["input_ids=1x12 int64", "attention_mask=1x12 int64"], 2),
        (ModelSource("models:pretrained"), ["1x3x40x40 float32"], 1),
        (TINY, ["1x3x32x32 float32"], 1),
        (VIT, ["pixel_values=1x3x32x32 float32"], 1),
    ],
    ids=lambda value: value.name if isinstance(value, ModelSource) else None,
)
def test_what_a_network_takes(source: ModelSource, described: list[str], boundaries: int) -> None:
    model, made = cut(source)
    assert model.described == " + ".join(described)
    assert len(made.chain.boundaries[0].tensors) == boundaries


def test_integers_stay_where_the_embedding_has_rows() -> None:
    model = load_model(ModelSource("models:Recommender", config=("items=7",)))
    assert (model.inputs[0].low, model.inputs[0].high) == (0, 6)
    ids, mask = cut(BERT)[0].example(batch=64)
    assert 0 <= int(ids.min()) < int(ids.max()) == 49
    assert bool((mask == 1).all())


def test_images_are_prepared_as_timm_says() -> None:
    preparation = load_model(ModelSource("models:pretrained")).preparation
    assert preparation
    assert (preparation.resize, preparation.crop, preparation.interpolation) == (50, (40, 40), "bicubic")
    assert (preparation.mean, preparation.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


def test_categories_and_arguments() -> None:
    assert load_model(ModelSource("alexnet")).categories[217] == "English springer"
    smaller = load_model(ModelSource("alexnet", config=("num_classes=10",)))
    assert smaller.categories == ()
    assert str(cut_model(smaller).chain.boundaries[-1]) == "1x10 float32"
    model = load_model(ModelSource("efficientnet_lite_pytorch:EfficientNet.from_name", config=(
        "model_name=efficientnet-lite0",), inputs=(InputSpec((3, 64, 64)),)))  # fmt: skip
    assert len(cut_model(model).chain) > 20


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-1.5", -1.5), ("True", True), ("false", False), ("None", None), ("gelu", "gelu"), ("[1, 2]", [1, 2]),
     ("'3'", "3"), ("__import__('os')", "__import__('os')"), ("", ""), ("a=b", "a=b")],
)  # fmt: skip
def test_config_values(text: str, value: object) -> None:
    assert parse_config([f"key={text}"]) == {"key": value}


@given(
    st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    st.sampled_from(["float32", "int64", "bool"]),
    st.sampled_from(["", "input_ids", "x1"]),
)
def test_inputs_are_read_as_they_are_written(shape: list[int], dtype: str, name: str) -> None:
    spec = InputSpec(tuple(shape), dtype, name)
    assert parse_inputs(None, None, (str(spec),)) == (spec,)


@pytest.mark.parametrize(
    ("source", "kind", "says"),
    [
        (ModelSource("models:Tied"), ModelError, "does not say what it takes"),
        (ModelSource("models:Tied", inputs=(InputSpec((5,)),)), ModelError, r"models\.py:\d+: y = "),
        (ModelSource("models:Tied", inputs=(InputSpec((2, 6)), InputSpec((2,)))), ModelError, "captured"),
        (ModelSource("models:Tied", config=("depth=3",)), ModelError, "unexpected keyword"),
        (ModelSource("models:Recommender", inputs=(InputSpec((4,), name="usr"),)), ModelError, "usr"),
        (ModelSource("alexnet", inputs=(InputSpec((3,)),)), ModelError, "takes images"),
        (ModelSource("alexnet", config=("depth=3",)), ModelError, "depth"),
        (ModelSource("models:Choosing", config=("how=rows",), inputs=FOUR), ModelError, "shape that depends"),
        (ModelSource("models:Choosing", config=("how=way",), inputs=FOUR), ModelError, "operation cond"),
        (ModelSource("models:lazy", inputs=FOUR), ModelError, "cannot be used"),
        (ModelSource("hf:BertModl"), UnknownNameError, "BertModel"),
        (ModelSource("hf:AutoModel"), UnknownNameError, "AutoModel"),
        (replace(BERT, config=("layers=3",)), UnknownNameError, "layers"),
        (replace(BERT, config=("hidden_size=33",)), ModelError, "33"),
        (replace(BERT, weights="default"), ModelError, "no default weights"),
        (replace(BERT, inputs=(InputSpec((4,), "int64", "tokens"),)), UnknownNameError, "tokens"),
        (ModelSource("hf:./nothing"), ModelError, "no such folder"),
        (ModelSource("hf:nobody/nothing"), ModelError, "hf download nobody/nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_says_why(source: ModelSource, kind: type[EdgecutError], says: str) -> None:
    with pytest.raises(kind, match=says):
        cut_model(load_model(source))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (UNET, r"layer down\.1\.\.up\.1 .*2 or more tensors .* from max_pool2d \(models\.py.*; --max-tensors 2 would"),
        (replace(BERT, max_tensors=1), r"--max-tensors 2 would cut finer"),
        (ModelSource("models:Windows", inputs=(InputSpec((5, 4)),)),
         r"operation reshape \(models\.py:\d+\) drops the batch axis, it gives 5x4"),
        (TINY, None),
        (replace(UNET, max_tensors=4), None),
        (replace(TINY, max_layers=1), None),
    ],
)  # fmt: skip
def test_few_cuts_name_what_stands_in_the_way(source: ModelSource, says: str | None) -> None:
    found = cut_obstacle(cut(source)[1])
    if says is None:
        assert found is None
    else:
        assert re.search(says, found or ""), found
