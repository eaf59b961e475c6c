"""Every limit and objective on the command line: what it means, what bad input is told, what is printed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import pytest
from cases import CHAIN, FLEET, INT8, TORCH, make_table
from conftest import Edgecut
from hypothesis import given
from hypothesis import strategies as st
from limit_arguments import arguments, parsed

from planner.chain import Bundle
from planner.errors import InputError
from planner.fleet_file import save_fleet
from planner.limits import Limits, Placement
from planner.plan import Plan
from planner.rules import KINDS
from planner.sidecar import Environment, Sidecar
from planner.table import save_table
from runtime.commands.limit_options import Aim

TABLES = ["--profiles", "edge.csv", "server.csv", "cloud.csv", "--fleet", "fleet.toml"]


@pytest.fixture
def edgecut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgecut: Edgecut) -> Edgecut:
    """Runs a command where the tables of `cases` are; gives its exit code and what it printed."""
    table = make_table(variants=(TORCH, INT8))
    environment = Environment("host", "machine", "3.12", {}, 1, (0,))
    for device in FLEET.devices:
        file = tmp_path / f"{device.name}.csv"
        rows = [dataclasses.replace(row, sqnr_db=30.0) for row in table.rows if row.device == device.name]
        save_table(file, Sidecar(device.name, CHAIN, environment, "2026-11-21", "none.jsonl"), rows)
    priced = tuple(dataclasses.replace(device, price_per_s=1.0) for device in FLEET.devices)
    save_fleet(dataclasses.replace(FLEET, devices=priced), tmp_path / "fleet.toml")
    monkeypatch.chdir(tmp_path)

    return edgecut


# Options -----------------------------------------------------------------------------------------------

amounts = st.integers(1, 10**6).map(lambda number: number / 1000)
places = st.builds(
    lambda device, start, length, whole: Placement(device, Bundle(start, start + length), whole),
    st.sampled_from(["edge", "server"]), st.integers(0, 9), st.integers(1, 9), st.booleans(),
)  # fmt: skip
by_device = st.dictionaries(st.sampled_from(["edge", "server"]), amounts)
some_limits = st.builds(
    Limits,
    max_latency_s=st.none() | amounts,
    max_energy_j=st.none() | amounts,
    min_sqnr_db=st.none() | amounts,
    max_period_s=st.none() | amounts,
    max_price=st.none() | st.just(0.0) | amounts,
    max_upload_bytes=st.none() | st.just(0.0) | st.integers(1, 10**11).map(float),
    max_memory_bytes=st.dictionaries(st.sampled_from(["edge", "server"]), st.integers(1, 10**11).map(float)),
    max_share=st.dictionaries(
        st.sampled_from(["edge", "server"]), st.floats(0.001, 1).map(lambda x: round(x, 6))
    ),
    max_bundles=st.none() | st.integers(1, 99),
    max_bundle_layers=st.integers(1, 99),
    ceil_rule=st.booleans(),
    once=st.booleans(),
    one_clock=st.booleans(),
    clocks_hz=st.dictionaries(
        st.sampled_from(["edge", "server"]), st.integers(1, 5000).map(lambda mhz: mhz * 1e6)
    ),
    private_layers=st.integers(0, 9),
    pins=st.lists(places, max_size=3, unique=True).map(tuple),
    forbidden=st.lists(places, max_size=3, unique=True).map(tuple),
    without_devices=st.lists(st.sampled_from(["cloud", "gpu"]), unique=True).map(tuple),
    without_links=st.lists(st.sampled_from(["edge->server", "server->edge"]), unique=True).map(tuple),
)


@given(some_limits)
def test_every_limit_can_be_asked_for(limits: Limits) -> None:
    """To the last bit: 24.1 ms is 0.0241 s, and 10000.000001 MB one byte more than 10 GB."""
    found = parsed(arguments(FLEET, limits))
    for field in dataclasses.fields(Limits):
        wanted = getattr(limits, field.name)
        assert getattr(found, field.name) == (
            pytest.approx(wanted, rel=1e-12) if isinstance(wanted, float) else wanted
        )


def test_no_limit_is_without_an_option() -> None:
    fields = {field.name for field in dataclasses.fields(Limits)}
    others = {
        "ceil_rule", "once", "one_clock", "clocks_hz", "pins", "forbidden", "without_devices", "without_links",
    }  # fmt: skip
    assert fields == KINDS.keys() | others


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latency", "latency"),
        ("period", "period"),
        ("latency=1,energy=0.5", {"latency": 1e3, "energy": 500.0}),
        ("price=2, upload=1", {"price": 2.0, "upload": 1e-6}),
    ],
)
def test_an_objective_is_a_name_or_weights_per_unit(text: str, wanted: object) -> None:
    assert Aim().convert(text, None, None) == wanted


@pytest.mark.parametrize(
    "text", ["speed", "latency=", "latency=-1", "latency=0", "latency=1,latency=2", "power=1", ""]
)
def test_an_objective_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Aim().convert(text, None, None)


def test_limits_given_twice_are_refused() -> None:
    with pytest.raises(InputError, match="--max-memory-mb is given twice for edge"):
        parsed([["--max-memory-mb", "edge=1"], ["--max-memory-mb", "edge=2"]])


BAD = [
    ("--max-latency-ms 0", "above 0"),
    ("--max-latency-ms -1", "above 0"),
    ("--max-latency-ms nan", "above 0 and finite"),
    ("--max-energy-mj inf", "above 0 and finite"),
    ("--max-energy-mj much", "'much' is no number"),
    ("--min-sqnr-db 0", "above 0"),
    ("--max-period-ms -2", "above 0"),
    ("--max-price -1", "at least 0"),
    ("--max-upload-mb -1", "at least 0"),
    ("--max-memory-mb edge", "write DEVICE=NUMBER"),
    ("--max-memory-mb edge=0", "above 0"),
    ("--max-memory-mb egde=1", "unknown device in the limits 'egde'"),
    ("--max-share edge=1.5", "at most 1"),
    ("--max-share edge=0", "above 0"),
    ("--max-share nobody=0.5", "unknown device in the limits 'nobody'"),
    ("--max-bundles 0", "--max-bundles"),
    ("--max-bundle-layers 0", "--max-bundle-layers"),
    ("--ceil-rule", "needs max_bundle_layers"),
    ("--clock edge=0", "above 0"),
    ("--clock edge=999", "edge was not measured at 999 MHz"),
    ("--clock nobody=1500", "unknown device in the limits 'nobody'"),
    ("--private-layers -1", "--private-layers"),
    ("--private-layers 4", "the chain has 3 layers"),
    ("--pin 7=edge", "7=edge: the chain has 3 layers"),
    ("--pin 2-1=edge", "layers count from 0"),
    ("--pin layer1", "places nothing"),
    ("--pin 1=nobody", "unknown device in the limits 'nobody'"),
    ("--pin 1=edge --pin 0-2=server", "contradict each other"),
    ("--pin [0,2)=edge --pin [1,3)=edge", "contradict each other"),
    ("--forbid [2,9)=edge", "the chain has 3 layers"),
    ("--without-device nobody", "unknown device in the limits 'nobody'"),
    ("--without-device edge", "is the source or the sink"),
    ("--without-link edge", "is no link"),
    ("--without-link edge->cloud", "unknown link in the limits 'edge->cloud'"),
    ("--objective speed", "latency=1,energy=0.5"),
    ("--objective latency=0", "every weight is 0"),
    ("--time-limit 0", "--time-limit"),
    ("--solver nothing", "unknown solver 'nothing'"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_answered(edgecut: Edgecut, words: str, says: str) -> None:
    code, said = edgecut("solve", *TABLES, *words.split())
    assert code == 2, said
    assert says in said
    assert not Path("plan.json").exists()


def test_a_solver_that_is_not_installed_is_an_error(edgecut: Edgecut) -> None:
    code, said = edgecut("solve", *TABLES, "--solver", "choco_cmd")
    assert code == 1
    assert "the solver choco_cmd is not installed here" in said
    assert "cbc" in said


# What is printed ---------------------------------------------------------------------------------------


def test_a_plan_is_printed_beside_its_limits(edgecut: Edgecut) -> None:
    words = "--max-latency-ms 50 --max-memory-mb edge=1 --max-price 0.0141 --once --objective energy"
    code, said = edgecut("solve", *TABLES, *words.split())
    assert code == 0, said
    plan = Plan.load(Path("plan.json"))
    assert plan.limits == parsed([part.split() for part in (
        "--max-latency-ms 50", "--max-memory-mb edge=1", "--max-price 0.0141", "--once",
    )])  # fmt: skip
    lines = {line.split("  ")[0].strip(): line for line in said.splitlines()}
    assert "price" in said
    for option in ("--max-latency-ms", "--max-memory-mb edge", "--max-price", "--once", "memory on server"):
        assert option in lines, said
    assert "kept" in lines["--once"]
    assert f"{plan.cost.latency_s * 1e3 / 50 * 100:.1f} %" in lines["--max-latency-ms"]


def test_a_limit_that_is_used_up_is_called_binding(edgecut: Edgecut) -> None:
    code, said = edgecut("solve", *TABLES, "--max-latency-ms", "18.1")
    assert code == 0
    assert "binding: 18.1 ms (max_latency)" in said


def test_a_weighted_sum_is_printed_as_it_was_given(edgecut: Edgecut) -> None:
    code, said = edgecut("solve", *TABLES, "--objective", "latency=1,energy=0.5")
    assert code == 0
    assert "least 1 latency + 0.5 energy" in said
    proof = Plan.load(Path("plan.json")).proof
    assert proof.weights == {"latency": 1e3, "energy": 500.0}
    assert proof.objective_value == pytest.approx(18.1 + 0.5 * 24.1)


def test_a_conflict_is_told_with_its_remedy(edgecut: Edgecut) -> None:
    code, said = edgecut("solve", *TABLES, "--pin", "0-2=edge", "--max-latency-ms", "20")
    assert code == 1
    assert "with --pin 0-2=edge the least latency is 30 ms" in said
    assert "leave out --pin 0-2=edge, or raise --max-latency-ms to 30 or more" in said
