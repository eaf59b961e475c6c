"""What this machine is, as far as it decides what runs here and how fast. Imports nothing heavy."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from profiler.capability import processor_features
from profiler.cgroup import memory_limit
from profiler.cuda import find_gpu

# Instruction sets that change which precisions pay, by the Linux kernel's names.
_TELLING = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
    "amx_fp16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_PACKAGES = (
    "edgecut", "numpy", "torch", "torchvision", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "tensorrt",
    "tensorrt-rtx", "pycuda", "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """``processors``: those this process may use. ``libraries``: versions of the packages installed."""

    system: str
    processor: str
    processors: int
    instructions: tuple[str, ...]
    memory_bytes: int | None
    gpu: str | None
    python: str
    libraries: dict[str, str]


def describe_machine() -> Machine:
    features = processor_features()
    gpu = find_gpu()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=processor_name(),
        processors=len(available_cpus()),
        instructions=tuple(name for name in _TELLING if name in features),
        memory_bytes=_memory_bytes(),
        gpu=str(gpu) if gpu else None,
        python=platform.python_version(),
        libraries=versions(_PACKAGES),
    )


def available_cpus() -> tuple[int, ...]:
    """The processors that this process may use, by the system's numbers."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def processor_name() -> str:
    """The processor's name as Linux gives it (device-tree model on boards)."""
    for file in (Path("/proc/device-tree/model"), Path("/proc/cpuinfo")):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        if file.name == "model":
            return text.strip("\0\n ")
        for line in text.splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of ``packages`` that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _memory_bytes() -> int | None:
    """The memory of this machine, or what a container or service may have of it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    limit = memory_limit()
    return min(total, limit.total_bytes) if limit else total


def available_memory_bytes() -> int:
    """What new allocations may take without swapping, in a container or service within its limit.

    A guess of 1 GiB where the system does not say.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _memory_bytes() or 1 << 30
    # Such as "MemAvailable:   12345678 kB"; the kernel's kB are 1024 bytes.
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), [])
    free = int(found[1]) * 1024 if len(found) == 3 and found[1].isdecimal() else 1 << 30
    limit = memory_limit()
    return min(free, limit.free_bytes) if limit else free
