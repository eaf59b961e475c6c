"""A short run of the fuzz benchmark: an agent takes nothing malformed, whoever sends it, and serves on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_an_agent_refuses_what_is_malformed() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--frames", "500", "--connections", "10"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("passed\n")
