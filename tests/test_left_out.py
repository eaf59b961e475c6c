"""What a profile says of precisions, and what it leaves out by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_profile import TINY, make_samples, request

from planner import Bundle, Device, Fleet, ModelSource, ProfileTable, Sidecar, Variant, solve
from planner.chain import InputSpec
from planner.errors import BundleError, InputError, MismatchError
from planner.recipe import Calibration, Policy
from profiler.session import profile

TORCH, ORT, INT8, MIXED = Variant("torch"), *(Variant("onnxruntime", p) for p in ("fp32", "int8", "mixed"))


def test_every_row_says_what_its_precision_costs(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples", count=8)
    policy = Policy("name", "int8", {"head": "fp16"})
    calibration = Calibration("percentile", 99.9, policy)
    profile(request(tmp_path, variants=(TORCH, ORT, INT8, MIXED), calibration=calibration))
    table = ProfileTable.load([tmp_path / "edge.csv"])
    assert table.recipes["edge"].policy == policy
    assert table.recipes["edge"].calibrator == "percentile"
    weights = [layer.weight_bytes for layer in table.chain.layers]
    for row in table.rows:
        assert row.samples_per_s == 1 / row.latency_s
        assert row.peak_memory_bytes is not None
        assert row.load_s >= 0
        assert row.weight_bytes < row.artifact_bytes
        assert row.max_error is not None
        if row.variant == TORCH:
            assert row.weight_bytes == sum(weights[row.bundle.start : row.bundle.stop])
        if row.variant in (TORCH, ORT):
            assert row.max_error < 1e-5
            assert row.sqnr_db is None or row.sqnr_db > 100
        else:
            assert 20 < row.sqnr_db < 80
    assert profile(request(tmp_path, variants=(INT8,), calibration=calibration)).measured == 0
    with pytest.raises(MismatchError, match="another calibration or policy"):
        profile(request(tmp_path, variants=(INT8,), calibration=Calibration("max")))


def test_a_variant_that_this_machine_lacks_is_left_out(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    rtx = Variant("tensorrt-rtx", "fp16")
    summary = profile(request(tmp_path, variants=(TORCH, rtx)))
    assert summary.measured == 6
    assert "GPU" in summary.lacking[rtx]
    with pytest.raises(InputError, match="none of the variants asked for"):
        profile(request(tmp_path, variants=(rtx,), output=tmp_path / "other.csv"))


def test_a_bundle_out_of_range_is_left_out_and_the_plan_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer's values are beyond fp16: bundles that compute them in fp16 are left out, the others stay."""
    source = ModelSource("models:Large", inputs=(InputSpec((8,)),))
    make_samples(source, tmp_path / "samples")
    half = Variant("torch", "fp16")
    monkeypatch.setattr("profiler.request.obstacle", lambda *variant: None)  # slow here, but it runs
    summary = profile(request(tmp_path, source=source, variants=(ORT, half)))
    bundles = {entry.bundle for entry in summary.left_out}
    assert Bundle(2, 3) not in bundles
    assert Bundle(1, 2) in bundles
    assert all("NaN or infinity" in entry.reason for entry in summary.left_out)
    table = ProfileTable.load([tmp_path / "edge.csv"])
    assert {entry.bundle for entry in table.left_out["edge"]} == bundles
    assert set(table.missing("edge", half, 1)) == bundles
    fleet = Fleet("edge", "edge", (Device("edge"),), ())
    plan = solve(table.chain, fleet, table, objective="latency")
    assert not any(stage.variant == half and stage.bundle in bundles for stage in plan.stages)
    assert any("torch fp16 cannot run" in note for note in plan.notes)


def test_a_network_that_a_backend_cannot_take_leaves_the_others(tmp_path: Path) -> None:
    source = ModelSource("models:Bessel", inputs=(InputSpec((4,)),))
    make_samples(source, tmp_path / "samples")
    summary = profile(request(tmp_path, source=source, variants=(TORCH, ORT)))
    assert {entry.variant for entry in summary.left_out} == {ORT}
    assert all("bessel" in entry.reason for entry in summary.left_out)
    assert len(ProfileTable.load([tmp_path / "edge.csv"]).rows) == summary.measured > 0
    with pytest.raises(BundleError, match="bessel"):
        profile(request(tmp_path, source=source, variants=(ORT,), output=tmp_path / "other.csv"))


def test_a_bundle_measured_later_is_no_longer_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_samples(TINY, tmp_path / "samples")
    monkeypatch.setattr("profiler.bundles.FP32_TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="differs from the stored feature maps"):
        profile(request(tmp_path, variants=(TORCH,)))
    assert len(Sidecar.load(tmp_path / "edge.json").left_out) == 6
    monkeypatch.undo()
    assert profile(request(tmp_path, variants=(TORCH,))).measured == 6
    assert Sidecar.load(tmp_path / "edge.json").left_out == ()
