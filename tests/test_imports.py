"""Other tools' files: what is read from them equals what they hold, and what is wrong in them is said."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import pickle
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.chain import Bundle
from planner.cost import CostModel
from planner.errors import EdgecutError, InputError, MismatchError
from planner.fleet import Device, Fleet
from planner.fleet_file import parse_fleet
from planner.imports.dime import custom_network, read_dime
from planner.imports.dime_networks import NETWORKS
from planner.imports.result import PREFIX, foreign_chain, plain_layer, save
from planner.imports.scission import read_scission
from planner.imports.scission_pickle import read_benchmarks
from planner.imports.units import infer_frequency, infer_time_unit
from planner.solver import solve
from planner.table import ProfileTable
from runtime.cli import cli

ALEXNET = NETWORKS["alexnet"]
SCISSION = ("densenet121", "inception_v3", "mobilenetv2", "nasnetmobile", "resnet101v2", "resnet152", "resnet50",
            "vgg19", "xception")  # fmt: skip


def every_bundle(network=ALEXNET):
    layers = range(len(network.layers) + 1)
    return [Bundle(a, b) for a, b in itertools.combinations(layers, 2)]


def joined(bundle: Bundle, network=ALEXNET) -> str:
    return network.separator.join(network.layers[bundle.start : bundle.stop])


def dime_csv(file: Path, rows: list[tuple[str, object]], columns: str = ",layers,durs") -> Path:
    with file.open("w", newline="") as stream:
        stream.write(columns + "\n")
        csv.writer(stream).writerows((number, *row) for number, row in enumerate(rows))
    return file


def table_of(found) -> ProfileTable:
    return ProfileTable(
        found.chain,
        tuple(row for table in found.tables for row in table.rows),
        left_out={table.device: table.left_out for table in found.tables},
    )


# DIME ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ns", 1e-9), ("ms", 1e-3)])
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_a_table_written_as_dime_writes_it_comes_back(tmp_path_factory, unit, scale, seed) -> None:
    """Rows in any order: the order is the network's. A unit that the bounds cannot tell is asked for."""
    folder, numbers = tmp_path_factory.mktemp("dime"), random.Random(seed)
    wanted = {bundle: [numbers.uniform(1e-3, 1e-1) for _ in range(20)] for bundle in every_bundle()}
    rows = [(joined(bundle), value / scale) for bundle, values in wanted.items() for value in values]
    numbers.shuffle(rows)
    found = read_dime([dime_csv(folder / "nano_691200000.csv", rows)], "nano", unit=unit)
    (table,) = found.tables
    assert [row.bundle for row in table.rows] == every_bundle()
    assert found.used == len(rows)
    assert not found.refused
    for row in table.rows:
        kept = sorted(wanted[row.bundle])[2:-2]  # 10 % at each end, by rank
        assert row.latency_s == pytest.approx(sum(kept) / 16)
        assert row.variant.frequency_hz == 691.2e6
        assert sorted(table.samples_s[row.key]) == pytest.approx(sorted(wanted[row.bundle]))


def test_an_import_is_a_profile_table_on_disk(tmp_path: Path) -> None:
    lists = [
        (joined(bundle), [0.01 * len(bundle)] * 21) for bundle in every_bundle() if bundle != Bundle(2, 5)
    ]
    found = read_dime([dime_csv(tmp_path / "nano.csv", lists)], "nano")
    (file,) = save(found, tmp_path / "out")
    loaded = ProfileTable.load([file])
    assert loaded.chain.source.name == "import:dime:alexnet"
    assert [layer.name for layer in loaded.chain.layers] == list(ALEXNET.layers)
    assert loaded.rows == found.tables[0].rows
    assert [entry.bundle for entry in loaded.left_out["nano"]] == [Bundle(2, 5)]
    lines = [json.loads(line) for line in file.with_suffix(".samples.jsonl").read_text().splitlines()]
    assert len(lines) == len(loaded.rows)
    assert all(len(line["latency_s"]) == 21 for line in lines)
    fleet = Fleet("nano", "nano", (Device("nano"),), ())
    assert solve(loaded.chain, fleet, loaded, objective="latency").cost.latency_s == pytest.approx(0.08)
    save(found, tmp_path / "out")  # again: an import replaces an import


def test_what_was_measured_is_never_replaced(tmp_path: Path) -> None:
    found = read_dime([dime_csv(tmp_path / "n.csv", [(joined(b), 0.01) for b in every_bundle()])], "nano")
    (file,) = save(found, tmp_path / "out")
    document = file.with_suffix(".json")
    document.write_text(document.read_text().replace(f"{PREFIX}dime:alexnet", "alexnet"))
    before = file.read_bytes()
    with pytest.raises(MismatchError, match="is no imported table"):
        save(found, tmp_path / "out")
    assert file.read_bytes() == before


def test_wrong_rows_are_counted_and_said(tmp_path: Path) -> None:
    wrong = {
        "conv1_conv3": (0.01, "do not follow each other"),
        "fc1_conv5": (0.01, "do not follow each other"),
        "conv9": (0.01, "no layer 'conv9'"),
        "": (0.01, "no layer ''"),
        "conv1": ("", "not a number"),
        "conv2": ("nan", "not a number"),
        "conv3": (-0.5, "not above 0"),
        "conv4": ("[0.01, __import__('os').system('true')]", "no list of numbers"),
        "conv5": ("[]", "empty list"),
        "fc1": ("[" * 5000, "no list of numbers"),
        "fc2": (5e4, "5e+04 s in s"),
        "fc3": ("[0.01, True]", "not a number"),
    }
    rows = [(joined(bundle), 0.01) for bundle in every_bundle()]
    rows += [(name, value) for name, (value, _) in wrong.items()]
    file = dime_csv(tmp_path / "nano.csv", rows)
    found = read_dime([file], "nano", unit="s")
    assert len(found.tables[0].rows) == 36
    assert len(found.refused) == len(wrong)
    for _, reason in wrong.values():
        assert any(reason in entry for entry in found.refused), (reason, found.refused)
    result = CliRunner().invoke(
        cli, ["import", "dime", str(file), "--device", "nano", "--unit", "s", "-o", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert f"{len(wrong)} entries were not used" in result.output
    assert "... and 7 more" in result.output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "no column layers and durs"),
        ("a,b\n1,2\n", "no column layers and durs"),
        (",layers,durs\n0,conv1,-1\n", "no network that DIME profiles"),
        (",layers,durs\n0,who_knows,0.01\n", "no network that DIME profiles"),
        (",layers,durs\n0,conv1,0.01\n", "alexnet and vgg11 alike|vgg11 and alexnet alike"),
        (",layers,durs\n0,conv5_fc1,1e-9\n1,fc1,1e12\n", "fit no unit"),
    ],
)
def test_a_file_that_is_no_timing_file_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=problem):
        read_dime([file], "nano")


def test_vit_layers_may_be_abbreviated_and_other_networks_described(tmp_path: Path) -> None:
    vit = NETWORKS["vit_b_16"]
    rows = [(joined(b, vit).replace("encoder_layer", "enc_layer"), 0.02) for b in every_bundle(vit)]
    found = read_dime([dime_csv(tmp_path / "vit.csv", rows)], "nano")
    assert found.chain.source.name == "import:dime:vit_b_16"
    assert len(found.tables[0].rows) == 16 * 17 // 2
    assert found.chain.wire_bytes(10) == 197 * 768 * 4
    mine = custom_network("mine", ["a", "b"], [10, 20, 4], "_")
    assert (
        len(
            read_dime([dime_csv(tmp_path / "m.csv", [("a_b", 0.1), ("b", 0.1)])], "x", network=mine)
            .tables[0]
            .rows
        )
        == 2
    )
    with pytest.raises(InputError, match="2 layers have 3 boundaries"):
        custom_network("mine", ["a", "b"], [10, 20], "_")


def test_units_are_told_by_timestamps_then_by_bounds() -> None:
    assert infer_time_unit([0.5, 0.6], [(1.1, 1.2)], [])[0] == "s"
    assert infer_time_unit([0.5, 0.6], [(1.1, 0.0012)], [])[0] == "ms"
    assert infer_time_unit([5e5], [(5e5, 0.001)], [])[0] == "ns"
    assert infer_time_unit([5e7, 3e8], [], []) == (
        "ns",
        "ns: the only one of s, ms and ns where a bundle takes 1 us to 1000 s",
    )
    assert infer_time_unit([0.0002, 0.9], [], [])[0] == "s"
    unit, why = infer_time_unit([0.1, 0.4, 1.9], [], [0.1, 0.4])
    assert unit == "ms"
    assert "assumed" in why
    assert "--unit s" in why
    assert [infer_frequency(v) for v in (691200000, 1200000, 1.512e6, -1)] == [691.2e6, 1.2e9, 1.512e9, None]
    for wrong in (0, 5, 1e12, -7):
        with pytest.raises(ValueError, match="neither Hz nor kHz"):
            infer_frequency(wrong)


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize("kept", ["each run", "lists", "iterations"])
def test_the_unit_shows_in_the_timestamps(tmp_path: Path, unit: str, kept: str) -> None:
    """60 ms a layer, which as numbers alone could be s as well as ms."""
    scale, rows, now = {"s": 1.0, "ms": 1e3, "ns": 1e9}[unit], [], 1.7e9
    for bundle in every_bundle():
        spent = 0.06 * len(bundle)
        starts = [now + k * spent * 1.1 for k in range(5)]
        ends = [start + spent for start in starts]
        now = ends[-1] + 1
        name, durs = joined(bundle), [spent * scale] * 5
        if kept == "each run":
            times = zip(starts, ends, strict=True)
            rows += [(name, durs[0], int(start * 1e9), int(end * 1e9)) for start, end in times]
        elif kept == "lists":
            rows.append((name, durs, starts, ends))
        else:
            rows += [(name, value, starts[0], ends[-1]) for value in durs]
    columns = ",layers,durs,iter_start,iter_end" if kept == "iterations" else ",layers,durs,starts,ends"
    found = read_dime([dime_csv(tmp_path / "x.csv", rows, columns)], "nano")
    assert found.tables[0].rows[0].latency_s == pytest.approx(0.06)
    assert f"durs are in {unit}: the longest unit" in found.notes[0]


@pytest.mark.parametrize(
    ("clocks", "scale"), [((691200000, 921600000), 1), ((1200000, 667000), 1e3), ((-1,), 0)]
)
def test_energy_and_clocks_come_from_parquet(tmp_path: Path, clocks, scale) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    records = [
        {
            "layers": joined(bundle),
            "frequency": clock,
            "durs": 0.003 * len(bundle),
            "iter": k,
            "run": k,
            "run_energy": energy,
        }
        for bundle in every_bundle()
        for clock in clocks
        for k, energy in ((1, 7e4), (2, 1000.0), (3, 3000.0), (4, 0.0))
    ]
    file = tmp_path / "latency_and_energy.parquet"
    pd.DataFrame(records).to_parquet(file)
    found = read_dime([file], "nano", skip_iterations=1)
    rows = found.tables[0].rows
    wanted = {clock * scale if scale else None for clock in clocks}
    assert {row.variant.frequency_hz for row in rows} == wanted
    assert len(rows) == 36 * len(clocks)
    assert [row.energy_j for row in rows] == pytest.approx(
        [2e-3] * len(rows)
    )  # 1000 and 3000 uJ; 0 uJ is a dead meter
    assert {row.runs for row in rows} == {3}
    assert sum("not above 1 uJ" in entry for entry in found.refused) == len(rows)
    file.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(InputError, match="no readable Parquet"):
        read_dime([file], "nano")


def test_the_hop_of_dimes_example_costs_what_its_constants_say() -> None:
    """AlexNet, conv1..5 on the edge, fc1..3 in the cloud, over 4G.

    DIME prints 2 020.192 uJ of radio energy from the same constants: it takes mW for uW and so divides
    the rate's part by 1000 x 8 and beta by 1000; in SI it is 194 224.199 uJ.
    """
    chain = foreign_chain(
        "dime", "alexnet", [plain_layer(name) for name in ALEXNET.layers], ALEXNET.boundaries
    )
    fleet = parse_fleet(
        'schema = "edgecut.fleet/1"\nsource = "edge"\n[device.edge]\nbattery = true\n[device.cloud]\n'
        '[[link]]\nbetween = ["edge", "cloud"]\npreset = "4g"\n'
    )
    model = CostModel.of(chain, fleet, [], 1)
    up, down = model.hop(5, ("edge", "cloud")), model.hop(8, ("cloud", "edge"))
    assert (up.wire_bytes, down.wire_bytes) == (36_864, 4)
    assert up.cost.latency_s + down.cost.latency_s == pytest.approx(0.05041463327370304, rel=1e-15)
    assert (up.cost.energy_j + down.cost.energy_j) * 1e6 == pytest.approx(194_224.199, abs=1e-3)


# Scission ------------------------------------------------------------------------------------------


def scission_rows(file: Path):
    layers: dict[str, list[tuple[float, int]]] = {}
    for row in csv.DictReader(file.read_text().splitlines()):
        layers.setdefault(row["device"], []).append((float(row["latency_s"]), int(row["output_bytes"])))
    return layers


def network_file(shared_data: Path, folder: Path, setting: str) -> Path:
    """The published 3G-like network, or the wired one: 20 Mbit/s and shorter pings from the device."""
    text = (shared_data / "scission" / "network.csv").read_text()
    if setting == "wired":
        text = text.replace(",66.7,1.6", ",20,20").replace(",100,1.6", ",45,20")
    file = folder / f"{setting}.csv"
    file.write_text(text)
    return file


def listed_links(file: Path):
    return {
        (row["source"], row["target"]): (float(row["ping_ms"]) / 1e3, float(row["bandwidth_mbps"]) * 1e6 / 8)
        for row in csv.DictReader(file.read_text().splitlines())
    }


def shortest(layers, links, sizes) -> float:
    """Least latency from raspi4 back to raspi4, by relaxing place after place over sums of layers."""
    names = list(layers)

    def moved(cost: dict[str, float], size: int) -> dict[str, float]:
        hop = {pair: ping + size / speed for pair, (ping, speed) in links.items()}
        ways = dict(hop)
        for via, a, b in itertools.product(
            names, names, names
        ):  # Floyd and Warshall, for pairs without a link
            if a != b and (a, b) not in hop and (a, via) in ways and (via, b) in ways:
                ways[a, b] = min(ways.get((a, b), math.inf), ways[a, via] + ways[via, b])
        return {b: min(cost[a] + (0 if a == b else ways[a, b]) for a in names) for b in names}

    cost = {name: 0.0 if name == "raspi4" else math.inf for name in names}
    for k, size in enumerate(sizes[:-1]):
        cost = {name: value + layers[name][k][0] for name, value in moved(cost, size).items()}
    return moved(cost, sizes[-1])["raspi4"]


@pytest.mark.parametrize("setting", ["mobile", "wired"])
@pytest.mark.parametrize("network", SCISSION)
def test_solve_finds_the_shortest_path_over_scissions_sums(shared_data, tmp_path, network, setting) -> None:
    file = shared_data / "scission" / f"{network}.csv"
    described = network_file(shared_data, tmp_path, setting)
    found = read_scission([file], network=described)
    layers, links = scission_rows(file), listed_links(described)
    links |= {(b, a): value for (a, b), value in links.items()}
    sizes = [150_000, *(size for _, size in layers["raspi4"])]
    assert len(found.chain) == len(layers["raspi4"])
    plan = solve(found.chain, found.fleet, table_of(found), objective="latency")
    assert plan.cost.latency_s == pytest.approx(shortest(layers, links, sizes), rel=1e-7)


@pytest.mark.parametrize("setting", ["mobile", "wired"])
@pytest.mark.parametrize("network", ["vgg19", "nasnetmobile"])
def test_one_way_over_all_sinks_is_scissions_own_enumeration(shared_data, tmp_path, network, setting) -> None:
    file = shared_data / "scission" / f"{network}.csv"
    described = network_file(shared_data, tmp_path, setting)
    layers, links = scission_rows(file), listed_links(described)
    sizes = [150_000, *(size for _, size in layers["raspi4"])]
    last, best = len(sizes) - 1, math.inf
    tiers = [["raspi4"], ["edge_i5_2500", "edge_vm2core"], ["cloud_6700k_gpu", "cloud_6700k_cpu"]]
    for x, y in itertools.combinations_with_replacement(
        range(last + 1), 2
    ):  # device [0, x), edge [x, y), cloud [y, n)
        for names in itertools.product(*tiers):
            total, at = 0.0, "raspi4"
            for name, start, stop in zip(names, (0, x, y), (x, y, last), strict=True):
                if start == stop:
                    continue
                if name != at:
                    ping, speed = links[at, name]
                    total, at = total + ping + sizes[start] / speed, name
                total += sum(time for time, _ in layers[name][start:stop])
            best = min(best, total)
    ours = []
    for sink in layers:
        found = read_scission([file], network=described, sink=sink)
        ours.append(solve(found.chain, found.fleet, table_of(found), objective="latency").cost.latency_s)
    assert min(ours) == pytest.approx(best, rel=1e-7)


class LayerBenchmark:
    """As Scission's scripts define it; pickled here, never unpickled."""

    def __init__(self, layer: int, seconds: float, size: int) -> None:
        self.input_layer = self.output_layer = layer
        self.second_prediction = seconds
        self.output_size = size


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_scissions_pickles_are_read_without_unpickling(tmp_path: Path, protocol: int) -> None:
    content = {
        "tiny": [LayerBenchmark(0, 0.25, 1128), LayerBenchmark(1, 0.5, 528)],
        "other": [LayerBenchmark(0, 0.1, 4)],
    }
    for name in ("device-raspi4", "cloud-6700k(GPU)"):
        (tmp_path / f"{name}.dat").write_bytes(pickle.dumps(content, protocol))
    files = sorted(tmp_path.glob("*.dat"))
    found = read_scission(files, model="tiny")
    assert [table.device for table in found.tables] == ["6700k-GPU", "raspi4"]
    assert [row.latency_s for row in found.tables[0].rows] == [0.25, 0.75, 0.5]
    assert [found.chain.wire_bytes(k) for k in range(3)] == [150_000, 1128, 528]
    with pytest.raises(InputError, match="2 models"):
        read_scission(files)


def hostile(folder: Path) -> dict[str, bytes]:
    good = pickle.dumps({"m": [LayerBenchmark(0, 0.1, 10)]})
    return {
        "reduce": pickle.dumps({"m": [Payload(folder / "ran")]}),
        "global": b"cos\nsystem\n(S'true'\ntR.",
        "proto 0": pickle.dumps({"m": [LayerBenchmark(0, 0.1, 10)]}, 0),
        "other class": pickle.dumps({"m": [Path("x")]}),
        "cut": good[:-9],
        "empty": b"",
        "noise": bytes(range(256)),
        "huge array": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "list": pickle.dumps([1, 2]),
        "unhashable": b"\x80\x03}(]]u.",
    }


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    for name, content in hostile(tmp_path).items():
        file = tmp_path / "device-x.dat"
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"device-x\.dat: ") as refused:
            assert not read_benchmarks(file), name
        assert "Traceback" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_no_byte_of_a_pickle_ends_in_a_traceback(
    tmp_path_factory, noise: bytes, place: int, byte: int
) -> None:
    content = bytearray(pickle.dumps({"m": [LayerBenchmark(0, 0.1, 10)]}))
    content[place % len(content)] = byte
    file = tmp_path_factory.mktemp("fuzz") / "device-x.dat"
    for data in (noise, bytes(content)):
        file.write_bytes(data)
        with contextlib.suppress(EdgecutError):
            read_scission([file], model="m")
