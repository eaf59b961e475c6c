"""The live view: what a monitor counts, how it is drawn, what stays on a terminal; the figures for Prometheus."""

from __future__ import annotations

import dataclasses
import importlib
import io
import math
import re
import socket
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, ConsoleDimensions
from sources import TINY, cut
from test_deploy import PLANS, fleet, plan

from planner.errors import EnergyError, InputError, MissingDependencyError
from planner.itinerary import itinerary
from planner.plan import Plan, Variant
from planner.run import Run
from planner.run_rows import RunRow
from profiler.energy.meter import Meter, Reading
from runtime.adviser import StaticAdviser
from runtime.agent_files import AgentFiles
from runtime.agent_network import AgentNetwork
from runtime.agent_service import make_agent
from runtime.answering import Answer
from runtime.bundles import preparation
from runtime.counting import SLOT_S, WINDOW_S, Durations, Windowed
from runtime.deployment import DeployRequest, record
from runtime.fleet_agents import FleetAgents
from runtime.in_process import Hub, InProcessTransport
from runtime.live import plain, watched
from runtime.live_deploy import DeployView
from runtime.live_profile import ProfileView
from runtime.metrics import parse_endpoint, register, served
from runtime.monitor import Monitor
from runtime.pipeline import Pipeline
from runtime.power_gauge import PowerGauge
from runtime.profile_progress import Advance
from runtime.timing import measured_rows

TESTS = Path(__file__).parent
MS = 1_000_000
SIZES = [(160, 50), (100, 40), (76, 24), (75, 24), (40, 12), (20, 5), (1, 1)]


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(cut(TINY)[1].chain, PLANS["there"], fleet())


class Clock:
    """A clock that a test sets, in seconds."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def answer(made: Plan, request: int, begin_ms: int) -> Answer:
    """In ms: waits 1, a computes 2, the link is waited for 1 and takes 5; waits 1, b computes 2; back it takes 3."""
    marks = tuple(MS * (begin_ms + at) for at in (0, 0, 1, 3, 4, 9, 9, 10, 12, 12, 15, 15, 15))
    return Answer(request, (), marks, made, itinerary(made))


def take(monitor: Monitor, given: Answer) -> list[RunRow]:
    rows = list(measured_rows(given.plan, given.segments, given.request, given.marks))
    monitor.took(given, rows)
    return rows


def watched_plan(made: Plan, requests: int = 500, window: int = 1) -> tuple[Monitor, Clock]:
    """A request every 20 ms for 10 s."""
    clock = Clock()
    monitor = Monitor(made, window, total=2 * requests, clock=clock)
    monitor.begin()
    for request in range(requests):
        clock.now_s = 0.020 * request + 0.015
        take(monitor, answer(made, request, 20 * request))
    return monitor, clock


def test_what_a_monitor_counts_by_hand(made: Plan) -> None:
    monitor, _ = watched_plan(made)
    state = monitor.state()
    assert (state.answered, state.total, state.refused, state.failed) == (500, 1000, 0, 0)
    assert state.requests_per_s == pytest.approx(50, rel=0.03)
    assert [(each.name, round(each.busy, 2), round(each.queue, 2)) for each in state.devices] == [
        ("a", 0.10, 0.05), ("b", 0.10, 0.05),
    ]  # fmt: skip
    assert all(each.requests_per_s == pytest.approx(50, rel=0.03) for each in state.devices)
    sent = made.hops[0].wire_bytes
    there, back = state.links
    assert (there.source, there.target, back.source, back.target) == ("a", "b", "b", "a")
    assert there.bytes_per_s == pytest.approx(50 * sent, rel=0.03)
    assert there.use == pytest.approx(50 * sent / 1e8, rel=0.03)
    assert (round(there.queue, 2), back.queue) == (0.05, 0)
    assert state.median_s == pytest.approx(0.015, rel=0.006)
    expected = {"a [0, 1)": 2, "hop a → b": 5, "b [1, 3)": 2, "hop b → a": 3, "total": 15}
    assert {each.label: each.measured_s for each in state.parts} == pytest.approx(
        {label: found_ms / 1e3 for label, found_ms in expected.items()}, rel=0.006
    )
    assert state.parts[0].error == pytest.approx(1.0, abs=0.01)


def test_with_several_in_flight_the_total_is_without_what_waited(made: Plan) -> None:
    state = watched_plan(made, window=4)[0].state()
    assert state.median_s == pytest.approx(0.015, rel=0.006)
    assert state.parts[-1].measured_s == pytest.approx(0.012, rel=0.006)


def test_rates_end_where_answers_do(made: Plan) -> None:
    monitor, clock = watched_plan(made)
    clock.now_s += WINDOW_S + 1
    state = monitor.state()
    assert state.requests_per_s == 0
    assert all(each.busy == each.queue == 0 for each in state.devices)
    assert state.answered == 500


def test_a_monitor_without_answers(made: Plan) -> None:
    state = Monitor(made).state()
    assert (state.median_s, state.requests_per_s, state.parts[-1].error) == (None, 0, None)


def test_another_plan_takes_over(made: Plan) -> None:
    monitor, _ = watched_plan(made)
    alone = plan(made.chain, PLANS["all on the source"], fleet())
    monitor.switched(alone)
    state = monitor.state()
    assert state.switches == 1
    assert [each.label for each in state.parts] == ["a [0, 3)", "total"]
    assert [each.name for each in state.devices] == ["a", "b"]  # b has worked for this run


def test_memory_is_bounded_over_many_plans(made: Plan) -> None:
    monitor = Monitor(made)
    for k in range(700):
        stage = dataclasses.replace(made.stages[0], variant=Variant("torch", str(k)))
        take(monitor, answer(dataclasses.replace(made, stages=(stage, *made.stages[1:])), k, k))
    assert len(monitor.parts) <= 502
    assert sum(each.count for part, each in monitor.parts.items() if part.kind == "stage") == 1400


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=80), st.floats(0, 1))
def test_quantiles_are_right_to_half_a_percent(values: list[float], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    exact = sorted(values)[min(math.floor(share * (len(values) - 1)), len(values) - 1)]
    found = durations.quantile(share)
    assert found == pytest.approx(exact, rel=0.006, abs=1e-6)
    assert (durations.count, durations.sum_s) == (len(values), pytest.approx(sum(values)))
    for bound, count in durations.cumulative(range(7, 26)):
        assert count == sum(value <= bound for value in values)


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 2)), min_size=1, max_size=30))
def test_what_is_spread_stays_whole_and_rates_add_up(spans: list[tuple[float, float]]) -> None:
    together, apart = Windowed(), [Windowed() for _ in spans]
    for (begin_s, took_s), own in zip(spans, apart, strict=True):
        together.spread(begin_s, begin_s + took_s)
        own.spread(begin_s, begin_s + took_s)
    spent = sum(took_s for _, took_s in spans)
    assert together.total == pytest.approx(spent)
    now_s = 6 + SLOT_S  # all of it is past, and the window goes back to 1
    assert together.rate(now_s, 0) == pytest.approx(sum(own.rate(now_s, 0) for own in apart))
    begun = Windowed()
    for begin_s, took_s in spans:
        begun.spread(begin_s + 1.5, begin_s + 1.5 + took_s / 2)
    assert begun.rate(6.5, 1.5) * WINDOW_S == pytest.approx(spent / 2)


MARKS = st.lists(st.integers(0, 3000 * MS), min_size=13, max_size=13)


@given(st.lists(MARKS, min_size=1, max_size=8), st.integers(1, 4))
def test_shares_are_shares_whatever_the_marks_say(steps: list[list[int]], window: int) -> None:
    """Clocks of two hosts may disagree, and marks may run backwards."""
    over = plan(cut(TINY)[1].chain, PLANS["there"], fleet())
    clock = Clock()
    monitor = Monitor(over, window, clock=clock)
    for request, marks in enumerate(steps):
        clock.now_s = max(marks) / 1e9
        take(monitor, dataclasses.replace(answer(over, request, 0), marks=tuple(marks)))
        state = monitor.state()
        assert all(0 <= each.busy <= 1 and each.queue >= 0 for each in state.devices)
        assert all(each.use >= 0 for each in state.links)
        assert DeployView(monitor, "x").line()


def drawn(view: DeployView | ProfileView, width: int, height: int) -> list[str]:
    out = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with out.capture() as capture:
        out.print(view.drawn(ConsoleDimensions(width, height)))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_view_of_a_deployment(made: Plan) -> None:
    monitor, _ = watched_plan(made)
    monitor.pipeline = cast(Pipeline, SimpleNamespace(power_w={"b": 12.34}, in_flight=3))
    shown = "\n".join(drawn(DeployView(monitor, "net on a, b"), 100, 40))
    assert re.search(r"^net on a, b +0:00:09$", shown, re.M)
    assert re.search(r"^500 of 1,000 requests .*50%, 0:00:(09|10) left$", shown, re.M)
    assert re.search(r"median 1[45]\.\d\d ms  p95 1[45]\.\d\d ms  3 in flight", shown)
    assert re.search(r"^a .* 10% +0\.0|1 +\d\d\.\d +-$", shown, re.M)
    assert re.search(r"^b .* 10% .* 12\.3$", shown, re.M)
    assert re.search(r"^b → a .* 0\.0 +0\.\d\d$", shown, re.M)
    assert re.search(r"^a \[0, 1\) +1\.00 ms +(1\.99|2\.0\d) ms +\+(99|10\d)\.\d %$", shown, re.M)
    assert shown.index("device") < shown.index("link") < shown.index("part") < shown.index("total")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_view_fits_its_terminal(made: Plan, width: int, height: int) -> None:
    profile = ProfileView("profile of a network with a long name", [f"device-{k}" for k in range(30)])
    profile.tell("device-3", Advance(0.25, "[3, 7) onnxruntime fp32", 40, 120, 7.5))
    for view in (DeployView(watched_plan(made)[0], "a network on many devices"), profile):
        lines = drawn(view, width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)


def test_a_small_terminal_shows_what_matters(made: Plan) -> None:
    shown = "\n".join(drawn(DeployView(watched_plan(made)[0], "network on a, b"), 40, 10))
    assert "500 of 1,000" in shown
    assert re.search(r"^a +10%", shown, re.M)
    assert re.search(r"^total +4\.08 +1[45]\.\d\d +\+", shown, re.M)
    assert "link" not in shown


def test_many_devices_are_cut_and_the_total_stays(made: Plan) -> None:
    names = "abcdefghijkl"
    where = [(name, k, k + 1, "torch") for k, name in enumerate("ace")]
    monitor = Monitor(plan(made.chain, where, fleet(names)))
    shown = drawn(DeployView(monitor, "x"), 100, 14)
    assert len(shown) <= 14
    assert shown[-1].startswith("total")
    assert any(re.match(r"… \d+ more", line) for line in shown)


def test_the_view_of_a_profile() -> None:
    clock = Clock()
    view = ProfileView("profile of net", ["edge", "server"], clock)
    view.tell("edge", Advance(0.2, "", 20, 80))
    clock.now_s = 30.0
    view.tell("edge", Advance(0.5, "[3, 7) torch fp32", 50, 50, 5.25))
    shown = "\n".join(drawn(view, 120, 20))
    assert re.search(r"^profile of net +0:00:30$", shown, re.M)
    assert re.search(r"^edge .* 50% +50 +50 +0:00:50 +5\.\d +\[3, 7\) torch fp32$", shown, re.M)
    assert re.search(r"^server .* 0% +- +- +- +- +waiting$", shown, re.M)
    view.tell("edge", Advance(1.0, "done"))
    assert re.search(r"^edge .* 100% +50 +0 +- .*done$", "\n".join(drawn(view, 120, 20)), re.M)
    assert view.line() == "profile of net: edge 100%, 0 bundles left (done); server 0% (waiting)"


def test_names_cannot_move_the_cursor(made: Plan) -> None:
    view = DeployView(Monitor(made), "evil\x1b[2J\r\nname")
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", "\n".join(drawn(view, 80, 20)))
    assert plain(view.line()) == view.line()


def test_elsewhere_there_are_plain_lines(made: Plan) -> None:
    monitor, _ = watched_plan(made)
    file, told = io.StringIO(), threading.Event()

    class View(DeployView):
        def line(self) -> str:
            told.set()
            return super().line()

    with watched(View(monitor, "net on a, b"), Console(file=file, width=160), line_s=0.01):
        assert told.wait(60)
    first = file.getvalue().splitlines()[0]
    assert re.fullmatch(
        r"net on a, b: 500 of 1,000 requests, [\d.]+ requests/s, median 1\d\.\d\d ms, p95 1\d\.\d\d ms, 0 in flight; "
        r"busy: a 10%, b 10%",
        first,
    )


Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(text: str) -> Figures:
    """Samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_figures_for_prometheus_are_those_of_the_rows(made: Plan, tmp_path: Path) -> None:
    monitor = Monitor(made, 2)
    with served(monitor, ("127.0.0.1", 0)) as address:
        request = DeployRequest(made, tmp_path / "run", requests=6, concurrency=2, transport="in-process")
        run = record(request, [], monitor)
        with urllib.request.urlopen(address, timeout=60) as answered:
            found = scraped(answered.read().decode())
    check_figures(found, run, made)
    assert monitor.state().answered == 6
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=60)


def check_figures(found: Figures, run: Run, made: Plan) -> None:
    def measured(kind: str, index: int = 0) -> list[float]:
        return [row.measured_s for row in run.rows if (row.kind, row.index) == (kind, index)]

    def figure(name: str, **labels: str) -> float:
        return found[f"edgecut_{name}", frozenset(labels.items())]

    latency = measured("total")
    assert figure("requests_total") == len(latency)
    assert figure("plan_switches_total") == figure("request_failures_total") == 0
    assert figure("latency_seconds_sum") == pytest.approx(sum(latency))
    bounds = [dict(labels)["le"] for name, labels in found if name == "edgecut_latency_seconds_bucket"]
    assert len(bounds) == 20
    for bound in bounds:
        assert figure("latency_seconds_bucket", le=bound) == sum(value <= float(bound) for value in latency)
    for k, stage in enumerate(made.stages):
        labels = {"device": stage.device, "bundle": str(stage.bundle), "variant": str(stage.variant)}
        assert figure("stage_seconds_sum", **labels) == pytest.approx(sum(measured("stage", k)))
        assert figure("stage_forecast_seconds", **labels) == stage.cost.latency_s
        busy_s = figure("device_busy_seconds_total", device=stage.device)
        assert busy_s == pytest.approx(sum(measured("stage", k)), abs=1e-6)
    for k, hop in enumerate(made.hops):
        labels = {"route": " → ".join(hop.route), "boundary": str(hop.boundary), "codec": hop.codec}
        assert figure("hop_seconds_count", **labels) == len(latency)
        assert figure("hop_seconds_sum", **labels) == pytest.approx(sum(measured("hop", k)))
        sent = figure("link_bytes_total", source=hop.route[0], target=hop.route[1])
        assert sent == pytest.approx(len(latency) * hop.wire_bytes)
    assert figure("latency_forecast_seconds") == made.cost.latency_s


def test_labels_take_any_name_and_stay_short(made: Plan) -> None:
    monitor = Monitor(made)
    hostile = 'x"} 1\n# evil \\ \ud800' + "y" * 500
    stage = dataclasses.replace(
        made.stages[0], variant=dataclasses.replace(made.stages[0].variant, backend=hostile)
    )
    other = dataclasses.replace(made, stages=(stage, *made.stages[1:]))
    monitor.switched(other)
    take(monitor, answer(other, 0, 0))
    registry = CollectorRegistry()
    register(monitor, registry)
    found = scraped(generate_latest(registry).decode())
    variants = [dict(labels)["variant"] for name, labels in found if name == "edgecut_stage_seconds_count"]
    (shown,) = [variant for variant in variants if variant.startswith("x")]
    assert shown.startswith('x"} 1\n# evil \\ ?yyy')
    assert len(shown) == 120


def test_a_port_in_use_says_so(made: Plan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"127.0.0.1:{port}: the port is in use"),
            served(Monitor(made), ("127.0.0.1", port)),
        ):
            pass
    with (
        pytest.raises(InputError, match="cannot offer metrics"),
        served(Monitor(made), ("no-such-host.invalid", 0)),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("9464", ("127.0.0.1", 9464)), (":9464", ("127.0.0.1", 9464)), ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)  # fmt: skip
def test_where_metrics_are_offered(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize("text", ["", "host", "host:", "host:port", "host:65536", "host:-1"])
def test_no_place_for_metrics(text: str) -> None:
    with pytest.raises(ValueError, match="not HOST:PORT"):
        parse_endpoint(text)


class TenWatts(Meter):
    """Draws ten watts; ``opened`` and ``windows`` say what was done to it."""

    name, domain, period_s = "fake", "all", 0.1
    opened = windows = 0

    def start(self) -> None:
        assert not self.windows
        self.windows = 1

    def stop(self) -> Reading:
        assert self.windows == 1
        self.windows = 0
        return Reading(20.0, 2.0, 20)

    def close(self) -> None:
        assert not self.windows
        self.opened -= 1


def test_a_gauge_reads_its_meter_only_while_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, meter = Clock(), TenWatts()
    monkeypatch.setattr("runtime.power_gauge.time.monotonic", clock)

    def open_meter() -> Meter:
        meter.opened += 1
        return meter

    gauge = PowerGauge(open_meter)
    assert (gauge.mean_w(), meter.opened) == (None, 0)
    with gauge.watching():
        assert (gauge.mean_w(), meter.opened) == (None, 1)  # nothing to say yet
        clock.now_s = 1.0
        with gauge.watching():
            assert (gauge.mean_w(), meter.opened) == (10.0, 1)
        assert gauge.mean_w() == 10.0
    assert (gauge.mean_w(), meter.opened) == (10.0, 0)


def test_a_gauge_without_its_meter_says_nothing() -> None:
    def open_meter() -> Meter:
        raise EnergyError("gone")

    gauge = PowerGauge(open_meter)
    with gauge.watching():
        assert gauge.mean_w() is None


def test_agents_tell_what_they_draw(made: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the meter to the view, by heartbeats."""
    monkeypatch.setattr("runtime.stage_service.HEARTBEAT_S", 0.02)
    monkeypatch.setattr("runtime.power_gauge._LEAST_S", 0.0)
    hub = Hub()
    with InProcessTransport(hub) as place, AgentNetwork(place) as network, ExitStack() as stack:
        agents = FleetAgents(network, tmp_path)
        for name in "ab":
            gauge = PowerGauge(TenWatts) if name == "b" else None
            transport = stack.enter_context(InProcessTransport(hub))
            agent = make_agent(name, transport, AgentFiles(tmp_path / name), gauge=gauge)
            stack.callback(agent.stop)
            threading.Thread(target=agent.serve, daemon=True).start()
            agents.add(made.fleet.device(name), "this process")
        prepare = preparation(cut(TINY)[1], tmp_path / "bundles")
        with Pipeline(StaticAdviser(made), agents, prepare) as pipeline:
            deadline = time.monotonic() + 120
            while not pipeline.power_w:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            monitor = Monitor(made)
            monitor.pipeline = pipeline
            assert [each.power_w for each in monitor.state().devices] == [None, 10.0]


def test_metrics_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "runtime.metrics")
    with pytest.raises(MissingDependencyError) as found:
        importlib.import_module("runtime.metrics")
    assert found.value.remedy == "pip install 'edgecut[metrics]'"
