"""Active profiling: the optimum from a part of the bundles, and what it says where it cannot promise that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from active_instances import Truth, random_fleet, synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from labels_oracle import optimum
from strategies import Instance, instances, make_chain, make_row

from planner.active import active_profile
from planner.active_paths import Request, Router
from planner.active_result import ActiveResult
from planner.active_state import Found
from planner.chain import Bundle
from planner.cost import CostModel, Way
from planner.errors import TransportError
from planner.graph import Graph
from planner.limits import Limits, Objective
from planner.plan import Variant
from planner.sidecar import LeftOut
from planner.table import ProfileRow
from runtime.active_profile import asking

WEIGHTS: dict[Objective, tuple[float, float]] = {"latency": (1.0, 0.0), "energy": (0.0, 1.0)}


def run(truth: Truth, **options: object) -> ActiveResult:
    return active_profile(truth.chain, truth.fleet, truth.ways, truth.measure, **options)


def best(truth: Truth, objective: Objective = "latency", limits: Limits | None = None) -> float:
    """The optimum of the full table."""
    found = optimum(truth.model(), objective, limits or Limits()).best
    assert found is not None
    return found.latency_s if objective == "latency" else found.energy_j


@st.composite
def truths(draw: st.DrawFn) -> tuple[Truth, float]:
    """A full table in which each bundle takes at least alpha times the sum of its layers, and alpha."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers, alpha = draw(st.integers(1, 9)), draw(st.sampled_from([0.3, 0.6, 0.9]))
    names = ["edge", "server", "cloud"][: draw(st.integers(1, 3))]
    chain = make_chain([int(size) for size in numbers.integers(1_000, 90_000, layers + 1)])
    rows = {}
    for name in names:
        for variant in [Variant("torch"), Variant("onnxruntime")][: draw(st.integers(1, 2))]:
            single = numbers.uniform(1e-3, 2e-2, layers)
            for bundle in chain.bundles():
                share = 1.0 if len(bundle) == 1 else float(numbers.uniform(alpha, 1.2))
                time = share * float(single[bundle.start : bundle.stop].sum())
                rows[Way(name, variant), bundle] = make_row(
                    name, bundle.start, bundle.stop, time, variant=variant
                )
    return Truth(chain, random_fleet(names, numbers, 1e7), rows), alpha


@given(instances(), st.sampled_from(["latency", "energy"]))
def test_router_agrees_with_graph_and_dynamic_programme(instance: Instance, objective: Objective) -> None:
    if not instance.table.rows:
        return
    model = CostModel.of(instance.chain, instance.fleet, instance.table.rows, 1, instance.table.left_out)
    route = Router(model).route(model, WEIGHTS[objective])
    found = optimum(model, objective, Limits()).best
    if found is None:
        assert route.path == ()
        return
    value = found.latency_s if objective == "latency" else found.energy_j
    assert route.value == pytest.approx(value, rel=1e-9)
    cost = route.cost.latency_s if objective == "latency" else route.cost.energy_j
    assert cost == pytest.approx(value, rel=1e-9)
    graph = Graph.of(model)
    bundles = np.flatnonzero(graph.way >= 0)
    places = graph.way[bundles], graph.start[bundles], graph.stop[bundles]
    through = graph.through(graph.weight[objective])[bundles]
    np.testing.assert_allclose(route.through[places], through, rtol=1e-9)


@settings(max_examples=60)
@given(truths(), st.sampled_from(["latency", "energy"]))
def test_where_alpha_is_true_the_optimum_is_found(drawn: tuple[Truth, float], objective: Objective) -> None:
    truth, alpha = drawn
    result = run(truth, objective=objective, alpha=dict.fromkeys(truth.ways, alpha))
    assert result.value == pytest.approx(best(truth, objective), rel=1e-9)
    assert (result.outcome, result.gap) == ("proven", 0.0)
    assert len(result.rows) == len(truth.asked) == result.total - sum(result.skipped.values())


@settings(max_examples=10)
@given(truths(), st.floats(1.02, 1.5))
def test_within_limits_the_optimum_is_found(drawn: tuple[Truth, float], slack: float) -> None:
    truth, alpha = drawn
    limits = Limits(max_energy_j=best(truth, "energy") * slack)
    result = run(truth, limits=limits, alpha=dict.fromkeys(truth.ways, alpha))
    assert result.value == pytest.approx(best(truth, "latency", limits), rel=1e-6)
    assert result.outcome == "proven"


@pytest.mark.parametrize("objective", ["latency", "energy"])
@pytest.mark.parametrize("seed", range(5))
def test_learnt_bounds_find_the_optimum_with_a_tenth_of_the_bundles(seed: int, objective: Objective) -> None:
    truth = synthetic(32, 4, 4, seed)
    result = run(truth, objective=objective)
    assert result.share <= 0.1
    assert result.value <= best(truth, objective) * 1.005
    assert result.outcome == "calibrated"
    assert result.bound <= result.value
    assert all(0 <= alpha < 2 for way in result.alphas for alpha in way.alphas)


def test_a_gap_ends_the_search_earlier() -> None:
    exact, rough = (run(synthetic(24, 3, 2, 3), gap=gap) for gap in (0.0, 0.05))
    assert rough.gap <= 0.05
    assert len(rough.rows) < len(exact.rows)
    assert exact.value <= rough.value <= exact.value * 1.05


def test_the_front_holds_every_supported_point() -> None:
    truth = synthetic(16, 3, 2, 5)
    truth = replace(
        truth, fleet=random_fleet(["device0", "device1", "device2"], np.random.default_rng(1), 2e6)
    )
    result = run(truth, objective="front", alpha=_true_alpha(truth))
    assert len(result.front) > 1
    assert result.outcome == "proven"
    model = truth.model()
    router = Router(model)
    for weight in np.geomspace(1e-3, 1e3, 60):
        least = min(cost.latency_s + weight * cost.energy_j for cost in result.front)
        assert least == pytest.approx(router.route(model, (1.0, float(weight))).value, rel=1e-6)


def _true_alpha(truth: Truth) -> dict[Way, float]:
    """The greatest alpha that holds for every bundle, in time and in energy."""
    found = dict.fromkeys(truth.ways, 1.0)
    for (way, bundle), row in truth.rows.items():
        layers = [truth.rows[way, Bundle(k, k + 1)] for k in range(bundle.start, bundle.stop)]
        energy = row.energy_j / sum(each.energy_j or 0.0 for each in layers) if row.energy_j else 1.0
        found[way] = min(found[way], row.latency_s / sum(each.latency_s for each in layers), energy)
    return found


def _surprising(seed: int = 2) -> Truth:
    """One bundle in three of the fastest device takes a third of what its layers let expect."""
    truth, numbers = synthetic(16, 3, 1, seed), np.random.default_rng(seed)
    way = truth.ways[-1]
    for (other, bundle), row in truth.rows.items():
        if other == way and 4 < len(bundle) < 16 and numbers.random() < 0.3:
            truth.rows[other, bundle] = replace(row, latency_s=row.latency_s / 3)
    return truth


def test_verify_finds_bounds_that_do_not_hold_and_goes_on() -> None:
    plain, verified = run(_surprising()), run(_surprising(), verify=30)
    assert plain.verified == plain.violated == 0
    assert verified.violated > 0
    assert 0.05 < verified.worst_violation < 1
    assert verified.verified >= 60  # the last 30 all held, or nothing was left
    assert "were below" in verified.assumption
    assert verified.value <= plain.value


def test_verify_lowers_a_given_alpha() -> None:
    truth = synthetic(16, 2, 1, 1)
    result = run(truth, alpha=dict.fromkeys(truth.ways, 1.1), verify=20)
    assert result.violated > 0
    assert result.value <= best(truth) * 1.02


def test_the_same_seed_measures_the_same_in_the_same_order() -> None:
    first, again = synthetic(16, 3, 2, 8), synthetic(16, 3, 2, 8)
    run(first, verify=5, seed=3)
    run(again, verify=5, seed=3)
    assert first.asked == again.asked
    other = synthetic(16, 3, 2, 8)
    run(other, verify=5, seed=4)
    assert first.asked != other.asked


def test_what_is_known_is_not_measured_again() -> None:
    whole, resumed = synthetic(16, 3, 2, 8), synthetic(16, 3, 2, 8)
    full = run(whole)
    half = full.rows[: len(full.rows) // 2]
    result = run(resumed, known=half)
    assert not {(Way(row.device, row.variant), row.bundle) for row in half} & set(resumed.asked)
    assert result.value == pytest.approx(full.value)
    assert set(result.rows) == set(full.rows)


def test_bundles_that_cannot_run_are_left_out() -> None:
    truth = synthetic(12, 2, 2, 4)
    cannot = {
        request for request in truth.rows if request[1].start <= 3 < request[1].stop and len(request[1]) > 2
    }
    cannot |= {(way, Bundle(7, 8)) for way in truth.ways[:1]}

    def measure(requests: Sequence[Request]) -> Iterator[Found]:
        for (way, bundle), (device, row) in zip(requests, truth.measure(requests), strict=True):
            failed = LeftOut(bundle, way.variant, 1, "an operator is missing")
            yield device, failed if (way, bundle) in cannot else row

    result = active_profile(truth.chain, truth.fleet, truth.ways, measure)
    left_out = {
        way.device: [
            LeftOut(bundle, each.variant, 1, "") for each, bundle in cannot if each.device == way.device
        ]
        for way in truth.ways
    }
    rows = [row for request, row in truth.rows.items() if request not in cannot]
    expected = optimum(CostModel.of(truth.chain, truth.fleet, rows, 1, left_out), "latency", Limits()).best
    assert expected is not None
    assert result.value <= expected.latency_s * 1.02
    assert sum(map(len, result.left_out.values())) == len(set(truth.asked) & cannot)


@pytest.mark.parametrize("after", [0, 1, 20, 40])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_a_device_that_vanishes_costs_nothing_measured(after: int, side_by_side: bool) -> None:
    truth = synthetic(12, 3, 1, 6)
    answered = []

    def device(name: str, wanted: Sequence[tuple[Variant, Bundle]]) -> Iterator[ProfileRow]:
        for variant, bundle in wanted:
            if name == "device2" and sum(row.device == name for row in answered) == after:
                raise TransportError("device2 does not answer")
            answered.append(truth.rows[Way(name, variant), bundle])
            yield answered[-1]

    names = [way.device for way in truth.ways]
    devices = {name: (lambda wanted, name=name: device(name, wanted)) for name in names}
    result = active_profile(truth.chain, truth.fleet, truth.ways, asking(devices, side_by_side))
    assert set(result.rows) == set(answered)
    assert np.isfinite(result.value)
    if result.gone:
        assert result.gone == {"device2": "device2 does not answer"}
        assert result.outcome == "open"
        assert "their device is gone" in result.skipped


def test_no_plan_within_limits_keeps_what_was_measured() -> None:
    truth = synthetic(12, 2, 1, 2)
    result = run(truth, limits=Limits(max_latency_s=best(truth) / 10))
    assert result.outcome == "infeasible"
    assert len(result.rows) == len(truth.asked) > 0
    assert "no plan takes at most" in result.assumption


def test_a_device_without_a_route_is_not_measured() -> None:
    truth = synthetic(8, 3, 1, 2)
    links = tuple(link for link in truth.fleet.links if link.source != "device2")
    truth = replace(truth, fleet=replace(truth.fleet, links=links))
    result = run(truth)
    assert result.skipped["no route leads over their device"] == 36
    assert not any(way.device == "device2" for way, _ in truth.asked)
