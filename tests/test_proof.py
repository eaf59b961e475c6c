"""The law of the solver: its plan is the best of all that keep the limits, whatever is asked.

Every plan of a small random instance is tried (``enumeration``) and judged (``limits_oracle``) without the
planner's prices, graph or limits.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from enumeration import Tried, everything, key_of
from hypothesis import assume, event, given, seed, settings
from hypothesis import strategies as st
from limits_oracle import KINDS, keeps, limits_near
from strategies import Instance, instances, make_chain

from planner.codec_table import CODECS
from planner.errors import InfeasibleError, PlanningError
from planner.limits import Criterion, Limits, Objective
from planner.plan import Outcome, Plan
from planner.pricing import priced
from planner.problem import Problem
from planner.search import search
from planner.solver import NO_LIMITS, solve, weights_of

Asked = Objective | Mapping[Criterion, float]
OBJECTIVES: tuple[Asked, ...] = (
    "latency",
    "energy",
    "price",
    {"latency": 1.0, "energy": 0.3},
    {"latency": 2.0, "price": 0.5, "upload": 1e-6, "noise": 3.0},
)
# Relative: what the planner itself takes for equal.
ROUNDING = 3e-9


def solved(instance: Instance, objective: Asked, limits: Limits = NO_LIMITS, **options: object) -> Plan:
    return solve(
        instance.chain, instance.fleet, instance.table,
        **{"objective": objective, "limits": limits, "codecs": CODECS, **options},
    )  # fmt: skip


def criterion(name: str) -> Callable[[Tried], float]:
    return lambda plan: float(getattr(plan, name))


def ranks(objective: Asked) -> tuple[Callable[[Tried], float], ...]:
    """What is minimised, then what decides between equals, and then what does."""
    weights = {objective: 1.0} if isinstance(objective, str) else objective
    second = criterion("latency" if set(weights) == {"energy"} else "energy")
    return (
        lambda plan: sum(factor * getattr(plan, name) for name, factor in weights.items()),
        second,
        lambda plan: len(plan.parts),
    )


def plainly_solved(instance: Instance, objective: Asked, limits: Limits = NO_LIMITS) -> float:
    """What the integer programme over all arcs gives, without reductions or preferences."""
    model, _ = priced(
        instance.chain, instance.fleet, instance.table, objective, limits, None, CODECS, "mean", False
    )
    problem, weights = Problem.of(model, limits), weights_of(objective)
    found = search(problem, weights, reduce=False)
    problem.graph.decode(found.arcs)
    assert problem.kept(found.arcs)
    return float(problem.weight(weights)[found.arcs].sum())


def within(instance: Instance, limits: Limits) -> list[Tried]:
    return [plan for plan in everything(instance, limits) if keeps(plan, instance, limits)]


def check_best(instance: Instance, objective: Asked, limits: Limits) -> Plan | None:
    """That the solver's answer is the one that trying everything gives; None where there is no plan."""
    candidates = within(instance, limits)
    if not candidates:
        with pytest.raises(PlanningError) as caught:
            solved(instance, objective, limits)
        assert type(caught.value) in (PlanningError, InfeasibleError), caught.value
        return None
    plan = solved(instance, objective, limits)
    check_optimal(plan, candidates, objective)
    return plan


def check_optimal(plan: Plan, candidates: Iterable[Tried], objective: Asked) -> None:
    found = {each.key: each for each in candidates}
    assert key_of(plan) in found, "the plan breaks a limit"
    mine = found[key_of(plan)]
    counted = (mine.latency, mine.energy, mine.noise, mine.price, mine.upload)
    assert plan.cost.values == pytest.approx(counted, rel=1e-9, abs=1e-300)
    proof, equals = plan.proof, list(found.values())
    assert proof.objective_value == pytest.approx(ranks(objective)[0](mine), rel=1e-9, abs=1e-300)
    assert proof.outcome is Outcome.OPTIMAL
    assert proof.bound <= proof.objective_value
    assert proof.gap <= 1e-8
    for place, rank in enumerate(ranks(objective)):
        least = min(map(rank, equals))
        assert rank(mine) <= least * (1 + ROUNDING), f"not the least by rank {place}"
        # Those that differ by more than the order of summing makes, but by less than ROUNDING, may be either.
        equals = [each for each in equals if rank(each) <= least * (1 + 1e-13)] or equals
        if mine not in equals:
            break


# Every limit, alone and in pairs ----------------------------------------------------------------------


def law(kinds: tuple[str, ...], examples: int) -> None:
    """The solver's answer is the best of all, for random instances and objectives within such limits."""

    @seed(zlib.crc32(" ".join(kinds).encode()))
    @settings(max_examples=examples)
    @given(instances(rich=True), st.sampled_from(OBJECTIVES), st.integers(0, 2**32))
    def answers_are_best(instance: Instance, objective: Asked, number: int) -> None:
        assume(instance.table.rows and len(everything(instance)) > 1)
        numbers = random.Random(number)
        limits = limits_near(numbers.sample(kinds, len(kinds)), numbers, instance, ranks(objective)[0])
        plan = check_best(instance, objective, limits)
        event("some plan" if plan else "no plan")

    answers_are_best()


@given(instances(rich=True), st.sampled_from(OBJECTIVES))
@settings(max_examples=35)
def test_the_plan_is_the_best_of_all(instance: Instance, objective: Asked) -> None:
    assume(instance.table.rows)
    check_best(instance, objective, NO_LIMITS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_the_best_within_a_limit(kind: str) -> None:
    law((kind,), 12)


@pytest.mark.parametrize("kinds", list(itertools.combinations(KINDS, 2)), ids="+".join)
def test_the_plan_is_the_best_within_two_limits(kinds: tuple[str, str]) -> None:
    """The second limit is drawn among the plans that keep the first, in either order."""
    law(kinds, 2)


# Equals, units, solvers ---------------------------------------------------------------------------------


def bests(instance: Instance, objective: Asked, limits: Limits) -> list[Tried]:
    """The plans that no rank tells apart, give or take ROUNDING: any of them may be the answer."""
    found = within(instance, limits)
    for rank in ranks(objective):
        least = min(map(rank, found))
        found = [plan for plan in found if rank(plan) <= least * (1 + 2 * ROUNDING)]
    return found


@st.composite
def questions(draw: st.DrawFn) -> tuple[Instance, Asked, Limits]:
    """An instance, an objective and up to two limits within which there are plans."""
    instance, objective = draw(instances(rich=True)), draw(st.sampled_from(OBJECTIVES))
    assume(instance.table.rows and len(everything(instance)) > 1)
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=2, unique=True))
    numbers = random.Random(draw(st.integers(0, 2**32)))
    limits = limits_near(kinds, numbers, instance, ranks(objective)[0])
    assume(within(instance, limits))
    return instance, objective, limits


@given(questions(), st.randoms(use_true_random=False))
@settings(max_examples=21)
def test_another_order_of_the_rows_is_the_same_question(
    question: tuple[Instance, Asked, Limits], numbers: random.Random
) -> None:
    instance, objective, limits = question
    rows, codecs = list(instance.table.rows), list(instance.table.codecs)
    numbers.shuffle(rows)
    numbers.shuffle(codecs)
    table = dataclasses.replace(instance.table, rows=tuple(rows), codecs=tuple(codecs))
    fleet = dataclasses.replace(instance.fleet, links=tuple(reversed(instance.fleet.links)))
    shuffled = dataclasses.replace(instance, table=table, fleet=fleet)
    assert key_of(solved(shuffled, objective, limits)) == key_of(solved(instance, objective, limits))


@given(questions())
@settings(max_examples=21)
def test_another_solver_gives_the_same_plan(question: tuple[Instance, Asked, Limits]) -> None:
    pytest.importorskip("highspy")
    instance, objective, limits = question
    one, other = (solved(instance, objective, limits, solver=name) for name in ("cbc", "highs"))
    equals = {plan.key for plan in bests(instance, objective, limits)}
    event("one best plan" if len(equals) == 1 else "several that no rank tells apart")
    assert {key_of(one), key_of(other)} <= equals
    if len(equals) == 1:
        assert key_of(one) == key_of(other)


@given(questions())
@settings(max_examples=21)
def test_reductions_do_not_change_the_optimum(question: tuple[Instance, Asked, Limits]) -> None:
    instance, objective, limits = question
    plan = solved(instance, objective, limits)
    assert plan.proof.arcs_after <= plan.proof.arcs
    plain = plainly_solved(instance, objective, limits)
    assert plan.proof.objective_value == pytest.approx(plain, rel=ROUNDING, abs=1e-300)


def rescaled(instance: Instance, limits: Limits, time: float, energy: float, price: float, size: int):
    """The same question in other units: seconds, joules, currency and bytes multiplied by these factors."""
    power, rate = energy / time, size / time

    def times(found: object, names: Iterable[str], factor: float) -> Any:
        values = {name: getattr(found, name) for name in names}
        return dataclasses.replace(
            found, **{name: value * factor for name, value in values.items() if value is not None}
        )

    def device(found: Any) -> Any:
        found = times(found, ("active_power_w", "idle_power_w"), power)
        return times(
            times(found, ("price_per_s",), price / time), ("memory_bytes", "worker_memory_bytes"), size
        )

    def link(found: Any) -> Any:
        found = times(times(found, ("bandwidth_bytes_per_s",), rate), ("latency_s",), time)
        return times(
            times(found, ("send_power_w", "receive_power_w"), power), ("price_per_byte",), price / size
        )

    def row(found: Any) -> Any:
        found = times(found, ("latency_s", "latency_median_s", "latency_p95_s"), time)
        return times(times(found, ("energy_j",), energy), ("peak_memory_bytes", "weight_bytes"), size)

    chain = instance.chain
    chain = dataclasses.replace(
        chain,
        layers=tuple(times(each, ("weight_bytes",), size) for each in chain.layers),
        boundaries=make_chain([each.nbytes * size for each in chain.boundaries]).boundaries,
    )
    codecs = (times(times(each, ("encode_s", "decode_s"), time), ("wire_bytes", "wire_bytes_max"), size)
              for each in instance.table.codecs)  # fmt: skip
    table = dataclasses.replace(
        instance.table, chain=chain, rows=tuple(map(row, instance.table.rows)), codecs=tuple(codecs)
    )
    fleet = dataclasses.replace(
        instance.fleet, devices=tuple(map(device, instance.fleet.devices)),
        links=tuple(map(link, instance.fleet.links)),
    )  # fmt: skip
    limits = times(times(limits, ("max_latency_s", "max_period_s"), time), ("max_energy_j",), energy)
    limits = times(times(limits, ("max_price",), price), ("max_upload_bytes",), size)
    memory = {name: value * size for name, value in limits.max_memory_bytes.items()}
    return Instance(chain, fleet, table), dataclasses.replace(limits, max_memory_bytes=memory)


factors = st.integers(-6, 6).map(lambda power: 10.0**power)


@given(questions(), factors, factors, factors, st.integers(0, 6).map(lambda power: 10**power))
@settings(max_examples=21)
def test_other_units_change_nothing(
    question: tuple[Instance, Asked, Limits], time: float, energy: float, price: float, size: int
) -> None:
    instance, objective, limits = question
    scale: dict[str, float] = {"latency": time, "energy": energy, "price": price, "upload": size}
    if not isinstance(objective, str):
        objective = {name: factor / scale.get(name, 1.0) for name, factor in objective.items()}
    other, others_limits = rescaled(instance, limits, time, energy, price, size)
    equals = {plan.key for plan in bests(instance, question[1], limits)}
    plan = solved(other, objective, others_limits)
    assert key_of(plan) in equals
    assert plan.cost.latency_s == pytest.approx(
        solved(instance, question[1], limits).cost.latency_s * time, rel=1e-6 if len(equals) > 1 else 1e-9
    )
    event("one best plan" if len(equals) == 1 else "several that no rank tells apart")


_STABLE = """
from enumeration import key_of
from rich_case import rich_case
from test_proof import NO_LIMITS, Limits, solved
for objective in ("latency", "energy", "price", {"noise": 1.0}):
    for limits in (NO_LIMITS, Limits(max_energy_j=0.015), Limits(once=True, max_bundle_layers=1)):
        print(key_of(solved(rich_case(3), objective, limits)))
"""


def test_another_run_gives_the_same_plans() -> None:
    """Sets are walked in another order in each process."""
    found = set()
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", _STABLE], env=environment, capture_output=True, text=True, check=True
        )
        found.add(ran.stdout)
    assert len(found) == 1
    assert len(found.pop().splitlines()) == 12
