"""A fleet on test hosts: agents on some, edgecut's commands on another."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hosts import Hosts, hosts

PATIENCE_S = 120.0
DESK = "desk"
_PORT = 7447
_MAIN = sys.executable, "-c", "import sys; from runtime.cli import main; main()"
_TESTS = Path(__file__).parent


class Lab:
    """Hosts of these names and the workstation ``desk``; ``folder`` holds fleet.toml, logs and the agents' files."""

    def __init__(self, network: Hosts, names: Sequence[str], folder: Path) -> None:
        self.network, self.names, self.folder = network, tuple(names), folder
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.fleet = folder / "fleet.toml"
        self._env = {"PYTHONPATH": os.pathsep.join((str(_TESTS.parent), str(_TESTS))), "OMP_NUM_THREADS": "1"}

    def write_fleet(self, links: Sequence[tuple[str, str]], bandwidth_bytes_per_s: float = 1e8) -> None:
        lines = ['schema = "edgecut.fleet/1"', f'source = "{self.names[0]}"']
        for name in self.names:
            lines += [f"[device.{name}]", f'address = "{self.address(name)}"']
        for pair in links:
            lines += [
                "[[link]]",
                f"between = {list(pair)}",
                f"bandwidth_bytes_per_s = {bandwidth_bytes_per_s}",
            ]
        self.fleet.write_text("\n".join(lines) + "\n")

    def address(self, name: str) -> str:
        return f"tcp/{self.network.addresses[name]}:{_PORT}"

    def start_agent(self, name: str) -> None:
        """It listens once this returns."""
        log = self.folder / f"{name}.log"
        known = self.said(name).count("listens on")
        command = ["agent", "--name", name, "--listen", self.address(name), "--insecure"]
        command += ["--modules", "models", "--folder", str(self.folder / f"agent-{name}")]
        self.agents[name] = self.network.start(
            name, *_MAIN, *command, log=log, env=self._env, cwd=self.folder
        )
        until(lambda: self.said(name).count("listens on") > known or self.agents[name].poll() is not None)
        assert self.agents[name].poll() is None, self.said(name)

    def kill_agent(self, name: str) -> None:
        self.agents[name].kill()
        self.agents[name].wait()

    def said(self, name: str) -> str:
        """The log of an agent, or of a command."""
        log = self.folder / f"{name}.log"
        return log.read_text() if log.exists() else ""

    def given_up(self, name: str) -> bool:
        """Whether an agent has noticed that a workstation is gone."""
        return re.search("for .*: channel client/.* has no receiver", self.said(name)) is not None

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """An edgecut command on the workstation; it logs as ``name``, anew."""
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        return self.network.start(DESK, *_MAIN, *arguments, log=log, env=self._env, cwd=self.folder)

    def command(self, *command: str) -> subprocess.Popen[bytes]:
        """Any command on the workstation, its output to be read."""
        log = self.folder / "streamer.log"
        return self.network.start(DESK, *command, log=log, env=self._env, cwd=self.folder, piped=True)

    def edgecut(self, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was printed, of a command on the workstation; one that hangs fails the test."""
        return self.finish("command", self.start("command", *arguments))

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        code = process.wait(PATIENCE_S)
        said = self.said(name)
        assert "Traceback" not in said, said
        return code, said


class Stream:
    """What `streamer.py` does on the workstation."""

    def __init__(self, lab: Lab, window: int, *plans: Path) -> None:
        self._lab, self._lines = lab, list[dict[str, Any]]()
        command = [sys.executable, str(_TESTS / "streamer.py"), str(window), *map(str, plans)]
        self._process = lab.command(*command)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.append(json.loads(line))

    def __len__(self) -> int:
        return sum("answer" in line for line in self._lines)

    @property
    def plan(self) -> int | None:
        """Which plan gave the newest answer."""
        return next((line["plan"] for line in reversed(self._lines) if "answer" in line), None)

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self._lines if "event" in line]

    def advance(self, answers: int) -> None:
        """Wait for so many more answers."""
        enough = len(self) + answers
        self.until(lambda: len(self) >= enough)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for it; every answer so far was right, and in its place."""
        until(lambda: self._process.poll() is not None or condition())
        self.check()
        assert condition(), (
            self._lines[-1:],
            self.events,
            *map(self._lab.said, (*self._lab.names, "streamer")),
        )

    def check(self) -> None:
        answers = [line for line in list(self._lines) if "answer" in line]
        assert [line["answer"] for line in answers] == list(range(len(answers)))
        assert all(line["right"] for line in answers)

    def end(self) -> None:
        """Let what is in flight be answered, and no more be asked."""
        assert self._process.stdin
        self._process.stdin.close()
        self.until(lambda: self._lines[-1].get("end") == "done")
        assert self._process.wait(PATIENCE_S) == 0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@contextmanager
def lab(folder: Path, *names: str) -> Iterator[Lab]:
    with hosts(DESK, *names) as network:
        made = Lab(network, names, folder)
        for name in names:
            made.start_agent(name)
        yield made
