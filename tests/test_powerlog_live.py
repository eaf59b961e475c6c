"""A SmartPower3 on a real pseudo-terminal and on UDP, and DIME's power-log protocol over real TCP."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_powerlog import DEVICE_LINES, record, write_log

from planner.errors import DocumentError, EdgecutError, EnergyError, InputError
from profiler.energy.log_file import Stamped, read_records
from profiler.energy.meter import open_meter
from profiler.energy.powerlog import PowerlogClient, PowerlogMeter, is_log_name, parse_address
from profiler.energy.powerlog_server import Log, PowerlogServer
from profiler.energy.smartpower3 import Fault, Record, format_line, parse_line
from profiler.energy.sources import ReplaySource, SerialSource, Source, UdpSource, parse_source

pytest.importorskip("serial", reason="needs pyserial (extra energy)")


class FakePower:
    """Sends a line every 5 ms, as the device does, until it is unplugged."""

    def __init__(self, send: Callable[[bytes], object], power_w: float = 2.0) -> None:
        self._send, self._power_w = send, power_w
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._ended.wait(0.005):
            self._send(format_line(record(round((time.monotonic() - begun) * 1e3), self._power_w)))

    def unplug(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def serial_port() -> Iterator[tuple[str, FakePower, Callable[[], None]]]:
    """A port with a device on it, and what pulls the plug."""
    master, slave = os.openpty()
    tty.setraw(slave)
    port = os.ttyname(slave)
    os.set_blocking(master, False)

    def send(line: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads
            os.write(master, line)

    device = FakePower(send)
    open_ends = [master, slave]

    def unplug() -> None:
        device.unplug()
        while open_ends:
            os.close(open_ends.pop())

    yield port, device, unplug
    unplug()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """30 s at 2 W."""
    file = tmp_path / "recording.csv"
    write_log(file, 30.0, lambda t: 2.0)
    return file


def read_until(source: Source, count: int) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += source.read()
    return found


# --- sources ---


def test_a_serial_port_with_noise() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    source = SerialSource(os.ttyname(slave), 921_600)
    try:
        stream = b"".join(DEVICE_LINES)
        os.write(
            master, stream[50:] + b"\x00noise\xff\n" + DEVICE_LINES[1].replace(b"0072", b"0073") + stream
        )
        expected = [parse_line(line) for line in (*DEVICE_LINES[1:], *DEVICE_LINES)]
        assert read_until(source, 5) == expected
        assert source.faults == {Fault.SHAPE: 1, Fault.CHECKSUM: 1}
        with pytest.raises(EnergyError, match="cannot open"):
            SerialSource(os.ttyname(slave))  # one reader at a time: two would each get half
        os.close(master)
        with pytest.raises(EnergyError, match="is gone"):
            read_until(source, 1)
    finally:
        source.close()
        os.close(slave)


def test_udp_datagrams() -> None:
    source = UdpSource(0, "127.0.0.1")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            for datagram in (DEVICE_LINES[0], b"noise", DEVICE_LINES[1].rstrip(), DEVICE_LINES[2][:40]):
                device.sendto(datagram, ("127.0.0.1", source.port))
            assert read_until(source, 2) == [parse_line(line) for line in DEVICE_LINES[:2]]
            source.read()
        assert source.faults == {Fault.SHAPE: 2}
        with pytest.raises(EnergyError, match="cannot listen"):
            UdpSource(source.port, "127.0.0.1")
    finally:
        source.close()


def test_a_recording_is_played_once(tmp_path: Path) -> None:
    file = tmp_path / "short.csv"
    write_log(file, 0.2, lambda t: 2.0)
    source = ReplaySource(file)
    assert [each.time_ms for each in read_until(source, 21)] == list(range(5000, 5201, 10))
    with pytest.raises(EnergyError, match="has ended"):
        source.read()


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("smartpower3:/dev/ttyUSB0", "0"),
        ("/dev/ttyUSB0,921600@1", "1"),
        ("smartpower3:udp:6000@input", "input"),
    ],
)
def test_sources_are_named(text: str, channel: str) -> None:
    assert parse_source(text).channel == channel


@pytest.mark.parametrize(
    "text",
    ["", "smartpower3:", "x@2", "udp:", "udp:70000", "udp:no", "/dev/ttyUSB0,fast", "/dev/ttyUSB0,0"],
)
def test_what_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_source(text).open()


@pytest.mark.parametrize("spec", ["smartpower3:/dev/nowhere", "smartpower3:/dev/null", "smartpower3:no.csv"])
def test_a_source_that_is_not_there_says_so(spec: str) -> None:
    with pytest.raises((EnergyError, DocumentError)):
        open_meter(spec)


# --- the meter ---


def test_the_meter_integrates_a_window(serial_port: tuple[str, FakePower, Callable[[], None]]) -> None:
    port, _, unplug = serial_port
    with open_meter(f"smartpower3:{port},921600@0") as meter:
        assert 0.004 <= meter.period_s < 0.1
        for _ in range(2):
            meter.start()
            time.sleep(0.4)
            reading = meter.stop()
            assert reading.valid, reading.reason
            assert reading.power_w == pytest.approx(2.0)
            assert reading.samples >= 5
            assert reading.stop_s - reading.start_s == pytest.approx(reading.duration_s)
        meter.start()
        with pytest.raises(EnergyError):
            meter.start()
        reading = meter.stop()
        assert not reading.valid
        assert "too few samples" in reading.reason
        with pytest.raises(EnergyError):
            meter.stop()
        meter.start()
        unplug()
        time.sleep(0.1)
        reading = meter.stop()
        assert not reading.valid
        assert "is gone" in reading.reason or "too few" in reading.reason


def test_a_silent_port_is_refused() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.write(master, b"the wrong baud rate\n" * 8)
    with pytest.raises(EnergyError, match=r"no power from(.|\n)*baud rate"):
        open_meter(f"smartpower3:{os.ttyname(slave)}")
    os.close(master)
    os.close(slave)


# --- the logger ---


def test_a_logger_whose_device_dies(
    tmp_path: Path, serial_port: tuple[str, FakePower, Callable[[], None]]
) -> None:
    port, _, unplug = serial_port
    log = Log(parse_source(port).open, tmp_path / "power.csv")
    time.sleep(0.2)
    unplug()
    assert log.wait(5)
    assert "is gone" in str(log.failure)
    log.close()
    found, faults = read_records(tmp_path / "power.csv")
    assert len(found) == log.rows > 5
    assert not faults
    assert all(isinstance(each, Stamped) and abs(each.host_ns / 1e9 - time.time()) < 60 for each in found)


def test_a_logger_that_is_killed_leaves_whole_rows(tmp_path: Path, recording: Path) -> None:
    file = tmp_path / "power.csv"
    arguments = ["edgecut", "energy", "log", "--source", str(recording), "-o", str(file)]
    script = f"import sys; sys.argv = {arguments!r}; from runtime.cli import main; main()"
    logger = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert logger.stdout
    logger.stdout.readline()
    time.sleep(0.3)
    logger.kill()
    logger.communicate()
    found, faults = read_records(file)
    assert len(found) > 5
    assert not faults
    assert file.read_bytes().endswith(b"\n")


# --- the protocol ---


def say(address: tuple[str, int], *words: bytes, pause_s: float = 0.0) -> bytes:
    """What a bare socket hears, as DIME's scripts use one."""
    with socket.create_connection(address, 10) as connection:
        for word in words:
            connection.sendall(word)
            time.sleep(pause_s)
        return connection.recv(1024)


@pytest.fixture
def server(tmp_path: Path, recording: Path) -> Iterator[PowerlogServer]:
    with PowerlogServer(tmp_path / "logs", lambda: ReplaySource(recording)) as made:
        yield made


def test_dimes_words(server: PowerlogServer, tmp_path: Path) -> None:
    for name in (b"nano_alexnet_power_fixed_1.csv", b"second.csv"):
        assert say(server.address, b"start," + name) == b"started"
        time.sleep(0.1)
        assert say(server.address, b"stop") == b"stopped"
        assert say(server.address, b"shutdown") == b"ack_shutdown"
        assert read_records(tmp_path / "logs" / name.decode())[0]
    for nonsense in (b"hello", b"start", b"stop,now", b"\xff\xfe", b"x" * 5000, b"\n", b"start,a.csv,b.csv"):
        assert say(server.address, nonsense).startswith(b"bad message")
    assert say(server.address, b"hello") == b"bad message"
    assert say(server.address, b"star", b"t,third.c", b"sv", pause_s=0.05) == b"started"
    assert b"second.csv is being logged" not in say(server.address, b"start,fourth.csv")
    assert say(server.address, b"start,fourth.csv") == b"bad message: third.csv is being logged"
    assert sorted(file.name for file in (tmp_path / "logs").iterdir()) == [
        "nano_alexnet_power_fixed_1.csv", "second.csv", "third.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["../out.csv", "/tmp/out.csv", "a/b.csv", "a\\b.csv", ".hidden.csv", "..csv", "out.txt", ".csv",
     "a\x00.csv", "a b.csv", "x" * 200 + ".csv", "con\n.csv"],
)  # fmt: skip
def test_names_from_the_network_stay_in_the_directory(
    server: PowerlogServer, tmp_path: Path, name: str
) -> None:
    assert not is_log_name(name)
    assert say(server.address, f"start,{name}\n".encode()).startswith(b"bad message")
    assert not (tmp_path / "logs").exists()
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(InputError):
        PowerlogClient(*server.address).start(name)


def test_a_file_is_never_overwritten_and_a_link_not_followed(server: PowerlogServer, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "there.csv").write_text("precious")
    (logs / "link.csv").symlink_to(tmp_path / "target.csv")
    assert say(server.address, b"start,there.csv") == b"bad message: there.csv exists already"
    assert say(server.address, b"start,link.csv").startswith(b"bad message: link.csv exists")
    assert (logs / "there.csv").read_text() == "precious"
    assert not (tmp_path / "target.csv").exists()


def test_silent_and_slow_clients_are_hung_up_on(
    server: PowerlogServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiler.energy.powerlog_server._PATIENCE_S", 0.3)
    silent = [socket.create_connection(server.address, 10) for _ in range(8)]
    assert say(server.address, b"time").isdigit()  # others are served meanwhile
    assert all(client.recv(10) == b"" for client in silent)
    for client in silent:
        client.close()


def test_the_client_and_the_clock(server: PowerlogServer, tmp_path: Path) -> None:
    client = PowerlogClient(*server.address)
    found = client.offset(5)
    assert found
    assert abs(found.offset_s) <= found.error_s < 1
    with PowerlogMeter(client) as meter:
        meter.start()
        time.sleep(0.1)
        reading = meter.stop()
        assert not reading.valid
        assert "edgecut energy merge" in reading.reason
        assert f"--power {meter.file} --offset" in reading.reason
    assert len(read_records(tmp_path / "logs" / meter.file)[0]) > 5
    client.start("again.csv")


def test_a_log_that_broke_off_is_told(tmp_path: Path) -> None:
    short = tmp_path / "short.csv"
    write_log(short, 0.1, lambda t: 2.0)
    heard: list[str] = []
    with PowerlogServer(tmp_path, lambda: ReplaySource(short), said=heard.append) as server:
        client = PowerlogClient(*server.address)
        client.start("log.csv")
        time.sleep(0.4)
        with pytest.raises(EnergyError, match=r"log.csv broke off after 11 rows"):
            client.stop()
        client.start("next.csv")  # a dead log is in nobody's way
    assert len(read_records(tmp_path / "log.csv")[0]) == 11
    assert any("11 rows" in text for text in heard)


def dime_server(answers: dict[bytes, bytes]) -> tuple[str, int]:
    """A server that knows DIME's words alone, one connection after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for _ in range(6):
                connection, _ = listener.accept()
                with connection:
                    command = connection.recv(1024).split(b",")[0]
                    connection.sendall(answers.get(command, b"bad message"))

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def test_a_server_of_dime_is_spoken_to() -> None:
    words = {b"start": b"started", b"stop": b"stopped", b"shutdown": b"ack_shutdown"}
    host, port = dime_server(words)
    with open_meter(f"powerlog:{host}:{port}") as meter:
        assert isinstance(meter, PowerlogMeter)
        assert meter.offset is None
        meter.start()
        assert "--offset" not in meter.stop().reason


def test_servers_that_answer_wrongly_or_not_at_all() -> None:
    host, port = dime_server({b"start": b"busy", b"time": b"noon"})
    with pytest.raises(EnergyError, match="told its time as 'noon'"):
        PowerlogClient(host, port).time_ns()
    with pytest.raises(EnergyError, match="answered 'busy'"):
        PowerlogClient(host, port).start("x.csv")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(EnergyError, match="did not answer"):
            PowerlogClient(*silent.getsockname(), timeout_s=0.2).stop()
        closed = silent.getsockname()
    with pytest.raises(EnergyError, match="did not answer"):
        PowerlogClient(*closed).stop()


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:70000", "host:0"])
def test_addresses(text: str) -> None:
    with pytest.raises(InputError):
        parse_address(text)
    assert parse_address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_beyond_loopback_only_when_told(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="--insecure"):
        PowerlogServer(tmp_path, lambda: UdpSource(0), host)


def test_a_port_that_is_taken(server: PowerlogServer, tmp_path: Path) -> None:
    with pytest.raises(EdgecutError, match="cannot listen"):
        PowerlogServer(tmp_path, lambda: UdpSource(0), *server.address)
