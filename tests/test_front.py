"""The latency-energy front against every plan of small instances."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from enumeration import every_plan
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from labels_oracle import optimum
from strategies import VARIANTS, Instance, instances, make_chain, make_row

from planner import front_search
from planner.cost import FloatArray, noise_of
from planner.errors import InfeasibleError, InputError, PlanningError
from planner.fleet import Device, Fleet, Link
from planner.front import EXACT_DB, Front, front, front_of
from planner.front_dominance import undominated
from planner.front_points import Point, spread
from planner.graph import BoolArray
from planner.limits import Limits
from planner.plan import Cost, Plan
from planner.solver import solve
from planner.table import ProfileTable

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from instances import instance as synthetic

ALL = ("raw", "zstd", "int8")
# Latency, energy, and noise or the budget of noise.
Value = tuple[float, float, float]


def unbeaten(values: list[Value]) -> list[Value]:
    """One of each that no other beats, rounding apart, by trying all."""
    left, kept = np.array(sorted(values)), np.empty((0, 3))
    while left.size:
        first = left[0]
        kept = np.concatenate([kept[~_beats(first, kept)], [first]])
        left = left[~_beats(first, left)]
    return [tuple(each) for each in kept.tolist()]


def _beats(one: FloatArray, others: FloatArray) -> BoolArray:
    beats: BoolArray = (one <= others * (1 + 1e-8) + 1e-15).all(axis=1)
    return beats


def same(found: list[Value], wanted: list[Value]) -> bool:
    return len(found) == len(wanted) and all(
        a == pytest.approx(b, rel=1e-7, abs=1e-12) for a, b in zip(sorted(found), sorted(wanted), strict=True)
    )


def found_front(instance: Instance, **options: object) -> Front:
    try:
        return front(instance.chain, instance.fleet, instance.table, codecs=ALL, **options)
    except PlanningError as error:
        if isinstance(error, InfeasibleError):
            raise
        assume(False)
        raise


def values(front: Front) -> list[Value]:
    return [(point.cost.latency_s, point.cost.energy_j, 0.0) for point in front.points]


@given(instances())
def test_front_is_that_of_every_plan(instance: Instance) -> None:
    found = found_front(instance)
    assert same(values(found), unbeaten([(plan[0], plan[1], 0.0) for plan in every_plan(instance)]))


@given(instances(), st.randoms(use_true_random=False))
def test_front_within_limits(instance: Instance, random: Random) -> None:
    check_within_limits(instance, random)


@settings(max_examples=10)
@given(instances(), st.randoms(use_true_random=False))
def test_front_by_the_solver_where_labels_are_too_many(instance: Instance, random: Random) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front_search, "MOST_LABELS", 1)
        check_within_limits(instance, random)


def check_within_limits(instance: Instance, random: Random) -> None:
    """Limits that single plans just keep."""
    plans = every_plan(instance)
    assume(plans)
    limits, most = Limits(), [math.inf] * 3
    for place, name in enumerate(("max_latency_s", "max_energy_j", "min_sqnr_db")):
        value = random.choice(plans)[place]
        if random.random() < 0.5 and value > 0 and (place < 2 or value < 1):
            limits = replace(limits, **{name: value if place < 2 else -10 * math.log10(value)})
            most[place] = value * (1 + 1e-9)
    kept = [plan for plan in plans if all(x <= y for x, y in zip(plan, most, strict=False))]
    try:
        found = found_front(instance, limits=limits)
    except InfeasibleError:
        assert not kept
        return
    assert same(values(found), unbeaten([(plan[0], plan[1], 0.0) for plan in kept]))


@given(instances())
def test_every_level_of_noise_is_the_front_in_three_criteria(instance: Instance) -> None:
    found = found_front(instance, noise_levels=1000)
    assert found.every_level
    got = [(point.cost.latency_s, point.cost.energy_j, min(point.cost.noise, 1.0)) for point in found.points]
    every = [(plan[0], plan[1], min(plan[2], 1.0)) for plan in every_plan(instance)]
    assert same(got, unbeaten(every))


@given(instances(), st.lists(st.sampled_from([3.0, 10.0, 17.0, 20.0, 33.0, EXACT_DB]), min_size=1))
def test_a_front_for_each_budget(instance: Instance, budgets: list[float]) -> None:
    plans = every_plan(instance)
    fronts = {budget: [plan for plan in plans if plan[2] <= noise_of(budget)] for budget in set(budgets)}
    assume(all(fronts.values()))
    found = found_front(instance, min_sqnr_db=budgets)
    got = [(point.cost.latency_s, point.cost.energy_j, -(point.min_sqnr_db or 0)) for point in found.points]
    wanted = [(plan[0], plan[1], -budget) for budget, kept in fronts.items() for plan in kept]
    kept = unbeaten(
        [(*plan[:2], plan[2] + 2 * EXACT_DB) for plan in wanted]
    )  # above 0, so that rounding is relative
    assert same([(a, b, c + 2 * EXACT_DB) for a, b, c in got], kept)


@settings(max_examples=25)
@given(instances())
def test_points_are_plans(instance: Instance) -> None:
    """Each is the optimum within its own limits, and is on the hull if it says so."""
    found = found_front(instance)
    for point in spread(found.points, 3):
        plan = found.plan(point)
        assert plan.cost == point.cost
        assert plan.proof.objective == ("latency" if point.cost.energy_j else "energy")
        asked = {"objective": plan.proof.objective, "limits": plan.limits, "codecs": ALL}
        best = solve(instance.chain, instance.fleet, instance.table, **asked)
        assert best.cost.latency_s == pytest.approx(point.cost.latency_s, rel=1e-7)
    hull = [point.cost for point in found.points if point.supported]
    assert (hull[0], hull[-1]) == (found.points[0].cost, found.points[-1].cost)
    for point in found.points:
        for left, right in itertools.pairwise(hull):
            weights = left.energy_j - right.energy_j, right.latency_s - left.latency_s
            level, here = (
                weights[0] * each.latency_s + weights[1] * each.energy_j for each in (left, point.cost)
            )
            assert here >= level * (1 - 1e-7)


def test_plan_of_a_point_is_saved_and_read(tmp_path: Path) -> None:
    found = found_front(small())
    assert len(found.points) > 2
    for point in found.points:
        found.plan(point).save(tmp_path / "plan.json")
        assert Plan.load(tmp_path / "plan.json").cost == point.cost


def test_spread_keeps_ends_and_spacing() -> None:
    points = [Point(Cost(k, 100 - k), (), ()) for k in (0, 1, 2, 3, 48, 50, 97, 98, 99, 100)]
    assert [point.cost.latency_s for point in spread(points, 3)] == [0, 50, 100]
    assert [point.cost.latency_s for point in spread(points, 20)] == [
        point.cost.latency_s for point in points
    ]
    assert len(spread(points, 9)) == len({point.cost.latency_s for point in spread(points, 9)}) == 9


@pytest.mark.parametrize("seed", range(3))
def test_front_of_larger_instances_by_another_road(seed: int) -> None:
    """Labels of the independent dynamic programme within each point's energy find no less latency."""
    model = synthetic(12, 4, 6, seed, batteries=1.0)
    points = front_of(model)
    assert len(points) > 2
    for point in points:
        limits = Limits(max_energy_j=point.cost.energy_j)
        best = optimum(model, "latency", limits).best
        assert best is not None
        assert best.latency_s == pytest.approx(point.cost.latency_s, rel=1e-9)
    for left, right in itertools.pairwise(points):  # and between two points there is none
        energies = np.linspace(right.cost.energy_j, left.cost.energy_j, 5)[1:-1]
        for energy in energies.tolist():
            best = optimum(model, "latency", Limits(max_energy_j=energy)).best
            assert best is not None
            assert best.latency_s == pytest.approx(right.cost.latency_s, rel=1e-9)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(once=True, max_bundles=1),
        Limits(max_memory_bytes={"edge": 61_000}),
        Limits(one_clock=True, max_bundle_layers=1),
        Limits(max_share={"edge": 0.6}),
    ],
    ids=str,
)
def test_limits_beyond_criteria_are_kept(limits: Limits) -> None:
    """Against solving within the energy of a point, and just below it."""
    asked = small([40_000, 20_000, 8_000, 100])
    points = found_front(asked, limits=limits).points
    assert len(points) > 1
    for energy, best in ((points[0].cost.energy_j, points[0]), (points[0].cost.energy_j * 0.9999, points[1])):
        within = replace(limits, max_energy_j=energy)
        plan = solve(asked.chain, asked.fleet, asked.table, limits=within, codecs=ALL)
        assert plan.cost.latency_s == pytest.approx(best.cost.latency_s, rel=1e-7)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points": 1}, "at least 2 points"),
        ({"noise_levels": 0}, "1 level"),
        ({"noise_levels": 2, "min_sqnr_db": [20.0]}, "one of the two"),
        ({"limits": Limits(min_sqnr_db=9.0), "min_sqnr_db": [20.0]}, "once"),
    ],
)
def test_bad_questions_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        found_front(small(), **options)


def small(sizes: list[int] | None = None) -> Instance:
    """Four layers, or as boundaries of these bytes ask for, on two devices with two variants each: the server
    fast, the edge frugal."""
    chain = make_chain(sizes or [40_000, 20_000, 8_000, 3_000, 100])
    rows = [
        make_row(
            *(device, bundle.start, bundle.stop, len(bundle) * time * (1 + 0.1 * (bundle.start % 2)) + 1e-3),
            variant=variant,
            energy_j=len(bundle) * joules,
            sqnr_db=30.0 if variant.precision == "int8" else None,
        )
        for device, speed in (("edge", 1.0), ("server", 0.1))
        for variant, time, joules in (
            (VARIANTS[0], 20e-3 * speed, 50e-3 / speed**0.8),
            (VARIANTS[1], 9e-3 * speed, 70e-3 / speed**0.8),
        )
        for bundle in chain.bundles()
    ]
    devices = (Device("edge", True), Device("server", True))
    links = tuple(
        Link(*pair, 1e6, 1e-3, send_power_w=1.0, receive_power_w=0.5)
        for pair in (("edge", "server"), ("server", "edge"))
    )
    return Instance(chain, Fleet("edge", "edge", devices, links), ProfileTable(chain, tuple(rows)))


@given(st.integers(2, 4), st.integers(0, 40), st.integers(0, 2**32))
def test_dominance_keeps_one_of_each_that_is_not_beaten(sums: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    nodes, labels = draw.integers(0, 3, count), draw.integers(0, 5, (sums, count)).astype(float)
    kept = undominated(nodes, labels, 1000)
    found = [(int(nodes[place]), *labels[:, place]) for place in kept]
    every = {(int(node), *label) for node, label in zip(nodes, labels.T, strict=True)}
    wanted = {
        one
        for one in every
        if not any(
            other[0] == one[0] and other != one and all(a <= b for a, b in zip(other, one, strict=True))
            for other in every
        )
    }
    assert sorted(found) == sorted(wanted)
