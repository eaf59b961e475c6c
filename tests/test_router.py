"""Agents without an open port, by a router; agents found on the LAN; commands that list them and end them."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import Edgecut

from planner import Device, Fleet, Link
from planner.errors import InputError, TransportError, WorkerError
from planner.link_report import FailedLink
from runtime.agent import Agent
from runtime.agent_messages import Body
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.authority import issue, make_authority
from runtime.credentials import Credentials
from runtime.discovery import located
from runtime.fleet_agents import fleet_agents, whereabouts
from runtime.link_measure import measure_links
from runtime.link_probe import ProbeProtocol
from runtime.orders import Progress
from runtime.survey import survey
from runtime.wire import Frame
from runtime.zenoh_transport import ZenohTransport

PATIENCE_S = 30.0
MAIN = "import sys; from runtime.cli import main; main()"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def command(*arguments: str, folder: Path, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """`edgecut ARGUMENTS` as a process that has said its first line."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", MAIN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            assert any(word in said for word in ("listens", "connects", "routes")), said
            yield process
        finally:
            process.kill()


def fleet_of(*names: str, router: str | None = None, **addresses: str) -> Fleet:
    devices = tuple(Device(name, address=addresses.get(name)) for name in [*names, *addresses])
    links = tuple(Link(a.name, b.name, 1e8) for a in devices for b in devices if a is not b)
    return Fleet(devices[0].name, devices[0].name, devices, links, router)


# --- sessions in a mesh


@pytest.fixture
def sessions() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_sessions_without_a_port_reach_each_other_through_the_router(sessions: ExitStack) -> None:
    router = sessions.enter_context(ZenohTransport(listen="tcp/127.0.0.1:0", router=True))
    one, two = (sessions.enter_context(ZenohTransport([router.endpoint], listen="")) for _ in range(2))
    assert one.endpoint == two.endpoint == ""
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    one.watch(lambda name, alive: seen.put((name, alive)))
    two.declare_alive("agent/two/1")
    assert seen.get(timeout=PATIENCE_S) == ("agent/two/1", True)
    sender, receiver = one.sender("leg/1/0"), two.receiver("leg/1/0", 20)
    sender.wait_ready(PATIENCE_S)
    for request in range(20):
        sender.send(Frame((np.full(300_000, request, np.int32),), request=request))
    for request in range(20):
        frame = receiver.receive(PATIENCE_S)
        assert frame
        assert frame.request == request
        assert (frame.tensors[0] == request).all()
    two.close()
    assert seen.get(timeout=PATIENCE_S) == ("agent/two/1", False)
    with pytest.raises(TransportError, match="has no receiver"):
        until(lambda: sender.send(Frame()))


def passes(one: ZenohTransport, other: ZenohTransport, channel: str) -> None:
    sender, receiver = one.sender(channel), other.receiver(channel, 2)
    sender.wait_ready(PATIENCE_S)
    sender.send(Frame(request=7))
    frame = receiver.receive(PATIENCE_S)
    assert frame
    assert frame.request == 7
    assert receiver.receive(0.2) is None  # one way leads there, not two
    sender.close()
    receiver.close()


def test_everyone_reaches_everyone_once(sessions: ExitStack) -> None:
    """A workstation, an agent beside it, one that only connects; and those of a site with a router of its own."""
    router = sessions.enter_context(ZenohTransport(listen="tcp/127.0.0.1:0", router=True))
    site = sessions.enter_context(ZenohTransport([router.endpoint], listen="tcp/127.0.0.1:0", router=True))
    beside = sessions.enter_context(ZenohTransport([router.endpoint]))
    workstation = sessions.enter_context(ZenohTransport([router.endpoint, beside.endpoint]))
    outward, other = (sessions.enter_context(ZenohTransport([router.endpoint], listen="")) for _ in range(2))
    near, far = (sessions.enter_context(ZenohTransport([site.endpoint])) for _ in range(2))
    everyone = [workstation, beside, outward, other, near, far]
    for place, (one, two) in enumerate(itertools.permutations(everyone, 2)):
        passes(one, two, f"leg/{place}")


def test_peers_of_a_router_talk_directly(sessions: ExitStack) -> None:
    router = sessions.enter_context(ZenohTransport(listen="tcp/127.0.0.1:0", router=True))
    one, two = (sessions.enter_context(ZenohTransport([router.endpoint])) for _ in range(2))
    passes(one, two, "leg/1")
    router.close()
    passes(one, two, "leg/2")


def test_a_router_may_end_and_return(sessions: ExitStack) -> None:
    address = f"tcp/127.0.0.1:{free_port()}"
    first = sessions.enter_context(ZenohTransport(listen=address, router=True))
    one, two = (sessions.enter_context(ZenohTransport([address], listen="")) for _ in range(2))
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    one.watch(lambda name, alive: seen.put((name, alive)))
    two.declare_alive("agent/two/1")
    assert seen.get(timeout=PATIENCE_S) == ("agent/two/1", True)
    first.close()
    assert seen.get(timeout=PATIENCE_S) == ("agent/two/1", False)
    sessions.enter_context(ZenohTransport(listen=address, router=True))
    assert seen.get(timeout=PATIENCE_S) == ("agent/two/1", True)
    passes(one, two, "leg/1")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credentials]:
    folder = tmp_path_factory.mktemp("keys")
    make_authority(folder, "lab")
    for name in ("hub", "laptop"):
        issue(folder, name, folder, addresses=["127.0.0.1"], workstation=True)
    for name in ("nano", "orin"):
        issue(folder, name, folder)
    return {name: Credentials.load(folder / name) for name in ("hub", "laptop", "nano", "orin")}


def test_an_encrypted_router_passes_on_what_the_rules_allow(
    sessions: ExitStack, keys: dict[str, Credentials]
) -> None:
    router = sessions.enter_context(ZenohTransport(credentials=keys["hub"], router=True))
    assert router.endpoint.startswith("tls/")
    laptop = sessions.enter_context(ZenohTransport([router.endpoint], credentials=keys["laptop"]))
    nano, orin = (
        sessions.enter_context(ZenohTransport([router.endpoint], "", credentials=keys[name]))
        for name in ("nano", "orin")
    )
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    laptop.watch(lambda name, alive: seen.put((name, alive)))
    nano.declare_alive("agent/nano/1")
    assert seen.get(timeout=PATIENCE_S) == ("agent/nano/1", True)
    passes(laptop, nano, "agent/nano/1")
    passes(nano, laptop, "client/1")
    passes(nano, orin, "leg/orin/1")
    ordering = nano.sender("agent/orin/1")
    orders = orin.receiver("agent/orin/1", 1)
    with pytest.raises(TransportError, match="has no receiver"):  # a device gives no orders
        ordering.wait_ready(1.0)
    orders.close()


def test_a_router_that_is_not_there_is_named() -> None:
    with pytest.raises(TransportError, match=r"cannot connect to tcp/127\.0\.0\.1:9"):
        ZenohTransport(["tcp/127.0.0.1:9"], listen="", timeout_s=0.3)


def test_workstations_that_come_and_go_always_see_who_is_there(sessions: ExitStack) -> None:
    router = sessions.enter_context(ZenohTransport(listen="tcp/127.0.0.1:0", router=True))
    agents = [sessions.enter_context(ZenohTransport([router.endpoint], listen="")) for _ in range(2)]
    for place, agent in enumerate(agents):
        agent.declare_alive(f"agent/{place}/1")
    for _ in range(5):
        seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        with ZenohTransport([router.endpoint]) as workstation:
            workstation.watch(lambda name, alive, seen=seen: seen.put((name, alive)))
            found = {seen.get(timeout=PATIENCE_S) for _ in agents}
        assert found == {("agent/0/1", True), ("agent/1/1", True)}


# --- agents as processes


@pytest.fixture(scope="module")
def routed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, dict[str, subprocess.Popen[str]]]]:
    """A router, and two agents that only connect out to it."""
    folder, address = tmp_path_factory.mktemp("routed"), f"tcp/127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(command("router", "--listen", address, folder=folder))
        agents = {
            name: stack.enter_context(command("agent", "--name", name, "--connect", address, folder=folder))
            for name in ("nano", "orin")
        }
        yield address, agents


def test_agents_behind_a_router_say_who_they_are_and_measure_links(
    routed: tuple[str, dict[str, subprocess.Popen[str]]], tmp_path: Path
) -> None:
    address, _ = routed
    fleet = fleet_of("nano", "orin", router=address)
    for found in survey(fleet):
        assert found.problem == ""
        assert found.status
        assert found.where == f"router {address}"
        assert found.status.processors >= 1
        assert 0 < found.status.free_bytes <= (found.status.memory_bytes or 0)
        assert "fp32" in found.status.backends["onnxruntime"]
        assert "numpy" in found.status.libraries
        assert (found.status.measuring, found.status.loaded) == ("", ())
    protocol = ProbeProtocol((64, 4_194_304), 3, 3)
    with fleet_agents(fleet, ["nano", "orin"], tmp_path) as agents:
        measured = list(measure_links(fleet, fleet.links, agents, protocol, lambda link, note: None))
    assert [each.reason for each in measured if isinstance(each, FailedLink)] == []
    assert len(measured) == 2


def test_a_device_without_any_way_to_it_is_refused() -> None:
    fleet = fleet_of("nano")
    with pytest.raises(InputError, match="device nano has no address") as found:
        whereabouts(fleet, fleet.device("nano"))
    assert "--discover" in found.value.remedy


def test_an_agent_waits_for_its_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"tcp/127.0.0.1:{free_port()}"
    arguments = [sys.executable, "-c", MAIN, "agent", "--name", "nano", "--connect", address]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path, env=env) as agent:
        try:
            assert agent.stderr
            assert "cannot connect" in agent.stderr.readline()
            with command("router", "--listen", address, folder=tmp_path):
                assert agent.stdout
                assert "connects to" in agent.stdout.readline()
        finally:
            agent.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_and_a_router_end_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    address = f"tcp/127.0.0.1:{free_port()}"
    with (
        command("router", "--listen", address, folder=tmp_path) as router,
        command("agent", "--name", "nano", "--connect", address, folder=tmp_path) as agent,
    ):
        for process in (agent, router):
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 0
            assert process.stdout
            assert "stopped" in process.stdout.read()


# --- ending


class Busy:
    """An agent in this process with two handlers that last: one that measures, one that runs."""

    def __init__(
        self, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, drain_s: float = PATIENCE_S
    ) -> None:
        monkeypatch.setattr("runtime.agent.DRAIN_TIMEOUT_S", drain_s)
        self.logs = list[str]()
        self.finish = threading.Event()
        transport = stack.enter_context(ZenohTransport())
        self.agent = Agent("nano", transport, self.logs.append)
        self.agent.handle("run", self.run)
        self.agent.handle("measure", self.measure, measures=True)
        self.agent.handle("load", lambda body, progress: {}, begins=True)
        self.thread = threading.Thread(target=self.agent.serve, daemon=True)
        self.thread.start()
        stack.callback(self.thread.join)
        stack.callback(self.agent.stop)
        here = stack.enter_context(ZenohTransport([transport.endpoint]))
        self.network = stack.enter_context(AgentNetwork(here))
        self.client = AgentClient("nano", self.network, transport.endpoint)
        self.begun = threading.Event()

    def run(self, body: Body, progress: Progress) -> Body:
        while not self.finish.wait(0.01):
            progress({})
        return {"done": True}

    def measure(self, body: Body, progress: Progress) -> Body:
        while True:
            progress({})
            time.sleep(0.01)

    def ask(self, order: str) -> tuple[threading.Thread, list[object]]:
        """Ask on another thread; what came of it."""
        ended: list[object] = []
        begun = threading.Event()

        def work() -> None:
            try:
                ended.append(self.client.request(order, progress=lambda body: begun.set()))
            except (WorkerError, TransportError) as error:
                ended.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(PATIENCE_S)
        return thread, ended


def test_an_agent_told_to_leave_lets_what_runs_end(
    sessions: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(sessions, monkeypatch)
    running, ran = busy.ask("run")
    measuring, measured = busy.ask("measure")
    busy.agent.leave()
    measuring.join()
    assert isinstance(measured[0], WorkerError)  # it keeps what it has, and resumes
    assert "measure was stopped" in measured[0].message
    until(lambda: busy.network.leaving)
    assert {name for name, _ in busy.network.leaving} == {"nano"}
    for order in ("measure", "load"):
        with pytest.raises(WorkerError, match="nano is stopping"):
            busy.client.request(order)
    assert busy.thread.is_alive()
    assert busy.client.request("hello")
    busy.finish.set()
    running.join()
    assert ran == [{"done": True}]
    busy.thread.join(PATIENCE_S)
    assert not busy.thread.is_alive()
    assert "nano is leaving; under way: measure, run" in busy.logs


def test_what_takes_too_long_is_not_waited_for(sessions: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy(sessions, monkeypatch, drain_s=0.3)
    running, ran = busy.ask("run")
    busy.agent.leave()
    running.join()
    assert isinstance(ran[0], WorkerError)
    busy.thread.join(PATIENCE_S)
    assert not busy.thread.is_alive()


HANG = """
import sys, time
from runtime.stopping import on_stop
on_stop(lambda: print("first", flush=True))
print("ready", flush=True)
while True:
    time.sleep(60)
"""


def test_the_second_signal_ends_a_process_at_once() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HANG], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "first\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        assert process.stderr.read() == "stopped at once\n"


# --- discovery


def test_a_fleet_finds_its_agents_on_the_lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's packets come back to this machine by whatever interface it has."""
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 2.0)
    address = f"tcp/127.0.0.1:{free_port()}"
    arguments = ("agent", "--name", "nano", "--listen", address, "--discoverable", "--insecure")
    shy = ("agent", "--name", "shy", "--listen", f"tcp/127.0.0.1:{free_port()}")
    with command(*arguments, folder=tmp_path), command(*shy, folder=tmp_path):
        fleet = located(fleet_of("nano", "other"), ["nano"], 1.0)
        if fleet.device("nano").address is None:
            pytest.skip("this machine has no interface with multicast")
        assert fleet.device("nano").address == address
        assert fleet.device("other").address is None
        found = survey(None, 1.0)
        assert [(each.name, each.where) for each in found if each.status] == [("nano", address)]


def test_a_device_that_nobody_answers_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 0.2)
    with pytest.raises(TransportError, match="no agent called nano answers at this LAN"):
        located(fleet_of("nano"), ["nano"], 0.3)
    fleet = fleet_of("nano", router="tcp/127.0.0.1:9")
    assert located(fleet, ["nano"], 0.3) == fleet  # the router may know it


# --- the commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["router", "--listen", "tcp/0.0.0.0:7447"], "--insecure"),
        (["router", "--listen", "7447"], "write tcp/HOST:PORT"),
        (["agent", "--name", "nano", "--connect", "tcp/192.0.2.9:7447"], "--insecure"),
        (["agent", "--name", "nano", "--connect", "tcp/127.0.0.1:7447", "--discoverable"], "needs --listen"),
        (["agent", "--name", "nano", "--discoverable"], "add --keys, or --insecure"),
        (["agents"], "pass --fleet FILE, or --discover SECONDS"),
    ],
)
def test_commands_refuse(arguments: list[str], said: str, edgecut: Edgecut) -> None:
    code, out = edgecut(*arguments)
    assert code == 2
    assert said in " ".join(out.replace("│", " ").split())


def test_agents_are_listed_and_those_that_do_not_answer_named(
    routed: tuple[str, dict[str, subprocess.Popen[str]]],
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    edgecut: Edgecut,
) -> None:
    text = f'schema = "edgecut.fleet/1"\nsource = "edge"\nrouter = "{routed[0]}"\n'
    text += "[device.edge]\nemulate = {}\n[device.nano]\n[device.lost]\n"
    (workdir / "fleet.toml").write_text(text)
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 1.0)
    code, out = edgecut("agents", "--fleet", "fleet.toml")
    assert code == 1
    emulated = "emulated here, started when needed: edge"
    for said in ("nano", "orin", "onnxruntime fp32", "lost: no agent called lost", emulated):
        assert said in out
