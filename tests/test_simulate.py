"""Simulating a plan: the forecast where nothing interferes, queueing theory where something does."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from cases import CHAIN, FLEET, make_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import Instance, instances, make_chain, make_codec_row, make_row

from planner.errors import DocumentError, InputError, MismatchError, PlanningError, UnknownNameError
from planner.fleet import Device, Fleet
from planner.plan import Plan
from planner.simulate_rate import LinkTrace, Rate, read_link_trace, read_times
from planner.simulate_result import Simulation, save_requests
from planner.simulate_run import simulate
from planner.simulate_scenario import Arrivals, Outage, Scenario, Slowdown, parse_arrivals
from planner.simulate_steps import turns_of
from planner.solver import solve
from planner.table import ProfileTable

CLOSED = Arrivals()
LINK = ("edge", "server")


@pytest.fixture(scope="module")
def split() -> Plan:
    """Layer 0 on the edge (10 ms), 4 kB to the server (4 ms), layers 1 and 2 there (4 ms), 100 B back (0.1 ms)."""
    found = solve(CHAIN, FLEET, make_table(), objective="latency")
    assert [(stage.device, stage.bundle.start) for stage in found.stages] == [("edge", 0), ("server", 1)]
    return found


@pytest.fixture(scope="module")
def alone() -> Plan:
    """One stage of 10 ms."""
    chain = make_chain([1000, 10])
    fleet = Fleet("edge", "edge", (Device("edge", battery=True, active_power_w=2.0, idle_power_w=0.5),), ())
    table = ProfileTable(chain, (make_row("edge", 0, 1, 0.010),))
    return solve(chain, fleet, table, objective="latency")


def open_(kind: str, rate: float) -> Arrivals:
    return Arrivals(kind, rate_per_s=rate)


@given(instances(), st.integers(1, 5))
@settings(max_examples=40)
def test_one_request_in_flight_costs_the_forecast(instance: Instance, requests: int) -> None:
    try:
        plan = solve(instance.chain, instance.fleet, instance.table, objective="latency")
    except PlanningError:
        assume(False)
    found, (stream,) = simulate([plan], [CLOSED], Scenario(requests=requests))
    for each in stream:
        assert each.latency_s == pytest.approx(plan.cost.latency_s, rel=1e-9)
        assert each.queue_s == pytest.approx(0, abs=1e-9)
    assert found.duration_s == pytest.approx(requests * plan.cost.latency_s, rel=1e-9)
    assert found.energy_per_request_j == pytest.approx(plan.cost.energy_j, rel=1e-9, abs=1e-12)


def test_coding_of_a_metered_device_costs_the_forecast() -> None:
    """Its power while it codes stands nowhere but in the hop's energy."""
    chain = make_chain([40_000, 30_000, 100])
    devices = (Device("edge", battery=True, idle_power_w=0.25), Device("server"))
    fleet = dataclasses.replace(FLEET, devices=devices, links=FLEET.links[:2])
    rows = [
        make_row(name, i, j, (j - i) * time, energy_j=(j - i) * 0.02 if name == "edge" else None)
        for name, time in (("edge", 0.1), ("server", 0.001))
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    codecs = [make_codec_row(name, 0, "zstd", 5_000, 0.002, 0.001) for name in ("edge", "server")]
    plan = solve(chain, fleet, ProfileTable(chain, tuple(rows), codecs=tuple(codecs)), objective="latency")
    assert plan.hops[0].codec == "zstd"
    assert turns_of(plan)[0].steps[0].power_w == pytest.approx(0.2)
    found, _ = simulate([plan], [CLOSED], Scenario(requests=3))
    assert found.energy_per_request_j == pytest.approx(plan.cost.energy_j, rel=1e-9)
    assert found.streams[0].latency.mean_s == pytest.approx(plan.cost.latency_s, rel=1e-9)


@given(instances(), st.integers(1, 8), st.sampled_from([0.0, 0.3]), st.integers(0, 9))
@settings(max_examples=30)
def test_what_enters_leaves_once_and_times_add_up(
    instance: Instance, concurrency: int, jitter: float, seed: int
) -> None:
    try:
        plan = solve(instance.chain, instance.fleet, instance.table, objective="latency")
    except PlanningError:
        assume(False)
    scenario = Scenario(requests=20, jitter=jitter, seed=seed)
    found, (stream,) = simulate([plan], [Arrivals("closed", concurrency)], scenario)
    again, _ = simulate([plan], [Arrivals("closed", concurrency)], scenario)
    assert found == again
    assert [each.number for each in stream] == list(range(20))
    assert found.streams[0].finished == 20
    # A path without branches keeps the order.
    assert all(a.left_s <= b.left_s for a, b in itertools.pairwise(stream))
    # At no moment more are in flight than the loop lets in.
    for each in stream:
        within = sum(other.arrived_s <= each.arrived_s < other.left_s for other in stream)
        assert within <= concurrency
    steps = sum(len(turn.steps) for turn in turns_of(plan))
    assert sum(each.steps for each in found.places) == 20 * steps
    for each in found.places:
        assert each.busy_s <= found.duration_s * (1 + 1e-9)
        assert each.max_queue <= concurrency - 1
    # Little's law: requests in the system, over time, are their latencies.
    waiting = sum(each.mean_queue for each in found.places) * found.duration_s
    assert waiting == pytest.approx(sum(each.queue_s for each in stream), abs=1e-9)


def test_busy_time_is_what_the_steps_take(split: Plan) -> None:
    found, _ = simulate([split], [Arrivals("closed", 4)], Scenario(requests=50))
    busy_ms = {each.place: each.busy_s / 50 * 1e3 for each in found.places}
    want = {("edge",): 10, ("server",): 4, LINK: 4, ("server", "edge"): 0.1}
    assert busy_ms == pytest.approx(want)


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_saturated_throughput_is_one_over_the_period(split: Plan, jitter: float) -> None:
    found, _ = simulate([split], [Arrivals("closed", 8)], Scenario(requests=2000, jitter=jitter))
    (stream,) = found.streams
    assert stream.bottleneck == ("edge",)
    assert stream.capacity_per_s == pytest.approx(100, rel=0.02 if jitter else 1e-9)
    assert stream.throughput_per_s == pytest.approx(stream.capacity_per_s, rel=0.005)
    assert max(each.utilisation for each in found.places) > 0.99


def test_below_capacity_queues_stay_bounded(split: Plan) -> None:
    found, _ = simulate([split], [open_("constant", 99)], Scenario(requests=2000))
    assert max(each.max_queue for each in found.places) == 0
    assert not found.notes
    for requests in (2000, 8000):
        found, _ = simulate([split], [open_("poisson", 70)], Scenario(requests=requests))
        assert max(each.max_queue for each in found.places) < 20


def test_above_capacity_it_says_so(split: Plan) -> None:
    found, (stream,) = simulate([split], [open_("constant", 125)], Scenario(requests=500))
    (note,) = found.notes
    assert "the queue grows: the plan can serve 100 per s at most" in note
    assert "edge is asked for 125% of its time" in note
    assert stream[-1].queue_s == pytest.approx(499 * 0.002)
    times = tuple(number / 125 for number in range(500))
    found, _ = simulate([split], [Arrivals("trace", time_s=times)], Scenario())
    assert found.notes == (note,)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_waiting_agrees_with_queueing_theory(alone: Plan, load: float) -> None:
    """M/D/1 (Pollaczek and Khinchine): load x service / (2 (1 - load)); with jitter c, times (1 + c^2)."""
    for jitter in (0.0, 0.5):
        scenario = Scenario(requests=60_000, seed=1, jitter=jitter)
        found, _ = simulate([alone], [open_("poisson", load / 0.010)], scenario)
        want_s = load * 0.010 * (1 + jitter**2) / (2 * (1 - load))
        assert found.streams[0].latency.queue_s == pytest.approx(want_s, rel=0.06)
        # Little: the mean queue is the rate times the mean wait.
        assert found.places[0].mean_queue == pytest.approx(load / 0.010 * want_s, rel=0.06)


def test_energy_over_time(alone: Plan) -> None:
    found, _ = simulate([alone], [open_("constant", 20)], Scenario(requests=100))
    (battery,) = found.batteries
    assert battery.compute_j == pytest.approx(100 * 0.010 * 2.0)
    assert battery.idle_j == pytest.approx(99 * 0.040 * 0.5)
    assert (battery.radio_j, found.duration_s) == (0, pytest.approx(99 / 20 + 0.010))


def test_a_radio_that_works_beside_the_processor_idles_once(split: Plan) -> None:
    devices = (dataclasses.replace(FLEET.devices[0], idle_power_w=0.5), *FLEET.devices[1:])
    fleet = dataclasses.replace(FLEET, devices=devices)
    plan = solve(CHAIN, fleet, make_table(), objective="latency")
    found, _ = simulate([plan], [Arrivals("closed", 8)], Scenario(requests=100))
    (battery,) = found.batteries
    assert battery.compute_j == pytest.approx(100 * 0.010 * 2.0)
    assert battery.radio_j == pytest.approx(100 * 0.0041 * 1.0)
    # Idle only at the end, when the last request is on the server: 4 ms.
    assert battery.idle_j == pytest.approx(0.004 * 0.5)


def test_a_trace_is_integrated_over_a_transfer(split: Plan) -> None:
    """4 kB from 10 ms on: 2 kB until 12 ms at 1 MB/s, nothing until 20 ms, the rest at 4 MB/s in 0.5 ms."""
    trace = LinkTrace(*LINK, (0.0, 0.012, 0.020), (1e6, 0.0, 4e6))
    found, (stream,) = simulate([split], [CLOSED], Scenario(requests=1, traces=(trace,)))
    assert stream[0].latency_s == pytest.approx(0.0205 + 0.004 + 0.0001)
    busy_s = {each.place: each.busy_s for each in found.places}
    assert busy_s[LINK] == pytest.approx(0.0025)  # radio power counts while bytes flow
    assert found.batteries[0].radio_j == pytest.approx(0.0025 + 0.0001)


def test_latency_of_a_trace_keeps_the_order(split: Plan) -> None:
    """The second request's bytes leave at 24 ms, when the latency has fallen to 0: it cannot overtake."""
    trace = LinkTrace(*LINK, (0.0, 0.020), (1e6, 1e6), (0.1, 0.0))
    _, (stream,) = simulate([split], [Arrivals("closed", 2)], Scenario(requests=2, traces=(trace,)))
    assert stream[0].latency_s == pytest.approx(0.014 + 0.1 + 0.0041)
    assert stream[1].left_s == pytest.approx(0.114 + 0.008 + 0.0001)


def test_slowdowns_and_outages(split: Plan) -> None:
    base = split.cost.latency_s

    def latency_s(**changes: object) -> float:
        scenario = Scenario(requests=1, **changes)
        return simulate([split], [CLOSED], scenario)[1][0][0].latency_s

    assert latency_s(slowdowns=(Slowdown("edge", 3.0),)) == pytest.approx(base + 0.020)
    assert latency_s(slowdowns=(Slowdown("edge", 3.0, 0.006),)) == pytest.approx(base + 0.008)
    assert latency_s(slowdowns=(Slowdown("cloud", 9.0),)) == pytest.approx(base)
    assert latency_s(outages=(Outage(("edge",), 0.0, 1.0),)) == pytest.approx(base + 1)
    assert latency_s(outages=(Outage(("edge",), 0.005, 1.0),)) == pytest.approx(base + 0.995)
    assert latency_s(outages=(Outage(LINK, 0.0, 0.012),)) == pytest.approx(base + 0.002)
    both = (Outage(LINK, 0.0, 0.012), Outage(("server",), 0.0, 0.1))
    assert latency_s(outages=both) == pytest.approx(0.1 + 0.004 + 0.0001)
    assert latency_s(bandwidth_factor=0.5) == pytest.approx(base + 0.0041)


def test_deadlines(alone: Plan) -> None:
    """Four at once, 10 ms each, 25 ms allowed."""
    burst = Arrivals("trace", time_s=(0.0, 0.0, 0.0, 0.0))
    found, _ = simulate([alone], [burst], Scenario(deadline_s=0.025))
    assert (found.streams[0].finished, found.streams[0].late, found.streams[0].dropped) == (4, 2, 0)
    found, (stream,) = simulate([alone], [burst], Scenario(deadline_s=0.025, drop_late=True))
    # The third is taken up at 20 ms and late at 30; the fourth would be taken up at 30.
    assert (found.streams[0].finished, found.streams[0].late, found.streams[0].dropped) == (3, 1, 1)
    assert [each.dropped for each in stream] == [False, False, False, True]
    assert found.places[0].steps == 3


def test_samples_are_drawn(split: Plan) -> None:
    samples = {
        (CHAIN.digest, stage.device, stage.bundle, stage.variant, 1): [0.010, 0.030] for stage in split.stages
    }
    found, (stream,) = simulate([split], [CLOSED], Scenario(from_samples=True, requests=200), samples)
    moving_s = sum(hop.cost.latency_s for hop in split.hops)
    assert {round((each.latency_s - moving_s) * 1e3) for each in stream} == {20, 40, 60}
    assert found.streams[0].latency.mean_s == pytest.approx(0.040 + moving_s, rel=0.05)
    with pytest.raises(MismatchError, match="no raw samples of net, edge"):
        simulate([split], [CLOSED], Scenario(from_samples=True), {})


def test_jitter_has_the_forecast_as_its_mean(alone: Plan) -> None:
    found, (stream,) = simulate([alone], [CLOSED], Scenario(requests=20_000, jitter=0.2))
    values = np.array([each.latency_s for each in stream])
    assert values.mean() == pytest.approx(0.010, rel=0.005)
    assert values.std() / values.mean() == pytest.approx(0.2, rel=0.03)
    other, _ = simulate([alone], [CLOSED], Scenario(requests=20_000, jitter=0.2, seed=1))
    assert other.streams[0].latency != found.streams[0].latency


def test_two_plans_share_a_fleet(split: Plan) -> None:
    """One plan keeps to the edge, which the other needs too: each slows the other, and time is shared."""
    edge = next(each for each in single_device_plans_of(split) if each.stages[0].device == "edge")
    found, streams = simulate([split, edge], [Arrivals("closed", 2), CLOSED], Scenario(requests=200))
    assert [len(stream) for stream in streams] == [200, 200]
    for result, plan in zip(found.streams, (split, edge), strict=True):
        assert result.latency.mean_s > plan.cost.latency_s * 1.05
    busy_s = {each.place: each.busy_s for each in found.places}
    assert busy_s["edge",] == pytest.approx(200 * (0.010 + 0.030))
    found, _ = simulate([split, edge], [open_("poisson", 50), open_("constant", 25)], Scenario(requests=50))
    (note,) = found.notes
    assert "of these plans 40 and 20 per s can be served together at most" in note
    other = dataclasses.replace(split, fleet=dataclasses.replace(FLEET, links=FLEET.links[::-1]))
    with pytest.raises(MismatchError, match=r"plan 2 .net. is for another fleet"):
        simulate([split, other], [CLOSED, CLOSED], Scenario())


def single_device_plans_of(plan: Plan) -> list[Plan]:
    return [
        dataclasses.replace(plan, stages=each.stages, hops=each.hops, cost=each.cost)
        for each in plan.baselines
        if len({stage.device for stage in each.stages}) == 1
    ]


def test_first_come_first_served_by_hand(split: Plan) -> None:
    """Three at once; the edge takes 10 ms each, and everything after it is quicker."""
    _, (stream,) = simulate([split], [Arrivals("trace", time_s=(0.0, 0.0, 0.001))], Scenario())
    after_s = 0.004 + 0.004 + 0.0001
    assert [each.left_s for each in stream] == pytest.approx(
        [0.010 + after_s, 0.020 + after_s, 0.030 + after_s]
    )
    assert [each.queue_s for each in stream] == pytest.approx([0, 0.010, 0.019])


def test_documents_and_rows(split: Plan, tmp_path: Path) -> None:
    scenario = Scenario(
        requests=30, jitter=0.1, deadline_s=0.02, drop_late=True, slowdowns=(Slowdown("edge", 2.0, 0.1),),
        outages=(Outage(LINK, 0.0, 0.05),), traces=(LinkTrace(*LINK, (0.0, 1.0), (1e6, 2e6)),),
    )  # fmt: skip
    found, requests = simulate([split, split], [open_("poisson", 50), Arrivals("closed", 2)], scenario)
    found.save(tmp_path / "simulation.json")
    assert Simulation.load(tmp_path / "simulation.json") == found
    save_requests(requests, scenario, tmp_path / "requests.csv")
    lines = (tmp_path / "requests.csv").read_text().splitlines()
    assert lines[0] == "plan,request,arrived_s,left_s,latency_s,queue_s,late,dropped"
    assert len(lines) == 61
    counts: dict[str, int] = defaultdict(int)
    for line in lines[1:]:
        cells = line.split(",")
        counts[f"{cells[0]} late"] += int(cells[6])
        counts[f"{cells[0]} dropped"] += int(cells[7])
        assert (cells[4] == "") == (cells[7] == "1")
    for place, stream in enumerate(found.streams):
        assert (counts[f"{place} late"], counts[f"{place} dropped"]) == (stream.late, stream.dropped)


steps = st.lists(st.tuples(st.floats(0.01, 2), st.sampled_from([0.0, 0.5, 1.0, 3.0])), max_size=6)


@given(steps, st.floats(0.5, 4), st.floats(0, 10), st.floats(0.001, 20))
def test_rates_integrate(parts: list[tuple[float, float]], last: float, start: float, amount: float) -> None:
    times, values, at = [], [], 0.0
    for width, value in parts:
        times.append(at)
        values.append(value)
        at += width
    rate = Rate((*times, at), (*values, last))
    stop = rate.finish_s(start, amount)
    spans = rate.spans(start, stop)
    done = sum(
        (b - a) * (rate.mean(b) * b - rate.mean(a) * a if a else rate.mean(b) * b) / (b - a)
        for a, b in spans
        if b > a
    )
    assert done == pytest.approx(amount, rel=1e-6)
    assert all(rate.at(a) > 0 for a, _ in spans)
    doubled = rate.times(Rate.constant(2.0))
    assert doubled.finish_s(start, 2 * amount) == pytest.approx(stop, rel=1e-9)


def test_what_never_ends_is_an_error(split: Plan) -> None:
    stops = LinkTrace(*LINK, (0.0, 0.012), (1e6, 0.0))
    with pytest.raises(InputError, match=r"edge → server: a transfer of 4,000 bytes .* never ends") as found:
        simulate([split], [Arrivals("closed", 3)], Scenario(traces=(stops,)))
    assert "bandwidth above 0" in found.value.remedy
    with pytest.raises(ValueError, match="0 for ever"):
        LinkTrace(*LINK, (0.0, 1.0), (0.0, 0.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"slowdowns": (Slowdown("sever", 2.0),)}, "unknown device 'sever'"),
        ({"outages": (Outage(("edge", "cloud"), 0.0, 1.0),)}, "unknown link 'edge:cloud'"),
        ({"traces": (LinkTrace("cloud", "edge", (0.0,), (1.0,)),)}, "unknown link 'cloud:edge'"),
    ],
)
def test_unknown_names(split: Plan, change: dict[str, object], says: str) -> None:
    with pytest.raises(UnknownNameError, match=says):
        simulate([split], [CLOSED], Scenario(**change))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "found an empty file"),
        ("time_s,bandwidth_bytes_per_s\n", "it has no rows"),
        ("time_s,bandwidth_mbps\n0,1\n", "1 Mbit/s is 125000"),
        ("time_s,bandwidth_bytes_per_s\n0,1\n2,1\n1,1\n", "row 3: time goes from 2 s to 1 s"),
        ("time_s,bandwidth_bytes_per_s\n0,1\n0,2\n", "row 2: time goes from 0 s to 0 s"),
        ("time_s,bandwidth_bytes_per_s\n5,1\n", "subtract it"),
        ("time_s,bandwidth_bytes_per_s\n0,-1\n", "at least 0"),
        ("time_s,bandwidth_bytes_per_s\n0,nan\n", "at least 0"),
        ("time_s,bandwidth_bytes_per_s\n0,0\n3,0\n", "0 for ever"),
        ("time_s,bandwidth_bytes_per_s\n0,x\n", "row 2: could not convert"),
        ("time_s,bandwidth_bytes_per_s\n0\n", "row 2: expected 2 cells"),
        ("time_s,bandwidth_bytes_per_s,latency_s\n0,1,-1\n", "latency_s must be at least 0"),
    ],
)
def test_bad_traces(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(DocumentError) as found:
        read_link_trace(file, LINK)
    assert says in str(found.value)
    assert str(file) in str(found.value)


def test_traces_and_arrivals_are_read(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("latency_s, time_s ,bandwidth_bytes_per_s\n0.1,0,5\n\n0.2,1.5,6\n")
    assert read_link_trace(file, LINK) == LinkTrace(*LINK, (0.0, 1.5), (5.0, 6.0), (0.1, 0.2))
    file.write_text("time_s\n0.5\n0.5\n2\n")
    assert parse_arrivals(str(file)).time_s == (0.5, 0.5, 2.0) == read_times(file)
    assert parse_arrivals("closed:4") == Arrivals("closed", 4)
    assert parse_arrivals("poisson:2.5") == Arrivals("poisson", rate_per_s=2.5)
    file.write_text("time_s\n2\n1\n")
    with pytest.raises(DocumentError, match="row 2: time goes from 2 s to 1 s"):
        parse_arrivals(str(file))


@pytest.mark.parametrize(
    "text",
    ["closed", "closed:0", "closed:1.5", "poisson:-1", "poisson:inf", "constant:nan", "often", "burst:3"],
)
def test_bad_arrivals(text: str) -> None:
    with pytest.raises(InputError, match=r"are no arrivals.*\n.*closed:4"):
        parse_arrivals(text)


@pytest.mark.parametrize(
    "given_",
    [
        {"requests": 0}, {"jitter": -0.1}, {"jitter": math.nan}, {"bandwidth_factor": 0.0}, {"deadline_s": 0.0},
        {"drop_late": True}, {"traces": (LinkTrace("a", "b", (0.0,), (1.0,)),) * 2},
    ],
)  # fmt: skip
def test_bad_scenarios(given_: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Scenario(**given_)
