"""Plans made by hand: priced like the planner's own, judged by every limit, compared with the optimum."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
from cases import CHAIN, FLEET, INT8, TORCH, make_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from limit_arguments import every_arcs, every_path, parsed
from strategies import Instance, instances
from test_conflict import limits_of, with_prices
from test_limits import TABLES, Edgecut, edgecut

from planner.chain import Bundle
from planner.cost import CostModel
from planner.errors import DocumentError, InputError, MismatchError, PlanningError
from planner.limits import Limits
from planner.override import Piece, limits_kept, load_override, parse_pieces, priced_override
from planner.plan import Plan
from planner.problem import Problem
from planner.sidecar import LeftOut
from planner.solver import solve

__all__ = ["edgecut"]
BOTH = make_table(variants=(TORCH, INT8))
MODEL = CostModel.of(CHAIN, FLEET, BOTH.rows, 1)


def priced(text: str, limits: Limits = Limits(), model: CostModel = MODEL):
    return priced_override(model, limits, {"latency": 1.0}, parse_pieces(text))


def test_stages_are_read() -> None:
    assert parse_pieces("edge:0-3 server:4@onnxruntime-int8  cloud:[5,9)") == (
        Piece("edge", Bundle(0, 4)),
        Piece("server", Bundle(4, 5), "onnxruntime-int8"),
        Piece("cloud", Bundle(5, 9)),
    )


def test_a_plan_worked_out_by_hand() -> None:
    """server [0, 3) 6 ms, 40 kB up 40 ms, 100 B down 0.1 ms."""
    entry = priced("server:0-2")
    assert entry.cost.latency_s == pytest.approx(0.0461)
    assert [hop.route for hop in entry.hops] == [("edge", "server"), ("server", "edge")]
    int8 = priced("server:0-2@onnxruntime-int8")
    assert int8.stages[0].variant == INT8
    assert int8.cost.latency_s == pytest.approx(0.0461 + 0.0006)
    assert (
        priced("server:0-2@onnxruntime").cost
        == priced("server:0-2@ONNXRUNTIME-INT8-1500MHz").cost
        == int8.cost
    )


def test_bundles_of_one_variant_may_follow_each_other() -> None:
    """The planner would join them, a person need not."""
    entry = priced("edge:0 edge:1-2@torch")
    assert [stage.bundle for stage in entry.stages] == [Bundle(0, 1), Bundle(1, 3)]
    assert {stage.variant for stage in entry.stages} == {TORCH}


def test_what_is_left_open_keeps_the_limits_where_it_can() -> None:
    clock = parsed([["--clock", "server=1500"]])
    assert priced("server:0-2").stages[0].variant == TORCH
    assert priced("server:0-2", clock).stages[0].variant == INT8
    impossible = parsed([["--max-latency-ms", "1"]])
    assert priced("server:0-2", impossible).stages[0].variant == TORCH


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no stage"),
        ("edge", "'edge' is no stage"),
        ("edge:2-1", "has no layer"),
        ("edge:0 server:2", "gap: no stage runs layer 1"),
        ("server:1-2", "gap: no stage runs layer 0"),
        ("edge:0-1", "gap: no stage runs layer 2"),
        ("edge:0-1 server:1-2", "overlap: two stages run layer 1"),
        ("edge:0-2 edge:0-2", "overlap: two stages run layers 0 to 2"),
        ("edge:0-7", "the chain has 3 layers"),
        ("egde:0-2", "unknown device 'egde'"),
        ("edge:0-2@tensorrt", "unknown variant of edge 'tensorrt'"),
        ("edge:0-2@onnx", "unknown variant of edge 'onnx'"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        priced(text)


def test_a_bundle_that_was_not_measured_says_how_to() -> None:
    rows = [row for row in BOTH.rows if (row.device, row.bundle) != ("server", Bundle(1, 3))]
    gone = {"server": [LeftOut(Bundle(1, 3), variant, 1, "an operator") for variant in (TORCH, INT8)]}
    model = CostModel.of(CHAIN, FLEET, rows, 1, gone)
    with pytest.raises(InputError, match=r"\[1, 3\) was not measured on server") as caught:
        priced("edge:0 server:1-2", model=model)
    assert "edgecut profile" in caught.value.remedy
    alone = CostModel.of(CHAIN, FLEET, [row for row in BOTH.rows if row.device == "edge"], 1)
    with pytest.raises(InputError, match=r"was not measured on server"):
        priced("server:0-2", model=alone)


def test_without_a_route_the_boundary_is_named() -> None:
    one_way = dataclasses.replace(MODEL, fleet=dataclasses.replace(FLEET, links=FLEET.links[:3]))
    with pytest.raises(PlanningError, match="no route leads from cloud to edge, which boundary 3 needs"):
        priced("edge:0 cloud:1-2", model=one_way)


def test_a_plan_is_taken_as_it_is(tmp_path: Path) -> None:
    plan = solve(CHAIN, FLEET, BOTH)
    plan.save(tmp_path / "plan.json")
    given = load_override(str(tmp_path / "plan.json"))
    assert isinstance(given, Plan)
    entry = priced_override(MODEL, Limits(), {"latency": 1.0}, given)
    assert (entry.stages, entry.hops) == (plan.stages, plan.hops)
    assert entry.cost.latency_s == pytest.approx(plan.cost.latency_s)


def test_a_plan_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    plan = solve(CHAIN, FLEET, BOTH)
    other = dataclasses.replace(plan, chain=dataclasses.replace(CHAIN, digest="1" * 64))
    with pytest.raises(MismatchError, match="the plan is for chain 111111111111"):
        priced_override(MODEL, Limits(), {"latency": 1.0}, other)
    cut = dataclasses.replace(MODEL, fleet=dataclasses.replace(FLEET, links=FLEET.links[1:]))
    with pytest.raises(InputError, match="no link edge -> server"):
        priced_override(cut, Limits(), {"latency": 1.0}, plan)
    lossy = dataclasses.replace(plan, hops=(dataclasses.replace(plan.hops[0], codec="int8"), *plan.hops[1:]))
    with pytest.raises(InputError, match="int8 at boundary 1 is not measured on edge"):
        priced_override(MODEL, Limits(), {"latency": 1.0}, lossy)
    with pytest.raises(DocumentError, match="no such file"):
        load_override("nowhere.json")


@given(instances(), st.data())
@settings(max_examples=20)
def test_limits_are_judged_as_the_problem_does(instance: Instance, data: st.DataObject) -> None:
    """Two accounts of every limit: from a plan's stages and hops, and from the loads of its arcs."""
    assume(instance.table.rows)
    instance = dataclasses.replace(instance, fleet=with_prices(instance.fleet))
    model = instance.model
    plans = list(itertools.islice(every_path(model, joins=False), 500))
    assume(0 < len(plans) < 500)
    limits = data.draw(limits_of(instance, plans))
    assume(not limits.without_devices and limits.max_bundle_layers is None)
    problem = Problem.of(model, limits)
    kept = [problem.graph.decode(arcs) for arcs in every_arcs(problem.graph) if problem.kept(arcs)]
    for plan in plans:
        judged = all(each.kept for each in limits_kept(model.fleet, limits, plan))
        assert judged == ((plan.stages, plan.hops) in kept)


# The command -------------------------------------------------------------------------------------------


def test_the_command_compares_with_the_optimum(edgecut: Edgecut) -> None:
    words = ["--override", "server:0-2@torch", "--max-latency-ms", "40", "--once"]
    code, said = edgecut("solve", *TABLES, *words)
    assert code == 0, said
    assert "broken by 6.1 ms" in said
    assert "latency: 46.1 ms by hand, 18.1 ms the optimum: +28 ms (+154.70 %)" in said
    assert not Path("plan.json").exists()
    assert edgecut("solve", *TABLES)[0] == 0
    code, said = edgecut("solve", *TABLES, "--override", "plan.json")
    assert code == 0
    assert "18.1 ms by hand, 18.1 ms the optimum: +0 ms (+0.00 %)" in said


def test_limits_that_no_plan_keeps_still_show_what_the_hand_made_one_does(edgecut: Edgecut) -> None:
    code, said = edgecut("solve", *TABLES, "--override", "server:0-2", "--max-latency-ms", "10")
    assert code == 1
    assert "broken by 36.1 ms" in said
    assert "the least possible is 18.1 ms" in said


@pytest.mark.parametrize("text", ["edge:0 server:2", "nowhere.json", "edge.csv", "egde:0-2"])
def test_bad_input_is_answered(edgecut: Edgecut, text: str) -> None:
    code, said = edgecut("solve", *TABLES, "--override", text)
    assert code == 2, said


def test_over_is_finite_for_what_is_printed() -> None:
    kept = limits_kept(FLEET, parsed([["--max-price", "0"], ["--pin", "0=edge"]]), priced("server:0-2"))
    assert [each.kept for each in kept] == [False, True]
    assert math.isfinite(kept[1].excess)
