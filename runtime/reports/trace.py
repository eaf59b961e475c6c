"""A run as a trace that ui.perfetto.dev and chrome://tracing open: every request across all devices, on one clock.

::

    process "requests"    a slice per request, in it what it did and waited for, one after the other
    process "forecast"    the same as it was forecast, from the same moment
    process per device    receive, decode, compute, encode, send; what waits for it
    process per link      wire; what waits for it

Format: the JSON Object Format of Google's "Trace Event Format". Slices of one thread may only nest, so whatever
overlaps goes to another thread of the same name. The run's marks are read and written one request after the other.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from planner.errors import DocumentError, StorageError
from planner.run import RunInfo
from planner.run_marks import Marks, read_clocks, read_marks
from planner.run_plans import load_plans, load_switches
from runtime.reports.trace_plan import Args, Planned, kind_of
from runtime.reports.trace_threads import Place, Threads
from runtime.timing import Part, marks_of, passed

REQUESTS, FORECAST = Place("requests"), Place("forecast")
_SEND = "derived: until the frame arrived, less the link's latency"


@dataclass(frozen=True)
class Trace:
    """What was written. ``error_s``: how far a time may be off from one device to another, at most."""

    requests: int
    events: int
    error_s: float

    def wrote(self, file: Path) -> str:
        """For people."""
        agree = f"clocks agree to within {self.error_s * 1e3:.3f} ms"
        return f"wrote {file}: {self.requests} requests, {agree}; ui.perfetto.dev opens it"


def write_trace(folder: Path, file: Path) -> Trace:
    """Write the run in ``folder`` as a trace; compressed if ``file`` ends in ``.gz``.

    A run that was interrupted has what was answered until then. Raises ``DocumentError`` for a run that cannot be
    read, and ``StorageError``.
    """
    writer = _Writer(folder)
    events = 0
    with _whole(file) as out:
        out.write('{"displayTimeUnit":"ms","traceEvents":[')
        for event in writer.events():
            out.write(f"{',' if events else ''}\n{json.dumps(event, allow_nan=False, separators=(',', ':'))}")
            events += 1
        out.write(f'\n],"otherData":{json.dumps(writer.about(), allow_nan=False)}}}\n')
    return Trace(writer.requests, events, writer.error_ns / 1e9)


class _Writer:
    def __init__(self, folder: Path) -> None:
        self.requests = self.error_ns = 0
        self._folder, self._info = folder, RunInfo.load(folder / "run.json")
        self._plans = [Planned(plan) for plan in (self._info.plan, *load_plans(folder))]
        self._switches = iter(load_switches(folder))
        self._clocks: dict[str, Args] = {}
        places = itertools.chain([REQUESTS, FORECAST], *(planned.places for planned in self._plans))
        self._threads = Threads(list(dict.fromkeys(places)))

    def about(self) -> Args:
        """The trace's metadata, once its events were taken."""
        info = self._info
        return {
            "model": info.plan.chain.source.name,
            "started": info.started,
            "transport": info.transport,
            "concurrency": info.concurrency,
            "requests": self.requests,
            "clock": "the coordinator's, from when the run began",
            "largest_clock_error_s": self.error_ns / 1e9,
            "clocks": self._clocks,
            "send": _SEND,
        }

    def events(self) -> Iterator[Args]:
        last = 0
        for marks in read_marks(self._folder):
            planned = self._plan_of(marks)
            if marks.plan != last:
                yield self._switched(marks)
                last = marks.plan
            yield from self._measured(marks, planned)
            yield from self._forecast(marks, planned)
            self.requests += 1
            self.error_ns = max(self.error_ns, marks.error_ns)
        for row in read_clocks(self._folder):
            known = self._clocks.get(row.device, {"largest_error_s": 0.0})
            self._clocks[row.device] = {
                "offset_s": row.offset_s, "error_s": row.error_s, "drift": row.drift,
                "drift_error": row.drift_error, "at_s": row.at_s,
                "largest_error_s": max(row.error_s, known["largest_error_s"]),
            }  # fmt: skip
        yield from self._threads.names({name: _clock(known) for name, known in self._clocks.items()})

    def _plan_of(self, marks: Marks) -> Planned:
        file = self._folder / "marks.csv"
        if marks.plan >= len(self._plans):
            raise DocumentError(file, "column plan", f"names a plan beyond plan-{len(self._plans) - 1}.json")
        planned = self._plans[marks.plan]
        expected = sum(map(marks_of, planned.segments))
        if len(marks.marks_ns) != expected:
            found = f"{len(marks.marks_ns)} marks, its plan has {expected}"
            raise DocumentError(file, f"request {marks.request}", found, "deploy the plan again")
        return planned

    def _switched(self, marks: Marks) -> Args:
        """A line over all tracks where another plan took over."""
        reason = next((each.reason for each in self._switches if each.plan == marks.plan), "")
        pid, tid = self._threads.first(REQUESTS)
        what = {"ph": "i", "s": "g", "name": f"plan {marks.plan} takes over", "cat": "plan"}
        where = {"pid": pid, "tid": tid, "ts": marks.marks_ns[1] / 1e3}
        return {**what, **where, "args": {"plan": marks.plan, "reason": reason}}

    def _measured(self, marks: Marks, planned: Planned) -> Iterator[Args]:
        parts = list(passed(planned.plan, planned.segments, marks.marks_ns))
        args = {"request": marks.request, "plan": marks.plan}
        at_ns = begin_ns = marks.marks_ns[1]
        end_ns = max(parts[-1].end_ns, begin_ns)
        own: list[tuple[str, int, int, Args]] = []  # one after the other, whatever the clocks' error
        for part in parts:
            about = args | planned.about(part)
            steps = ("queue", part.waits_ns, part.begin_ns), (kind_of(part), part.begin_ns, part.end_ns)
            for name, start, stop in steps:
                start_ns, at_ns = min(max(start, at_ns), end_ns), min(max(start, stop, at_ns), end_ns)
                if name != "queue" or at_ns > start_ns:
                    own.append((name, start_ns, at_ns, about))
        total = args | {
            "forecast_ms": planned.plan.cost.latency_s * 1e3,
            "clock_error_us": marks.error_ns / 1e3,
        }
        thread = self._threads.free(REQUESTS, "request", begin_ns, end_ns, marks.request)
        yield _slice(thread, f"request {marks.request}", "request", begin_ns, end_ns, total)
        for name, start_ns, stop_ns, about in own:
            yield _slice(thread, name, name, start_ns, stop_ns, about)
        flow = []
        for number, part in enumerate(parts):
            slices = list(self._on_devices(part, number, marks.request, args | planned.about(part)))
            yield from slices
            flow += [event for event in slices if event["cat"] == kind_of(part) and event["dur"] > 0]
        for place, event in enumerate(flow if len(flow) > 1 else []):
            step = "s" if place == 0 else "f" if place == len(flow) - 1 else "t"
            where = {key: event[key] for key in ("pid", "tid", "ts")}
            bound = {"bp": "e"} if step == "f" else {}
            yield {"ph": step, "name": "request", "cat": "flow", "id": marks.request, **where, **bound}

    def _on_devices(self, part: Part, number: int, request: int, args: Args) -> Iterator[Args]:
        """The slices of a part where it happened; its wait as an asynchronous one, since many may wait."""
        segment, begin_ns, end_ns = part.segment, part.begin_ns, max(part.begin_ns, part.end_ns)
        place = Place.link(segment) if part.kind == "wire" else Place.device(segment.device)
        thread = self._threads.free(place, kind_of(part), begin_ns, end_ns, request)
        yield _slice(thread, kind_of(part), kind_of(part), begin_ns, end_ns, args)
        if part.kind == "wire" and segment.link:
            arrived_ns = min(max(part.arrived_ns, begin_ns), end_ns)
            sent_ns = max(arrived_ns - round(segment.link.latency_s * 1e9), begin_ns)
            for kind, device, start_ns, stop_ns in (
                ("send", segment.link.source, begin_ns, sent_ns),
                ("receive", segment.link.target, arrived_ns, end_ns),
            ):
                if stop_ns > start_ns:
                    lane = self._threads.free(Place.device(device), kind, start_ns, stop_ns, request)
                    yield _slice(lane, kind, kind, start_ns, stop_ns, args)
        if begin_ns > part.waits_ns:
            pid, tid = self._threads.first(place)
            wait = {"name": "queue", "cat": "queue", "id": f"{request}.{number}", "pid": pid, "tid": tid}
            yield {"ph": "b", **wait, "ts": part.waits_ns / 1e3, "args": args}
            yield {"ph": "e", **wait, "ts": begin_ns / 1e3}

    def _forecast(self, marks: Marks, planned: Planned) -> Iterator[Args]:
        begin_ns = marks.marks_ns[1]
        ends_ns = [
            begin_ns + round(end_s * 1e9) for end_s in itertools.accumulate(s for _, s, _ in planned.forecast)
        ]
        args = {"request": marks.request, "plan": marks.plan}
        thread = self._threads.free(FORECAST, "forecast", begin_ns, ends_ns[-1], marks.request)
        yield _slice(thread, f"request {marks.request}", "forecast", begin_ns, ends_ns[-1], args)
        for (name, _, about), start_ns, end_ns in zip(
            planned.forecast, [begin_ns, *ends_ns], ends_ns, strict=False
        ):
            yield _slice(thread, name, "forecast", start_ns, end_ns, args | about)


def _slice(thread: tuple[int, int], name: str, kind: str, begin_ns: int, end_ns: int, args: Args) -> Args:
    pid, tid = thread
    times = {"ts": begin_ns / 1e3, "dur": (end_ns - begin_ns) / 1e3}
    return {"ph": "X", "name": name, "cat": kind, "pid": pid, "tid": tid, **times, "args": args}


def _clock(known: Args) -> str:
    """For people: where a device's clock is from the one of the trace."""
    if known["largest_error_s"] == known["drift_error"] == 0:
        return "the coordinator's clock"
    drift = f"drift {known['drift'] * 1e6:+.1f} ± {known['drift_error'] * 1e6:.1f} ppm"
    return f"clock {known['offset_s']:+.6f} s ± {known['error_s'] * 1e6:.0f} µs, {drift}"


@contextmanager
def _whole(file: Path) -> Iterator[IO[str]]:
    """A text file that is there whole once it is there."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    compressed = file.suffix == ".gz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with gzip.open(part, "wt", 6) if compressed else part.open("w", encoding="utf-8") as out:
                yield out
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        problem = f"cannot write {file}: {error.strerror or error}"
        raise StorageError(problem, "free space or choose another path") from error
