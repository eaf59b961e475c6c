"""The hosts of the tests: their rates, delays, cuts and order are what was asked for."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hosts import Hosts, hosts, sweep

PATIENCE_S = 30.0
SOON_S = 0.3


@pytest.fixture(scope="module")
def three() -> Iterator[Hosts]:
    with hosts("a", "b", "c") as made:
        yield made


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"


class Pings:
    """Datagrams from one host to another and back."""

    def __init__(self, network: Hosts, stack: ExitStack, here: str, there: str) -> None:
        self.near = stack.enter_context(network.socket(here, socket.SOCK_DGRAM))
        self.far = stack.enter_context(network.socket(there, socket.SOCK_DGRAM))
        self.far.bind((network.addresses[there], 0))
        for end in (self.near, self.far):
            end.settimeout(SOON_S)

    def passes(self) -> bool:
        return self.round_trip_s() is not None

    def round_trip_s(self) -> float | None:
        began = time.monotonic()
        try:
            self.near.sendto(b"ping", self.far.getsockname())
            self.far.sendto(*self.far.recvfrom(99))
            self.near.recv(99)
        except OSError:  # too late, or there is no way
            return None
        return time.monotonic() - began


@pytest.fixture
def pings(three: Hosts) -> Iterator[Callable[[str, str], Pings]]:
    with ExitStack() as stack:
        yield lambda here, there: Pings(three, stack, here, there)


def test_a_cut_between_two_leaves_the_third(three: Hosts, pings: Callable[[str, str], Pings]) -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    for _ in range(2):  # mended as it was
        for here, there in pairs:
            until(pings(here, there).passes)
        three.cut("b", "c")
        assert not pings("b", "c").passes()
        assert not pings("c", "b").passes()
        until(pings("a", "b").passes)
        until(pings("c", "a").passes)
        three.mend("b", "c")
    three.cut("a")
    assert not pings("a", "b").passes()
    assert not pings("c", "a").passes()
    until(pings("b", "c").passes)
    three.mend("a")
    for here, there in pairs:
        until(pings(here, there).passes)


def test_a_delay_is_added_to_every_frame_and_no_more(
    three: Hosts, pings: Callable[[str, str], Pings]
) -> None:
    ping = pings("a", "b")
    for delay_s in (0.02, 0.05):
        three.delay("b", delay_s)
        until(lambda: (ping.round_trip_s() or 1.0) - 2 * delay_s < 0.002)  # noqa: B023 - asked at once
        times = [ping.round_trip_s() or 1.0 for _ in range(5)]
        assert min(times) >= 2 * delay_s
    three.cut("b")
    assert not ping.passes()
    three.mend("b")
    until(ping.passes)
    three.delay("b", 0)
    until(lambda: (ping.round_trip_s() or 1.0) < 0.02)


def test_jitter_reorders_and_loss_loses(three: Hosts, pings: Callable[[str, str], Pings]) -> None:
    ping = pings("a", "b")
    until(ping.passes)
    three.delay("b", 0.0, jitter_s=0.05, loss=0.25)
    sent = range(400)
    for number in sent:
        ping.near.sendto(number.to_bytes(2, "big"), ping.far.getsockname())
    ping.far.settimeout(5 * SOON_S)
    found = []
    while len(found) < len(sent):
        try:
            found.append(int.from_bytes(ping.far.recv(9), "big"))
        except TimeoutError:
            break
    three.delay("b", 0)
    assert len(set(found)) == len(found)
    assert 0.6 < len(found) / len(sent) < 0.9
    assert sum(one > other for one, other in itertools.pairwise(found)) > 50


def test_rates_are_what_was_asked(three: Hosts) -> None:
    """Never faster but for the burst, both ways; and once within 10 % of it."""

    def rate(here: str, there: str, nbytes: int) -> float:
        with three.socket(here) as near, three.socket(there) as listener:
            listener.bind((three.addresses[there], 0))
            listener.listen()
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            sender = threading.Thread(target=near.sendall, args=(bytes(nbytes),))
            sender.start()
            with far:
                burst = len(far.recv(65_536, socket.MSG_WAITALL))
                began = time.monotonic()
                rest = len(far.recv(nbytes - burst, socket.MSG_WAITALL))
                took_s = time.monotonic() - began
            sender.join()
            return rest * 8 / took_s

    three.throttle("c", 8e6, 32e6)
    for here, there, asked in (("c", "a", 8e6), ("a", "c", 32e6)):
        rates = [rate(here, there, 500_000)]
        until(lambda: rates.append(rate(here, there, 500_000)) or max(rates) > 0.9 * asked)  # noqa: B023
        assert max(rates) < 1.1 * asked
    three.throttle("c", 1e9, 1e9)


def test_what_a_killed_test_left_is_swept(tmp_path: Path) -> None:
    with hosts("mine") as mine:
        program = (
            "import sys, time; from pathlib import Path; from hosts import hosts\n"
            "with hosts('a', 'b') as made:\n"
            "    made.delay('a', 0.1)\n"
            "    made.start('b', 'sleep', '1000', log=Path(sys.argv[1]))\n"
            "    asleep = made._started[0].pid\n"
            "    while Path(f'/proc/{asleep}/comm').read_text() != 'sleep\\n':\n"
            "        time.sleep(0.01)\n"
            "    print(made.namespace('b'), asleep, flush=True)\n"
            "    time.sleep(1000)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "log")],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        ) as owner:  # fmt: skip
            assert owner.stdout
            namespace, asleep = owner.stdout.readline().split()
            owner.send_signal(signal.SIGKILL)
        assert Path(f"/run/netns/{namespace}").exists()
        sweep()
        assert not Path(f"/run/netns/{namespace}").exists()
        until(lambda: not Path(f"/proc/{asleep}").exists() or zombie(asleep))
        assert Path(f"/run/netns/{mine.namespace('mine')}").exists()


def zombie(process: str) -> bool:
    """Killed, and nobody has asked for its end yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
