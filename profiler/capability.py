"""What stands between this machine and a backend in some precision, found without running it.

Only what can be known cheaply: libraries are looked up, not imported (but for ``onnxruntime`` in bf16),
the driver is asked for its GPU, the kernel for the processor's instructions. That nothing is found does
not prove that it runs; ``profiler.doctor`` tries.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from profiler import backends
from profiler.cuda import find_gpu

_TORCH = ("torch", "safetensors")
_ONNX = (*_TORCH, "onnx", "onnx_ir", "onnxscript")
# What a backend imports, and the command that installs all of it.
_LIBRARIES = {
    "torch": (_TORCH, "pip install 'edgecut[torch]'"),
    "onnxruntime": ((*_ONNX, "onnxruntime"), "pip install 'edgecut[onnx]'"),
    "tensorrt": ((*_ONNX, "tensorrt", "pycuda"), "pip install 'edgecut[tensorrt]'"),
    "tensorrt-rtx": ((*_ONNX, "tensorrt_rtx"), "pip install 'edgecut[tensorrt-rtx]'"),
}
_ONNXRUNTIME_GPU = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
# Instructions for arithmetic in half precision, by the kernel's names on x86-64 and ARM: any of a set will do.
_INSTRUCTIONS = {
    "bf16": ({"avx512_bf16", "amx_bf16", "bf16"}, "avx512_bf16, amx_bf16 or ARM's bf16"),
    "fp16": ({"avx512_fp16", "amx_fp16", "asimdhp"}, "avx512_fp16, amx_fp16 or ARM's asimdhp"),
}
# Compute capability that each backend needs, in which precisions (none named: in any).
_CAPABILITIES: dict[str, tuple[tuple[tuple[int, int], tuple[str, ...]], ...]] = {
    "torch-cuda": (((8, 0), ("bf16",)),),
    "torch-compile-cuda": (((7, 0), ()), ((8, 0), ("bf16",))),
    "onnxruntime-cuda": (((8, 0), ("bf16",)),),
    "onnxruntime-tensorrt": (((8, 0), ("bf16",)), ((6, 1), ("int8", "mixed"))),
    "tensorrt": (((8, 0), ("bf16",)), ((6, 1), ("int8", "mixed"))),
    "tensorrt-rtx": (((7, 5), ()), ((8, 0), ("bf16",))),
}
# What a network is mostly made of; for each the operator's inputs as shapes.
_OPERATORS = {
    "Conv": ([1, 2, 4, 4], [2, 2, 3, 3]), "Gemm": ([2, 2], [2, 2]), "MatMul": ([2, 2], [2, 2]),
    "Add": ([2, 2], [2, 2]), "Relu": ([2, 2],), "Softmax": ([2, 2],), "GlobalAveragePool": ([1, 2, 4, 4],),
}  # fmt: skip


@dataclass(frozen=True)
class Obstacle:
    """Why a backend cannot run in a precision here, and what would mend it: one command where one does."""

    problem: str
    remedy: str


def obstacle(backend: str, precision: str, *, imports: bool = True) -> Obstacle | None:
    """The first thing that keeps ``backend`` from running in ``precision`` here; None if nothing is known to.

    ``imports``: look at what takes a library's import too. Raises ``UnknownNameError`` for a backend that does
    not exist.
    """
    entry = backends.entry(backend)
    if precision not in entry.precisions:
        able = [name for name in backends.NAMES if precision in backends.entry(name).precisions]
        remedy = f"use {' or '.join(able)}" if able else f"known: {', '.join(entry.precisions)}"
        return Obstacle(f"{backend} has no precision {precision}", remedy)
    if not entry.gpu:
        return (
            missing_library(backend)
            or _slow_processor(backend, precision)
            or _no_compiler(backend)
            or (_no_kernels(backend, precision) if imports else None)
        )
    if backend == "tensorrt-rtx":  # it has its use without a GPU: building engines
        return missing_library(backend) or gpu_obstacle() or _no_pycuda() or _old_gpu(backend, precision)
    return gpu_obstacle() or missing_library(backend) or _old_gpu(backend, precision)


def offered() -> dict[str, tuple[str, ...]]:
    """Backends, each with the precisions that nothing is known to stand against; imports none of them."""
    found = {
        name: tuple(
            precision
            for precision in backends.entry(name).precisions
            if obstacle(name, precision, imports=False) is None
        )
        for name in backends.NAMES
    }
    return {name: precisions for name, precisions in found.items() if precisions}


def missing_library(backend: str) -> Obstacle | None:
    """The libraries that a backend is made of and that are not installed."""
    family = "torch" if backend.startswith("torch") else backend
    provider = backend.removeprefix("onnxruntime-") if backend.startswith("onnxruntime-") else ""
    libraries, command = _LIBRARIES["onnxruntime" if provider else family]
    absent = [name for name in libraries if not installed(name)]
    if absent:
        what = f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        return Obstacle(what, command)
    if provider and not _has_provider(provider):
        name = {"cuda": "CUDA", "tensorrt": "TensorRT"}[provider]
        return Obstacle(f"the onnxruntime installed has no {name} provider", _ONNXRUNTIME_GPU)
    if backend == "torch-compile-cuda" and not installed("triton"):
        return Obstacle("triton, which compiles for the GPU, is not installed", "pip install triton")
    return None


def installed(library: str) -> bool:
    """Whether a module can be found; it is not imported."""
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False


def _has_provider(name: str) -> bool:
    """ONNX Runtime loads a provider from a library of its own beside it."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    return any(any((folder / "capi").glob(f"*onnxruntime_providers_{name}.*")) for folder in folders)


def _no_pycuda() -> Obstacle | None:
    """TensorRT-RTX builds engines without pycuda, and runs none."""
    if installed("pycuda"):
        return None
    return Obstacle("pycuda, which runs engines, is not installed", "pip install 'edgecut[cuda]'")


def gpu_obstacle(root: Path = Path("/")) -> Obstacle | None:
    """Why no NVIDIA GPU can be used here; None if one can. ``root`` stands for the file system."""
    if find_gpu() is not None:
        return None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        return Obstacle(
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides the GPU, if there is one", "unset CUDA_VISIBLE_DEVICES"
        )
    if is_jetson(root):
        problem = "the GPU of this Jetson is not visible to this process"
        return Obstacle(
            problem, "sudo apt install nvidia-jetpack; for a container, docker run --runtime nvidia"
        )
    if (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidia0").exists():
        problem = "the NVIDIA driver is loaded and shows this process no GPU"
        return Obstacle(problem, "nvidia-smi; for a container, docker run --gpus all")
    vendors = (_read(file) for file in (root / "sys/bus/pci/devices").glob("*/vendor"))
    if "0x10de" in vendors:
        return Obstacle("the NVIDIA GPU here has no driver", "sudo ubuntu-drivers install")
    return Obstacle("no NVIDIA GPU here", "use a machine with an NVIDIA GPU")


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether this is a board of NVIDIA's Tegra family."""
    names = ("etc/nv_tegra_release", "dev/nvhost-gpu", "dev/nvhost-ctrl-gpu")
    return any((root / name).exists() for name in names)


def _old_gpu(backend: str, precision: str) -> Obstacle | None:
    gpu = find_gpu()
    for needed, precisions in _CAPABILITIES[backend]:
        if gpu and gpu.capability < needed and (not precisions or precision in precisions):
            have, want = (".".join(map(str, each)) for each in (gpu.capability, needed))
            what = f"{backend} in {precision}" if precisions else backend
            problem = f"{what} needs compute capability {want}; {gpu.name} has {have}"
            return Obstacle(problem, "use fp32" if precisions else "use torch-cuda or onnxruntime-cuda")
    return None


def _slow_processor(backend: str, precision: str) -> Obstacle | None:
    """Without the instructions PyTorch computes half precision some 30 times slower than fp32."""
    features = processor_features()
    if not backend.startswith("torch") or precision not in _INSTRUCTIONS or not features:
        return None
    wanted, names = _INSTRUCTIONS[precision]
    if features & wanted:
        return None
    problem = (
        f"this processor has no {precision} instructions ({names}); PyTorch would be far slower than in fp32"
    )
    return Obstacle(problem, "use fp32")


def _no_compiler(backend: str) -> Obstacle | None:
    if backend != "torch-compile":
        return None
    compilers = ["cl"] if sys.platform == "win32" else ["g++", "clang++", "c++"]
    if any(map(shutil.which, [os.environ.get("CXX") or compilers[0], *compilers])):
        return None
    command = {
        "win32": "winget install Microsoft.VisualStudio.2022.BuildTools",
        "darwin": "xcode-select --install",
    }
    return Obstacle(
        "inductor needs a C++ compiler, none is here", command.get(sys.platform, "sudo apt install g++")
    )


def _no_kernels(backend: str, precision: str) -> Obstacle | None:
    if (backend, precision) != ("onnxruntime", "bf16"):
        return None
    lacking = _without_bf16()
    if not lacking:
        return None
    listed = ", ".join(lacking)
    return Obstacle(f"ONNX Runtime has no bf16 on the CPU for {listed}", "use fp32, or bf16 on backend torch")


@functools.cache
def _without_bf16() -> tuple[str, ...]:
    """The operators that this release of ONNX Runtime refuses in bf16 on the CPU, each tried alone."""
    helper, runtime = importlib.import_module("onnx.helper"), importlib.import_module("onnxruntime")
    bf16 = importlib.import_module("onnx").TensorProto.BFLOAT16
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    lacking = []
    for name, shapes in _OPERATORS.items():
        inputs = [helper.make_tensor_value_info(f"x{i}", bf16, shape) for i, shape in enumerate(shapes)]
        node = helper.make_node(name, [value.name for value in inputs], ["y"])
        graph = helper.make_graph([node], name, inputs, [helper.make_tensor_value_info("y", bf16, None)])
        # From opset 22 on, all of them may take bf16.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        try:
            runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # its exceptions have no common base
            lacking.append(name)
    return tuple(lacking)


def note(backend: str, precision: str) -> str:
    """What to know of a variant that runs; empty where there is nothing."""
    if (backend, precision) == ("onnxruntime", "fp16"):
        return "halves the weights; on a CPU it gains no time"
    return ""


def processor_features(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that every processor here has, by the Linux kernel's names (``avx512_vnni``,
    ``asimdhp``, ...); empty where the system does not list them."""
    lines = (line.partition(":") for line in _read(path).splitlines())
    # "flags" on x86-64, "Features" on ARM.
    found: Iterable[frozenset[str]] = [
        frozenset(value.split()) for key, _, value in lines if key.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*found) if found else frozenset()


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
