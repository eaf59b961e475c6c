"""Profiling a whole fleet from the workstation: each device's agent measures, the tables are gathered here.

::

    per device    inputs there ──► agent measures, keeps its table ──► table, samples, sidecar here

Devices work side by side. Emulated ones that share processors work one after the other, or each would
measure the other's load too.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from planner.documents import from_data, read_text, to_data
from planner.errors import EdgecutError, InputError, MismatchError, StorageError, WorkerError
from planner.fleet import Device, Fleet
from planner.table import parse_rows
from profiler.machine import available_cpus
from profiler.request import ProfileRequest, ProfileSummary
from profiler.samples import Manifest, SampleFile, read_manifest
from runtime.agent_files import fetch_table
from runtime.agent_messages import Body
from runtime.agent_profile import ProfileOrder
from runtime.agents import AgentClient
from runtime.artifacts import send_files
from runtime.fleet_agents import fleet_agents
from runtime.profile_progress import Advance, Show
from runtime.security import Security

SILENCE_S = 900.0  # a board that exports and quantises a large network says nothing meanwhile


@dataclass(frozen=True)
class DeviceResult:
    """One device's table, what was measured now, and what went wrong, either of them perhaps None.

    ``rows``: those in the table here. An error does not mean that nothing was measured.
    """

    device: str
    output: Path
    rows: int
    summary: ProfileSummary | None
    error: EdgecutError | None


def profile_fleet(
    template: ProfileRequest,
    fleet: Fleet,
    names: Sequence[str],
    show: Show = lambda device, advance: None,
    security: Security = Security(),
) -> list[DeviceResult]:
    """Profile these devices of the fleet, each by its agent, and gather their tables.

    ``template``: what to measure; its ``samples`` are the feature maps stored here, ``output`` is the
    folder of the tables; its device and placement are each agent's own. ``show(device, advance)``
    is called from several threads. A device that fails has its ``error``, the others go on. Raises
    ``InputError`` before anything starts; ``KeyboardInterrupt`` once the agents have stopped and what
    they measured is here.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"devices must be named once each, found {', '.join(names) or 'none'}")
    work = FleetWork(template, fleet, read_manifest(template.samples, template.source), show)
    with agents_of(template, fleet, names, security) as clients:
        for lane in lanes([fleet.device(name) for name in names]):
            asked = [clients[name] for name in lane]
            threading.Thread(target=work.measure, args=(asked,), daemon=True).start()
        try:
            work.wait(names)
        except KeyboardInterrupt:
            work.stop()
            work.wait(names)
            raise
    return [work.results[name] for name in names]


def agents_of(
    template: ProfileRequest, fleet: Fleet, names: Sequence[str], security: Security
) -> AbstractContextManager[Mapping[str, AgentClient]]:
    """The agents of these devices; those started here may import the module that the network is in."""
    module, colon, _ = template.source.name.partition(":")
    modules = [module] if colon and module != "hf" else []
    return fleet_agents(fleet, names, template.output / ".agents", modules, security)


def table_of(template: ProfileRequest, name: str) -> Path:
    """Where the table of a device is gathered."""
    return template.output / f"{template.source.label}-{name}.csv"


def lanes(devices: Sequence[Device]) -> list[list[str]]:
    """The devices in groups that may work side by side: no processor of this machine is in two of them."""
    found: list[tuple[set[int], list[str]]] = []
    for device in devices:
        own: set[int] = set()
        if device.address is None and device.emulate is not None:
            own = set(device.emulate.cpus or available_cpus())
        shared = [lane for lane in found if lane[0] & own]
        found = [lane for lane in found if lane not in shared]
        names = [name for _, lane in shared for name in lane]
        found.append((own.union(*(cpus for cpus, _ in shared)), [*names, device.name]))
    return [names for _, names in found]


class FleetWork:
    """What the orders to several agents have in common."""

    def __init__(self, template: ProfileRequest, fleet: Fleet, manifest: Manifest, show: Show) -> None:
        self._template, self._fleet, self._manifest, self._show = template, fleet, manifest, show
        self._stopped = threading.Event()
        self._asked: list[AgentClient] = []
        self._changed = threading.Condition()
        self.results: dict[str, DeviceResult] = {}
        identity = json.dumps([to_data(template.source), str(template.output)])
        self._table = hashlib.sha256(identity.encode()).hexdigest()[:32]

    def stop(self) -> None:
        self._stopped.set()
        for client in self._asked:
            with suppress(EdgecutError):
                client.cancel()

    def measure(self, clients: Sequence[AgentClient]) -> None:
        """Measure one device after the other."""
        for client in clients:
            try:
                result = self._device(client)
            except Exception as found:
                result = DeviceResult(client.name, self.output(client), 0, None, _unforeseen(client, found))
            with self._changed:
                self.results[client.name] = result
                self._changed.notify_all()

    def wait(self, names: Sequence[str]) -> None:
        """Return once every device has its result."""
        # Not by joining threads: until Python 3.13 a join that Ctrl-C ends takes its thread for ended.
        with self._changed:
            self._changed.wait_for(lambda: self.results.keys() >= set(names))

    def output(self, client: AgentClient) -> Path:
        """Where its table is gathered."""
        return table_of(self._template, client.name)

    def _device(self, client: AgentClient) -> DeviceResult:
        output = self.output(client)
        summary, error = None, None
        rows = 0
        try:
            self.gather(client, output)  # refuses a table that the agent knows nothing of, before it works
            self._check_stopped(client)
            self.send_inputs(client)
            self._asked.append(client)
            self._check_stopped(client)
            summary = self._ask(client)
        except EdgecutError as found:
            error = found
        except Exception as found:
            error = _unforeseen(client, found)
        try:
            rows = self.gather(client, output)
        except EdgecutError as found:
            error = error or found
            rows = len(_keys(output))
        self._show(client.name, Advance(1.0, "done") if error is None else Advance(0.0, "failed"))
        return DeviceResult(client.name, output, rows, summary, error)

    def _check_stopped(self, client: AgentClient) -> None:
        if self._stopped.is_set():
            raise WorkerError(f"{client.name} was not asked: interrupted")

    def send_inputs(self, client: AgentClient) -> None:
        """The stored inputs that it has not yet."""

        def told(sent: int, total: int) -> None:
            self._check_stopped(client)
            said = f"sending inputs, {sent / 1e6:.1f} of {total / 1e6:.1f} MB"
            self._show(client.name, Advance(0.0, said))

        self._show(client.name, Advance(0.0, "sending inputs"))
        files = {file.digest: self._template.samples / Path(file.name).name for file in self._inputs()}
        send_files(client, files, f"edgecut samples {self._template.source.arguments}", told)

    def _inputs(self) -> tuple[SampleFile, ...]:
        return tuple(file for file in self._manifest.files if file.boundary == 0)

    def order(self, client: AgentClient) -> ProfileOrder:
        """What this agent is asked to profile."""
        return ProfileOrder(
            # Places on this machine mean nothing there.
            replace(self._template, device=client.name, samples=Path(), output=Path()),
            self._fleet.device(client.name).emulate,
            self._manifest.chain_digest,
            self._manifest.samples,
            self._inputs(),
            self._table,
        )

    def _ask(self, client: AgentClient) -> ProfileSummary:
        def told(body: Body) -> None:
            if self._stopped.is_set():  # it was being asked just then
                client.cancel()
            self._show(client.name, from_data(Advance, body, f"progress of {client.name}"))

        answer = client.request("profile", to_data(self.order(client)), timeout_s=SILENCE_S, progress=told)
        return _summary(answer, self._template, client.name)

    def gather(self, client: AgentClient, output: Path) -> int:
        """Bring the agent's table here; its number of rows.

        Raises ``MismatchError`` if the table here has rows that the agent's has not: they would be lost.
        """
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=output.parent, prefix=".gathered-") as folder:
                files = fetch_table(client, self._table, output.stem, Path(folder))
                found = _keys(Path(folder) / output.name)
                lost = _keys(output) - found
                if lost:
                    raise MismatchError(
                        f"{output} holds {len(lost)} rows that the agent of {client.name} did not measure",
                        "pass another --output folder, or profile that device with --device",
                    )
                # The table last: with it, all that belongs to it is there.
                for file in sorted(files, key=lambda file: file.suffix == ".csv"):
                    file.replace(output.parent / file.name)
        except OSError as error:
            problem = f"cannot write {output}: {error.strerror or error}"
            raise StorageError(problem, "free space; the agent keeps what it measured") from error
        return len(found)


def _unforeseen(client: AgentClient, fault: Exception) -> WorkerError:
    """A fault nobody foresaw must not lose the other devices."""
    return WorkerError(f"{client.name}: {type(fault).__name__}: {fault}")


def _keys(table: Path) -> set[object]:
    """What a table has rows for; a half-written last one does not count."""
    if not table.exists() or not table.stat().st_size:
        return set()
    return {row.key for row in parse_rows(read_text(table), table, repair=True)}


def _summary(answer: Body, template: ProfileRequest, name: str) -> ProfileSummary:
    data = answer.get("summary")
    data = dict(data) if isinstance(data, dict) else {}
    lacking = data.pop("lacking", {})
    variants = {str(variant): variant for variant in template.variants}
    summary = from_data(ProfileSummary, {**data, "lacking": {}}, f"answer of {name}")
    summary.lacking = {variants[key]: str(lacking[key]) for key in variants if key in lacking}
    return summary
