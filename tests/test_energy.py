"""Meters against trees of files that stand for sysfs, against clocks that the tests set, and by hand."""

from __future__ import annotations

import importlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BundleError, EdgecutError, EnergyError, MissingDependencyError, UnknownNameError
from profiler.cuda import find_gpu
from profiler.energy import hwmon
from profiler.energy.counter import Counter, CounterMeter, update_period_s
from profiler.energy.meter import Meter, Reading, SumMeter, open_meter
from profiler.energy.power import PowerTrace
from profiler.energy.sampled import SampledMeter
from profiler.energy.window import idle_power, measure_energy

Files = dict[str, str]


class Clock:
    """Stands for the ``time`` of a module: it moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("counter", "window"):
        monkeypatch.setattr(f"profiler.energy.{module}.time", clock)
    return clock


def write(root: Path, files: Files) -> Path:
    """Each file is replaced in one step, as a reader of sysfs never sees half a number."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_text(text)
        part.replace(file)
    return root


@pytest.fixture
def ticking() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Calls a function again and again beside the test."""
    ended = threading.Event()
    threads = []

    def start(tick: Callable[[], None]) -> None:
        def loop() -> None:
            while not ended.wait(0.002):
                tick()

        threads.append(threading.Thread(target=loop))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()


# Power over time

# Trapezoids by hand:   0 to 1: (2 + 4) / 2 x 1 = 3   1 to 3: (4 + 0) / 2 x 2 = 4   3 to 4: (0 + 6) / 2 x 1 = 3
TRACE = PowerTrace(np.array([0.0, 1.0, 3.0, 4.0]), np.array([2.0, 4.0, 0.0, 6.0]))


@pytest.mark.parametrize(
    ("start_s", "stop_s", "energy_j", "samples"),
    [
        (0, 4, 3 + 4 + 3, 4),
        (1, 3, 4, 2),
        # At 0.5 s there are 3 W, at 3.5 s as well: (3 + 4) / 2 x 0.5 + 4 + (0 + 3) / 2 x 0.5
        (0.5, 3.5, 1.75 + 4 + 0.75, 2),
        # Between two samples, 4 W falling by 2 W a second: 3.5 W at 1.25 s, 2.5 W at 1.75 s.
        (1.25, 1.75, 1.5, 0),
        (2, 2, 0, 0),
    ],
)
def test_integral_by_hand(start_s: float, stop_s: float, energy_j: float, samples: int) -> None:
    assert TRACE.energy_j(start_s, stop_s) == pytest.approx(energy_j, abs=1e-12)
    assert TRACE.samples_in(start_s, stop_s) == samples
    if stop_s > start_s:
        assert TRACE.mean_power_w(start_s, stop_s) == pytest.approx(energy_j / (stop_s - start_s))


def test_gaps_between_samples() -> None:
    assert TRACE.longest_gap_s(0, 4) == 2
    assert TRACE.longest_gap_s(0.25, 2) == 1
    assert TRACE.longest_gap_s(3.25, 3.75) == 0.5


@given(
    steps=st.lists(st.floats(1e-3, 10), min_size=1, max_size=20),
    power=st.data(),
    share=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_windows_that_meet_add_up(steps, power, share) -> None:
    time_s = np.concatenate(([5.0], 5.0 + np.cumsum(steps)))
    power_w = power.draw(st.lists(st.floats(0, 1e4), min_size=len(time_s), max_size=len(time_s)))
    trace = PowerTrace(time_s, np.array(power_w))
    first, middle, last = (min(time_s[-1], 5.0 + each * (time_s[-1] - 5.0)) for each in sorted(share))
    whole_j = trace.energy_j(first, last)
    assert trace.energy_j(first, middle) + trace.energy_j(middle, last) == pytest.approx(whole_j, abs=1e-6)
    assert -1e-9 <= whole_j <= max(power_w) * (last - first) * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(
    ("time_s", "power_w", "said"),
    [
        ([0, 1], [1], "one time and one power"),
        ([[0, 1]], [[1, 2]], "one time and one power"),
        ([0, 1, 1], [1, 1, 1], "after sample 1"),
        ([0, 5, 2], [1, 1, 1], "jumps back"),
        ([0, 1], [1, math.nan], "not finite"),
    ],
)
def test_what_is_no_trace(time_s: list[float], power_w: list[float], said: str) -> None:
    with pytest.raises(EnergyError, match=said):
        PowerTrace(np.array(time_s), np.array(power_w))


@pytest.mark.parametrize(
    ("start_s", "stop_s", "said"),
    [
        (-1, 2, "known from 0.000000 s to 4.000000 s"),
        (2, 4.5, "asked from"),
        (3, 2, "ends? before|cannot end"),
        (math.nan, 2, "cannot end"),
    ],
)
def test_windows_that_a_trace_does_not_cover(start_s: float, stop_s: float, said: str) -> None:
    for ask in (TRACE.energy_j, TRACE.mean_power_w, TRACE.longest_gap_s):
        with pytest.raises(EnergyError, match=said):
            ask(start_s, stop_s)
    with pytest.raises(EnergyError, match="no length"):
        TRACE.mean_power_w(1, 1)
    with pytest.raises(EnergyError, match="no sample"):
        PowerTrace(np.array([]), np.array([])).energy_j(0, 1)


# RAPL

POWERCAP = "sys/class/powercap"


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def zone(number: str, name: str, energy_uj: int, range_uj: int = 262_143_328_850) -> Files:
    folder = f"{POWERCAP}/{number}"
    return {
        f"{folder}/name": name + "\n", f"{folder}/energy_uj": f"{energy_uj}\n",
        f"{folder}/max_energy_range_uj": f"{range_uj}\n",
    }  # fmt: skip


SERVER = {
    **zone("intel-rapl:0", "package-0", 1_000_000),
    **zone("intel-rapl:0:0", "core", 500_000),
    **zone("intel-rapl:0:1", "dram", 200_000, 65_712_999_613),
    **zone("intel-rapl:1", "package-1", 262_143_000_000),
    **zone("intel-rapl:1:0", "dram", 65_712_000_000, 65_712_999_613),
    **zone("intel-rapl:2", "psys", 9_000_000),
    # The same package once more, by another way.
    **zone("intel-rapl-mmio:0", "package-0", 1_000_000),
}


def test_rapl_sums_packages_and_dram_of_all_sockets_across_wraps(tmp_path: Path, clock: Clock) -> None:
    meter = open_meter("rapl", write(tmp_path, SERVER))
    assert meter.domain == "processor (package-0, dram, package-1, dram)"
    meter.start()
    clock.now_s += 2
    write(
        tmp_path,
        {
            f"{POWERCAP}/intel-rapl:0/energy_uj": "41000000\n",  # 40 J
            f"{POWERCAP}/intel-rapl:0:0/energy_uj": "99000000\n",  # cores lie within the package
            f"{POWERCAP}/intel-rapl:0:1/energy_uj": "3200000\n",  # 3 J
            f"{POWERCAP}/intel-rapl:1/energy_uj": "49671150\n",  # 0.328850 J up to the wrap, then 49.671150 J
            f"{POWERCAP}/intel-rapl:1:0/energy_uj": "1000387\n",  # 0.999613 J + 1.000387 J
            f"{POWERCAP}/intel-rapl:2/energy_uj": "999000000\n",  # psys contains the packages
        },
    )
    reading = meter.stop()
    assert reading.valid
    assert reading.energy_j == pytest.approx(40 + 3 + 50 + 2, abs=1e-9)
    assert (reading.duration_s, reading.power_w) == (2, pytest.approx(47.5))
    assert reading.samples == 2000
    assert (reading.start_s, reading.stop_s) == (1000, 1002)


@pytest.mark.parametrize(("spec", "energy_j"), [("rapl:psys", 7), ("rapl:core", 6), ("rapl:package", 1)])
def test_rapl_zones_by_name(tmp_path: Path, clock: Clock, spec: str, energy_j: int) -> None:
    with open_meter(spec, write(tmp_path, SERVER)) as meter:
        meter.start()
        clock.now_s += 1
        write(tmp_path, {f"{POWERCAP}/intel-rapl:{zone}/energy_uj": text for zone, text in {
            "0": "2000000", "0:0": "6500000", "2": "16000000"}.items()})  # fmt: skip
        assert meter.stop().energy_j == pytest.approx(energy_j)


ENERGY = f"{POWERCAP}/intel-rapl:0/energy_uj"


@pytest.mark.parametrize(
    ("files", "seconds", "said"),
    [
        # A reset after sleep: as a wrap it would be 262 kJ in two seconds.
        ({ENERGY: "10"}, 2, "went from 1.000000 J to 0.000010 J"),
        ({}, 2, "stood still"),
        ({ENERGY: "garbage\n"}, 2, "holds no number: 'garbage'"),
        ({ENERGY: ""}, 2, "holds no number"),
        ({ENERGY: "50000000000"}, 2, "went from"),
        ({ENERGY: "5000000"}, 200, "wrapped more than once in 200.0 s"),
    ],
)
def test_counters_that_do_not_hold(
    tmp_path: Path, clock: Clock, files: Files, seconds: float, said: str
) -> None:
    meter = open_meter("rapl", write(tmp_path, zone("intel-rapl:0", "package-0", 1_000_000)))
    meter.start()
    clock.now_s += seconds
    write(tmp_path, files)
    reading = meter.stop()
    assert not reading.valid
    assert said in reading.reason
    assert math.isnan(reading.energy_j)
    assert reading.samples == 0


def test_a_counter_without_range_that_goes_backwards(tmp_path: Path, clock: Clock) -> None:
    files = zone("intel-rapl:0", "package-0", 1_000_000)
    files.popitem()
    meter = open_meter("rapl", write(tmp_path, files))
    meter.start()
    clock.now_s += 1
    write(tmp_path, {ENERGY: "999999"})
    assert not meter.stop().valid


def test_a_processor_that_vanishes_and_comes_back(tmp_path: Path, clock: Clock) -> None:
    meter = open_meter("rapl", write(tmp_path, zone("intel-rapl:0", "package-0", 1_000_000)))
    meter.start()
    (tmp_path / ENERGY).unlink()
    assert "vanished" in meter.stop().reason
    meter.start()  # must not raise in the middle of a profile
    clock.now_s += 1
    write(tmp_path, {ENERGY: "1000000"})
    assert "vanished" in meter.stop().reason
    meter.start()
    clock.now_s += 1
    write(tmp_path, {ENERGY: "3000000"})
    assert meter.stop().energy_j == pytest.approx(2)


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and sensors that root alone may read; tests may run as root, whom no mode keeps out."""
    opened = os.open

    def refuse(file: Path | str, *options: int) -> int:
        if str(file).endswith(("_input", "_uj")):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *options)

    monkeypatch.setattr("profiler.energy.sysfs.os.open", refuse)


INA226 = {
    "sys/class/hwmon/hwmon0/name": "ina226\n", "sys/class/hwmon/hwmon0/power1_input": "2500000\n",
    # The same rail again, by its shunt, its bus and its current.
    "sys/class/hwmon/hwmon0/in0_input": "1", "sys/class/hwmon/hwmon0/in1_input": "5000",
    "sys/class/hwmon/hwmon0/curr1_input": "500",
}  # fmt: skip


@pytest.mark.usefixtures("sealed", "no_nvml")
@pytest.mark.parametrize(
    ("spec", "files", "command"),
    [
        ("rapl", SERVER, "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"),
        ("hwmon", INA226, "sudo chmod a+r"),
    ],
)
def test_what_root_alone_may_read(tmp_path: Path, spec: str, files: Files, command: str) -> None:
    with pytest.raises(EnergyError) as caught:
        open_meter(spec, write(tmp_path, files))
    assert caught.value.remedy.startswith(command)
    with pytest.raises(EnergyError, match=r"no energy meter works here \(.*rapl: .*hwmon: "):
        open_meter("auto", tmp_path)


# Sensors of power


def undisturbed(meter: Meter, periods: int = 3) -> Reading:
    """A window in which a busy machine left the meter its time; that it was not is told, and tried again."""
    for _ in range(20):
        meter.start()
        time.sleep(periods * meter.period_s)
        reading = meter.stop()
        if "without a sample" not in reading.reason:
            break
    assert reading.valid, reading.reason
    return reading


def check_constant(meter: Meter, power_w: float, domain: str) -> None:
    assert meter.domain == domain
    with meter:
        reading = undisturbed(meter)
    assert reading.energy_j == pytest.approx(power_w * reading.duration_s)
    assert reading.power_w == pytest.approx(power_w)
    assert reading.samples >= 1


def ina3221(folder: str, rails: dict[str, tuple[int, int]]) -> Files:
    files = {f"{folder}/name": "ina3221\n"}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {
            f"{folder}/in{channel}_label": f"{label}\n", f"{folder}/in{channel}_input": f"{millivolts}\n",
            f"{folder}/curr{channel}_input": f"{milliamperes}\n",
        }  # fmt: skip
    # The driver shows shunts and their sum as further channels; curr4 is the sum of currents.
    return files | {
        f"{folder}/in4_input": "9", f"{folder}/curr4_input": "99999", f"{folder}/in7_input": "9",
        f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/in4_label": "shunt\n",
    }  # fmt: skip


ORIN_NX = ina3221(
    "sys/class/hwmon/hwmon4", {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)}
)
AGX_ORIN = {
    **ina3221("sys/class/hwmon/hwmon3", {"VDD_GPU_SOC": (20_000, 150), "VDD_CPU_CV": (20_000, 50)}),
    **ina3221("sys/class/hwmon/hwmon4", {"NC": (0, 0), "VDDQ": (5000, 100)}),
}
IIO = "sys/bus/i2c/drivers/ina3221x"
TX2 = {
    f"{IIO}/0-0040/iio:device0/in_power0_input": "700\n",
    f"{IIO}/0-0040/iio:device0/rail_name_0": "VDD_SYS_GPU\n",
    f"{IIO}/0-0041/iio:device1/in_power0_input": "4250\n",
    f"{IIO}/0-0041/iio:device1/rail_name_0": "VDD_IN\n",
}


@pytest.mark.usefixtures("no_nvml")
@pytest.mark.parametrize(
    ("spec", "files", "power_w", "domain"),
    [
        ("jetson", ORIN_NX, 6.0, "module (VDD_IN)"),
        ("jetson:VDD_CPU_GPU_CV,VDD_SOC", ORIN_NX, 3.5, "module (VDD_CPU_GPU_CV, VDD_SOC)"),
        ("jetson", AGX_ORIN, 4.5, "module (VDD_GPU_SOC, VDD_CPU_CV, VDDQ)"),
        ("jetson", TX2, 4.25, "module (VDD_IN)"),
        ("auto", {**TX2, "etc/nv_tegra_release": "# R32"}, 4.25, "module (VDD_IN)"),
        ("hwmon", INA226, 2.5, "ina226"),
        ("auto", INA226, 2.5, "ina226"),
        (
            "hwmon:amdgpu",
            {**INA226, "sys/class/hwmon/hwmon1/name": "amdgpu",
             "sys/class/hwmon/hwmon1/power1_average": "37000000",
             "sys/class/hwmon/hwmon1/power1_label": "PPT"},
            37.0,
            "amdgpu (PPT)",
        ),
        ("hwmon:hwmon4", ORIN_NX, 6.0, "ina3221 (VDD_IN)"),
    ],
)  # fmt: skip
def test_power_of_a_board(tmp_path: Path, spec: str, files: Files, power_w: float, domain: str) -> None:
    check_constant(open_meter(spec, write(tmp_path, files)), power_w, domain)


def test_sensors_that_convert_slowly_are_not_read_sooner(tmp_path: Path) -> None:
    files = {**ORIN_NX, "sys/class/hwmon/hwmon4/update_interval": "140\n"}
    with open_meter("jetson", write(tmp_path, files)) as meter:
        assert meter.period_s == 0.14


def test_energy_counters_of_a_chip(tmp_path: Path, ticking) -> None:
    folder, counted = "sys/class/hwmon/hwmon2", [0]

    def tick() -> None:
        counted[0] += 3_000
        text = f"{counted[0]}\n"
        # Cores are within their socket.
        write(tmp_path, {f"{folder}/energy1_input": text, f"{folder}/energy2_input": text})

    tick()
    write(tmp_path, {f"{folder}/name": "amd_energy", f"{folder}/energy1_label": "Ecore000",
                     f"{folder}/energy2_label": "Esocket0"})  # fmt: skip
    ticking(tick)
    with open_meter("hwmon", tmp_path) as meter:
        assert meter.domain == "amd_energy (Esocket0)"
        before = counted[0]
        meter.start()
        while counted[0] < before + 60_000:
            time.sleep(0.005)
        reading = meter.stop()
        after = counted[0]
    assert reading.valid, reading.reason
    assert reading.energy_j >= 0.06 - 0.003
    assert reading.energy_j <= (after - before) / 1e6 + 1e-9
    assert reading.energy_j / 0.003 == pytest.approx(round(reading.energy_j / 0.003))


def test_a_counter_that_stands_still_has_no_period() -> None:
    with pytest.raises(EnergyError, match="stands still"):
        update_period_s(Counter("still", lambda: 5.0), limit_s=0.02)


def test_the_period_of_a_counter(clock: Clock) -> None:
    # Its steps are seen by looking every half a millisecond.
    stepping = Counter("stepping", lambda: math.floor(clock.now_s / 0.1))
    assert update_period_s(stepping) == pytest.approx(0.1, abs=0.001)


@pytest.mark.usefixtures("no_nvml")
@pytest.mark.parametrize(
    ("spec", "files", "error", "said"),
    [
        ("hwmon", {}, EnergyError, "no power sensor"),
        ("jetson", INA226, EnergyError, "no power sensor can be read"),
        ("jetson:VDD_INN", ORIN_NX, UnknownNameError, "unknown rail 'VDD_INN'.*\n.*VDD_IN"),
        ("hwmon:ina22", INA226, UnknownNameError, "unknown hwmon chip 'ina22'.*\n.*ina226"),
        ("hwmon", {**INA226, **ORIN_NX}, EnergyError, "ina226.*ina3221.*\n.*hwmon:ina226 or hwmon:ina3221"),
        ("hwmon:ina3221", AGX_ORIN, EnergyError, "hwmon:hwmon3 or hwmon:hwmon4"),
        ("hwmon", {**INA226, "sys/class/hwmon/hwmon0/power1_input": "no"}, EnergyError, "holds no number"),
        ("rapl", {}, EnergyError, "RAPL cannot be read"),
        ("rapl:gpu", SERVER, EnergyError, "found package-0, core, dram, package-1, psys"),
        ("nvlm", {}, UnknownNameError, "nvml"),
        ("", {}, UnknownNameError, "known: auto"),
        ("rapl+rapl", SERVER, EnergyError, "twice"),
        ("rapl+hwmon", SERVER, EnergyError, "no power sensor"),
        ("nvml", {"etc/nv_tegra_release": "# R36"}, EnergyError, "Jetson"),
        ("auto", {}, EnergyError, "no energy meter works here"),
    ],
)
def test_meters_that_cannot_be_opened(
    tmp_path: Path, spec: str, files: Files, error: type[EdgecutError], said: str
) -> None:
    with pytest.raises(error, match=f"(?s){said}"):
        open_meter(spec, write(tmp_path, files))


def test_a_sensor_that_vanishes_in_the_middle(tmp_path: Path) -> None:
    with open_meter("hwmon", write(tmp_path, INA226)) as meter:
        meter.start()
        time.sleep(0.05)
        (tmp_path / "sys/class/hwmon/hwmon0/power1_input").unlink()
        time.sleep(0.05)
        reading = meter.stop()
        assert not reading.valid
        assert "power1_input has vanished" in reading.reason
        assert math.isnan(reading.energy_j)
        write(tmp_path, INA226)
        undisturbed(meter)


def sensor(*answers: float | None) -> Callable[[], float]:
    """Gives the answers in turn, once the meter is open, and the last one for ever; None is a failure."""
    rest, opening = list(answers), [6]

    def read() -> float:
        if opening[0]:
            opening[0] -= 1
            return 1.0
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        if answer is None:
            raise EnergyError("the sensor is busy")
        return answer

    return read


@pytest.mark.parametrize(
    ("answers", "seconds", "said"),
    [
        ((None, 1.0), 0.0, ""),  # at the ends it is tried again
        ((1.0, 1.0, None, 1.0), 0.4, ""),
        ((1.0, None, None, None, None, None, None, 1.0), 0.2, "the sensor is busy"),
        ((1.0, 1.0, None), 0.1, "the sensor is busy"),
    ],
)
def test_samples_that_fail(answers: tuple[float | None, ...], seconds: float, said: str) -> None:
    with SampledMeter("sensor", "test", sensor(*answers), 0.02) as meter:
        meter.start()
        time.sleep(seconds)
        reading = meter.stop()
    if said:
        assert not reading.valid
        assert said in reading.reason
    elif reading.valid:
        assert reading.energy_j == pytest.approx(reading.duration_s)
    else:  # few samples were taken, on a machine that is busy
        assert "samples failed" in reading.reason or "without a sample" in reading.reason


def test_a_long_time_without_a_sample() -> None:
    calls = [0]

    def read() -> float:
        calls[0] += 1
        if calls[0] == 8:  # the first within the window: 6 while it is opened, 1 at its start
            time.sleep(0.3)
        return 2.0

    with SampledMeter("sensor", "test", read, 0.02) as meter:
        meter.start()
        while calls[0] < 9:
            time.sleep(0.01)
        reading = meter.stop()
    assert not reading.valid
    assert "without a sample" in reading.reason


def test_power_that_rises() -> None:
    began_s = time.monotonic()

    def off() -> float:
        """How far the energy is from that of the straight line: a share of it."""
        reading = undisturbed(meter, 5)
        middle_s = (reading.start_s + reading.stop_s) / 2 - began_s
        return abs(reading.energy_j / (10 * middle_s * reading.duration_s) - 1)

    with SampledMeter("ramp", "test", lambda: 10 * (time.monotonic() - began_s), 0.02) as meter:
        assert min(off() for _ in range(3)) < 0.02


def test_a_costly_sensor_is_read_less_often() -> None:
    def read() -> float:
        began_s = time.thread_time()
        while time.thread_time() - began_s < 0.001:
            pass
        return 1.0

    with SampledMeter("costly", "test", read, 0.02) as meter:
        assert meter.period_s >= 0.001 / 0.005


def test_a_window_is_opened_and_ended_once() -> None:
    meters = [
        SampledMeter("sampled", "test", lambda: 1.0, 0.02),
        CounterMeter("counter", "test", [Counter("c", time.monotonic)], 0.001),
    ]
    for meter in meters:
        with pytest.raises(EnergyError, match="no window is open"):
            meter.stop()
        meter.start()
        with pytest.raises(EnergyError, match="open already"):
            meter.start()
        meter.stop()
        meter.start()
        meter.close()
        meter.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("meter")]


# Several meters as one


def test_two_meters_as_one(tmp_path: Path) -> None:
    write(tmp_path, {**SERVER, **INA226})
    with open_meter("rapl+hwmon:ina226", tmp_path) as meter:
        assert isinstance(meter, SumMeter)
        assert meter.name == "rapl+hwmon:ina226"
        assert meter.domain.endswith("+ ina226")
        meter.start()
        write(tmp_path, {ENERGY: "1500000"})
        reading = meter.stop()  # at once: short of two periods, a sensor's gap is none
        assert reading.valid, reading.reason
        assert reading.energy_j == pytest.approx(0.5 + 2.5 * reading.duration_s, abs=0.1)
        meter.start()
        (tmp_path / ENERGY).unlink()
        reading = meter.stop()
        assert not reading.valid
        assert reading.reason.startswith("rapl: ")
        assert math.isnan(reading.energy_j)


# NVML


class NvmlError(Exception):
    pass


class FakeNvml(SimpleNamespace):
    """NVML's functions with recorded values: energy in mJ, power in mW, by the test's clock."""

    def __init__(self, clock: Clock, lacks: tuple[str, ...] = ()) -> None:
        super().__init__(NVMLError=NvmlError, clock=clock, lacks=lacks, depth=0, asked=[])

    def _ask(self, name: str) -> None:
        if name in self.lacks:
            raise NvmlError("Not Supported" if name != "lost" else "GPU is lost")
        self.asked.append(name)

    def nvmlInit(self) -> None:
        self._ask("init")
        self.depth += 1

    def nvmlShutdown(self) -> None:
        self.depth -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self._ask(f"index {index}")
        return index

    def nvmlDeviceGetName(self, gpu: int) -> bytes:
        return b"NVIDIA Test"

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        self._ask("energy")
        # 75 W; it moves every 20 ms, by 1500 mJ.
        return 123_000_000 + 1500 * math.floor((self.clock.monotonic() + 1e-6) / 0.02)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        self._ask("power")
        return 45_600


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.energy.nvml.find_gpu", lambda: None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("spec", "index"), [("nvml", 0), ("nvml:1", 1)])
def test_gpu_that_counts_energy(tmp_path: Path, clock: Clock, monkeypatch, spec: str, index: int) -> None:
    library = FakeNvml(clock)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with open_meter(spec, tmp_path) as meter:
        assert meter.domain == "GPU (NVIDIA Test)"
        assert f"index {index}" in library.asked
        assert meter.period_s == pytest.approx(0.02, abs=0.001)
        clock.now_s = 2000.0
        meter.start()
        clock.now_s += 4
        reading = meter.stop()
        # 123000000 mJ + 1500 mJ x 100000 before, x 100200 after: 200 steps of 1.5 J
        assert reading.energy_j == pytest.approx(300, abs=1e-9)
        assert reading.power_w == pytest.approx(75)
        assert reading.samples == pytest.approx(200, abs=10)
        meter.start()
        library.lacks = ("energy",)
        reading = meter.stop()
        assert not reading.valid
        assert "could not be read" in reading.reason
    meter.close()
    assert library.depth == 0


@pytest.mark.usefixtures("no_gpu")
def test_gpu_that_tells_power_alone(tmp_path: Path, clock: Clock, monkeypatch) -> None:
    library = FakeNvml(clock, ("energy",))
    monkeypatch.setitem(sys.modules, "pynvml", library)
    check_constant(open_meter("nvml", tmp_path), 45.6, "GPU (NVIDIA Test)")
    assert library.depth == 0


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("spec", "lacks", "said"),
    [
        ("nvml:7", (), "no GPU '7'.*nvml:0, nvml:1"),
        ("nvml:-1", (), "no GPU"),
        ("nvml", ("energy", "power"), "neither energy nor power: Not Supported"),
        ("nvml", ("index 0",), "Not Supported"),
        ("nvml", ("init",), "cannot be asked"),
    ],
)
def test_gpu_that_cannot_be_asked(
    tmp_path: Path, clock: Clock, monkeypatch, spec: str, lacks: tuple[str, ...], said: str
) -> None:
    library = FakeNvml(clock, lacks)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with pytest.raises(EnergyError, match=f"(?s){said}"):
        open_meter(spec, tmp_path)
    assert library.depth == 0


def test_nvml_itself_without_a_driver(tmp_path: Path) -> None:
    library = pytest.importorskip("pynvml")
    try:
        library.nvmlInit()
    except library.NVMLError:
        with pytest.raises(EnergyError, match="driver cannot be asked"):
            open_meter("nvml", tmp_path)
    else:
        library.nvmlShutdown()
        pytest.skip("there is a driver")


@pytest.mark.usefixtures("no_nvml")
def test_nvml_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"edgecut\[energy\]"):
        open_meter("nvml", tmp_path)


@pytest.mark.gpu
def test_energy_of_this_gpu() -> None:
    pytest.importorskip("pynvml")
    torch = importlib.import_module("torch")
    assert find_gpu() is not None
    x = torch.randn(2048, 2048, device="cuda")

    def run() -> None:
        (x @ x).sum().item()

    with open_meter("nvml") as meter:
        idle_w = idle_power(meter)
        found = measure_energy(meter, run, latency_s=0.001)
    assert found.valid, found.reason
    assert found.power_w > 0.9 * idle_w > 0


# Windows


def steady(clock: Clock, power_w: float = 5.0, period_s: float = 0.01) -> CounterMeter:
    """A counter of constant power on the test's clock."""
    return CounterMeter("steady", "test", [Counter("steady", lambda: power_w * clock.now_s)], period_s)


@pytest.mark.parametrize(
    ("latency_s", "said_s", "runs"),
    [
        (0.003, 0.003, 80),  # 20 samples of 10 ms, 1.2 of them: 0.24 s
        (0.003, 0.3, 83),  # faster than said: one run was too short, so the window is made anew
        (0.003, 0.0003, 800),  # slower than said
        (0.1, 0.1, 3),
        (30.0, 30.0, 1),
        (30.0, 0.1, 1),
    ],
)
def test_short_bundles_are_repeated(clock: Clock, latency_s: float, said_s: float, runs: int) -> None:
    found = measure_energy(steady(clock), lambda: clock.sleep(latency_s), latency_s=said_s)
    assert found.valid
    assert found.runs == pytest.approx(runs, rel=0.02)
    assert found.energy_j == pytest.approx(5 * latency_s)
    assert found.power_w == pytest.approx(5)
    assert found.window_s == pytest.approx(found.runs * latency_s)
    assert found.samples >= 20


@given(
    latency_s=st.floats(1e-3, 20), error=st.floats(0.1, 10), period_s=st.floats(1e-3, 0.2),
    power_w=st.floats(0.1, 500),
)  # fmt: skip
def test_a_valid_window_holds_enough_samples(
    latency_s: float, error: float, period_s: float, power_w: float
) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in ("counter", "window"):
            patch.setattr(f"profiler.energy.{module}.time", clock)
        found = measure_energy(
            steady(clock, power_w, period_s), lambda: clock.sleep(latency_s), latency_s=latency_s * error
        )
    assert found.valid
    assert found.samples >= 20
    assert found.window_s >= 0.999 * 20 * period_s
    assert found.energy_j == pytest.approx(power_w * latency_s)
    assert found.window_s <= max(10 + latency_s, latency_s) * 1.001


def test_windows_that_stay_too_short(clock: Clock) -> None:
    found = measure_energy(
        steady(clock, period_s=1.0), lambda: clock.sleep(0.01), latency_s=0.01, max_window_s=5
    )
    assert not found.valid
    assert found.reason == "5 samples in 5.000 s, 20 needed"
    assert math.isnan(found.energy_j)
    assert math.isnan(found.power_w)


def test_a_latency_that_is_not_known(clock: Clock) -> None:
    found = measure_energy(steady(clock), lambda: clock.sleep(0.002), latency_s=math.nan)
    assert found.valid
    assert found.energy_j == pytest.approx(0.01)


def test_a_bundle_that_fails_leaves_the_meter_usable(clock: Clock) -> None:
    meter = steady(clock)

    def fail() -> None:
        raise BundleError("out of memory")

    with pytest.raises(BundleError):
        measure_energy(meter, fail, latency_s=0.1)
    assert measure_energy(meter, lambda: clock.sleep(0.1), latency_s=0.1).valid


def test_a_meter_that_fails_gives_no_number(clock: Clock) -> None:
    broken = CounterMeter("broken", "test", [Counter("broken", lambda: 100 - clock.now_s)], 0.01)
    found = measure_energy(broken, lambda: clock.sleep(0.1), latency_s=0.1)
    assert not found.valid
    assert "broken went from" in found.reason
    assert math.isnan(found.energy_j)
    with pytest.raises(EnergyError, match="idle power cannot be measured with broken"):
        idle_power(broken, 1.0)


def test_idle_power(clock: Clock) -> None:
    before_s = clock.now_s
    assert idle_power(steady(clock, 1.5), window_s=2.0) == pytest.approx(1.5)
    assert clock.now_s - before_s == pytest.approx(2.0)
    # A slow meter needs longer.
    assert idle_power(steady(clock, 1.5, period_s=0.5), window_s=2.0) == pytest.approx(1.5)
    assert clock.now_s - before_s == pytest.approx(14.0)


def test_power_of_a_window_without_length() -> None:
    assert math.isnan(Reading(1.0, 0.0, 0).power_w)


def test_every_chip_is_found_once(tmp_path: Path) -> None:
    found = hwmon.chips(write(tmp_path, {**ORIN_NX, **TX2, **INA226}))
    assert [(chip.name, len(chip.power)) for chip in found] == [
        ("ina226", 1), ("ina3221", 3), ("ina3221x", 1), ("ina3221x", 1),
    ]  # fmt: skip
