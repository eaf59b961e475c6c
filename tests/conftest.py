"""Fixtures and settings that every test shares."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from profiler.cuda import find_gpu
from runtime.cli import main

Edgecut = Callable[..., tuple[int, str]]

settings.register_profile(
    "edgecut", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edgecut")


def pytest_configure(config: pytest.Config) -> None:
    # Torch and its exporter warn of their own internals; nothing of ours is hidden by this.
    for module in ("torch", "torchvision", "onnxscript", "copyreg"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")


# Real processes, sockets and clocks on whatever machine this is: what the machine did to a test once, it may be spared
# a second time. A fault of ours comes again.
REAL_TIME = (
    "agent", "agent_host", "active_fleet", "artifacts", "cli", "clocks", "clocks_deploy", "deploy", "deploy_streams",
    "docs", "fuzz", "hosts", "hosts_agents", "hosts_deploy", "links", "links_command", "live", "live_terminal",
    "pipeline", "powerlog_live", "profile", "ray", "reacting", "report_page", "router", "router_hosts", "run_folder",
    "serve", "serve_abuse", "shaping", "simulate_runtime", "tls", "trace", "transport",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in REAL_TIME:
            item.add_marker(pytest.mark.flaky(reruns=2))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and find_gpu() is None:
        pytest.skip("needs an NVIDIA GPU and its driver; none is visible here")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Other tools' published files: $EDGECUT_SHARED_DATA, or shared/data beside the repository."""
    beside = Path(__file__).parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("EDGECUT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"needs other tools' published files in {folder}")
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, which is also where `package.module:callable` is looked up."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def edgecut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Edgecut:
    """Runs a command; gives exit code and what was printed, both streams."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["edgecut", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out + err

    return run


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
