"""The workers of a deployment: processes over Zenoh on loopback, or threads in this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from planner.errors import WorkerError
from profiler.placement import Placement
from runtime.transport import Hub, InProcessTransport, Transport
from runtime.worker import Worker

STOP_TIMEOUT_S = 10.0


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
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, device: str, placement: Placement) -> None:
        command = [sys.executable, "-m", "runtime.worker_process", "--device", device]
        command += ["--connect", self._endpoint, "--cpus", ",".join(map(str, placement.cpus))]
        threads = str(placement.threads)
        with self._log(device).open("wb") as log:
            self._processes[device] = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is the coordinator's to handle: it stops the workers in order.
                start_new_session=True,
            )

    def check(self) -> None:
        for device, process in self._processes.items():
            code = process.poll()
            if code is not None:
                lines = self._log(device).read_text(errors="replace").strip().splitlines()
                said = f": {lines[-1]}" if lines else ""
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise WorkerError(f"the worker of {device} {how}{said}", "deploy again")

    def stop(self, told: bool) -> None:
        try:
            for process in self._processes.values():
                if process.stdin and not told:
                    process.stdin.close()  # which ends it
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)
        finally:
            for process in self._processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdin:
                    process.stdin.close()
            self.transport.close()

    def _log(self, device: str) -> Path:
        return self._folder / f"worker-{device}.log"


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
