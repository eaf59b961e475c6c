"""Each limit, rule and row of the model is there for a reason: without it, some answer is wrong.

One constraint is taken out at a time; on a fixed instance where it binds, the answer must then differ from what
trying every plan gives. So a limit that is lost on its way into the model makes a test fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import pulp
import pytest
from limits_oracle import KINDS, keeps
from rich_case import rich_case
from strategies import CLOCKED, Instance
from test_proof import Asked, check_best, plainly_solved, ranks, within

import planner.pricing
import planner.problem
from planner.chain import Bundle
from planner.errors import PlanningError, SolverError
from planner.graph import Graph
from planner.limits import Limits, Placement
from planner.plan import Variant

TORCH, INT8, FP16, SLOW = CLOCKED
Patch = pytest.MonkeyPatch
Stages = tuple[tuple[str, int, int, Variant], ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A limit that binds: the best plan of those that keep the limits ``beside`` it breaks it. ``fast``: stages
    that take next to no time."""

    limits: Limits
    objective: Asked
    mutate: Callable[[Patch], None]
    fast: Stages = ()
    beside: Limits = Limits()

    def instance(self) -> Instance:
        found = rich_case(3)
        rows = [
            dataclasses.replace(
                row, latency_s=row.latency_s / 50, energy_j=row.energy_j and row.energy_j / 50
            )
            if (row.device, row.bundle.start, row.bundle.stop, row.variant) in self.fast
            else row
            for row in found.table.rows
        ]
        return dataclasses.replace(found, table=dataclasses.replace(found.table, rows=tuple(rows)))


# What can be taken out ---------------------------------------------------------------------------------


def rows(limit: str, of: Callable[[str], bool] = lambda item: True) -> Callable[[Patch], None]:
    """Without the sums of a limit, or of some of its devices and links."""
    honest = planner.problem._rows

    def others(graph: Graph, limits: Limits) -> Iterable[object]:
        return (row for row in honest(graph, limits) if row[0].limit != limit or not of(row[0].item))

    return lambda patch: patch.setattr(planner.problem, "_rows", others)


def arcs(**without: object) -> Callable[[Patch], None]:
    """Without leaving out the arcs that a limit rules out."""
    honest = planner.problem.usable

    def all_of_them(model: object, limits: Limits) -> object:
        return honest(model, dataclasses.replace(limits, **without))

    return lambda patch: patch.setattr(planner.problem, "usable", all_of_them)


def links(patch: Patch) -> None:
    """Without leaving out links."""
    patch.setattr(planner.pricing, "without", lambda fleet, limits: fleet)


def clocks(patch: Patch) -> None:
    """Without the one clock."""
    honest = planner.problem._clocks
    free = lambda graph, limits: honest(graph, dataclasses.replace(limits, one_clock=False))  # noqa: E731
    patch.setattr(planner.problem, "_clocks", free)


def worker(patch: Patch) -> None:
    """Without the memory of the process that runs the stages."""
    honest = planner.problem.memory_ceiling

    def of_stages(fleet: object, limits: Limits, device: str) -> float:
        return honest(fleet, limits, device) + fleet.device(device).worker_memory_bytes

    patch.setattr(planner.problem, "memory_ceiling", of_stages)


def joins(allowed: bool) -> Callable[[Patch], None]:
    """With bundles of one variant following each other always, or never."""
    honest = Graph.of

    def of(model: object, usable: object = None, *, joins: bool = False, **options: object) -> Graph:
        return honest(model, usable, joins=allowed, **options)

    return lambda patch: patch.setattr(Graph, "of", staticmethod(of))


# The limits, each where it binds -------------------------------------------------------------------------

NOISE: Asked = {"noise": 1.0}
TWICE: Stages = (("edge", 0, 1, TORCH), ("server", 1, 2, TORCH), ("edge", 2, 3, TORCH))
SINGLES: Stages = (("edge", 0, 1, INT8), ("edge", 1, 2, FP16), ("edge", 2, 3, INT8))
TWO_CLOCKS: Stages = (("edge", 0, 1, INT8), ("edge", 1, 3, SLOW))
TWINS: Stages = (("edge", 0, 1, TORCH), ("edge", 1, 3, TORCH))
WHOLE: Stages = (("edge", 0, 3, INT8),)
CLOUD: Stages = (("cloud", 0, 3, TORCH),)


def place(device: str, start: int, stop: int, whole: bool = False) -> tuple[Placement, ...]:
    return (Placement(device, Bundle(start, stop), whole),)


CASES: dict[str, Case] = {
    "max_latency_s": Case(Limits(max_latency_s=7.2e-3), "energy", rows("max_latency_s")),
    "max_energy_j": Case(Limits(max_energy_j=20e-3), "latency", rows("max_energy_j")),
    "min_sqnr_db": Case(Limits(min_sqnr_db=35.0), "latency", rows("min_sqnr_db")),
    "max_period_s of devices": Case(
        Limits(max_period_s=5e-3), "latency", rows("max_period_s", lambda item: "->" not in item)
    ),
    "max_period_s of links": Case(
        Limits(max_period_s=4.46e-3), NOISE, rows("max_period_s", lambda item: "->" in item)
    ),
    "max_price": Case(Limits(max_price=5e-3), "energy", rows("max_price")),
    "max_upload_bytes": Case(Limits(max_upload_bytes=2500), "energy", rows("max_upload_bytes")),
    "max_memory_bytes": Case(
        Limits(max_memory_bytes={"server": 50_000}), "energy", rows("max_memory_bytes")
    ),
    "max_memory_bytes with its worker": Case(Limits(max_memory_bytes={"server": 50_000}), "energy", worker),
    "max_memory_bytes below its worker": Case(
        Limits(max_memory_bytes={"server": 3_000}), "energy", arcs(max_memory_bytes={})
    ),
    "max_share": Case(Limits(max_share={"server": 0.4}), "energy", rows("max_share")),
    "max_bundles": Case(Limits(max_bundles=1), "latency", rows("max_bundles")),
    "max_bundle_layers": Case(Limits(max_bundle_layers=2), "energy", arcs(max_bundle_layers=None), WHOLE),
    "max_bundle_layers, joined": Case(Limits(max_bundle_layers=1), "energy", joins(False)),
    "ceil_rule": Case(
        Limits(max_bundle_layers=2, ceil_rule=True), "latency", rows("ceil_rule"), SINGLES
    ),
    "once": Case(
        Limits(once=True, pins=place("server", 1, 2)), "latency", rows("once"), TWICE,
        Limits(pins=place("server", 1, 2)),
    ),
    "one_clock": Case(Limits(one_clock=True), "latency", clocks, TWO_CLOCKS),
    "clocks_hz": Case(Limits(clocks_hz={"edge": 0.6e9}), "latency", arcs(clocks_hz={})),
    "private_layers": Case(Limits(private_layers=1), "energy", arcs(private_layers=0)),
    "pins": Case(Limits(pins=place("edge", 1, 2)), "energy", arcs(pins=())),
    "pins of a bundle": Case(Limits(pins=place("server", 1, 2, True)), "energy", arcs(pins=())),
    "forbidden": Case(Limits(forbidden=place("server", 0, 1)), "energy", arcs(forbidden=())),
    "forbidden bundle": Case(Limits(forbidden=place("server", 0, 3, True)), "energy", arcs(forbidden=())),
    "without_devices": Case(Limits(without_devices=("server",)), "energy", links, CLOUD),
    "without_links": Case(Limits(without_links=("edge->server",)), "energy", links),
    "two bundles of one variant": Case(Limits(), "latency", joins(True), TWINS),
}  # fmt: skip


def test_every_limit_is_taken_out_once() -> None:
    assert {name.split()[0].rstrip(",") for name in CASES} >= {*KINDS}


@pytest.mark.parametrize("name", CASES)
def test_without_it_the_answer_is_wrong(name: str, monkeypatch: Patch) -> None:
    case = CASES[name]
    instance, rank = case.instance(), ranks(case.objective)[0]
    if case.limits != case.beside:
        best = min(within(instance, case.beside), key=rank)
        assert not keeps(best, instance, case.limits), "the limit does not bind"
    plan = check_best(instance, case.objective, case.limits)
    assert plan, "no plan keeps the limit"
    case.mutate(monkeypatch)
    with pytest.raises((AssertionError, PlanningError, pytest.fail.Exception)):
        check_best(instance, case.objective, case.limits)


# The rows of the integer programme -----------------------------------------------------------------------


def kind_of(constraint: pulp.LpConstraint) -> str:
    if constraint.sense == pulp.LpConstraintEQ:
        return "flow"
    names = {variable.name[0] for variable in constraint}
    return {"x": "resource", "y": "one of its clocks", "xy": "a stage's clock"}.get(
        "".join(sorted(names)), ""
    )


@pytest.mark.parametrize("kind", ["flow", "resource", "one of its clocks", "a stage's clock"])
def test_without_a_kind_of_row_the_programme_is_wrong(kind: str, monkeypatch: Patch) -> None:
    case = CASES["max_energy_j" if kind == "resource" else "one_clock"]
    instance, rank = case.instance(), ranks(case.objective)[0]
    least = min(map(rank, within(instance, case.limits)))
    assert plainly_solved(instance, case.objective, case.limits) == pytest.approx(least, rel=1e-9)
    honest, dropped = pulp.LpProblem.addConstraint, []

    def others(programme: pulp.LpProblem, constraint: pulp.LpConstraint, *names: object) -> None:
        if kind_of(constraint) == kind:
            dropped.append(constraint)
        else:
            honest(programme, constraint, *names)

    monkeypatch.setattr(pulp.LpProblem, "addConstraint", others)
    with pytest.raises((AssertionError, SolverError)):  # no path, one that breaks a limit, or another one
        assert plainly_solved(instance, case.objective, case.limits) == pytest.approx(least, rel=1e-9)
    assert dropped
