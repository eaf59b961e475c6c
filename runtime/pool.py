"""The workers of a deployment: processes over Zenoh on loopback, or threads in this process."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from pathlib import Path

from planner.errors import WorkerError
from profiler.placement import Placement
from runtime.processes import STOP_TIMEOUT_S, DeviceProcess
from runtime.transport import Hub, InProcessTransport, Transport
from runtime.worker import Worker


class Pool(ABC):
    """Workers by device name, and the coordinator's own place on their network."""

    transport: Transport

    @abstractmethod
    def start(self, device: str, placement: Placement) -> None:
        """Start the worker of a device."""

    @abstractmethod
    def check(self) -> None:
        """Raise ``WorkerError`` if a worker has ended."""

    @abstractmethod
    def stop(self, told: bool) -> None:
        """Wait until the workers, if they were ``told`` to stop, have ended; end the others."""


class ProcessPool(Pool):
    """One process per device, pinned to the device's processors; ``folder`` takes their messages."""

    def __init__(self, folder: Path) -> None:
        from runtime.zenoh_transport import ZenohTransport

        network = ZenohTransport()
        self.transport, self._endpoint = network, network.endpoint
        self._folder = folder
        self._processes: dict[str, DeviceProcess] = {}

    def start(self, device: str, placement: Placement) -> None:
        self._processes[device] = DeviceProcess(
            "runtime.worker_process",
            ["--device", device, "--connect", self._endpoint],
            placement.cpus,
            placement.threads,
            self._folder / f"worker-{device}.log",
        )

    def check(self) -> None:
        for device, process in self._processes.items():
            how = process.ended()
            if how is not None:
                raise WorkerError(f"the worker of {device} {how}", "deploy again")

    def stop(self, told: bool) -> None:
        try:
            for process in self._processes.values():
                if not told:
                    process.hang_up()
                process.wait()
        finally:
            for process in self._processes.values():
                process.kill()
            self.transport.close()


class ThreadPool(Pool):
    """One thread per device in this process; placements are not applied, slowdowns are."""

    def __init__(self) -> None:
        self._hub = Hub()
        self.transport: Transport = InProcessTransport(self._hub)
        self._workers: list[tuple[threading.Thread, Transport]] = []

    def start(self, device: str, placement: Placement) -> None:
        transport = InProcessTransport(self._hub)
        thread = threading.Thread(target=Worker(device, transport).run, name=device, daemon=True)
        self._workers.append((thread, transport))
        thread.start()

    def check(self) -> None:
        """A thread that fails has said so; there is nothing more to see from here."""

    def stop(self, told: bool) -> None:
        for thread, transport in self._workers:
            thread.join(STOP_TIMEOUT_S)
            transport.close()
        self.transport.close()
