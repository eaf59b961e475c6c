"""Break points in bandwidth and load, against solving at many values."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from enumeration import every_plan
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import Instance, instances
from test_front import small

from planner.cost import CostModel
from planner.errors import InputError, PlanningError, UnknownNameError
from planner.limits import Criterion, Limits
from planner.parametric import Bandwidth, Interval, Load, Parameter, alone, break_even
from planner.pricing import priced
from planner.solver import solve

ALL = ("raw", "zstd", "int8")
WEIGHTS: tuple[dict[Criterion, float], ...] = (
    {"latency": 1.0},
    {"energy": 1.0},
    {"latency": 1.0, "energy": 0.01},
)


def model_of(instance: Instance, limits: Limits | None = None) -> CostModel:
    try:
        return priced(
            *(
                instance.chain,
                instance.fleet,
                instance.table,
                "latency",
                limits or Limits(),
                None,
                ALL,
                "mean",
            )
        )[0]
    except PlanningError:
        assume(False)
        raise


def tried(instance: Instance, parameter: Parameter, value: float, weights: dict[Criterion, float]) -> float:
    """The optimum at one value by trying every plan."""
    if isinstance(parameter, Bandwidth):
        factor = value / parameter.now(instance.fleet)
        links = tuple(
            replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * factor)
            if link.pair in parameter.links
            else link
            for link in instance.fleet.links
        )
        changed = replace(instance, fleet=replace(instance.fleet, links=links))
    else:
        rows = tuple(
            replace(
                row,
                latency_s=row.latency_s * value,
                energy_j=None if row.energy_j is None else row.energy_j * value,
            )
            if row.device == parameter.device
            else row
            for row in instance.table.rows
        )
        # Codecs are priced by the power that was metered, which a load does not change.
        changed = replace(instance, table=replace(instance.table, rows=rows))
    return min(
        weights.get("latency", 0.0) * plan[0] + weights.get("energy", 0.0) * plan[1]
        for plan in every_plan(changed)
    )


def value_at(intervals: tuple[Interval, ...], parameter: Parameter, value: float) -> float:
    each = next(each for each in intervals if each.low <= value <= each.high)
    slopes = [parameter.slope(at) for at in (each.low, value, each.high)]
    return float(np.interp(slopes[1], *zip(*sorted(zip(slopes[::2], each.values, strict=True)), strict=True)))


@settings(max_examples=20)
@given(instances(), st.data())
def test_intervals_are_a_dense_sweep(instance: Instance, data: st.DataObject) -> None:
    model = model_of(instance)
    assume(np.isfinite(_optimum(instance)))
    links = ["->".join(link.pair) for link in instance.fleet.links]
    devices = [device.name for device in instance.fleet.devices]
    parameter: Parameter
    if data.draw(st.booleans()) and links:
        named = data.draw(st.sampled_from([*links, "all"]))
        parameter, low, high = Bandwidth.of(instance.fleet, [named]), 1e4, 1e9
    else:
        parameter, low, high = Load.of(instance.fleet, data.draw(st.sampled_from(devices))), 0.1, 50.0
    weights = data.draw(st.sampled_from(WEIGHTS))
    intervals = break_even(model, parameter, low, high, weights=weights)
    assert (intervals[0].low, intervals[-1].high) == (low, high)
    assert all(each.proven for each in intervals)
    for left, right in itertools.pairwise(intervals):
        assert left.high == right.low  # and there both plans cost the same
        assert left.values[1] == pytest.approx(right.values[0], rel=1e-6, abs=1e-12)
    for value in np.geomspace(low, high, 9).tolist():
        best = tried(instance, parameter, value, weights)
        assert value_at(intervals, parameter, value) == pytest.approx(best, rel=1e-6, abs=1e-12)


def _optimum(instance: Instance) -> float:
    return min((plan[0] for plan in every_plan(instance)), default=np.inf)


def test_each_plan_is_the_best_inside_and_beaten_outside() -> None:
    instance = small()
    parameter = Bandwidth.of(instance.fleet, ["edge->server"])
    intervals = break_even(model_of(instance), parameter, 1e3, 1e9, weights={"latency": 1.0})
    assert len(intervals) > 2
    for each in intervals:
        middle = (each.low * each.high) ** 0.5
        links = tuple(
            replace(link, bandwidth_bytes_per_s=middle) if link.pair == ("edge", "server") else link
            for link in instance.fleet.links
        )
        plan = solve(instance.chain, replace(instance.fleet, links=links), instance.table, codecs=ALL)
        assert [(stage.device, stage.bundle) for stage in plan.stages] == [
            (stage.device, stage.bundle) for stage in each.stages
        ]
        assert plan.cost.latency_s == pytest.approx(value_at(intervals, parameter, middle), rel=1e-9)
    costs = [each.values[0] for each in intervals]
    assert costs == sorted(costs, reverse=True)  # more bandwidth never costs more


def test_limits_that_stay_are_kept() -> None:
    """A limit on noise holds at every bandwidth; the solver decides."""
    instance, parameter = small(), Bandwidth(links=(("edge", "server"),))
    limits = Limits(min_sqnr_db=20.0, max_bundles=2)
    model = model_of(instance, limits)
    intervals = break_even(model, parameter, 1e4, 1e8, weights={"latency": 1.0}, limits=limits)
    for each in intervals:
        assert each.costs[0].sqnr_db >= 20.0
        links = tuple(
            replace(link, bandwidth_bytes_per_s=each.low) if link.pair in parameter.links else link
            for link in instance.fleet.links
        )
        fleet = replace(instance.fleet, links=links)
        best = solve(instance.chain, fleet, instance.table, limits=limits, codecs=ALL)
        assert best.cost.latency_s == pytest.approx(each.values[0], rel=1e-7)


@pytest.mark.parametrize(
    "limits", [Limits(max_latency_s=1.0), Limits(max_energy_j=1.0), Limits(max_share={"edge": 0.9})]
)
def test_limits_that_move_are_refused(limits: Limits) -> None:
    instance = small()
    for parameter in (Load("edge"), Bandwidth((("edge", "server"),))):
        with pytest.raises(PlanningError, match="max_"):
            break_even(model_of(instance), parameter, 1, 2, weights={"latency": 1.0}, limits=limits)


def test_price_moves_with_a_load_only() -> None:
    limits = Limits(max_price=1.0)
    assert Load("edge").moves(limits) == ["max_price"]
    assert Bandwidth((("edge", "server"),)).moves(limits) == []


def test_single_devices_have_lines_of_their_own() -> None:
    instance = small()
    parameter = Bandwidth.of(instance.fleet, ["all"])
    lines = alone(model_of(instance), parameter, 1e4, 1e8, weights={"latency": 1.0})
    assert set(lines) == {"edge", "server"}
    assert lines["edge"][0].values[0] == lines["edge"][-1].values[1]  # no link in it
    assert lines["server"][0].values[0] > lines["server"][-1].values[1]


def test_bad_questions_are_refused() -> None:
    instance = small()
    with pytest.raises(UnknownNameError):
        Bandwidth.of(instance.fleet, ["edge->cloud"])
    with pytest.raises(UnknownNameError):
        Load.of(instance.fleet, "cloud")
    for low, high in ((0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(InputError):
            break_even(model_of(instance), Load("edge"), low, high, weights={"latency": 1.0})
