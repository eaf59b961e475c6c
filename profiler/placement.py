"""Where a measurement runs: threads, processors, and what to write down about the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from planner.errors import InputError
from planner.fleet import Emulation
from planner.sidecar import Environment
from profiler.allocator import tune_allocator
from profiler.machine import available_cpus, processor_name, versions

_LIBRARIES = ("edgecut", "torch", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Placement:
    """Threads per run, the processors they may use, and the factor by which runs are slowed."""

    threads: int
    cpus: tuple[int, ...]
    slowdown: float = 1.0


def placement(
    emulation: Emulation | None = None, threads: int | None = None, cpus: tuple[int, ...] | None = None
) -> Placement:
    """The placement asked for: explicit values first, then the device's emulation, then all there is.

    Raises ``InputError`` for processors this machine lacks.
    """
    here = available_cpus()
    wanted = cpus or (emulation.cpus if emulation else None) or here
    absent = sorted(set(wanted) - set(here))
    if absent:
        known = ",".join(map(str, here))
        raise InputError(f"this machine has no processor {absent}", f"choose among {known}")
    threads = threads or (emulation.threads if emulation else None) or len(wanted)
    return Placement(threads, tuple(sorted(set(wanted))), emulation.slowdown if emulation else 1.0)


@contextmanager
def placed(place: Placement) -> Iterator[None]:
    """Run on these processors with so many threads; what was there before is restored on the way out."""
    import torch

    tune_allocator()
    before, threads = available_cpus(), torch.get_num_threads()
    try:
        _pin(place.cpus)
        torch.set_num_threads(place.threads)
        yield
    finally:
        _pin(before)
        torch.set_num_threads(threads)


def _pin(cpus: tuple[int, ...]) -> None:
    """Pin every thread of this process: libraries may have started theirs already."""
    if not hasattr(os, "sched_setaffinity"):
        return
    tasks = Path("/proc/self/task")
    for task in [int(entry.name) for entry in tasks.iterdir()] if tasks.exists() else [0]:
        try:
            os.sched_setaffinity(task, cpus)
        except ProcessLookupError:  # the thread ended meanwhile
            continue


def environment(place: Placement) -> Environment:
    """What a reader must know of the machine to trust a table."""
    return Environment(
        host=platform.node(),
        machine=f"{platform.machine()} {processor_name()}",
        python=platform.python_version(),
        libraries=versions(_LIBRARIES),
        threads=place.threads,
        cpus=place.cpus,
        slowdown=place.slowdown,
    )
