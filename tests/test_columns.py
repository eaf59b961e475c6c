"""Tables as columns: they say what the rows say, the quick reader reads what the slow one reads, and what is
wrong or missing is named."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cases import CHAIN, FLEET, INT8, TORCH, make_table
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Instance, instances, make_chain, make_row, rows

from planner import table_reader
from planner.chain import Bundle, Chain
from planner.columns import Columns
from planner.cost import CostModel, noise_of
from planner.errors import DocumentError, InfeasibleError, InputError, MismatchError, PlanningError
from planner.limits import Limits
from planner.measured import measured, times_of
from planner.plan import Plan, Variant
from planner.sidecar import Environment, LeftOut, Sidecar
from planner.solver import solve
from planner.suspicious import suspicious
from planner.table import ProfileRow, ProfileTable, format_row, header, parse_rows, save_table
from planner.table_reader import read_columns
from runtime.cli import main

tables = st.lists(rows, max_size=5, unique_by=lambda row: row.key)


# Columns -----------------------------------------------------------------------------------------------


@given(tables)
def test_columns_of_rows_give_the_rows_back(table: list[ProfileRow]) -> None:
    assert Columns.of(table).rows() == tuple(table)


@given(st.lists(tables, max_size=3))
def test_joined_columns_are_the_rows_one_after_the_other(parts: list[list[ProfileRow]]) -> None:
    joined = Columns.joined([Columns.of(part) for part in parts])
    every = [row for part in parts for row in part]
    assert joined.rows() == tuple(every)
    assert joined.devices == tuple(dict.fromkeys(row.device for row in every))
    assert joined.variants == tuple(dict.fromkeys(row.variant for row in every))


def test_a_table_is_given_as_rows_or_as_columns() -> None:
    plain = make_table()
    other = ProfileTable(CHAIN, Columns.of(plain.rows), codecs=())
    assert "rows" not in vars(other)
    assert other.rows == plain.rows
    assert other.rows is other.rows
    assert dataclasses.replace(other, left_out={}).rows == plain.rows
    with pytest.raises(TypeError, match="rows"):
        ProfileTable(CHAIN)


# Reading -----------------------------------------------------------------------------------------------

CELLS = (
    "nan", "NaN", "inf", "-inf", "1e400", "", " ", "0x10", " 0X1F", "+1", "1_0", " 1", "1 ", "\t1", "-0", "007", "1.",
    "1.0", ".5", "1e3", '"1"', '1"', "٣", "\x00", "true", "0", "1", "-1", "2", "1e-13", "1e7", "NA", "null",
    "9223372036854775808", "4611686018427387905", "edge", "edge,", "\n", "\r", "\r\n", "é", "\udcff", "1000001",
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A table of device "edge", often damaged in a cell, a line or a character."""
    table = [dataclasses.replace(row, device="edge") for row in draw(tables)]
    lines = [format_row(row) for row in {row.key: row for row in table}.values()]
    if lines and draw(st.booleans()):
        place = draw(st.integers(0, len(lines) - 1))
        cells = lines[place].rstrip("\n").split(",")
        cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(CELLS))
        lines[place] = ",".join(cells) + "\n"
    if lines and draw(st.integers(0, 3)) == 0:
        lines.insert(
            draw(st.integers(0, len(lines))), draw(st.sampled_from([lines[0], "\n", " \n", "a,b\n"]))
        )
    text = header() + "".join(lines)
    if draw(st.integers(0, 3)) == 0:
        text = text.replace("\n", draw(st.sampled_from(["\r\n", "\r", "\n\n", "\n\r"])))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from(["", ",", "\n", '"', "x", " "]))
            + text[at + draw(st.integers(0, 1)) :]
        )
    if draw(st.integers(0, 3)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


def read(file: Path, text: str) -> tuple[ProfileRow, ...] | str:
    """What the reader makes of a text: rows, or what it says."""
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    try:
        return read_columns(file, "edge", 300).rows()
    except DocumentError as error:
        return error.message


def slowly(file: Path) -> tuple[ProfileRow, ...] | str:
    """The same, row by row."""
    try:
        found = parse_rows(file.read_text(encoding="utf-8"), file)
    except UnicodeDecodeError as error:
        return f"{file}: cannot be read: {error}"
    except DocumentError as error:
        return error.message
    for number, row in enumerate(found, start=2):
        if row.device != "edge":
            return f"{file}: line {number}: device {row.device!r} in a table of 'edge'"
        if row.bundle.stop > 300:
            return f"{file}: line {number}: bundle {row.bundle} of a chain of 300 layers"
    for name in ("latency_s", "latency_median_s", "latency_p95_s"):
        for number, row in enumerate(found, start=2):
            if not 1e-12 <= getattr(row, name) <= 1e6:
                return (
                    f"{file}: line {number}, column {name}: {getattr(row, name):g} s is no time of a bundle"
                )
    return tuple(found)


@given(texts())
@settings(max_examples=100)
def test_the_quick_reader_agrees_with_the_row_parser(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "edge.csv"
    found, expected = read(file, text), slowly(file)
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert found.startswith(expected)
    else:
        assert found == expected


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "column", ["device", "start", "frequency_hz", "fused", "runs", "latency_s", "energy_j"]
)
def test_both_parsers_take_and_refuse_the_same_cells(tmp_path: Path, cell: str, column: str) -> None:
    names = header().strip().split(",")
    cells = dict(
        zip(names, format_row(make_row("edge", 0, 1, 0.5, energy_j=0.5)).strip().split(","), strict=True)
    )
    file = tmp_path / "edge.csv"
    found = read(file, header() + ",".join((cells | {column: cell}).values()) + "\n")
    expected = slowly(file)
    assert found == expected or str(found).startswith(str(expected))


@given(tables.filter(bool))
@settings(max_examples=20)
def test_a_sound_table_is_not_parsed_by_row(
    tmp_path_factory: pytest.TempPathFactory, table: list[ProfileRow]
) -> None:
    """Also across blocks, and with clocks and optional cells that are empty."""
    file = tmp_path_factory.getbasetemp() / "quick.csv"
    file.write_text(header() + "".join(map(format_row, table)), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_reader, "_SCAN_BYTES", 64)
        parsed = table_reader._parsed(file)
    assert parsed is not None
    assert parsed[0].rows() == tuple(table)
    assert not parsed[1].any()


def write(
    folder: Path,
    device: str,
    table: Sequence[ProfileRow],
    chain: Chain = CHAIN,
    left_out: Sequence[LeftOut] = (),
) -> Path:
    environment = Environment("host", "x86", "3.11", {}, 1, (0,))
    sidecar = Sidecar(device, chain, environment, "now", "samples", left_out=tuple(left_out))
    save_table(folder / f"{device}.csv", sidecar, table)
    return folder / f"{device}.csv"


def test_a_table_from_files_is_solved_without_building_its_rows(tmp_path: Path) -> None:
    plain = make_table(variants=(TORCH, INT8))
    names = ("edge", "server", "cloud")
    files = [write(tmp_path, name, [row for row in plain.rows if row.device == name]) for name in names]
    table = ProfileTable.load(files)
    plan = solve(CHAIN, FLEET, table, objective="latency")
    assert "rows" not in vars(table)
    assert plan.cost == solve(CHAIN, FLEET, plain, objective="latency").cost
    assert table.rows == plain.rows


def edited(file: Path, line: int, **cells: str) -> None:
    """Replace cells of one line of a table; a time brings its throughput."""
    lines = file.read_text().splitlines()
    values = dict(zip(lines[0].split(","), lines[line - 1].split(","), strict=True)) | cells
    if "latency_s" in cells and float(values["latency_s"]):
        values["samples_per_s"] = str(int(values["batch"]) / float(values["latency_s"]))
    lines[line - 1] = ",".join(values.values())
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("latency_s", "nan", "line 3: latency_s"),
        ("latency_median_s", "0.0", "line 3: latency_median_s must be above 0 and finite, found 0.0"),
        ("latency_p95_s", "-1.0", "line 3: latency_p95_s must be above 0 and finite, found -1.0"),
        ("latency_s", "inf", "line 3: latency_s"),
        ("energy_j", "-inf", "line 3: energy_j"),
        ("peak_memory_bytes", "-1", "line 3: peak_memory_bytes must be at least 0"),
        ("latency_s", "2000000.0", "line 3, column latency_s: 2e+06 s is no time of a bundle"),
        ("latency_p95_s", "1e-13", "line 3, column latency_p95_s: 1e-13 s is no time of a bundle"),
    ],
)
def test_bad_values_are_counted_and_named(tmp_path: Path, column: str, cell: str, says: str) -> None:
    file = write(
        tmp_path, "edge", [row for row in make_table(variants=(TORCH, INT8)).rows if row.device == "edge"]
    )
    for line in (3, 5, 6, 8, 9):
        edited(file, line, **{column: cell})
    with pytest.raises(DocumentError) as caught:
        ProfileTable.load([file])
    assert says in caught.value.message
    assert f"; 5 rows hold such {'times' if 'no time' in says else 'values'}: " in caught.value.message
    assert caught.value.message.endswith(
        f"{file} line 3 ([0, 2) torch fp32), {file} line 5 ([1, 2) torch fp32), "
        f"{file} line 6 ([1, 3) torch fp32) and 2 more"
    )


def test_a_repeated_row_and_an_edited_throughput_are_refused(tmp_path: Path) -> None:
    table = [row for row in make_table().rows if row.device == "edge"]
    file = write(tmp_path, "edge", [*table, table[2]])
    with pytest.raises(DocumentError, match="line 8: measures the same bundle as line 4"):
        ProfileTable.load([file])
    file = write(tmp_path, "edge", table)
    edited(file, 4, samples_per_s="7.0")
    with pytest.raises(DocumentError, match=r"line 4, column samples_per_s: 7\.0 is not batch / latency_s"):
        ProfileTable.load([file])


def test_tables_of_other_models_and_batches_do_not_mix(tmp_path: Path) -> None:
    edge = write(tmp_path, "edge", [row for row in make_table(batch=1).rows if row.device == "edge"])
    server = write(tmp_path, "server", [row for row in make_table(batch=8).rows if row.device == "server"])
    with pytest.raises(InputError, match="several batch sizes: 1, 8"):
        solve(CHAIN, FLEET, ProfileTable.load([edge, server]), objective="latency")
    other = dataclasses.replace(CHAIN, digest="e" * 64)
    server = write(tmp_path, "server", make_table(other, devices=["server"]).rows, other)
    with pytest.raises(MismatchError, match=r"server\.csv was measured on net eeeeeeeeeeee"):
        ProfileTable.load([edge, server])
    with pytest.raises(MismatchError, match=r"server \[2, 3\) torch fp32, batch 1 lies outside a chain of 2"):
        CostModel.of(make_chain([1, 1, 1]), FLEET, [make_row("server", 2, 3, 0.1)], 1)


# The cost model's arrays -------------------------------------------------------------------------------


@given(instances(), st.lists(st.integers(0, 99)), st.randoms())
@settings(max_examples=24)
def test_every_bundle_is_priced_as_its_row_says(instance: Instance, other: list[int], numbers) -> None:
    """From rows and from columns, in any order, with rows of another batch and memory known of some."""
    chain, table = instance.chain, list(instance.table.rows)
    table = [
        dataclasses.replace(
            row,
            peak_memory_bytes=numbers.choice([None, 5000]),
            weight_bytes=numbers.choice([None, 70]),
            max_error=numbers.choice([None, 0.0, 0.5]),
        )
        for row in table
    ]
    mixed = [
        *table,
        *(dataclasses.replace(table[k], batch=3) for k in dict.fromkeys(other) if k < len(table)),
    ]
    numbers.shuffle(mixed)
    left_out = instance.table.left_out
    model = CostModel.of(chain, instance.fleet, mixed, 1, left_out)
    again = CostModel.of(chain, instance.fleet, Columns.of(mixed), 1, left_out)
    for name in ("latency_s", "energy_j", "noise", "memory_bytes"):
        np.testing.assert_array_equal(getattr(model, name), getattr(again, name))
    assert (model.ways, model.unrated, model.active_power_w) == (
        again.ways,
        again.unrated,
        again.active_power_w,
    )

    unrated = set()
    expected = np.full((4, *model.latency_s.shape), np.inf)
    expected[:, :, ~np.triu(np.ones(expected.shape[2:], dtype=bool), k=1)] = np.nan
    for row in table:
        noise, start, stop = 0.0, row.bundle.start, row.bundle.stop
        if row.variant.precision != "fp32" and (row.sqnr_db is not None or row.max_error != 0):
            noise = 1.0 if row.sqnr_db is None else noise_of(row.sqnr_db)
            if row.sqnr_db is None:
                unrated.add((row.device, row.variant))
        weights = 4 * len(row.bundle) if row.weight_bytes is None else row.weight_bytes
        memory = weights + chain.wire_bytes(start) + chain.wire_bytes(stop)
        place = model.ways.index((row.device, row.variant)), start, stop
        energy = model.energy_j[place]
        expected[(slice(None), *place)] = row.latency_s, energy, noise, row.peak_memory_bytes or memory
        waiting = [d.idle_power_w for d in instance.fleet.devices if d.battery and d.name != row.device]
        device = instance.fleet.device(row.device)
        own = row.energy_j if row.energy_j is not None else (device.active_power_w or 0.0) * row.latency_s
        assert energy == pytest.approx(own * device.battery + sum(waiting) * row.latency_s)
    found = np.stack([model.latency_s, model.energy_j, model.noise, model.memory_bytes])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert set(model.unrated) == unrated
    devices = [way.device for way in model.ways]
    assert devices == sorted(devices, key=devices.index)


def test_the_ways_of_a_device_stand_together_in_order_of_appearance() -> None:
    table = [
        make_row(*each, 0, 1, 0.1, variant=kind) for *each, kind in (("b", INT8), ("a", TORCH), ("b", TORCH))
    ]
    found = measured(make_chain([1, 1]), Columns.of(table), 1)
    assert found.ways == (("b", INT8), ("b", TORCH), ("a", TORCH))


def test_power_is_what_was_metered_over_all_rows() -> None:
    table = [make_row("edge", 0, 1, 0.5, energy_j=1.0), make_row("edge", 1, 2, 1.5, energy_j=5.0)]
    columns = Columns.of([*table, make_row("edge", 0, 2, 9.0), make_row("server", 0, 1, 1.0)])
    assert measured(make_chain([1, 1, 1]), columns, 1, incomplete=["server"]).metered_w == {"edge": 3.0}


@pytest.mark.parametrize(
    ("statistic", "seconds"),
    [("mean", 1.0), ("median", 0.9), ("p95", 1.5), ("mean+2std", 1.5), ("mean + .5std", 1.125)],
)
def test_statistics_by_hand(statistic: str, seconds: float) -> None:
    row = dataclasses.replace(
        make_row("edge", 0, 1, 1.0), latency_median_s=0.9, latency_p95_s=1.5, latency_std_s=0.25
    )
    assert times_of(Columns.of([row]), statistic).tolist() == [seconds]
    table = ProfileTable(make_chain([1, 1]), (row,))
    plan = solve(
        table.chain, dataclasses.replace(FLEET, links=()), table, objective="latency", statistic=statistic
    )
    assert plan.cost.latency_s == seconds
    assert plan.cost.energy_j == pytest.approx(2.0 * seconds)


@pytest.mark.parametrize("statistic", ["", "max", "mean+std", "mean-1std", "mean+nanstd", "p99"])
def test_an_unknown_statistic_is_refused(statistic: str) -> None:
    with pytest.raises(InputError, match="is no statistic"):
        solve(CHAIN, FLEET, make_table(), objective="latency", statistic=statistic)


# Suspicious rows ---------------------------------------------------------------------------------------


def test_sound_rows_are_not_suspicious() -> None:
    assert suspicious(make_table(variants=(TORCH, INT8)).columns) == ()
    assert suspicious(Columns.of([])) == ()


TIMES = ("latency_s", "latency_median_s", "latency_p95_s")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"latency_s": 20.0}, "differ more than 300 times"),
        ({"latency_p95_s": 20.0}, "differ more than 300 times"),
        (dict.fromkeys(TIMES, 20.0), "more than 300 times as long as"),
        (dict.fromkeys(TIMES, 2e-5), "less than a 300th of its"),
        (dict.fromkeys(TIMES, 5e-10), "less than a nanosecond"),
        (dict.fromkeys(TIMES, 2e6), "longer than eleven days"),
    ],
)
def test_suspicious_rows_are_named_in_the_plan(change: dict[str, float], says: str) -> None:
    """The edge's [0, 3), of which each layer takes 10 ms, is edited."""
    rows = [
        dataclasses.replace(row, **change) if (row.device, row.bundle) == ("edge", Bundle(0, 3)) else row
        for row in make_table().rows
    ]
    notes = solve(CHAIN, FLEET, ProfileTable(CHAIN, tuple(rows)), objective="latency").notes
    found = [note for note in notes if says in note]
    assert len(found) == 1
    assert found[0].startswith("1 suspicious row: ")
    assert found[0].endswith("edge [0, 3) torch fp32, batch 1")


def test_a_bundle_is_compared_only_with_layers_of_its_own_way() -> None:
    table = [make_row("edge", k, k + 1, 1e-6) for k in range(2)]
    table += [make_row("edge", 0, 2, 1.0, variant=INT8), make_row("edge", 0, 2, 1.0, batch=2)]
    table += [make_row("server", 0, 2, 1.0), make_row("server", 0, 1, 1e-6)]
    assert suspicious(Columns.of(table)) == ()


# Tables that lack bundles --------------------------------------------------------------------------------


def without(table: ProfileTable, *missing: tuple[str, int, int]) -> ProfileTable:
    kept = [row for row in table.rows if (row.device, row.bundle.start, row.bundle.stop) not in missing]
    return ProfileTable(table.chain, kept)


def test_a_partial_plan_by_hand() -> None:
    """The best plan, 18.1 ms, ends in the server's [1, 3). Without it: edge [0, 1) 10 ms, 4 kB up 4, server [1, 2) 2,
    3 kB on 3, cloud [2, 3) 1.9, and 100 B down twice 0.1. [1, 3) takes 2 ms or more: 16.1 ms at best."""
    table = without(make_table(), ("server", 1, 3), ("cloud", 0, 1))
    with pytest.raises(PlanningError) as caught:
        solve(CHAIN, FLEET, table, objective="latency")
    assert "server, torch fp32, batch 1: 1 of 6 bundles are not measured, the first is [1, 3)" in str(
        caught.value
    )
    assert "`edgecut profile net --device server ...`" in caught.value.remedy
    assert "--partial" in caught.value.remedy
    plan = solve(CHAIN, FLEET, table, objective="latency", partial=True)
    assert plan.cost.latency_s == pytest.approx(0.0211)
    assert plan.notes == (
        "2 of 18 bundles are missing and not used (1 of server, torch fp32; 1 of cloud, torch fp32); "
        "`edgecut profile net --device server ...` and its like measure them; measuring them lowers the objective "
        "by at most 23.7%, if no bundle costs less than one inside it",
    )


def test_a_complete_table_has_nothing_to_gain() -> None:
    plan = solve(CHAIN, FLEET, make_table(), objective="latency", partial=True)
    assert plan.notes == ()
    plan = solve(CHAIN, FLEET, without(make_table(), ("cloud", 0, 2)), objective="latency", partial=True)
    assert "measuring them gains nothing, if no bundle costs less" in plan.notes[0]


def test_without_any_way_through_the_missing_bundles_are_named() -> None:
    table = without(make_table(devices=["edge"]), ("edge", 0, 3), ("edge", 0, 1))
    with pytest.raises(PlanningError, match="do not join into a whole network; 2 of 6 bundles are missing"):
        solve(CHAIN, FLEET, table, objective="latency", partial=True)
    table = without(make_table(), ("server", 1, 3))
    with pytest.raises(InfeasibleError, match="1 of 18 bundles are missing"):
        solve(CHAIN, FLEET, table, objective="latency", limits=Limits(max_latency_s=0.02), partial=True)


@given(instances(), st.sampled_from(["latency", "energy"]), st.floats(0.1, 0.7), st.randoms())
@settings(max_examples=24)
def test_the_gain_is_never_less_than_what_measuring_brings(instance, objective, share, numbers) -> None:
    """On tables that keep the assumption: times by length and per way, powers by device."""
    speed: dict[tuple[str, Variant], float] = {}
    whole = [
        dataclasses.replace(
            row,
            latency_s=len(row.bundle)
            * speed.setdefault((row.device, row.variant), numbers.uniform(1e-3, 2e-2)),
            energy_j=None,
        )
        for row in instance.table.rows
    ]
    kept = [row for row in whole if numbers.random() > share]
    full = ProfileTable(instance.chain, tuple(whole), left_out=instance.table.left_out)
    some = ProfileTable(instance.chain, tuple(kept), left_out=instance.table.left_out)
    try:
        plan = solve(instance.chain, instance.fleet, some, objective=objective, partial=True)
    except PlanningError:
        return
    ways = {(row.device, row.variant) for row in kept}
    rows_of_ways = [row for row in full.rows if (row.device, row.variant) in ways]
    best = solve(
        instance.chain, instance.fleet, ProfileTable(instance.chain, tuple(rows_of_ways), left_out=full.left_out),
        objective=objective,
    )  # fmt: skip
    found, least = plan.proof.objective_value, best.proof.objective_value
    said = [note for note in plan.notes if "are missing" in note]
    assert bool(said) == (len(kept) < len(rows_of_ways))
    assert least <= found * (1 + 1e-9)
    most = re.search(r"at most ([\d.]+)%", said[0]) if said else None
    assert found * (1 - (float(most[1]) + 0.05) / 100 if most else 1) <= least * (1 + 1e-9)


def test_what_is_left_out_is_not_missing() -> None:
    entry = LeftOut(Bundle(1, 3), TORCH, 1, "an operator is missing")
    table = dataclasses.replace(without(make_table(), ("server", 1, 3)), left_out={"server": (entry,)})
    assert not any("missing and" in note for note in solve(CHAIN, FLEET, table, partial=True).notes)


def test_solve_partial_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = 'schema = "edgecut.fleet/1"\nsource = "edge"\n[device.edge]\n'
    (tmp_path / "fleet.toml").write_text(fleet)
    table = without(make_table(devices=["edge"]), ("edge", 0, 2))
    file, plan = write(tmp_path, "edge", table.rows), tmp_path / "plan.json"
    command = [
        "edgecut",
        "solve",
        "--profiles",
        str(file),
        "--fleet",
        str(tmp_path / "fleet.toml"),
        "-o",
        str(plan),
    ]
    codes = []
    for options in ([], ["--partial"]):
        monkeypatch.setattr("sys.argv", [*command, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        codes.append(ended.value.code or 0)
    out, err = capsys.readouterr()
    assert codes == [1, 0]
    assert "or plan over what is there with --partial" in err
    assert "1 of 6 bundles are missing" in out
    assert math.isclose(Plan.load(plan).cost.latency_s, 0.03)
