"""A fleet on test hosts: agents on some, edgecut's commands on another."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hosts import Hosts, hosts
from sources import TINY, cut
from test_deploy import plan

from planner.fleet_file import load_fleet

PATIENCE_S = 240.0
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

    def write_plans(self, **where: Sequence[tuple[str, int, int, str]]) -> list[Path]:
        """Plans of ``TINY`` by name, stages as ``test_deploy.plan`` takes them; every hop goes straight."""
        over, files = load_fleet(self.fleet), []
        for name, stages in where.items():
            relayed = plan(cut(TINY)[1].chain, list(stages), over)
            hops = tuple(replace(hop, route=(hop.route[0], hop.route[-1])) for hop in relayed.hops)
            files.append(self.folder / f"{name}.json")
            replace(relayed, hops=hops).save(files[-1])
        return files

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


class Streamer:
    """The process of `streamer.py` on the workstation, for plans of one network."""

    def __init__(self, lab: Lab, window: int, plan: Path, pause_s: float = 0.005) -> None:
        self.lab, self.stream = lab, Stream(self)
        command = sys.executable, str(_TESTS / "streamer.py"), str(window), str(pause_s), str(plan)
        self.process = lab.command(*command)
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, *plans: Path) -> Stream:
        """Stream requests over the first of these plans that can run."""
        self.stream = Stream(self)
        self.tell(" ".join(map(str, plans)))
        return self.stream

    def tell(self, line: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.stream.take(json.loads(line))
        self.stream.take({"end": "the process ended"})


class Stream:
    """What became of a stream so far. ``plan``: which one gave the newest answer."""

    def __init__(self, streamer: Streamer) -> None:
        self._streamer = streamer
        self.answers, self.plan, self.faults, self.events = 0, -1, list[object](), list[str]()
        self.over: str | None = None
        self.longest_s = 0.0  # without an answer
        self._last_s = math.inf

    def take(self, line: dict[str, Any]) -> None:
        """A line that the process said; every answer must be right, and the next one."""
        if "answer" in line:
            if line["answer"] != self.answers or not line["right"]:
                self.faults.append(line)
            now_s = time.monotonic()
            self.longest_s = max(self.longest_s, now_s - self._last_s)
            self._last_s, self.plan = now_s, line["plan"]
            self.answers += 1
        elif "event" in line:
            self.events.append(line["event"])
        else:
            self.over = self.over or line["end"]

    def advance(self, answers: int) -> None:
        """Wait for so many more answers."""
        enough = self.answers + answers
        self.until(lambda: self.answers >= enough)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for it; every answer so far was right, and in its place."""
        until(lambda: self.over or condition())
        assert not self.faults
        said = map(self._streamer.lab.said, (*self._streamer.lab.names, "streamer"))
        assert condition(), (self.over, self.events[-20:], *said)

    def end(self) -> None:
        """Let what is in flight be answered, and no more be asked."""
        self._streamer.tell()
        self.until(lambda: self.over == "done")


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
