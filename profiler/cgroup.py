"""The memory that this process's control groups leave it: a container's limit, or a service's.

A process is in a group of a group; each may have a limit, and what all of its processes hold counts. Files
in memory that were not used lately count too, though the kernel gives them up before a limit is hit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60  # version 1 writes a number about as large as there are


@dataclass(frozen=True)
class MemoryLimit:
    """A group's limit, and what is left of it."""

    total_bytes: int
    free_bytes: int


def memory_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The group with the least left; None where none has a limit. ``root`` stands for the file system."""
    return min(_limits(root), key=lambda each: each.free_bytes, default=None)


def _limits(root: Path) -> Iterator[MemoryLimit]:
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if not controllers:
                folder, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                folder = root / "sys/fs/cgroup/memory"
                names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            else:
                continue
            own = PurePosixPath(place)
            # In a container its own group may be mounted at the top, and the place be the host's.
            for group in dict.fromkeys([*(folder / str(each)[1:] for each in (own, *own.parents)), folder]):
                with contextlib.suppress(OSError, ValueError):  # the topmost has no limit
                    yield from _limit(group, *names)


def _limit(group: Path, limit: str, used: str, idle: str) -> Iterator[MemoryLimit]:
    total = int((group / limit).read_text())  # or "max"
    if total >= _UNLIMITED:
        return
    held = int((group / used).read_text())
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == idle:
            held -= int(value)
    yield MemoryLimit(total, min(max(total - held, 0), total))
