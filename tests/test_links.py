"""Links: exact data gives exact parameters, noise stays bounded, and real links are measured or named."""

from __future__ import annotations

import csv
import json
import math
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hosts import Hosts, hosts
from hypothesis import given
from hypothesis import strategies as st
from link_peers import Peer, offered

from planner.documents import from_data, to_data
from planner.errors import DocumentError, PlanningError, TransportError
from planner.fleet import Device, Emulation, Fleet, Link
from planner.fleet_file import RADIOS, parse_fleet
from planner.link_fit import Exchanges, clock_offset, fit_link, median_precision, one_way_s
from planner.link_report import FailedLink, LinkReport, MeasuredLink
from runtime.in_process import Hub, InProcessTransport
from runtime.link_measure import measure_links
from runtime.link_probe import Echo, ProbeOrder, ProbeProtocol, clock_name, probe
from runtime.transport import Transport
from runtime.zenoh_transport import ZenohTransport

SIZES = (64, 1024, 16_384, 262_144, 4_194_304)
LINKS = st.tuples(st.floats(0, 0.5), st.floats(1e4, 1e10))


def exact(latency_s: float, rate: float, sizes: tuple[int, ...] = SIZES) -> list[float]:
    return [latency_s + size / rate for size in sizes]


@given(LINKS, st.integers(1, 7))
def test_exact_times_give_the_exact_link(link: tuple[float, float], runs: int) -> None:
    fit = fit_link(SIZES * runs, exact(*link) * runs)
    assert fit.time_s(64) == pytest.approx(link[0] + 64 / link[1], rel=1e-6)
    assert fit.bandwidth_bytes_per_s == pytest.approx(link[1], rel=1e-6 * (1 + link[0] * link[1] / 4e6))
    assert abs(fit.worst_error) < 1e-6
    assert (fit.jitter_s, fit.n) == (pytest.approx(0, abs=1e-12), 5 * runs)


@given(LINKS, st.floats(0, 0.3), st.randoms(use_true_random=False))
def test_noise_is_bounded(link: tuple[float, float], noise: float, random) -> None:
    """The true line is one of those the fit may choose, so no size's loss is above the true line's in all."""
    times = [time * (1 + random.uniform(-noise, noise)) for time in exact(*link)]
    try:
        fit = fit_link(SIZES, times)
    except PlanningError:
        assert times != sorted(times)  # noise may hide the growth, and then the fit says so
        return
    for size in fit.sizes:
        ratio = 1 + size.error
        assert ratio + 1 / ratio - 2 <= len(SIZES) * noise**2 / (1 - noise) + 1e-9
    assert fit.latency_s >= 0


@given(LINKS, st.integers(0, 3), st.integers(0, 4))
def test_a_few_slow_frames_do_not_count(link: tuple[float, float], slow: int, size: int) -> None:
    times = exact(*link) * 7
    for run in range(slow):
        times[run * len(SIZES) + size] *= 1000
    found = fit_link(SIZES * 7, times)
    assert [found.time_s(nbytes) for nbytes in SIZES] == pytest.approx(exact(*link), rel=1e-6)


def test_the_fit_by_hand() -> None:
    """Two sizes have one line: 1 ms at 1000 B and 3 ms at 5000 B are 0.5 ms and 2 MB/s."""
    fit = fit_link([1000, 5000, 1000, 5000, 1000], [0.001, 0.003, 0.0011, 0.003, 0.0009])
    assert (fit.latency_s, fit.bandwidth_bytes_per_s) == pytest.approx((0.0005, 2e6))
    assert fit.jitter_s == pytest.approx(0.00015)  # of 0.1 and 0.2 ms
    assert [(size.nbytes, size.n, size.median_s) for size in fit.sizes] == [
        (1000, 3, 0.001),
        (5000, 2, 0.003),
    ]


def test_what_is_known_better_weighs_more() -> None:
    """The middle size scatters about a median that is twice the line's; the others are exact."""
    wild = [0.5, 4.0] * 10
    times = [time for run in range(20) for time in (1.001, wild[run], 1.1)]
    fit = fit_link([1000, 10_000, 100_000] * 20, times)
    assert fit.time_s(1000) == pytest.approx(1.001, rel=0.01)
    assert fit.time_s(100_000) == pytest.approx(1.1, rel=0.01)
    assert fit.worst_error < -0.4


def test_latency_is_never_below_zero() -> None:
    """The line through 1 s at 1 kB and 4 s at 2 kB starts at -2 s; with 0 s, by hand:
    slope^2 = (1/1 + 4/2) / (1/1 + 2/4) = 2 s^2 per kB^2, so 1.414 and 2.828 s."""
    fit = fit_link([1000, 2000], [1.0, 4.0])
    assert fit.latency_s == 0
    assert fit.bandwidth_bytes_per_s == pytest.approx(1000 / math.sqrt(2))
    assert fit.worst_error == pytest.approx(math.sqrt(2) - 1)


def test_a_burst_that_passes_does_not_hide_the_rate_behind_it() -> None:
    """A bucket of 16 KB, then 1 MB/s: least squares of relative errors would find 30 MB/s."""
    sizes = (64, 4096, 65_536, 262_144, 1_048_576)
    fit = fit_link(sizes, [0.0003, 0.0003, 0.049, 0.246, 1.032])
    assert 1e6 < fit.bandwidth_bytes_per_s < 2.5e6


@pytest.mark.parametrize(
    ("sizes", "times", "problem"),
    [
        ([], [], "two sizes or more, found none"),
        ([64, 64], [1.0, 2.0], "two sizes or more, found 64 B"),
        ([64, 1024], [1.0, 1.0], "do not grow"),
        ([64, 1024], [2.0, 1.0], "do not grow"),
        ([64, 1024], [-0.1, 1.0], "took -100 ms"),
        ([64, 1024], [math.nan, 1.0], "took nan ms"),
    ],
)
def test_samples_without_a_fit_are_refused(sizes: list[int], times: list[float], problem: str) -> None:
    with pytest.raises(PlanningError, match=problem) as caught:
        fit_link(sizes, times)
    assert caught.value.remedy


def exchanges(there: list[float], back: list[float], offset_s: float, drift: float = 0.0) -> Exchanges:
    """One every 10 ms, and a target whose clock is ``offset_s`` ahead and gains ``drift``."""
    sent, received, replied, returned = [], [], [], []
    for k, (one, other) in enumerate(zip(there, back, strict=True)):
        at = 5.0 + 0.01 * k
        stamps = at, at + one, at + one + 1e-5, at + one + 1e-5 + other
        ahead = [offset_s + drift * (stamp - 5.0) for stamp in stamps]
        sent.append(round(stamps[0] * 1e9))
        received.append(round((stamps[1] + ahead[1]) * 1e9))
        replied.append(round((stamps[2] + ahead[2]) * 1e9))
        returned.append(round(stamps[3] * 1e9))
    nbytes = tuple(SIZES[k % 2] for k in range(len(sent)))
    return Exchanges(nbytes, tuple(sent), tuple(received), tuple(replied), tuple(returned))


TIMES = st.lists(st.floats(1e-4, 5e-3), min_size=4, max_size=40)


@given(TIMES, st.floats(1e-4, 5e-3), st.floats(-1e6, 1e6), st.randoms(use_true_random=False))
def test_the_offset_is_within_its_stated_error(
    there: list[float], back: float, offset_s: float, random
) -> None:
    """Whatever the ways take: without drift, of the quickest exchange (RFC 5905)."""
    done = exchanges(there, [back * random.uniform(1, 2) for _ in there], offset_s)
    clock = clock_offset(replace_quick(done), shared=False)
    assert abs(clock.offset_s - offset_s) <= clock.error_s + 2e-9
    assert not clock.shared


def replace_quick(done: Exchanges) -> Exchanges:
    """Only the quickest exchange, of which the bound speaks."""
    best = int(done.round_trip_s.argmin())
    return Exchanges(*((getattr(done, name)[best],) for name in done.__slots__))


@pytest.mark.parametrize("drift", [0.0, 5e-5, -2e-5])
def test_equal_ways_give_the_one_way_times_of_drifting_clocks(drift: float) -> None:
    there = [0.002, 0.012] * 200
    done = exchanges(there, [0.002] * 400, offset_s=-3600.0, drift=drift)
    clock = clock_offset(done, shared=False)
    assert clock.drift == pytest.approx(drift, abs=1e-7)
    assert one_way_s(done, clock) == pytest.approx(there, abs=1e-6)
    assert clock.error_s == pytest.approx(0.002, rel=1e-3)


def test_a_shared_clock_is_used_as_it_is_unless_refuted() -> None:
    uneven = exchanges([0.001] * 20, [0.030] * 20, offset_s=0.0)
    clock = clock_offset(uneven, shared=True)
    assert (clock.offset_s, clock.error_s, clock.shared) == (0, 0, True)
    assert one_way_s(uneven, clock) == pytest.approx([0.001] * 20, abs=2e-9)
    apart = clock_offset(exchanges([0.001] * 20, [0.001] * 20, offset_s=7.0), shared=True)
    assert not apart.shared
    assert apart.offset_s == pytest.approx(7.0)


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (9, 2), (15, 4), (50, 18), (100, 40)])
def test_the_median_s_interval_has_the_ranks_of_the_tables(n: int, rank: int) -> None:
    """Ranks of the 95 % interval as tabulated for the sign test: 18 and 33 of 50, 40 and 61 of 100."""
    times = [float(k) for k in range(1, n + 1)]
    assert median_precision(times) == pytest.approx((n + 1 - 2 * rank) / 2 / ((n + 1) / 2))


@pytest.mark.parametrize("times", [[], [1.0] * 5, [0.0] * 10])
def test_no_interval_is_an_infinite_one(times: list[float]) -> None:
    assert median_precision(times) == math.inf


def test_exchanges_that_cannot_be_are_refused() -> None:
    good = {"nbytes": [64], "sent_ns": [0], "received_ns": [5], "replied_ns": [6], "returned_ns": [9]}
    assert len(from_data(Exchanges, good, "x")) == 1
    for fault, problem in (
        ({"nbytes": [64, 64]}, "differ in length"),
        ({"nbytes": [0]}, "at least 1, found 0"),
        ({"replied_ns": [4]}, "ends before it begins"),
        ({"returned_ns": [0]}, "ends before it begins"),
        ({"sent_ns": [0.5]}, "sent_ns"),
    ):
        with pytest.raises(DocumentError, match=problem):
            from_data(Exchanges, {**good, **fault}, "x")


def fleet(*links: Link) -> Fleet:
    devices = Device("a", battery=True, emulate=Emulation(1)), Device("b", emulate=Emulation(1)), Device("c")
    return Fleet("a", "a", devices, links)


def measured(link: Link) -> MeasuredLink:
    there = [0.002 + size / 1e7 for size in SIZES[:2]] * 10
    return MeasuredLink.of(link, exchanges(there, [0.002] * 20, 0.0), shared=True, left_out=(10**6,))


AB = Link("a", "b", 1e6, 0.01, send_power_w=2.0, receive_power_w=1.0, emulate=True)
AC = Link("a", "c", 1e6, 0.01, send_power_w=3.0)


def test_a_report_reads_back_and_its_csv_has_a_row_per_size(tmp_path: Path) -> None:
    report = LinkReport("2026-01-01T00:00:00+00:00", (measured(AB),), (FailedLink("a", "c", "gone"),))
    report.save(tmp_path / "links.json")
    assert LinkReport.load(tmp_path / "links.json") == report
    report.save_csv(tmp_path / "links.csv")
    with (tmp_path / "links.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["source"], row["target"], row["nbytes"], row["n"]) for row in rows] == [
        ("a", "b", "64", "10"),
        ("a", "b", "1024", "10"),
    ]
    assert float(rows[1]["median_s"]) == pytest.approx(0.0021024)
    document = json.loads((tmp_path / "links.json").read_text())
    (tmp_path / "links.json").write_text(json.dumps({**document, "schema": "edgecut.links/9"}))
    with pytest.raises(DocumentError, match="schema"):
        LinkReport.load(tmp_path / "links.json")


def test_a_fleet_takes_the_numbers_and_keeps_the_rest() -> None:
    before = fleet(AB, AC, Link("c", "a", 5e5))
    report = LinkReport("now", (measured(AB), measured(AC)))
    after = report.applied(before)
    assert after.links[0] == AB  # emulated: it is paced to what it says
    new = after.links[1]
    assert (new.latency_s, new.bandwidth_bytes_per_s) == pytest.approx((0.002, 1e7))
    assert replace(new, latency_s=AC.latency_s, bandwidth_bytes_per_s=AC.bandwidth_bytes_per_s) == AC
    assert (after.links[2], after.devices) == (before.links[2], before.devices)
    taken = report.applied(before, emulated=True).links[0]
    assert (taken.latency_s, taken.bandwidth_bytes_per_s) == pytest.approx((0.002, 1e7))
    assert taken.emulate


def test_the_lan_preset_is_a_gigabit_without_radio() -> None:
    text = (
        'schema = "edgecut.fleet/1"\nsource = "a"\n[device.a]\n[device.b]\n[[link]]\nbetween = ["a", "b"]\n'
    )
    links = parse_fleet(text + 'preset = "lan"\nlatency_s = 1e-4').links
    assert {link.bandwidth_bytes_per_s for link in links} == {1.25e8}
    assert {link.send_power_w + link.receive_power_w for link in links} == {0.0}
    assert (RADIOS["lan"].send_power_w, RADIOS["lan"].receive_power_w) == (0.0, 0.0)


def order(link: Link, back: Link | None = None, **protocol: object) -> ProbeOrder:
    return ProbeOrder(secrets.token_hex(8), link, back, ProbeProtocol(**protocol))


OTHER = {"source": "a", "target": "c", "bandwidth_bytes_per_s": 1.0}
FAULTS = {
    "channel": ({"channel": "../x"}, {}, "hexadecimal"),
    "another way back": ({"back": OTHER}, {}, "back must lead"),
    "unknown key": ({"file": "/etc/passwd"}, {}, "unknown key"),
    "one size": ({}, {"sizes": [64]}, "2 to 32"),
    "order": ({}, {"sizes": [64, 64]}, "ascending"),
    "empty frame": ({}, {"sizes": [0, 64]}, "from 1 to"),
    "more than a frame carries": ({}, {"sizes": [64, 1 << 40]}, "from 1 to"),
    "runs": ({}, {"min_runs": 20, "max_runs": 10}, "from 1 to 2000"),
    "endless": ({}, {"timeout_s": 1e9}, "at most 600"),
}


@pytest.mark.parametrize(("fault", "in_protocol", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_an_order_that_makes_no_sense_is_refused(
    fault: dict[str, object], in_protocol: dict[str, object], problem: str
) -> None:
    asked = order(AB)
    data = to_data(asked)
    assert from_data(ProbeOrder, data, "order") == asked
    with pytest.raises(DocumentError, match=problem):
        from_data(ProbeOrder, {**data, "protocol": {**data["protocol"], **in_protocol}, **fault}, "order")


@pytest.fixture(params=["in-process", "zenoh"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple]:
    """Two transports on one network."""
    if request.param == "in-process":
        hub = Hub()
        with InProcessTransport(hub) as one, InProcessTransport(hub) as other:
            yield one, other
    else:
        with ZenohTransport() as one, ZenohTransport(one.endpoint) as other:
            yield one, other


@pytest.mark.parametrize(("latency_s", "rate"), [(0.002, 2e6), (0.010, 2e7)])
def test_a_shaped_link_is_found_as_it_was_shaped(pair: tuple, latency_s: float, rate: float) -> None:
    link = Link("a", "b", rate, latency_s, emulate=True)
    back = Link("b", "a", 1e6, 0.004, emulate=True)
    asked = order(link, back, sizes=(64, 4096, 65_536), min_runs=6, max_runs=12)
    echo = Echo(pair[1], asked)
    result = probe(pair[0], asked)
    echo.close()
    assert 6 * 6 <= len(result.exchanges) <= 12 * 6
    found = MeasuredLink.of(link, result.exchanges, shared=bool(clock_name()))
    assert set(result.exchanges.nbytes) == {64, 4096, 65_536}
    # A paced link is never faster than asked; how much slower depends on the machine.
    times = one_way_s(result.exchanges, found.clock)
    least_s = np.array([latency_s + nbytes / rate for nbytes in result.exchanges.nbytes])
    assert (times >= least_s * 0.999).all()
    assert found.link.emulate
    # Without the shared clock the sum of both ways is the same, and the stated error covers the split.
    apart = MeasuredLink.of(link, result.exchanges, shared=False)
    assert abs(apart.clock.offset_s) <= apart.clock.error_s + 1e-3


def test_sizes_that_take_too_long_are_left_out(pair: tuple) -> None:
    link = Link("a", "b", 2e5, emulate=True)
    asked = order(link, None, sizes=(64, 1000, 2000, 40_000, 80_000), longest_s=0.1, min_runs=2, max_runs=2)
    echo = Echo(pair[1], asked)
    result = probe(pair[0], asked)
    assert result.left_out == (40_000, 80_000)
    assert set(result.exchanges.nbytes) == {64, 1000, 2000}
    echo.close()


def test_a_target_that_is_not_there_is_named(pair: tuple) -> None:
    asked = order(AC, None, timeout_s=0.3, longest_s=0.1)
    with pytest.raises(TransportError, match=r"no receiver after 0\.3 s"):
        probe(pair[0], asked)


def test_a_target_that_goes_in_the_middle_ends_the_probe(pair: tuple) -> None:
    asked = order(AC, None, min_runs=2_000, max_runs=2_000)
    echo = Echo(pair[1], asked)

    def go(note: str) -> None:
        if note.startswith("round 3"):
            echo.close()

    with pytest.raises(TransportError, match=r"no receiver|not acknowledged"):
        probe(pair[0], asked, go)


def test_an_echo_ends_when_nobody_sends(pair: tuple) -> None:
    asked = order(AC, None, timeout_s=0.3, longest_s=0.1)
    echo = Echo(pair[1], asked)
    echo._thread.join(10)
    assert not echo._thread.is_alive()
    # Its channel is free again.
    Echo(pair[1], asked).close()


QUICK = ProbeProtocol((64, 4096, 65_536), min_runs=4, max_runs=4, longest_s=5.0)


class Direct:
    """Tells a service of this process what to do, where an agent would."""

    def __init__(self, transport: Transport) -> None:
        self.handlers = offered(transport)

    def request(self, order: str, body: dict, *, timeout_s: float = 0, progress=None) -> dict:
        return self.handlers[order](body, progress)


def measure(
    fleet: Fleet, agents: dict, protocol: ProbeProtocol = QUICK, event: Callable[[], None] = lambda: None
) -> dict:
    """What was found by pair. ``event`` happens while a link is measured: at its first note of a round."""
    seen = []

    def progress(link: Link, note: str) -> None:
        if note.startswith("round") and not seen:
            seen.append(note)
            event()

    found = measure_links(fleet, fleet.links, agents, protocol, progress)
    return {
        (one.nominal.pair if isinstance(one, MeasuredLink) else (one.source, one.target)): one
        for one in found
    }


def test_a_link_that_cannot_be_measured_keeps_none_of_the_others(pair: tuple) -> None:
    links = Link("a", "b", 1e7, emulate=True), Link("a", "c", 1e6), Link("b", "a", 1e6, emulate=True)

    class Gone(Direct):
        def request(self, order: str, body: dict, *, timeout_s: float = 0, progress=None) -> dict:
            raise TransportError("agent c is gone", "start it again")

    agents = {"a": Direct(pair[0]), "b": Direct(pair[1]), "c": Gone(pair[1])}
    found = measure(fleet(*links), agents)
    assert list(found) == [link.pair for link in links]
    assert found["a", "c"] == FailedLink("a", "c", "agent c is gone; try: start it again")
    for link in (links[0], links[2]):
        one = found[link.pair]
        assert one.nominal == link
        for size in one.fit.sizes:  # a paced link is never faster than asked
            assert size.median_s >= size.nbytes / link.bandwidth_bytes_per_s * 0.999
        assert one.clock.shared == bool(clock_name())


def test_what_a_fit_refuses_is_kept_with_its_samples(pair: tuple) -> None:
    """Sizes so near to each other that noise decides."""
    agents = {"a": Direct(pair[0]), "b": Direct(pair[1])}
    protocol = replace(QUICK, sizes=(64, 65), min_runs=3, max_runs=3)
    for _ in range(50):
        one = measure(fleet(Link("a", "b", 1e9)), agents, protocol)["a", "b"]
        if isinstance(one, FailedLink):
            assert "do not grow from 64 to 65 B" in one.reason
            assert one.exchanges is not None
            assert len(one.exchanges) == 3 * 5
            break
    else:
        pytest.fail("one byte more took longer 50 times of 50")


def test_processes_behind_real_links_of_different_rates() -> None:
    with hosts("a", "b") as network, ExitStack() as stack:
        network.throttle("a", 40e6)
        network.throttle("b", 8e6)
        peers = host_peers(network, stack)
        links = Link("a", "b", 1.0), Link("b", "a", 1.0)
        found = measure(
            fleet(*links), peers, replace(QUICK, sizes=(64, 65_536, 262_144), max_runs=6, min_runs=3)
        )
        up, down = found["a", "b"], found["b", "a"]
        for one, rate in ((up, 5e6), (down, 1e6)):
            # A token bucket is never faster than asked, but for its 16 KB; how much slower is the machine's.
            largest = one.fit.sizes[-1]
            assert largest.median_s > (largest.nbytes - 2 * 16_384) / rate
        assert up.fit.bandwidth_bytes_per_s > 1.5 * down.fit.bandwidth_bytes_per_s
        assert up.clock.shared == bool(clock_name())


def test_a_cable_that_is_cut_in_the_middle_ends_one_link_only() -> None:
    with hosts("a", "b") as network, ExitStack() as stack:
        network.throttle("a", 8e6)
        peers = host_peers(network, stack)
        third = Peer(peers["b"].endpoint.replace("[::]", "127.0.0.1"), "tcp/127.0.0.1:0", network.prefix("b"))
        stack.callback(third.close)
        links = Link("a", "b", 1.0), Link("b", "c", 1.0)
        slow = replace(QUICK, min_runs=2000, max_runs=2000, timeout_s=20.0)
        found = measure(fleet(links[0]), peers, slow, lambda: network.cut("a"))
        assert isinstance(found["a", "b"], FailedLink)
        assert "no receiver" in found["a", "b"].reason or "not acknowledged" in found["a", "b"].reason
        rest = measure(fleet(links[1]), {**peers, "c": third})
        assert isinstance(rest["b", "c"], MeasuredLink)


def host_peers(network: Hosts, stack: ExitStack) -> dict[str, Peer]:
    one, other = (f"tcp/{network.addresses[name]}:7447" for name in "ab")
    there = Peer("-", other, network.prefix("b"))
    stack.callback(there.close)
    here = Peer(other, one, network.prefix("a"))
    stack.callback(here.close)
    return {"a": here, "b": there}


def test_a_process_that_dies_in_the_middle_is_named() -> None:
    with ExitStack() as stack:
        here = Peer()
        stack.callback(here.close)
        there = Peer(here.endpoint)
        stack.callback(there.close)
        endless = replace(QUICK, min_runs=2000, max_runs=2000)
        slow = Link("a", "b", 1e6, emulate=True)
        found = measure(
            fleet(slow, Link("b", "a", 1e6)), {"a": here, "b": there}, endless, there.process.kill
        )
        assert "no receiver" in found["a", "b"].reason
        assert found["b", "a"].reason == "the peer has gone"
