"""The shape of the project: arrows between packages, light imports, files a person can read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "planner": {"planner"},
    "profiler": {"planner", "profiler"},
    "runtime": {"planner", "profiler", "runtime"},
}
SOURCES = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]


def imported(file: Path) -> set[str]:
    """Top-level packages that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports in full"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_arrows_point_one_way(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    assert imported(file) & set(MAY_IMPORT) <= MAY_IMPORT[package]
    if package == "planner":
        assert not imported(file) & {"torch", "torchvision", "onnxruntime", "zenoh", "socket", "click"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_are_read_in_one_sitting(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 300


HEAVY = (
    "torch",
    "torchvision",
    "onnxruntime",
    "onnx",
    "tensorrt",
    "tensorrt_rtx",
    "zenoh",
    "pandas",
    "pulp",
    "matplotlib",
    "simpy",
    "ray",
    "starlette",
    "uvicorn",
)


@pytest.mark.parametrize(
    "command",
    [
        [],
        *(
            [name]
            for name in (
                "doctor",
                "inspect",
                "verify",
                "samples",
                "bench",
                "build",
                "agent",
                "agents",
                "router",
                "clocks",
                "profile",
                "links",
                "solve",
                "explain",
                "simulate",
                "solve-many",
                "replicate",
                "front",
                "break-even",
                "import",
                "deploy",
                "serve",
                "trace",
                "report",
                "energy",
            )
        ),
        *(["energy", name] for name in ("log", "serve", "offset", "merge", "idle")),
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import sys\n"
        "from runtime.cli import main\n"
        f"sys.argv = ['edgecut', *{command!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0, ended.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "Usage: edgecut" in done.stdout


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_importing_a_package_costs_nothing(package: str) -> None:
    script = f"import sys, {package}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_public_names_exist(package: str) -> None:
    module = __import__(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_solving_needs_no_torch() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'torchvision', 'onnxruntime', 'zenoh')))\n"
        "import planner.solver, runtime.reports.report, runtime.commands.solve\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
