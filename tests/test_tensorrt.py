"""TensorRT engines, built for real without a GPU by TensorRT for RTX."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from planner.chain import Bundle, InputSpec, ModelSource, TensorSpec
from planner.documents import file_digest, read_document
from planner.errors import BundleError, EdgecutError, InputError, MissingDependencyError, StorageError
from planner.recipe import Calibration, Policy, Recipe
from profiler import cuda, engines
from profiler.backends.trt import TensorRtBackend, TensorRtRtxBackend
from profiler.cuda import Gpu
from profiler.cut import CutModel, cut_model
from profiler.engine_cache import SCHEMA, Engine, EngineCache, EngineKey, EngineRecord, Port, sha256
from profiler.engines import PORTABLE, TENSORRT, TENSORRT_RTX, Source, find_or_build, layer_names
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.recipes import calibrated
from profiler.runner import Setting
from profiler.samples import SampleStore, write_samples
from runtime.cli import cli

onnx = pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

ADA = Gpu("NVIDIA RTX 4090", (8, 9), "12.8")
HOPPER = Gpu("NVIDIA H200", (9, 0), "12.8")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    see_gpu(monkeypatch, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def see_gpu(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None) -> None:
    for module in (cuda, engines):
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of what is really built, as it happens."""
    built: list[str] = []
    real = engines._build

    def counted(library: Any, cache: Any, key: Any, source: Source) -> Engine:
        built.append(source.label)
        return real(library, cache, key, source)

    monkeypatch.setattr(engines, "_build", counted)
    return built


def conv_relu(file: Path, precision: str = "fp32", batch: int = 1) -> Path:
    """Write a convolution and its activation in a precision, fp32 at the rim."""
    helper, kind = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    nodes, data, weight = [], "x", "w"
    constants = {"w": weights}
    if precision == "fp16":
        constants["w"] = weights.astype(np.float16)
        nodes.append(helper.make_node("Cast", ["x"], ["half"], to=kind.FLOAT16))
        data = "half"
    elif precision == "int8":
        constants["w"] = np.clip(np.round(weights * 30), -127, 127).astype(np.int8)
        constants |= {"scale": np.float32(0.03), "zero": np.int8(0)}
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["dw"]),
        ]
        data, weight = "dq", "dw"
    nodes += [
        helper.make_node("Conv", [data, weight], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r" if precision == "fp16" else "y"], name="relu"),
    ]
    if precision == "fp16":
        nodes.append(helper.make_node("Cast", ["r"], ["y"], to=kind.FLOAT))
    return write(file, nodes, (batch, 3, 16, 16), (batch, 8, 16, 16), constants)


def write(
    file: Path,
    nodes: list[Any],
    taken: tuple[Any, ...],
    given: tuple[Any, ...] | None,
    constants: dict[str, Any] | None = None,
    kind: int = 1,
) -> Path:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, taken)],
        [helper.make_tensor_value_info("y", kind, given)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    file.write_bytes(model.SerializeToString())
    return file


def source_of(file: Path, **changes: Any) -> Source:
    return Source(file.stem, file_digest(file), lambda: file, **changes)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engine_of_each_precision(tmp_path: Path, cache: EngineCache, precision: str) -> None:
    engine = find_or_build(TENSORRT_RTX, cache, source_of(conv_relu(tmp_path / "net.onnx", precision)))
    record = engine.record
    assert not engine.found
    assert not engine.unkept
    assert record.nbytes == len(engine.blob) > 1000
    assert record.build_s > 0
    assert record.inputs == (Port("x", TensorSpec((1, 3, 16, 16))),)
    assert record.outputs == (Port("y", TensorSpec((1, 8, 16, 16))),)
    assert any("conv" in layer and "relu" in layer for layer in record.layers), record.layers


def test_second_time_it_is_found(tmp_path: Path, cache: EngineCache, builds: list[str]) -> None:
    source = source_of(conv_relu(tmp_path / "net.onnx"), precision="fp32", batch=1)
    first, second = (find_or_build(TENSORRT_RTX, cache, source) for _ in range(2))
    assert builds == ["net"]
    assert second == dataclasses.replace(first, found=True)


@pytest.mark.parametrize(
    "change",
    [
        {"content": "0" * 64},
        {"precision": "fp16"},
        {"batch": 2},
        {"trt_library": "tensorrt-rtx 9"},
        {"device": "x"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_difference_is_another_engine(cache: EngineCache, change: dict[str, Any]) -> None:
    engine = made_up()
    cache.keep(engine)
    assert cache.find(engine.record.key)
    assert cache.find(dataclasses.replace(engine.record.key, **change)) is None


def made_up(content: str = "1" * 64, blob: bytes = b"machine code") -> Engine:
    """An engine for tests of the cache, which never looks inside."""
    key = EngineKey(content, "fp32", 1, "tensorrt-rtx 1.7", PORTABLE)
    port = Port("x", TensorSpec((1, 3)))
    return Engine(EngineRecord(key, sha256(blob), len(blob), 0.5, ("conv",), (port,), (port,)), blob, False)


def test_library_version_is_in_the_key(
    tmp_path: Path, cache: EngineCache, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(conv_relu(tmp_path / "net.onnx"))
    find_or_build(TENSORRT_RTX, cache, source)
    monkeypatch.setattr(TENSORRT_RTX.load(), "__version__", "0.0.1")
    assert not find_or_build(TENSORRT_RTX, cache, source).found
    assert len(builds) == 2


def truncate(place: Path) -> None:
    file = place / "engine"
    file.write_bytes(file.read_bytes()[:100])


def flip(place: Path) -> None:
    blob = bytearray((place / "engine").read_bytes())
    blob[len(blob) // 2] ^= 1
    (place / "engine").write_bytes(blob)


def replace_by_another(place: Path) -> None:
    other = made_up("2" * 64)
    EngineCache(place.parent).keep(other)
    shutil.rmtree(place)
    (place.parent / other.record.key.digest).rename(place)


def cut_off_record(place: Path) -> None:
    (place / "engine.json").write_text((place / "engine.json").read_text()[:50])


def claim_digest(place: Path) -> None:
    (place / "engine").write_bytes(b"hostile")
    data = json.loads((place / "engine.json").read_text())
    data["key"]["device"] = "another"
    (place / "engine.json").write_text(json.dumps(data | {"digest": sha256(b"hostile")}))


@pytest.mark.parametrize(
    "damage",
    [
        truncate, flip, replace_by_another, cut_off_record, claim_digest, shutil.rmtree,
        lambda place: (place / "engine").unlink(),
        lambda place: (shutil.rmtree(place), place.write_text("a file")),
    ],
)  # fmt: skip
def test_what_is_damaged_or_foreign_is_built_again(
    tmp_path: Path, cache: EngineCache, builds: list[str], damage: Callable[[Path], object]
) -> None:
    source = source_of(conv_relu(tmp_path / "net.onnx"))
    engine = find_or_build(TENSORRT_RTX, cache, source)
    damage(cache.folder / engine.record.key.digest)
    assert not find_or_build(TENSORRT_RTX, cache, source).found
    assert len(builds) == 2
    assert find_or_build(TENSORRT_RTX, cache, source).found
    assert not list(cache.folder.glob(".new-*"))


def keep_often(folder: Path, blob: bytes) -> bool:
    """Keep an engine again and again; whatever is found meanwhile must be sound."""
    cache, engine = EngineCache(folder), made_up(blob=blob * 100_000)
    found = []
    for _ in range(40):
        cache.keep(engine)
        found.append(cache.find(engine.record.key))
    return any(found) and all(each is None or each.record.nbytes == len(each.blob) for each in found)


def test_processes_may_keep_the_same_engine_at_once(cache: EngineCache) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        kept = pool.starmap(keep_often, [(cache.folder, blob) for blob in (b"a", b"b", b"c")])
    assert all(kept)
    assert cache.find(made_up().record.key)
    assert not list(cache.folder.glob(".new-*"))


def build_in(folder: Path, file: Path) -> tuple[bool, int]:
    engine = find_or_build(TENSORRT_RTX, EngineCache(folder), source_of(file))
    return engine.found, engine.record.nbytes


def test_processes_may_build_the_same_engine_at_once(tmp_path: Path, cache: EngineCache) -> None:
    file = conv_relu(tmp_path / "net.onnx")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(build_in, [(cache.folder, file)] * 2)
    assert first[1] == second[1]
    assert build_in(cache.folder, file)[0]


@pytest.fixture
def full_disk() -> Iterator[None]:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_does_not_lose_the_engine(tmp_path: Path, cache: EngineCache) -> None:
    engine = find_or_build(TENSORRT_RTX, cache, source_of(conv_relu(tmp_path / "net.onnx")))
    assert len(engine.blob) > 20_000
    assert str(cache.folder) in engine.unkept
    assert not list(cache.folder.iterdir())


def test_a_cache_that_cannot_be_written_does_not_lose_the_engine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "engines")
    engine = find_or_build(TENSORRT_RTX, cache, source_of(conv_relu(tmp_path / "net.onnx")))
    assert engine.blob
    assert "cannot write" in engine.unkept


def test_notes_come_back_whole_or_not_at_all(cache: EngineCache) -> None:
    assert cache.note("timing", "a") == b""
    cache.keep_note(b"tactics", "timing", "a")
    cache.keep_note(b"more tactics", "timing", "a")
    assert cache.note("timing", "a") == b"more tactics"
    assert cache.note("timing", "b") == cache.note("kernels", "a") == b""
    (file,) = cache.folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.note("timing", "a") == b""


def test_an_operator_it_lacks_is_named_with_the_bundle(tmp_path: Path, cache: EngineCache) -> None:
    node = onnx.helper.make_node("Det", ["x"], ["y"], name="determinant")
    file = write(tmp_path / "net.onnx", [node], (1, 4, 4), None)
    with pytest.raises(BundleError, match=r"bundle \[1, 3\): operator Det \(node determinant\)"):
        find_or_build(TENSORRT_RTX, cache, dataclasses.replace(source_of(file), label="bundle [1, 3)"))


def relu(file: Path, **changes: Any) -> Path:
    given = {"taken": (1, 4), "given": (1, 4), **changes}
    return write(file, [onnx.helper.make_node("Relu", ["x"], ["y"])], **given)


def outside(file: Path, location: str) -> Path:
    """A network whose weights lie in another file."""
    (file.parent / "weights").write_bytes(bytes(16))
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    model = onnx.load(write(file, [node], (1, 4), (1, 4), {"w": np.zeros((1, 4), np.float32)}))
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file: file.write_bytes(b""), "no network"),
        (lambda file: file.write_bytes(bytes(range(256)) * 50), "cannot read net"),
        (lambda file: file.write_bytes(conv_relu(file).read_bytes()[:500]), "cannot read net"),
        (lambda file: outside(file, "weights"), "cannot read net"),
        (lambda file: outside(file, "../../../etc/passwd"), "cannot read net"),
        (lambda file: outside(file, "/etc/passwd"), "cannot read net"),
        (lambda file: relu(file, taken=("n", 4), given=("n", 4)), "."),
        (lambda file: relu(file, kind=8), "."),
    ],
)
def test_a_bad_file_is_refused(
    tmp_path: Path, cache: EngineCache, make: Callable[[Path], object], problem: str
) -> None:
    make(tmp_path / "net.onnx")
    with pytest.raises(BundleError, match=problem):
        find_or_build(TENSORRT_RTX, cache, source_of(tmp_path / "net.onnx", foreign=True))
    assert not cache.folder.exists()


def test_weights_beside_its_own_slice_are_read(tmp_path: Path, cache: EngineCache) -> None:
    assert find_or_build(TENSORRT_RTX, cache, source_of(outside(tmp_path / "net.onnx", "weights"))).blob


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TENSORRT_RTX.target() == PORTABLE
    with pytest.raises(BundleError, match="building engines with tensorrt needs an NVIDIA GPU"):
        TENSORRT.target()
    see_gpu(monkeypatch, ADA)
    assert TENSORRT_RTX.target() == PORTABLE  # what was built without a GPU serves here
    assert TENSORRT.target() == "NVIDIA RTX 4090, compute capability 8.9, CUDA driver 12.8"
    see_gpu(monkeypatch, HOPPER)
    assert TENSORRT_RTX.target() == str(HOPPER)


@pytest.mark.parametrize("backend", [TensorRtBackend, TensorRtRtxBackend])
def test_without_a_gpu_it_refuses_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: type[TensorRtBackend]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", TENSORRT_RTX.load())
    name = backend.trt_library.name
    with pytest.raises(BundleError, match=f"backend {name} needs an NVIDIA GPU") as found:
        backend.load(conv_relu(tmp_path / "net.onnx"), 1)
    assert found.value.remedy


@pytest.mark.parametrize("backend", [TensorRtBackend, TensorRtRtxBackend])
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: type[TensorRtBackend]
) -> None:
    library = backend.trt_library
    monkeypatch.setitem(sys.modules, library.package, None)
    with pytest.raises(MissingDependencyError, match=f"needs {library.package}") as found:
        backend.load(tmp_path / "net.onnx", 1)
    assert f"edgecut[{library.name}]" in found.value.remedy


def test_missing_pycuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpu(monkeypatch, ADA)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    cuda._primary.cache_clear()
    with pytest.raises(MissingDependencyError, match="pycuda"), cuda.current():
        pass


def test_layer_names() -> None:
    text = "\n".join(
        [
            "Layers:",
            "Name: fused_0, LayerType: correlation, Inputs: [ { Name: x }], TacticName: , StreamId: 0, "
            "Metadata: [ONNX Layer: a][ONNX Layer: b][ONNX Layer: a]",
            "Name: move_1, LayerType: kgen, Inputs: [], Metadata: ",
            "",
            "I/O Tensors:",
            " Name: x, IOMode: Input",
        ]
    )
    assert layer_names(text) == ("correlation(a + b)", "kgen(move_1)")
    assert layer_names("") == ()


TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def samples(cut: CutModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "tiny"
    write_samples(cut, list(model_samples(load_model(TINY), None, 8, [])), folder)
    return folder


def recipe_of(cut: CutModel, samples: Path, precision: str) -> Recipe | None:
    policy = Policy("type", "int8", {"Gemm": "fp16"}) if precision == "mixed" else None
    store = SampleStore(samples, cut.chain)
    return (
        calibrated(Calibration("max", policy=policy), cut, store) if precision in ("int8", "mixed") else None
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "mixed"])
def test_every_bundle_of_a_network(
    cut: CutModel, samples: Path, builds: list[str], tmp_path: Path, precision: str
) -> None:
    recipe = recipe_of(cut, samples, precision)
    sizes = []
    for _ in range(2):
        backend = TensorRtRtxBackend(cut, Setting(precision, recipe=recipe, cache=tmp_path / "engines"))
        for bundle in cut.chain.bundles():
            record = backend.engine(bundle).record
            assert tuple(port.spec for port in record.inputs) == cut.specs(bundle.start)
            assert tuple(port.spec for port in record.outputs) == cut.specs(bundle.stop)
            assert (record.key.precision, record.key.batch) == (precision, 1)
            assert record.layers
            sizes.append(record.nbytes)
        backend.close()
    # The second time, another export of the same network finds all of them.
    assert builds == [f"bundle {bundle} in {precision}" for bundle in cut.chain.bundles()]
    assert sizes[: len(sizes) // 2] == sizes[len(sizes) // 2 :]


@pytest.mark.parametrize("fused", [False, True])
def test_fusing_beforehand_leaves_no_batch_normalisation(cut: CutModel, tmp_path: Path, fused: bool) -> None:
    backend = TensorRtRtxBackend(cut, Setting(fused=fused, cache=tmp_path))
    layers = " ".join(backend.engine(Bundle(0, len(cut.chain))).record.layers)
    backend.close()
    assert ("batch_norm" in layers) == (not fused)


def test_a_saved_bundle_builds_where_it_arrives(cut: CutModel, cache: EngineCache, tmp_path: Path) -> None:
    backend = TensorRtRtxBackend(cut, Setting("fp16", cache=cache.folder))
    backend.save(Bundle(1, 3), tmp_path / "bundle.onnx")
    backend.close()
    record = find_or_build(TENSORRT_RTX, cache, source_of(tmp_path / "bundle.onnx", foreign=True)).record
    assert tuple(port.spec for port in record.inputs) == cut.specs(1)
    assert tuple(port.spec for port in record.outputs) == cut.specs(3)


def test_running_without_a_gpu_is_refused_before_anything_is_built(cut: CutModel, builds: list[str]) -> None:
    backend = TensorRtRtxBackend(cut, Setting())
    with pytest.raises(BundleError, match="backend tensorrt-rtx needs an NVIDIA GPU"):
        backend.runner(Bundle(0, 1))
    backend.close()
    assert not builds


def test_tensorrt_without_a_gpu_is_refused_before_anything_is_exported(
    cut: CutModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", TENSORRT_RTX.load())
    with pytest.raises(BundleError, match="building engines with tensorrt needs an NVIDIA GPU"):
        TensorRtBackend(cut, Setting())


MODEL = ["models:Tiny", "--input-shape", "3x32x32"]


def test_build_and_build_again(workdir: Path, samples: Path) -> None:
    command = ["build", *MODEL, "--precision", "fp32,int8", "--calibrator", "max", "--samples", str(samples)]
    for expected in ("12 engines built, 0 found, 0 failed", "0 engines built, 12 found, 0 failed"):
        done = CliRunner().invoke(cli, [*command, "--cache", "engines"], catch_exceptions=False)
        assert done.exit_code == 0
        assert expected in done.output
    assert len(list((workdir / "engines").iterdir())) == 12


def test_build_whole_networks_of_several_batches(workdir: Path) -> None:
    done = CliRunner().invoke(cli, ["build", *MODEL, "--whole", "--batch", "1,4"], catch_exceptions=False)
    assert "2 engines built" in done.output
    home = EngineCache().folder
    records = [read_document(EngineRecord, place / "engine.json", SCHEMA) for place in home.iterdir()]
    assert sorted(record.inputs[0].spec.shape for record in records) == [(1, 3, 32, 32), (4, 3, 32, 32)]
    assert sorted(record.key.batch or 0 for record in records) == [1, 4]


def test_build_goes_on_after_a_bundle_that_fails(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, builds: list[str]
) -> None:
    counted = engines._build

    def fails_once(library: Any, cache: Any, key: Any, source: Source) -> Engine:
        if "[1, 2)" in source.label:
            raise BundleError(f"tensorrt-rtx cannot build {source.label}: operator Det")
        return counted(library, cache, key, source)

    monkeypatch.setattr(engines, "_build", fails_once)
    done = CliRunner().invoke(cli, ["build", *MODEL], catch_exceptions=False)
    assert done.exit_code == 0
    assert "5 engines built, 0 found, 1 failed" in done.output
    assert "[1, 2), batch 1: tensorrt-rtx cannot build bundle [1, 2) in fp32: operator Det" in done.output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--backend", "torch"], InputError),
        (["--backend", "tensorrt"], MissingDependencyError),
        (["--cache", "/dev/null/engines"], StorageError),
        (["--precision", "int8"], EdgecutError),
    ],
)
def test_build_says_what_it_cannot(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: type[EdgecutError]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = CliRunner().invoke(cli, ["build", *MODEL, *arguments])
    assert isinstance(done.exception, error)
    assert done.exception.remedy
