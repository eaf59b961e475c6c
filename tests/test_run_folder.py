"""A run on disk: whatever moment it was killed at, going on gives what an undisturbed run gives."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from strategies import make_chain

from planner.chain import Bundle, TensorSpec
from planner.errors import DocumentError, InputError, MismatchError, StorageError
from planner.fleet import Device, Fleet
from planner.limits import Limits
from planner.plan import Cost, Outcome, Plan, Proof, Stage, Variant
from planner.run import Run, RunInfo
from planner.run_marks import Marks, read_clocks, read_marks
from planner.run_rows import RunRow
from runtime.batching import Group, Input, Refusal, grouped
from runtime.clock_offset import Offset
from runtime.results import Outputs, StreamOutputs, open_outputs
from runtime.run_folder import RunFolder, StreamNote

SPECS = [TensorSpec((1, 2)), TensorSpec((1,), "int64")]
NOTES = [StreamNote("camera", "abc"), StreamNote("disk", "def")]


def info(batch: int = 2) -> RunInfo:
    proof = Proof("by hand", Outcome.FEASIBLE, "latency", 0.5, 0.0, 1.0, 1, 1, {}, "none", {"latency": 1.0})
    stage = Stage("a", Bundle(0, 1), Variant("torch"), Cost(0.5, 0.0))
    fleet = Fleet("a", "a", (Device("a"),), ())
    plan = Plan(make_chain([4, 4]), fleet, batch, Limits(), (stage,), (), Cost(0.5, 0.0), proof)
    return RunInfo(plan, "2026-01-01T00:00:00+00:00", "zenoh", 2, 1e-4, 0.0, 0)


def items(stream: int, count: int) -> Iterator[Input | Refusal]:
    for number in range(count):
        value = 10.0 * stream + number
        arrays = np.full((1, 2), value, np.float32), np.array([number * (-1) ** stream])
        yield Refusal(number, "too dark") if number % 5 == 3 else Input(number, arrays)


def stream_groups(count: int) -> list[tuple[int, Group]]:
    """Of two streams in turn; each group's tensors serve as its outputs."""
    streams = [list(grouped(items(stream, count), 2)) for stream in range(2)]
    return [(stream, groups[k]) for k in range(len(streams[0])) for stream, groups in enumerate(streams)]


def go_on(folder: Path, outputs: Outputs, where: Path | None, count: int, most: int | None = None) -> int:
    """Answer up to ``most`` of the groups that are left; how many there were."""
    with RunFolder(folder, info(), NOTES, outputs, where) as run:
        left = [each for each in stream_groups(count) if each[1].begin >= run.next_inputs[each[0]]]
        for stream, group in left[:most]:
            rows = [RunRow(run.next_request, kind, 0, 0.5, 0.5, 0.0) for kind in ("stage", "total")]
            marks = Marks(run.next_request, 0, 7, (run.next_request, 10**9)) if group.tensors else None
            run.note_clocks({"a": Offset(run.next_request // 3, 5)}, run.at_s)
            run.add(stream, group, group.tensors, rows if group.tensors else [], run.at_s + 0.25, marks)
        if most is None:
            run.finish()
        return len(left)


def content(where: Path) -> dict[str, object]:
    if where.is_dir():
        files = sorted(file for file in where.rglob("*.npz") if not file.name.startswith("."))
        return {str(file.relative_to(where)): content(file) for file in files}
    with np.load(where, allow_pickle=False) as found:
        return {name: found[name].tolist() for name in found.files}


def half_write(folder: Path, chance: random.Random) -> None:
    """What a killed run may leave behind its last answer."""
    for file in folder.glob("*"):
        if file.suffix in (".csv", ".jsonl", ".bin") and chance.random() < 0.7:
            with file.open("ab") as opened:
                opened.write(b'{"stream": 0, "be'[: chance.randint(1, 17)])


@pytest.mark.parametrize("where", ["out", "out.npz"])
@pytest.mark.parametrize("seed", range(6))
def test_killed_and_begun_again_is_as_if_undisturbed(tmp_path: Path, where: str, seed: int) -> None:
    chance = random.Random(seed)
    results = []
    for name in ("whole", "killed"):
        folder, target = tmp_path / name, tmp_path / name / where
        folder.mkdir()

        def answered(most: int | None, folder: Path = folder, target: Path = target) -> int:
            outputs = open_outputs(target, folder / "run", 2, SPECS)
            return go_on(folder / "run", outputs, target, 13, most)

        left = answered(None) if name == "whole" else len(stream_groups(13))
        while name == "killed" and left:
            most = chance.randint(0, 4)
            assert answered(most) == left
            left = max(left - most, 0)
            half_write(folder / "run", chance)
        answered(None)
        found = Run.load(folder / "run")
        marks = list(read_marks(folder / "run"))
        results.append((content(target), found.rows, found.info.requests, marks))
        assert [row.offset_s for row in read_clocks(folder / "run")][-1] == (
            found.info.requests - 1
        ) // 3 / 1e9
    assert results[0] == results[1]
    rows = results[0][1]
    assert [row.request for row in rows if row.kind == "total"] == list(range(results[0][2]))
    arrays = results[0][0]
    if where == "out":
        assert arrays["1/000000004.npz"] == {"output_0": [[14.0, 14.0]], "output_1": [-4]}
        assert "1/000000003.npz" not in arrays
    else:
        assert arrays["0/request"] == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12]
        assert arrays["1/output_1"] == [0, -1, -2, -4, -5, -6, -7, -9, -10, -11, -12]


def test_standard_output_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    def run(folder: Path, most: int | None) -> bytes:
        shown = tmp_path / "shown"
        outputs = StreamOutputs(shown.open("wb"), folder, SPECS)
        with RunFolder(folder, info(), NOTES[:1], outputs, Path("-")) as opened:
            left = [group for stream, group in stream_groups(9) if not stream]
            for group in [group for group in left if group.begin >= opened.next_inputs[0]][:most]:
                opened.add(0, group, group.tensors, [], 0.0)
            if most is None:
                opened.finish()
        return shown.read_bytes()

    whole = run(tmp_path / "whole", None)
    part = run(tmp_path / "killed", 2)
    assert whole.startswith(part)
    assert run(tmp_path / "killed", None) == whole
    assert run(tmp_path / "killed", None) == whole
    stream = io.BytesIO(whole)
    arrays = [np.load(stream, allow_pickle=False) for _ in range(2 * 7)]
    assert not stream.read()
    assert [float(array[0, 0]) for array in arrays[::2]] == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("plan", "another plan"), ("inputs", "whose inputs have changed"),
        ("name", "over camera, disk, not over camera, web"),
        ("count", "not over camera"), ("outputs", "was begun with outputs to none"), ("damaged", "line 2"),
        ("rows", "lacks rows"), ("other", "cannot go on"), ("schema", "line 1"),
    ],
)  # fmt: skip
def test_a_run_goes_on_only_as_the_one_begun(tmp_path: Path, change: str, says: str) -> None:
    folder = tmp_path / "run"
    go_on(folder, open_outputs(None, folder, 2, SPECS), None, 9, 3)
    log, notes, where, batch = folder / "answers.jsonl", NOTES, None, 2
    lines = log.read_text().splitlines()
    if change == "plan":
        batch = 3
    elif change == "inputs":
        notes = [NOTES[0], StreamNote("disk", "other")]
    elif change == "name":
        notes = [NOTES[0], StreamNote("web", "def")]
    elif change == "count":
        notes = NOTES[:1]
    elif change == "outputs":
        where = tmp_path / "out.npz"
    elif change == "damaged":
        log.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    elif change == "rows":
        (folder / "run.csv").write_text("request")
    elif change == "other":
        log.unlink()
    elif change == "schema":
        log.write_text("\n".join(['{"schema": "edgecut.answers/1"}', *lines[1:]]) + "\n")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises((MismatchError, DocumentError, StorageError), match=says):
        RunFolder(folder, info(batch), notes, open_outputs(where, folder, len(notes), SPECS), where)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_two_deployments_do_not_share_a_run(tmp_path: Path) -> None:
    outputs = open_outputs(None, tmp_path, 2, SPECS)
    with (
        RunFolder(tmp_path / "run", info(), NOTES, outputs, None),
        pytest.raises(MismatchError, match="another deploy"),
    ):
        RunFolder(tmp_path / "run", info(), NOTES, outputs, None)


@pytest.mark.parametrize("where", ["-", "out.npy", "file"])
def test_outputs_that_cannot_be(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    place = Path("-") if where == "-" else tmp_path / where
    with pytest.raises(InputError, match="standard output takes" if where == "-" else "outputs go to"):
        open_outputs(place, tmp_path, 2, SPECS)


def test_every_refusal_is_kept_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go_on(folder, open_outputs(None, folder, 2, SPECS), None, 9)
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()[1:]]
    assert {(line["stream"], k, why) for line in lines for k, why in line["refused"].items()} == {
        (0, "3", "too dark"), (0, "8", "too dark"), (1, "3", "too dark"), (1, "8", "too dark"),
    }  # fmt: skip
