"""What an agent finds on its machine: memory within a container's limit, ports that are taken."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from planner.errors import TransportError
from profiler.cgroup import MemoryLimit, memory_limit
from profiler.machine import available_memory_bytes, describe_machine
from runtime.agent import CLIENT_TIMEOUT_S, DRAIN_TIMEOUT_S
from runtime.commands.agent import agent
from runtime.ports import listening_error, port_holder
from runtime.zenoh_transport import ZenohTransport

GB = 10**9


def group(folder: Path, limit: str, used: int, idle: int, *, version: int = 2) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - idle}\n{names[2]} {idle}\nactive_file 5\n")


def member(root: Path, line: str) -> None:
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_text(line + "\n")


def test_a_service_s_limit_counts_without_files_that_are_idle(tmp_path: Path) -> None:
    member(tmp_path, "0::/system.slice/edgecut.service")
    top = tmp_path / "sys/fs/cgroup"
    group(top / "system.slice/edgecut.service", str(4 * GB), 3 * GB, 1 * GB)
    group(top / "system.slice", "max", 20 * GB, 0)
    assert memory_limit(tmp_path) == MemoryLimit(4 * GB, 2 * GB)
    group(top / "system.slice", str(21 * GB), 20 * GB, 0)  # its neighbours have taken what is left
    assert memory_limit(tmp_path) == MemoryLimit(21 * GB, GB)


def test_a_container_s_limit_is_found_at_the_top(tmp_path: Path) -> None:
    member(tmp_path, "0::/docker/0123abcd")
    group(tmp_path / "sys/fs/cgroup", str(2 * GB), 3 * GB, 0)
    assert memory_limit(tmp_path) == MemoryLimit(2 * GB, 0)


def test_the_first_version_of_control_groups(tmp_path: Path) -> None:
    member(tmp_path, "4:cpu:/a\n3:memory:/a\n2:name=systemd:/a")
    top = tmp_path / "sys/fs/cgroup/memory"
    group(top, str(9223372036854771712), 9 * GB, 0, version=1)
    assert memory_limit(tmp_path) is None
    group(top / "a", str(GB), GB // 2, GB // 4, version=1)
    assert memory_limit(tmp_path) == MemoryLimit(GB, 3 * GB // 4)


@pytest.mark.parametrize("content", ["", "0::/a", "nonsense"])
def test_no_limit(tmp_path: Path, content: str) -> None:
    if content:
        member(tmp_path, content)
        (tmp_path / "sys/fs/cgroup/a").mkdir(parents=True)
    assert memory_limit(tmp_path) is None


def test_this_machine_s_memory_is_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler.machine.memory_limit", lambda: MemoryLimit(5 * 2**20, 2**20))
    assert available_memory_bytes() == 2**20
    assert describe_machine().memory_bytes == 5 * 2**20


def test_a_port_that_is_taken_names_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port_holder(port).startswith("process ")
        with pytest.raises(TransportError, match=rf"process \d+ \(.*\) has port {port}") as found:
            ZenohTransport(listen=f"tcp/127.0.0.1:{port}")
        assert "--listen tcp/127.0.0.1:" in found.value.remedy
    assert port_holder(port) == ""


def test_an_address_of_another_machine() -> None:
    with pytest.raises(TransportError, match=r"192\.0\.2\.77 is no address of this machine"):
        ZenohTransport(listen="tcp/192.0.2.77:7447")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Permission denied (os error 13)", "may not use port 80"),
        ("Address already in use (os error 98)", "another process has port 80"),
        ("something else", "something else"),
    ],
)
def test_why_a_port_cannot_be_listened_on(tmp_path: Path, reason: str, said: str) -> None:
    assert said in listening_error("tcp/127.0.0.1:80", reason, tmp_path).message


DOCS = Path(__file__).parent.parent / "docs"


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    unit = (DOCS / "edgecut-agent.service").read_text()
    installed = tmp_path / "edgecut-agent.service"
    installed.write_text(unit.replace("/opt/edgecut/bin/edgecut", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if "edgecut" in line]) == (0, [])


@pytest.mark.parametrize("name", ["edgecut-agent.service", "agent.Dockerfile"])
def test_what_services_pass_to_an_agent_exists(name: str) -> None:
    text = (DOCS / name).read_text()
    known = {option for parameter in agent.params for option in parameter.opts}
    lines = [line for line in text.splitlines() if "ExecStart=" in line or "AGENT=" in line]
    lines += [line for line in text.splitlines() if "ENTRYPOINT" in line or "edgecut-agent --name" in line]
    used = {option for line in lines for option in re.findall(r"(?<![\w-])--[a-z-]+", line)}
    assert {"--folder", "--listen", "--keys"} <= used
    assert used <= known
    # A container or service manager that kills sooner would cut the drain short.
    given = re.findall(r"(?:TimeoutStopSec=|--stop-timeout )(\d+)", text)
    assert given
    assert min(map(int, given)) > DRAIN_TIMEOUT_S + CLIENT_TIMEOUT_S
