"""What the doctor says of machines of many kinds, and of this one, where it tries everything for real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from planner.errors import UnknownNameError
from planner.recipe import PRECISIONS
from profiler import backends, capability, doctor
from profiler.capability import gpu_obstacle, obstacle, processor_features
from profiler.cuda import Gpu
from profiler.doctor import Finding, State, examine, run_trials
from profiler.energy import hwmon, nvml, probe, rapl
from profiler.energy.meter import Probe
from profiler.machine import describe_machine
from runtime.cli import cli
from runtime.commands.doctor import grouped

MakeTree = Callable[..., Path]
X86 = "processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu sse2 avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd0b\n"


@pytest.fixture
def tree(tmp_path: Path) -> MakeTree:
    """Makes a file system of the files given, with their text."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the capabilities of this process those of another machine."""

    def become(
        lacks: tuple[str, ...] = (),
        gpu: tuple[int, int] | None = None,
        features: str = "avx2",
        compilers: tuple[str, ...] = ("g++",),
        providers: tuple[str, ...] = (),
    ) -> None:
        found = Gpu("GPU", gpu, "12.8") if gpu else None
        monkeypatch.setattr(capability, "find_gpu", lambda: found)
        monkeypatch.setattr(capability, "installed", lambda name: name not in lacks)
        monkeypatch.setattr(capability, "processor_features", lambda: frozenset(features.split()))
        monkeypatch.setattr(capability, "_has_provider", lambda name: name in providers)
        monkeypatch.setattr("shutil.which", lambda name: name if name in compilers else None)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("CXX", raising=False)

    return become


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, "fpu sse2 avx2"),
        (ARM, "fp asimd asimdhp asimddp"),
        ("", ""),
        ("no colon\n: x\n", ""),
        ("flags:", ""),
    ],
)
def test_features_are_those_of_every_processor(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor_features(tmp_path / "cpuinfo") == set(expected.split())


def test_features_are_unknown_where_the_system_lists_none(tmp_path: Path) -> None:
    assert processor_features(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize("name", backends.NAMES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_machine_with_everything_has_no_obstacle(
    machine: Callable[..., None], name: str, precision: str
) -> None:
    machine(gpu=(9, 0), features="avx512_bf16 avx512_fp16", providers=("cuda", "tensorrt"))
    found = obstacle(name, precision)
    if precision not in backends.entry(name).precisions:
        assert found is not None
        assert f"{name} has no precision {precision}" in found.problem
        assert "onnxruntime" in found.remedy
    elif (name, precision) != ("onnxruntime", "bf16"):  # which is asked of the one installed here
        assert found is None


@pytest.mark.parametrize("name", backends.NAMES)
def test_a_bare_machine_says_what_to_install_or_that_it_has_no_gpu(
    machine: Callable[..., None], name: str
) -> None:
    machine(lacks=("torch", "safetensors", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda"))
    found = obstacle(name, "fp32")
    assert found is not None
    if backends.entry(name).gpu and name != "tensorrt-rtx":
        assert found.problem == "no NVIDIA GPU here"
    else:
        assert "torch" in found.problem
        assert re.fullmatch(r"pip install 'edgecut\[[a-z-]+\]'", found.remedy)


@pytest.mark.parametrize(
    ("backend", "precision", "here", "problem", "remedy"),
    [
        ("torch", "bf16", {"features": "avx2 avx512f"}, "no bf16 instructions", "use fp32"),
        ("torch", "fp16", {"features": "avx512_bf16"}, "no fp16 instructions", "use fp32"),
        ("torch", "bf16", {"features": "asimd asimdhp"}, "no bf16 instructions", "use fp32"),
        ("torch-compile", "fp16", {"features": "asimd"}, "no fp16 instructions", "use fp32"),
        ("torch", "bf16", {"features": "amx_bf16"}, None, None),
        ("torch", "bf16", {"features": "asimd bf16"}, None, None),
        ("torch", "fp16", {"features": "asimd asimdhp fphp"}, None, None),
        ("torch", "fp16", {"features": ""}, None, None),  # not known is not lacking
        ("torch", "fp32", {"features": "sse2"}, None, None),
        ("torch", "fp32", {"compilers": ()}, None, None),
        ("torch-compile", "fp32", {"compilers": ()}, "C++ compiler", "g++"),
        ("torch-compile", "fp32", {"compilers": ("clang++",)}, None, None),
        ("torch-cuda", "fp32", {"gpu": (5, 3)}, None, None),
        ("torch-cuda", "bf16", {"gpu": (7, 5)}, "needs compute capability 8.0; GPU has 7.5", "use fp32"),
        ("torch-compile-cuda", "fp32", {"gpu": (6, 2)}, "needs compute capability 7.0", "torch-cuda"),
        ("torch-compile-cuda", "fp32", {"gpu": (8, 7), "lacks": ("triton",)}, "triton", "pip install triton"),
        ("onnxruntime-cuda", "fp32", {"gpu": (8, 7)}, "no CUDA provider", "pip install onnxruntime-gpu"),
        (
            "onnxruntime-tensorrt",
            "fp32",
            {"gpu": (8, 7), "providers": ("cuda",)},
            "TensorRT provider",
            "-gpu",
        ),
        ("onnxruntime-cuda", "fp32", {"gpu": (8, 7), "lacks": ("onnx",)}, "onnx is not installed", "[onnx]"),
        ("tensorrt", "fp32", {"gpu": (8, 7), "lacks": ("tensorrt",)}, "tensorrt is not", "[tensorrt]"),
        ("tensorrt", "int8", {"gpu": (5, 3)}, "needs compute capability 6.1", "use fp32"),
        ("tensorrt", "fp16", {"gpu": (5, 3)}, None, None),
        ("tensorrt", "bf16", {"gpu": (7, 2)}, "needs compute capability 8.0", "use fp32"),
        (
            "tensorrt-rtx",
            "fp32",
            {"gpu": (7, 0)},
            "tensorrt-rtx needs compute capability 7.5",
            "onnxruntime-cuda",
        ),
        ("tensorrt-rtx", "fp32", {"gpu": (12, 0), "lacks": ("pycuda",)}, "pycuda", "edgecut[cuda]"),
        (
            "tensorrt-rtx",
            "fp32",
            {"lacks": ("tensorrt_rtx", "pycuda")},
            "tensorrt_rtx is not",
            "[tensorrt-rtx]",
        ),
        ("tensorrt-rtx", "fp32", {"lacks": ("pycuda",)}, "no NVIDIA GPU", "machine"),
    ],
)
def test_what_stands_in_the_way(
    machine: Callable[..., None], backend: str, precision: str, here: dict[str, object],
    problem: str | None, remedy: str | None,
) -> None:  # fmt: skip
    machine(**here)
    found = obstacle(backend, precision)
    if problem is None or remedy is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found.problem
        assert remedy in found.remedy


def test_a_compiler_named_in_the_environment_counts(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(compilers=("my-compiler",))
    monkeypatch.setenv("CXX", "my-compiler")
    assert obstacle("torch-compile", "fp32") is None


def test_bf16_of_onnxruntime_is_asked_of_the_one_installed() -> None:
    pytest.importorskip("onnxruntime")
    lacking = capability._without_bf16()
    found = obstacle("onnxruntime", "bf16")
    if lacking:
        assert found is not None
        assert all(name in found.problem for name in lacking)
    else:
        assert found is None


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="torhc"):
        obstacle("torhc", "fp32")
    with pytest.raises(UnknownNameError):
        examine(["torch", "torhc"], quick=True)


def test_a_broken_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert capability.installed("json")
    assert not capability.installed("no_such_library")
    assert not capability.installed("json.no_such.module")
    monkeypatch.setitem(sys.modules, "half_loaded", SimpleNamespace(__spec__=None))
    assert not capability.installed("half_loaded")


@pytest.mark.parametrize(
    ("files", "hidden", "problem", "remedy"),
    [
        ({}, None, "no NVIDIA GPU here", "use a machine with an NVIDIA GPU"),
        ({}, "", "hides the GPU", "unset CUDA_VISIBLE_DEVICES"),
        ({}, "-1", "hides the GPU", "unset CUDA_VISIBLE_DEVICES"),
        ({"etc/nv_tegra_release": "# R36"}, None, "Jetson", "nvidia-jetpack"),
        ({"dev/nvhost-gpu": ""}, "0", "Jetson", "nvidia-jetpack"),
        ({"proc/driver/nvidia/version": "NVRM"}, None, "driver is loaded", "nvidia-smi"),
        ({"dev/nvidia0": ""}, None, "driver is loaded", "nvidia-smi"),
        ({"sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n"}, None, "has no driver", "ubuntu-drivers"),
        ({"sys/bus/pci/devices/0000:01:00.0/vendor": "0x1002\n"}, None, "no NVIDIA GPU here", "machine"),
    ],
)
def test_why_there_is_no_gpu(
    machine, tree: MakeTree, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], hidden: str | None,
    problem: str, remedy: str,
) -> None:  # fmt: skip
    machine()
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    found = gpu_obstacle(tree(files))
    assert found is not None
    assert problem in found.problem
    assert remedy in found.remedy


RAPL = "sys/class/powercap/intel-rapl:0"
HWMON = "sys/class/hwmon/hwmon3"
INA = {
    f"{HWMON}/name": "ina3221\n", f"{HWMON}/in1_label": "VDD_IN\n", f"{HWMON}/in1_input": "5000\n",
    f"{HWMON}/curr1_input": "900\n", f"{HWMON}/in2_input": "5000\n", f"{HWMON}/curr2_input": "100\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("files", "works", "detail", "remedy"),
    [
        ({f"{RAPL}/energy_uj": "123456\n", f"{RAPL}/name": "package-0\n"}, True, "counters package-0", ""),
        ({f"{RAPL}/energy_uj": "123456\n"}, True, "counters intel-rapl:0", ""),
        ({f"{RAPL}/energy_uj": "no number\n"}, False, "cannot be read", "outside"),
        ({"proc/cpuinfo": "flags: sse2"}, False, "no counters under", "sudo modprobe intel_rapl_msr"),
        ({"proc/cpuinfo": "flags: sse2 hypervisor"}, False, "virtual machine", "hosts it"),
        ({"proc/cpuinfo": ARM}, False, "only Intel and AMD", ""),
        ({}, False, "only Intel and AMD", ""),
    ],
)
def test_rapl(tree: MakeTree, files: dict[str, str], works: bool, detail: str, remedy: str) -> None:
    found = rapl.probe(tree(files))
    assert (found.works, found.name) == (works, "RAPL")
    assert detail in found.detail
    assert remedy in found.remedy
    assert bool(found.remedy) == bool(remedy)


@pytest.mark.parametrize(
    ("files", "works", "detail", "remedy"),
    [
        (INA, True, "sensors ina3221 VDD_IN, ina3221 channel 2", ""),
        ({f"{HWMON}/name": "ina226", f"{HWMON}/power1_input": "90"}, True, "sensors ina226", ""),
        ({f"{HWMON}/name": "amdgpu", f"{HWMON}/power1_average": "90"}, True, "sensors amdgpu", ""),
        # A USB-C port tells current and voltage of different things; a thermometer neither.
        (
            {f"{HWMON}/name": "ucsi", f"{HWMON}/in0_input": "5", f"{HWMON}/curr1_input": "1"},
            False,
            "no power",
            "out",
        ),
        ({f"{HWMON}/name": "coretemp", f"{HWMON}/temp1_input": "40000"}, False, "no power sensor", "outside"),
        ({f"{HWMON}/name": "ina226", f"{HWMON}/power1_input": "broken"}, False, "no power sensor", "outside"),
        ({"etc/nv_tegra_release": "# R36"}, False, "this Jetson", "sudo modprobe ina3221"),
        (
            {
                "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": "2500",
                "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN\n",
            },
            True,
            "sensors ina3221x POM_5V_IN",
            "",
        ),
        ({}, False, "no power sensor", "outside"),
    ],
)
def test_board_sensors(tree: MakeTree, files: dict[str, str], works: bool, detail: str, remedy: str) -> None:
    found = hwmon.probe(tree(files))
    assert found.works == works
    assert detail in found.detail
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("ask", "files", "command"),
    [
        (
            rapl.probe,
            {f"{RAPL}/energy_uj": "1"},
            "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj",
        ),
        (hwmon.probe, INA, f"sudo chmod a+r /{HWMON}/*_input"),
    ],
)
def test_what_only_root_may_read(
    tree: MakeTree,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Path], Probe],
    files,
    command: str,
) -> None:
    root, opened = tree(files), os.open

    def refuse(file: Path | str, *options: int) -> int:
        if str(file).endswith(("_input", "_uj")):  # tests may run as root, whom no mode keeps out
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *options)

    monkeypatch.setattr("profiler.energy.sysfs.os.open", refuse)
    found = ask(root)
    assert not found.works
    assert found.remedy == command


@pytest.mark.parametrize(
    ("ports", "library", "allowed", "works", "remedy"),
    [
        ((), True, True, False, "connect the meter"),
        (("dev/ttyUSB0",), False, True, False, "pip install 'edgecut[energy]'"),
        (("dev/ttyUSB0",), True, False, False, 'sudo usermod -aG dialout "$USER"'),
        (("dev/ttyUSB0", "dev/ttyUSB1"), True, True, True, ""),
    ],
)
def test_serial_meter(
    tree: MakeTree, monkeypatch: pytest.MonkeyPatch, ports: tuple[str, ...], library: bool, allowed: bool,
    works: bool, remedy: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("profiler.energy.probe.installed", lambda name: library)
    monkeypatch.setattr("os.access", lambda *arguments: allowed)
    found = probe.serial_meter(tree(dict.fromkeys(ports, "")))
    assert found.works == works
    assert found.remedy.startswith(remedy)
    assert all(f"/{port}" in found.detail for port in ports)


class NvmlError(Exception):
    pass


def nvml_library(lacks: str = "") -> SimpleNamespace:
    """NVML as far as it is asked, failing at one function."""

    def function(name: str, value: object = None) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if name == lacks:
                raise NvmlError("Not Supported")
            return value

        return call

    values = {
        "nvmlInit": None, "nvmlShutdown": None, "nvmlDeviceGetHandleByIndex": 1,
        "nvmlDeviceGetTotalEnergyConsumption": 123_456, "nvmlDeviceGetPowerUsage": 45_600,
    }  # fmt: skip
    return SimpleNamespace(
        NVMLError=NvmlError, **{name: function(name, value) for name, value in values.items()}
    )


@pytest.mark.parametrize(
    ("lacks", "works", "detail"),
    [
        ("", True, "energy counter"),
        ("nvmlDeviceGetTotalEnergyConsumption", True, "45.6 W now"),
        ("nvmlDeviceGetHandleByIndex", False, "Not Supported"),
        ("nvmlInit", False, "Not Supported"),
    ],
)
def test_nvml_where_there_is_a_gpu(machine, monkeypatch, lacks: str, works: bool, detail: str) -> None:
    machine(gpu=(8, 6))
    monkeypatch.setattr("profiler.energy.nvml.installed", lambda name: True)
    monkeypatch.setattr("profiler.energy.nvml.find_gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "pynvml", nvml_library(lacks))
    found = nvml.probe()
    assert found.works == works
    assert detail in found.detail


def test_nvml_where_it_cannot_work(machine, monkeypatch, tree: MakeTree) -> None:
    machine()
    assert nvml.probe(tree({})).detail == "no NVIDIA GPU here"
    machine(gpu=(8, 6))
    monkeypatch.setattr("profiler.energy.nvml.installed", lambda name: False)
    assert nvml.probe(tree({})).remedy == "pip install 'edgecut[energy]'"
    assert "Jetson" in nvml.probe(tree({"etc/nv_tegra_release": "# R36"})).detail


@pytest.fixture
def trial_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in the place of the trials', which does what each request says."""
    if sys.platform == "win32":
        pytest.skip("needs a shell")
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\nshift 4\n"
        'for request in "$@"; do case $request in\n'
        "crash) kill -SEGV $$;; hang) exec sleep 60;; leave) exit 3;; cut) printf '{\"answer\"'; exit 0;;\n"
        'killed) kill -KILL $$;; *) echo "{\\"answer\\": \\"$request\\"}";; esac; done\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("failing", "problem"),
    [
        ("crash", "Segmentation fault"),
        ("killed", "Killed"),
        ("leave", "exit code 3"),
        ("cut", "ended the process"),
        ("hang", "not done after 1 s"),
    ],
)
def test_a_trial_that_ends_its_process_is_one_outcome(
    trial_process: None, failing: str, problem: str
) -> None:
    first, second, third, fourth = run_trials(["a", failing, "b", failing], timeout_s=1.0)
    assert (first, third) == ({"answer": "a"}, {"answer": "b"})
    assert problem in second["problem"]
    assert problem in fourth["problem"]


def test_no_trial_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert list(run_trials([])) == []


@pytest.mark.parametrize(
    ("precision", "sqnr_db", "state"),
    [
        ("int8", 1.0, State.LACKING),
        ("int8", 17.8, State.WORKS),
        ("fp32", 12.0, State.LACKING),
        ("fp32", None, State.WORKS),
        ("bf16", float("-inf"), State.LACKING),
    ],
)
def test_wrong_outputs_do_not_count_as_working(
    monkeypatch: pytest.MonkeyPatch, precision: str, sqnr_db: float | None, state: State
) -> None:
    outcome = {"sqnr_db": sqnr_db, "prepare_s": 1.0, "latency_s": 0.1}
    monkeypatch.setattr(doctor, "obstacle", lambda name, precision: None)
    monkeypatch.setattr(doctor, "run_trials", lambda requests: iter([outcome] * len(requests)))
    found = {finding.precision: finding for finding in examine(["onnxruntime"])}[precision]
    assert found.state is state
    assert ("outputs are wrong" in found.detail) == (state is State.LACKING)


def test_grouped_names_precisions_only_where_they_differ() -> None:
    def of(backend: str, precision: str, detail: str) -> Finding:
        return Finding(backend, precision, State.LACKING, detail)

    findings = [of("a", "fp32", "no"), of("a", "fp16", "no"), of("b", "fp32", ""), of("b", "fp16", "no")]
    assert grouped(findings, lambda finding: finding.detail) == {"no": ["a", "b fp16"]}


@pytest.fixture(scope="module")
def examined() -> dict[tuple[str, str], Finding]:
    """This machine, everything tried."""
    told: list[str] = []
    found = examine(progress=told.append)
    variants = [(name, precision) for name in backends.NAMES for precision in backends.entry(name).precisions]
    assert [(finding.backend, finding.precision) for finding in found] == variants
    assert sorted(told) == sorted(f"{name} {precision}" for name, precision in variants)
    return {(finding.backend, finding.precision): finding for finding in found}


def test_every_finding_says_what_to_do(examined: dict[tuple[str, str], Finding]) -> None:
    for finding in examined.values():
        if finding.state is State.LACKING:
            assert finding.detail
            assert finding.remedy
        assert not re.search(r"(Attribute|Type|Name|Key|Index)Error", finding.detail), finding


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "mixed"])
@pytest.mark.parametrize("name", ["torch", "torch-compile", "onnxruntime"])
def test_what_has_no_obstacle_runs_here(
    examined: dict[tuple[str, str], Finding], name: str, precision: str
) -> None:
    if obstacle(name, precision) is not None:
        pytest.skip("has an obstacle here")
    found = examined[name, precision]
    assert found.state is State.WORKS, found.detail
    assert found.latency_s is not None
    assert found.sqnr_db is None or found.sqnr_db > doctor.LEAST_SQNR_DB[precision]


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt_rtx")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "mixed"])
def test_without_a_gpu_engines_are_built(examined: dict[tuple[str, str], Finding], precision: str) -> None:
    if gpu_obstacle() is None:
        pytest.skip("there is a GPU")
    found = examined["tensorrt-rtx", precision]
    assert found.state is State.BUILDS, found.detail
    assert "builds engines ahead of time; running needs an NVIDIA GPU" in found.detail


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in backends.NAMES if backends.entry(name).gpu])
def test_gpu_backends_that_have_no_obstacle_run(examined: dict[tuple[str, str], Finding], name: str) -> None:
    if obstacle(name, "fp32") is not None:
        pytest.skip("has an obstacle here")
    assert examined[name, "fp32"].state is State.WORKS, examined[name, "fp32"].detail


def run_doctor(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["doctor", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_command_prints_table_meters_and_remedies(machine) -> None:
    machine(lacks=("torch",))
    shown = run_doctor("--quick")
    assert describe_machine().processor in shown
    for name in (*backends.NAMES, *(meter.name for meter in probe.probe())):
        assert name in shown
    assert shown.count("pip install 'edgecut[torch]'") == 1
    assert "torch, torch-compile" in shown


def test_command_takes_backends_by_name(machine) -> None:
    machine(features="avx2")
    shown = run_doctor("--quick", "--backend", "torch,tensorrt")
    table = shown.partition("backends:")[2].partition("energy meters")[0]
    assert re.findall(r"^ (\S+)  ", table, re.M) == ["backend", "torch", "tensorrt"]
    assert "no bf16 instructions" in shown
    refused = CliRunner().invoke(cli, ["doctor", "--backend", "tensort"])
    assert isinstance(refused.exception, UnknownNameError)


def test_json_says_the_same() -> None:
    report = json.loads(run_doctor("--json", "--quick"))
    assert report["schema"] == "edgecut.doctor/1"
    assert report["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    findings = examine(quick=True)
    assert [(each["backend"], each["state"]) for each in report["backends"]] == [
        (finding.backend, finding.state.value) for finding in findings
    ]
    needed = {each["remedy"] for each in [*report["backends"], *report["meters"], *report["clocks"]]} - {""}
    assert set(report["remedies"]) == needed


def test_the_table_fits_a_terminal_of_100_columns() -> None:
    script = (
        "from rich.console import Console\nimport runtime.console as shown\n"
        "shown.console = lambda **options: Console(width=100, **options)\n"
        "from runtime.cli import cli\ncli(['doctor', '--quick'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.split()[:1] == ["onnxruntime-tensorrt"] for line in lines)


def test_it_needs_no_optional_library() -> None:
    """As on a machine with the planner's dependencies alone: nothing else can be found or imported."""
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'torchvision', 'safetensors', 'PIL', 'onnx', 'onnx_ir',\n"
        "                'onnxscript', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'pynvml', 'serial'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from runtime.cli import cli\ncli(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'edgecut[onnx]'" in done.stdout
    assert not re.search(r"works|exact| dB", done.stdout.partition("energy meters")[0].partition("mixed")[2])
