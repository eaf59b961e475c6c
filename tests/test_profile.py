"""Samples and profiles: what is stored, what survives being killed, what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from planner import Bundle, Emulation, InputSpec, ModelSource, ProfileTable, Sidecar, TensorSpec, Variant
from planner.errors import (
    BundleError,
    DocumentError,
    EdgecutError,
    ImageError,
    InputError,
    MismatchError,
    ModelError,
    StorageError,
)
from planner.sidecar import DriftPoint
from planner.statistics import trimmed_mean
from planner.table import ProfileRow
from profiler import backends
from profiler.cut import CutModel, cut_model
from profiler.drift import drift
from profiler.images import default_pictures, folder_pictures, prepare
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.placement import available_cpus, placed, placement
from profiler.request import Key, ProfileRequest
from profiler.runner import Artifact, Runner, Setting, slowed
from profiler.samples import SampleStore, stored_bytes, write_samples
from profiler.session import Session, profile
from profiler.timing import (
    Measurement,
    Protocol,
    Visit,
    student_quantile,
    trimmed_mean_interval,
    visit,
    warm_up,
)

HOST_BACKENDS = [name for name in backends.NAMES if not backends.entry(name).gpu]
TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
TORCH = (Variant("torch"),)
QUICK = Protocol(rounds=1, visit_runs=3, visit_s=0, max_runs=3)


def make_samples(source: ModelSource, folder: Path, count: int = 4) -> CutModel:
    model = load_model(source)
    cut = cut_model(model)
    write_samples(cut, list(model_samples(model, None, count, [])), folder)
    return cut


def request(folder: Path, **changes: object) -> ProfileRequest:
    given = {
        "source": TINY,
        "device": "edge",
        "variants": (Variant("torch"), Variant("onnxruntime")),
        "batches": (1,),
        "samples": folder / "samples",
        "output": folder / "edge.csv",
        "placement": placement(threads=1),
        "protocol": QUICK,
    }
    return ProfileRequest(**{**given, **changes})


def test_every_bundle_is_measured_in_every_variant_and_batch(tmp_path: Path) -> None:
    cut = make_samples(TINY, tmp_path / "samples")
    summary = profile(request(tmp_path, batches=(1, 3)))
    table = ProfileTable.load([tmp_path / "edge.csv"])
    assert (summary.measured, summary.resumed) == (24, 0)
    for variant in (Variant("torch"), Variant("onnxruntime")):
        for batch in (1, 3):
            assert table.missing("edge", variant, batch) == []
    raw = [json.loads(line) for line in (tmp_path / "edge.samples.jsonl").read_text().splitlines()]
    assert len(raw) == len(table.rows)  # one visit each
    for line in raw:
        bundle, variant = Bundle(**line["bundle"]), Variant(**line["variant"])
        (row,) = [row for row in table.rows if row.key == ("edge", bundle, variant, line["batch"])]
        assert row.latency_s == pytest.approx(trimmed_mean(line["latency_s"]))
        assert line["start_ns"] < line["stop_ns"]
    assert table.chain == cut.chain
    assert profile(request(tmp_path, batches=(1, 3))).measured == 0


@pytest.mark.parametrize("keep", [0, 1, 300, 400, 700])
def test_a_half_written_table_resumes(tmp_path: Path, keep: int) -> None:
    make_samples(TINY, tmp_path / "samples")
    only = request(tmp_path, variants=TORCH)
    file = tmp_path / "edge.csv"
    profile(only)
    whole = ProfileTable.load([file])
    file.write_bytes(file.read_bytes()[:keep])
    if keep > 1:
        with pytest.raises(DocumentError, match=r"half-written|no row"):
            ProfileTable.load([file])
    profile(only)
    resumed = ProfileTable.load([file])
    assert [row.key for row in resumed.rows] == [row.key for row in whole.rows]
    # The visits of rows that were lost count again.
    assert len((tmp_path / "edge.samples.jsonl").read_text().splitlines()) == len(whole.rows)
    if keep > 1:
        assert [row.latency_s for row in resumed.rows] == [row.latency_s for row in whole.rows]


SCRIPT = """
import sys
from pathlib import Path
import test_profile
from profiler.session import profile
folder = Path(sys.argv[1])
profile(test_profile.request(folder, variants=test_profile.TORCH), lambda step: print("row", flush=True))
"""


@pytest.mark.parametrize(
    ("rows", "kill"),
    [
        (1, signal.SIGKILL),
        (5, signal.SIGINT),
        pytest.param(5, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_at_most_one_bundle_is_lost(tmp_path: Path, rows: int, kill: int) -> None:
    make_samples(TINY, tmp_path / "samples")
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent,
    )
    assert process.stdout
    seen = 0
    while seen < rows + 1:  # the first line says which bundles are passed over
        assert process.stdout.readline()
        seen += 1
    process.send_signal(kill)
    with process:
        process.wait(30)
    from planner.table import parse_rows

    text = (tmp_path / "edge.csv").read_text()
    assert len(parse_rows(text, "edge.csv", repair=True)) >= rows
    summary = profile(request(tmp_path, variants=TORCH))
    assert summary.resumed >= rows
    assert len(ProfileTable.load([tmp_path / "edge.csv"]).rows) == 6


def test_a_full_disk_keeps_what_was_measured(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from planner.errors import StorageError\n"
        "import test_profile\n"
        "from pathlib import Path\n"
        "from profiler.session import profile\n"
        "request = test_profile.request(Path(sys.argv[1]), variants=test_profile.TORCH)\n"
        "def shrink(step):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (900, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    profile(request, shrink)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True, text=True, cwd=Path(__file__).parent, check=True,
    )  # fmt: skip
    assert "rows are safe" in done.stdout
    assert "resumes" in done.stdout
    summary = profile(request(tmp_path, variants=TORCH))
    assert summary.resumed >= 1
    assert summary.resumed + summary.measured == 6


def test_two_profiles_on_one_table_are_refused(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")

    def again(step: object) -> None:
        with pytest.raises(MismatchError, match="another profile is writing"):
            profile(request(tmp_path))

    profile(request(tmp_path, variants=TORCH), again)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"source": ModelSource("models:Tiny", seed=1, inputs=(InputSpec((3, 32, 32)),))},
            "holds feature maps of",
        ),
        ({"placement": placement(threads=2)}, "threads: 1 then, 2 now"),
        ({"device": "nano"}, "holds rows of device 'edge'"),
        ({"samples": Path("nowhere")}, "no stored feature maps"),
        ({"variants": (Variant("torhc"),)}, "did you mean torch"),
        ({"variants": (Variant("torch", "fp31"),)}, "fp32"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    make_samples(TINY, tmp_path / "samples")
    profile(request(tmp_path, variants=TORCH))
    before = (tmp_path / "edge.csv").read_bytes()
    with pytest.raises(InputError, match=says):
        profile(request(tmp_path, **changes))
    assert (tmp_path / "edge.csv").read_bytes() == before


def test_a_foreign_file_is_not_overwritten(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    (tmp_path / "edge.csv").write_text("my,own\n1,2\n")
    with pytest.raises(DocumentError, match="not a profile table"):
        profile(request(tmp_path))
    assert (tmp_path / "edge.csv").read_text() == "my,own\n1,2\n"


def test_a_foreign_line_or_sidecar_is_not_overwritten(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    (tmp_path / "edge.csv").write_text("my only notes")
    with pytest.raises(DocumentError, match="not a profile table"):
        profile(request(tmp_path))
    assert (tmp_path / "edge.csv").read_text() == "my only notes"
    (tmp_path / "plan.json").write_text('{"schema": "edgecut.plan/1"}')
    with pytest.raises(DocumentError, match=r"edgecut\.profile/3"):
        profile(request(tmp_path, output=tmp_path / "plan.csv"))
    assert (tmp_path / "plan.json").read_text() == '{"schema": "edgecut.plan/1"}'


@pytest.mark.parametrize("name", HOST_BACKENDS)
@pytest.mark.parametrize("bundle", [Bundle(0, 1), Bundle(1, 3), Bundle(0, 3)])
def test_a_saved_bundle_is_the_bundle(tmp_path: Path, name: str, bundle: Bundle) -> None:
    cut = make_samples(TINY, tmp_path / "samples")
    store = SampleStore(tmp_path / "samples", cut.chain)
    (inputs,) = store.inputs(bundle.start, 1, 1)
    (expected,) = store.inputs(bundle.stop, 1, 1)
    backend = backends.find(name)(cut, Setting())
    backend.save(bundle, tmp_path / "bundle")
    with backend.runner(bundle) as direct, backends.find(name).load(tmp_path / "bundle", 1) as loaded:
        backend.close()
        assert (loaded.inputs, loaded.outputs) == (direct.inputs, direct.outputs)
        for runner in (direct, loaded):
            before = inputs[0].copy()
            np.testing.assert_allclose(runner(inputs)[0], expected[0], atol=1e-5)
            np.testing.assert_array_equal(inputs[0], before)
        with pytest.raises(BundleError, match="expected 1x"):
            loaded((inputs[0].astype(np.float64),))
        with pytest.raises(BundleError, match="expected 1 input"):
            loaded(())


@pytest.mark.parametrize(
    "model",
    [
        "resnet18",
        pytest.param("swin_t", marks=pytest.mark.slow),
        pytest.param("googlenet", marks=pytest.mark.slow),
        "mobilenet_v3_small",
    ],
)
def test_onnx_slices_equal_torch(model: str, tmp_path: Path) -> None:
    cut = make_samples(ModelSource(model), tmp_path / "samples", count=1)
    store = SampleStore(tmp_path / "samples", cut.chain)
    backend = backends.find("onnxruntime")(cut, Setting(threads=2))
    layers = len(cut.chain)
    for bundle in [
        *(Bundle(k, k + 1) for k in range(layers)),
        Bundle(0, layers),
        Bundle(layers // 3, layers),
    ]:
        (inputs,), (expected,) = store.inputs(bundle.start, 1, 1), store.inputs(bundle.stop, 1, 1)
        with backend.runner(bundle) as runner:
            (found,) = runner(inputs)
        assert np.abs(found - expected[0]).max() <= 1e-4 * np.abs(expected[0]).max(), bundle
    backend.close()


@pytest.mark.parametrize("name", HOST_BACKENDS)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "absent"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    cut = cut_model(load_model(TINY))
    backend = backends.find(name)(cut, Setting())
    file = tmp_path / "bundle"
    backend.save(Bundle(0, 2), file)
    backend.close()
    whole = file.read_bytes()
    changed = {"empty": b"", "cut": whole[: len(whole) // 2], "noise": os.urandom(2000)}
    file.unlink() if damage == "absent" else file.write_bytes(changed[damage])
    with pytest.raises(EdgecutError, match="bundle"):
        backends.find(name).load(file, 1)


@pytest.mark.parametrize(
    "operation", ["system.default", "__class__.mro", "conv2d.nonsense", "os;import os.default", "getitem.x"]
)
def test_a_bundle_names_only_operators(tmp_path: Path, operation: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    cut = cut_model(load_model(TINY))
    backends.find("torch")(cut, Setting()).save(Bundle(0, 1), tmp_path / "bundle")
    with safe_open(tmp_path / "bundle", "pt") as stored:
        metadata = stored.metadata()
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    graph = json.loads(metadata["graph"])
    graph["steps"][0]["operation"] = operation
    save_file(weights, tmp_path / "bundle", {**metadata, "graph": json.dumps(graph)})
    with pytest.raises(BundleError, match="no valid graph"):
        backends.find("torch").load(tmp_path / "bundle", 1)


def test_samples_are_the_feature_maps(tmp_path: Path) -> None:
    import torch

    cut = make_samples(TINY, tmp_path / "samples", count=5)
    store = SampleStore(tmp_path / "samples", cut.chain)
    assert store.count == 5
    files = sum(file.stat().st_size for file in (tmp_path / "samples").glob("*.npy"))
    assert files == stored_bytes(cut.chain, 5) + 128 * len(cut.chain.boundaries)
    for start in range(len(cut.chain)):
        for (inputs,), (outputs,) in zip(
            store.inputs(start, 2, 9), store.inputs(start + 1, 2, 9), strict=True
        ):
            for one, after in zip(inputs, outputs, strict=True):
                (found,) = cut.module(Bundle(start, start + 1))(torch.from_numpy(one[np.newaxis]))
                np.testing.assert_allclose(found[0].numpy(), after, atol=1e-6)
    assert len(store.inputs(0, 2, 9)) == 2
    assert store.inputs(0, 8, 9)[0][0].shape == (8, 3, 32, 32)


def test_damaged_samples_are_refused(tmp_path: Path) -> None:
    cut = make_samples(TINY, tmp_path / "samples")
    file = tmp_path / "samples" / "boundary_001_0.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"oops")
    with pytest.raises(DocumentError, match="differs from the manifest"):
        SampleStore(tmp_path / "samples", cut.chain).inputs(1, 1, 1)


def test_samples_never_replace_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.txt").write_text("keep me")
    with pytest.raises(StorageError, match="holds no samples"):
        make_samples(TINY, tmp_path / "photos")
    assert (tmp_path / "photos" / "holiday.txt").exists()


def test_samples_are_replaced_only_by_samples(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    cut = make_samples(TINY, folder)  # an empty folder may be filled
    make_samples(TINY, folder, count=2)
    assert SampleStore(folder, cut.chain).count == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["samples"]
    (folder / "app.js").write_text("mine")
    with pytest.raises(StorageError, match="holds more than samples"):
        make_samples(TINY, folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        make_samples(TINY, tmp_path / "file" / "samples")
    assert (folder / "app.js").read_text() == "mine"


def test_sixteen_bit_images_keep_their_brightness(tmp_path: Path) -> None:
    grey = np.full((40, 40), 65535 // 4, np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    (picture,) = folder_pictures(tmp_path, None, [])
    assert np.asarray(picture.pixels).mean() == pytest.approx(255 / 4, abs=1)


def test_a_network_that_takes_no_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no image becomes"):
        model_samples(load_model(ModelSource("models:Views", inputs=(InputSpec((8, 12)),))), tmp_path, 1, [])


def test_unreadable_images_are_skipped_by_name(tmp_path: Path) -> None:
    for place in range(3):
        Image.new("RGB", (60, 50), (place * 40, 10, 200)).save(tmp_path / f"{place}.jpg")
    Image.new("RGB", (60, 50)).save(tmp_path / "4.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    (tmp_path / "empty.jpeg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image")
    skipped: list[str] = []
    found = list(folder_pictures(tmp_path, None, skipped))
    assert len(found) == 4
    assert sorted(Path(line.split(":")[0]).name for line in skipped) == ["broken.png", "empty.jpeg"]
    for folder in (tmp_path / "none", tmp_path / "nothing"):
        with pytest.raises(ImageError):
            list(folder_pictures(folder, None, []))
        folder.mkdir(exist_ok=True)


def test_images_are_prepared_as_torchvision_does() -> None:
    import torch
    from torchvision import models

    model = load_model(ModelSource("resnet18"))
    assert model.preparation
    for picture in default_pictures(3):
        ours = prepare(picture, model.preparation, model.inputs[0].spec)
        theirs = models.get_model_weights("resnet18").DEFAULT.transforms()(picture.pixels)
        assert ours.shape == (1, 3, 224, 224)
        # Resampling weights differ in the last bits of 8-bit pixels.
        assert float(torch.from_numpy(ours[0]).sub(theirs).abs().max()) < 0.1


def test_default_images_are_the_same_every_time() -> None:
    first, second = ([picture.digest for picture in default_pictures(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 20


class Counting(Runner):
    def __init__(self) -> None:
        super().__init__((TensorSpec((1,)),), (TensorSpec((1,)),), Artifact(0, 0))
        self.seen: list[float] = []

    def _run(self, arrays):
        self.seen.append(float(arrays[0][0]))
        return (arrays[0],)


def counted(count: int) -> tuple[Counting, list[tuple[np.ndarray]]]:
    return Counting(), [(np.array([float(value)], np.float32),) for value in range(count)]


@pytest.mark.parametrize(("runs", "most"), [(1, 1), (3, 8), (20, 20)])
def test_a_visit_takes_the_feature_maps_in_turn(runs: int, most: int) -> None:
    runner, inputs = counted(5)
    protocol = Protocol(visit_runs=runs, visit_s=0, max_runs=most)
    found = visit(runner, inputs, 7, protocol)
    assert len(found.samples_s) == runs
    assert runner.seen == [7 % 5, *((7 + value) % 5 for value in range(runs))]
    assert min(found.samples_s) > 0
    assert found.start_ns < found.stop_ns
    endless = visit(runner, inputs, 0, Protocol(rounds=1, visit_runs=runs, visit_s=1e9, max_runs=most))
    assert len(endless.samples_s) == max(runs, most // 2)


def test_warm_up_ends() -> None:
    runner, inputs = counted(2)
    warm_up(runner, inputs, Protocol())
    assert 3 <= len(runner.seen) <= 50


def measured(*visits: list[float]) -> Measurement:
    return Measurement(tuple(Visit(tuple(samples), 1.0, 0.0, 0, 1) for samples in visits))


def test_the_interval_by_hand() -> None:
    # Visits' means 1, 2, 3: their deviation is 1, so the error is 1 / sqrt(3); t for 2 degrees is 4.3027.
    assert trimmed_mean_interval([[1.0], [2.0], [3.0]], share=0) == pytest.approx(4.3027 / 3**0.5)
    assert trimmed_mean_interval([[1.0, 2.0]]) is None
    # Ten samples, one at each end drawn in to its neighbour: an outlier does not widen the interval.
    calm = [[1.0, 1.1], [1.0, 1.1], [1.0, 1.1], [1.0, 1.1], [1.0, 1.1]]
    wild = [*calm[:-1], [1.0, 9.9]]
    assert trimmed_mean_interval(wild) == pytest.approx(trimmed_mean_interval(calm))


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_student_quantiles_are_those_of_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(freedom) == pytest.approx(quantile, abs=2e-3)


def test_a_measurement_settles_when_it_is_known_or_runs_are_spent() -> None:
    protocol = Protocol(precision=0.02, rounds=5, visit_runs=2, max_runs=20)
    calm, wild = [[1.0, 1.001]] * 5, [[1.0, 1.0], [1.5, 1.5]] * 5
    assert not measured(*calm[:4]).settled(protocol)
    assert measured(*calm).stable(protocol)
    assert measured(*calm).settled(protocol)
    assert not measured(*wild[:9]).settled(protocol)
    assert measured(*wild).settled(protocol)
    assert not measured(*wild).stable(protocol)
    assert not measured().settled(protocol)


def test_a_steady_bundle_is_stable_and_one_of_two_minds_is_not(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    loose = Protocol(precision=0.9, rounds=2, visit_runs=3, visit_s=0, max_runs=100)
    assert profile(request(tmp_path, variants=TORCH, protocol=loose)).unstable == []
    tight = Protocol(precision=1e-6, rounds=2, visit_runs=3, visit_s=0, max_runs=9)
    summary = profile(request(tmp_path, variants=TORCH, protocol=tight, output=tmp_path / "tight.csv"))
    assert len(summary.unstable) == 6
    rows = ProfileTable.load([tmp_path / "tight.csv"]).rows
    assert {(row.stable, row.runs) for row in rows} == {(False, 9)}
    raw = [json.loads(line) for line in (tmp_path / "tight.samples.jsonl").read_text().splitlines()]
    # Rounds: every bundle and variant is visited before one is visited again.
    seen = [str(line["bundle"]) + str(line["variant"]) for line in raw]
    assert len(seen) == 18
    assert all(len(set(seen[place : place + 6])) == 6 for place in (0, 6, 12))
    drift = Sidecar.load(tmp_path / "tight.json").drift
    assert len(drift) >= 1
    assert [point.at_s for point in drift] == sorted(point.at_s for point in drift)


@pytest.mark.parametrize(
    ("times", "change"),
    [([1.0] * 9, 0.0), ([1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.2, 1.2, 1.2], 0.2), ([1.0] * 5, None)],
)
def test_drift_is_the_change_of_the_reference(times: list[float], change: float | None) -> None:
    found = drift([DriftPoint(place, time) for place, time in enumerate(times)])
    assert found == (None if change is None else pytest.approx(change))


@pytest.mark.parametrize(
    ("samples", "mean"), [([1.0], 1.0), ([*range(1, 11)], 5.5), ([0.0, *[5.0] * 18, 1e9], 5.0)]
)
def test_trimmed_mean_by_hand(samples: list[float], mean: float) -> None:
    assert trimmed_mean(samples) == mean


def test_a_slowed_runner_waits() -> None:
    runner = slowed(Counting(), 3.0)
    before = time.monotonic()
    runner((np.array([1.0], np.float32),))
    assert time.monotonic() > before
    assert slowed(runner, 1) is runner


def test_placement_is_restored() -> None:
    import torch

    before, threads = available_cpus(), torch.get_num_threads()
    wanted = placement(Emulation(threads=1, cpus=(before[0],), slowdown=2.0))
    with placed(wanted):
        assert available_cpus() == (before[0],)
        assert torch.get_num_threads() == 1
    assert (available_cpus(), torch.get_num_threads()) == (before, threads)
    assert placement(Emulation(threads=1), threads=2).threads == 2
    with pytest.raises(InputError, match="no processor"):
        placement(cpus=(4095,))


def test_the_sidecar_names_the_conditions(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    asked = request(
        tmp_path,
        variants=TORCH,
        placement=placement(threads=1, cpus=(0,)),
        codecs=("raw", "zstd"),
    )
    profile(asked)
    rows = ProfileTable.load([tmp_path / "edge.csv"]).codecs
    assert [(row.boundary, row.codec) for row in rows] == [(boundary, "zstd") for boundary in range(4)]
    sidecar = Sidecar.load(tmp_path / "edge.json")
    assert sidecar.environment.threads == 1
    assert sidecar.environment.cpus == (0,)
    assert {"torch", "numpy"} <= set(sidecar.environment.libraries)


def test_a_session_measures_what_it_is_asked_for(tmp_path: Path) -> None:
    make_samples(TINY, tmp_path / "samples")
    with Session(request(tmp_path, variants=TORCH)) as session:
        whole = Key(Bundle(0, 3), TORCH[0], 1)
        (row,) = session.measure([whole, whole])
        assert isinstance(row, ProfileRow)
        assert (row.bundle, len(session.rows), len(session.missing())) == (whole.bundle, 1, 5)
        with pytest.raises(InputError, match="nobody asked for"):
            session.measure([Key(Bundle(0, 3), Variant("onnxruntime"), 1)])
    assert ProfileTable.load([tmp_path / "edge.csv"]).rows == (row,)
