"""Deploying: outputs equal the whole model's, times add up, failures end clean."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from planner import (
    Bundle,
    Cost,
    Device,
    Emulation,
    Fleet,
    Hop,
    InputSpec,
    Limits,
    Link,
    ModelSource,
    Outcome,
    Plan,
    Proof,
    Stage,
    Variant,
)
from planner.chain import Chain
from planner.errors import (
    DocumentError,
    InputError,
    MismatchError,
    VerificationError,
    WorkerError,
)
from planner.itinerary import itinerary
from planner.run import Run
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from runtime.adviser import StaticAdviser
from runtime.agent_files import AgentFiles
from runtime.agent_service import make_agent
from runtime.answering import Answer
from runtime.authority import issue, make_authority
from runtime.bundles import preparation, prepare_bundles
from runtime.checking import Verdict, output_error
from runtime.credentials import Credentials
from runtime.deployment import DeployRequest, answer_rows, record
from runtime.loading import load_stage
from runtime.pipeline import opened
from runtime.security import Security
from runtime.timing import measured_rows
from runtime.zenoh_transport import ZenohTransport

TINY = ModelSource("models:Tiny", inputs=(InputSpec((3, 32, 32)),))
FAST = Link("a", "b", 1e9, latency_s=0.001, emulate=True)


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


def fleet(names: str = "ab", slowdown: float = 1.0) -> Fleet:
    devices = tuple(Device(name, emulate=Emulation(threads=1, slowdown=slowdown)) for name in names)
    pairs = [*itertools.pairwise(names), *itertools.pairwise(names[::-1])]
    links = tuple(Link(a, b, 1e8, latency_s=0.001, emulate=True) for a, b in pairs)
    return Fleet(names[0], names[0], devices, links)


def plan(
    chain: Chain, where: list[tuple[str, int, int, str]], over: Fleet, batch: int = 1, source: str = "a"
) -> Plan:
    """Stages as given (device, start, stop, backend); hops direct, or over the devices between."""
    names = [device.name for device in over.devices]
    stages, hops, at = [], [], source
    path = [(device, start) for device, start, _, _ in where] + [(source, len(chain))]
    for device, boundary in path:
        if device != at:
            a, b = names.index(at), names.index(device)
            between = tuple(names[a : b + 1] if a < b else names[b : a + 1][::-1])
            route = (at, device) if over.link(at, device) else between
            wire = chain.wire_bytes(boundary, batch)
            latency = sum(over.link(*pair).latency_s + wire / 1e8 for pair in itertools.pairwise(route))
            hops.append(Hop(boundary, route, "raw", wire, Cost(latency, 0.0)))
        at = device
    for device, start, stop, backend in where:
        variant = Variant(*backend.split())
        stages.append(Stage(device, Bundle(start, stop), variant, Cost(0.001, 0.0)))
    total = sum(part.cost.latency_s for part in [*stages, *hops])
    proof = Proof("by hand", Outcome.FEASIBLE, "latency", total, 0.0, 1.0, 1, 1, {}, "none", {"latency": 1.0})
    return Plan(chain, over, batch, Limits(), tuple(stages), tuple(hops), Cost(total, 0.0), proof)


PLANS = {
    "all on the source": [("a", 0, 3, "torch")],
    "all on the other": [("b", 0, 3, "onnxruntime")],
    "there": [("a", 0, 1, "torch"), ("b", 1, 3, "onnxruntime")],
    "there and back": [("a", 0, 1, "torch"), ("b", 1, 2, "torch"), ("a", 2, 3, "onnxruntime")],
    "two in a row": [("a", 0, 1, "torch"), ("a", 1, 2, "onnxruntime"), ("b", 2, 3, "torch")],
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("window", "batch"), [(1, 1), (4, 2)])
def test_a_deployed_plan_computes_the_whole_network(
    cut: CutModel, tmp_path: Path, name: str, window: int, batch: int
) -> None:
    made = plan(cut.chain, PLANS[name], fleet(), batch)
    run = record(
        DeployRequest(made, tmp_path / "run", requests=6, concurrency=window, transport="in-process"), []
    )
    parts = len(made.stages) + len(made.hops) + 1
    assert len(run.rows) == 6 * parts
    assert run.largest_output_error < 1e-5
    assert Run.load(tmp_path / "run").rows == run.rows
    for request in range(6):
        rows = [row for row in run.rows if row.request == request]
        total = rows.pop()
        assert total.kind == "total"
        spent = sum(row.measured_s for row in rows) + total.queue_s
        assert total.measured_s == pytest.approx(spent, rel=1e-6)
    for row in run.rows:
        if row.kind == "hop":  # a paced link is never faster than asked
            assert row.measured_s >= row.forecast_s * 0.999


@pytest.mark.parametrize("window", [1, 3])
def test_processes_over_zenoh(cut: CutModel, tmp_path: Path, window: int) -> None:
    made = plan(cut.chain, [("a", 0, 1, "torch"), ("c", 1, 3, "onnxruntime")], fleet("abc"))
    assert [segment.device for segment in itinerary(made)] == ["a", "b", "c", "b", "a"]
    run = record(DeployRequest(made, tmp_path / "run", requests=8, concurrency=window), [])
    assert run.info.requests == 8
    assert run.largest_output_error < 1e-5


def test_an_encrypted_agent_beside_an_emulated_device(cut: CutModel, tmp_path: Path) -> None:
    make_authority(tmp_path, "lab")
    for name in ("b", "laptop"):
        issue(tmp_path, name, tmp_path, workstation=name == "laptop")
    known = Credentials.load(tmp_path / "b").among("ab")
    with ZenohTransport(credentials=known, lease_s=3.0) as transport:
        agent = make_agent("b", transport, AgentFiles(tmp_path / "agent"))
        thread = threading.Thread(target=agent.serve, daemon=True)
        thread.start()
        over = fleet()
        devices = (
            over.devices[0],
            dataclasses.replace(over.devices[1], address=transport.endpoint, emulate=None),
        )
        made = plan(cut.chain, PLANS["there and back"], dataclasses.replace(over, devices=devices))
        security = Security.of(tmp_path / "laptop")
        run = record(DeployRequest(made, tmp_path / "run", requests=8, concurrency=3, security=security), [])
        agent.stop()
        thread.join()
    assert run.info.requests == 8
    assert run.largest_output_error < 1e-5


def test_answers_keep_their_order_and_their_input(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    generator = np.random.default_rng(0)
    inputs = [(generator.normal(size=(1, 3, 32, 32)).astype(np.float32),) for _ in range(7)]
    prepare = preparation(cut, tmp_path / "bundles")
    with opened(StaticAdviser(made), prepare, tmp_path, window=3, transport="in-process") as pipeline:
        for _ in range(2):  # a pipeline serves any number of streams
            answers = list(pipeline.map(iter(inputs)))
            assert [answer.request for answer in answers] == list(range(7))
        assert list(pipeline.map([])) == []
    import torch

    whole = cut.module(Bundle(0, 3))
    for (image,), answer in zip(inputs, answers, strict=True):
        np.testing.assert_allclose(answer.outputs[0], whole(torch.from_numpy(image))[0].numpy(), atol=1e-5)


def test_the_itinerary_by_hand(cut: CutModel) -> None:
    over = fleet("abc")
    made = plan(cut.chain, [("c", 0, 1, "torch"), ("a", 1, 3, "torch")], over)
    found = [(segment.device, segment.boundary, segment.stages) for segment in itinerary(made)]
    assert found == [("a", 0, ()), ("b", 0, ()), ("c", 0, (0,)), ("b", 1, ()), ("a", 1, (1,))]
    assert [segment.link and segment.link.pair for segment in itinerary(made)] == [
        ("a", "b"), ("b", "c"), ("c", "b"), ("b", "a"), None,
    ]  # fmt: skip


def test_rows_by_hand(cut: CutModel) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    ms = 1_000_000
    # source: ready 0, stage 1..3, link free 4; other: ready 9, stage 10..12, link free 12; back: ready 15
    marks = tuple(ms * at for at in (-1, 0, 1, 3, 4, 8, 9, 10, 12, 12, 15, 15, 15))
    answer = Answer(5, (), marks, made, itinerary(made))
    rows = answer_rows(0, answer, Verdict(0.25, 0.01, None, None, None))
    seconds = [
        (row.kind, row.index, round(row.measured_s * 1e3, 6), round(row.queue_s * 1e3, 6)) for row in rows
    ]
    assert seconds == [
        ("stage", 0, 2, 1), ("stage", 1, 2, 1), ("hop", 0, 5, 1), ("hop", 1, 3, 0), ("total", 0, 15, 3),
    ]  # fmt: skip
    assert (rows[-1].request, rows[-1].output_error) == (5, 0.25)
    later = answer_rows(0, answer, Verdict(0.25, 0.01, None, None, None), origin_ns=-20 * ms)
    assert [round(row.begin_s * 1e3, 6) for row in later] == [21, 30, 24, 32, 20]


def coded(made: Plan, *codecs: str) -> Plan:
    """The plan with these codecs on its hops, forecast to take 1 ms to encode and 2 ms to decode."""
    hops = tuple(
        dataclasses.replace(
            hop, codec=codec, encode_s=0.001, decode_s=0.002, cost=hop.cost + Cost(0.003, 0.0)
        )
        if codec != "raw"
        else hop
        for hop, codec in zip(made.hops, codecs, strict=True)
    )
    return dataclasses.replace(made, hops=hops)


def test_rows_of_a_hop_in_a_codec_by_hand(cut: CutModel) -> None:
    made = coded(plan(cut.chain, PLANS["all on the other"], fleet()), "int8", "raw")
    ms = 1_000_000
    # source: ready 0, encode 1..3, link free 4; other: ready 9, decode 10..12, stage 13..20, free 20; back 25
    marks = tuple(ms * at for at in (-1, 0, 1, 3, 4, 8, 9, 10, 12, 13, 20, 20, 24, 25, 25))
    rows = {(row.kind, row.index): row for row in measured_rows(made, itinerary(made), 0, marks)}
    seconds = {key: (round(row.measured_s * 1e3), round(row.queue_s * 1e3)) for key, row in rows.items()}
    assert seconds == {
        ("stage", 0): (7, 1), ("hop", 0): (9, 3), ("encode", 0): (2, 1), ("wire", 0): (5, 1),
        ("decode", 0): (2, 1), ("hop", 1): (5, 0), ("total", 0): (25, 4),
    }  # fmt: skip
    begins = {key: round(row.begin_s * 1e3) for key, row in rows.items()}
    assert begins == {
        ("stage", 0): 13, ("hop", 0): 1, ("encode", 0): 1, ("wire", 0): 4, ("decode", 0): 10, ("hop", 1): 20,
        ("total", 0): 0,
    }  # fmt: skip
    assert [rows[kind, 0].forecast_s for kind in ("encode", "decode")] == [0.001, 0.002]
    assert rows["wire", 0].forecast_s == pytest.approx(made.hops[0].cost.latency_s - 0.003)


@pytest.mark.parametrize("codec", ["zstd", "fp16", "int8", "int8-zstd"])
def test_a_plan_with_codecs_computes_what_its_stages_and_codecs_do(
    cut: CutModel, tmp_path: Path, codec: str
) -> None:
    """Over a relay, which passes on what was encoded; one segment encodes without computing."""
    made = coded(plan(cut.chain, [("c", 0, 2, "torch"), ("a", 2, 3, "torch")], fleet("abc")), codec, codec)
    segments = itinerary(made)
    assert [(each.decodes, each.encodes) for each in segments] == [
        (False, True), (False, False), (True, True), (False, False), (True, False),
    ]  # fmt: skip
    run = record(DeployRequest(made, tmp_path / "run", requests=4, concurrency=2, transport="in-process"), [])
    assert Run.load(tmp_path / "run").rows == run.rows
    assert run.deviation <= run.info.tolerance
    assert made.exact == (codec == "zstd")
    if made.exact:
        assert run.largest_output_error < 1e-5
    else:
        assert run.output_sqnr_db is not None
        assert run.output_sqnr_db > 15
    kinds = [part.kind for part in run.comparisons()]
    assert kinds[:4] == ["hop", "encode", "wire", "decode"]
    for row in run.rows:
        if row.kind == "total":
            spent = sum(
                each.measured_s
                for each in run.rows
                if each.request == row.request and each.kind in ("stage", "hop")
            )
            assert row.measured_s == pytest.approx(spent + row.queue_s, rel=1e-6)


def test_a_plan_below_fp32_is_checked_against_its_own_bundles(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, [("a", 0, 1, "torch bf16"), ("b", 1, 3, "torch fp16")], fleet())
    run = record(DeployRequest(made, tmp_path / "run", requests=3, transport="in-process"), [])
    assert Run.load(tmp_path / "run").rows == run.rows
    assert 1e-4 < run.largest_output_error < 0.1
    assert run.deviation <= run.info.tolerance == 4e-2
    assert run.deviation < run.largest_output_error
    assert 0 <= run.top1_agreement <= 1
    assert run.accuracy is None
    assert run.whole_accuracy is None


def test_accuracy_of_a_deployed_plan(cut: CutModel, tmp_path: Path) -> None:
    """Labelled with what the fp32 model predicts, the plan is right wherever it agrees with it."""
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(noise.integers(0, 255, (40, 40, 3), np.uint8)).save(images / f"{name}.png")
    made = plan(cut.chain, PLANS["there"], fleet())
    (tmp_path / "labels.csv").write_text("".join(f"{name},{place % 5}\n" for place, name in enumerate("abc")))
    request = DeployRequest(
        made, tmp_path / "run", (images,), tmp_path / "labels.csv", transport="in-process"
    )
    run = record(request, [])
    assert run.top1_agreement == 1
    assert run.accuracy == run.whole_accuracy
    known = [row.accuracy for row in run.rows if row.kind == "total"]
    assert [value is None for value in known] == [False, False, False, True]


def test_another_model_is_refused(cut: CutModel, tmp_path: Path) -> None:
    other = cut_model(load_model(ModelSource("models:Tiny", seed=3, inputs=(InputSpec((3, 32, 32)),)))).chain
    made = plan(Chain(TINY, other.digest, other.layers, other.boundaries), PLANS["there"], fleet())
    with pytest.raises(MismatchError, match="the plan is for"):
        record(DeployRequest(made, tmp_path / "run", transport="in-process"), [])


def test_a_device_that_is_not_emulated_is_refused(cut: CutModel, tmp_path: Path) -> None:
    bare = Fleet("a", "a", (Device("a"),), ())
    made = plan(cut.chain, PLANS["all on the source"], bare)
    with pytest.raises(InputError, match="not emulated"):
        record(DeployRequest(made, tmp_path / "run"), [])


def test_a_finished_run_begun_again_sends_nothing(
    cut: CutModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(cut.chain, PLANS["all on the source"], fleet())
    request = DeployRequest(made, tmp_path / "run", requests=3, transport="in-process")
    first = record(request, [])
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr("runtime.deployment.opened", None)
        assert record(request, []).rows == first.rows
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before
    longer = record(dataclasses.replace(request, requests=5), [])
    assert longer.rows[: len(first.rows)] == first.rows
    assert [row.request for row in longer.rows if row.kind == "total"] == list(range(5))
    begins = [row.begin_s for row in longer.rows if row.kind == "total"]
    assert begins[0] >= 0
    assert begins == sorted(begins)  # a run that goes on does so in its own time
    assert begins[3] >= begins[2] + longer.rows[len(first.rows) - 1].measured_s
    with pytest.raises(MismatchError, match="another plan"):
        record(dataclasses.replace(request, plan=plan(cut.chain, PLANS["there"], fleet())), [])


def test_wrong_outputs_are_noticed(cut: CutModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    monkeypatch.setattr("runtime.checking.output_error", lambda found, expected: 0.5)
    with pytest.raises(VerificationError, match="differ from the whole model"):
        record(DeployRequest(made, tmp_path / "run", requests=2, transport="in-process"), [])
    assert len(Run.load(tmp_path / "run").rows) == 2 * 5


def test_an_output_that_is_no_number_is_an_error() -> None:
    good, bad = np.array([2.0, 1.0]), np.array([np.nan, 1.0])
    assert output_error((good,), (good,)) == 0
    assert output_error((good, bad), (good, good)) == math.inf
    assert output_error((good, good + 1), (good, good)) == 0.5


def test_an_agent_checks_what_it_loads(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    bundle = prepare_bundles(made, cut, tmp_path)[0]
    order = dataclasses.replace(bundle.order, inputs=bundle.order.outputs)
    with pytest.raises(WorkerError, match=r"input .* the plan says"):
        load_stage(order, bundle.file, 1)


def test_a_damaged_bundle_ends_the_deployment(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    bundles = prepare_bundles(made, cut, tmp_path)
    bundles[1].file.write_bytes(b"broken")
    with (
        pytest.raises(DocumentError, match="digest"),
        opened(StaticAdviser(made), lambda _: bundles, tmp_path, transport="in-process"),
    ):
        pass


def test_what_does_not_fit_is_refused_before_any_request(
    cut: CutModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    monkeypatch.setattr("runtime.loading.available_memory_bytes", lambda: 1000)
    with (
        pytest.raises(WorkerError, match=r"MB of memory free.*\n.*memory_bytes = 900"),
        opened(StaticAdviser(made), preparation(cut, tmp_path / "b"), tmp_path, transport="in-process"),
    ):
        pass


def test_a_request_of_another_shape_is_refused_and_the_stream_goes_on(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    right, wrong = np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 3, 31, 32), np.float32)
    prepare = preparation(cut, tmp_path / "bundles")
    with opened(StaticAdviser(made), prepare, tmp_path, window=2, transport="in-process") as pipeline:
        for bad in ((wrong,), (right, right), (right.astype(np.float64),), ()):
            with pytest.raises(InputError, match="a request is"):
                pipeline.submit(bad)
        assert len(list(pipeline.map([(right,)] * 5))) == 5


def agents_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(fields[1]) == pid and b"agent_process" in command and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def gone(pids: list[int], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def start_deploy(made: Plan, folder: Path) -> subprocess.Popen[str]:
    made.save(folder / "plan.json")
    script = "import sys; sys.argv[0] = 'edgecut'; from runtime.cli import main; main()"
    command = [sys.executable, "-c", script, "deploy", str(folder / "plan.json"), "--requests", "100000"]
    return subprocess.Popen(
        [*command, "-o", str(folder / "run")],
        cwd=Path(__file__).parent,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def rows_of(folder: Path) -> int:
    table = folder / "run" / "run.csv"
    return len(table.read_text().splitlines()) if table.exists() else 0


def await_rows(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    while rows_of(folder) < count:
        assert time.monotonic() < deadline, "no row was written"
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("interrupt", marks=pytest.mark.slow),
        "kill",
        pytest.param("agent killed", marks=pytest.mark.slow),
    ],
)
def test_no_agent_is_left_behind(cut: CutModel, tmp_path: Path, how: str) -> None:
    made = plan(cut.chain, PLANS["there"], fleet())
    process = start_deploy(made, tmp_path)
    with process:
        await_rows(tmp_path, 20)
        workers = agents_of(process.pid)
        assert len(workers) == 2
        if how == "agent killed":  # it is started again, and the stream goes on
            os.kill(workers[0], signal.SIGKILL)
            await_rows(tmp_path, 20 + rows_of(tmp_path))
            workers += agents_of(process.pid)
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert gone(workers)
    run = Run.load(tmp_path / "run")
    assert len(run.rows) >= 15
    if how != "kill":
        assert process.returncode == 130
        assert "interrupted" in said
        assert "Traceback" not in said
    totals = [row.request for row in run.rows if row.kind == "total"]
    assert totals == list(range(len(totals)))


def test_a_damaged_run_says_where(cut: CutModel, tmp_path: Path) -> None:
    made = plan(cut.chain, PLANS["all on the source"], fleet())
    record(DeployRequest(made, tmp_path / "run", requests=2, transport="in-process"), [])
    table = tmp_path / "run" / "run.csv"
    whole = table.read_text()
    table.write_text(whole + "3,stage,0,0.1")  # killed while writing
    assert len(Run.load(tmp_path / "run").rows) == 4
    for text, says in (
        (whole.replace("measured_s", "measured_ms"), "write measured_s"),
        (whole.replace("stage", "stagge", 1), "line 2"),
        (whole + "1,2\n", "expected 15 cells"),
    ):
        table.write_text(text)
        with pytest.raises(DocumentError, match=says):
            Run.load(tmp_path / "run")
