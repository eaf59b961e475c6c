"""Agents: orders and their answers, what is refused, who vanishes, and whole fleets over real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources import TINY

from planner import Device, Emulation, Fleet, ProfileTable, Variant
from planner import errors as tree
from planner.errors import EdgecutError, InputError, MismatchError, TransportError, WorkerError
from planner.fleet import check_address, is_loopback
from profiler.cut import cut_model
from profiler.inputs import model_samples
from profiler.model import load_model
from profiler.placement import available_cpus, placement
from profiler.request import ProfileRequest
from profiler.samples import write_samples
from profiler.timing import Protocol
from runtime.agent import Agent
from runtime.agent_files import PART_BYTES, AgentFiles, fetch_table
from runtime.agent_messages import Body, Failure, carried, failure
from runtime.agent_network import AgentNetwork
from runtime.agent_profile import check_meter, check_source
from runtime.agents import AgentClient
from runtime.fleet_agents import fleet_agents
from runtime.fleet_profile import lanes, profile_fleet
from runtime.in_process import Hub, InProcessTransport
from runtime.orders import Progress
from runtime.profile_progress import Advance
from runtime.transport import Transport
from runtime.wire import Frame

PATIENCE_S = 60.0
QUICK = Protocol(rounds=1, visit_runs=3, visit_s=0, max_runs=3)
SLOW = 100.0  # a slowdown that leaves time to kill something


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


class Place:
    """A network in this process, with agents and workstations on it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.hub, self.logs = stack, Hub(), list[str]()

    def transport(self) -> Transport:
        return self.stack.enter_context(InProcessTransport(self.hub))

    def agent(self, name: str = "nano", **handlers: Callable[[Body, Progress], Body]) -> Agent:
        agent = Agent(name, self.transport(), self.logs.append)
        for order, handler in handlers.items():
            agent.handle(order, handler, measures=order.startswith("measure"))
        thread = threading.Thread(target=agent.serve, daemon=True)
        thread.start()
        self.stack.callback(thread.join)
        self.stack.callback(agent.stop)
        return agent

    def network(self) -> AgentNetwork:
        return self.stack.enter_context(AgentNetwork(self.transport()))

    def client(self, name: str = "nano", network: AgentNetwork | None = None) -> AgentClient:
        return AgentClient(name, network or self.network(), "tcp/127.0.0.1:9")


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack)


def until_stopped(body: Body, progress: Progress) -> Body:
    while True:
        progress({"at": 1})
        time.sleep(0.01)


# --- orders and answers


def test_an_order_tells_its_progress_and_its_result(place: Place) -> None:
    def count(body: Body, progress: Progress) -> Body:
        for k in range(body["to"]):
            progress({"at": k})
        return {"counted": body["to"]}

    place.agent(count=count)
    client, seen = place.client(), list[Body]()
    assert client.request("count", {"to": 3}, progress=seen.append) == {"counted": 3}
    assert seen == [{"at": 0}, {"at": 1}, {"at": 2}]
    assert client.request("hello")["name"] == "nano"


KINDS = sorted(
    (kind for kind in vars(tree).values() if isinstance(kind, type) and issubclass(kind, EdgecutError)),
    key=lambda kind: kind.__name__,
)
PLAIN = {tree.UnknownNameError: InputError, tree.DocumentError: InputError}
PLAIN[tree.MissingDependencyError] = EdgecutError


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_at_the_workstation_what_it_was_on_the_device(kind: type[EdgecutError]) -> None:
    error = kind.__new__(kind)
    EdgecutError.__init__(error, "what was found", "what to do")
    found = carried(Failure(**failure(error)))
    assert type(found) is PLAIN.get(kind, kind)
    assert (found.message, found.remedy) == ("what was found", "what to do")
    assert found.exit_code == error.exit_code


def test_an_error_of_a_kind_unknown_here_stays_an_error() -> None:
    assert type(carried(Failure("Exit", "m", "r"))) is WorkerError


def fails(body: Body, progress: Progress) -> Body:
    if body["how"] == "known":
        raise MismatchError("they differ", "make them equal")
    return {"unknown": [][1]}


@pytest.mark.parametrize(
    ("order", "how", "kind", "said"),
    [
        ("fails", "known", MismatchError, "they differ"),
        ("fails", "unknown", WorkerError, "IndexError"),
        ("text", "", TransportError, "the result of text cannot travel"),
        ("object", "", TransportError, "cannot travel"),
        ("large", "", TransportError, "cannot travel: .* at most"),
        ("nothing", "", WorkerError, "unknown order 'nothing'; it knows fails, hello"),
    ],
)
def test_an_order_that_fails_says_why_and_the_agent_goes_on(
    place: Place, order: str, how: str, kind: type[EdgecutError], said: str
) -> None:
    place.agent(
        fails=fails,
        text=lambda body, progress: "no body",
        object=lambda body, progress: {"object": object()},
        large=lambda body, progress: {"large": "x" * (17 << 20)},
    )
    client = place.client()
    with pytest.raises(kind, match=said):
        client.request(order, {"how": how})
    assert client.request("hello")


def test_one_order_measures_at_a_time_and_says_for_whom(place: Place) -> None:
    place.agent(measure=until_stopped)
    first, second = place.client(), place.client()
    begun, ended = threading.Event(), list[str]()

    def work() -> None:
        with pytest.raises(WorkerError) as found:
            first.request("measure", progress=lambda body: begun.set())
        ended.append(found.value.message)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(PATIENCE_S)
    with pytest.raises(WorkerError, match=rf"nano is busy: measure for .*process {os.getpid()}.* since"):
        second.request("measure")
    assert second.request("hello")
    first.cancel()
    thread.join()
    assert ended == ["nano: measure was stopped"]


def test_leaving_a_request_stops_the_order(place: Place) -> None:
    agent = place.agent(measure=until_stopped)
    client = place.client()

    def interrupt(body: Body) -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # the second waits until the first, on its way out, is gone
        with pytest.raises(KeyboardInterrupt):
            client.request("measure", progress=interrupt)
    until(lambda: agent._measuring is None)


def test_a_workstation_that_vanishes_takes_its_orders_along_and_nothing_else(place: Place) -> None:
    stopped = threading.Event()

    def watched(body: Body, progress: Progress) -> Body:
        try:
            return until_stopped(body, progress)
        finally:
            stopped.set()

    place.agent(measure=watched)
    vanishing, begun = InProcessTransport(place.hub), threading.Event()
    network = AgentNetwork(vanishing)
    network.__enter__()
    client = place.client(network=network)

    def work() -> None:
        with pytest.raises((WorkerError, TransportError)):
            client.request("measure", progress=lambda body: begun.set())

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(PATIENCE_S)
    vanishing.close()
    assert stopped.wait(PATIENCE_S)
    network.__exit__(None, None, None)
    thread.join()
    assert place.client().request("hello")


def test_what_is_kept_for_a_workstation_ends_with_it(place: Place) -> None:
    agent, parted = place.agent(), list[str | None]()
    agent.when_gone(parted.append)
    staying = place.client()
    with InProcessTransport(place.hub) as transport, AgentNetwork(transport) as network:
        place.client(network=network).request("hello")
        gone = network.client
    until(lambda: parted == [gone])
    assert staying.request("hello")
    agent.stop()
    until(lambda: parted == [gone, None])


def test_an_agent_that_hangs_has_a_deadline(place: Place) -> None:
    release = threading.Event()
    place.agent(hang=lambda body, progress: {"late": release.wait(PATIENCE_S)})
    with pytest.raises(WorkerError, match=r"nano said nothing for 0\.3 s, asked for hang"):
        place.client().request("hang", timeout_s=0.3)
    release.set()


def test_an_agent_that_goes_is_named(place: Place) -> None:
    agent = place.agent(measure=until_stopped)
    client = place.client()

    def end(body: Body) -> None:
        # Its place on the network closes at once, as that of a process killed.
        agent.transport.close()

    with pytest.raises((WorkerError, TransportError), match="nano"):
        client.request("measure", progress=end)


def test_who_is_not_there_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 0.2)
    place.agent("jetson")
    with pytest.raises(TransportError, match=r"no agent called nano .* tcp/127.0.0.1:9 .* there is jetson"):
        place.client().request("hello")


def test_two_agents_of_one_name_are_refused(place: Place) -> None:
    place.agent()
    place.agent()
    network = place.network()
    until(lambda: len(network.agents.get("nano", ())) == 2)
    with pytest.raises(WorkerError, match="2 agents are called nano"):
        place.client(network=network).request("hello")


def test_another_version_is_refused(place: Place) -> None:
    place.agent(hello=lambda body, progress: {"protocol": 99})
    with pytest.raises(WorkerError, match=r"nano is edgecut unknown \(protocol 99\), here is .* \(protocol"):
        place.client().request("hello")


# --- what a network may bring


@pytest.mark.parametrize(
    "frame",
    [
        Frame((np.zeros(3, np.float32),)),
        Frame(body={}),
        Frame(body={"client": "../x", "who": "w", "order": "hello", "body": {}}),
        Frame(body={"client": "0" * 16, "who": "w" * 999, "order": "hello", "body": {}}),
        Frame(body={"client": "0" * 16, "who": "w", "order": 7, "body": {}}),
        Frame(body={"client": "0" * 16, "who": "w", "order": "hello", "body": [], "more": 1}),
        Frame(body={"client": "0" * 16, "who": "w", "order": "cancel", "body": {}}),
        b"",
        b"ECUT",
        b"\xff" * 4096,
        bytes(17 << 20),
    ],
)
def test_malformed_requests_leave_an_agent_serving(place: Place, frame: Frame | bytes) -> None:
    agent = place.agent()
    client = place.client()
    client.request("hello")
    if isinstance(frame, bytes):
        place.hub.mailboxes[agent._address].deliver(frame)
    else:
        place.transport().sender(agent._address).send(frame)
    until(lambda: place.logs or (isinstance(frame, Frame) and (frame.body or {}).get("order") == "cancel"))
    for _ in range(3):
        try:
            assert client.request("hello", timeout_s=5)["name"] == "nano"
            return
        except TransportError:  # the channel was just being opened again
            time.sleep(0.2)
    pytest.fail("the agent serves no more")


def serve_files(place: Place, folder: Path) -> AgentClient:
    agent = place.agent()
    AgentFiles(folder).serve(agent)
    return place.client()


def test_tables_come_back(place: Place, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(PART_BYTES + 1000)
    client = serve_files(place, tmp_path / "agent")
    table = tmp_path / "agent" / "tables" / ("0" * 32)
    table.mkdir(parents=True)
    (table / "net-nano.csv").write_bytes(content)
    (table / ".net-nano.csv.tmp").write_bytes(b"half")
    assert fetch_table(client, "0" * 32, "net-nano", tmp_path) == [tmp_path / "net-nano.csv"]
    assert (tmp_path / "net-nano.csv").read_bytes() == content
    assert fetch_table(client, "1" * 32, "net-nano", tmp_path) == []


@pytest.mark.parametrize(
    ("order", "body"),
    [
        ("files", {"table": "../.."}),
        ("read", {"table": "0" * 32, "name": "../../../etc/passwd", "offset": 0}),
        ("read", {"table": "0" * 32, "name": "net.csv", "offset": -1}),
    ],
)
def test_no_path_from_the_network_is_used(place: Place, tmp_path: Path, order: str, body: Body) -> None:
    with pytest.raises(InputError):
        serve_files(place, tmp_path).request(order, body)


@pytest.mark.parametrize("name", ["../net-nano.csv", "other.csv", "net-nano.csv/x", 5])
def test_an_agent_cannot_choose_where_files_go(place: Place, tmp_path: Path, name: object) -> None:
    place.agent(files=lambda body, progress: {"files": [name]})
    with pytest.raises(TransportError, match="offers a file"):
        fetch_table(place.client(), "0" * 32, "net-nano", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os:system", "may not import 'os'"),
        ("models.sub:Tiny", "may not import"),
        ("models:torch.hub.load", "defines no"),
        ("models:nn", "defines no"),
        ("models:Missing", "defines no"),
    ],
)
def test_an_agent_imports_only_what_it_was_allowed(name: str, said: str) -> None:
    from dataclasses import replace

    check_source("nano", TINY, ["models"])
    check_source("nano", replace(TINY, name="alexnet"), [])
    with pytest.raises(InputError, match=said):
        check_source("nano", replace(TINY, name=name), ["models"])
    with pytest.raises(InputError, match="nano has no weights"):
        check_source("nano", replace(TINY, name="alexnet", weights="/no/such.pth"), [])


def test_an_agent_opens_serial_lines_and_no_other_file() -> None:
    for meter in (None, "auto", "rapl", "smartpower3:/dev/ttyUSB0", "smartpower3:udp:5000"):
        check_meter("nano", meter)
    for meter in ("smartpower3:/etc/passwd", "powerlog:/dev/../etc/x", "x:/dev/tty/../sda"):
        with pytest.raises(InputError, match="opens no meter"):
            check_meter("nano", meter)


# --- addresses and lanes


@pytest.mark.parametrize(
    "address", ["", "192.168.1.5:7447", "tcp/host", "tcp/h:99999", "udp/h:1", "tcp/h:1#x=y"]
)
def test_an_address_is_checked(address: str) -> None:
    with pytest.raises(ValueError, match="write tcp/HOST:PORT"):
        Device("nano", address=address)


def test_loopback_is_known() -> None:
    assert check_address("tcp/[fe80::1]:7447") == "fe80::1"
    assert all(map(is_loopback, ("tcp/127.0.0.1:1", "tcp/127.8.0.1:1", "tcp/[::1]:1", "tcp/localhost:1")))
    assert not any(
        map(is_loopback, ("tcp/0.0.0.0:1", "tcp/[::]:1", "tcp/10.0.0.1:1", "tcp/localhost.evil:1"))
    )


@given(st.lists(st.sets(st.integers(0, 5), max_size=3), max_size=8))
def test_devices_side_by_side_share_no_processor(cpus: list[set[int]]) -> None:
    devices = [
        Device(
            f"d{k}", emulate=Emulation(cpus=tuple(own)) if own else None, address=None if own else "tcp/h:1"
        )
        for k, own in enumerate(cpus)
    ]
    found = lanes(devices)
    assert sorted(name for lane in found for name in lane) == sorted(device.name for device in devices)
    used = [set().union(*(cpus[int(name[1:])] for name in lane)) for lane in found]
    assert sum(map(len, used)) == len(set().union(*used))
    assert all(len(lane) == 1 or cpus[int(name[1:])] for lane in found for name in lane)


# --- whole fleets, over processes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "samples"
    model = load_model(TINY)
    write_samples(cut_model(model), list(model_samples(model, None, 3, [])), folder)
    return folder


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(root.parent), str(root))))


def template(store: Path, output: Path, **changes: Any) -> ProfileRequest:
    given = {"source": TINY, "device": "", "variants": (Variant("torch"),), "batches": (1,), "samples": store}
    given |= {"output": output, "placement": placement(), "protocol": QUICK}
    return ProfileRequest(**{**given, **changes})


def emulated(*names: str, slow: str = "", **addresses: str) -> Fleet:
    cpus = available_cpus()
    devices = []
    for k, name in enumerate([*names, *addresses]):
        own = Emulation(1, (cpus[k % len(cpus)],), SLOW if name == slow else 1.0)
        devices.append(Device(name, emulate=own, address=addresses.get(name)))
    return Fleet(devices[0].name, devices[0].name, tuple(devices), ())


@contextmanager
def remote_agent(
    folder: Path, name: str = "nano", address: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`edgecut agent` on a free port, as on another machine."""
    import socket

    if address is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"tcp/127.0.0.1:{free.getsockname()[1]}"
    main = "import sys; from runtime.cli import main; main()"
    command = [sys.executable, "-c", main, "agent", "--name", name, "--listen", address]
    command += ["--modules", "models", "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            assert "listens on" in process.stdout.readline()
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield process, address
        finally:
            process.kill()


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    root = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(root.parent), str(root))))
        with remote_agent(tmp_path_factory.mktemp("nano")) as started:
            yield started


def keys(file: Path) -> set[object]:
    return {row.key[1:] for row in ProfileTable.load([file]).rows}


def test_a_fleet_is_profiled_and_found_again(store: Path, tmp_path: Path, nano: Any) -> None:
    fleet, seen = emulated("edge", nano=nano[1]), set[str]()
    asked = template(store, tmp_path / "profiles")
    results = profile_fleet(asked, fleet, ["edge", "nano"], lambda name, advance: seen.add(name))
    assert [(each.device, each.rows, each.error) for each in results] == [
        ("edge", 6, None),
        ("nano", 6, None),
    ]
    assert seen == {"edge", "nano"}
    table = ProfileTable.load([each.output for each in results])
    assert {row.device for row in table.rows} == {"edge", "nano"}
    for each in results:
        assert each.output.with_suffix(".samples.jsonl").read_text().count("\n") >= 6
    again = profile_fleet(asked, fleet, ["nano"])[0]
    assert again.summary
    assert (again.summary.measured, again.summary.resumed, again.rows) == (0, 6, 6)
    # Rows that the agent knows nothing of would be lost.
    strange = template(store, tmp_path / "elsewhere")
    strange.output.mkdir()
    for file in (tmp_path / "profiles").glob("*-nano.*"):
        (strange.output / file.name).write_bytes(file.read_bytes())
    refused = profile_fleet(strange, fleet, ["nano"])[0]
    assert isinstance(refused.error, MismatchError)
    assert refused.rows == 6


def test_a_fault_in_what_shows_progress_ends_its_device_alone(store: Path, tmp_path: Path, nano: Any) -> None:
    def show(name: str, advance: Advance) -> None:
        raise ZeroDivisionError("shown wrongly")

    (found,) = profile_fleet(template(store, tmp_path / "profiles"), emulated(nano=nano[1]), ["nano"], show)
    assert isinstance(found.error, WorkerError)
    assert "shown wrongly" in found.error.message


def test_an_agent_killed_loses_no_other_device_and_resumes(store: Path, tmp_path: Path, nano: Any) -> None:
    asked = template(store, tmp_path / "profiles")
    fleet = emulated("server", slow="server", nano=nano[1])
    started = dict[str, AgentClient]()
    killed = threading.Event()

    def show(name: str, advance: Advance) -> None:
        if name == "server" and advance.share > 0.3 and not killed.is_set():
            killed.set()
            os.kill(started["server"].process.pid, signal.SIGKILL)

    @contextmanager
    def watched(*args: Any) -> Iterator[dict[str, AgentClient]]:
        with fleet_agents(*args) as clients:
            started.update(clients)
            yield clients

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.fleet_profile.fleet_agents", watched)
        other, server = profile_fleet(asked, fleet, ["nano", "server"], show)
    assert (other.rows, other.error) == (6, None)
    assert isinstance(server.error, WorkerError)
    assert "the agent of server was killed by signal 9" in server.error.message
    again = profile_fleet(asked, fleet, ["server"])[0]
    assert again.error is None
    assert again.summary
    assert again.summary.measured + again.summary.resumed == 6
    assert keys(again.output) == keys(other.output)


WORKSTATION = """
import sys, threading, _thread
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_agent import emulated, template, profile_fleet
store, output, address = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
def show(name, advance):
    print(advance.share, flush=True)
try:
    profile_fleet(template(store, output), emulated("edge", slow="nano", nano=address), ["nano"], show)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_workstation_that_ends_leaves_whole_tables(
    store: Path, tmp_path: Path, how: signal.Signals, nano: Any
) -> None:
    output, (agent, address) = tmp_path / "profiles", nano
    command = [
        sys.executable,
        "-c",
        WORKSTATION,
        str(Path(__file__).parent),
        str(store),
        str(output),
        address,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as workstation:
        assert workstation.stdout
        assert any(float(line) > 0.2 for line in workstation.stdout)
        workstation.send_signal(how)
        code = workstation.wait(PATIENCE_S)
    table = output / "models-Tiny-nano.csv"
    if how == signal.SIGINT:
        assert code == 130
        assert 0 < len(keys(table)) < 6
    fleet = emulated("edge", slow="nano", nano=address)
    found = profile_fleet(template(store, output), fleet, ["nano"])[0]
    assert found.error is None
    assert found.summary
    assert found.summary.resumed > 0
    assert found.summary.measured + found.summary.resumed == len(keys(table)) == 6
    assert agent.poll() is None


def test_a_device_that_is_not_there_is_named(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.agents.REACH_TIMEOUT_S", 0.3)
    found = profile_fleet(template(store, tmp_path), emulated("edge", nano="tcp/127.0.0.1:9"), ["nano"])[0]
    assert isinstance(found.error, TransportError)
    assert "no agent called nano answers at tcp/127.0.0.1:9" in found.error.message
    with pytest.raises(InputError, match="device lost has no address"):
        profile_fleet(template(store, tmp_path), Fleet("lost", "lost", (Device("lost"),), ()), ["lost"])


@pytest.mark.parametrize("order", [{}, {"table": "../x"}, {"request": {"source": 5}}])
def test_an_order_to_profile_is_checked(place: Place, tmp_path: Path, order: Body) -> None:
    from runtime.agent_service import make_agent

    agent = make_agent("nano", place.transport(), AgentFiles(tmp_path))
    thread = threading.Thread(target=agent.serve, daemon=True)
    thread.start()
    with pytest.raises(InputError, match="profile order to nano"):
        place.client().request("profile", order)
    agent.stop()
    thread.join()


def test_an_agent_ends_when_told(nano: Any) -> None:
    nano[0].send_signal(signal.SIGTERM)
    assert nano[0].wait(PATIENCE_S) == 0


# --- the commands


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["agent", "--name", "nano", "--listen", "udp/127.0.0.1:7447"], "write tcp/HOST:PORT"),
        (["agent", "--name", "a/b"], "device name 'a/b'"),
        (["agent", "--name", "nano", "--cache-limit", "8"], "'8' is no size; write it as 500MB or 8GB"),
        (["agent", "--name", "nano", "--cache-limit", "0GB"], "is no size"),
        (["profile", "alexnet"], "pass --device NAME"),
        (["profile", "alexnet", "--device", "a", "--devices", "b"], "not both"),
        (["profile", "alexnet", "--fleet", "f.toml", "--cpus", "0"], "belong to one --device"),
    ],
)
def test_commands_refuse(arguments: list[str], said: str) -> None:
    from click.testing import CliRunner

    from runtime.cli import cli

    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
