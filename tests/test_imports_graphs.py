"""Layer graphs, PipeEdge, MaseRT and presets: chains and sums equal those computed straight from the files."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_row
from test_imports import table_of

from planner.chain import Boundary, Bundle, Chain, Layer, ModelSource, TensorSpec
from planner.errors import EdgecutError, InputError, MismatchError
from planner.fleet import Device, Fleet, Link
from planner.imports.graphs import Node, cut_graph
from planner.imports.masert import read_masert, write_results
from planner.imports.partitioning import read_partitioning, read_pipedream
from planner.imports.pipeedge import read_pipeedge
from planner.imports.presets import load_presets, preset_plan
from planner.imports.result import save
from planner.solver import solve
from planner.table import ProfileTable
from planner.verdict import verdict
from runtime.cli import cli

# Graphs --------------------------------------------------------------------------------------------


def nodes_on_every_path(nodes: list[int], edges: list[tuple[int, int]], sizes: dict[int, float]) -> set[int]:
    """By removing each node in turn: is an output still within reach of an input?"""
    carrying = [(a, b) for a, b in edges if sizes.get(a, 0) > 0]
    on = {name for edge in carrying for name in edge}
    starts = on - {b for _, b in carrying}
    ends = on - {a for a, _ in carrying}

    def reaches(without: int) -> bool:
        seen = todo = starts - {without}
        while todo:
            todo = {b for a, b in carrying if a in todo} - seen - {without}
            seen = seen | todo
        return bool(seen & ends)

    return {name for name in on if not reaches(name)}


@pytest.mark.parametrize("name", ["resnet50_inference", "bert24_inference"])
def test_a_partitioning_graph_becomes_the_chain_of_its_single_tensor_cuts(
    shared_data, tmp_path, name
) -> None:
    file = shared_data / "msr" / f"{name}.json"
    data = json.loads(file.read_text())
    found = read_partitioning(file)
    edges = [(edge["sourceId"], edge["destId"]) for edge in data["edges"]]
    sizes = {edge["sourceId"]: edge["size"] for edge in data["edges"]}
    cuts = nodes_on_every_path([node["id"] for node in data["nodes"]], edges, sizes)
    last = {node["id"] for node in data["nodes"]} - {a for a, _ in edges}
    # The last node on every path ends the network; no cut lies behind it.
    assert len(found.chain) == len(cuts - last) + 1
    inner = sorted(boundary.nbytes for boundary in found.chain.boundaries[1:-1])
    assert inner == sorted(sizes[cut] for cut in cuts - last)
    for device, key in (("cpu", "cpuLatency"), ("accelerator", "fpgaLatency")):
        (table,) = (table for table in found.tables if table.device == device)
        whole = next(row for row in table.rows if len(row.bundle) == len(found.chain))
        assert whole.latency_s == pytest.approx(sum(node[key] for node in data["nodes"]) / 1e3)
        assert whole.peak_memory_bytes == pytest.approx(sum(node["size"] for node in data["nodes"]))
    loaded = ProfileTable.load(save(found, tmp_path)[:2])
    plan = solve(loaded.chain, found.fleet, loaded, objective="latency")
    assert plan.cost.latency_s < sum(node["cpuLatency"] for node in data["nodes"]) / 1e3


@given(st.data())
def test_cuts_of_any_graph_are_the_nodes_on_every_path(data: st.DataObject) -> None:
    """Whatever order the nodes stand in; dead ends, several sources and costless edges included."""
    count = data.draw(st.integers(2, 8))
    pairs = list(itertools.combinations(range(count), 2))
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14))
    names = data.draw(st.permutations(range(count)))
    sizes = {k: data.draw(st.sampled_from([0, 4, 4, 8])) for k in range(count)}
    nodes = {str(k): Node(str(k), {"cpu": 1.0}, sizes[k]) for k in names}
    wanted = nodes_on_every_path(list(names), edges, sizes)
    inner = sorted(wanted & {a for a, _ in edges if sizes[a]})
    try:
        found = cut_graph(nodes, [(str(a), str(b)) for a, b in edges])
    except InputError:
        assert not inner
        return
    assert [layer[-1].name for layer in found.layers[:-1]] == [str(k) for k in inner]
    assert list(found.nbytes[1:-1]) == [sizes[k] for k in inner]
    assert sorted(node.name for layer in found.layers for node in layer) == sorted(map(str, range(count)))
    place = {node.name: k for k, layer in enumerate(found.layers) for node in layer}
    assert all(place[str(a)] <= place[str(b)] for a, b in edges)


def node_line(name: str, what: str, forward_ms: float, size: str, weights: float, tail: str = "") -> str:
    times = f"forward_compute_time={forward_ms:.3f}, backward_compute_time=9.284"
    return f"{name} -- {what} -- {times}, activation_size={size}, parameter_size={weights:.3f}{tail}"


PIPEDREAM = "\n".join(
    [
        node_line("node1", "Input", 473.625, "600.000", 0),
        node_line("node2", "Conv2d(3, 64, kernel_size=(7, 7))", 2.0, "800.000", 376),
        node_line("node3", "ReLU(inplace)", 0.0, "800.000", 0),
        node_line("node5", "Add(inplace)", 0.5, "[400.000; 400.000]", 0),
        node_line("node4", "Conv2d(64, 64)", 3.0, "800.000", 1474, " -- stage_id=0"),
        node_line("node6", "Linear(in_features=512)", 1.0, "40.000", 20),
        *(f"\tnode{a} -- node{b}" for a, b in ((1, 2), (2, 3), (3, 4), (3, 5), (4, 5), (5, 6))),
        "",
    ]
)


def test_a_pipedream_graph_is_read_with_its_residual_block_whole(tmp_path: Path) -> None:
    file = tmp_path / "graph.txt"
    file.write_text(PIPEDREAM)
    found = read_pipedream(file, "V100", model="tiny")
    assert [layer.name for layer in found.chain.layers] == [
        "node2-Conv2d",
        "node3-ReLU",
        "node5-Add",
        "node6-Linear",
    ]
    assert [boundary.nbytes for boundary in found.chain.boundaries] == [600, 800, 800, 800, 40]
    times = {row.bundle: row.latency_s for row in found.tables[0].rows}
    assert times[Bundle(0, 4)] == pytest.approx(6.5e-3)
    assert times[Bundle(2, 3)] == pytest.approx(3.5e-3)
    assert times[Bundle(1, 2)] == 1e-9
    assert any("timed at 0 s" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "has no node"),
        ("hello", "neither a node nor an edge"),
        (PIPEDREAM + "\tnode6 -- node2\n", "cycle"),
        (PIPEDREAM + "\tnode6 -- node77\n", "which the graph lacks"),
        (PIPEDREAM + PIPEDREAM, "described twice"),
        (PIPEDREAM.replace("=2.000,", "=-2.000,"), "from 0 up"),
        (PIPEDREAM.replace("=2.000,", "=nan,"), "from 0 up"),
        ("\n".join(PIPEDREAM.splitlines()[1:2]), "no place where exactly one tensor crosses"),
    ],
)
def test_a_broken_graph_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "graph.txt"
    file.write_text(content)
    with pytest.raises(InputError, match=problem):
        read_pipedream(file, "gpu")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"nodes": 3}, "list of objects"),
        ({"edges": [{"sourceId": 1, "destId": 2}]}, r"edges\[0\]\.cost"),
        ({"nodes": [{"id": 1, "cpuLatency": "x", "fpgaLatency": 1}]}, "from 0 up"),
        ({"nodes": [{"id": 1, "cpuLatency": 1, "fpgaLatency": 1}] * 2}, "given twice"),
        ({"nodes": []}, "edge names node|there is none"),
    ],
)
def test_a_broken_partitioning_graph_is_refused(tmp_path: Path, change, problem) -> None:
    node = {"cpuLatency": 1.0, "fpgaLatency": 0.1}
    good = {
        "nodes": [{"id": 1, **node}, {"id": 2, **node}],
        "edges": [{"sourceId": 1, "destId": 2, "cost": 0.5}],
    }
    file = tmp_path / "g.json"
    file.write_text(json.dumps(good))
    found = read_partitioning(file)
    # Without sizes the hop still costs what the file says.
    link = found.fleet.link("cpu", "accelerator")
    assert link.transfer_s(found.chain.wire_bytes(1)) == pytest.approx(0.5e-3)
    file.write_text(json.dumps({**good, **change}))
    with pytest.raises(InputError, match=problem):
        read_partitioning(file)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.data())
def test_no_json_or_yaml_ends_in_a_traceback(tmp_path_factory, data: st.DataObject) -> None:
    """Good files in which values anywhere are replaced by others."""
    node = {"cpuLatency": 1.0, "fpgaLatency": 0.1, "size": 3}
    edge = {"sourceId": 1, "destId": 2, "cost": 0.5, "size": 10}
    profile = {"batch_size": 1, "dtype": "torch.float32", "time_s": [0.1, 0.2]}
    good = {
        "graph": {"nodes": [{"id": 1, **node}, {"id": 2, **node}, {"id": 3, **node}], "edges": [edge]},
        "models": {"m": {"layers": 2, "mem_MB": [1, 2], "parameters_in": 3, "parameters_out": [2, 1]}},
        "types": {"box": {"bw_Mbps": 8, "mem_MB": 99, "model_profiles": {"m": [profile]}}},
        "hosts": {"box": ["a", "b"]},
        "masert": {
            "Average Latency": 1.0,
            "Average GPU Power Usage": 2.0,
            "Inference Energy Consumption": 3.0,
        },
    }

    def spoil(value: object) -> object:
        if data.draw(st.integers(0, 9)) == 0:
            return data.draw(VALUES)
        if isinstance(value, dict):
            return {key: spoil(each) for key, each in value.items()}
        return [spoil(each) for each in value] if isinstance(value, list) else value

    folder = tmp_path_factory.mktemp("fuzz")
    files = {name: folder / f"{name}.json" for name in good}
    for name, content in good.items():
        files[name].write_text(json.dumps(spoil(content)))
    for read, *names in (
        (read_partitioning, "graph"),
        (read_pipeedge, "models", "types", "hosts"),
        (read_masert, "masert"),
    ):
        with contextlib.suppress(EdgecutError):
            read(*(files[name] for name in names))


def test_what_an_accelerator_cannot_run_is_left_out_and_backward_nodes_aside(tmp_path: Path) -> None:
    nodes = [
        {"id": k, "cpuLatency": 2.0, "fpgaLatency": 1.0, "supportedOnFpga": int(k != 2)} for k in (1, 2, 3)
    ]
    nodes.append({"id": 9, "cpuLatency": 5.0, "fpgaLatency": 5.0, "isBackwardNode": 1})
    edges = [
        {"sourceId": a, "destId": b, "cost": 0.1, "size": 100} for a, b in ((1, 2), (2, 3), (3, 9), (1, 9))
    ]
    file = tmp_path / "g.json"
    file.write_text(json.dumps({"nodes": nodes, "edges": edges}))
    found = read_partitioning(file)
    cpu, accelerator = found.tables
    assert len(found.chain) == 3
    assert len(cpu.rows) == 6
    assert [row.bundle for row in accelerator.rows] == [Bundle(0, 1), Bundle(2, 3)]
    assert len(accelerator.left_out) == 4
    assert "backward" in found.refused[0]
    assert solve(found.chain, found.fleet, table_of(found), objective="latency").cost.latency_s > 0


# PipeEdge ------------------------------------------------------------------------------------------


def bottleneck(found, schedule) -> float:
    """Longest stage or link of a pipeline, priced on the imported rows and links."""
    times = {(row.device, row.bundle): row.latency_s for table in found.tables for row in table.rows}
    worst = max(times[host, Bundle(start, stop)] for host, start, stop in schedule)
    for (host, _, stop), (other, *_) in itertools.pairwise(schedule):
        worst = max(worst, found.fleet.link(host, other).transfer_s(found.chain.wire_bytes(stop, 8)))
    return worst


def test_pipeedges_published_schedule_and_the_optimum(shared_data) -> None:
    files = (shared_data / "pipeedge" / f"{name}.yml" for name in ("models", "device_types", "devices"))
    found = read_pipeedge(*files)
    hosts = [table.device for table in found.tables]
    published = [(host, 6 * k, 6 * k + 6) for k, host in enumerate(hosts)]
    assert bottleneck(found, published) == pytest.approx(1.7262, abs=5e-5)

    slow, fast = "mb-0", "rcc-0"
    times = {
        (row.device, row.bundle.start, row.bundle.stop): row.latency_s
        for table in found.tables
        for row in table.rows
    }
    sent = [found.fleet.link(slow, fast).transfer_s(found.chain.wire_bytes(k, 8)) for k in range(49)]

    @functools.cache
    def best(layer: int, slows: int, fasts: int) -> float:
        """The least bottleneck of the layers from here on; all links are alike."""
        if layer == 48:
            return 0.0
        options = [math.inf]
        for host, left, rest in ((slow, slows, (slows - 1, fasts)), (fast, fasts, (slows, fasts - 1))):
            for stop in range(layer + 1, 49) if left else ():
                after = sent[stop] if stop < 48 else 0.0
                options.append(max(times[host, layer, stop], after, best(stop, *rest)))
        return min(options)

    assert best(0, 4, 4) == pytest.approx(1.5488, abs=5e-5)
    assert found.fleet.link(slow, fast).bandwidth_bytes_per_s == 1000 * 1024 * 1024 / 8
    assert found.chain.wire_bytes(0, 8) == 8 * 150528 * 4


@pytest.mark.parametrize(
    ("broken", "text", "problem"),
    [
        ("models", "a: [1", "is no YAML"),
        ("models", "- 1", "expected a mapping"),
        ("models", "m: &x {layers: 1}\nn: *x", "holds an alias"),
        ("models", "m: !!python/object/apply:os.system [true]", "is no YAML"),
        (
            "models",
            "m: {layers: 2, mem_MB: [1], parameters_in: 3, parameters_out: [1, 1]}",
            "expected 2 numbers",
        ),
        ("types", "box: {bw_Mbps: fast, mem_MB: 1}", "no number from 0 up"),
        ("hosts", "other: [a]", "device type"),
        ("hosts", "box: a", "expected a list of hosts"),
        ("hosts", "box: []", "no host has a profile"),
    ],
)
def test_broken_yaml_is_refused(tmp_path: Path, broken: str, text: str, problem: str) -> None:
    profile = {"batch_size": 1, "dtype": "torch.float32", "time_s": [0.1, 0.2]}
    good = {
        "models": {"m": {"layers": 2, "mem_MB": [1, 2], "parameters_in": 3, "parameters_out": [2, 1]}},
        "types": {
            "box": {"bw_Mbps": 8, "mem_MB": 99, "model_profiles": {"m": [profile, {**profile, "dtype": "x"}]}}
        },
        "hosts": {"box": ["a", "b"]},
    }
    files = [tmp_path / f"{name}.yml" for name in good]
    for file, content in zip(files, good.values(), strict=True):
        file.write_text(json.dumps(content))
    found = read_pipeedge(*files)
    assert [len(table.rows) for table in found.tables] == [3, 3]
    assert len(found.refused) == 1
    (tmp_path / f"{broken}.yml").write_text(text)
    with pytest.raises(InputError, match=problem):
        read_pipeedge(*files)


# MaseRT and presets --------------------------------------------------------------------------------


def test_maserts_results_are_written_in_si(tmp_path: Path) -> None:
    published = {"Average Accuracy": 0.72115, "Average Latency": 1.9909, "Average GPU Power Usage": 54.084,
                 "Inference Energy Consumption": 0.02991}  # fmt: skip
    file, output = tmp_path / "int8.json", tmp_path / "out.csv"
    file.write_text(json.dumps(published))
    result = read_masert(file)
    assert result.latency_s == pytest.approx(1.9909e-3)
    assert result.energy_j == pytest.approx(0.107676)
    assert result.consistent
    (tmp_path / "odd.json").write_text(json.dumps({**published, "Inference Energy Consumption": 3.0}))
    run = CliRunner().invoke(
        cli, ["import", "masert", str(file), str(tmp_path / "odd.json"), "-o", str(output)]
    )
    assert run.exit_code == 0, run.output
    assert "odd: energy is not power x latency" in run.output
    assert output.read_text().splitlines()[0] == "name,accuracy,latency_s,power_w,energy_j,consistent"
    for wrong in (
        "[]",
        "{",
        json.dumps({**published, "Average Latency": -1}),
        json.dumps({**published, "Average Accuracy": 72}),
    ):
        file.write_text(wrong)
        with pytest.raises(InputError):
            read_masert(file)
    output.write_text("mine\n")
    with pytest.raises(InputError, match="is no table of MaseRT"):
        write_results([result], output)


def resnet50(names: list[str]) -> ProfileTable:
    boundary = Boundary((TensorSpec((1, 1000), "uint8"),))
    layers = tuple(Layer(name, 1, 1, 1) for name in names)
    chain = Chain(ModelSource("resnet50"), "0" * 64, layers, (boundary,) * (len(names) + 1))
    rows = [
        make_row(device, bundle.start, bundle.stop, speed * len(bundle))
        for device, speed in (("edge", 0.01), ("server", 0.002))
        for bundle in chain.bundles()
    ]
    return ProfileTable(chain, tuple(rows))


def test_a_preset_is_priced_beside_the_optimum() -> None:
    names = [
        "conv1",
        *(f"layer{k}.{n}" for k, count in ((1, 3), (2, 4), (3, 6), (4, 3)) for n in range(count)),
        "fc",
    ]
    table = resnet50(names)
    links = (Link("edge", "server", 1e6, 0.001), Link("server", "edge", 1e6, 0.001))
    fleet = Fleet("edge", "edge", (Device("edge"), Device("server")), links)
    plan = preset_plan("resnet50-2", table, fleet, ["edge", "server"])
    assert [stage.bundle for stage in plan.stages] == [Bundle(0, 8), Bundle(8, 18)]
    assert plan.cost.latency_s == pytest.approx(0.08 + 0.02 + 2 * 0.002)
    assert plan.proof.outcome.value == "feasible"
    assert plan.proof.bound == pytest.approx(0.036 + 2 * 0.002)
    assert plan.proof.gap == pytest.approx(1 - 0.04 / 0.104)
    assert "160.0 % more latency than 'all on server'" in verdict(plan)
    assert {preset.model for preset in load_presets().values()} == {"resnet50", "resnet152"}
    with pytest.raises(InputError, match="has 2 stages, 1 devices"):
        preset_plan("resnet50-2", table, fleet, ["edge"])
    with pytest.raises(InputError, match="unknown preset"):
        preset_plan("resnet51", table, fleet, ["edge", "server"])
    with pytest.raises(MismatchError, match=r"has no layer 'layer3\.0'"):
        preset_plan("resnet50-2", resnet50(["conv1", "fc"]), fleet, ["edge", "server"])
