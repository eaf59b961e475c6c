"""What runs on an NVIDIA GPU. Each test is skipped by name where none is visible."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from planner import Bundle, ModelSource
from planner.chain import InputSpec
from planner.recipe import Recipe
from profiler import backends, cuda
from profiler.bundles import largest_error, signal_to_noise_db
from profiler.calibration import calibrate
from profiler.cut import CutModel, cut_model
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.runner import Array, Backend, Setting
from profiler.samples import SampleStore, write_samples

pytestmark = pytest.mark.gpu

TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
ENGINES = [
    pytest.param(
        name, marks=pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"needs {package}")
    )
    for name, package in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx"))
]
GPU_BACKENDS = ["torch-cuda", "torch-compile-cuda", "onnxruntime-cuda", *ENGINES]
# Least signal over noise, in dB, of a network of three layers.
LEAST_DB = {"fp16": 45.0, "bf16": 30.0, "int8": 15.0}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def store(cut: CutModel, tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    folder = tmp_path_factory.mktemp("samples") / "tiny"
    write_samples(cut, list(model_samples(load_model(TINY), None, 6, [])), folder)
    return SampleStore(folder, cut.chain)


@pytest.fixture(scope="module")
def recipe(cut: CutModel, store: SampleStore) -> Recipe:
    return calibrate(cut, store, "max", 99.99)


def make(name: str, cut: CutModel, precision: str = "fp32", recipe: Recipe | None = None) -> Backend:
    return backends.find(name, precision)(cut, Setting(precision, recipe=recipe))


def results(backend: Backend, bundle: Bundle, store: SampleStore) -> list[tuple[Array, Array]]:
    """What a bundle gives, beside the stored feature maps, which PyTorch made on the CPU in fp32."""
    pairs = []
    with backend.runner(bundle) as runner:
        for inputs, wanted in zip(
            store.inputs(bundle.start, 1, 4), store.inputs(bundle.stop, 1, 4), strict=True
        ):
            pairs += list(zip(runner(inputs), wanted, strict=True))
    return pairs


@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_fp32_equals_torch_on_the_cpu(name: str, cut: CutModel, store: SampleStore) -> None:
    backend = make(name, cut)
    for bundle in cut.chain.bundles():
        assert max(largest_error(*pair) for pair in results(backend, bundle, store)) < 1e-4
    backend.close()


@pytest.mark.parametrize("precision", sorted(LEAST_DB))
@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_lower_precision_keeps_the_signal(
    name: str, precision: str, cut: CutModel, store: SampleStore, recipe: Recipe
) -> None:
    if precision not in backends.entry(name).precisions:
        pytest.skip(f"{name} has no {precision}")
    backend = make(name, cut, precision, recipe)
    found = signal_to_noise_db(results(backend, Bundle(0, len(cut.chain)), store))
    assert found is not None, "nothing differs from fp32: was it computed in fp32?"
    assert found > LEAST_DB[precision]
    backend.close()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_built_once(name: str, cut: CutModel) -> None:
    backend = make(name, cut)
    with backend.runner(Bundle(0, 2)) as first, backend.runner(Bundle(0, 2)) as second:
        assert first.artifact.build_s > 0 == second.artifact.build_s
        assert first.artifact.nbytes == second.artifact.nbytes
        assert first.artifact.layers
    backend.close()


@pytest.mark.parametrize("name", ENGINES)
def test_a_saved_bundle_is_loaded(name: str, cut: CutModel, store: SampleStore, tmp_path: Path) -> None:
    backend = make(name, cut)
    bundle = Bundle(1, len(cut.chain))
    backend.save(bundle, tmp_path / "bundle.onnx")
    (inputs,) = store.inputs(bundle.start, 1, 1)
    (wanted,) = store.inputs(bundle.stop, 1, 1)
    with type(backend).load(tmp_path / "bundle.onnx", 1) as runner:
        assert runner.inputs == cut.specs(bundle.start)
        assert largest_error(runner(inputs)[0], wanted[0]) < 1e-4
    backend.close()


@pytest.mark.parametrize("name", ENGINES)
def test_torch_and_engines_share_one_context(name: str, cut: CutModel, store: SampleStore) -> None:
    ones = torch.ones(1000, device="cuda")
    backend = make(name, cut)
    (inputs,) = store.inputs(0, 1, 1)
    with backend.runner(Bundle(0, len(cut.chain))) as runner:
        first = runner(inputs)
        twos = ones + ones
        copied = np.zeros(1000, np.float32)
        with cuda.current() as driver:  # an address of torch's is one of ours
            driver.memcpy_dtoh(copied, twos.data_ptr())
        assert np.all(copied == 2)
        np.testing.assert_array_equal(runner(inputs)[0], first[0])
    assert float((twos + ones).sum()) == 3000
    backend.close()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_runs_in_any_thread(name: str, cut: CutModel, store: SampleStore) -> None:
    backend = make(name, cut)
    (inputs,) = store.inputs(0, 1, 1)
    found: list[Array] = []
    with backend.runner(Bundle(0, len(cut.chain))) as runner:
        (expected,) = runner(inputs)
        thread = threading.Thread(target=lambda: found.extend(runner(inputs)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], expected)
    backend.close()


@pytest.mark.parametrize("name", ENGINES)
def test_device_memory_is_reported_and_given_back(name: str, cut: CutModel) -> None:
    backend = make(name, cut)
    whole = Bundle(0, len(cut.chain))

    def free_bytes() -> int:
        with cuda.current() as driver:
            free: int = driver.mem_get_info()[0]
            return free

    with backend.runner(whole) as runner:  # what the library itself takes stays
        assert runner.device_memory_bytes is not None
        assert runner.device_memory_bytes > runner.artifact.weight_bytes
    before = free_bytes()
    for _ in range(20):
        with backend.runner(whole):
            pass
    assert before - free_bytes() < 16 << 20
    backend.close()


@pytest.mark.parametrize("batch", [2, 8])
@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_batches(name: str, batch: int, store: SampleStore) -> None:
    batched = cut_model(load_model(TINY), batch)
    backend = make(name, batched)
    whole = Bundle(0, len(batched.chain))
    (inputs,) = store.inputs(0, batch, 1)
    (wanted,) = store.inputs(whole.stop, batch, 1)
    with backend.runner(whole) as runner:
        assert largest_error(runner(inputs)[0], wanted[0]) < 1e-4
    backend.close()
