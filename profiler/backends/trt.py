"""TensorRT and TensorRT for RTX: every bundle an engine, run through pycuda on the primary context."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.chain import Bundle
from planner.documents import file_digest
from planner.errors import BundleError, StorageError
from profiler import cuda
from profiler.engine_cache import Engine, EngineCache
from profiler.engines import TENSORRT, TENSORRT_RTX, Library, Source, find_or_build, layer_names, log_of
from profiler.runner import Array, Artifact, Backend, Runner, Setting

if TYPE_CHECKING:
    from profiler.cut import CutModel


class TensorRtRunner(Runner):
    """An engine with its context and buffers on the GPU; host arrays in, host arrays out."""

    def __init__(
        self, library: Library, cache: EngineCache, engine: Engine, build_s: float, weight_bytes: int
    ) -> None:
        record = engine.record
        gpu = cuda.require_gpu(f"backend {library.name}")
        inputs, outputs = (tuple(port.spec for port in ports) for ports in (record.inputs, record.outputs))
        trt, log = library.load(), log_of(library)
        log.clear()
        self._buffers: cuda.Buffers | None = None
        self._kernels: Any = None
        self._cache, self._about = cache, ("kernels", record.key.digest, str(gpu))
        with cuda.current() as driver:
            self._runtime = trt.Runtime(log.handle)
            self._engine = self._runtime.deserialize_cuda_engine(engine.blob)
            self._context = self._engine and self._create_context(library)
            if not self._context:
                raise BundleError(
                    f"{library.name} cannot load the engine on {gpu}: {log.reason}", "use another backend"
                )
            self._buffers = cuda.Buffers(driver, inputs, outputs)
            names = [port.name for port in (*record.inputs, *record.outputs)]
            for name, address in zip(names, self._buffers.addresses, strict=True):
                if not self._context.set_tensor_address(name, address):
                    raise BundleError(f"{library.name} refuses a buffer for tensor {name}: {log.reason}")
            inspector = self._engine.create_engine_inspector()
            layers = layer_names(inspector.get_engine_information(trt.LayerInformationFormat.ONELINE))
            self._device_memory_bytes = _memory_bytes(trt, self._engine, record.nbytes) + self._buffers.nbytes
        artifact = Artifact(record.nbytes, weight_bytes, build_s, layers=layers or record.layers)
        super().__init__(inputs, outputs, artifact)

    @property
    def device_memory_bytes(self) -> int:
        return self._device_memory_bytes

    def _create_context(self, library: Library) -> Any:
        if not library.portable:
            return self._engine.create_execution_context()
        # The kernels of a portable engine are compiled here; those of an earlier time are used again.
        config = self._engine.create_runtime_config()
        self._kernels = config.create_runtime_cache()
        if compiled := self._cache.note(*self._about):
            self._kernels.deserialize(compiled)
        config.set_runtime_cache(self._kernels)
        return self._engine.create_execution_context(config)

    def _run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        if self._buffers is None:
            raise BundleError("the bundle was closed before it ran")
        with cuda.current():
            return self._buffers.run(arrays, self._context.execute_async_v3)

    def close(self) -> None:
        if self._buffers is None:
            return
        with cuda.current():
            if self._kernels is not None:
                compiled = bytes(self._kernels.serialize())
                if compiled != self._cache.note(*self._about):
                    with suppress(StorageError):  # they are compiled again next time
                        self._cache.keep_note(compiled, *self._about)
            self._buffers.free()
            # In this order: each refers to the one after it.
            self._context = self._kernels = self._engine = self._runtime = self._buffers = None


def _memory_bytes(trt: Any, engine: Any, nbytes: int) -> int:
    """Activations and weights of a loaded engine; releases before 10.1 and 10.13 tell less."""
    activations = getattr(engine, "device_memory_size_v2", None)
    if activations is None:
        activations = engine.device_memory_size
    if hasattr(engine, "get_engine_stat"):
        nbytes = engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE)
    return int(activations) + int(nbytes)


class TensorRtBackend(Backend):
    """Engines for one GPU, built on it."""

    trt_library = TENSORRT

    def __init__(self, cut: CutModel, setting: Setting) -> None:
        super().__init__(cut, setting)
        self.trt_library.load()
        self.trt_library.target()
        # Only exporting needs torch; a device that loads a finished bundle does without.
        from profiler.onnx_model import OnnxModel

        self._cache = EngineCache(setting.cache)
        self._model = OnnxModel(cut, setting, target="tensorrt")

    def engine(self, bundle: Bundle) -> Engine:
        """The bundle's engine, kept or new. Raises ``BundleError`` where the library cannot build it."""
        return find_or_build(
            self.trt_library,
            self._cache,
            Source(
                f"bundle {bundle} in {self.setting.precision}",
                self._model.digest(bundle),
                lambda: self._model.slice(bundle),
                self.setting.precision,
                self.cut.batch,
            ),
        )

    def runner(self, bundle: Bundle) -> TensorRtRunner:
        cuda.require_gpu(f"backend {self.trt_library.name}")
        engine, build_s = _timed(lambda: self.engine(bundle))
        return TensorRtRunner(
            self.trt_library, self._cache, engine, build_s, self._model.weight_bytes(bundle)
        )

    def save(self, bundle: Bundle, file: Path) -> None:
        """Write the bundle as ONNX: an engine serves one device, which builds it when it loads the file."""
        self._model.save(bundle, file)

    @classmethod
    def load(cls, file: Path, threads: int) -> TensorRtRunner:
        """The engine of an ONNX file, built here unless it is in the cache; ``threads`` are the host's."""
        cls.trt_library.load()
        cuda.require_gpu(f"backend {cls.trt_library.name}")
        try:
            content, file_bytes = file_digest(file), file.stat().st_size
        except OSError as error:
            raise BundleError(f"{file} cannot be read: {error}", "deploy again; it is written anew") from None
        cache = EngineCache()
        source = Source(file.name, content, lambda: file, foreign=True)
        engine, build_s = _timed(lambda: find_or_build(cls.trt_library, cache, source))
        return TensorRtRunner(cls.trt_library, cache, engine, build_s, weight_bytes=file_bytes)

    def close(self) -> None:
        self._model.close()


class TensorRtRtxBackend(TensorRtBackend):
    """Engines for any recent RTX GPU, built anywhere and finished on the GPU that runs them."""

    trt_library = TENSORRT_RTX


def _timed(find: Callable[[], Engine]) -> tuple[Engine, float]:
    """An engine, and the seconds that building and keeping it took; none if it was there."""
    started = time.perf_counter()
    engine = find()
    if engine.unkept:
        warnings.warn(f"an engine is used but not kept: {engine.unkept}", stacklevel=3)
    return engine, 0.0 if engine.found else time.perf_counter() - started
