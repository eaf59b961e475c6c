"""A run as a trace: what the format asks for, the run's own times, and clocks that differ come out on one."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import TINY, cut
from test_clock_offset import MS, TwoHosts
from test_deploy import coded, fleet, plan

from planner.errors import DocumentError, StorageError
from planner.fleet import Device
from planner.itinerary import itinerary
from planner.plan import Plan
from planner.run import Run, RunInfo
from planner.run_marks import CLOCKS_HEADER, MARKS_HEADER, ClockRow, Marks, read_clocks, read_marks
from planner.run_plans import RunPlans
from planner.run_rows import RunRow, format_run_row, run_header
from runtime.clock_offset import HostClock, Offset
from runtime.deployment import DeployRequest, record
from runtime.reports.trace import write_trace
from runtime.timing import aligned, alignment_error_ns, marks_of, measured_rows, passed

Event = dict[str, Any]
SLICES = {"queue", "encode", "send", "wire", "receive", "decode", "compute"}


CHAIN = cut(TINY)[1].chain
RELAYED = coded(plan(CHAIN, [("c", 0, 2, "torch"), ("a", 2, 3, "torch")], fleet("abc")), "fp16", "raw")
LOCAL = plan(CHAIN, [("a", 0, 3, "torch")], fleet("abc"))


def strictly(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def ns(microseconds: float) -> int:
    return round(microseconds * 1e3)


def check_format(found: Any) -> list[Event]:
    """The rules of the "Trace Event Format" that the viewers rely on; the events."""
    events: list[Event] = found["traceEvents"]
    assert found["displayTimeUnit"] in ("ms", "ns")
    slices: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    open_async: Counter[tuple[object, ...]] = Counter()
    flows: defaultdict[int, list[Event]] = defaultdict(list)
    names: dict[tuple[str, int], str] = {}
    process_of: dict[int, int] = {}
    for event in events:
        assert event.keys() >= {"ph", "ts", "pid", "tid", "name"}
        assert isinstance(event["ts"], int | float)
        assert math.isfinite(event["ts"])
        assert (
            process_of.setdefault(event["tid"], event["pid"]) == event["pid"]
        )  # viewers name threads by tid alone
        if event["ph"] == "X":
            begin_ns = ns(event["ts"])
            assert event["dur"] >= 0
            slices[event["pid"], event["tid"]].append((begin_ns, begin_ns + ns(event["dur"])))
        elif event["ph"] in "be":
            key = event["cat"], event["id"], event["name"], event["pid"]
            open_async[key] += 1 if event["ph"] == "b" else -1
            assert 0 <= open_async[key] <= 1
        elif event["ph"] in "stf":
            flows[event["id"]].append(event)
        elif event["ph"] == "M" and event["name"].endswith("_name"):
            names[event["name"], event["tid"]] = event["args"]["name"]
        else:
            assert event["ph"] in ("M", "i")
    assert not +open_async
    for thread, own in slices.items():
        assert ("thread_name", thread[1]) in names
        assert ("process_name", thread[0]) in names
        within: list[int] = []
        for begin_ns, end_ns in sorted(own, key=lambda each: (each[0], -each[1])):
            while within and within[-1] <= begin_ns:
                within.pop()
            assert not within or end_ns <= within[-1], "slices of a thread overlap"
            within.append(end_ns)
    for steps in flows.values():
        assert [each["ph"] for each in steps] == ["s", *"t" * (len(steps) - 2), "f"]
        assert steps[-1]["bp"] == "e"
        for each in steps:
            around = slices[each["pid"], each["tid"]]
            assert any(begin_ns <= ns(each["ts"]) < end_ns for begin_ns, end_ns in around)
    return events


def named(events: list[Event]) -> dict[int, str]:
    return {each["pid"]: each["args"]["name"] for each in events if each["name"] == "process_name"}


def check_times(events: list[Event], run: Run) -> None:
    """Every row of the run is as long as its slices, and begins with the first of them."""
    names = named(events)
    found: defaultdict[tuple[int, str, object], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X" and event["cat"] in ("compute", "encode", "wire", "decode"):
            if names[event["pid"]] not in ("requests", "forecast"):
                args = event["args"]
                part = args.get("bundle", args.get("boundary"))
                found[args["request"], event["cat"], part].append(event)
        elif event.get("cat") == "request":
            found[event["args"]["request"], "total", None].append(event)
    plans = [run.info.plan, *run.others]
    for row in run.rows:
        made = plans[row.plan]
        part: object = None
        kinds = [row.kind]
        if row.kind == "stage":
            part, kinds = str(made.stages[row.index].bundle), ["compute"]
        elif row.kind != "total":
            part = made.hops[row.index].boundary
            kinds = ["encode", "wire", "decode"] if row.kind == "hop" else kinds
        own = [event for kind in kinds for event in found[row.request, kind, part]]
        assert own
        assert sum(event["dur"] for event in own) / 1e6 == pytest.approx(
            row.measured_s, abs=1e-9 * (1 + len(own))
        )
        assert row.begin_s is not None
        assert own[0]["ts"] / 1e6 == pytest.approx(row.begin_s, abs=1e-8)


def write_run(folder: Path, plans: list[Plan], requests: list[Marks]) -> Run:
    """A run as a deployment leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    RunInfo(plans[0], "2026-01-01T00:00:00+00:00", "zenoh", 4, 1e-4, 1.0, len(requests)).save(
        folder / "run.json"
    )
    rows: list[RunRow] = []
    for number, made in enumerate(plans[1:], 1):
        made.save(folder / f"plan-{number}.json")
    for each in requests:
        made = plans[each.plan]
        found = measured_rows(made, itinerary(made), each.request, each.marks_ns)
        rows += [dataclasses.replace(row, plan=each.plan) for row in found]
    (folder / "run.csv").write_text(run_header() + "".join(map(format_run_row, rows)))
    (folder / "marks.csv").write_text(MARKS_HEADER + "".join(each.line() for each in requests))
    (folder / "clocks.csv").write_text(CLOCKS_HEADER + ClockRow(0.1, "c", -1000.0, 1e-4, 1e-5, 1e-6).line())
    return Run.load(folder)


@st.composite
def requests(draw: st.DrawFn) -> list[Marks]:
    """Requests that overlap at will, over clocks that are off by up to 2 ms."""
    found = []
    for number in range(draw(st.integers(0, 6))):
        made, at_ns, marks = draw(st.sampled_from([0, 1])), draw(st.integers(0, 30 * MS)), []
        for segment in itinerary((RELAYED, LOCAL)[made]):
            skew_ns = draw(st.integers(-2 * MS, 2 * MS)) if marks else 0
            for _ in range(marks_of(segment)):
                at_ns += draw(st.one_of(st.just(0), st.integers(0, 5 * MS)))
                marks.append(at_ns + skew_ns)
        found.append(Marks(number, made, 2 * MS, tuple(marks)))
    return found


@settings(max_examples=30)
@given(requests())
def test_whatever_overlaps_the_format_is_kept(
    tmp_path_factory: pytest.TempPathFactory, given: list[Marks]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run = write_run(folder, [RELAYED, LOCAL], given)
    made = write_trace(folder, folder / "t.json")
    found = strictly((folder / "t.json").read_text())
    events = check_format(found)
    check_times(events, run)
    assert (made.requests, made.events) == (len(given), len(events))
    assert found["otherData"]["clocks"]["c"] == {
        "offset_s": -1000.0, "error_s": 1e-4, "drift": 1e-5, "drift_error": 1e-6, "at_s": 0.1,
        "largest_error_s": 1e-4,
    }  # fmt: skip
    assert list(read_marks(folder)) == given


def test_a_trace_by_hand(tmp_path: Path) -> None:
    """One request: camera a computes from 1 to 3 ms, b from 10 to 12, and back at 16."""
    made = plan(CHAIN, [("a", 0, 1, "torch"), ("b", 1, 3, "torch")], fleet())
    marks = tuple(MS * at for at in (-1, 0, 1, 3, 4, 8, 9, 10, 12, 12, 15, 16, 16))
    write_run(tmp_path, [made], [Marks(7, 0, 1000, marks)])
    write_trace(tmp_path, tmp_path / "t.json.gz")
    events = check_format(strictly(gzip.decompress((tmp_path / "t.json.gz").read_bytes()).decode()))
    names = named(events)
    shown = {
        (names[event["pid"]], event["name"], event["ts"] / 1e3, event["dur"] / 1e3)
        for event in events
        if event["ph"] == "X" and names[event["pid"]] != "forecast"
    }
    assert shown == {
        ("requests", "request 7", 0, 16), ("requests", "queue", 0, 1), ("requests", "compute", 1, 2),
        ("requests", "queue", 3, 1), ("requests", "wire", 4, 5), ("requests", "queue", 9, 1),
        ("requests", "compute", 10, 2), ("requests", "wire", 12, 4),
        ("device a", "compute", 1, 2), ("device a", "send", 4, 3), ("link a → b", "wire", 4, 5),
        ("device b", "receive", 8, 1), ("device b", "compute", 10, 2), ("device b", "send", 12, 2),
        ("link b → a", "wire", 12, 4), ("device a", "receive", 15, 1),
    }  # fmt: skip
    waits = {(names[each["pid"]], each["ph"], each["ts"] / 1e3) for each in events if each["ph"] in "be"}
    assert waits == {
        ("device a", "b", 0), ("device a", "e", 1), ("link a → b", "b", 3), ("link a → b", "e", 4),
        ("device b", "b", 9), ("device b", "e", 10),
    }  # fmt: skip
    forecast = [each for each in events if each["ph"] == "X" and names[each["pid"]] == "forecast"]
    assert [each["name"] for each in forecast] == ["request 7", "compute", "wire", "compute", "wire"]
    assert forecast[0]["dur"] / 1e6 == pytest.approx(made.cost.latency_s, abs=1e-8)
    compute = next(each for each in events if each["name"] == "compute" and names[each["pid"]] == "device b")
    assert compute["args"] == {
        "request": 7, "plan": 0, "device": "b", "bundle": "[1, 3)", "variant": "torch fp32",
    }  # fmt: skip
    wire = next(each for each in events if each["name"] == "wire")
    assert wire["args"] == {
        "request": 7, "plan": 0, "boundary": 1, "route": "a → b", "bytes": made.hops[0].wire_bytes, "codec": "raw",
    }  # fmt: skip


def test_a_change_of_plan_is_a_line_over_all_tracks(tmp_path: Path) -> None:
    """Requests that were lost with an installation were answered by another one, and appear there."""
    sizes = [sum(map(marks_of, itinerary(made))) for made in (RELAYED, LOCAL)]
    numbers = [(0, 0), (1, 1), (2, 1), (3, 0)]
    marks = [
        Marks(request, number, 5, tuple(range(request * MS, request * MS + sizes[number])))
        for request, number in numbers
    ]
    write_run(tmp_path, [RELAYED, LOCAL], marks)
    for number, reason in ((1, "the agent of c is gone"), (0, "c is back")):
        RunPlans(tmp_path, RELAYED).switched("2026-01-01T00:00:01+00:00", (RELAYED, LOCAL)[number], reason)
    write_trace(tmp_path, tmp_path / "t.json")
    events = check_format(strictly((tmp_path / "t.json").read_text()))
    found = [(each["name"], each["ts"], each["args"]["reason"]) for each in events if each["ph"] == "i"]
    assert found == [
        ("plan 1 takes over", 1000.001, "the agent of c is gone"), ("plan 0 takes over", 3000.001, "c is back"),
    ]  # fmt: skip


def test_an_interrupted_run_has_a_trace_of_what_was_answered(tmp_path: Path, edgecut) -> None:
    size = sum(map(marks_of, itinerary(LOCAL)))
    write_run(tmp_path, [LOCAL], [Marks(0, 0, 1, tuple(range(size)))])
    with (tmp_path / "marks.csv").open("a") as table:
        table.write("1,0,0.0001,0.00")  # killed while writing
    code, said = edgecut("trace", tmp_path)
    assert code == 0
    assert "trace.json: 1 requests, clocks agree to within 0.000 ms" in said
    check_format(strictly((tmp_path / "trace.json").read_text()))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["0,0,0.0,0.1 0.2\n"], "request 0: 2 marks, its plan has 5"),
        (["0,3,0.0,0.1 0.2\n"], "names a plan beyond plan-0.json"),
        (["0,0,0.0,0.1 x\n"], "line 2"),
        (["0,0,0.0,nan\n"], "line 2"),
        (["0,0\n"], "line 2: expected request,plan,error_s,marks_s, found '0,0'"),
    ],
)
def test_a_damaged_run_says_where(tmp_path: Path, lines: list[str], says: str) -> None:
    write_run(tmp_path, [LOCAL], [])
    (tmp_path / "marks.csv").write_text("".join([MARKS_HEADER, *lines]))
    with pytest.raises(DocumentError, match=re.escape(says)):
        write_trace(tmp_path, tmp_path / "t.json")
    assert not list(tmp_path.glob("*t.json*"))


def test_what_cannot_be_read_or_written(tmp_path: Path, edgecut) -> None:
    write_run(tmp_path / "run", [LOCAL], [])
    code, said = edgecut("trace", tmp_path / "run", "-o", tmp_path / "run" / "run.csv" / "t.json")
    assert (code, "cannot write" in said) == (StorageError.exit_code, True)
    (tmp_path / "run" / "clocks.csv").write_text("when\n")
    code, said = edgecut("trace", tmp_path / "run")
    assert (code, "the header is at_s,device" in said) == (DocumentError.exit_code, True)
    (tmp_path / "run" / "marks.csv").unlink()
    code, said = edgecut("trace", tmp_path / "run")
    assert (code, "no such file" in said) == (DocumentError.exit_code, True)


@pytest.mark.parametrize(("made", "window"), [(RELAYED, 3), (LOCAL, 1)])
def test_the_trace_of_a_deployment(tmp_path: Path, made: Plan, window: int) -> None:
    request = DeployRequest(
        made, tmp_path / "run", requests=6, concurrency=window, transport="in-process", check=0,
        trace=tmp_path / "t.json",
    )  # fmt: skip
    run = record(request, [])
    found = strictly((tmp_path / "t.json").read_text())
    events = check_format(found)
    check_times(events, run)
    assert found["otherData"]["requests"] == 6
    assert found["otherData"]["largest_clock_error_s"] < 1e-6  # threads of one process
    seen = {event["cat"] for event in events if event["ph"] in "Xb"}
    assert seen >= (SLICES if made is RELAYED else {"compute"})
    for step in read_marks(tmp_path / "run"):
        parts = list(passed(made, itinerary(made), step.marks_ns))
        assert all(part.waits_ns <= part.begin_ns <= part.end_ns for part in parts)
        assert all(part.begin_ns <= part.arrived_ns <= part.end_ns for part in parts if part.kind == "wire")


delays = st.lists(st.tuples(st.integers(0, 5 * MS), st.integers(0, 5 * MS)), min_size=1, max_size=9)
drifts = st.integers(-900, 900).map(lambda ppm: ppm / 1e6)


@given(st.integers(-(10**15), 10**15), drifts, delays, st.integers(0, 10**10), st.data())
def test_marks_of_clocks_that_differ_come_out_on_one_within_the_stated_error(
    offset_ns: int, drift: float, delays_ns: list[tuple[int, int]], later_ns: int, data: st.DataObject
) -> None:
    hosts = TwoHosts(offset_ns, drift, delays_ns)
    clock = HostClock(hosts.ping, clock_ns=hosts.here)
    made = plan(CHAIN, [("a", 0, 1, "torch"), ("b", 1, 3, "torch")], fleet())
    segments, clocks = itinerary(made), {"a": Offset(0, 0, 0, 0.0, 0.0), "b": clock.offset}
    true_ns, at_ns = [], hosts.now_ns + later_ns
    devices = [segment.device for segment in segments for _ in range(marks_of(segment))]
    for _ in devices:
        at_ns += data.draw(st.integers(0, 10 * MS))
        true_ns.append(at_ns)
    there = [at if device == "a" else hosts.there(at) for device, at in zip(devices, true_ns, strict=True)]
    found, error_ns = aligned(there, segments, clocks), alignment_error_ns(there, segments, clocks)
    assert all(abs(one - other) <= error_ns + 1 for one, other in zip(found, true_ns, strict=True))
    again = Marks(0, 0, error_ns, tuple(mark - true_ns[0] for mark in found))
    assert again.error_ns == error_ns


def _agent_elsewhen(folder: Path, seconds: int) -> subprocess.Popen[str]:
    """An agent whose monotonic clock is ahead of ours, as on a machine that started earlier."""
    main = "import sys; from runtime.cli import main; main()"
    agent = ["agent", "--name", "b", "--listen", "tcp/127.0.0.1:0", "--folder", str(folder)]
    command = ["unshare", "--time", "--monotonic", str(seconds), sys.executable, "-u", "-c", main, *agent]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_machines_that_did_not_start_together(tmp_path: Path) -> None:
    """The kernel gives the agent of b a clock 1000 s ahead."""
    probe = [*["unshare", "--time", "--monotonic", "1000", "true"]]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("a process with a clock of its own needs Linux, unshare and root")
    trace = tmp_path / "t.json"
    with _agent_elsewhen(tmp_path / "agent", 1000) as agent:
        try:
            assert agent.stdout
            said = next(line for line in agent.stdout if "listens on" in line)
            endpoint = re.search(r"tcp/[^ ,;]+", said)
            assert endpoint, said
            over = fleet()
            devices = over.devices[0], Device("b", address=endpoint[0])
            links = tuple(dataclasses.replace(link, emulate=False) for link in over.links)
            over = dataclasses.replace(over, devices=devices, links=links)
            made = plan(CHAIN, [("a", 0, 1, "torch"), ("b", 1, 3, "torch")], over)
            run = record(DeployRequest(made, tmp_path / "run", requests=6, check=0, trace=trace), [])
        finally:
            agent.terminate()
    found = strictly(trace.read_text())
    check_times(check_format(found), run)
    clock = found["otherData"]["clocks"]["b"]
    assert abs(clock["offset_s"] + 1000) <= clock["error_s"] < 0.5
    for row in read_clocks(tmp_path / "run"):
        assert abs(row.offset_s + (1000 if row.device == "b" else 0)) <= row.error_s
    for each in read_marks(tmp_path / "run"):
        steps = zip(each.marks_ns, each.marks_ns[1:], strict=False)
        assert all(later - earlier >= -2 * each.error_ns for earlier, later in steps)
        assert each.marks_ns[-1] < 600 * 10**9  # and none is off by 1000 s
