"""Encrypted networks, with real connections on loopback: who is admitted, and what the others are told."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from planner import Device, Emulation, Fleet
from planner.errors import EdgecutError, TransportError, WorkerError
from planner.fleet import Link
from runtime.agent import Agent
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.authority import issue, make_authority
from runtime.credentials import AUTHORITY, CERTIFICATE, KEY, Credentials
from runtime.fleet_agents import fleet_agents
from runtime.handshake import check_peer, takes_keys
from runtime.link_measure import measure_fleet
from runtime.link_probe import ProbeProtocol
from runtime.security import Security
from runtime.wire import Frame
from runtime.zenoh_transport import ZenohTransport

PATIENCE_S = 20.0
DENIED_S = 0.7  # what a rule lets pass arrives in milliseconds
NOW = datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLEET/NAME: of one fleet and another one; of the first also keys of other times."""
    folder = tmp_path_factory.mktemp("keys")
    for fleet in ("lab", "other"):
        make_authority(folder / fleet, "lab", now=NOW - timedelta(days=20))
        for name in ("nano", "edge", "laptop"):
            issue(folder / fleet, name, folder / fleet, workstation=name == "laptop")
    for when, days in (("expired", -10), ("early", 10)):
        for name in ("nano", "laptop"):
            now = NOW + timedelta(days=days)
            order = name == "laptop"
            issue(folder / "lab", name, folder / when, workstation=order, days=2, now=now)
    return folder


def load(folder: Path, **days: int) -> Credentials:
    """Keys as a machine with another clock sees them."""
    return Credentials.load(folder, NOW + timedelta(**days) if days else None)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def session(
    stack: ExitStack, credentials: Credentials | None, *connect: ZenohTransport, **options: object
) -> ZenohTransport:
    to = [each.endpoint for each in connect]
    return stack.enter_context(ZenohTransport(to, credentials=credentials, lease_s=3, **options))


def passes(sender: ZenohTransport, receiver: ZenohTransport, channel: str) -> bool:
    """Whether a frame arrives."""
    with ExitStack() as stack:
        there, here = receiver.receiver(channel, 4), sender.sender(channel)
        stack.callback(there.close)
        stack.callback(here.close)
        try:
            here.wait_ready(DENIED_S)
            here.send(Frame(body={"channel": channel}))
        except TransportError:
            return False
        frame = there.receive(PATIENCE_S)
        return frame is not None and frame.body == {"channel": channel}


# --- rules


def test_each_may_send_what_its_certificate_allows(keys: Path, stack: ExitStack) -> None:
    lab = keys / "lab"
    known = ["nano", "edge"]
    nano = session(stack, load(lab / "nano").among(known))
    edge = session(stack, load(lab / "edge").among(known))
    laptop = session(stack, load(lab / "laptop").among(known), nano, edge)
    allowed = {
        (laptop, nano): ("agent/nano/1", "artifact/nano/1", "leg/nano/1/0"),
        (nano, laptop): ("client/1", "output/1"),
        (nano, edge): ("leg/edge/1/1", "probe/1/there"),
    }
    denied = {
        (laptop, edge): ("agent/nano/1", "leg/nano/1/0"),
        (nano, laptop): ("agent/nano/1", "anything"),
        (nano, edge): ("agent/edge/1", "artifact/edge/1", "leg/nano/1/0", "client/1", "output/1"),
    }
    for wanted, channels in ((True, allowed), (False, denied)):
        for (sender, receiver), names in channels.items():
            for channel in names:
                assert passes(sender, receiver, channel) == wanted, channel


def test_no_device_passes_for_another(keys: Path, stack: ExitStack) -> None:
    lab = keys / "lab"
    nano = session(stack, load(lab / "nano"))
    edge = session(stack, load(lab / "edge"))
    laptop = session(stack, load(lab / "laptop").among(["nano", "edge"]), nano, edge)
    seen: set[str] = set()
    known = threading.Event()

    def watcher(name: str, alive: bool) -> None:
        seen.add(name)
        if name == "agent/edge/9":
            known.set()

    edge.declare_alive("agent/nano/1")
    edge.declare_alive("client/0123456789abcdef")
    nano.declare_alive("agent/nano/2")
    laptop.watch(watcher)
    edge.declare_alive("agent/edge/9")
    assert known.wait(PATIENCE_S)
    assert seen <= {"agent/nano/2", "agent/edge/9"}


@pytest.mark.parametrize(
    "folder", ["other/laptop", "other/nano", "expired/laptop", None], ids=lambda each: str(each)
)
def test_nobody_uninvited_gets_in(keys: Path, stack: ExitStack, folder: str | None) -> None:
    """Whatever is sent, past our own checks: Zenoh does not take the connection."""
    nano = session(stack, load(keys / "lab" / "nano"))
    guest: Credentials | None = None
    if folder:
        guest = load(keys / folder, **{"days": -9} if "expired" in folder else {})
        # It believes the fleet's authority, whoever issued its own certificate.
        own = keys / f"guest-{folder.replace('/', '-')}"
        shutil.copytree(keys / folder, own)
        shutil.copy(keys / "lab" / AUTHORITY, own / AUTHORITY)
        guest = replace(guest, folder=own)
    stranger = session(stack, guest, nano)
    for channel in ("agent/nano/1", "leg/nano/1/0", "probe/1/there"):
        assert not passes(stranger, nano, channel)


# --- what is said


def reason(credentials: Credentials, address: str, expected: str = "nano") -> str:
    with pytest.raises(TransportError) as found:
        check_peer(credentials, address, expected)
    assert found.value.remedy
    return found.value.message


def test_right_keys_are_accepted_and_nobody_is_no_refusal(keys: Path, stack: ExitStack) -> None:
    nano = session(stack, load(keys / "lab" / "nano"))
    laptop = load(keys / "lab" / "laptop")
    check_peer(laptop, nano.endpoint, "nano")
    check_peer(laptop, "tls/127.0.0.1:9", "nano")
    assert takes_keys(nano.endpoint)
    plain = session(stack, None)
    assert not takes_keys(plain.endpoint)
    assert not takes_keys("tcp/127.0.0.1:9")


def test_refusals_have_their_reason(keys: Path, stack: ExitStack, tmp_path: Path) -> None:
    nano = session(stack, load(keys / "lab" / "nano"))
    laptop = load(keys / "lab" / "laptop")
    assert "has the keys of nano, not of edge" in reason(laptop, nano.endpoint, "edge")
    assert "issued by another authority" in reason(load(keys / "other" / "laptop"), nano.endpoint)
    clock = "by its clock these keys are expired or not yet valid"
    assert clock in reason(load(keys / "expired" / "laptop", days=-9), nano.endpoint)
    assert clock in reason(load(keys / "early" / "laptop", days=11), nano.endpoint)
    for name, fleet in ((KEY, "other"), (CERTIFICATE, "other"), (AUTHORITY, "lab")):
        shutil.copy(keys / fleet / "laptop" / name, tmp_path / name)
    mixed = replace(laptop, folder=tmp_path)
    assert "it believes another authority" in reason(mixed, nano.endpoint)


def test_a_process_that_needs_one_endpoint_is_told_why_not(keys: Path, stack: ExitStack) -> None:
    laptop = session(stack, load(keys / "lab" / "laptop"))
    with pytest.raises(TransportError, match="issued by another authority"):
        ZenohTransport(laptop.endpoint, credentials=load(keys / "other" / "nano"), timeout_s=1.0)


def test_the_peers_own_certificate_is_judged(keys: Path, stack: ExitStack) -> None:
    laptop = load(keys / "lab" / "laptop")
    for when, days, said in (("expired", -9, "there is expired"), ("early", 11, "there is not yet valid")):
        nano = session(stack, load(keys / when / "nano", days=days))
        assert said in reason(laptop, nano.endpoint)
    elsewhere = session(stack, load(keys / "lab" / "nano"), listen="tls/127.0.0.2:0")
    assert "is for other addresses than 127.0.0.2" in reason(laptop, elsewhere.endpoint)


def test_an_unencrypted_agent_is_no_tls_peer(keys: Path, stack: ExitStack) -> None:
    plain = session(stack, None)
    address = plain.endpoint.replace("tcp/", "tls/")
    assert "TLS" in reason(load(keys / "lab" / "laptop"), address)


# --- agents


def fleet(address: str) -> Fleet:
    devices = Device("edge", emulate=Emulation(1)), Device("nano", address=address)
    links = tuple(Link(*pair, 1.25e8) for pair in (("edge", "nano"), ("nano", "edge")))
    return Fleet("edge", "edge", devices, links)


@pytest.fixture(scope="module")
def agent(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`edgecut agent` with keys, as on another machine; its address."""
    main = "import sys; from runtime.cli import main; main()"
    command = [sys.executable, "-c", main, "agent", "--name", "nano", "--listen", "tls/127.0.0.1:0"]
    command += ["--keys", str(keys / "lab" / "nano"), "--folder", str(tmp_path_factory.mktemp("nano"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert "listens on tls/127.0.0.1:" in line
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield line.split()[3].rstrip(";")
        finally:
            process.kill()


def ask(address: str, security: Security, folder: Path) -> dict[str, object]:
    with fleet_agents(fleet(address), ["nano"], folder, security=security) as clients:
        return clients["nano"].request("hello")


def test_a_workstation_with_keys_is_served(keys: Path, agent: str, tmp_path: Path) -> None:
    assert ask(agent, Security(load(keys / "lab" / "laptop")), tmp_path)["name"] == "nano"


def test_others_are_told_why_not(
    keys: Path, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", DENIED_S)
    for security, address, said in (
        (Security(load(keys / "other" / "laptop")), agent, "issued by another authority"),
        (Security(load(keys / "expired" / "laptop", days=-9)), agent, "by its clock these keys are expired"),
        (Security(load(keys / "lab" / "nano")), agent, "gives no orders"),
        (Security(), agent, "which takes keys"),
        (Security(), agent.replace("tls/", "tcp/"), "takes only encrypted connections"),
    ):
        with pytest.raises(EdgecutError, match=said):
            ask(address, security, tmp_path)


def test_a_denied_order_names_the_rule(keys: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen alive, yet its rules take no orders: here from a device that tries, past our own check."""
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 2.0)
    nano = session(stack, load(keys / "lab" / "nano"))
    served = Agent("nano", nano)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(served.stop)
    own = load(keys / "lab" / "edge")
    edge = session(stack, own, nano)
    network = stack.enter_context(AgentNetwork(edge))
    network.agents["nano"] = {served._address.rpartition("/")[2]}
    client = AgentClient("nano", network, nano.endpoint, credentials=own)
    with pytest.raises(TransportError, match=r"takes no orders from here.*workstation.* is edge"):
        client.request("hello")


def test_an_agent_of_another_version_is_named(
    keys: Path, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = session(stack, load(keys / "lab" / "nano"))
    served = Agent("nano", nano)
    served.handle("hello", lambda body, progress: {"name": "nano", "protocol": 99})
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    stack.callback(thread.join)
    stack.callback(served.stop)
    with pytest.raises(WorkerError, match=r"the agent of nano .* \(protocol 99\)"):
        ask(nano.endpoint, Security(load(keys / "lab" / "laptop")), tmp_path)


def test_emulated_devices_join_an_encrypted_fleet(keys: Path, agent: str) -> None:
    """Frames pass directly between a remote agent and one that was started here."""
    protocol = ProbeProtocol(sizes=(64, 4096), min_runs=1, max_runs=2, timeout_s=20.0)
    report = measure_fleet(
        fleet(agent),
        fleet(agent).links,
        protocol,
        lambda link, note: None,
        lambda report: None,
        Security(load(keys / "lab" / "laptop")),
    )
    # Times of so few frames may tell no bandwidth; that they were exchanged is what counts.
    pairs = {one.nominal.pair for one in report.links}
    pairs |= {(one.source, one.target) for one in report.failed if one.exchanges}
    assert pairs == {("edge", "nano"), ("nano", "edge")}
