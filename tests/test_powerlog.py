"""SmartPower3's lines, power logs on disk, and clocks: known power, and energy by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import DocumentError, EnergyError, StorageError
from profiler.energy.clocksync import Lack, align, measure_offset, split_at_jumps
from profiler.energy.log_file import COLUMNS, LogWriter, PowerLog, Stamped, read_log, read_records
from profiler.energy.smartpower3 import (
    Fault,
    LineError,
    LineReader,
    Rail,
    Record,
    checksums,
    format_line,
    parse_line,
)

UNIX_NS = 1_700_000_000_000_000_000
OFF = Rail(0, 0, 0, False)
# Lines of real devices; the first is the one in the manufacturer's documentation.
DEVICE_LINES = [
    b"0000815169,15296,0036,00550,0,00000,0000,00000,0,00,00000,0000,00000,0,00,14,12\r\n",
    b"0343732187,15321,0072,01103,0,00000,0000,00000,0,00,00000,0000,00000,0,00,1c,12\r\n",
    b"0343732197,15332,0084,01287,0,00000,0000,00000,0,00,00000,0000,00000,0,00,09,17\r\n",
]


def record(time_ms: int, power_w: float = 2.0) -> Record:
    power_mw = round(power_w * 1e3)
    return Record(
        time_ms, Rail(15000, 300, power_mw + 500, False), Rail(5000, power_mw // 5, power_mw, True), OFF
    )


def log_of(
    device_ms: np.ndarray, host_s: np.ndarray, power_w: np.ndarray | float = 2.0, source: str = "a log"
) -> PowerLog:
    watts = np.broadcast_to(np.asarray(power_w, dtype=float), device_ms.shape)
    return PowerLog(source, "0", device_ms.astype(np.int64), (host_s * 1e9).astype(np.int64), watts)


def write_log(file: Path, seconds: float, power: Callable[[float], float], period_ms: int = 10) -> None:
    """A log that begins at ``UNIX_NS``, read 3 ms after each line was sent."""
    writer = LogWriter(file)
    times_ms = range(0, round(seconds * 1e3) + 1, period_ms)
    writer.append(
        Stamped(UNIX_NS + ms * 1_000_000 + 3_000_000, record(5000 + ms, power(ms / 1e3))) for ms in times_ms
    )
    writer.close()


# --- lines ---


@pytest.mark.parametrize("line", DEVICE_LINES)
def test_lines_of_real_devices_read_and_write_back(line: bytes) -> None:
    assert format_line(parse_line(line)) == line
    assert parse_line(line).input.voltage_mv // 100 in (152, 153)


def test_checksums_by_hand() -> None:
    # 0x41 + 0x42 + 0x43 = 0xc6, whose two's complement is 0x3a; 0x41 ^ 0x42 ^ 0x43 = 0x40.
    assert checksums(b"ABC") == (0x3A, 0x40)


rails = st.builds(
    Rail,
    st.integers(0, 99999),
    st.integers(0, 9999),
    st.integers(0, 99999),
    st.booleans(),
    st.integers(0, 255),
)
records = st.builds(
    Record, st.integers(0, 2**32 - 1), rails.map(lambda rail: rail._replace(interrupts=0)), rails, rails
)


@given(records)
def test_every_record_goes_through_a_line(made: Record) -> None:
    line = format_line(made)
    assert len(line) == 81
    assert parse_line(line) == made


@given(records, st.integers(0, 78), st.integers(1, 255))
def test_one_changed_byte_is_never_believed(made: Record, place: int, change: int) -> None:
    line = bytearray(format_line(made))
    line[place] ^= change
    with pytest.raises(LineError):
        parse_line(bytes(line))


@given(
    st.lists(records, min_size=1, max_size=6),
    st.lists(st.integers(1, 90), max_size=30),
    st.binary(max_size=70),
)
def test_lines_survive_chopping_and_noise(made: list[Record], cuts: list[int], noise: bytes) -> None:
    stream = b"".join(format_line(each) for each in made)
    found, reader = [], LineReader()
    stream += noise.replace(b"\n", b"") + b"\n" + stream
    for size in [*cuts, len(stream)]:
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == made * 2
    assert sum(reader.faults.values()) == bool(noise.replace(b"\n", b"").strip(b"\r"))


def test_faults_are_counted_and_a_first_half_line_is_none() -> None:
    whole = DEVICE_LINES[1]
    reader = LineReader()
    assert reader.feed(whole[40:] + whole) == [parse_line(whole)]
    assert not reader.faults
    assert reader.feed(whole.replace(b"1103", b"1104") + whole[:30] + b"\n" + b"\x00\xff" + whole)
    assert reader.faults == {Fault.CHECKSUM: 1, Fault.SHAPE: 2}
    for _ in range(100):
        reader.feed(b"x" * 1000)  # the wrong baud rate: never an end of line
    assert len(reader._pending) < 10_000


def test_a_number_too_long_for_its_field_is_refused() -> None:
    with pytest.raises(LineError):
        format_line(record(0, 1e6))


# --- logs on disk ---


def test_a_log_reads_back_and_its_rows_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "power.csv"
    write_log(file, 1.0, lambda t: 2.0)
    lines = file.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert lines[0].startswith("time (ms),input voltage (mV),input current (mA),input power (mW),on/off,")
    lines[5] = lines[5].replace("02000", "03000")
    lines[6] = lines[6][:50]
    lines[7] = "nonsense"
    file.write_text("\n".join(lines))
    log = read_log(file, "0")
    assert len(log) == 101 - 3
    assert log.faults == {Fault.CHECKSUM: 1, Fault.SHAPE: 2}
    assert set(log.power_w) == {2.0}
    assert set(read_log(file, "input").power_w) == {2.5}
    with pytest.raises(EnergyError, match=r"channel 1 of .* is switched off(.|\n)*channel 0 or input"):
        read_log(file, "1")


def test_a_log_that_a_spreadsheet_saved_again_is_read(tmp_path: Path) -> None:
    import pandas as pd

    file = tmp_path / "power.csv"
    write_log(file, 0.5, lambda t: 2.0)
    before = read_records(file)
    text = {name: str for name in COLUMNS if "checksum" in name}
    pd.read_csv(file, dtype=text).to_csv(file)  # zeros in front are gone, an index has come
    assert read_records(file) == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "missing columns"),
        ("time (ms),timestamp\n1,2\n", "missing columns: input voltage"),
        (",".join(COLUMNS) + "\n", "no sample"),
        (",".join(COLUMNS) + "\n" + '"' + "x" * 200_000 + "\n", "no CSV"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "power.csv"
    file.write_text(text)
    with pytest.raises(DocumentError, match=problem):
        read_log(file, "0")


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "power.csv"
    file.write_text("precious")
    with pytest.raises(StorageError, match="exists"):
        LogWriter(file)
    assert file.read_text() == "precious"


def test_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    file = tmp_path / "power.csv"
    script = f"""
import resource
from pathlib import Path
from planner.errors import StorageError
from profiler.energy.log_file import LogWriter, Stamped
from profiler.energy.smartpower3 import Rail, Record
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
writer = LogWriter(Path({str(file)!r}))
rows = [Stamped(10**18, Record(0, Rail(0, 0, 0, True), Rail(0, 0, 0, True), Rail(0, 0, 0, True)))] * 10
try:
    while True:
        writer.append(rows)
except StorageError as error:
    print(writer.rows, error.message)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    rows = int(done.stdout.split()[0])
    assert f"{rows} rows are safe" in done.stdout
    found, faults = read_records(file)
    assert (len(found), sum(faults.values())) == (rows, 0)
    assert rows == 40  # 362 bytes of header and 101 a row: the fifth ten did not fit


# --- clocks ---


def test_offset_and_drift_come_from_the_lower_envelope() -> None:
    rng = np.random.default_rng(0)
    true_s = np.arange(0, 600, 0.01)
    delay_s = 0.002 + rng.exponential(0.004, true_s.size)
    delay_s[20_000:20_300] += 3.0 - np.arange(300) * 0.01  # the host was busy for 3 s, then caught up
    device_ms = np.floor(true_s * 1e3 * (1 - 50e-6))
    aligned = align(log_of(device_ms, 1.7e9 + true_s + delay_s))
    (piece,) = aligned.pieces
    assert piece.fit.drift == pytest.approx(50e-6, abs=2e-6)
    error_s = piece.trace.time_s - (1.7e9 + true_s)
    assert np.abs(error_s - 0.0025).max() < 0.002  # the quickest delay, and the device's whole milliseconds
    assert 0.002 < piece.fit.error_s < 0.006


@pytest.mark.parametrize("step_s", [0.3, -0.3, 3600.0, -3600.0])
def test_a_clock_that_is_set_splits_the_trace_there(step_s: float) -> None:
    true_s = np.arange(0, 120, 0.01)
    host_s = 1.7e9 + true_s + 0.003 + np.random.default_rng(1).uniform(0, 0.002, true_s.size)
    host_s[7_000:] += step_s
    device_ms = np.round(true_s * 1e3)
    assert split_at_jumps(device_ms / 1e3, host_s, 0.01) == [(0, 7_000), (7_000, 12_000)]
    aligned = align(log_of(device_ms, host_s))
    assert len(aligned.pieces) == 2
    inside = aligned.window(1.7e9 + 10, 1.7e9 + 11, 5)
    assert inside.energy_j == pytest.approx(2.0)
    assert aligned.window(1.7e9 + 69.5, 1.7e9 + 70.5 + max(step_s, 0), 5).lack is Lack.COVERAGE


def test_a_meter_that_restarts_begins_a_new_piece() -> None:
    device_ms = np.concatenate([np.arange(50_000, 60_000, 10), np.arange(0, 10_000, 10)])
    host_s = 1.7e9 + np.concatenate([np.arange(0, 10, 0.01), np.arange(15, 25, 0.01)])
    assert len(align(log_of(device_ms, host_s)).pieces) == 2


def test_milliseconds_that_wrap_are_no_jump() -> None:
    device_ms = (np.arange(0, 20_000, 10) + 2**32 - 10_000) % 2**32
    (piece,) = align(log_of(device_ms, 1.7e9 + np.arange(0, 20, 0.01))).pieces
    assert piece.window(1.7e9 + 5, 1.7e9 + 15, 5).energy_j == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("device_ms", "host_s"),
    [
        (np.zeros(100), 1.7e9 + np.arange(100)),
        (np.arange(1), 1.7e9 + np.arange(1)),
        (np.arange(5000) * 10, 1.7e9 + np.arange(5000) ** 2 * 0.1),
    ],
    ids=["stands still", "one sample", "jumps all the time"],
)
def test_clocks_that_cannot_be_used_are_refused(device_ms: np.ndarray, host_s: np.ndarray) -> None:
    with pytest.raises(EnergyError, match=r"stands still|1 samples|jump"):
        align(log_of(device_ms, host_s))


def test_energy_of_a_window_by_hand() -> None:
    times_s = np.arange(0, 10, 0.01)
    aligned = align(log_of(times_s * 1e3, 1.7e9 + times_s, times_s))  # a ramp of 1 W/s
    # From 2 s to 4 s: (2 W + 4 W) / 2 x 2 s.
    assert aligned.window(1.7e9 + 2, 1.7e9 + 4, 5).energy_j == pytest.approx(6.0, abs=1e-4)
    assert aligned.shifted(0.5).window(1.7e9 + 2.5, 1.7e9 + 4.5, 5).energy_j == pytest.approx(6.0, abs=1e-4)
    assert aligned.window(1.7e9 + 2, 1.7e9 + 2.03, 5).lack is Lack.SAMPLES
    assert aligned.window(1.7e9 + 9, 1.7e9 + 11, 5).lack is Lack.COVERAGE
    assert aligned.window(1.7e9 - 1, 1.7e9 + 1, 5).lack is Lack.COVERAGE


def test_a_gap_in_a_window_leaves_it_without_energy() -> None:
    keep = np.r_[0:500, 540:1000]
    times_s = np.arange(0, 10, 0.01)[keep]
    aligned = align(log_of(times_s * 1e3, 1.7e9 + times_s))
    assert aligned.window(1.7e9 + 4, 1.7e9 + 6, 5).lack is Lack.GAP
    assert aligned.window(1.7e9 + 5.1, 1.7e9 + 5.2, 0).lack is Lack.GAP
    assert aligned.window(1.7e9 + 6, 1.7e9 + 7, 5).energy_j == pytest.approx(2.0)


@given(
    st.floats(-1e4, 1e4),
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(1, 10**7)), min_size=1, max_size=20),
)
def test_the_offset_of_two_hosts_is_within_its_error(
    offset_s: float, delays_ns: list[tuple[int, int]]
) -> None:
    """Whatever the delays there and back, the truth lies within the stated error."""
    clock = [UNIX_NS]
    ways = iter(delays_ns)
    truth_ns = int(offset_s * 1e9)

    def ask() -> int:
        there, back = next(ways)
        clock[0] += there
        answer = clock[0] - truth_ns
        clock[0] += back
        return answer

    found = measure_offset(ask, len(delays_ns), lambda: clock[0])
    assert abs(found.offset_s - truth_ns / 1e9) <= found.error_s + 1e-9
    assert found.error_s == pytest.approx(min(sum(delay) for delay in delays_ns) / 2e9)
