"""Weights from files and checkpoints: right, damaged and hostile ones."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sources import TINY, VIT, Payload

from planner import ModelSource
from planner.errors import InputError, ModelError
from profiler.cut import largest_difference
from profiler.model import load_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small vision transformer with trained-looking weights, as the library saves it."""
    folder = tmp_path_factory.mktemp("hf") / "vit"
    module = load_model(replace(VIT, seed=9)).module
    module.config.id2label = {0: "cat", 1: "dog"}
    module.save_pretrained(folder)
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def copied(folder: Path, to: Path, **files: bytes | None) -> ModelSource:
    """A checkpoint like ``folder`` with other files; its weights are to be used."""
    to.mkdir()
    for file in folder.iterdir():
        content = files.get(file.stem, file.read_bytes())
        if content is not None:
            (to / file.name).write_bytes(content)
    return ModelSource(f"hf:{to}", weights="default")


def test_a_checkpoint_has_its_weights(checkpoint: Path) -> None:
    trained = load_model(ModelSource(f"hf:{checkpoint}", weights="default"))
    assert (
        largest_difference(
            trained.run(trained.example()), load_model(replace(VIT, seed=9)).run(trained.example())
        )
        == 0
    )
    assert trained.categories == ("cat", "dog")
    assert trained.preparation
    assert trained.preparation.mean == (0.1, 0.2, 0.3)
    drawn = load_model(ModelSource(f"hf:{checkpoint}"))
    assert largest_difference(drawn.run(trained.example()), trained.run(trained.example())) > 0.01


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model": b'\x08\0\0\0\0\0\0\0{"a": 1'}, "cannot be read"),
        ({"model": b""}, "cannot be read"),
        ({"model": None}, "cannot be read"),
        ({"config": b"{"}, "cannot be read"),
        ({"config": b'{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}'}, "cannot be read"),
        ({"config": b'{"model_type": "vit"}'}, "names no architecture"),
        ({"config": b'{"model_type": "vit", "architectures": ["os"]}'}, "os"),
        ({"config": b'{"model_type": "vit", "architectures": ["BertModel"]}'}, "hf:|cannot|lacks"),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, files: dict[str, bytes | None], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        load_model(copied(checkpoint, tmp_path / "bad", **files))


def test_a_checkpoint_runs_no_code(checkpoint: Path, tmp_path: Path) -> None:
    source = copied(checkpoint, tmp_path / "bad", model=None)
    folder, mark = Path(source.name.removeprefix("hf:")), tmp_path / "ran"
    torch.save({"weight": Payload(mark)}, folder / "pytorch_model.bin")
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_evil.C",
        "AutoModelForImageClassification": "modeling_evil.M",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(source)
    assert not mark.exists()


def test_hostile_weight_files_run_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    program = torch.export.export(load_model(TINY).module, (torch.zeros(1, 3, 32, 32),))
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "renamed.pth").write_bytes((tmp_path / "net.pt2").read_bytes())
    torch.save(load_model(TINY).module.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-900])
    (tmp_path / "pickled.pth").write_bytes(pickle.dumps(Payload(mark)))
    torch.save(Payload(mark), tmp_path / "packed.pt")
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    (tmp_path / "large.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    torch.save({"head.weight": 3}, tmp_path / "numbers.pth")
    for name in (
        "net.pt2",
        "renamed.pth",
        "cut.pth",
        "pickled.pth",
        "packed.pt",
        "large.safetensors",
        "numbers.pth",
    ):
        with pytest.raises(ModelError, match=name):
            load_model(replace(TINY, weights=str(tmp_path / name)))
    assert not mark.exists()
