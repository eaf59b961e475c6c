"""Clocks on trees of files that stand for the kernel's: offered, held, and left as they were found."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake_clocks import BIG, CPUFREQ, GPU, GPU_HZ, LITTLE, Kernel, board, policy, state
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import EdgecutError, InputError, MismatchError, StorageError
from planner.plan import Variant
from profiler import clocks
from profiler.clocks import (
    ClockError,
    ClockSession,
    Switch,
    choose,
    find,
    parse,
    plan_frequencies,
    recover,
    sysfs,
)

TORCH = Variant("torch")
CUDA = Variant("torch-cuda")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysfs, "write", Kernel().write)
    return board(tmp_path / "root")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


def khz(*values: int) -> tuple[float, ...]:
    return tuple(value * 1000.0 for value in values)


def cpu(root: Path, *cpus: int) -> clocks.Clock:
    found = find("torch", root, cpus or None)
    assert found
    return found


# What is offered


def test_a_clock_is_that_of_the_processors_in_use(root: Path) -> None:
    assert cpu(root, 0).frequencies_hz() == khz(*LITTLE)
    assert cpu(root, 5).frequencies_hz() == khz(*BIG)
    assert cpu(root).frequencies_hz() == khz(*sorted({*LITTLE, *BIG}))
    assert find("torch", root, (9,)) is None
    gpu = find("tensorrt", root)
    assert gpu
    assert (gpu.name, gpu.frequencies_hz()) == ("gpu", tuple(map(float, GPU_HZ)))
    assert find("torch", root / "nothing") is None


@pytest.mark.parametrize("boost", ["0", "1"])
def test_boost_frequencies_count_while_boost_is_on(root: Path, boost: str) -> None:
    (root / CPUFREQ / "policy0/scaling_boost_frequencies").write_text("1800000\n")
    (root / CPUFREQ / "boost").write_text(boost)
    assert (cpu(root, 0).frequencies_hz()[-1] == 1.8e9) == (boost == "1")


def test_a_driver_that_lists_nothing_takes_any_frequency_between_its_ends(tmp_path: Path) -> None:
    policy(tmp_path, 0, (0,), None, ends_khz=(800_000, 4_200_000))
    (tmp_path / CPUFREQ / "policy0/base_frequency").write_text("2100000\n")
    clock = cpu(tmp_path)
    assert clock.continuous
    assert clock.frequencies_hz() == (8e8, 1.6e9, 2.1e9, 2.5e9, 3.4e9, 4.2e9)
    assert choose("2.345GHz", clock) == (2.345e9,)
    with pytest.raises(InputError, match="no clock here offers 4300 MHz") as refused:
        choose("4.3GHz", clock)
    assert refused.value.remedy == "cpu: anything from 800 MHz to 4200 MHz"


@pytest.mark.parametrize("text", ["", "fast", "600000 x -5 1000000\n"])
def test_what_a_driver_lists_may_be_nonsense(root: Path, text: str) -> None:
    (root / CPUFREQ / "policy0/scaling_available_frequencies").write_text(text)
    assert cpu(root, 0).frequencies_hz()[0] == 6e8


def test_an_offline_cluster_is_no_clock(root: Path) -> None:
    (root / CPUFREQ / "policy4/scaling_max_freq").unlink()
    assert cpu(root).frequencies_hz() == khz(*LITTLE)


# What is asked for


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("all", LITTLE),
        ("max", LITTLE[-1:]),
        ("600MHz", LITTLE[:1]),
        ("1.4GHz,600MHz,1400000000", (LITTLE[2], LITTLE[0])),
        ("1000000kHz, 1.001 ghz", (LITTLE[1],)),
        ("1e9", (LITTLE[1],)),
    ],
)
def test_frequencies_are_chosen(root: Path, spec: str, chosen: tuple[int, ...]) -> None:
    assert choose(spec, cpu(root, 0)) == khz(*chosen)


@pytest.mark.parametrize(
    "spec", ["", "fast", "ALL", "1.2", "800", "-1GHz", "1GHz,", "nan", "inf", "1e400Hz", "9999GHz"]
)
def test_what_is_no_frequency_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="no frequency of a processor or GPU"):
        parse(spec)


def test_a_frequency_that_is_not_offered_names_those_that_are(root: Path) -> None:
    with pytest.raises(InputError) as refused:
        choose("1.2GHz,600MHz", cpu(root, 0))
    assert refused.value.message == "no clock here offers 1200 MHz"
    assert refused.value.remedy == "cpu: 600 MHz, 1000 MHz, 1400 MHz"


# Variants


def test_variants_are_measured_at_each_clock(root: Path) -> None:
    variants, notes = plan_frequencies((TORCH, CUDA), "all", root, (0,))
    assert [each.frequency_hz for each in variants] == [*khz(*LITTLE), *map(float, GPU_HZ)]
    assert not notes
    assert plan_frequencies((TORCH, CUDA), None, root) == ((TORCH, CUDA), ())
    assert [str(each) for each in plan_frequencies((TORCH,), "max", root, (4,))[0]] == ["torch fp32 2000 MHz"]


def test_each_clock_takes_what_it_offers_of_a_list(root: Path) -> None:
    variants, notes = plan_frequencies((TORCH, CUDA), "1GHz,1377MHz", root, (0,))
    assert [each.frequency_hz for each in variants] == [1e9, 1.377e9]
    assert not notes
    variants, notes = plan_frequencies((TORCH, CUDA), "1GHz", root, (0,))
    assert [each.frequency_hz for each in variants] == [1e9, None]
    assert notes == ("--frequency: the gpu clock offers none of 1GHz; measured at the clock as found",)
    with pytest.raises(InputError, match="no clock here offers 1234 MHz") as refused:
        plan_frequencies((TORCH, CUDA), "1GHz,1.234GHz", root, (0,))
    assert "cpu: 600 MHz" in refused.value.remedy
    assert "gpu: 114.75 MHz" in refused.value.remedy


def test_without_permission_it_says_so_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs.os, "access", lambda file, mode: mode == os.R_OK)
    monkeypatch.setattr(sysfs.os, "geteuid", lambda: 1000)
    asked = (TORCH, Variant("onnxruntime"), Variant("torch", "bf16"))
    variants, notes = plan_frequencies(asked, "all", root, (0,))
    assert variants == asked
    limits = f"/{CPUFREQ}/policy*/scaling_min_freq /{CPUFREQ}/policy*/scaling_max_freq"
    assert notes == (
        f"--frequency: the limits of /{CPUFREQ}/policy0 may be written by root alone; measured at the cpu "
        f"clock as found (try: sudo chmod a+w {limits})",
    )
    monkeypatch.setattr(sysfs.os, "geteuid", lambda: 0)
    assert "is read-only here" in plan_frequencies(asked, "max", root, (0,))[1][0]


def test_without_a_clock_it_says_so_once(tmp_path: Path) -> None:
    variants, notes = plan_frequencies((TORCH, Variant("onnxruntime")), "800MHz", tmp_path)
    assert [each.frequency_hz for each in variants] == [None, None]
    assert notes == ("--frequency: this machine offers no cpu clock to set; measured at the clock as found",)


# Held and restored


def test_a_clock_is_held_and_restored(root: Path, folder: Path) -> None:
    before, clock = state(root), cpu(root)
    with ClockSession(clock, folder, root) as session:
        assert not list(folder.glob("*.json"))
        assert session.set(1.4e9) == 1.4e9
        assert state(root) == before | {
            f"{CPUFREQ}/policy{number}/scaling_{end}_freq": "1400000"
            for number in (0, 4)
            for end in ("min", "max")
        }
        assert clock.current_hz() == 1.4e9
        assert session.set(2e9) == 2e9  # the little cluster takes the most it offers
        assert state(root)[f"{CPUFREQ}/policy0/scaling_min_freq"] == "1400000"
        session.release()
        assert state(root) == before
        assert session.set(6e8) == 8e8
    assert session.notes == ["the cpu clock was asked for 600 MHz and is 800 MHz"]
    assert state(root) == before
    assert not list(folder.glob("*.json"))


def test_the_same_clock_again_writes_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, root = Kernel(), board(tmp_path)
    monkeypatch.setattr(sysfs, "write", kernel.write)
    with ClockSession(cpu(root, 0), folder, root) as session:
        session.set(1e9)
        writes = kernel.writes
        assert session.set(1e9) == 1e9
        assert kernel.writes == writes


def test_a_clock_that_comes_out_otherwise_is_told(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = root / CPUFREQ / "policy0/scaling_cur_freq"

    def throttled(file: Path, text: str) -> None:
        Kernel().write(file, text)
        current.write_text("900000")

    monkeypatch.setattr(sysfs, "write", throttled)
    with ClockSession(cpu(root, 0), folder, root) as session:
        assert session.set(1.4e9) == 9e8
    assert session.notes == ["the cpu clock was asked for 1400 MHz and is 900 MHz"]


LIMITS = st.tuples(st.sampled_from(BIG), st.sampled_from(BIG)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=30)
@given(LIMITS, st.lists(st.sampled_from([*khz(*LITTLE, *BIG), None]), max_size=6), st.integers(0, 40))
def test_any_sequence_ends_in_the_state_found(
    limits: tuple[int, int], sequence: list[float | None], broken: int
) -> None:
    """Whatever is set, and whichever single write the kernel refuses."""

    def fail(count: int) -> None:
        if count == broken:
            raise OSError(errno.EIO, "Input/output error")

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root, folder = Path(name) / "root", Path(name) / "state"
        policy(root, 0, (0,), LITTLE)
        policy(root, 1, (1,), BIG, limits)
        before = state(root)
        patch.setattr(sysfs, "write", Kernel(fail).write)
        with contextlib.suppress(ClockError), ClockSession(cpu(root), folder, root) as session:
            for hz in sequence:
                session.release() if hz is None else session.set(hz)
        if any("not restored" in note for note in session.notes):
            assert len(list(folder.glob("*.json"))) == 1
            assert recover(folder, root)
        assert state(root) == before
        assert not list(folder.glob("*.json"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_restores(root: Path, folder: Path, error: type[BaseException]) -> None:
    before = state(root)

    def interrupted() -> None:
        with ClockSession(cpu(root), folder, root) as session:
            session.set(1.4e9)
            raise error

    with pytest.raises(error):
        interrupted()
    assert state(root) == before


def test_nothing_changes_without_a_journal(root: Path, tmp_path: Path) -> None:
    before = state(root)
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="where the clock as found is kept"),
        ClockSession(cpu(root), tmp_path / "file", root),
    ):
        pass
    with ClockSession(cpu(root), tmp_path / "state", root) as session:
        (tmp_path / "state").rename(tmp_path / "gone")
        (tmp_path / "state").write_text("")
        with pytest.raises(StorageError):
            session.set(1.4e9)
    assert state(root) == before


# Killed, and the next start

CHILD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from fake_clocks import Kernel
from profiler.clocks import ClockSession, find, sysfs
def fail(count):
    if count == {moment}:
        os.kill(os.getpid(), signal.{how})
        time.sleep(0.05)
sysfs.write = Kernel(fail).write
root, folder = Path({root!r}), Path({folder!r})
with ClockSession(find("torch", root), folder, root) as session:
    session.set(1.4e9)
    session.set(2e9)
    session.release()
    session.set(8e8)
    if {moment} < 0:
        print("held", flush=True)
        time.sleep(60)
"""


def child(root: Path, folder: Path, moment: int, how: str = "SIGKILL") -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    script = CHILD.format(tests=here, moment=moment, how=how, root=str(root), folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_kill_at_any_moment_is_mended_by_the_next_start(root: Path, folder: Path) -> None:
    before, left_set = state(root), 0
    runs = [(moment, board(root / f"{moment}"), folder / f"{moment}") for moment in range(0, 18, 3)]
    for batch in (runs[:3], runs[3:]):
        children = [child(here, state_of, moment) for moment, here, state_of in batch]
        for process in children:
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL
    for _, here, state_of in runs:
        left_set += state(here) != before
        assert len(list(state_of.glob("*.json"))) == 1
        with ClockSession(cpu(here, 4), state_of, here) as session:
            assert state(here) == before
        assert session.notes == [
            "restored the clock of policy0, policy4, which a killed session had left set"
        ]
        assert not list(state_of.glob("*.json"))
    assert left_set > len(runs) / 2


@pytest.mark.parametrize(
    ("moment", "how", "code"),  # while it sets, releases, and restores at the end
    [(3, "SIGTERM", 143), (9, "SIGHUP", 129), (9, "SIGINT", -signal.SIGINT), (17, "SIGTERM", 143)],
)
def test_a_signal_restores(root: Path, folder: Path, moment: int, how: str, code: int) -> None:
    before = state(root)
    process = child(root, folder, moment, how)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert state(root) == before
    assert not list(folder.glob("*.json"))


def test_the_second_session_is_refused_while_the_first_lives(
    root: Path, folder: Path, tmp_path: Path
) -> None:
    before, process = state(root), child(root, folder, -1)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        held = state(root)
        for elsewhere in (folder, tmp_path / "of another user"):
            with (
                pytest.raises(MismatchError, match="another session holds the clock of policy4"),
                ClockSession(cpu(root, 4), elsewhere, root),
            ):
                pass
        assert recover(folder, root) == [f"process {process.pid} holds the clock of policy0, policy4"]
        assert state(root) == held != before
    finally:
        process.kill()
        process.communicate()
    assert recover(folder, root) == [
        "restored the clock of policy0, policy4, which a killed session had left set"
    ]
    assert state(root) == before
    assert recover(folder, root) == []


def test_sessions_over_different_clusters_do_not_meet(root: Path, folder: Path) -> None:
    before = state(root)
    with ClockSession(cpu(root, 0), folder, root) as little, ClockSession(cpu(root, 4), folder, root) as big:
        little.set(1e9)
        assert (little.set(1e9), big.set(8e8)) == (1e9, 8e8)
        with pytest.raises(MismatchError), ClockSession(cpu(root), folder, root):
            pass
    assert state(root) == before


def left(tree: Path, folder: Path, **changes: object) -> Path:
    """The journal of a session that was killed and left the little cluster at 1 GHz."""
    folder.mkdir(exist_ok=True)
    setting = {"where": f"{CPUFREQ}/policy0", "minimum_hz": 600_000_000, "maximum_hz": 1_400_000_000}
    record = {"schema": "edgecut.clock-journal/1", "root": str(tree), "boot_id": "", "pid": 1, "started": 1}
    record |= {"settings": [setting]}
    file = folder / "policy0.clock.json"
    file.write_text(json.dumps(record | changes))
    for end in ("min", "max"):
        (tree / CPUFREQ / f"policy0/scaling_{end}_freq").write_text("1000000\n")
    return file


def test_a_journal_is_honoured_unless_the_machine_was_started_anew(root: Path, folder: Path) -> None:
    before = state(root)
    left(root, folder)  # the number of its process lives, and belongs to another one now
    assert "restored" in recover(folder, root)[0]
    assert state(root) == before
    file = left(root, folder, boot_id="another")
    assert recover(folder, root) == []
    assert not file.exists()
    assert state(root) != before


def test_a_journal_of_another_tree_is_left_alone(root: Path, folder: Path) -> None:
    file = left(root, folder, root="/")
    assert recover(folder, root) == []
    assert file.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": "edgecut.plan/1"}',
        '{"schema": "edgecut.clock-journal/1", "pid": 1}',
    ],
)
def test_a_damaged_journal_is_told_and_put_aside(root: Path, folder: Path, text: str) -> None:
    file = left(root, folder)
    file.write_text(text)
    told = recover(folder, root)
    assert len(told) == 1
    assert "a clock may still be set" in told[0]
    assert file.with_name(file.name + ".damaged").read_text() == text
    assert recover(folder, root) == []


@pytest.mark.parametrize(
    "setting",
    [
        {"where": "etc/passwd", "minimum_hz": 1, "maximum_hz": 2},
        {"where": f"{CPUFREQ}/policy0/../../../../etc", "minimum_hz": 1, "maximum_hz": 2},
        {"where": f"{CPUFREQ}/..", "minimum_hz": 1, "maximum_hz": 2},
        {"where": "sys/class/devfreq/..", "minimum_hz": 1, "maximum_hz": 2},
        {"where": f"{CPUFREQ}/policy0", "minimum_hz": 2_000_000, "maximum_hz": 1_000_000},
        {"where": f"{CPUFREQ}/policy0", "minimum_hz": -1, "maximum_hz": 1_000_000},
        {"where": f"{CPUFREQ}/policy0", "minimum_hz": 1_000_000},
    ],
)
def test_a_foreign_journal_changes_nothing(root: Path, folder: Path, setting: dict[str, object]) -> None:
    left(root, folder, settings=[setting])
    before = state(root)
    assert "cannot be read" in recover(folder, root)[0]
    assert state(root) == before


def test_what_cannot_be_restored_yet_is_kept(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, file = state(root), left(root, folder)

    def offline(file: Path, text: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(sysfs, "write", offline)
        assert "is offline and keeps its limits" in recover(folder, root)[0]
    assert file.exists()
    with ClockSession(cpu(root, 0), folder, root) as session:
        session.set(1e9)
    assert state(root) == before
    assert not file.exists()


def test_a_cluster_that_goes_offline_is_passed_over(root: Path, folder: Path) -> None:
    gone = root / CPUFREQ / "policy4"
    with ClockSession(cpu(root), folder, root) as session:
        session.set(2e9)
        gone.rename(root / "gone")
        assert session.set(1e9) == 1e9
        (root / CPUFREQ / "policy0").rename(root / "gone too")
        with pytest.raises(ClockError, match="policy0, policy4 cannot be found any more"):
            session.set(6e8)
    assert not list(folder.glob("*.json"))


# Variants one after the other


def test_a_switch_follows_the_variants(root: Path, folder: Path) -> None:
    before = state(root)
    variants, _ = plan_frequencies((TORCH, CUDA), "max", root, (0,))
    with Switch((TORCH, *variants), (0,), root, folder) as switch:
        for variant in (*variants, TORCH, *variants):
            with switch.at(variant) as real:
                assert real == variant.frequency_hz
        assert state(root)[f"{GPU}/min_freq"] == str(GPU_HZ[-1])
        with switch.at(TORCH):
            assert state(root)[f"{CPUFREQ}/policy0/scaling_min_freq"] == str(LITTLE[0])
        with (
            pytest.raises(ClockError, match="does not offer 1200 MHz"),
            switch.at(Variant("torch", frequency_hz=1.2e9)),
        ):
            pass
    assert state(root) == before
    assert switch.notes == ()


def test_a_switch_over_clocks_as_found_restores_and_holds_nothing(root: Path, folder: Path) -> None:
    left(root, folder)
    with (
        Switch((TORCH,), None, root, folder) as switch,
        ClockSession(cpu(root), folder, root),
        switch.at(TORCH),
    ):
        pass
    assert switch.notes == ("restored the clock of policy0, which a killed session had left set",)
    with (
        Switch((), None, root, folder) as switch,
        pytest.raises(ClockError, match="not announced"),
        switch.at(Variant("torch", frequency_hz=1e9)),
    ):
        pass


def test_a_plan_cannot_run_at_a_clock_that_cannot_be_set(root: Path, folder: Path, tmp_path: Path) -> None:
    variant = Variant("torch", frequency_hz=1e9)
    with (
        pytest.raises(ClockError, match="this machine has no cpu clock"),
        Switch((variant,), None, tmp_path / "empty", folder),
    ):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysfs.os, "access", lambda file, mode: False)
        with (
            pytest.raises(EdgecutError, match=r"written by root alone|is read-only"),
            Switch((variant,), None, root, folder),
        ):
            pass
