"""Samples of every kind, their feature maps and labels, and the commands that take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sources import BERT, ROOT, TINY, Payload, cut, photographs

from planner import Bundle, InputSpec, ModelSource
from planner.errors import DocumentError, EdgecutError, InputError
from profiler.cut import relative_error
from profiler.inputs import label_of, model_samples, read_labels
from profiler.model import load_model
from profiler.samples import SampleStore, write_samples
from profiler.verify import verify
from runtime.cli import cli


def test_feature_maps_of_several_inputs(tmp_path: Path) -> None:
    model, made = cut(BERT)
    samples = list(model_samples(model, None, 5, []))
    assert len({sample.digest for sample in samples}) == 5
    write_samples(made, samples, tmp_path / "maps")
    store = SampleStore(tmp_path / "maps", made.chain)
    assert store.labels == (None,) * 5
    for k in range(len(made.chain)):
        for arrays, after in zip(store.inputs(k, 2, 2), store.inputs(k + 1, 2, 2), strict=True):
            batched = cut(BERT, 2)[1].module(Bundle(k, k + 1))
            found = batched(*map(torch.from_numpy, arrays))
            for have, want in zip(found, after, strict=True):
                assert relative_error(have, torch.from_numpy(want)) < 1e-5


def test_arrays_from_a_file(tmp_path: Path) -> None:
    model, made = cut(ModelSource("models:Recommender", max_tensors=2))
    arrays = {
        "user": np.random.default_rng(0).normal(size=(3, 4)),
        "history": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.int32),
        "unused": np.zeros((3, 2), np.float32),
    }
    np.savez(tmp_path / "in.npz", **arrays)
    samples = list(model_samples(model, tmp_path / "in.npz", 2, []))
    assert [array.dtype.name for array in samples[0].arrays] == ["int64", "float32", "float32"]
    write_samples(made, samples, tmp_path / "maps")
    (first, _) = SampleStore(tmp_path / "maps", made.chain).inputs(0, 1, 9)
    np.testing.assert_array_equal(first[0], [[1, 2, 3]])

    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    samples = list(model_samples(cut(TINY)[0], tmp_path / "images.npy", None, []))
    np.testing.assert_array_equal(samples[3].arrays[0][0], images[3])


def bad_arrays(folder: Path, case: str) -> Path:
    file, good = (
        folder / "in.npz",
        {"input_ids": np.zeros((2, 12), int), "attention_mask": np.ones((2, 12), int)},
    )
    cases = {
        "missing": {"input_ids": good["input_ids"]},
        "extra": {**good, "labels": np.zeros(2)},
        "shape": {**good, "input_ids": np.zeros((2, 13), int)},
        "dtype": {**good, "input_ids": np.zeros((2, 12))},
        "count": {**good, "input_ids": np.zeros((3, 12), int)},
        "none": {name: array[:0] for name, array in good.items()},
        "scalar": {**good, "input_ids": np.array(3)},
        "range": {**good, "input_ids": np.full((2, 12), 50)},
        "pickle": {**good, "input_ids": np.array([Payload(folder / "ran")], object)},
    }
    if case in cases:
        np.savez(file, **cases[case])
    elif case == "cut":
        np.savez(file, **good)
        file.write_bytes(file.read_bytes()[:300])
    elif case == "text":
        file.write_text("0,1,2")
    elif case == "one array":
        np.save(folder / "in.npy", good["input_ids"])
        return folder / "in.npy"
    return file


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing", "the model takes input_ids, attention_mask"), ("extra", "labels"), ("shape", r"\(2, 13\)"),
        ("dtype", "float64"), ("count", r"\[3, 2\] samples"), ("none", r"\(0, 12\)"), ("scalar", r"\(\)"),
        ("range", "fails on"), ("pickle", "no readable arrays"), ("cut", "no readable arrays"),
        ("text", "no readable arrays"), ("one array", "holds one array"), ("absent", "no readable arrays"),
    ],
)  # fmt: skip
def test_bad_arrays_are_refused(tmp_path: Path, case: str, says: str) -> None:
    model, made = cut(BERT)
    with pytest.raises(InputError, match=says):
        write_samples(made, list(model_samples(model, bad_arrays(tmp_path, case), 5, [])), tmp_path / "maps")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "maps").exists()


def test_labels_follow_the_images(tmp_path: Path) -> None:
    labels = ROOT / "samples" / "imagenette-labels.csv"
    classes = read_labels(labels)
    assert len(classes) == 10
    names = load_model(ModelSource("alexnet")).categories
    lines = [line.split(",") for line in labels.read_text().splitlines() if line.startswith("n")]
    assert all(names[int(index)] == name for _, index, name in lines)
    assert label_of(Path("a/church.jpg"), {"church": 497}) == 497

    model, made = cut(TINY)
    samples = list(model_samples(model, photographs(tmp_path / "in"), None, [], labels))
    write_samples(made, samples, tmp_path / "maps")
    store = SampleStore(tmp_path / "maps", made.chain)
    found = {Path(entry.source).name: entry.label for entry in store.manifest.samples}
    assert found == {
        "church.png": None, "holiday.png": None, "jump.png": 701, "n01440764_1.png": 0, "n02979186_2_7.png": 482,
    }  # fmt: skip
    assert [[store.labels[i] for i in pick] for pick in store.picks(2, 9)] == [[None, None], [0, 482]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n1", "line 1"),
        ("# note\nn1,0\nn2,minus", "line 3"),
        ("n1,-1", "line 1"),
        ("nothing,3", "names none"),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    folder = photographs(tmp_path / "in")
    with pytest.raises(InputError, match=says):
        list(model_samples(cut(TINY)[0], folder, None, [], tmp_path / "labels.csv"))
    with pytest.raises(InputError, match="image folder"):
        model_samples(cut(TINY)[0], None, None, [], tmp_path / "labels.csv")
    with pytest.raises(DocumentError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv")


def test_verifying_says_what_was_found() -> None:
    found = verify(BERT)
    assert found.passed
    assert found.family == "bert"
    assert found.cut_points >= found.layers - 1 > 0
    failed = verify(ModelSource("models:Noise", inputs=(InputSpec((4,)),)))
    assert not failed.passed
    assert "differs from the whole" in failed.reason


@pytest.mark.parametrize("suffix", [".md", ".csv"])
def test_verify_command(tmp_path: Path, suffix: str) -> None:
    table = tmp_path / "docs" / f"models{suffix}"
    names = ["models:Tiny", "models:Leaky", "models:Absent"]
    done = CliRunner().invoke(cli, ["verify", *names, "--input-shape", "3x32x32", "-o", str(table)])
    assert isinstance(done.exception, EdgecutError)
    assert "Leaky" in str(done.exception)
    text = table.read_text()
    assert all(name in text for name in names)
    assert "1 of 3 equal the whole" in done.output
    done = CliRunner().invoke(cli, ["verify", *names[:1], "--input-shape", "3x32x32"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify"], "name a model"),
        (["verify", "alexnet", "-o", "models.txt"], "must end in .md or .csv"),
        (["inspect", "alexnet", "--input-shape", "3y2"], "3x224x224"),
        (["inspect", "alexnet", "--input-shape", "3x2:float"], "unknown dtype"),
        (["inspect", "alexnet", "--input-shape", "a b=3x2"], "no name"),
        (["inspect", "alexnet", "--input-shape", "a=3", "--input-shape", "a=4"], "given twice"),
        (["inspect", "alexnet", "--config", "depth"], "KEY=VALUE"),
        (["inspect", "alexnet", "--config", "a=1", "--config", "a=2"], "given twice"),
        (["inspect", "alexnet", "--max-tensors", "0"], "0 is not in the range"),
        (["samples", "alexnet", "--images", ".", "--inputs", "a.npz"], "not both"),
    ],
)
def test_options_that_cannot_be_used(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace("\u2502", " ").split())


def test_samples_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(tmp_path / "in")
    given = ["models:Tiny", "--input-shape", "3x32x32", "-o", str(tmp_path / "maps")]
    labels = ["--labels", str(ROOT / "samples" / "imagenette-labels.csv")]
    done = CliRunner().invoke(cli, ["samples", *given, "--images", str(tmp_path / "in"), *labels])
    assert done.exit_code == 0, done.output
    assert "5 samples, 3 with their class" in done.output
    np.save(tmp_path / "in.npy", np.zeros((2, 3, 32, 32), np.float32))
    done = CliRunner().invoke(cli, ["samples", *given, "--inputs", str(tmp_path / "in.npy")])
    assert "2 samples" in done.output


def test_inspect_says_what_is_in_the_way() -> None:
    done = CliRunner().invoke(cli, ["inspect", "models:UNet", "--input-shape", "3x16x16"])
    assert "--max-tensors 2 would cut finer" in done.output
    done = CliRunner().invoke(
        cli, ["inspect", "models:UNet", "--input-shape", "3x16x16", "--max-tensors", "4"]
    )
    assert "would cut finer" not in done.output
