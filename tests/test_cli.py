"""The commands as a user meets them: the main job, and bad input that ends in two lines, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from planner import Plan, load_fleet
from planner.run import Run
from runtime.cli import main

FLEET = """
schema = "edgecut.fleet/1"
source = "edge"
[device.edge]
battery = true
active_power_w = 2.0
emulate = { threads = 1, slowdown = 4.0 }
[device.server]
emulate = { threads = 1 }
[[link]]
between = ["edge", "server"]
bandwidth_bytes_per_s = 1e8
"""
TINY = ["models:Tiny", "--input-shape", "3x32x32"]
QUICK = ["--max-runs", "8", "--visit-ms", "0"]


@pytest.fixture(scope="session")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fleet and the tables of two devices, made by the commands."""
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "fleet.toml").write_text(FLEET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for arguments in (
            ["samples", *TINY, "--count", "3"],
            ["profile", *TINY, *QUICK, "--device", "edge", "--fleet", "fleet.toml"],
            ["profile", *TINY, *QUICK, "--device", "server", "--fleet", "fleet.toml"],
        ):
            patch.setattr("sys.argv", ["edgecut", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 0
    return folder


@pytest.fixture
def here(profiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of all that was profiled."""
    shutil.copytree(profiled, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


TABLES = ["--profiles", "profiles/models-Tiny-edge.csv", "profiles/models-Tiny-server.csv"]


@pytest.mark.parametrize("objective", ["latency", "energy"])
def test_the_main_job(here: Path, edgecut, objective: str) -> None:
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml", "--objective", objective)
    assert code == 0
    assert "optimal by CBC" in said
    assert "label setting finds the same" in said
    assert Plan.load(here / "plan.json").proof.objective == objective
    deploy = ["deploy", "plan.json", "--requests", "5", "--transport", "in-process", "-o", "run"]
    code, said = edgecut(*deploy, "--concurrency", "2")
    assert code == 0
    assert "outputs equal the whole model's" in said
    assert len(Run.load(here / "run").rows) >= 10
    code, said = edgecut("report", "run", *TABLES[1:], "-o", "report")
    assert code == 0
    assert "report/report.html" in said
    assert len(list((here / "report").glob("*.png"))) > 8


def test_inspect(edgecut) -> None:
    code, said = edgecut("inspect", "alexnet")
    assert code == 0
    assert "8 layers, 61,100,840 parameters, 0.71 GMAC" in said
    assert "1x9216 float32" in said


def test_profiling_again_resumes(here: Path, edgecut) -> None:
    before = (here / "profiles/models-Tiny-edge.csv").read_bytes()
    code, said = edgecut("profile", *TINY, "--device", "edge", "--fleet", "fleet.toml")
    assert (code, "6 were there before" in said) == (0, True)
    assert (here / "profiles/models-Tiny-edge.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["inspect", "alexnt"], 2, ["unknown model 'alexnt'", "alexnet"]),
        (["inspect", "alexnet", "--input-shape", "3x0x2"], 2, ["3x224x224"]),
        (["inspect", "alexnet", "--input-shape", "224"], 2, ["takes images"]),
        (["inspect", "nowhere:Net"], 2, ["nowhere"]),
        (["samples", *TINY, "--images", "nowhere"], 2, ["no such image folder"]),
        (["samples", *TINY, "-o", "profiles"], 1, ["holds no samples"]),
        (
            ["profile", *TINY, "--device", "egde", "--fleet", "fleet.toml"],
            2,
            ["unknown device 'egde'", "edge"],
        ),
        (
            ["profile", *TINY, "--device", "edge", "--backend", "torhc"],
            2,
            ["unknown backend 'torhc'", "torch"],
        ),
        (["profile", *TINY, "--device", "edge", "--precision", "fp8"], 2, ["precision", "fp32"]),
        (["profile", *TINY, "--device", "edge", "--cpus", "999"], 2, ["no processor [999]"]),
        (["profile", *TINY, "--device", "edge", "--batch", "0"], 2, ["--batch"]),
        (["profile", *TINY, "--device", "edge", "--samples", "nowhere"], 2, ["edgecut samples models:Tiny"]),
        (
            ["profile", "alexnet", "--device", "edge", "--samples", "samples/models-Tiny"],
            2,
            ["edgecut samples alexnet"],
        ),
        (["solve", *TABLES, "--fleet", "nowhere.toml"], 2, ["nowhere.toml", "no such file"]),
        (["solve", "--profiles", "nowhere.csv", "--fleet", "fleet.toml"], 2, ["no such file"]),
        (["solve", *TABLES, "--fleet", "fleet.toml", "--max-energy-mj", "-1"], 2, ["above 0"]),
        (["solve", *TABLES, "--fleet", "fleet.toml", "--max-latency-ms", "1e-6"], 1, ["least"]),
        (["solve", *TABLES, "--fleet", "fleet.toml", "--batch", "7"], 2, ["batch"]),
        (["solve", *TABLES, "profiles/models-Tiny-edge.csv", "--fleet", "fleet.toml"], 2, ["both measure"]),
        (["solve", *TABLES, "--fleet", "fleet.toml", "-o", "fleet.toml"], 2, ["exists and is no plan"]),
        (["profile", *TINY, "--device", "edge", "-o", "edge.json"], 2, ["must end in .csv"]),
        (["profile", *TINY, "--device", "a/b"], 2, ["use letters"]),
        (["deploy", "nowhere.json"], 2, ["no such file"]),
        (["deploy", "fleet.toml"], 2, ["not JSON"]),
        (["report", "nowhere"], 2, ["no such file"]),
        (["report", "fleet.toml"], 2, ["neither a run, a plan nor a profile"]),
        (["solve"], 2, ["Missing option"]),
        (["frobnicate"], 2, ["No such command"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, list) else str(value),
)
def test_bad_input_is_answered(here: Path, edgecut, arguments: list[str], code: int, says: list[str]) -> None:
    found, said = edgecut(*arguments)
    assert found == code, said
    for text in says:
        assert text in said


FLEETS = {
    "schema": ('schema = "edgecut.fleet/9"', "edgecut.fleet/1"),
    "unknown device": ('between = ["edge", "cloud"]', "'cloud' is not a device"),
    "zero bandwidth": ("bandwidth_bytes_per_s = 0.0", "must be above 0"),
    "negative bandwidth": ("bandwidth_bytes_per_s = -1e6", "must be above 0"),
    "wrong unit": ("bandwidth_mbps = 100", "1 Mbit/s is 125000"),
    "unknown key": ("bandwith_bytes_per_s = 1e6", "unknown key"),
    "wrong source": ('source = "egde"', "not a device"),
}


@pytest.mark.parametrize("fault", FLEETS)
def test_a_faulty_fleet_says_where(here: Path, edgecut, fault: str) -> None:
    line, says = FLEETS[fault]
    key = line.split()[0].replace("bandwidth_mbps", "bandwidth_bytes_per_s").replace("bandwith", "bandwidth")
    lines = [line if old.startswith(key) else old for old in FLEET.splitlines()]
    assert line in lines
    (here / "fleet.toml").write_text("\n".join(lines))
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    assert code == 2
    assert "fleet.toml" in said
    assert says in said


def test_a_table_of_another_emulation_is_refused(here: Path, edgecut) -> None:
    (here / "fleet.toml").write_text(FLEET.replace("slowdown = 4.0", "slowdown = 8.0"))
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    assert code == 2
    assert "edge was profiled with slowdown 4" in said


def test_unknown_energy_is_said(here: Path, edgecut) -> None:
    (here / "fleet.toml").write_text(FLEET.replace("active_power_w = 2.0", ""))
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    assert (code, "counted as 0" in said) == (0, True)
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml", "--objective", "energy")
    assert (code, "active_power_w" in said) == (1, True)


@pytest.mark.parametrize(
    "content", ['{"a": ' + "9" * 5000 + "}", "[" * 20000, "x = " + "[" * 20000, "x = " + "9" * 5000]
)
@pytest.mark.parametrize(
    "command", [["deploy", "f"], ["report", "f"], ["solve", *TABLES, "--fleet", "f"]], ids=str
)
def test_hostile_documents_are_refused(here: Path, edgecut, command: list[str], content: str) -> None:
    (here / "f").write_text(content)
    code, _ = edgecut(*command)
    assert code == 2


def test_a_fleet_without_a_route_says_so(here: Path, edgecut) -> None:
    (here / "fleet.toml").write_text(
        FLEET.split("[[link]]")[0].replace('source = "edge"', 'source = "edge"\nsink = "server"')
    )
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    assert code == 1
    assert "route" in said or "reach" in said


@pytest.mark.parametrize(
    "damage", ["missing rows", "half a row", "another model", "milliseconds", "no sidecar"]
)
def test_a_damaged_table_says_where(here: Path, edgecut, damage: str) -> None:
    table = here / "profiles/models-Tiny-edge.csv"
    text = table.read_text()
    if damage == "missing rows":
        table.write_text("\n".join(text.splitlines()[:-2]) + "\n")
    elif damage == "half a row":
        table.write_text(text[:-20])
    elif damage == "milliseconds":
        table.write_text(text.replace("latency_s", "latency_ms", 1))
    elif damage == "no sidecar":
        table.with_suffix(".json").unlink()
    else:
        sidecar = table.with_suffix(".json")
        sidecar.write_text(sidecar.read_text().replace('"digest": "', '"digest": "0'))
    code, said = edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    assert code in (1, 2)
    expected = {
        "missing rows": "edgecut profile",
        "half a row": "half-written",
        "another model": "was measured on",
        "milliseconds": "divide milliseconds by 1000",
        "no sidecar": "models-Tiny-edge.json",
    }
    assert expected[damage] in said
    assert not (here / "plan.json").exists()


def test_a_plan_nobody_can_run(here: Path, edgecut) -> None:
    edgecut("solve", *TABLES, "--fleet", "fleet.toml")
    plan = (here / "plan.json").read_text()
    for old, new, says in (
        ('"backend": "torch"', '"backend": "tensrort"', "tensrort"),
        ('"precision": "fp32"', '"precision": "fp7"', "fp7"),
        ('"stop": 3', '"stop": 4', "the stages end at layer 4"),
        ('"name": "models:Tiny"', '"name": "models:Views"', ""),
        ('"emulate": {', '"emulate": null, "was": {', "unknown key"),
    ):
        assert old in plan
        (here / "changed.json").write_text(plan.replace(old, new))
        code, said = edgecut("deploy", "changed.json", "--transport", "in-process")
        assert code in (1, 2)
        assert says in said


def test_corrupt_images_are_skipped_and_counted(here: Path, edgecut) -> None:
    (here / "images").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (80, 60), (200, 30, 90)).save(here / "images" / name)
    (here / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    code, said = edgecut("samples", *TINY, "--images", "images", "-o", "fresh")
    assert code == 0
    assert "skipped images/broken.jpg" in said
    assert "2 samples; 1 unreadable files skipped" in said


ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("file", sorted((ROOT / "samples" / "fleets").glob("*.toml")))
def test_sample_fleets_load(file: Path) -> None:
    assert load_fleet(file).devices
