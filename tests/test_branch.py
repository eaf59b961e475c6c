"""Limits on memory: what bounds by visits and branching leave out is never needed.

The laws run with so few labels that branches are split again and again, which instances of this size would never
need by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from enumeration import everything
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from limits_oracle import limits_near
from rich_case import rich_case
from strategies import Instance, instances
from test_proof import OBJECTIVES, Asked, check_best, ranks

import planner.branch
import planner.branch_begin
from planner.branch_node import Branch
from planner.codec_table import CODECS
from planner.errors import PlanningError
from planner.graph import Graph, IntArray
from planner.grid import Grid, GridAhead
from planner.ilp import Answer, minimise
from planner.limits import Limits
from planner.pricing import priced
from planner.problem import Problem
from planner.solver import solve, weights_of
from planner.tally import MEMORY, Tally

BESIDE = ((), ("max_energy_j",), ("max_latency_s",), ("once",), ("max_price",), ("max_period_s",))


@pytest.fixture(scope="module")
def few_labels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planner.branch, "_FEW_LABELS", 2)
        patch.setattr(planner.branch, "_BEAM", 1)
        patch.setattr(planner.branch, "_TOO_MANY", 100)
        patch.setattr(planner.branch, "_FEW_ARCS", 50)
        patch.setattr(planner.branch_begin, "_COARSE", 4)
        patch.setattr(planner.branch_begin, "_FINE", 16)
        yield


def limited(instance: Instance, objective: Asked, kinds: tuple[str, ...], number: int) -> Limits:
    numbers = random.Random(number)
    return limits_near([MEMORY, *kinds], numbers, instance, ranks(objective)[0])


def _problem(instance: Instance, objective: Asked, limits: Limits) -> Problem:
    model, _ = priced(
        instance.chain, instance.fleet, instance.table, objective, limits, None, CODECS, "mean", False
    )
    return Problem.of(model, limits)


@pytest.mark.parametrize("kinds", BESIDE, ids=lambda kinds: "+".join((MEMORY, *kinds)))
@pytest.mark.usefixtures("few_labels")
def test_branches_give_the_best_of_all(kinds: tuple[str, ...]) -> None:
    @settings(max_examples=6)
    @given(instances(rich=True), st.sampled_from(OBJECTIVES), st.integers(0, 2**32))
    def law(instance: Instance, objective: Asked, number: int) -> None:
        assume(instance.table.rows and len(everything(instance)) > 1)
        check_best(instance, objective, limited(instance, objective, kinds, number))

    law()


@given(instances(rich=True), st.sampled_from(OBJECTIVES), st.integers(0, 2**32), st.sampled_from((1, 7, 64)))
@settings(max_examples=40)
def test_bounds_on_grids_hold(instance: Instance, objective: Asked, number: int, grain: int) -> None:
    """At any prices, by visits and over whole paths: the bound is below the optimum, and the optimum is within it."""
    assume(instance.table.rows and len(everything(instance)) > 1)
    limits = limited(instance, objective, ("max_energy_j", "max_latency_s"), number)
    problem = _problem(instance, objective, limits)
    weight = problem.weight(weights_of(objective))
    answer = minimise(problem, weight)
    assume(isinstance(answer, Answer) and any(each.limit == MEMORY for each in problem.resources))
    assert isinstance(answer, Answer)
    best, numbers = float(weight[answer.arcs].sum()), np.random.default_rng(number)
    scale = np.where(problem.ceilings > 0, problem.ceilings, 1.0)
    prices = numbers.exponential(best, scale.size) * numbers.integers(0, 2, scale.size) / scale
    most = best * (1 + 1e-9) + 1e-12
    path = answer.arcs[np.argsort(problem.graph.tail[answer.arcs])]
    totals = [Tally.total(problem, place) for place in range(len(problem.resources))]
    for tally in (Tally.visits(problem), *(each for each in totals if each)):
        bundles = np.flatnonzero(problem.graph.way >= 0)
        rises = (tally.potential[problem.graph.head] - tally.potential[problem.graph.tail])[bundles]
        assert (rises >= 0).all()
        assert (rises <= tally.share[bundles] * (1 + 1e-9) + 1e-9).all(), (rises - tally.share[bundles]).max()
        grid = Grid.of(tally, grain)
        found = grid.ahead(weight, prices)
        assert found is not None, "a bound is above the optimum"
        assert found.value <= most
        through = grid.through(weight, found)
        assert (through[path] <= most).all()
        assert through.min() == pytest.approx(found.value, rel=1e-9, abs=most - best)
        assert through[found.path].max() == pytest.approx(found.value, rel=1e-9, abs=most - best)
        use = np.cumsum(problem.loads[:, path].toarray().T, axis=0)
        least = found.least(problem.graph.head[path], np.cumsum(weight[path]), use)
        assert (least <= most).all()


@pytest.mark.parametrize(("sizes", "up"), [(1024, False), (32, True)])
def test_the_visits_of_a_path_on_a_grid_keep_their_ceilings(sizes: int, up: bool) -> None:
    """Without prices: rounded up each of them, rounded down but for what so many roundings hide."""

    @settings(max_examples=20)
    @given(instances(rich=True), st.sampled_from(OBJECTIVES), st.integers(0, 2**32))
    def law(instance: Instance, objective: Asked, number: int) -> None:
        assume(instance.table.rows and len(everything(instance)) > 1)
        problem = _problem(instance, objective, limited(instance, objective, (), number))
        tally, prices = Tally.visits(problem), np.zeros(len(problem.resources))
        found = Grid.of(tally, sizes, up=up).ahead(problem.weight(weights_of(objective)), prices)
        assume(found is not None)
        hidden = 0.0 if up else (found.path.size + 1) / sizes
        assert max(_visits(tally, found.path)) <= 1 + hidden + 1e-9

    law()


def _visits(tally: Tally, path: IntArray) -> list[float]:
    """What is taken of a device's memory along a path, anew with each hop."""
    taken = [0.0]
    for arc in path.tolist():
        taken.append(0.0 if tally.fresh[arc] else taken[-1] + tally.share[arc])
    return taken


@pytest.fixture
def binding() -> tuple[Instance, Limits]:
    """What the best plan without limits takes of memory is not there."""
    instance = rich_case(4)
    plan = solve(instance.chain, instance.fleet, instance.table, codecs=CODECS)
    device = plan.stages[0].device
    taken = sum(stage.memory_bytes for stage in plan.stages if stage.device == device)
    return instance, Limits(max_memory_bytes={device: int(0.6 * taken)})


@pytest.mark.usefixtures("few_labels")
def test_a_bound_that_is_too_high_loses_the_optimum(
    binding: tuple[Instance, Limits], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation: a device counted as fuller than it is. So the laws above can fail."""
    instance, limits = binding
    assert check_best(instance, "latency", limits)
    honest = GridAhead.least
    monkeypatch.setattr(GridAhead, "least", lambda *given: honest(*given) * 1.05)
    with pytest.raises((AssertionError, PlanningError)):  # another plan, or none
        check_best(instance, "latency", limits)


@given(st.integers(0, 2**32))
@settings(max_examples=20)
def test_every_path_is_in_one_branch(number: int) -> None:
    """And in one of that branch's branches, until it is alone with those of the same bundles."""
    problem = _problem(rich_case(4), "latency", Limits())
    numbers = np.random.default_rng(number)
    path = problem.graph.path(numbers.exponential(1.0, problem.graph.arcs))
    assert path is not None
    branch = Branch(np.arange(problem.graph.arcs), np.zeros(len(problem.resources)), 0.0)
    for _ in range(100):
        keep = np.zeros(problem.graph.arcs, dtype=bool)
        keep[branch.arcs] = True
        further = branch.split(problem.graph.restricted(keep), problem.graph.arcs)
        if not further:
            break
        holding = [each for each in further if np.isin(path, each.arcs).all()]
        assert len(holding) == 1
        assert holding[0].arcs.size < branch.arcs.size
        branch = holding[0]
    assert set(_bundles(problem.graph, branch.arcs)) == set(_bundles(problem.graph, path))


def _bundles(graph: Graph, arcs: IntArray) -> list[tuple[int, int]]:
    arcs = arcs[graph.way[arcs] >= 0]
    return list(zip(graph.way[arcs].tolist(), graph.start[arcs].tolist(), strict=True))
