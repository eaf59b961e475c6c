"""Peak memory against allocations of known size."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from profiler.allocator import tune_allocator
from profiler.memory import PeakMemory

MIB = 1 << 20
# The kernel counts in batches per processor, and the interpreter allocates beside the test.
TOLERANCE = 6 * MIB

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counted by Linux alone"),
    # Resident pages are the kernel's to take: it may drop some megabytes of code between start and peak.
    pytest.mark.flaky(reruns=4),
]


def touched(mebibytes: int) -> np.ndarray:
    """An array whose every page is resident."""
    return np.ones(mebibytes * MIB, np.uint8)


@pytest.fixture
def memory() -> PeakMemory:
    found = PeakMemory()
    found.start()
    if found.peak_bytes() is None:
        pytest.skip("this kernel does not let the peak be reset")
    return found


@pytest.mark.parametrize("mebibytes", [0, 16, 64, 200])
@pytest.mark.parametrize("tuned", [False, True])
def test_an_allocation_is_counted(memory: PeakMemory, mebibytes: int, tuned: bool) -> None:
    if tuned:
        tune_allocator()  # as the profiler does; it cannot be undone, and so comes second
    memory.start()
    held = touched(mebibytes)
    found = memory.peak_bytes()
    assert found == pytest.approx(held.nbytes, abs=TOLERANCE)


def test_the_peak_stays_when_memory_is_freed(memory: PeakMemory) -> None:
    first = touched(60)
    del first
    second = touched(30)
    # The second may or may not lie where the first was.
    assert 60 * MIB - TOLERANCE <= memory.peak_bytes() <= 90 * MIB + TOLERANCE
    memory.start()
    assert memory.peak_bytes() == pytest.approx(0, abs=TOLERANCE)
    del second


def test_memory_used_again_is_counted_again(memory: PeakMemory) -> None:
    """Small blocks stay in the allocator's heap when freed; without trimming their reuse would be free."""
    for _ in range(2):
        memory.start()
        blocks = [np.ones(64 * 1024, np.uint8) for _ in range(800)]
        assert memory.peak_bytes() == pytest.approx(50 * MIB, abs=TOLERANCE)
        del blocks


def test_other_threads_are_counted(memory: PeakMemory) -> None:
    held: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: held.append(touched(40)))
    thread.start()
    thread.join()
    assert memory.peak_bytes() == pytest.approx(40 * MIB, abs=TOLERANCE)


def test_before_start_nothing_is_known() -> None:
    assert PeakMemory().peak_bytes() is None


@pytest.mark.parametrize(
    "status",
    [None, "", "VmRSS:\t10 kB\n", "VmHWM:\t20 kB\n", "VmRSS:\nVmHWM:\n", "VmRSS:\tx kB\nVmHWM:\t? kB\n"],
)
def test_a_system_without_it_gives_none(tmp_path: Path, status: str | None) -> None:
    if status is not None:
        (tmp_path / "status").write_text(status)
        (tmp_path / "clear_refs").write_text("")
    memory = PeakMemory(tmp_path)
    memory.start()
    assert memory.peak_bytes() is None


def test_a_kernel_that_cannot_reset_gives_none(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmHWM:\t30 kB\nVmRSS:\t10 kB\n")
    memory = PeakMemory(tmp_path)
    memory.start()
    assert memory.peak_bytes() is None
    (tmp_path / "clear_refs").write_text("")
    memory.start()
    assert memory.peak_bytes() == 20 * 1024
