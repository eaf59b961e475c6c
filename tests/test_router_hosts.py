"""Agents on hosts that reach nothing but the router, and agents found on a LAN by the name they say."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hosts import Hosts, hosts

from planner.link_report import LinkReport

PATIENCE_S = 60.0
MAIN = sys.executable, "-c", "import sys; from runtime.cli import main; main()"
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def serve(network: Hosts, folder: Path, host: str, *arguments: str) -> subprocess.Popen[bytes]:
    """An edgecut command that serves on a host; it has said its first line once this returns."""
    log = folder / f"{host}.log"
    process = network.start(host, *MAIN, *arguments, log=log, env=ENVIRONMENT, cwd=folder)
    until(lambda: any(word in log.read_text() for word in ("listens", "connects", "routes")))
    return process


def edgecut(network: Hosts, folder: Path, host: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*network.prefix(host), *MAIN, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_agents_behind_nat_measure_the_link_between_them_and_their_death_is_seen(tmp_path: Path) -> None:
    with hosts("desk", "hub", "nano", "orin") as network:
        for one, other in (("nano", "orin"), ("nano", "desk"), ("orin", "desk")):
            network.cut(one, other)
        router = f"tcp/{network.addresses['hub']}:7447"
        fleet = f'schema = "edgecut.fleet/1"\nsource = "nano"\nrouter = "{router}"\n[device.nano]\n[device.orin]\n'
        fleet += '[[link]]\nbetween = ["nano", "orin"]\nbandwidth_bytes_per_s = 1e8\n'
        (tmp_path / "fleet.toml").write_text(fleet)
        serve(network, tmp_path, "hub", "router", "--listen", router, "--insecure")
        agents = {
            name: serve(network, tmp_path, name, "agent", "--name", name, "--connect", router, "--insecure")
            for name in ("nano", "orin")
        }
        network.throttle("nano", 16e6)
        asked = (
            "--fleet",
            "fleet.toml",
            "--sizes",
            "65536,262144",
            "--max-runs",
            "3",
            "--insecure",
            "-o",
            "measured.toml",
        )
        code, said = edgecut(network, tmp_path, "desk", "links", *asked)
        assert code == 0, said
        there, back = LinkReport.load(tmp_path / "measured.links.json").links
        assert there.fit.bandwidth_bytes_per_s < 2.4e6  # 16 Mbit/s and a burst of 16 KB
        assert there.nominal.pair == ("nano", "orin")
        assert back.fit.bandwidth_bytes_per_s > there.fit.bandwidth_bytes_per_s
        agents["orin"].kill()
        code, said = edgecut(network, tmp_path, "desk", "agents", "--fleet", "fleet.toml", "--insecure")
        assert code == 1
        assert "no agent called orin answers at router" in said
        assert "onnxruntime" in said


def test_agents_are_found_on_a_lan_of_several_hosts(tmp_path: Path) -> None:
    with hosts("desk", "nano", "orin") as network:
        for name in ("nano", "orin"):
            where = "tcp/0.0.0.0:7447"
            serve(
                *(network, tmp_path, name, "agent", "--name", name, "--listen", where),
                *("--insecure", "--discoverable"),
            )
        fleet = 'schema = "edgecut.fleet/1"\nsource = "nano"\n[device.nano]\n[device.orin]\n'
        fleet += '[[link]]\nsource = "nano"\ntarget = "orin"\nbandwidth_bytes_per_s = 1e8\n'
        (tmp_path / "fleet.toml").write_text(fleet)
        code, said = edgecut(network, tmp_path, "desk", "agents", "--discover", "1", "--insecure")
        assert code == 0, said
        for name in ("nano", "orin"):
            assert f"tcp/{network.addresses[name]}:7447" in said
        asked = (
            "--fleet",
            "fleet.toml",
            "--sizes",
            "4194304",
            "--max-runs",
            "3",
            "--discover",
            "1",
            "--insecure",
        )
        code, said = edgecut(network, tmp_path, "desk", "links", *asked)
        assert code == 0, said
        assert "nano → orin" in said
