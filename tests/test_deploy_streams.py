"""Deployed plans and their streams: processes that are killed and told to stop, inputs and outputs of every kind."""

from __future__ import annotations

import io
import json
import os
import random
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sources import ROOT, photographs
from test_deploy import TINY, fleet, plan

import runtime
from planner.chain import Bundle, TensorSpec
from planner.errors import DocumentError, InputError, MismatchError
from planner.plan import Plan
from planner.run import Run
from profiler.cut import CutModel, cut_model
from profiler.model import load_model
from runtime.batching import Input
from runtime.deployment import DeployRequest, record
from runtime.sources import FrameSource

COUNT = 120
WHERE = [("a", 0, 1, "torch"), ("b", 1, 3, "torch")]


@pytest.fixture(scope="module")
def cut() -> CutModel:
    return cut_model(load_model(TINY))


@pytest.fixture(scope="module")
def images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(COUNT, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(cut: CutModel, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    whole = cut.module(Bundle(0, 3))
    with torch.inference_mode():
        return np.concatenate([whole(torch.from_numpy(images[k : k + 1]))[0].numpy() for k in range(COUNT)])


def made(cut: CutModel, batch: int = 1) -> Plan:
    return plan(cut.chain, WHERE, fleet(), batch)


def started(folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    script = "import sys; sys.argv[0] = 'edgecut'; from runtime.cli import main; main()"
    command = [sys.executable, "-c", script, "deploy", str(folder / "plan.json"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=Path(__file__).parent, env=environment, **pipes)


def answered(folder: Path) -> int:
    log = folder / "answers.jsonl"
    return max(len(log.read_bytes().splitlines()) - 1, 0) if log.exists() else 0


def await_answers(process: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while answered(folder) < count and process.poll() is None:
        assert time.monotonic() < deadline, "no answer was written"
        time.sleep(0.01)


def check_outputs(file: Path, expected: np.ndarray[Any, Any]) -> None:
    with np.load(file) as found:
        assert found["request"].tolist() == list(range(len(expected)))
        np.testing.assert_allclose(found["output_0"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_coordinator_loses_and_repeats_nothing(
    cut: CutModel, tmp_path: Path, images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> None:
    """Killed while it loads, while it streams, and while it writes; the same command goes on each time."""
    made(cut, 2).save(tmp_path / "plan.json")
    np.savez(tmp_path / "in.npz", arg_0=images)
    run, file, chance = tmp_path / "run", tmp_path / "out.npz", random.Random(0)
    options = ["--inputs", tmp_path / "in.npz", "--outputs", file, "-o", run]
    options += ["--transport", "in-process", "--concurrency", 3]
    for _ in range(3):
        before = answered(run)
        with started(tmp_path, *options) as process:
            await_answers(process, run, before + chance.randint(0, 12))
            time.sleep(chance.uniform(0, 0.01))
            process.kill()
            process.communicate()
        assert before <= answered(run) < COUNT // 2
        assert not file.exists()
    with started(tmp_path, *options) as process:
        said = b"".join(process.communicate(timeout=300)).decode()
    assert process.returncode == 0, said
    check_outputs(file, expected)
    found = Run.load(run)
    assert [row.request for row in found.rows if row.kind == "total"] == list(range(COUNT // 2))
    assert found.info.requests == COUNT // 2


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_told_to_stop_it_finishes_what_is_on_its_way(
    cut: CutModel,
    tmp_path: Path,
    images: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    number: int,
    code: int,
) -> None:
    made(cut).save(tmp_path / "plan.json")
    np.save(tmp_path / "in.npy", images)
    options = ["--inputs", tmp_path / "in.npy", "--outputs", tmp_path / "out.npz", "--concurrency", 4]
    options += ["-o", tmp_path / "run", "--requests", 5 * COUNT]
    with started(tmp_path, *options) as process:
        await_answers(process, tmp_path / "run", 10)
        process.send_signal(number)
        out, said = process.communicate(timeout=120)
    assert process.returncode == code, said.decode()
    assert b"what is on its way is finished" in said
    assert b"The same command goes on" in said
    assert b"Traceback" not in said
    count = answered(tmp_path / "run")
    assert 10 <= count < 5 * COUNT
    check_outputs(tmp_path / "out.npz", np.concatenate([expected] * 5)[:count])
    assert f"{count} requests" in out.decode()


def test_told_twice_it_ends_at_once(cut: CutModel, tmp_path: Path) -> None:
    """Answers that are seconds away are not waited for; both signals are there before it looks."""
    near = fleet()
    far = replace(near, links=tuple(replace(link, latency_s=1.5) for link in near.links))
    plan(cut.chain, WHERE, far).save(tmp_path / "plan.json")
    options = ["--outputs", tmp_path / "out.npz", "-o", tmp_path / "run", "--transport", "in-process"]
    with started(tmp_path, *options, "--concurrency", 8) as process:
        await_answers(process, tmp_path / "run", 1)
        for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert b"goes on" not in said
    assert not (tmp_path / "out.npz").exists()


def test_frames_in_and_out_of_a_pipe(
    cut: CutModel, tmp_path: Path, images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> None:
    """Each answer comes before the next frame is there; begun again, the outputs come from the first on."""
    made(cut).save(tmp_path / "plan.json")
    options = ["--inputs", "-", "--outputs", "-", "-o", tmp_path / "run", "--transport", "in-process"]
    with started(tmp_path, *options, stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for k in range(3):
            process.stdin.write(framed(images[k]))
            process.stdin.flush()
            found = np.load(io.BytesIO(process.stdout.read(len(framed(expected[:1])))))
            np.testing.assert_allclose(found, expected[k : k + 1], atol=1e-5)
        process.kill()
    with started(tmp_path, *options, stdin=subprocess.PIPE) as process:
        out, said = process.communicate(b"".join(map(framed, images[:6])), timeout=300)
    assert process.returncode == 0, said.decode()
    stream = io.BytesIO(out)
    np.testing.assert_allclose(np.concatenate([np.load(stream) for _ in range(6)]), expected[:6], atol=1e-5)
    assert not stream.read()
    assert b"6 requests" in said


def framed(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("outputs", ["out", "out.npz"])
def test_several_streams_with_refused_inputs(
    cut: CutModel,
    tmp_path: Path,
    images: np.ndarray[Any, Any],
    expected: np.ndarray[Any, Any],
    batch: int,
    outputs: str,
) -> None:
    folder = photographs(tmp_path / "photos")
    (folder / "m.png").write_bytes(b"no image")
    np.save(tmp_path / "in.npy", images[:11])
    where = tmp_path / outputs
    request = DeployRequest(
        made(cut, batch),
        tmp_path / "run",
        (tmp_path / "in.npy", folder),
        concurrency=4,
        transport="in-process",
        outputs=where,
    )
    refused: list[str] = []
    run = record(request, refused)
    assert len(refused) == 1
    assert "input 2 of" in refused[0]
    assert "m.png" in refused[0]
    assert run.info.requests == run.checked == -(-11 // batch) + -(-5 // batch)
    if outputs == "out":
        numbers = [[int(file.stem) for file in sorted((where / str(k)).iterdir())] for k in range(2)]
        values = [np.load(where / "0" / f"{k:09d}.npz")["output_0"] for k in numbers[0]]
    else:
        with np.load(where) as found:
            numbers = [found[f"{k}/request"].tolist() for k in range(2)]
            values = [found["0/output_0"]]
    assert numbers == [list(range(11)), [0, 1, 3, 4, 5]]
    np.testing.assert_allclose(np.concatenate(values), expected[:11], atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert [list(line["refused"]) for line in lines[1:] if line["refused"]] == [["2"]]


def test_a_refused_input_ends_the_run_if_asked(cut: CutModel, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "photos")
    (folder / "m.png").write_bytes(b"no image")
    request = DeployRequest(made(cut), tmp_path / "run", (folder,), transport="in-process", skip=False)
    with pytest.raises(InputError, match="refused input 2 of"):
        record(request, [])
    assert len(Run.load(tmp_path / "run").rows) == 2 * 5
    run = record(DeployRequest(made(cut), tmp_path / "run", (folder,), transport="in-process"), [])
    assert run.info.requests == 5


@pytest.mark.parametrize(("check", "compared"), [(0, 0), (2, 4), (None, 12)])
def test_so_many_requests_are_compared(
    cut: CutModel, tmp_path: Path, check: int | None, compared: int
) -> None:
    """Inputs that come again are compared again."""
    np.save(tmp_path / "in.npy", np.random.default_rng(1).normal(size=(6, 3, 32, 32)).astype(np.float32))
    request = DeployRequest(
        made(cut), tmp_path / "run", (tmp_path / "in.npy",), requests=12, transport="in-process", check=check
    )
    run = record(request, [])
    assert (run.info.requests, run.checked) == (12, compared)


def test_inputs_of_another_kind_are_refused(cut: CutModel, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((4, 3, 31, 32), np.float32))
    for inputs, problem in (
        ((tmp_path / "in.npy",), DocumentError),
        ((tmp_path / "absent",), InputError),
        ((Path("-"), Path("-")), InputError),
    ):
        with pytest.raises(problem):
            record(DeployRequest(made(cut), tmp_path / "run", inputs, transport="in-process"), [])
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch", [1, 4])
def test_deployed_in_python(
    cut: CutModel, tmp_path: Path, images: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], batch: int
) -> None:
    made(cut, batch).save(tmp_path / "plan.json")
    with runtime.deploy(tmp_path / "plan.json", fleet(), transport="in-process") as pipeline:
        answers = list(pipeline.map(images[:10]))
        assert [answer.request for answer in answers] == list(range(10))
        np.testing.assert_allclose(
            np.concatenate([answer.outputs[0] for answer in answers]), expected[:10], atol=1e-5
        )
        mixed = [images[0], images[1], np.zeros(3), images[2]]
        assert [answer.request for answer in pipeline.map(mixed, on_error="skip")] == [0, 1, 3]
        seen = []
        with pytest.raises(InputError, match="input 2: expected 1x3x32x32 float32, found 3 float64"):
            seen.extend(answer.request for answer in pipeline.map(mixed))
        assert seen == [0, 1]


def test_a_plan_that_does_not_fit_the_fleet_is_refused(cut: CutModel) -> None:
    with pytest.raises(MismatchError, match="does not fit the fleet"), runtime.deploy(made(cut), fleet("xy")):
        pass


def test_the_example_of_the_documents(
    cut: CutModel, workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "streams.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (example,) = [block for block in blocks if "runtime.deploy" in block]
    monkeypatch.syspath_prepend(ROOT / "tests")
    made(cut).save(workdir / "plan.json")
    (workdir / "example.py").write_text(example)
    runpy.run_path("example.py")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(8)]


def test_the_producer_of_the_documents_fills_a_pipe(workdir: Path) -> None:
    text = (ROOT / "docs" / "streams.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (producer,) = [block for block in blocks if "def send" in block]
    script = producer + "for k in range(3):\n    send(np.full((2, 3), k, np.float32))\n"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        frames = FrameSource(process.stdout, [TensorSpec((1, 2, 3))])
        found = [item.arrays[0][0, 0, 0] for item in frames.read(0) if isinstance(item, Input)]
    assert found == [0, 1, 2]
