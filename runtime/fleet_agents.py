"""The agents of a fleet: reached at their addresses, through its router, or started here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from planner.errors import InputError, StorageError
from planner.fleet import Device, Fleet
from runtime.agent_messages import LEASE_S
from runtime.agent_network import AgentNetwork
from runtime.agents import AgentClient
from runtime.credentials import Credentials
from runtime.in_process import Hub, InProcessTransport
from runtime.processes import STOP_TIMEOUT_S, DeviceProcess
from runtime.security import Security
from runtime.transport import Transport


class FleetAgents(Mapping[str, AgentClient]):
    """Agents by device name, and this process's own place among them.

    ``modules``: the user's own, from which agents started here may build a network. ``credentials``: this
    process's keys, of agents started here too, for they send to the others. ``join``: gives another place on
    the same network. ``router``: what agents started here connect to beside this process.
    """

    def __init__(
        self,
        network: AgentNetwork,
        folder: Path,
        modules: Sequence[str] = (),
        credentials: Credentials | None = None,
        join: Callable[[], AbstractContextManager[object]] = nullcontext,
        router: str | None = None,
    ) -> None:
        self.network, self.transport = network, network.transport
        self._folder, self._modules, self._credentials = folder, modules, credentials
        self._join, self._router = join, router
        self._clients: dict[str, AgentClient] = {}

    def __getitem__(self, name: str) -> AgentClient:
        return self._clients[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, device: Device, where: str, endpoint: str | None = None) -> None:
        """An agent that is there or will come; given an ``endpoint``, one that is started here."""
        client = AgentClient(device.name, self.network, where, credentials=self._credentials)
        self._clients[device.name] = client
        if endpoint is not None:
            self._endpoint = endpoint
            client.process = self._started(device)

    def alive(self) -> frozenset[str]:
        """The devices whose agent is there."""
        return frozenset(name for name in self._clients if self.network.agents.get(name))

    def leaving(self) -> frozenset[str]:
        """The devices whose agent was told to stop, and is still there."""
        with self.network.changed:
            return frozenset(
                name
                for name, instance in self.network.leaving
                if instance in self.network.agents.get(name, ())
            )

    def introduced(self) -> AbstractContextManager[object]:
        """While this is open, agents that a cut between them has parted find each other again.

        Peers hear of each other from a newcomer, once, and do not try again by themselves.
        """
        return self._join()

    def restart(self, device: Device) -> bool:
        """Start the agent of an emulated device again if it has ended; whether it had."""
        client = self._clients[device.name]
        if client.process is None or client.process.ended() is None:
            return False
        client.process.kill()
        client.process = self._started(device)
        return True

    def stop(self) -> None:
        """End the agents that were started here."""
        processes = [client.process for client in self._clients.values() if client.process]
        for process in processes:
            process.hang_up()
        for process in processes:
            process.wait()
            process.kill()

    def _started(self, device: Device) -> DeviceProcess:
        from profiler.placement import placement

        place = placement(device.emulate)
        folder = self._folder / device.name
        arguments = ["--name", device.name, "--connect", self._endpoint, "--folder", str(folder)]
        arguments += ["--connect", self._router] if self._router else []
        arguments += ["--modules", ",".join(self._modules)] if self._modules else []
        arguments += ["--keys", str(self._credentials.folder)] if self._credentials else []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log = folder / "agent.log"
            return DeviceProcess("runtime.agent_process", arguments, place.cpus, place.threads, log)
        except OSError as error:
            raise StorageError(f"cannot start an agent in {folder}: {error.strerror or error}") from error


@contextmanager
def fleet_agents(
    fleet: Fleet,
    names: Sequence[str],
    folder: Path,
    modules: Sequence[str] = (),
    security: Security = Security(),
) -> Iterator[FleetAgents]:
    """The agents of these devices: reached at their address, or started here for emulated ones.

    A device without either is looked for by its name, through the fleet's router. An agent started here keeps
    its files in ``folder``/NAME, may import the user's ``modules`` to build a network, and ends on the way
    out. One that cannot be reached says so at its first request. Raises ``InputError`` for a device that
    cannot be looked for (``runtime.discovery`` finds addresses), and for one that ``security`` does not let it
    reach.
    """
    from runtime.zenoh_transport import ZenohTransport

    devices = [fleet.device(name) for name in names]
    places = {device.name: whereabouts(fleet, device) for device in devices}
    # Emulated devices alone need none: there is no network between them.
    router = fleet.router if any(device.address or not device.emulate for device in devices) else None
    credentials = security.for_devices(devices, router).credentials
    addresses = [device.address for device in devices if device.address] + ([router] if router else [])
    join = partial(ZenohTransport, addresses, lease_s=LEASE_S, credentials=credentials)
    with join() as transport, AgentNetwork(transport) as network:
        agents = FleetAgents(network, folder, modules, credentials, join, router)
        try:
            for device in devices:
                here = device.emulate is not None and device.address is None
                agents.add(device, places[device.name], transport.endpoint if here else None)
            yield agents
        finally:
            agents.stop()


def whereabouts(fleet: Fleet, device: Device) -> str:
    """Where the agent of a device is, for people. Raises ``InputError`` where nothing says that."""
    if device.address:
        return device.address
    if device.emulate:
        return "this machine"
    if fleet.router:
        return f"router {fleet.router}"
    raise InputError(
        f"device {device.name} has no address, and is not emulated",
        f'start `edgecut agent --name {device.name}` there and add address = "tcp/HOST:7447" to '
        f"[device.{device.name}], or look for it on this LAN with --discover 3; or name a router in the fleet",
    )


@contextmanager
def thread_agents(fleet: Fleet, names: Sequence[str], folder: Path) -> Iterator[FleetAgents]:
    """An agent per device as threads of this process; emulated placements are not applied, slowdowns are."""
    from runtime.agent_files import AgentFiles
    from runtime.agent_service import make_agent

    hub = Hub()
    with ExitStack() as stack:

        def joined() -> Transport:
            return stack.enter_context(InProcessTransport(hub))

        network = stack.enter_context(AgentNetwork(joined()))
        agents = FleetAgents(network, folder)
        for name in names:
            agent = make_agent(name, joined(), AgentFiles(folder / name))
            thread = threading.Thread(target=agent.serve, name=name, daemon=True)
            stack.callback(thread.join, STOP_TIMEOUT_S)
            stack.callback(agent.stop)
            thread.start()
            agents.add(fleet.device(name), "this process")
        yield agents
