"""Every formula of the cost model against numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import VARIANTS, Instance, instances, make_chain, make_row

from planner.chain import Bundle
from planner.cost import CostModel, ceilings
from planner.errors import PlanningError, UnknownNameError
from planner.fleet import Device, Fleet, Link
from planner.fleet_file import parse_fleet
from planner.limits import Limits

TORCH, INT8 = VARIANTS


def test_4g_upload_and_download_by_hand() -> None:
    """36 864 B up and 4 B down over JointDNN's 4G: 50.4146 ms and 194.224 mJ.

    up: 36864 B x 8 / 5.85 Mbit/s = 50.412308 ms at 438.39 x 5.85 + 1288.04 = 3852.6215 mW
    down: 4 B x 8 / 13.76 Mbit/s = 2.3256 us at 51.97 x 13.76 + 1288.04 = 2003.1472 mW
    """
    fleet = parse_fleet(
        """
        schema = "edgecut.fleet/1"
        source = "phone"
        [device.phone]
        battery = true
        active_power_w = 1.0
        [device.cloud]
        [[link]]
        between = ["phone", "cloud"]
        preset = "4g"
        """
    )
    chain = make_chain([36_864, 4])
    model = CostModel.of(chain, fleet, [make_row("cloud", 0, 1, 1e-3)], batch=1)
    up, down = model.hop(0, ("phone", "cloud")).cost, model.hop(1, ("cloud", "phone")).cost
    assert up.latency_s + down.latency_s == pytest.approx(0.05041463327370304, rel=1e-9)
    assert (up.energy_j + down.energy_j) * 1e3 == pytest.approx(194.2241992, abs=1e-6)


FLEET = Fleet(
    "edge",
    "edge",
    (
        Device("edge", battery=True, active_power_w=5.0, idle_power_w=0.5),
        Device("phone", battery=True, active_power_w=3.0, idle_power_w=0.25),
        Device("server", active_power_w=300.0, idle_power_w=100.0),
    ),
    (
        Link("edge", "phone", 1e6, latency_s=0.004, send_power_w=2.0, receive_power_w=1.0),
        Link("phone", "server", 2e6, latency_s=0.002, send_power_w=4.0, receive_power_w=50.0),
        Link("server", "edge", 1e6, send_power_w=60.0, receive_power_w=1.5),
    ),
)
CHAIN = make_chain([1000, 2000, 500])


def model(*rows: tuple[str, int, int, float, float | None], batch: int = 1) -> CostModel:
    measured = [
        make_row(device, start, stop, latency, energy_j=energy, batch=batch)
        for device, start, stop, latency, energy in rows
    ]
    return CostModel.of(CHAIN, FLEET, measured, batch)


def all_bundles(
    device: str, latency: float, energy: float | None = None
) -> list[tuple[str, int, int, float, float | None]]:
    return [(device, start, stop, latency, energy) for start, stop in ((0, 1), (0, 2), (1, 2))]


@pytest.mark.parametrize(
    ("device", "metered", "energy"),
    [
        ("edge", None, 5.0 * 0.01 + 0.25 * 0.01),  # active power, and the phone idles
        ("edge", 0.2, 0.2 + 0.25 * 0.01),  # metered wins over active power
        ("phone", None, 3.0 * 0.01 + 0.5 * 0.01),
        ("server", 9.0, (0.5 + 0.25) * 0.01),  # mains: only the two that wait on batteries count
    ],
)
def test_stage_energy(device: str, metered: float | None, energy: float) -> None:
    stage = model(*all_bundles(device, 0.01, metered)).stage(device, Bundle(0, 1), TORCH)
    assert (stage.cost.latency_s, stage.cost.energy_j) == pytest.approx((0.01, energy))


def test_hop_energy_counts_radio_and_waiting() -> None:
    prices = model(*all_bundles("edge", 0.01))
    first = prices.hop(0, ("edge", "phone")).cost
    assert first.latency_s == pytest.approx(0.004 + 0.001)
    assert first.energy_j == pytest.approx((2.0 + 1.0) * 0.001 + (0.5 + 0.25) * 0.004)
    second = prices.hop(0, ("phone", "server")).cost  # the server has no battery, the edge waits
    assert second.energy_j == pytest.approx((4.0 + 0.5) * 0.0005 + (0.5 + 0.25) * 0.002)
    both = prices.hop(0, ("edge", "phone", "server")).cost  # stored, then forwarded
    assert both == first + second


def test_a_batch_crosses_as_so_many_samples() -> None:
    hop = model(*all_bundles("edge", 0.01), batch=8).hop(1, ("server", "edge"))
    assert (hop.wire_bytes, hop.cost.latency_s) == (16_000, 0.016)


def test_without_a_direct_link_the_hop_takes_a_route() -> None:
    routes = {hop.route for hop in model(*all_bundles("edge", 0.01)).hops(0, "edge")}
    assert routes == {("edge", "phone"), ("edge", "phone", "server")}


def test_the_fastest_the_most_frugal_and_the_cheapest_route_are_kept() -> None:
    devices = tuple(Device(name, battery=name == "a") for name in "abcde")
    links = (
        Link("a", "b", 1e6, send_power_w=9.0, price_per_byte=2.0),  # fast, a strong radio
        Link("a", "c", 5e5, send_power_w=1.0, price_per_byte=2.0),
        Link("a", "e", 2e5, send_power_w=9.0, price_per_byte=1.0),  # slow and dear in energy, half the price
        Link("b", "d", 1e6),
        Link("c", "d", 1e6),
        Link("e", "d", 1e6),
        Link("b", "c", 1e9),  # a-b-c-d: as dear as a-b-d and slower
    )
    prices = CostModel.of(CHAIN, Fleet("a", "a", devices, links), [], 1)
    routes = [hop.route for hop in prices.hops(0, "a") if hop.route[-1] == "d"]
    assert routes == [("a", "b", "d"), ("a", "c", "d"), ("a", "e", "d")]


@given(instances() | instances(rich=True))
@settings(max_examples=60)
def test_routes_are_exactly_those_that_no_other_beats(instance: Instance) -> None:
    fleet = instance.fleet
    prices = CostModel.of(instance.chain, fleet, instance.table.rows, 1, instance.table.left_out)
    names = [device.name for device in fleet.devices]
    for source, target in itertools.permutations(names, 2):
        found = [hop for hop in prices.hops(0, source) if hop.route[-1] == target]
        if fleet.link(source, target):
            assert [hop.route for hop in found] == [(source, target)]
            continue
        between = [name for name in names if name not in (source, target)]
        every = [
            prices.hop(0, (source, *relays, target)).cost
            for count in range(len(between) + 1)
            for relays in itertools.permutations(between, count)
            if all(fleet.link(*pair) for pair in itertools.pairwise((source, *relays, target)))
        ]
        assert bool(every) == bool(found)
        for cost in every:
            assert any(
                hop.cost.latency_s <= cost.latency_s * (1 + 1e-12)
                and hop.cost.energy_j <= cost.energy_j * (1 + 1e-12)
                and hop.cost.price <= cost.price * (1 + 1e-12)
                for hop in found
            )


def test_a_path_is_priced_from_the_table_not_from_its_own_costs() -> None:
    prices = model(*all_bundles("edge", 0.01), *all_bundles("server", 0.001))
    stage, hop = prices.stage("edge", Bundle(0, 2), TORCH), prices.hop(2, ("server", "edge"))
    whole = prices.price([stage], [hop])
    assert whole.latency_s == pytest.approx(0.01 + 0.0005)
    assert whole.energy_j == pytest.approx(stage.cost.energy_j + hop.cost.energy_j)


def test_a_battery_device_without_any_energy_is_named() -> None:
    fleet = Fleet("edge", "edge", (Device("edge", battery=True), Device("server")), ())
    rows = [make_row(name, 0, 1, 0.01) for name in ("edge", "server")]
    prices = CostModel.of(make_chain([1, 1]), fleet, rows, 1)
    assert prices.unmetered == ("edge",)
    assert not np.nansum(prices.energy_j)


def test_a_missing_bundle_is_named_with_the_command_that_measures_it() -> None:
    rows = [make_row("edge", 0, 1, 0.01), make_row("edge", 0, 1, 0.01, variant=INT8, batch=2)]
    with pytest.raises(PlanningError) as caught:
        CostModel.of(CHAIN, FLEET, rows, 1)
    assert "edge, torch fp32, batch 1: 2 of 3 bundles are not measured, the first is [0, 2)" in str(
        caught.value
    )
    assert "edgecut profile net --device edge" in caught.value.remedy


def test_a_row_of_a_device_outside_the_fleet_lists_the_fleet() -> None:
    with pytest.raises(UnknownNameError, match="unknown device in the profile table 'tpu'") as caught:
        CostModel.of(CHAIN, FLEET, [make_row("tpu", 0, 1, 0.01)], 1)
    assert "edge, phone, server" in caught.value.remedy


def test_limits_allow_for_rounding() -> None:
    most = ceilings(Limits(max_latency_s=0.1))
    assert 0.1 < most["latency"] < 0.1 * (1 + 1e-8)
    assert most["energy"] == float("inf")
