"""Trees of files as the kernel shows clocks in, and the kernel's part: what becomes of a write."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

CPUFREQ = "sys/devices/system/cpu/cpufreq"
GPU = "sys/class/devfreq/17000000.gv11b"
LITTLE = (600_000, 1_000_000, 1_400_000)
BIG = (800_000, 1_400_000, 2_000_000)
GPU_HZ = (114_750_000, 675_750_000, 1_377_000_000)


def policy(
    root: Path,
    number: int,
    cpus: tuple[int, ...],
    offered_khz: tuple[int, ...] | None,
    limits_khz: tuple[int, int] = (0, 0),
    ends_khz: tuple[int, int] = (0, 0),
) -> Path:
    """A cpufreq policy; without ``offered_khz`` its driver lists no frequencies, as intel_pstate's."""
    folder = root / CPUFREQ / f"policy{number}"
    folder.mkdir(parents=True)
    least, most = ends_khz if ends_khz[1] else (min(offered_khz or ()), max(offered_khz or ()))
    low, high = limits_khz if limits_khz[1] else (least, most)
    files = {
        "cpuinfo_min_freq": least,
        "cpuinfo_max_freq": most,
        "scaling_min_freq": low,
        "scaling_max_freq": high,
        "scaling_cur_freq": low,
        "scaling_governor": "schedutil",
        "affected_cpus": " ".join(map(str, cpus)),
    }
    if offered_khz:
        files["scaling_available_frequencies"] = " ".join(map(str, sorted(offered_khz, reverse=True))) + " "
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def board(root: Path) -> Path:
    """Two clusters and the GPU of a Jetson, each between its least and its highest frequency."""
    policy(root, 0, (0, 1), LITTLE)
    policy(root, 4, (4, 5), BIG)
    folder = root / GPU
    folder.mkdir(parents=True)
    (folder / "available_frequencies").write_text(" ".join(map(str, GPU_HZ)) + "\n")
    for name, hz in (("min_freq", GPU_HZ[0]), ("max_freq", GPU_HZ[-1]), ("cur_freq", GPU_HZ[0])):
        (folder / name).write_text(f"{hz}\n")
    return root


def state(root: Path) -> dict[str, str]:
    """The limits of every clock."""
    files = [
        *(root / CPUFREQ).glob("policy*/scaling_m??_freq"),
        *(root / "sys/class/devfreq").glob("*/m??_freq"),
    ]
    return {str(file.relative_to(root)): file.read_text().strip() for file in files}


class Kernel:
    """Takes writes as the kernel does: refuses crossed limits, and moves the clock into them.

    ``fail``: called with the number of each write before it is done; may raise.
    """

    def __init__(self, fail: Callable[[int], None] = lambda count: None) -> None:
        self.writes = 0
        self._fail = fail

    def write(self, file: Path, text: str) -> None:
        self.writes += 1
        self._fail(self.writes - 1)
        if not file.exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        folder, prefix = file.parent, "scaling_" if file.name.startswith("scaling_") else ""
        now = {name: int((folder / f"{prefix}{name}_freq").read_text()) for name in ("min", "max", "cur")}
        now["min" if "min" in file.name else "max"] = int(text)
        if now["min"] > now["max"]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        now["cur"] = min(max(now["cur"], now["min"]), now["max"])
        for name, value in now.items():
            (folder / f"{prefix}{name}_freq").write_text(f"{value}\n")
