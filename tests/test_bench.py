"""Bench: whole models side by side, with what each precision costs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from planner import ModelSource, Variant
from planner.chain import InputSpec
from planner.errors import InputError
from profiler.accuracy import accuracy, agreement, classes
from profiler.bench import Bench, BenchRequest, bench
from profiler.placement import placement
from profiler.timing import Protocol
from runtime.cli import cli
from runtime.reports.bench_report import write_bench

SOURCE = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
SHORT = Protocol(rounds=1, visit_runs=3, visit_s=0, max_runs=3)
TORCH, ORT, ORT_INT8 = Variant("torch"), Variant("onnxruntime"), Variant("onnxruntime", "int8")


def run(*variants: Variant, batches: tuple[int, ...] = (1,), **more: object) -> Bench:
    request = BenchRequest(SOURCE, variants, batches, placement(threads=1), SHORT, **more)
    return bench(request, [])


def test_every_variant_and_batch_stands_beside_pytorch() -> None:
    found = run(ORT, ORT_INT8, batches=(1, 3))
    assert [(each.row.variant, each.row.batch) for each in found.rows] == [
        (variant, batch) for batch in (1, 3) for variant in (TORCH, ORT, ORT_INT8)
    ]
    for each in found.rows:
        base = next(b for b in found.rows if (b.row.variant, b.row.batch) == (TORCH, each.row.batch))
        assert each.speed_up == base.row.latency_s / each.row.latency_s
        assert each.row.samples_per_s == each.row.batch / each.row.latency_s
        assert each.row.peak_memory_bytes is not None
        assert each.row.artifact_bytes
        assert each.row.weight_bytes
        assert each.predicted
    plain = found.rows[1].row
    quantised = found.rows[2].row
    assert plain.max_error is not None
    assert plain.max_error < 1e-4
    assert quantised.sqnr_db is not None
    assert 10 < quantised.sqnr_db < 60
    assert quantised.artifact_bytes < plain.artifact_bytes


def test_accuracy_where_classes_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a_1", "a_2", "b_1", "c_1"):
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(folder / f"{name}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("a,0\nb,1\n")
    (found,) = run(TORCH, inputs=folder, labels=labels).rows
    predicted = classes([np.eye(5)[[int(found.predicted.split()[1])]]])
    assert predicted is not None
    assert found.top1_agreement == 1
    assert found.accuracy in (0, 1 / 3, 2 / 3, 1)


def test_what_this_machine_lacks_is_left_out_by_name() -> None:
    found = run(TORCH, Variant("tensorrt-rtx"))
    assert [each.row.variant for each in found.rows] == [TORCH]
    assert "GPU" in found.lacking[Variant("tensorrt-rtx")]
    with pytest.raises(InputError, match="none of the variants"):
        run(Variant("tensorrt-rtx"))


def test_top1_by_hand() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert classes([scores]).tolist() == [1, 0, 1]
    assert classes([scores[:, :1]]) is None
    assert classes([scores[np.newaxis]]) is None
    assert agreement(np.array([1, 0, 1]), np.array([1, 1, 1])) == 2 / 3
    assert accuracy(np.array([1, 0, 1]), [1, None, 0]) == 0.5
    assert accuracy(np.array([1, 0, 1]), [None] * 3) is None


def test_files(tmp_path: Path) -> None:
    found = run(ORT, batches=(1, 2))
    table, picture = write_bench(SOURCE, found, tmp_path / "bench")
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    assert {"latency_s", "samples_per_s", "speed_up", "artifact_bytes", "top1_agreement"} <= rows[0].keys()
    assert float(rows[0]["speed_up"]) == 1
    with Image.open(picture) as opened:
        assert opened.width > 600


def test_the_four_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    arguments = [
        "bench",
        "models:Tiny",
        "--input-shape",
        "3x32x32",
        "--matrix",
        "fusion,backend",
        "--max-runs",
        "8",
    ]
    done = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path)], catch_exceptions=False)
    assert "fusion off" in done.output
    assert "fusion on" in done.output
    assert "onnxruntime fp32, ms" in done.output
    assert "fusing folds 1 batch normalisations" in done.output


def test_fusing_what_cannot_be_fused_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    arguments = [
        "bench",
        "models:Leaky",
        "--input-shape",
        "4",
        "--fuse",
        "--max-runs",
        "8",
        "-o",
        str(tmp_path),
    ]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert "fusing changed nothing" in done.output
