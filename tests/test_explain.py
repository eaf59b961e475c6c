"""Explanations, checked by trying every path and by changing the tables and solving again."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cases import CHAIN, FLEET, INT8, TORCH, hard_table, make_table
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import Instance, instances, make_chain, make_row

from planner import Bundle, Plan, ProfileTable, Sidecar, solve
from planner.cost import CostModel
from planner.errors import DocumentError, InputError, MismatchError, PlanningError
from planner.explain import explain
from planner.explain_limits import shadow_prices
from planner.explain_parts import challengers, endurance, parts
from planner.explain_runners import DISTINCT, Distinct, runners_up
from planner.explanation import Explanation
from planner.fleet import Device, Fleet, Link
from planner.graph import Graph
from planner.limits import Limits, Placement
from planner.peers import Peers
from planner.problem import Problem
from planner.question import Question, arcs_of
from planner.rules import broken
from planner.sidecar import Environment
from planner.table import save_table

QUICK = settings(
    max_examples=5,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
MOST_PATHS = 4000
NEAR = 1e-6


# Everything by trying every path ---------------------------------------------------------------------


def every_path(problem: Problem) -> list[np.ndarray]:
    """The arcs of every path that keeps the limits; an instance with too many is left aside."""
    graph, found = problem.graph, []
    leaving: dict[int, list[int]] = {}
    for arc, tail in enumerate(graph.tail.tolist()):
        leaving.setdefault(tail, []).append(arc)

    def onward(node: int) -> Iterator[tuple[int, ...]]:
        if node == graph.last:
            yield ()
        for arc in leaving.get(node, ()):
            for rest in onward(int(graph.head[arc])):
                yield arc, *rest

    for path in onward(graph.first):
        found.append(np.array(path))
        assume(len(found) <= MOST_PATHS)
    return [path for path in found if problem.kept(path)]


def ask(instance: Instance, limits: Limits = Limits(), objective: str = "latency") -> Question:
    model = instance.model
    return Question.of(model, instance.fleet, limits, {objective: 1.0}, prefer=lambda graph: None)


def posed(instance: Instance, limits: Limits = Limits(), objective: str = "latency") -> Question:
    """The question, or no example where it has no answer."""
    try:
        return ask(instance, limits, objective)
    except PlanningError:
        assume(False)
        raise


def kind(graph: Graph, path: np.ndarray, distinct: Distinct) -> tuple[object, ...]:
    stages, hops = graph.decode(path)
    if distinct == "variants":
        return (*stages, *hops)
    if distinct == "cuts":
        return tuple((stage.device, stage.bundle) for stage in stages)
    return tuple(stage.device for stage in stages for _ in range(len(stage.bundle)))


def budget(question: Question, share: float) -> Limits:
    """An energy between what the plan of least latency and that of least energy use."""
    graph = question.problem.graph
    energy = graph.weight["energy"]
    most, path = float(energy[question.best.arcs].sum()), graph.path(energy)
    assert path is not None
    least = float(energy[path].sum())
    assume(most > least * (1 + 1e-6) and least > 1e-9)
    return Limits(max_energy_j=least + share * (most - least))


@settings(parent=QUICK, max_examples=14)
@given(instances(), st.sampled_from(DISTINCT), st.sampled_from(["latency", "energy"]))
def test_runners_up_are_the_next_of_all_paths(instance: Instance, distinct: Distinct, objective: str) -> None:
    question = posed(instance, objective=objective)
    check_runners_up(question, distinct)


@QUICK
@given(instances(), st.sampled_from(DISTINCT), st.floats(0.2, 0.8))
def test_runners_up_within_a_budget(instance: Instance, distinct: Distinct, share: float) -> None:
    free = posed(instance)
    every_path(free.problem)
    check_runners_up(posed(instance, budget(free, share)), distinct, 3)


def check_runners_up(question: Question, distinct: Distinct, count: int = 6) -> None:
    graph = question.problem.graph
    best: dict[tuple[object, ...], float] = {}
    for path in every_path(question.problem):
        name, value = kind(graph, path, distinct), float(question.weight[path].sum())
        best[name] = min(value, best.get(name, math.inf))
    found = list(itertools.islice(runners_up(question, distinct), count))
    names = [kind(graph, each.arcs, distinct) for each in found]
    del best[kind(graph, question.best.arcs, distinct)]
    assert len(set(names)) == len(names) == min(count, len(best))
    assert [each.value for each in found] == pytest.approx(sorted(best.values())[:count], rel=1e-9)
    assert [best[name] for name in names] == pytest.approx([each.value for each in found], rel=1e-9)
    assert all(question.problem.kept(each.arcs) and each.proven for each in found)


# What limits cost ------------------------------------------------------------------------------------


@QUICK
@given(instances(), st.floats(0.0, 0.9))
def test_the_next_step_of_a_budget(instance: Instance, share: float) -> None:
    free = posed(instance)
    paths = every_path(free.problem)
    limits = budget(free, share)
    question = posed(instance, limits)
    price = next(each for each in shadow_prices(question) if each.limit == "max_energy_j")
    energy = question.problem.graph.weight["energy"]
    better = [path for path in paths if question.better(float(question.weight[path].sum()))]
    assert price.binds == bool(better)
    assert price.proven
    assert price.used == pytest.approx(energy[question.best.arcs].sum())
    if better:
        least = min(float(energy[path].sum()) for path in better)
        assert price.next_step is not None
        assert price.next_step.allowed == pytest.approx(least, rel=2e-6)
        here = [path for path in better if energy[path].sum() <= price.next_step.allowed * (1 + 1e-9)]
        assert price.next_step.value == pytest.approx(
            min(float(question.weight[path].sum()) for path in here), rel=1e-9
        )
        assert price.steps[-1].allowed is None
        assert price.steps[-1].value == pytest.approx(free.best.value, rel=1e-9)
        for step in price.steps[:-1]:
            within = [path for path in paths if energy[path].sum() <= (step.allowed or 0) * (1 + 1e-9)]
            assert step.value == pytest.approx(min(question.weight[path].sum() for path in within), rel=1e-9)


@QUICK
@given(instances(), st.floats(0.0, 0.9))
def test_multipliers_give_the_greatest_bound(instance: Instance, share: float) -> None:
    free = posed(instance)
    paths = every_path(free.problem)
    question = posed(instance, budget(free, share))
    ceiling, energy = question.problem.ceilings[0], question.problem.graph.weight["energy"]

    def bound(price: float) -> float:
        return min(float((question.weight[p] + price * energy[p]).sum()) for p in paths) - price * ceiling

    (price,) = question.prices.tolist()
    best = bound(price)
    assert best <= question.best.value * (1 + 1e-9)
    for other in (0.0, 0.5 * price, 0.99 * price, 1.01 * price, 2 * price, price + 1e-3):
        assert bound(other) <= best + 1e-4 * abs(best)


def small(limits: Limits = Limits(), objective: str = "latency", fleet: Fleet = FLEET) -> Question:
    return ask(Instance(CHAIN, fleet, make_table(CHAIN, variants=(TORCH, INT8))), limits, objective)


TIGHT = dataclasses.replace(
    FLEET,
    devices=tuple(
        dataclasses.replace(d, memory_bytes=60_000 if d.name == "server" else None) for d in FLEET.devices
    ),
)


@pytest.mark.parametrize(
    ("limits", "fleet"),
    [
        (Limits(max_upload_bytes=5_000), FLEET),
        (Limits(private_layers=2), FLEET),
        (Limits(min_sqnr_db=20.0), FLEET),
        (Limits(max_share={"server": 0.1}), FLEET),
        (Limits(max_period_s=0.02), FLEET),
        (Limits(max_memory_bytes={"server": 10_000}), FLEET),
        (Limits(), TIGHT),
        (Limits(pins=(Placement.parse("1=edge"),)), FLEET),
        (Limits(forbidden=(Placement.parse("0=server"),), max_bundle_layers=1), FLEET),
        (Limits(without_devices=("server",)), FLEET),
        (Limits(without_links=("edge->server",)), FLEET),
        (Limits(max_bundle_layers=2, ceil_rule=True), FLEET),
    ],
    ids=str,
)  # fmt: skip
def test_every_limit_has_its_price(limits: Limits, fleet: Fleet) -> None:
    question = small(limits, fleet=fleet)
    free = small(fleet=FLEET).best.value
    prices = [each for each in shadow_prices(question) if each.limit != "bandwidth"]
    assert prices
    alone = len(prices) == 1
    for each in prices:
        assert each.proven
        without = each.steps[-1].value if each.binds else question.best.value
        assert free - 1e-12 <= without <= question.best.value
        if alone:
            assert without == pytest.approx(free)
        if each.next_step is not None:
            assert each.next_step.value < question.best.value
            changes = {each.limit: each.next_step.allowed}
            if each.item:
                changes = {each.limit: {each.item: each.next_step.allowed}}
            if each.limit in ("private_layers", "max_bundle_layers"):
                changes = {each.limit: round(each.next_step.allowed or 0)}
            eased = small(dataclasses.replace(limits, **changes), fleet=fleet)
            assert eased.best.value == pytest.approx(each.next_step.value)


def test_bandwidth_is_priced_by_solving_again() -> None:
    question = small()
    prices = {each.item: each for each in shadow_prices(question) if each.limit == "bandwidth"}
    assert set(prices) == {"->".join(link.pair) for link in FLEET.links}
    up = prices["edge->server"]
    assert up.binds
    faster = dataclasses.replace(
        FLEET,
        links=tuple(
            dataclasses.replace(link, bandwidth_bytes_per_s=2e6) if link.pair == ("edge", "server") else link
            for link in FLEET.links
        ),
    )
    assert up.steps[-1].allowed == 2e6
    assert up.steps[-1].value == pytest.approx(small(fleet=faster).best.value)
    # The slope is the derivative: a little more bandwidth, the same plan.
    moved = sum(hop.wire_bytes for hop in question.optimum.hops if hop.route == ("edge", "server"))
    assert up.slope == pytest.approx(moved / 1e12)


# What the choice hangs on ----------------------------------------------------------------------------


def slowed(instance: Instance, part_kind: str, what: object, factor: float) -> Instance:
    """The instance measured anew, with something slower, at the same power."""
    rows, fleet, codecs = instance.table.rows, instance.fleet, instance.table.codecs
    if part_kind in ("stage", "device"):
        rows = tuple(
            dataclasses.replace(
                row,
                latency_s=row.latency_s * factor,
                energy_j=None if row.energy_j is None else row.energy_j * factor,
            )
            if what in (row.key[:3], row.device)
            else row
            for row in rows
        )
    if part_kind == "device":
        codecs = tuple(
            dataclasses.replace(row, encode_s=row.encode_s * factor, decode_s=row.decode_s * factor)
            if row.device == what
            else row
            for row in codecs
        )
    if part_kind == "link":
        links = tuple(
            dataclasses.replace(
                link,
                bandwidth_bytes_per_s=link.bandwidth_bytes_per_s / factor,
                latency_s=link.latency_s * factor,
            )
            if "->".join(link.pair) == what
            else link
            for link in fleet.links
        )
        fleet = dataclasses.replace(fleet, links=links)
    table = dataclasses.replace(instance.table, rows=rows, codecs=codecs)
    return Instance(instance.chain, fleet, table)


def standing(question: Question, instance: Instance, limits: Limits, objective: str) -> float:
    """What the question's optimum costs more than the best, in a changed instance; inf where it breaks a limit."""
    changed = ask(instance, limits, objective)
    arcs = arcs_of(changed.problem.graph, question.optimum.stages, question.optimum.hops)
    if arcs is None or not changed.problem.kept(arcs):
        return math.inf
    return float(changed.weight[arcs].sum()) / changed.best.value - 1


def check_parts(question: Question, instance: Instance, limits: Limits, objective: str) -> None:
    stages = iter(question.optimum.stages)
    for part in parts(question):
        if part.kind == "hop":
            continue
        what: object = part.what
        if part.kind == "stage":
            stage = next(stages)
            what = stage.device, stage.bundle, stage.variant
        found = endurance(question, part)
        if found.factor is None:
            assert standing(question, slowed(instance, part.kind, what, 1e3), limits, objective) < NEAR
            continue
        assert found.factor >= 1
        just_below = 1 + (found.factor - 1) * (1 - 1e-4)
        assert standing(question, slowed(instance, part.kind, what, just_below), limits, objective) < NEAR
        # A plan that costs next to nothing more would not show.
        just_above = found.factor * 1.05
        if found.exact and just_above < 1e4:
            try:
                assert (
                    standing(question, slowed(instance, part.kind, what, just_above), limits, objective) > 0
                )
            except PlanningError:
                assert limits != Limits()  # slower by so much, nothing keeps them


@settings(parent=QUICK, max_examples=10)
@given(instances(), st.sampled_from(["latency", "energy"]))
def test_parts_endure_as_long_as_solving_again_says(instance: Instance, objective: str) -> None:
    question = posed(instance, objective=objective)
    assume(question.best.value > 1e-9)
    check_parts(question, instance, Limits(), objective)


@QUICK
@given(instances(), st.floats(0.1, 0.9))
def test_parts_endure_within_a_budget(instance: Instance, share: float) -> None:
    limits = budget(posed(instance), share)
    check_parts(posed(instance, limits), instance, limits, "latency")


@QUICK
@given(instances())
def test_hops_endure_as_every_path_says(instance: Instance) -> None:
    question = posed(instance)
    graph, paths = question.problem.graph, every_path(question.problem)
    for part in parts(question):
        if part.kind != "hop":
            continue
        found = endurance(question, part)
        grows = part.growth["latency"]
        mine = float(grows[question.best.arcs].sum())
        meets = [
            1 + (float(question.weight[p].sum()) - question.best.value) / (mine - float(grows[p].sum()))
            for p in paths
            if grows[p].sum() < mine * (1 - 1e-9)
        ]
        assert (found.factor or math.inf) == pytest.approx(max(min(meets, default=math.inf), 1.0), rel=1e-6)
        # All ways to send the tensors grow alike.
        hop = next(
            h for h in question.optimum.hops if f"{h.route[0]} → {h.route[-1]} at {h.boundary}" == part.what
        )
        alike = [
            (h.boundary, h.route[0], h.route[-1]) == (hop.boundary, hop.route[0], hop.route[-1])
            for h in graph.hops
        ]
        assert np.count_nonzero(grows) == sum(alike)  # fmt: skip


@settings(parent=QUICK, max_examples=10)
@given(instances())
def test_challengers_get_in_where_they_say(instance: Instance) -> None:
    question = posed(instance)
    graph = question.problem.graph
    found = challengers(question, 3)
    least = graph.through(question.weight)
    outside = np.setdiff1d(np.flatnonzero((graph.way >= 0) & np.isfinite(least)), question.best.arcs)
    factors = 1 - (least[outside] - question.best.value) / graph.weight["latency"][outside]
    wanted = sorted(np.minimum(factors[factors > 0], 1.0).tolist(), reverse=True)[:3]
    assert [each.factor for _, each in found] == pytest.approx(wanted)
    for arc, each in found:
        way = graph.model.ways[graph.way[arc]]
        key = way.device, Bundle(int(graph.start[arc]), int(graph.stop[arc])), way.variant
        assert each.exact
        above = 1 - (1 - each.factor) * (1 - 1e-4)
        assert standing(question, slowed(instance, "stage", key, above), Limits(), "latency") < NEAR
        assert standing(question, slowed(instance, "stage", key, each.factor * 0.9), Limits(), "latency") > 0


@QUICK
@given(instances(), st.floats(0.1, 0.9))
def test_challengers_within_a_budget_are_bracketed(instance: Instance, share: float) -> None:
    limits = budget(posed(instance), share)
    question = posed(instance, limits)
    graph = question.problem.graph
    for arc, each in challengers(question, 2):
        way = graph.model.ways[graph.way[arc]]
        key = way.device, Bundle(int(graph.start[arc]), int(graph.stop[arc])), way.variant
        assert each.factor <= each.at_most <= 1
        if each.at_most < 1 - 1e-6:
            above = 1 - (1 - each.at_most) * (1 - 1e-4)
            assert standing(question, slowed(instance, "stage", key, above), limits, "latency") < NEAR
        assert standing(question, slowed(instance, "stage", key, each.factor * 0.9), limits, "latency") > 0


# What others would do --------------------------------------------------------------------------------


def test_single_splits_by_hand() -> None:
    model = CostModel.of(CHAIN, FLEET, make_table().rows, 1)
    # Up 40, 4, 3 kB and the output of 100 B down at 1 MB/s; 10 ms a layer here, 2 ms there.
    (best,) = Peers(model, {"latency": 1.0}).single_splits(codecs=False)
    by_hand = {0: 0.040 + 0.006, 1: 0.010 + 0.004 + 0.004, 2: 0.020 + 0.003 + 0.002}
    assert best.cost.latency_s == pytest.approx(min(by_hand.values()) + 0.0001)
    assert [(stage.device, stage.bundle) for stage in best.stages] == [
        ("edge", Bundle(0, 1)),
        ("server", Bundle(1, 3)),
    ]


@settings(parent=QUICK, max_examples=10)
@given(instances(), st.sampled_from(["latency", "energy"]))
def test_no_peer_beats_the_optimum(instance: Instance, objective: str) -> None:
    question = posed(instance, objective=objective)
    model, best = question.model, question.best.value
    by = Peers(model, question.weights)
    names = list(dict.fromkeys(stage.device for stage in question.optimum.stages))
    found = [*by.single_splits(codecs=False), *by.single_splits(codecs=True), *by.joint_dnn(), *by.dime(Limits()),
             *by.equal_layers(names), *by.equal_work(names)]  # fmt: skip
    for each in found:
        assert each.cost == model.price(each.stages, each.hops)
        assert by.value(each.cost) >= best * (1 - 1e-9) - 1e-15
    jalad = [by.value(each.cost) for each in found if each.name == "JALAD"]
    for each in found:
        if each.name == "Neurosurgeon":
            assert all(hop.codec == "raw" for hop in each.hops)
            assert jalad
            assert jalad[0] <= by.value(each.cost) * (1 + 1e-12)


def test_additivity_costs_jointdnn_what_bundles_save() -> None:
    """Each layer alone is quicker on the edge; together they are quicker on the server."""
    chain = make_chain([1_000, 1_000, 1_000])
    fleet = Fleet(
        "edge", "edge", (Device("edge"), Device("server")), (Link("edge", "server", 1e9), Link("server", "edge", 1e9))
    )  # fmt: skip
    times = {("edge", 0, 1): 5e-3, ("edge", 1, 2): 5e-3, ("edge", 0, 2): 10e-3,
             ("server", 0, 1): 6e-3, ("server", 1, 2): 6e-3, ("server", 0, 2): 4e-3}  # fmt: skip
    model = CostModel.of(chain, fleet, [make_row(*key, time) for key, time in times.items()], 1)
    (found,) = Peers(model, {"latency": 1.0}).joint_dnn()
    assert [(stage.device, stage.bundle) for stage in found.stages] == [("edge", Bundle(0, 2))]
    assert (found.expected, found.cost.latency_s) == pytest.approx((10e-3, 10e-3))
    plan = solve(chain, fleet, ProfileTable(chain, tuple(make_row(*k, t) for k, t in times.items())))
    assert plan.cost.latency_s == pytest.approx(4e-3 + 2e-6)


def test_dime_keeps_its_rules() -> None:
    chain, fleet, table = hard_table(6)
    model = CostModel.of(chain, fleet, table.rows, 1)
    by = Peers(model, {"latency": 1.0})
    for most in (1, 2, 6):
        (found,) = by.dime(Limits(private_layers=2), most_layers=most)
        own = Limits(private_layers=2, max_bundle_layers=most, ceil_rule=most > 1)
        question = Question.of(model, fleet, own, {"latency": 1.0}, prefer=lambda graph: None)
        assert not broken(
            fleet, own, dataclasses.replace(question.optimum, stages=found.stages, hops=found.hops)
        )
        assert by.value(found.cost) == pytest.approx(question.best.value)


def test_even_splits() -> None:
    chain, fleet, table = hard_table(7)
    layers = tuple(
        dataclasses.replace(layer, macs=100 if k == 0 else 10) for k, layer in enumerate(chain.layers)
    )
    chain = dataclasses.replace(chain, layers=layers)
    by = Peers(CostModel.of(chain, fleet, table.rows, 1), {"latency": 1.0})
    devices = ["edge", "cloud", "server"]
    ends = {
        peer.name: [s.bundle.stop for s in peer.stages]
        for peer in (*by.equal_layers(devices), *by.equal_work(devices))
    }
    assert ends == {"equal layers": [3, 5, 7], "equal work": [1, 2, 7]}  # fmt: skip
    assert not list(by.equal_layers(["edge"]))
    assert not list(by.equal_work(["edge"]))


# The whole document ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> tuple[Plan, ProfileTable]:
    chain, fleet, table = hard_table(4)
    rows = tuple(dataclasses.replace(row, latency_ci_s=row.latency_s / 50) for row in table.rows)
    table = dataclasses.replace(table, rows=rows)
    free = solve(chain, fleet, table)
    frugal = solve(chain, fleet, table, objective="energy")
    most = (free.cost.energy_j + frugal.cost.energy_j) / 2
    return solve(chain, fleet, table, limits=Limits(max_energy_j=most)), table


def test_an_explanation_round_trips(made: tuple[Plan, ProfileTable], tmp_path: Path) -> None:
    found = explain(*made, count=3)
    assert found.holds
    assert found.proven
    assert found.value == found.optimum_value == pytest.approx(made[0].proof.objective_value)
    assert len(found.runners_up) == len(found.quicker) == 3
    assert {each.kind for each in found.slower} >= {"stage", "device"}
    assert {each.name for each in found.baselines} >= {"Neurosurgeon", "JointDNN", "DIME", "all on edge"}
    assert all(each.value >= found.optimum_value for each in found.baselines if not each.breaks)
    found.save(tmp_path / "why.json")
    assert Explanation.load(tmp_path / "why.json") == found
    data = json.loads((tmp_path / "why.json").read_text())
    assert data["schema"] == "edgecut.explanation/2"
    (tmp_path / "why.json").write_text(json.dumps({**data, "surplus": 1}))
    with pytest.raises(DocumentError, match="surplus"):
        Explanation.load(tmp_path / "why.json")


def test_noise_is_that_of_what_differs(made: tuple[Plan, ProfileTable]) -> None:
    plan, table = made
    found = explain(plan, table, count=4)
    half = {row.key[:3]: row.latency_ci_s or 0.0 for row in table.rows}
    mine = {(stage.device, stage.bundle, stage.variant) for stage in plan.stages}
    for each in found.runners_up:
        differing = mine ^ {(stage.device, stage.bundle, stage.variant) for stage in each.stages}
        assert each.noise_s == pytest.approx(math.hypot(*(half[key] for key in differing)))
        assert each.within_noise == (each.regret <= (each.noise_s or 0))
    assert [each.noise for each in found.slower if each.kind == "stage"] == pytest.approx(
        [0.02] * len(plan.stages)
    )
    unsure = [each for each in found.runners_up if each.within_noise and not each.equal]
    unsure_parts = [each for each in (*found.slower, *found.quicker) if each.within_noise]
    assert bool(found.remeasure) == bool(unsure or unsure_parts)
    exact = dataclasses.replace(
        table, rows=tuple(dataclasses.replace(row, latency_ci_s=row.latency_s * 1e-9) for row in table.rows)
    )
    assert not explain(plan, exact, count=4).remeasure


def test_a_plan_that_is_no_longer_the_optimum(made: tuple[Plan, ProfileTable]) -> None:
    plan, table = made
    slow = {(stage.device, stage.bundle, stage.variant) for stage in plan.stages}
    rows = tuple(
        dataclasses.replace(row, latency_s=row.latency_s * 3) if row.key[:3] in slow else row
        for row in table.rows
    )
    found = explain(plan, dataclasses.replace(table, rows=rows))
    assert not found.holds
    assert found.value > found.optimum_value
    assert "not the optimum for these tables" in found.summary
    assert any("other measurements" in note for note in found.notes)


def test_ties_are_named() -> None:
    """Two ways that cost the same to the last bit are two plans, one the equal of the other."""
    chain = make_chain([1_000, 1_000])
    fleet = Fleet("edge", "edge", (Device("edge"), Device("a"), Device("b")),
                  tuple(Link(*pair, 1e6) for pair in itertools.permutations(["edge", "a", "b"], 2)))  # fmt: skip
    rows = (make_row("edge", 0, 1, 1.0), make_row("a", 0, 1, 0.1), make_row("b", 0, 1, 0.1))
    table = ProfileTable(chain, rows)
    found = explain(solve(chain, fleet, table), table)
    assert [each.equal for each in found.runners_up] == [True, False]
    assert "exactly the same" in found.summary
    assert all(each.factor == 1.0 for each in found.slower if each.kind in ("stage", "hop"))


def test_documents_that_do_not_belong_together(made: tuple[Plan, ProfileTable]) -> None:
    plan, table = made
    with pytest.raises(MismatchError, match="was measured on chain"):
        explain(plan, dataclasses.replace(table, chain=dataclasses.replace(table.chain, digest="f" * 64)))
    used = plan.stages[0]
    without = tuple(row for row in table.rows if (row.device, row.variant) != (used.device, used.variant))
    with pytest.raises(InputError, match="was not measured on"):
        explain(plan, dataclasses.replace(table, rows=without))


# The command -----------------------------------------------------------------------------------------


@pytest.fixture
def files(workdir: Path, made: tuple[Plan, ProfileTable]) -> list[str]:
    plan, table = made
    plan.save(workdir / "plan.json")
    here = Environment("host", "machine", "3.11", {}, 1, (0,))
    for device in ("edge", "server", "cloud"):
        sidecar = Sidecar(device, table.chain, here, "2026-01-01", f"{device}.samples.jsonl")
        save_table(workdir / f"{device}.csv", sidecar, [row for row in table.rows if row.device == device])
    return ["edge.csv", "server.csv", "cloud.csv"]


def test_the_command(files: list[str], edgecut, workdir: Path) -> None:
    code, said = edgecut(
        "explain", "plan.json", "--profiles", *files, "-n", 2, "--json", "why.json", "--csv", "why"
    )
    assert code == 0, said
    for text in ("proven", "the plans that come next", "what others would do", "--max-energy-mj", "Neurosurgeon",
                 "what the choice hangs on", "wrote why.json"):  # fmt: skip
        assert text in said
    found = Explanation.load(workdir / "why.json")
    assert said.startswith(found.summary.split(".")[0])
    lines = {file.stem: file.read_text().splitlines() for file in (workdir / "why").iterdir()}
    assert set(lines) == {"runners-up", "baselines", "limits", "slower", "quicker"}
    assert len(lines["runners-up"]) == 1 + 2
    assert len(lines["baselines"]) == 1 + len(found.baselines)


def test_bad_input_is_answered(files: list[str], edgecut, workdir: Path) -> None:
    for arguments, code, says in (
        (["nowhere.json", "--profiles", *files], 2, "no such file"),
        (["edge.csv", "--profiles", *files], 2, "edge.csv"),
        (["plan.json", "--profiles", "nowhere.csv"], 2, "no such file"),
        (["plan.json", "--profiles", "edge.csv", "--json", "plan.json"], 2, "is no explanation"),
        (["plan.json", "--profiles", "edge.csv"], 0, "has no rows"),
        (["plan.json"], 2, "does not say which tables"),
    ):
        found, said = edgecut("explain", *arguments)
        assert found == code, said
        assert says in said
