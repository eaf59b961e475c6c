"""Numbers that are hard on a solver: near ties, limits a hair away, very small beside very large."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from cases import hard_table
from enumeration import Tried
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from labels_oracle import optimum
from limits_oracle import BUDGETS, KINDS, limits_near
from strategies import Instance, instances
from test_proof import NO_LIMITS, OBJECTIVES, Asked, check_best, ranks, solved, within

from planner.cost import CostModel
from planner.limits import Limits, Objective

seeds = st.integers(0, 2**32)


def varied(instance: Instance, numbers: random.Random, exponents: dict[str, float], step: float) -> Instance:
    """The same with each device's times multiplied by a power of ten, and each time by 1 or a few ``step`` more."""
    rows = []
    for row in instance.table.rows:
        time = row.latency_s * 10.0 ** exponents.get(row.device, 0.0) * (1 + numbers.randrange(4) * step)
        rows.append(dataclasses.replace(row, latency_s=time))
    return dataclasses.replace(instance, table=dataclasses.replace(instance.table, rows=tuple(rows)))


@given(instances(rich=True), st.sampled_from(OBJECTIVES), seeds, st.sampled_from([1e-9, 1e-8, 1e-7]))
@settings(max_examples=20)
def test_of_near_ties_the_better_is_found(
    instance: Instance, objective: Asked, number: int, step: float
) -> None:
    assume(instance.table.rows)
    numbers = random.Random(number)
    near = varied(instance, numbers, {}, step)
    kinds = numbers.sample(KINDS, numbers.randrange(2))
    check_best(near, objective, limits_near(kinds, numbers, near, ranks(objective)[0]))


@given(instances(rich=True), st.sampled_from(OBJECTIVES), seeds)
@settings(max_examples=20)
def test_very_small_beside_very_large(instance: Instance, objective: Asked, number: int) -> None:
    assume(instance.table.rows)
    numbers = random.Random(number)
    names = [device.name for device in instance.fleet.devices]
    wide = varied(instance, numbers, {name: numbers.uniform(-5, 4) for name in names}, 1e-3)
    fast = [
        dataclasses.replace(link, bandwidth_bytes_per_s=10 ** numbers.uniform(0, 10))
        for link in wide.fleet.links
    ]
    wide = dataclasses.replace(wide, fleet=dataclasses.replace(wide.fleet, links=tuple(fast)))
    kinds = numbers.sample(KINDS, numbers.randrange(3))
    check_best(wide, objective, limits_near(kinds, numbers, wide, ranks(objective)[0]))


@pytest.mark.parametrize("kind", [*BUDGETS, "max_memory_bytes", "max_share"])
@pytest.mark.parametrize("hair", [-2e-8, 2e-8])
def test_a_limit_a_hair_from_what_a_plan_needs(kind: str, hair: float) -> None:
    """Below, that plan is out; above, it is in."""

    @settings(max_examples=5)
    @given(instances(rich=True), st.sampled_from(OBJECTIVES), seeds)
    def answers_are_best(instance: Instance, objective: Asked, number: int) -> None:
        plans = within(instance, NO_LIMITS) if instance.table.rows else []
        assume(len(plans) > 1)
        plan = random.Random(number).choice(plans)
        limits = just(kind, plan, instance, 1 + hair)
        assume(limits is not None)
        check_best(instance, objective, limits)

    answers_are_best()


def just(kind: str, plan: Tried, instance: Instance, factor: float) -> Limits | None:
    """A limit at so much of what a plan needs; None where it needs nothing."""
    name = plan.stages[0].device
    if kind == "max_memory_bytes":
        needs = plan.memory[name] + instance.fleet.device(name).worker_memory_bytes
        return Limits(max_memory_bytes={name: needs * factor}) if needs else None
    if kind == "max_share":
        return Limits(max_share={name: min(plan.busy[name] / plan.latency * factor, 1.0)})
    needs = BUDGETS[kind](plan) * factor
    if kind == "min_sqnr_db":
        return Limits(min_sqnr_db=decibels(needs)) if 0 < needs < 1 else None
    return Limits(**{kind: needs}) if needs else None


def decibels(noise: float) -> float:
    return -10 * math.log10(noise)


@pytest.mark.parametrize("objective", ["latency", "energy"])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_larger_instances_agree_with_the_dynamic_programme(
    objective: Objective, unit: float, share: float
) -> None:
    """In microseconds, seconds and weeks."""
    chain, fleet, table = hard_table(9)
    rows = [dataclasses.replace(row, latency_s=row.latency_s * unit) for row in table.rows]
    links = [
        dataclasses.replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / unit)
        for link in fleet.links
    ]
    fleet = dataclasses.replace(fleet, links=tuple(links))
    instance = Instance(chain, fleet, dataclasses.replace(table, rows=tuple(rows)))
    model = CostModel.of(chain, fleet, rows, 1)
    fast, frugal = (optimum(model, each, NO_LIMITS).best for each in ("latency", "energy"))
    assert fast
    assert frugal
    if objective == "latency":
        limits = Limits(max_energy_j=fast.energy_j * share + frugal.energy_j * (1 - share))
    else:
        limits = Limits(max_latency_s=frugal.latency_s * share + fast.latency_s * (1 - share))
    checked = optimum(model, objective, limits)
    assert checked.complete
    assert checked.best
    plan = solved(instance, objective, limits)
    assert plan.proof.objective_value == pytest.approx(checked.best.of(objective), rel=1e-8)
