"""README and docs/: blocks run and print what is shown, command lines parse, links lead somewhere.

`pages.py` says how a page marks a block that is not run.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, ROOT, alike, blocks, patched, script
from PIL import Image
from strategies import make_codec_row, make_row

import planner
import profiler
from planner import Chain, Environment, InputSpec, ModelSource, Sidecar
from planner.codec_table import append_codec_row, codec_file
from runtime.cli import main

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Networks of the documents, and what stands for them.
MODELS = {"alexnet", "resnet18", "resnet50"}
SMALL = ["nets:Small", "--input-shape", "3x32x32"]
# What makes a command quick; what it does is the same.
QUICKLY = {
    "profile": ["--max-runs", "4", "--visit-ms", "0", "--codecs", "zstd"],
    "bench": ["--max-runs", "4", "--visit-ms", "0"],
    "deploy": ["--transport", "in-process"],
}
FLEET = """
schema = "edgecut.fleet/1"
source = "edge"
[device.edge]
battery = true
active_power_w = 2.0
emulate = { threads = 1 }
[device.server]
emulate = { threads = 1 }
[[link]]
between = ["edge", "server"]
preset = "wifi"
"""
JOBS = """
schema = "edgecut.job/1"
fleet = "fleet.toml"
[stream.camera]
profiles = ["edge.csv", "server.csv"]
rate_per_s = 1.0
"""


def edgecut(arguments: Iterable[str]) -> int:
    """Run a command here; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["edgecut", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: a fleet, feature maps, two tables, a plan, photographs, a job.

    The network is real; what its tables say is made up, as measuring is what the pages themselves do.
    """
    folder = tmp_path_factory.mktemp("pages")
    (folder / "fleet.toml").write_text(FLEET)
    (folder / "jobs.toml").write_text(JOBS)
    (folder / "photos").mkdir()
    for number in range(8):
        Image.effect_noise((40, 40), 20 + number).convert("RGB").save(folder / f"photos/{number}.png")
    rows = "".join(f"{number},{number % 3}\n" for number in range(8))
    (folder / "labels.csv").write_text(rows)
    np.savez(folder / "evening.npz", arg_0=np.zeros((3, 3, 32, 32), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(ROOT / "tests")
        source = ModelSource("nets:Small", inputs=(InputSpec((3, 32, 32)),))
        model = profiler.load_model(source)
        cut = profiler.cut_model(model)
        profiler.write_samples(cut, profiler.model_samples(model, count=8), f"samples/{source.label}")
        for device, layer_s in (("edge", 0.0015), ("server", 0.001)):
            made_up(cut.chain, device, layer_s)
        tables = ["edge.csv", "server.csv"]
        assert edgecut(["solve", "--fleet", "fleet.toml", "--profiles", *tables, "-o", "plan.json"]) == 0
    return folder


def made_up(chain: Chain, device: str, layer_s: float) -> None:
    """The tables of a device whose every layer takes as long, in profiles/ and under a short name beside it."""
    sidecar = Sidecar(device, chain, Environment("host", "x86", "3.11", {}, 1, (0,)), "now", "samples")
    rows = [make_row(device, each.start, each.stop, layer_s * len(each)) for each in chain.bundles()]
    for table in (Path(f"{device}.csv"), Path(f"profiles/alexnet-{device}.csv")):
        planner.save_table(table, sidecar, rows)
        for boundary in range(len(chain) + 1):
            size = chain.wire_bytes(boundary)
            for codec, share, sqnr_db in (("zstd", 0.6, None), ("int8-zstd", 0.1, 40.0)):
                row = make_codec_row(
                    device, boundary, codec, round(size * share), 1e-4, 1e-4, sqnr_db=sqnr_db
                )
                append_codec_row(codec_file(table), row)


@pytest.fixture
def workplace(bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(bench, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(ROOT / "tests")
    monkeypatch.syspath_prepend(tmp_path / "here")
    known = set(sys.modules)
    yield tmp_path / "here"
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def substituted(arguments: list[str]) -> list[str]:
    """The arguments, with the network that stands for those of the pages, and file names spelled out."""
    found: list[str] = []
    for word in arguments:
        if word in MODELS:
            found += SMALL
            continue
        word = word.replace("profiles/resnet18-", "profiles/nets-Small-")  # measured by the page itself
        found += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    return found + QUICKLY.get(arguments[0], [])


def runs(page: Path) -> bool:
    found = blocks(page)
    return any(block.language in ("sh", "python") and not block.mark for block in found) and not any(
        block.language == "diff" for block in found
    )


@pytest.mark.parametrize("name", [name for name, page in zip(NAMES, PAGES, strict=True) if runs(page)])
def test_blocks_run_and_say_what_is_shown(
    name: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables: dict[str, object] = {}
    said = ""
    capsys.readouterr()
    for block in blocks(ROOT / name):
        where = f"{name} line {block.line}"
        if block.mark == "output":
            assert alike(said, block.text, measured=block.note == "measured"), (
                f"{where} shows other than\n{said}"
            )
        elif block.mark == "file":
            Path(block.note).parent.mkdir(parents=True, exist_ok=True)
            Path(block.note).write_text(block.text)
        elif block.mark == "not run":
            continue
        elif block.language == "python":
            file = Path(f"block-{block.line}.py")
            file.write_text(block.text)
            variables = runpy.run_path(str(file), variables, "__main__")
            said = capsys.readouterr().out
        elif block.language == "sh":
            for command in script(block):
                assert command[0] == "edgecut", f"{where}: {command} is run by nobody; mark it as not run"
                code = edgecut(substituted(command[1:]))
                said, complained = capsys.readouterr()
                assert code == 0, f"{where}: {' '.join(command)} ended with {code}: {complained}"


def test_what_is_added_to_the_sources_works(workplace: Path) -> None:
    """The page that says how to extend them, in a copy of the sources and a process of its own."""
    found = blocks(ROOT / "docs" / "extending.md")
    copy = workplace / "sources"
    for package in ("planner", "profiler", "runtime"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    script = ""
    for block in found:
        if block.language == "diff":
            file = copy / block.text.splitlines()[0].removeprefix("--- ")
            file.write_text(patched(file.read_text(), block.text))
        elif block.mark == "file":
            (copy / block.note).write_text(block.text)
        elif block.language == "python":
            script += f"{block.text}\nprint(end='\\f')\n"
    environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{ROOT / 'tests'}"}
    (workplace / "extending.py").write_text(script)
    command = [sys.executable, "extending.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    shown = [block.text for block in found if block.mark == "output"]
    assert len(shown) == 4
    for said, text in zip(done.stdout.split("\f"), shown, strict=False):
        assert alike(said, text, measured=False), said


@pytest.mark.parametrize("name", NAMES)
def test_marks_are_understood(name: str) -> None:
    for block in blocks(ROOT / name):
        if block.mark == "not run":
            assert block.language in ("sh", "python")
            assert len(block.note) > 8, f"line {block.line}: say why it is not run"
            for file in re.findall(r"tests/\w+\.py", block.note):
                assert (ROOT / file).exists(), file
        if block.mark == "file":
            assert block.note
        if block.mark == "output":
            assert block.note in ("", "measured")
    text = (ROOT / name).read_text()
    assert text.count("```") == 2 * len(blocks(ROOT / name))
    known = sum(block.mark != "" for block in blocks(ROOT / name))
    assert len(re.findall(r"<!-- (?:not run|file|output(?! of))", text)) == known, "a mark above no block"
    assert not re.search(r"^[A-Z]{4,}$", text, flags=re.MULTILINE), "a placeholder was left in"


def test_what_is_measured_may_differ_in_numbers_alone() -> None:
    shown = "edge   8.39 ms\n ─────\n total  84.30"
    assert alike("edge 12.1 ms\n ───────\n total   1,084.3", shown, measured=True)
    assert not alike("server 8.39 ms\n total 84.30", shown, measured=True)
    assert not alike("edge   8.40 ms\n ─────\n total  84.30", shown, measured=False)
