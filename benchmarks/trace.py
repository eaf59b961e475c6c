"""What a trace costs: python benchmarks/trace.py [ROUNDS] [REQUESTS]

A small network on two devices, threads of one process, four requests on their way: the more answers per second, the
more an answer's bookkeeping weighs. In turn, runs that keep no marks (as before there were traces), and runs with
`--trace`; the median of their rates, and of each round's ratio. Then what is paid once, at the end.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from sources import TINY, cut
from test_deploy import fleet, plan

from planner.itinerary import itinerary
from planner.plan import Plan
from planner.run_marks import Marks
from runtime import pipeline
from runtime.clock_offset import Offset
from runtime.deployment import DeployRequest, record
from runtime.reports.trace import write_trace
from runtime.run_folder import RunFolder
from runtime.timing import alignment_error_ns, marks_of


@contextmanager
def nothing_kept() -> Iterator[None]:
    """Runs without marks and clocks."""
    add, note, error = RunFolder.add, RunFolder.note_clocks, pipeline.alignment_error_ns

    def without(self: RunFolder, *given: Any) -> None:
        add(self, *given[:5])

    RunFolder.add, RunFolder.note_clocks = without, lambda *_: None
    pipeline.alignment_error_ns = lambda *_: 0
    try:
        yield
    finally:
        RunFolder.add, RunFolder.note_clocks = add, note
        pipeline.alignment_error_ns = error


def main() -> None:
    rounds, requests = (int(value) for value in (*sys.argv[1:], "7", "2000")[:2])
    made = plan(cut(TINY)[1].chain, [("a", 0, 1, "torch"), ("b", 1, 3, "torch")], fleet())

    def rate(folder: Path, trace: Path | None) -> float:
        request = DeployRequest(
            made, folder, requests=requests, concurrency=4, transport="in-process", check=0, trace=trace
        )
        info = record(request, []).info
        return info.requests / info.wall_s

    rates: dict[str, list[float]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rate(folder / "warm-up", None)
        for number in range(rounds):
            for kind in ("without", "with") if number % 2 else ("with", "without"):
                where = folder / f"{kind}-{number}"
                if kind == "with":
                    rates[kind].append(rate(where, where / "t.json"))
                else:
                    with nothing_kept():
                        rates[kind].append(rate(where, None))
        begun = time.perf_counter()
        found = write_trace(folder / "with-0", folder / "t.json.gz")
        writing_s = time.perf_counter() - begun
        size = (folder / "t.json.gz").stat().st_size
        kept = (folder / "with-0" / "marks.csv").stat().st_size
    for kind, values in rates.items():
        print(f"{kind:8} {statistics.median(values):8.1f} requests/s, median of {rounds} runs of {requests}")
    ratios = [one / other for one, other in zip(rates["with"], rates["without"], strict=True)]
    spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"with over without, median of rounds: {statistics.median(ratios):.3f} {spread}")
    print(f"keeping an answer's marks and their error: {keeping_s(made) * 1e6:.0f} us of processor")
    print(
        f"at the end, per request: {writing_s * 1e3 / found.requests:.2f} ms, "
        f"{found.events / found.requests:.0f} events, {size / found.requests:.0f} bytes (.gz); "
        f"marks.csv has {kept / found.requests:.0f}"
    )


def keeping_s(made: Plan, times: int = 3000) -> float:
    """What a run does for an answer that it would not do without a trace."""
    segments = itinerary(made)
    marks = tuple(10**13 + 10**6 * place for place in range(sum(map(marks_of, segments))))
    clocks = {"a": Offset(0, 0, 0, 0.0, 0.0), "b": Offset(5, 5, 5)}
    with tempfile.TemporaryFile() as table:
        begun_s = time.process_time()
        for number in range(times):
            error_ns = alignment_error_ns(marks, segments, clocks)
            table.write(Marks(number, 0, error_ns, tuple(mark - 10**13 for mark in marks)).line().encode())
            table.flush()
        return (time.process_time() - begun_s) / times


if __name__ == "__main__":
    main()
