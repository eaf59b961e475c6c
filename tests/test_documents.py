"""Chains, tables, sidecars and plans: what is written reads back the same, what is broken is refused."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import VARIANTS, chains, make_chain, make_row, plans, rows, sidecars

from planner.chain import Boundary, Bundle, Chain, TensorSpec
from planner.documents import from_data, read_json, to_data, unit_remedy, write_json
from planner.errors import DocumentError, MismatchError
from planner.fleet import Device, Fleet, Link
from planner.limits import Limits
from planner.plan import Cost, Hop, Outcome, Plan, Proof, Stage
from planner.sidecar import Environment, Sidecar
from planner.table import COLUMNS, ProfileRow, ProfileTable, format_row, header, parse_rows, without_codecs

# Round trips -----------------------------------------------------------------------------------------


@given(chains())
@settings(max_examples=50)
def test_chain_round_trip(chain: Chain) -> None:
    assert from_data(Chain, json.loads(json.dumps(to_data(chain))), "chain") == chain


@given(st.lists(rows, max_size=4, unique_by=lambda row: row.key))
def test_rows_round_trip(table: list[ProfileRow]) -> None:
    assert parse_rows(header() + "".join(map(format_row, table)), "t.csv") == table


@given(sidecars)
@settings(max_examples=50)
def test_sidecar_round_trip(tmp_path_factory: pytest.TempPathFactory, sidecar: Sidecar) -> None:
    file = tmp_path_factory.getbasetemp() / "sidecar.json"
    sidecar.save(file)
    assert Sidecar.load(file) == sidecar


@given(plans())
@settings(max_examples=50)
def test_plan_round_trip(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    file = tmp_path_factory.getbasetemp() / "plan.json"
    plan.save(file)
    assert Plan.load(file) == plan


# Plans -----------------------------------------------------------------------------------------------

CHAIN = make_chain([400, 300, 200, 100])
FLEET = Fleet(
    "edge",
    "edge",
    (Device("edge"), Device("server")),
    (Link("edge", "server", 1.0), Link("server", "edge", 1.0)),
)
COST = Cost(0.25, 0.0)


def stage(device: str, start: int, stop: int) -> Stage:
    return Stage(device, Bundle(start, stop), VARIANTS[0], COST)


def hop(boundary: int, *route: str) -> Hop:
    return Hop(boundary, route, "raw", 100, COST)


STAGES = (stage("edge", 0, 1), stage("server", 1, 3))
HOPS = (hop(1, "edge", "server"), hop(3, "server", "edge"))
PROOF = Proof(
    "CBC", Outcome.OPTIMAL, "latency", 1.0, 1.0, 0.0, 10, 5, {"build": 0.1}, "agrees", {"latency": 1.0}
)
PLAN = Plan(CHAIN, FLEET, 1, Limits(), STAGES, HOPS, Cost(1.0, 0.0), PROOF)


def test_devices_in_order_of_use() -> None:
    assert PLAN.devices == ("edge", "server")


@pytest.mark.parametrize(
    ("stages", "hops", "problem"),
    [
        ((stage("edge", 0, 1), stage("server", 2, 3)), HOPS, "gap: layers 1..1 are in no stage"),
        ((stage("edge", 0, 2), stage("server", 1, 3)), HOPS, "overlap: layer 1 is in two stages"),
        ((stage("edge", 0, 1),), (), "the stages end at layer 1 of 3"),
        ((stage("edge", 0, 4),), (), "the stages end at layer 4 of 3"),
        (STAGES, HOPS[:1], "boundary 3: the tensors are on server and wanted on edge"),
        (STAGES, HOPS[1:], "boundary 1: the tensors are on edge and wanted on server"),
        (STAGES, (HOPS[0], *HOPS), "two hops at one boundary"),
        ((stage("edge", 0, 3),), HOPS[:1], "hop at boundary 1, where no stage ends"),
        (STAGES, (hop(1, "edge", "moon", "server"), HOPS[1]), "the fleet has no link edge -> moon"),
    ],
)
def test_a_path_that_does_not_lead_through_is_refused(
    stages: tuple[Stage, ...], hops: tuple[Hop, ...], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(PLAN, stages=stages, hops=hops)


def broken(change: Callable[[Any], object]) -> str:
    """The plan's JSON after ``change`` had its way with it."""
    data = {"schema": "edgecut.plan/4", **to_data(PLAN)}
    change(data)
    return json.dumps(data)


FAULTS = {
    "unknown key": (broken(lambda d: d.update(extra=1)), "extra: unknown key 'extra'"),
    "unknown key within": (broken(lambda d: d["stages"][1].update(gpu=1)), "stages[1].gpu: unknown key 'gpu'"),
    "another unit": (broken(lambda d: d["stages"][0]["cost"].update(latency_ms=1)), "try: write latency_s, in seconds"),
    "missing key": (broken(lambda d: d.pop("proof")), "key 'proof' is missing"),
    "other schema": (broken(lambda d: d.update(schema="edgecut.plan/1")), "found 'edgecut.plan/1'"),
    "no schema": (broken(lambda d: d.pop("schema")), "no schema tag"),
    "text for a number": (broken(lambda d: d["cost"].update(energy_j="0")), "cost.energy_j"),
    "true for a number": (broken(lambda d: d.update(batch=True)), "batch"),
    "batch 0": (broken(lambda d: d.update(batch=0)), "batch must be 1 to"),
    "gap": (broken(lambda d: d["stages"][1]["bundle"].update(start=2)), "gap: layers 1..1"),
    "overlap": (broken(lambda d: d["stages"][0]["bundle"].update(stop=2)), "overlap: layer 1"),
    "empty bundle": (broken(lambda d: d["stages"][0]["bundle"].update(stop=0)), "is empty"),
    "no route": (broken(lambda d: d["hops"][0].update(route=["edge"])), "a route names at least two devices"),
    "unknown outcome": (broken(lambda d: d["proof"].update(outcome="fine")), "proof.outcome"),
    "unknown codec": (broken(lambda d: d["hops"][0].update(codec="zip")), "hops[0].codec"),
    "limit 0": (broken(lambda d: d["limits"].update(max_energy_j=0.0)), "max_energy_j must be above 0"),
    "NaN": (broken(lambda d: d["cost"].update(latency_s=float("nan"))), "cost.latency_s"),
    "infinite": (broken(lambda d: d["cost"].update(latency_s=float("inf"))), "cost.latency_s"),
    "truncated": (broken(lambda d: None)[:200], "not JSON"),
    "empty": ("", "not JSON"),
    "a list": ("[]", "expected a edgecut.plan/4 document, found list"),
    "deep": ("[" * 100_000, "is no document of ours"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), FAULTS.values(), ids=FAULTS.keys())
def test_a_broken_plan_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(DocumentError) as caught:
        Plan.load(file)
    assert str(caught.value).startswith(str(file))
    assert problem in str(caught.value)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DocumentError, match="cannot be read"):
        Plan.load(file)


# Tables ----------------------------------------------------------------------------------------------

ROW = make_row("edge", 0, 1, 0.01, energy_j=0.5)
LINE = format_row(ROW)


def altered(**cells: str) -> str:
    """A table of one row with some cells replaced."""
    values = dict(zip(COLUMNS, LINE.strip().split(","), strict=True)) | cells
    return header() + ",".join(values.values()) + "\n"


ROW_FAULTS = {
    "duplicate": (header() + 2 * LINE, "line 3: measures the same bundle as line 2"),
    "half-written row": (header() + LINE + LINE[:20], "line 3: the last row is half-written"),
    "short row": (header() + "edge,0,1\n", "line 2: expected 25 cells, found 3"),
    "no header": (LINE, "line 1: unknown column"),
    "empty": ("", "line 1: missing columns"),
    "other unit": (header().replace("latency_s", "latency_ms", 1), "write latency_s, in seconds"),
    "other order": ("start,device" + header().removeprefix("device,start"), "the columns are in another order"),
    "missing column": (header().replace(",energy_j", ""), "missing columns: energy_j"),
    "text": (altered(latency_s="fast"), "line 2, column latency_s: not a number: 'fast'"),
    "fraction": (altered(runs="1.5"), "line 2, column runs: not a number: '1.5'"),
    "flag": (altered(fused="2"), "line 2, column fused"),
    "NaN": (altered(latency_s="nan"), "line 2: latency_s"),
    "infinite": (altered(latency_p95_s="inf"), "line 2: latency_p95_s"),
    "NaN energy": (altered(energy_j="nan"), "line 2: energy_j"),
    "latency 0": (altered(latency_s="0"), "latency_s must be above 0"),
    "negative energy": (altered(energy_j="-1"), "energy_j must be at least 0"),
    "empty bundle": (altered(stop="0"), "is empty or starts below 0"),
    "batch 0": (altered(batch="0"), "batch must be 1 to"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), ROW_FAULTS.values(), ids=ROW_FAULTS.keys())
def test_a_broken_table_is_refused_by_line(text: str, problem: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_rows(text, "t.csv")
    assert str(caught.value).startswith("t.csv: line ")
    assert problem in str(caught.value)


@given(st.integers(1, len(LINE) - 1))
@settings(max_examples=25)
def test_repair_drops_only_a_half_written_last_row(length: int) -> None:
    other = dataclasses.replace(ROW, bundle=Bundle(0, 2))
    assert parse_rows(header() + format_row(other) + LINE[:length], "t.csv", repair=True) == [other]


def test_frame_has_the_columns_of_the_file() -> None:
    whole = dataclasses.replace(
        ROW, peak_memory_bytes=7, artifact_bytes=9, weight_bytes=1, energy_j=0.5, stable=True
    )
    rows = (whole, dataclasses.replace(ROW, device="server", energy_j=None, artifact_bytes=None))
    frame = ProfileTable(CHAIN, rows).frame()
    text = header() + "".join(map(format_row, rows))
    pd.testing.assert_frame_equal(frame, pd.read_csv(io.StringIO(text)), check_exact=True)
    assert tuple(frame.columns) == COLUMNS
    assert frame["device"].tolist() == ["edge", "server"]
    assert frame["energy_j"].isna().tolist() == [False, True]


def test_a_pattern_that_names_codecs_too_names_tables() -> None:
    named = ["a.csv", "a.codecs.csv", "b.codecs.csv"]
    assert without_codecs(named) == [Path("a.csv"), Path("b.codecs.csv")]


def test_missing_lists_the_bundles_without_a_row() -> None:
    table = ProfileTable(CHAIN, (ROW,))
    assert table.missing("edge", VARIANTS[0], 1) == [
        bundle for bundle in CHAIN.bundles() if bundle != Bundle(0, 1)
    ]
    assert len(table.missing("edge", VARIANTS[0], 2)) == 6


def save_table(file: Path, device: str, chain: Chain = CHAIN, row_device: str = "") -> Path:
    environment = Environment("host", "x86", "3.11", {}, 1, (0,))
    Sidecar(device, chain, environment, "now", "samples").save(file.with_suffix(".json"))
    row = dataclasses.replace(ROW, device=row_device or device)
    file.write_text(header() + format_row(row))
    return file


def test_tables_of_several_devices_join(tmp_path: Path) -> None:
    files = [save_table(tmp_path / f"{name}.csv", name) for name in ("edge", "server")]
    table = ProfileTable.load(files)
    assert [row.device for row in table.rows] == ["edge", "server"]
    assert table.chain == CHAIN


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    edge = save_table(tmp_path / "edge.csv", "edge")
    other = save_table(tmp_path / "other.csv", "server", dataclasses.replace(CHAIN, digest="f" * 64))
    with pytest.raises(MismatchError, match="was measured on net ffffffffffff"):
        ProfileTable.load([edge, other])
    with pytest.raises(MismatchError, match="both measure device 'edge'"):
        ProfileTable.load([edge, save_table(tmp_path / "again.csv", "edge")])
    with pytest.raises(MismatchError, match="no profile table"):
        ProfileTable.load([])
    with pytest.raises(DocumentError, match="device 'server' in a table of 'edge'"):
        ProfileTable.load([save_table(tmp_path / "mixed.csv", "edge", row_device="server")])
    short = make_chain([1, 1])
    file = save_table(tmp_path / "short.csv", "edge", short)
    file.write_text(header() + format_row(dataclasses.replace(ROW, bundle=Bundle(0, 2))))
    with pytest.raises(DocumentError, match=r"line 2: bundle \[0, 2\) of a chain of 1 layers"):
        ProfileTable.load([file])


# Chains and the machinery --------------------------------------------------------------------------


def test_wire_bytes_by_hand() -> None:
    """2 x 3 float32 and 5 bfloat16 for one sample are 24 + 10 bytes."""
    spec = Boundary((TensorSpec((1, 2, 3)), TensorSpec((1, 5), "bfloat16")))
    chain = dataclasses.replace(make_chain([1, 1]), boundaries=(spec, spec))
    assert (chain.wire_bytes(0), chain.wire_bytes(1, batch=4)) == (34, 136)
    assert spec.batched(4).nbytes == 136


def test_a_chain_has_one_boundary_more_than_layers() -> None:
    with pytest.raises(ValueError, match="3 layers need 4 boundaries, found 2"):
        dataclasses.replace(CHAIN, boundaries=CHAIN.boundaries[:2])


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("latency_ms", "write latency_s"),
        ("energy_mJ", "write energy_j"),
        ("frequency_mhz", "write frequency_hz"),
        ("link_gbps", "write link_bytes_per_s"),
        ("rate_bits_per_s", "write rate_bytes_per_s"),
        ("latency_s", ""),
    ],
)
def test_keys_in_other_units_are_recognised(key: str, remedy: str) -> None:
    assert unit_remedy(key).startswith(remedy)
    assert bool(unit_remedy(key)) == bool(remedy)


def test_a_failed_write_leaves_the_old_document(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_json(file, {"schema": "edgecut.plan/1"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"value": float("nan")})
    assert read_json(file, "edgecut.plan/1")
    assert list(tmp_path.iterdir()) == [file]
