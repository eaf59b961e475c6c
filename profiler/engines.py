"""TensorRT engines: built from a bundle's ONNX, and kept.

::

    ONNX of the bundle --> key --> kept for this key? --yes--> bytes as recorded? --yes--> engine
                                        |no                          |no
                                        +---------> build <----------+
                                                      |
                                                      +--> keep (whole or not at all) --> engine

An engine is machine code: one that is damaged, or was not made for exactly this key, is built again and
never handed to the library. Networks are strongly typed, so precision is in the ONNX alone.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.chain import TensorSpec
from planner.errors import BundleError, MissingDependencyError, StorageError
from profiler.cuda import find_gpu, require_gpu
from profiler.engine_cache import Engine, EngineCache, EngineKey, EngineRecord, Port, sha256

PORTABLE = "compute capability 8.0, 8.6, 8.9, 12.0 and later"
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32",
    "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
# A log and its builder serve one build at a time.
_one_build = threading.Lock()


@dataclass(frozen=True)
class Library:
    """TensorRT, or TensorRT for RTX: one API under two names.

    ``portable``: engines are built without a GPU, run wherever ``PORTABLE`` says, and are finished on
    the GPU that loads them. Others are built on, and for, one GPU.
    """

    name: str
    package: str
    portable: bool

    def load(self) -> Any:
        """The Python module. Raises ``MissingDependencyError``."""
        try:
            return importlib.import_module(self.package)
        except ImportError as error:
            raise MissingDependencyError(self.package, f"backend {self.name}", self.name) from error

    def target(self) -> str:
        """What an engine built here runs on. Raises ``BundleError`` where building takes a GPU."""
        if not self.portable:
            return str(require_gpu(f"building engines with {self.name}"))
        gpu = find_gpu()
        if gpu is None or gpu.capability in ((8, 0), (8, 6), (8, 9)) or gpu.capability >= (12, 0):
            return PORTABLE
        return str(gpu)


TENSORRT = Library("tensorrt", "tensorrt", portable=False)
TENSORRT_RTX = Library("tensorrt-rtx", "tensorrt_rtx", portable=True)


@dataclass(frozen=True)
class Source:
    """A bundle as ONNX: ``content`` is its SHA-256, and ``file`` writes it where it is needed.

    ``label`` names it in messages. ``foreign``: it came from elsewhere and may refer to no other file.
    ``precision`` and ``batch`` are None where only the file itself says them.
    """

    label: str
    content: str
    file: Callable[[], Path]
    precision: str | None = None
    batch: int | None = None
    foreign: bool = False


class Log:
    """What a library says: its errors, and the layers of the engine it built last."""

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        self.layers: tuple[str, ...] = ()
        self._gravest = int(trt.ILogger.Severity.ERROR)
        # The base class exists only once the library is loaded.
        methods = {
            "__init__": lambda handle: trt.ILogger.__init__(handle),
            "log": lambda handle, severity, message: self._hear(int(severity), message),
        }
        self.handle = type("EdgecutLog", (trt.ILogger,), methods)()

    def _hear(self, severity: int, message: str) -> None:
        if severity <= self._gravest:
            self.errors.append(message)
        elif "LayerType: " in message:
            self.layers = layer_names(message)

    def clear(self) -> None:
        self.errors.clear()
        self.layers = ()

    @property
    def reason(self) -> str:
        """The first error, on one line."""
        return " ".join(self.errors[0].split())[:400] if self.errors else "it gives no reason"


@functools.cache
def log_of(library: Library) -> Log:
    """The library's log. It keeps the first one it is given, so there is one for the process."""
    return Log(library.load())


def layer_names(text: str) -> tuple[str, ...]:
    """The layers in the text of an engine inspector: kind of kernel, and the ONNX nodes fused into it."""
    names = []
    for name, kind, rest in re.findall(r"^Name: (.*?), LayerType: (\w+)(.*)$", text, re.MULTILINE):
        nodes = dict.fromkeys(re.findall(r"\[ONNX Layer: ([^\]]*)\]", rest))
        names.append(f"{kind}({' + '.join(nodes) or name})")
    return tuple(names)


def find_or_build(library: Library, cache: EngineCache, source: Source) -> Engine:
    """The engine of ``source`` for this machine, kept or new.

    Raises ``BundleError``, naming the operator where there is one, if the library cannot build it. A
    new engine that could not be kept is given all the same and says why in ``unkept``.
    """
    trt = library.load()
    library_version = f"{library.name} {trt.__version__}"
    key = EngineKey(source.content, source.precision, source.batch, library_version, library.target())
    with _one_build:
        kept = cache.find(key)
        if kept is not None:
            return kept
        try:
            engine = _build(library, cache, key, source)
        except (RuntimeError, TypeError, MemoryError) as error:  # what its bindings raise
            raise BundleError(f"{library.name} failed on {source.label}: {error}") from error
    try:
        cache.keep(engine)
    except StorageError as error:
        return replace(engine, unkept=error.message)
    return engine


def _build(library: Library, cache: EngineCache, key: EngineKey, source: Source) -> Engine:
    trt, log = library.load(), log_of(library)
    log.clear()
    started = time.perf_counter()
    builder = trt.Builder(log.handle)
    # Asked for in TensorRT 10; in 11 there is no other mode.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    # The network refers to weights that the parser holds: it must outlive the build.
    parser = trt.OnnxParser(network, log.handle)
    _parse(library, parser, network, source)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 is to mean fp32
    if library.portable and key.device != PORTABLE:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
    if not library.portable:  # a portable engine is tuned when it is loaded, and timing has no use
        about = ("timing", key.trt_library, key.device)
        timing = config.create_timing_cache(cache.note(*about))
        if not config.set_timing_cache(timing, ignore_mismatch=False):
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(
            f"{library.name} cannot build {source.label}: {log.reason}", "use another precision or backend"
        )
    if not library.portable:
        with suppress(StorageError):  # the next build is slower, nothing else
            cache.keep_note(bytes(config.get_timing_cache().serialize()), *about)
    blob = bytes(plan)
    inputs = tuple(_port(network.get_input(i), source) for i in range(network.num_inputs))
    outputs = tuple(_port(network.get_output(i), source) for i in range(network.num_outputs))
    build_s = time.perf_counter() - started
    record = EngineRecord(key, sha256(blob), len(blob), build_s, log.layers, inputs, outputs)
    return Engine(record, blob, found=False)


def _parse(library: Library, parser: Any, network: Any, source: Source) -> None:
    file = source.file()
    if source.foreign:
        # Other files are looked for beside the path it is given: below a file, there are none.
        parsed = parser.parse(file.read_bytes(), str(file / "none"))
    else:
        parsed = parser.parse_from_file(str(file))
    if parsed and network.num_outputs:
        return
    problems = []
    for error in map(parser.get_error, range(parser.num_errors)):
        where = (
            f"operator {error.node_operator()} (node {error.node_name()})" if error.node_operator() else ""
        )
        said = " ".join(error.desc().split())
        problems.append(": ".join(filter(None, (where, "" if said == "false" else said))))
    found = "; ".join(dict.fromkeys(problems[:3])) or "it holds no network"
    raise BundleError(
        f"{library.name} cannot read {source.label}: {found:.600}",
        "use another backend for it, or deploy again if the file is damaged",
    )


def _port(tensor: Any, source: Source) -> Port:
    try:
        return Port(tensor.name, TensorSpec(tuple(tensor.shape), _DTYPES[tensor.dtype.name]))
    except (KeyError, ValueError) as error:
        raise BundleError(f"{source.label}: tensor {tensor.name} has no fixed shape or known type") from error
