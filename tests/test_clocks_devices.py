"""Clocks of GPUs through NVML, power modes of a Jetson, and what people see of it all."""

from __future__ import annotations

import stat
import types
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_clocks import CPUFREQ, GPU, Kernel, board, policy, state
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UnknownNameError
from planner.plan import Variant
from profiler.clocks import ClockError, ClockSession, find, nvml, nvpmodel, plan_frequencies, recover, sysfs
from profiler.clocks.domain import hertz
from profiler.clocks.survey import survey
from runtime.cli import cli

UUID = "GPU-6f0ad1a4-4d0e-4a6e-8a55-5e0b4f5f8a11"


class Nvml(types.ModuleType):
    """NVML's calls on one GPU with three clocks; ``locked`` is what it holds, None when free."""

    NVML_CLOCK_GRAPHICS = 0

    class NVMLError(Exception):
        pass

    class NVMLError_NoPermission(NVMLError):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.locked: tuple[int, int] | None = None
        self.permitted, self.there = True, True

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> str:
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != UUID or not self.there:
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return UUID

    def nvmlDeviceGetSupportedMemoryClocks(self, handle: str) -> list[int]:
        return [405, 7000]

    def nvmlDeviceGetSupportedGraphicsClocks(self, handle: str, memory: int) -> list[int]:
        return [1980, 1200, 300] if memory == 7000 else [300]

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        return self.locked[0] if self.locked else 345

    def nvmlDeviceSetGpuLockedClocks(self, handle: str, low: int, high: int) -> None:
        if not self.permitted:
            raise self.NVMLError_NoPermission("Insufficient Permissions")
        self.locked = (low, high)

    def nvmlDeviceResetGpuLockedClocks(self, handle: str) -> None:
        self.locked = None


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml()
    monkeypatch.setattr(nvml, "_library", lambda: found)
    monkeypatch.setattr(nvml, "installed", lambda name: True)
    monkeypatch.setattr(nvml, "find_gpu", lambda: "a GPU")
    monkeypatch.setattr(nvml, "_pci_bus_id", lambda: "0000:01:00.0")
    monkeypatch.setattr(nvml, "_administrator", lambda root: True)
    return found


def test_a_gpu_is_locked_and_freed(library: Nvml, tmp_path: Path) -> None:
    clock = find("tensorrt", tmp_path)
    assert clock
    assert clock.frequencies_hz() == (3e8, 1.2e9, 1.98e9)
    with ClockSession(clock, tmp_path / "state", tmp_path) as session:
        assert clock.current_hz() == 3.45e8
        assert session.set(1.2e9) == 1.2e9
        assert library.locked == (1200, 1200)
        session.release()
        assert library.locked is None
        session.set(1.98e9)
    assert library.locked is None
    assert session.notes == []


def test_a_killed_session_leaves_a_gpu_that_the_next_start_frees(library: Nvml, tmp_path: Path) -> None:
    clock = find("torch-cuda", tmp_path)
    assert clock
    session = ClockSession(clock, tmp_path / "state", tmp_path)
    with session:
        session.set(1.2e9)
        journal = next((tmp_path / "state").glob("*.json")).read_text()
    library.locked = (1200, 1200)
    (tmp_path / "state" / f"{UUID}.clock.json").write_text(
        journal.replace('"started": ', '"started": 1')  # another process than this one
    )
    assert recover(tmp_path / "state", tmp_path) == [
        f"restored the clock of {UUID}, which a killed session had left set"
    ]
    assert library.locked is None


def test_a_gpu_refuses_or_leaves(library: Nvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = find("torch-cuda", tmp_path)
    assert clock
    with ClockSession(clock, tmp_path / "state", tmp_path) as session:
        library.permitted = False
        with pytest.raises(
            ClockError, match=r"SetGpuLockedClocks of GPU-.*: Insufficient Permissions"
        ) as refused:
            session.set(1.2e9)
        assert "SYS_ADMIN" in refused.value.remedy
        library.there = False
        with pytest.raises(ClockError, match="cannot be found any more"):
            session.set(1.2e9)
    assert not list((tmp_path / "state").glob("*.json"))


def test_a_gpu_needs_an_administrator(library: Nvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_administrator", lambda root: False)
    variant = Variant("torch-cuda")
    variants, notes = plan_frequencies((variant,), "max", tmp_path)
    assert variants == (variant,)
    assert notes[0].startswith(
        "--frequency: a GPU's clock may be set by root alone; measured at the gpu clock"
    )


@pytest.mark.parametrize(("capabilities", "able"), [("000001fffeffffff", True), ("00000000a80425fb", False)])
def test_the_driver_asks_for_a_capability(tmp_path: Path, capabilities: str, able: bool) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tpython\nCapPrm:\t0\nCapEff:\t{capabilities}\n")
    assert nvml._administrator(tmp_path) == able


def test_without_the_library_or_a_gpu_there_is_no_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "find_gpu", lambda: "a GPU")
    monkeypatch.setattr(nvml, "installed", lambda name: False)
    assert find("torch-cuda", tmp_path) is None
    monkeypatch.setattr(nvml, "installed", lambda name: True)
    monkeypatch.setattr(nvml, "find_gpu", lambda: None)
    assert find("torch-cuda", tmp_path) is None


# Power modes

NVPMODEL = """#!/bin/sh
mode=$(cat {folder}/mode)
case "$1 $2" in
"-q ") echo "NV Fan Mode:quiet"; echo "NV Power Mode: MODE_$mode"; echo "$mode" ;;
"-m 3") echo "NVPM WARN: Reboot required for changing to this power mode: 3"; read answer || true ;;
"-m 2") echo "NVPM ERROR: Error opening sysfs" >&2; exit 1 ;;
"-m "*) echo "$2" > {folder}/mode ;;
esac
"""


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysfs, "write", Kernel().write)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    root = board(tmp_path / "root")
    program = root / "usr/sbin/nvpmodel"
    program.parent.mkdir(parents=True)
    program.write_text(NVPMODEL.format(folder=tmp_path))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "mode").write_text("0\n")
    (root / "etc").mkdir()
    modes = "".join(
        f"< POWER_MODEL ID={number} NAME=MODE_{number} >\nCPU_ONLINE CORE_0 1\n" for number in range(4)
    )
    (root / "etc/nvpmodel.conf").write_text("< PARAM TYPE=FILE NAME=CPU_ONLINE >\n" + modes)
    return root


def test_a_power_mode_is_read_and_changed_when_asked(jetson: Path) -> None:
    assert str(nvpmodel.power_mode(jetson)) == "0 MODE_0"
    assert str(nvpmodel.set_power_mode(1, jetson)) == "0 MODE_0"
    assert str(nvpmodel.power_mode(jetson)) == "1 MODE_1"
    with pytest.raises(UnknownNameError, match="unknown power mode '7'"):
        nvpmodel.set_power_mode(7, jetson)
    with pytest.raises(ClockError, match="nvpmodel -m 2 failed: NVPM ERROR"):
        nvpmodel.set_power_mode(2, jetson)
    with pytest.raises(ClockError, match="still in mode 1 MODE_1: NVPM WARN: Reboot required"):
        nvpmodel.set_power_mode(3, jetson)


def test_nvpmodel_may_be_absent_or_odd(jetson: Path, tmp_path: Path) -> None:
    assert nvpmodel.power_mode(tmp_path) is None
    assert nvpmodel.power_modes(tmp_path) == ()
    program = jetson / "usr/sbin/nvpmodel"
    program.write_text("#!/bin/sh\necho what\n")
    with pytest.raises(ClockError, match="does not name a mode: 'what'"):
        nvpmodel.power_mode(jetson)
    program.chmod(0o644)
    with pytest.raises(ClockError, match="cannot be run"):
        nvpmodel.power_mode(jetson)


# What people see


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["clocks", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_clocks_are_listed(jetson: Path) -> None:
    shown = run("list", "--root", str(jetson))
    assert "600, 1000, 1400" in shown
    assert "114.75, 675.75, 1377" in shown
    assert "power mode 0 MODE_0 of 0 MODE_0, 1 MODE_1" in shown
    assert "killed" not in shown
    assert run()  # this machine, whatever it is


def test_clusters_alike_are_shown_once(tmp_path: Path) -> None:
    for number in range(6):
        policy(tmp_path, number, (number,), None, ends_khz=(800_000, 4_200_000))
    (tmp_path / "sys/devices/system/cpu/intel_pstate").mkdir()
    (tmp_path / "sys/devices/system/cpu/intel_pstate/no_turbo").write_text("0\n")
    states = [each for each in survey(tmp_path) if each.name == "cpu"]
    assert [each.detail for each in states] == ["policy0 to policy5; boost is on"]
    assert states[0].settable
    assert states[0].continuous


def test_what_a_killed_session_left_is_shown_and_restored(jetson: Path, tmp_path: Path) -> None:
    before = state(jetson)
    clock = find("torch", jetson)
    assert clock
    folder = tmp_path / "home/edgecut/clocks"
    with ClockSession(clock, folder, jetson) as session:
        session.set(1.4e9)
        file, journal = next((each, each.read_text()) for each in folder.glob("*.json"))
        assert "holds the clock of policy0, policy4" in run("list", "--root", str(jetson))
        assert "holds the clock of policy0, policy4" in run("restore", "--root", str(jetson))
    file.write_text(journal.replace('"started": ', '"started": 1'))
    for number in (0, 4):
        (jetson / CPUFREQ / f"policy{number}/scaling_min_freq").write_text("1400000\n")
    assert "a killed session left policy0, policy4 set" in run("list", "--root", str(jetson))
    assert "restored the clock of policy0, policy4" in run("restore", "--root", str(jetson))
    assert run("restore", "--root", str(jetson)) == "nothing to restore\n"
    assert state(jetson) == before


def test_the_power_mode_is_changed_from_the_command_line(jetson: Path) -> None:
    assert (
        run("mode", "1", "--root", str(jetson))
        == "power mode 1 MODE_1; it was 0 MODE_0: edgecut clocks mode 0\n"
    )


@pytest.mark.parametrize(
    "name", ["57000000.gpu", "17000000.gv11b", "17000000.ga10b", "gpu-gpc-0", "17000000.gp10b"]
)
def test_a_jetsons_gpu_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    board(tmp_path)
    (tmp_path / GPU).rename((tmp_path / GPU).with_name(name))
    found = find("tensorrt", tmp_path)
    assert found
    assert found.domains[0].where.endswith(name)


@given(st.integers(1, 10_000_000).map(lambda number: number * 1000))
def test_a_frequency_as_shown_is_the_one_meant(hz: int) -> None:
    from profiler.clocks import parse

    if hz >= 1e6:
        assert parse(hertz(hz))[0] == pytest.approx(hz, rel=1e-6)
