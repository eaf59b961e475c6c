"""Which plan an adviser proposes, and when, on streams whose devices and links change."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from cases import CHAIN, FLEET, make_table
from enumeration import everything
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from limits_oracle import keeps
from strategies import Instance, instances

from planner.conditions import Conditions, gone_of
from planner.errors import EdgecutError, PlanningError
from planner.fleet import Emulation, Fleet
from planner.limits import Limits
from planner.plan import Plan, same_path
from planner.replan import Replanner
from planner.run_rows import RunRow
from planner.simulate_scenario import Place
from planner.solver import solve
from planner.watch import HOLD_S, SLACK_S, WARM_UP, WINDOW
from runtime.adviser import StaticAdviser
from runtime.profiled_adviser import DWELL_S, MARGIN, ProfiledAdviser

ALL = ("raw", "zstd", "int8")
NONE = frozenset[str](), frozenset[tuple[str, str]]()
# Requests after which a lasting change has been seen.
SEEN = WARM_UP + WINDOW
OBJECTIVES = ("latency", "energy", "period")


def slowed(instance: Instance, factors: dict[Place, float]) -> Instance:
    """The instance as if it had been measured at these speeds."""
    rows = tuple(
        replace(
            row,
            latency_s=row.latency_s * factors.get((row.device,), 1.0),
            energy_j=None if row.energy_j is None else row.energy_j * factors.get((row.device,), 1.0),
        )
        for row in instance.table.rows
    )
    codecs = tuple(
        replace(
            row,
            encode_s=row.encode_s * factors.get((row.device,), 1.0),
            decode_s=row.decode_s * factors.get((row.device,), 1.0),
        )
        for row in instance.table.codecs
    )
    links = tuple(
        replace(
            link,
            bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / factors.get(link.pair, 1.0),
            latency_s=link.latency_s * factors.get(link.pair, 1.0),
        )
        for link in instance.fleet.links
    )
    table = replace(instance.table, rows=rows, codecs=codecs)
    return replace(instance, fleet=replace(instance.fleet, links=links), table=table)


def optimum(instance: Instance, objective: str, limits: Limits) -> float | None:
    """By trying every plan; None where none keeps the limits."""
    limits = replace(limits, once=limits.once or objective == "period")
    values = [
        getattr(plan, objective) for plan in everything(instance, limits) if keeps(plan, instance, limits)
    ]
    return min(values, default=None)


def reachable(fleet: Fleet) -> Fleet:
    return replace(fleet, devices=tuple(replace(each, emulate=Emulation()) for each in fleet.devices))


def solved(instance: Instance, objective: str, limits: Limits | None = None) -> Plan:
    try:
        return solve(
            instance.chain, reachable(instance.fleet), instance.table, objective=objective, codecs=ALL,
            limits=limits or Limits(),
        )  # fmt: skip
    except PlanningError:
        assume(False)
        raise


def drawn(instance: Instance, plan: Plan, seed: int) -> dict[Place, float]:
    """A few factors, of what the plan uses mostly."""
    numbers = random.Random(seed)
    places: list[Place] = [(name,) for name in plan.devices]
    places += [*plan.links, *(link.pair for link in instance.fleet.links)]
    picked = numbers.sample(places, min(len(places), numbers.randint(1, 2)))
    return {place: numbers.choice([0.2, 0.6, 1.5, 4.0]) for place in picked}


@settings(max_examples=25)
@given(instances(), st.sampled_from(OBJECTIVES), st.integers(0, 2**32))
def test_plans_under_conditions_are_the_optimum_of_the_scaled_problem(
    instance: Instance, objective: str, seed: int
) -> None:
    plan = solved(instance, objective)
    replanner = Replanner(plan, instance.table)
    factors = drawn(instance, plan, seed)
    gone = [(frozenset[str](), frozenset[tuple[str, str]]())]
    gone += [(frozenset([name]), gone[0][1]) for name in plan.devices]
    gone += [(gone[0][0], frozenset([pair])) for pair in sorted(plan.links)]
    for devices, links in gone:
        conditions = Conditions(devices, links, tuple(sorted(factors.items())))
        if devices & {instance.fleet.source, instance.fleet.sink}:
            with pytest.raises(PlanningError, match="no plan does without"):
                replanner.best(conditions)
            continue
        best = optimum(slowed(instance, factors), objective, conditions.limits(plan.limits))
        if best is None:
            with pytest.raises(PlanningError):
                replanner.best(conditions)
            continue
        found = replanner.best(conditions)
        assert not conditions.used_by(found)
        assert found.fleet == plan.fleet
        assert found.proof.objective_value == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert replanner.value(found, conditions) == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert gone_of(found, plan) == Conditions(devices, links)
        if not conditions.used_by(plan):
            now = replanner.value(plan, conditions)
            assert now >= best * (1 - 1e-6)


# Streams ---------------------------------------------------------------------------------------------


@dataclass
class Stream:
    """Requests on the plan that the adviser wants, at the speeds that ``factors`` gives for each moment."""

    instance: Instance
    adviser: ProfiledAdviser
    factors: Callable[[float], dict[Place, float]]
    now_s: float
    step_s: float = 0.2
    requests: int = 0
    switches: list[tuple[float, Plan, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan = self.adviser.start()

    def run(self, requests: int, gone: tuple[frozenset[str], frozenset[tuple[str, str]]] = NONE) -> None:
        for _ in range(requests):
            self.adviser.observe(self.plan, list(self._rows()))
            found = self.adviser.better(self.plan, *gone)
            if found:
                self.plan = found[0]
                self.switches.append((self.now_s, *found))
            self.now_s += self.step_s
            self.requests += 1

    def _rows(self) -> Iterator[RunRow]:
        """Read off the tables and the links, not from what the planner says that they cost."""
        factors, table = self.factors(self.now_s), self.instance.table
        rows = {(row.device, row.bundle, row.variant): row for row in table.rows}
        codecs = {(row.device, row.boundary, row.codec): row for row in table.codecs}

        def row(kind: str, index: int, seconds: float) -> RunRow:
            return RunRow(self.requests, kind, index, 0.0, seconds, queue_s=99.0)

        for index, stage in enumerate(self.plan.stages):
            time_s = rows[stage.device, stage.bundle, stage.variant].latency_s
            yield row("stage", index, time_s * factors.get((stage.device,), 1.0))
        for index, hop in enumerate(self.plan.hops):
            wire_s = 0.0
            for pair in zip(hop.route, hop.route[1:], strict=False):
                link = self.instance.fleet.link(*pair)
                assert link is not None
                time_s = link.latency_s + hop.wire_bytes / link.bandwidth_bytes_per_s
                wire_s += time_s * factors.get(pair, 1.0)
            ends = [factors.get((hop.route[end],), 1.0) for end in (0, -1)]
            encode_s = decode_s = 0.0
            if hop.codec != "raw":
                encode_s = codecs[hop.route[0], hop.boundary, hop.codec].encode_s * ends[0]
                decode_s = codecs[hop.route[-1], hop.boundary, hop.codec].decode_s * ends[1]
                yield row("encode", index, encode_s)
                yield row("wire", index, wire_s)
                yield row("decode", index, decode_s)
            yield row("hop", index, encode_s + wire_s + decode_s)
        yield row("total", 0, 1.0)


def streaming(
    instance: Instance,
    objective: str,
    factors: Callable[[float], dict[Place, float]],
    step_s: float = 0.2,
    limits: Limits | None = None,
) -> Stream:
    plan = solved(instance, objective, limits)
    replanner = Replanner(plan, instance.table)
    stream: list[Stream] = []
    adviser = ProfiledAdviser(
        replanner, clock=lambda: stream[0].now_s if stream else 0.0, background=lambda work: work()
    )
    stream.append(Stream(instance, adviser, factors, 1000.0, step_s))
    return stream[0]


@settings(max_examples=20)
@given(instances(), st.sampled_from(OBJECTIVES), st.data())
def test_constant_factors_within_the_threshold_never_switch(
    instance: Instance, objective: str, data: st.DataObject
) -> None:
    stream = streaming(instance, objective, lambda now_s: factors)
    places: list[Place] = [(device.name,) for device in instance.fleet.devices]
    places += [link.pair for link in instance.fleet.links]
    factors = {place: data.draw(st.floats(1 / 1.19, 1.19)) for place in places}
    stream.run(3 * SEEN)
    assert stream.switches == []


@settings(max_examples=30)
@given(instances(), st.sampled_from(OBJECTIVES), st.integers(0, 2**32))
def test_a_lasting_factor_switches_once_and_in_time_to_the_optimum(
    instance: Instance, objective: str, seed: int
) -> None:
    stream = streaming(instance, objective, lambda now_s: factors)
    start = stream.plan
    factors: dict[Place, float] = {}
    name = random.Random(seed).choice([stage.device for stage in start.stages])
    # What takes next to nothing does not count.
    assume(sum(stage.cost.latency_s for stage in start.stages if stage.device == name) > 10 * SLACK_S)
    factors = {(name,): random.Random(seed).choice([1.6, 3.0, 8.0])}
    conditions = Conditions(factors=tuple(factors.items()))
    value = Replanner(start, instance.table).value(start, conditions)
    best = optimum(slowed(instance, factors), objective, start.limits)
    assert best is not None
    stream.run(SEEN)
    assume(not value * (1 - MARGIN) * 0.98 < best < value * (1 - MARGIN) * 1.02)
    if not best < value * (1 - MARGIN):
        assert stream.switches == []
        return
    [(_, plan, reason)] = stream.switches
    assert plan.proof.objective_value == pytest.approx(best, rel=1e-6)
    assert f"{name} takes {factors[name,]:.2f} x as long as profiled" in reason
    stream.run(int(0.9 * HOLD_S / stream.step_s) - SEEN)  # while what it knows of an idle device holds
    assert len(stream.switches) == 1


@settings(max_examples=10)
@given(instances(), st.sampled_from(OBJECTIVES), st.floats(0.5, 90.0), st.floats(0.1, 0.9))
def test_however_it_oscillates_a_switch_has_its_dwell(
    instance: Instance, objective: str, period_s: float, share: float
) -> None:
    stream = streaming(
        instance, objective, lambda now_s: {place: 6.0} if now_s % period_s < share * period_s else {}
    )
    place = (stream.plan.stages[0].device,)
    stream.run(600)
    moments = [moment for moment, _, _ in stream.switches]
    assert all(after - before >= DWELL_S for before, after in itertools.pairwise(moments))


def cases_instance() -> Instance:
    return Instance(CHAIN, FLEET, make_table())


def devices_of(plan: Plan) -> list[str]:
    return [stage.device for stage in plan.stages]


def test_recovery_leads_back_to_the_first_plan() -> None:
    """The server slows down while it is used and is well again while it is not."""
    slow_until_s = 1020.0
    stream = streaming(
        cases_instance(), "latency", lambda now_s: {("server",): 30.0} if now_s < slow_until_s else {}
    )
    start = stream.plan
    assert "server" in devices_of(start)
    stream.run(SEEN)
    assert "server" not in devices_of(stream.plan)
    stream.run(int(HOLD_S / stream.step_s) + 1)
    [_, (moment, plan, reason)] = stream.switches
    assert same_path(plan, start)
    assert moment > slow_until_s
    assert "all is as profiled again" in reason
    assert "ms instead of" in reason
    stream.run(2000)
    assert len(stream.switches) == 2


def test_futile_returns_become_rare() -> None:
    stream = streaming(cases_instance(), "latency", lambda now_s: {("server",): 30.0}, step_s=1.0)
    stream.run(3600)
    back = [plan for _, plan, _ in stream.switches if "server" in devices_of(plan)]
    assert 3 <= len(back) <= 6


def test_a_slow_link_is_left_and_the_codec_row_tells_it_from_the_device() -> None:
    pair = ("edge", "server")
    stream = streaming(cases_instance(), "latency", lambda now_s: {pair: 9.0})
    assert pair in stream.plan.links
    stream.run(SEEN)
    [(_, plan, reason)] = stream.switches
    assert pair not in plan.links
    assert "edge → server takes 9.00 x" in reason


# What is gone ------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(instances(), st.sampled_from(OBJECTIVES))
def test_without_is_the_optimum_or_says_why_not(instance: Instance, objective: str) -> None:
    plan = solved(instance, objective)
    for prepared in (False, True):
        adviser = ProfiledAdviser(Replanner(plan, instance.table), background=lambda work: work())
        if prepared:
            adviser.prepare()
        for device in instance.fleet.devices:
            gone = frozenset([device.name]), frozenset[tuple[str, str]]()
            found = adviser.without(*gone)
            best = None
            if device.name not in (instance.fleet.source, instance.fleet.sink):
                best = optimum(instance, objective, replace(plan.limits, without_devices=(device.name,)))
            assert (found is None) == (best is None)
            if found is None:
                assert adviser.obstacle(*gone)
                continue
            assert device.name not in found.devices
            assert adviser.obstacle(*gone) == ""
            value = Replanner(plan, instance.table).value(found, Conditions())
            assert value == pytest.approx(best, rel=1e-6, abs=1e-12)


def test_no_plan_without_the_source_or_within_limits() -> None:
    instance = cases_instance()
    plan = solved(instance, "latency")
    adviser = ProfiledAdviser(Replanner(plan, instance.table))
    gone = frozenset(["edge"]), frozenset[tuple[str, str]]()
    assert adviser.without(*gone) is None
    assert "no plan does without edge, the source" in adviser.obstacle(*gone)
    tight = solved(instance, "latency", Limits(max_latency_s=plan.cost.latency_s * 1.01))
    adviser = ProfiledAdviser(Replanner(tight, instance.table))
    gone = frozenset(["server"]), gone[1]
    assert adviser.without(*gone) is None
    assert "max_latency" in adviser.obstacle(*gone)


def test_a_device_that_is_back_is_used_again() -> None:
    stream = streaming(cases_instance(), "latency", lambda now_s: {})
    start, gone = stream.plan, (frozenset(["server"]), NONE[1])
    stream.adviser.prepare()
    found = stream.adviser.without(*gone)
    assert found is not None
    assert "server" not in found.devices
    stream.plan = found
    stream.run(100, gone)
    assert stream.switches == []
    stream.run(1)
    [(_, plan, reason)] = stream.switches
    assert same_path(plan, start)
    assert "server is back" in reason


def test_one_that_comes_and_goes_is_used_once_per_dwell() -> None:
    stream = streaming(cases_instance(), "latency", lambda now_s: {})
    gone = frozenset(["server"]), NONE[1]
    for _ in range(40):
        found = stream.adviser.without(*gone)
        assert found is not None
        stream.plan = found
        stream.run(5, gone)
        stream.run(5)
    assert stream.switches
    moments = [moment for moment, _, _ in stream.switches]
    assert all(after - before >= DWELL_S for before, after in itertools.pairwise(moments))


def test_late_answers_of_the_plan_before_do_not_count() -> None:
    stream = streaming(cases_instance(), "latency", lambda now_s: {("server",): 30.0} if now_s < 1010 else {})
    start, rows = stream.plan, list(stream._rows())
    stream.run(SEEN)
    [(_, plan, _)] = stream.switches
    stream.run(1)
    for _ in range(50):
        stream.adviser.observe(start, [replace(row, request=0) for row in rows])
    stream.run(200)
    assert stream.plan == plan
    assert len(stream.switches) == 1


def test_observing_never_waits_for_the_solver() -> None:
    """The solver is stuck; requests go on, nothing else is started, and its answer counts when it comes."""
    waiting: list[Callable[[], None]] = []
    stream = streaming(cases_instance(), "latency", lambda now_s: {("server",): 30.0})
    stream.adviser._background = waiting.append
    for done in (0, 1):  # the alternatives, then the better plan
        stream.run(3 * SEEN)
        assert len(waiting) == 1, done
        assert stream.switches == []
        waiting.pop()()
    stream.run(1)
    assert len(stream.switches) == 1


def test_a_solver_on_a_thread_of_its_own_answers_a_later_question() -> None:
    threads: list[threading.Thread] = []

    def background(work: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    stream = streaming(cases_instance(), "latency", lambda now_s: {("server",): 30.0})
    stream.adviser._background = background
    for _ in range(SEEN + 1):
        stream.run(1)
        for thread in threads:
            thread.join()
    assert len(stream.switches) == 1


@pytest.mark.parametrize("most", [1.1, None])
def test_a_plan_that_breaks_a_limit_now_is_left_whatever_the_gain(most: float | None) -> None:
    """The server before the cloud takes as much of the battery, so only the limit on latency asks for it."""
    links = tuple(
        replace(link, bandwidth_bytes_per_s=1e9) if "cloud" in link.pair else link for link in FLEET.links
    )
    instance = Instance(CHAIN, replace(FLEET, links=links), make_table())
    limits = Limits(max_latency_s=most and solved(instance, "energy").cost.latency_s * most)
    stream = streaming(instance, "energy", lambda now_s: {("cloud",): 2.0}, limits=limits)
    assert devices_of(stream.plan) == ["edge", "cloud"]
    stream.run(SEEN)
    if most is None:
        assert stream.switches == []
        return
    [(_, plan, reason)] = stream.switches
    assert devices_of(plan) == ["edge", "server"]
    assert "the running plan breaks a limit" in reason


def test_tables_without_what_the_plan_runs_are_refused() -> None:
    plan = solved(cases_instance(), "latency")
    with pytest.raises(EdgecutError, match="was not measured on server"):
        Replanner(plan, make_table(devices=("edge",)))


def test_a_static_adviser_stays() -> None:
    plan = solved(cases_instance(), "latency")
    adviser = StaticAdviser(plan)
    assert adviser.start() is plan
    assert adviser.better(plan, *NONE) is None
    assert adviser.without(frozenset(["nobody"]), NONE[1]) is plan
    assert adviser.without(frozenset(["server"]), NONE[1]) is None
    assert "needs what is gone: server" in adviser.obstacle(frozenset(["server"]), NONE[1])
