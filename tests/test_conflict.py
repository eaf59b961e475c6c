"""Limits that no plan keeps: which of them are in conflict, and values that really can be kept."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from cases import CHAIN, FLEET, INT8, TORCH, hard_table, make_table
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from limit_arguments import argument, arguments, every_path, parsed, remedied
from strategies import Instance, instances

from planner.codec_table import CODECS
from planner.conflict import _Conflict, explain_conflict
from planner.cost import CostModel
from planner.errors import InfeasibleError, PlanningError, SolverError
from planner.fleet import Fleet
from planner.limits import Limits
from planner.placement import without
from planner.plan import Baseline, Plan
from planner.rules import KINDS, Rule, rules, taken
from planner.sidecar import LeftOut
from planner.solver import solve
from planner.table import ProfileTable

# Every device and link costs something; INT8 loses something; the edge is measured at one clock per bundle.
PRICED = dataclasses.replace(
    FLEET,
    devices=tuple(
        dataclasses.replace(device, price_per_s=place + 1.0, worker_memory_bytes=1001)
        for place, device in enumerate(FLEET.devices)
    ),
    links=tuple(dataclasses.replace(link, price_per_byte=1e-6) for link in FLEET.links),
)
BOTH = make_table(variants=(TORCH, INT8))
LOSSY = ProfileTable(
    CHAIN, tuple(dataclasses.replace(row, sqnr_db=30.0) for row in BOTH.rows if row.variant == INT8)
)
# Layer 0 of the edge at the clock as found only, the others at 1500 MHz only.
CLOCKED = ProfileTable(
    CHAIN,
    tuple(
        row
        for row in BOTH.rows
        if row.device != "edge" or (row.bundle.stop == 1 if row.variant == TORCH else row.bundle.start > 0)
    ),
)


def asked(text: str) -> list[list[str]]:
    """``--max-latency-ms 10 --once`` as groups of an option and its value."""
    return [["--" + part.split()[0], *part.split()[1:]] for part in text.split("--")[1:]]


def solved(given: list[list[str]], table: ProfileTable = BOTH, fleet: Fleet = PRICED) -> Plan:
    return solve(CHAIN, fleet, table, limits=parsed(given), codecs=CODECS)


TOO_TIGHT = [
    ("max_latency_s", "--max-latency-ms 10"),
    ("max_energy_j", "--max-energy-mj 5"),
    ("min_sqnr_db", "--min-sqnr-db 50"),
    ("max_price", "--max-price 0.01"),
    ("max_upload_bytes", "--max-upload-mb 0.01 --forbid 0-2=edge"),
    ("max_period_s", "--max-period-ms 5"),
    ("max_memory_bytes", "--max-memory-mb edge=0.002 --pin 0=edge"),
    ("max_share", "--max-share edge=0.01 --pin 0=edge"),
    ("max_bundles", "--max-bundles 1 --pin 0=edge --pin 1=server --pin 2=edge"),
    ("max_bundle_layers", "--max-bundle-layers 1 --max-bundles 1 --without-device cloud"),
    ("private_layers", "--private-layers 3 --pin 2=server"),
]


@pytest.mark.parametrize(("field", "text"), TOO_TIGHT, ids=[field for field, _ in TOO_TIGHT])
def test_a_remedy_can_be_kept_and_is_the_nearest(field: str, text: str) -> None:
    table, given = LOSSY if field == "min_sqnr_db" else BOTH, asked(text)
    with pytest.raises(InfeasibleError) as caught:
        solved(given, table)
    option = KINDS[field].option
    remedies = caught.value.remedy.split(", or ")
    assert any(option in remedy for remedy in remedies)
    for remedy in remedies:
        changed = remedied(given, remedy)
        assert changed != given
        solved(changed, table)
        if option in remedy:
            nearest = next(one for one in changed if one[0] == option)
            with pytest.raises(InfeasibleError):
                solved([one for one in changed if one != nearest] + [tighter(nearest, field)], table)


def tighter(given: list[str], field: str) -> list[str]:
    """A value a little stricter than a remedy's."""
    item, equals, number = given[1].rpartition("=")
    step = 1.0 if KINDS[field].counts else float(number) * 0.002
    value = float(number) - step if KINDS[field].at_most else float(number) + step
    return [given[0], f"{item}{equals}{value:.10g}"]


RULES = [
    ("once", BOTH, "--once --pin 0=edge --pin 1=server --pin 2=edge"),
    ("ceil_rule", BOTH, "--ceil-rule --max-bundle-layers 2 --pin [0,1)=edge --pin [1,2)=edge"),
    ("one_clock", CLOCKED, "--one-clock --pin 0-2=edge"),
    ("clocks_hz", CLOCKED, "--clock edge=1500 --pin 0=edge"),
    ("pins", BOTH, "--pin 1=edge --forbid 1=edge"),
    ("forbidden", BOTH, "--forbid [0,3)=server --max-bundles 1 --pin 0=server --pin 2=server"),
    ("without_devices", BOTH, "--without-device server --forbid 0=edge"),
    ("without_links", BOTH, "--without-link edge->server --forbid 0=edge"),
]


@pytest.mark.parametrize(("field", "table", "text"), RULES, ids=[each[0] for each in RULES])
def test_rules_in_conflict_are_named_and_leaving_any_out_helps(
    field: str, table: ProfileTable, text: str
) -> None:
    given = asked(text)
    with pytest.raises(InfeasibleError) as caught:
        solve_on(table, given)
    for rule in rules(PRICED, parsed(given)):
        if rule.field == field:
            assert rule.shown in caught.value.message
    remedies = caught.value.remedy.split(", or ")
    assert len(remedies) > 1
    for remedy in remedies:
        solve_on(table, remedied(given, remedy))


def solve_on(table: ProfileTable, given: list[list[str]]) -> Plan:
    """Bundles that the table lacks are taken as ones that the device cannot run."""
    have = {(row.device, row.bundle, row.variant) for row in table.rows}
    lacking = [
        LeftOut(bundle, variant, 1, "not there")
        for bundle, variant in itertools.product(CHAIN.bundles(), (TORCH, INT8))
        if ("edge", bundle, variant) not in have
    ]
    return solved(given, dataclasses.replace(table, left_out={"edge": lacking}))


def test_limits_that_must_all_give_way_are_eased_together() -> None:
    given = asked("--max-energy-mj 10 --max-period-ms 5")
    with pytest.raises(InfeasibleError) as caught:
        solved(given)
    assert caught.value.message == (
        "no plan uses at most 10 mJ (max_energy); the least possible is 24.1 mJ; "
        "no plan has a period of at most 5 ms (max_period); the least possible is 10 ms"
    )
    assert ", and " in caught.value.remedy
    solved(remedied(given, caught.value.remedy))


def test_the_memory_of_the_fleet_is_a_limit_like_any_other() -> None:
    small = dataclasses.replace(
        PRICED, devices=tuple(dataclasses.replace(each, memory_bytes=2000) for each in PRICED.devices)
    )
    with pytest.raises(InfeasibleError, match="on server"):
        solved([], BOTH, small)
    with pytest.raises(InfeasibleError) as caught:
        solved(asked("--forbid 0-2=edge"), BOTH, small)
    given = remedied(asked("--forbid 0-2=edge"), caught.value.remedy.split(", or ")[0])
    assert solved(given, BOTH, small).devices


def test_no_plan_at_all_is_not_blamed_on_limits() -> None:
    rows = tuple(row for row in BOTH.rows if row.bundle.stop < 3)
    left_out = {
        name: [LeftOut(bundle, variant, 1, "no") for bundle in CHAIN.bundles() for variant in (TORCH, INT8)]
        for name in ("edge", "server", "cloud")
    }
    with pytest.raises(PlanningError, match="do not join") as caught:
        solved(asked("--max-latency-ms 1000"), ProfileTable(CHAIN, rows, left_out=left_out))
    assert not isinstance(caught.value, InfeasibleError)


def test_an_explanation_without_time_names_no_values() -> None:
    chain, fleet, table = hard_table(8)
    model = CostModel.of(chain, fleet, table.rows, 1)
    plans = [solve(chain, fleet, table, objective=name) for name in ("latency", "energy")]
    fast, frugal = (plan.cost for plan in plans)
    limits = Limits(
        fast.latency_s + 0.2 * (frugal.latency_s - fast.latency_s),
        frugal.energy_j + 0.2 * (fast.energy_j - frugal.energy_j),
    )
    hurried, explained = (explain_conflict(model, limits, time_limit_s=limit_s) for limit_s in (0.0, 60.0))
    assert hurried
    assert explained
    assert hurried.message.startswith("no plan keeps both limits; there was no time to prove")
    assert hurried.remedy == "loosen one of them"
    assert explained.message.startswith("no plan keeps both limits: within ")
    within = dataclasses.replace(limits, max_energy_j=limits.max_energy_j * 2)
    with pytest.raises(SolverError, match="found no plan within the limits, yet there is one"):
        explain_conflict(model, dataclasses.replace(within, max_latency_s=1.0))


# On random instances ---------------------------------------------------------------------------------


@st.composite
def limits_of(draw: st.DrawFn, instance: Instance, plans: list[Baseline]) -> Limits:
    """Two to four limits, their values between what some plans take of them."""
    fleet, names = instance.fleet, [device.name for device in instance.fleet.devices]
    layers, found = len(instance.chain), []
    for field in draw(st.lists(st.sampled_from([*KINDS, *FREE]), min_size=2, max_size=4, unique=True)):
        item = draw(st.sampled_from(names)) if field in ("max_memory_bytes", "max_share") else ""
        if field in KINDS:
            amounts = sorted({taken(Rule(field, item), fleet, Limits(), plan) for plan in plans[:50]})
            amount = draw(st.sampled_from(amounts[: len(amounts) // 3 + 1])) * draw(
                st.sampled_from([1.0, 0.9, 0.5])
            )
            rule = Rule(field, item, asked=amount)
            if field == "min_sqnr_db" and not 1e-20 < amount < 0.9:
                continue
            value = dataclasses.replace(rule, asked=float(rule.value(amount)) / float(rule.kind.per_si))
            if value.asked > 0 and (field != "max_share" or value.asked <= 1):
                found.append(argument(value))
        elif field == "pin":
            found.append(["--pin", f"{draw(st.integers(0, layers - 1))}={draw(st.sampled_from(names))}"])
        elif field == "without-device" and len(names) > 2:
            found.append(["--without-device", names[1]] if names[1] != fleet.sink else ["--once"])
        elif field in ("once", "one-clock"):
            found.append([f"--{field}"])
    return parsed(found)


FREE = ("pin", "without-device", "once", "one-clock")


@given(instances(), st.data())
@settings(max_examples=12)
def test_a_conflict_is_minimal_and_every_remedy_holds(instance: Instance, data: st.DataObject) -> None:
    assume(instance.table.rows)
    instance = dataclasses.replace(instance, fleet=with_prices(instance.fleet))
    model = instance.model
    plans = list(itertools.islice(every_path(model, joins=False), 3000))
    assume(0 < len(plans) < 3000)
    limits = data.draw(limits_of(instance, plans))

    def possible(kept: tuple[Rule, ...]) -> bool:
        joins = limits.max_bundle_layers is not None
        reduced = Limits(without_devices=tuple(r.item for r in kept if r.field == "without_devices"))
        paths = every_path(dataclasses.replace(model, fleet=without(model.fleet, reduced)), joins=joins)
        return any(all(rule.keeps(taken(rule, model.fleet, limits, plan)) for rule in kept) for plan in paths)

    def answer(wanted: Limits) -> Any:
        return solve(instance.chain, instance.fleet, instance.table, limits=wanted, codecs=CODECS)

    everything = rules(instance.fleet, limits)
    if possible(everything):
        event("possible")
        answer(limits)
        return
    event("in conflict")
    try:
        with pytest.raises(InfeasibleError) as caught:
            answer(limits)
    except PlanningError as error:
        assert "no plan is possible on this fleet" in error.message  # noqa: PT017 - told before any search
        return
    given = arguments(instance.fleet, limits)
    for remedy in caught.value.remedy.split(", or "):
        answer(parsed(remedied(given, remedy)))
    core = _Conflict(model, instance.fleet, limits, 60.0, "cbc")._filtered(everything)
    assert not possible(tuple(core))
    for rule in core:
        assert possible(tuple(each for each in core if each != rule))


def with_prices(fleet: Fleet) -> Fleet:
    """Devices cost 1, 2, 3, ... a second, links 1 a megabyte; workers take 1 kB."""
    devices = tuple(
        dataclasses.replace(device, price_per_s=place + 1.0, worker_memory_bytes=1000)
        for place, device in enumerate(fleet.devices)
    )
    links = tuple(dataclasses.replace(link, price_per_byte=1e-6) for link in fleet.links)
    return dataclasses.replace(fleet, devices=devices, links=links)
