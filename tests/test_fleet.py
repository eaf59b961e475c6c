"""Fleets: what a person may write in TOML, and how faults in it are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from strategies import fleets

from planner.errors import DocumentError, UnknownNameError
from planner.fleet import Device, Emulation, Fleet, Link
from planner.fleet_file import RADIOS, format_fleet, load_fleet, parse_fleet, save_fleet

HEAD = 'schema = "edgecut.fleet/1"\nsource = "edge"\n'
DEVICES = "[device.edge]\n[device.server]\n"


@given(fleets())
def test_a_fleet_reads_back_as_it_was_written(fleet: Fleet) -> None:
    assert parse_fleet(format_fleet(fleet)) == fleet


def test_emulation_and_files_round_trip(tmp_path: Path) -> None:
    fleet = Fleet(
        "edge",
        "edge",
        (Device("edge", emulate=Emulation(2, (0, 1), 5.0)), Device("b", emulate=Emulation())),
        (),
    )
    save_fleet(fleet, tmp_path / "new" / "fleet.toml")
    assert load_fleet(tmp_path / "new" / "fleet.toml") == fleet


def test_what_may_be_left_out() -> None:
    fleet = parse_fleet(HEAD + DEVICES)
    assert fleet == Fleet("edge", "edge", (Device("edge"), Device("server")), ())


def test_between_is_two_links_and_the_first_carries_the_radio() -> None:
    fleet = parse_fleet(
        HEAD + DEVICES + '[[link]]\nbetween = ["edge", "server"]\npreset = "wifi"\nlatency_s = 0.002'
    )
    up, down = fleet.link("edge", "server"), fleet.link("server", "edge")
    assert up
    assert down
    assert (up.bandwidth_bytes_per_s, down.bandwidth_bytes_per_s) == pytest.approx((2.36e6, 6.87125e6))
    assert (up.send_power_w, up.receive_power_w) == (RADIOS["wifi"].send_power_w, 0.0)
    assert (down.send_power_w, down.receive_power_w) == (0.0, RADIOS["wifi"].receive_power_w)
    assert up.latency_s == down.latency_s == 0.002


@pytest.mark.parametrize(
    ("name", "up_w", "down_w"),
    [("3g", 1.773758, 1.0654783), ("4g", 3.8526215, 2.0031472), ("wifi", 5.4791096, 7.6642997)],
)
def test_radio_power_by_hand(name: str, up_w: float, down_w: float) -> None:
    """mW = alpha x Mbit/s + beta, such as 283.17 x 18.88 + 132.86 = 5479.1096 for wifi upwards."""
    radio = RADIOS[name]
    assert (radio.send_power_w, radio.receive_power_w) == pytest.approx((up_w, down_w), rel=1e-7)


def test_keys_beside_a_preset_win() -> None:
    text = '[[link]]\nbetween = ["edge", "server"]\npreset = "4g"\nbandwidth_bytes_per_s = 5e5'
    fleet = parse_fleet(HEAD + DEVICES + text)
    assert {link.bandwidth_bytes_per_s for link in fleet.links} == {5e5}


def test_a_link_between_emulated_devices_is_emulated_unless_told_otherwise() -> None:
    devices = "[device.edge.emulate]\n[device.server.emulate]\n"
    link = '[[link]]\nsource = "edge"\ntarget = "server"\nbandwidth_bytes_per_s = 1.0\n'
    assert parse_fleet(HEAD + devices + link).links[0].emulate
    assert not parse_fleet(HEAD + devices + link + "emulate = false").links[0].emulate
    assert not parse_fleet(HEAD + DEVICES + link).links[0].emulate


LINK = '[[link]]\nsource = "edge"\ntarget = "server"\n'
RATE = "bandwidth_bytes_per_s = 1\n"
BETWEEN = '[[link]]\nbetween = ["edge", "server"'
FAULTS = {
    "unknown key": ("[device.edge]\nbatery = true", "unknown key 'batery'", "docs/formats.md"),
    "unknown key on top": ("sorce = 1\n" + DEVICES, "unknown key 'sorce'", "docs/formats.md"),
    "milliseconds": (DEVICES + LINK + RATE + "latency_ms = 2", "'latency_ms'", "write latency_s, in seconds: divide"),
    "Mbit/s": (DEVICES + LINK + "bandwidth_mbps = 100", "'bandwidth_mbps'", "1 Mbit/s is 125000"),
    "milliwatts": ("[device.edge]\nidle_power_mw = 1", "'idle_power_mw'", "write idle_power_w"),
    "no bandwidth": (DEVICES + LINK, "'bandwidth_bytes_per_s' is missing", "add 'bandwidth_bytes_per_s'"),
    "bandwidth 0": (DEVICES + LINK + "bandwidth_bytes_per_s = 0", "must be above 0, found 0", ""),
    "bandwidth below 0": (DEVICES + LINK + "bandwidth_bytes_per_s = -1.5", "must be above 0, found -1.5", ""),
    "bandwidth nan": (DEVICES + LINK + "bandwidth_bytes_per_s = nan", "bandwidth_bytes_per_s", ""),
    "bandwidth inf": (DEVICES + LINK + "bandwidth_bytes_per_s = inf", "bandwidth_bytes_per_s", ""),
    "text for a number": (DEVICES + LINK + 'bandwidth_bytes_per_s = "1"', "bandwidth_bytes_per_s", ""),
    "negative latency": (DEVICES + LINK + RATE + "latency_s = -1", "latency_s is negative", ""),
    "negative radio": (DEVICES + LINK + RATE + "send_power_w = -1", "radio power is negative", ""),
    "negative power": ("[device.edge]\nactive_power_w = -1.0", "a power is negative", ""),
    "unknown device": (DEVICES + LINK.replace("server", "cloud") + RATE, "'cloud' is not a device; devices: edge", ""),
    "link to itself": (DEVICES + LINK.replace("server", "edge") + RATE, "joins a device to itself", ""),
    "two links": (DEVICES + 2 * (LINK + RATE), "two links edge -> server", ""),
    "source": ("[device.server]", "source 'edge' is not a device; devices: server", ""),
    "sink": ('sink = "moon"\n' + DEVICES, "sink 'moon' is not a device", ""),
    "no device": ("", "no device", "[device.edge]"),
    "device is no table": ("device.edge = 1", "expected a table", "[device.edge]"),
    "a name with a blank": ('[device."my edge"]', "device name 'my edge'", ""),
    "links are no list": ("link = 1\n" + DEVICES, "expected a list of tables", "[[link]]"),
    "one link, single brackets": (DEVICES + '[link]\nsource = "edge"', "expected a list of tables", "[[link]]"),
    "between three": (DEVICES + BETWEEN + ', "edge"]', "expected two device names", "between ="),
    "between and source": (DEVICES + LINK + 'between = ["edge", "server"]', "no source or target", "between ="),
    "preset for one direction": (DEVICES + LINK + 'preset = "4g"', "describes both directions", "between ="),
    "slowdown": ("[device.edge.emulate]\nslowdown = 0.5", "slowdown must be at least 1", ""),
    "threads": ("[device.edge.emulate]\nthreads = 0", "threads must be at least 1", ""),
    "cpus": ("[device.edge.emulate]\ncpus = []", "cpus must name at least one processor", ""),
    "not TOML": ("[device", "not TOML", ""),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem", "remedy"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_reported_with_its_place_and_remedy(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_fleet(HEAD + text, "lab.toml")
    assert str(caught.value).startswith("lab.toml")
    assert problem in caught.value.message
    assert remedy in caught.value.remedy


def test_a_fault_in_a_link_says_which_link() -> None:
    good = LINK + "bandwidth_bytes_per_s = 1.0\n"
    with pytest.raises(DocumentError, match=r"lab\.toml: link\[1\]: bandwith"):
        parse_fleet(HEAD + DEVICES + good + "[[link]]\nbandwith = 1", "lab.toml")


@pytest.mark.parametrize("tag", ['schema = "edgecut.fleet/9"', 'schema = "edgecut.plan/1"', ""])
def test_another_schema_is_refused(tag: str) -> None:
    with pytest.raises(DocumentError, match="schema") as caught:
        parse_fleet(f'{tag}\nsource = "edge"\n{DEVICES}', "lab.toml")
    assert "fleet" in caught.value.remedy


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_fleet(HEAD + DEVICES + '[[link]]\nbetween = ["edge", "server"]\npreset = "wify"')
    assert caught.value.near == ("wifi",)


def test_an_unknown_device_names_the_nearest() -> None:
    fleet = Fleet("edge", "edge", (Device("edge"), Device("server")), (Link("edge", "server", 1.0),))
    with pytest.raises(UnknownNameError, match="did you mean server"):
        fleet.device("sever")
    assert fleet.link("server", "edge") is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no such file"):
        load_fleet(tmp_path / "fleet.toml")
