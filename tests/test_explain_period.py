"""Explaining a plan of least period, against trying every plan."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from pathlib import Path

import pytest
from cases import CHAIN, FLEET, hard_table, make_table
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pipelines import Known
from rich_case import rich_case
from strategies import Instance
from test_origin import written
from test_throughput import everything, linked

from planner.codec_table import CODECS
from planner.explain import explain
from planner.explain_period_parts import endurance, slowed, what_helps
from planner.explanation import Explanation
from planner.fleet_file import save_fleet
from planner.limits import Limits
from planner.period import busy_s
from planner.period_question import Least, PeriodQuestion, next_periods
from planner.pricing import priced
from planner.solver import NO_LIMITS, solve
from planner.table import ProfileTable
from runtime.cli import cli


def posed(instance: Instance, limits: Limits = NO_LIMITS) -> tuple[PeriodQuestion, Least]:
    model, _ = priced(
        instance.chain, instance.fleet, instance.table, "period", limits, None, CODECS, "mean", False
    )
    question = PeriodQuestion(model, instance.fleet, limits, time.perf_counter() + 600, "cbc")
    return question, question.optimum()


def kind(known: Known, distinct: str) -> tuple[object, ...]:
    if distinct == "devices":
        return tuple(row.device for row in known.rows for _ in range(len(row.bundle)))
    if distinct == "cuts":
        return tuple((row.device, row.bundle) for row in known.rows)
    return tuple((row.device, row.bundle, row.variant) for row in known.rows)


@given(linked(), st.sampled_from(["devices", "cuts", "variants"]), st.booleans())
@settings(max_examples=15)
def test_the_next_periods_are_those_of_all_plans(instance: Instance, distinct: str, once: bool) -> None:
    limits = Limits(once=once)
    plans = [known for known in everything(instance) if known.keeps(limits)]
    question, best = posed(instance, limits)
    least: dict[tuple[object, ...], float] = {}
    for known in plans:
        least[kind(known, distinct)] = min(least.get(kind(known, distinct), math.inf), known.period)
    found = list(itertools.islice(next_periods(question, best, distinct), 5))
    wanted = sorted(least.values())[1:6]
    assert [each.value for each in found] == pytest.approx(wanted, rel=1e-8)
    assert all(each.proven for each in found)
    keys = [
        tuple((stage.device, stage.bundle, stage.variant) for stage in each.parts[0])
        for each in (best, *found)
    ]
    assert len(set(keys)) == len(keys)


def loads(known: Known, name: str) -> tuple[float, float]:
    """The most that anything else is busy, and how long this is."""
    busy = dict(known.busy)
    mine = busy.pop(name, 0.0)
    return max(busy.values(), default=0.0), mine


@given(linked(), st.data())
@settings(max_examples=20)
def test_how_much_slower_is_where_another_plan_takes_over(instance: Instance, data: st.DataObject) -> None:
    limits = Limits(once=True)
    pairs = everything(instance)
    plans = [known for known in pairs if known.keeps(limits)]
    question, best = posed(instance, limits)
    name = data.draw(st.sampled_from(sorted(busy_s(instance.fleet, *best.parts))))
    found = endurance(question, best, name)
    busy = busy_s(instance.fleet, *best.parts)
    mine = busy.pop(name)
    rest = max(busy.values(), default=0.0)
    assume(mine > 0)
    # Another plan is better at all factors beyond the most it is busy itself over what this one adds.
    better = [
        max(others, rest) / mine
        for others, load in (loads(known, name) for known in plans)
        if load < mine * (1 - 1e-9)
    ]
    first = max(1.0, min(better, default=math.inf))
    if first > 900:
        assert found.factor is None or found.factor == pytest.approx(first, rel=1e-4)
        return
    assert found.factor == pytest.approx(first, rel=3e-5)
    assert found.exact
    for factor, changes in ((first * 0.999, False), (first * 1.001, True)):
        value = min(max(others, load * factor) for others, load in (loads(known, name) for known in plans))
        own = max(rest, mine * factor)
        assert (value < own * (1 - 1e-6)) == changes or factor < 1


@given(linked())
@settings(max_examples=12)
def test_what_shortens_the_period_is_what_all_plans_say(instance: Instance) -> None:
    plans = everything(instance)
    question, best = posed(instance, Limits(once=True))
    prices = list(what_helps(question, best))
    assert {each.item for each in prices if each.limit in ("bandwidth", "speed")} == set(
        busy_s(instance.fleet, *best.parts)
    )
    once = [known for known in plans if known.keeps(Limits(once=True))]
    for each in prices:
        if each.limit == "once":
            assert each.steps[-1].value == pytest.approx(min(known.period for known in plans), rel=1e-8)
            continue
        for step in each.steps:
            assert step.allowed
            assert each.allowed
            factor = each.allowed / step.allowed
            pairs = (loads(known, each.item) for known in once)
            assert step.value == pytest.approx(
                min(max(others, load * factor) for others, load in pairs), rel=1e-8
            )
        assert each.binds == any(step.value < best.value * (1 - 1e-9) for step in each.steps)


def test_slower_at_the_same_power_ends_at_a_limit() -> None:
    """Twice as slow, the device uses twice the energy."""
    case = rich_case()
    free = solve(case.chain, case.fleet, case.table, objective="period", codecs=("raw", "int8"))
    limits = Limits(max_energy_j=free.cost.energy_j * 1.3)
    plan = solve(
        case.chain, case.fleet, case.table, objective="period", codecs=("raw", "int8"), limits=limits
    )
    assert plan.stages == free.stages
    found = {each.what: each for each in explain(plan, case.table, codecs=("raw", "int8"), count=0).slower}
    ended = [each for each in found.values() if "limit on energy" in each.until]
    assert ended
    model, _ = priced(case.chain, case.fleet, case.table, "period", limits, None, ("raw", "int8"))
    for each in ended:
        assert each.factor
        for factor, most in ((each.factor * 0.999, True), (each.factor * 1.001, False)):
            slow = slowed(model, each.what, factor)
            stages = tuple(slow.stage(stage.device, stage.bundle, stage.variant) for stage in plan.stages)
            hops = tuple(slow.hop(hop.boundary, hop.route, hop.codec) for hop in plan.hops)
            assert (slow.price(stages, hops).energy_j <= limits.max_energy_j) == most


def test_a_pipeline_worked_out_by_hand() -> None:
    """edge [0, 1) 10 ms, 4 kB up 4 ms, server [1, 3) 4 ms, 100 B down 0.1 ms."""
    table = make_table()
    plan = solve(CHAIN, FLEET, table, objective="period")
    found = explain(plan, table)
    assert found.holds
    assert found.proven
    assert list(found.busy_s) == ["edge", "server", "edge->server", "server->edge"]
    assert list(found.busy_s.values()) == pytest.approx([0.010, 0.004, 0.004, 1e-4])
    assert [each.value for each in found.runners_up] == pytest.approx([0.010, 0.010, 0.010, 0.020, 0.020])
    assert [each.equal for each in found.runners_up] == [True, True, True, False, False]
    factors = {each.what: each.factor for each in found.slower}
    assert factors == pytest.approx(
        {"edge": 4.0, "server": 2.5, "edge → server": 5.0, "server → edge": 300.0}, rel=1e-4
    )
    edge = next(each for each in found.limits if each.item == "edge")
    assert [(step.allowed, step.value) for step in edge.steps] == [
        (1.1, pytest.approx(0.01 / 1.1)),
        (2.0, 0.005),
    ]
    assert {each.name: each.value for each in found.baselines} == pytest.approx(
        {"best single split": 0.01, "equal layers": 0.02, "equal work": 0.01, "least latency": 0.01,
         "all on edge": 0.03, "all on server": 0.04, "all on cloud": 0.04}
    )  # fmt: skip
    assert found.summary.startswith("edge [0, 1) → server [1, 3) costs 10 ms of period: the optimum, proven")
    assert "The pipeline waits for edge; what is next is busy 40% of the time." in found.summary
    assert "10% faster, the period would be 9.091 ms." in found.summary


def test_a_pipeline_that_is_no_longer_the_optimum(tmp_path: Path) -> None:
    table = make_table()
    plan = solve(CHAIN, FLEET, table, objective="period")
    rows = [
        dataclasses.replace(row, latency_s=row.latency_s * (9 if row.device == "server" else 1))
        for row in table.rows
    ]
    found = explain(plan, ProfileTable(CHAIN, tuple(rows)))
    assert not found.holds
    assert found.value == pytest.approx(0.036)
    assert found.optimum_value == pytest.approx(0.010)
    assert "not the optimum for these tables" in found.summary
    assert any("other measurements" in note for note in found.notes)
    found.save(tmp_path / "why.json")
    assert Explanation.load(tmp_path / "why.json") == found


def test_what_there_is_no_time_for_is_left_out_and_said() -> None:
    chain, fleet, table = hard_table(10)
    plan = solve(chain, fleet, table, objective="period", limits=Limits(max_energy_j=0.12))
    found = explain(plan, table, count=50, time_limit_s=1)
    assert any("no time for all of the plans that come next" in note for note in found.notes)
    assert len(found.runners_up) < 50


def test_the_command(workdir: Path) -> None:
    case, run = rich_case(), CliRunner().invoke
    files = [str(file) for file in written(workdir, case)]
    save_fleet(case.fleet, Path("fleet.toml"))
    options = ["--objective", "throughput", "--codecs", "int8"]
    assert run(cli, ["solve", "--profiles", *files, "--fleet", "fleet.toml", *options]).exit_code == 0
    done = run(cli, ["explain", "plan.json", "-n", "2", "--json", "why.json", "--csv", "why"])
    assert done.exit_code == 0, done.output
    for text in ("what the pipeline waits for", "the plans that come next", "what others would do",
                 "what would shorten the period", "speed server", "what the choice hangs on"):  # fmt: skip
        assert text in done.output
    found = Explanation.load(Path("why.json"))
    busy = Path("why/busy.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in busy] == ["item", *found.busy_s]
