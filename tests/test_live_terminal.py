"""What stays on a terminal that was watched, however that ended; and elsewhere no control characters."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from conftest import Edgecut
from sources import TINY, cut
from terminal import Terminal
from test_deploy import PLANS, fleet, plan

TESTS = Path(__file__).parent
PATHS = os.pathsep.join((str(TESTS.parent), str(TESTS)))
MAIN = [sys.executable, "-c", "from runtime.cli import main; main()"]
DEPLOY = ["deploy", "plan.json", "-o", "run", "--transport", "in-process", "--static", "--requests"]
WATCHED = """
import threading
from runtime.live import restore_terminal, watched
from runtime.live_profile import ProfileView
from runtime.stopping import Stopping

with Stopping(restore_terminal, say=False) as stopping, stopping.draining(), watched(ProfileView("x", ["edge"])):
    while True:
        threading.Event().wait(0.05)
        if stopping():
            print("noted")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a plan in it."""
    plan(cut(TINY)[1].chain, PLANS["there"], fleet()).save(tmp_path / "plan.json")
    return tmp_path


def test_only_the_tables_stay(folder: Path) -> None:
    """On a terminal that is made smaller meanwhile, after Ctrl-C."""
    shown = Terminal([*MAIN, *DEPLOY, "100000"], folder, PYTHONPATH=PATHS, OMP_NUM_THREADS="1")
    shown.until(lambda: "loading the plan" in shown.screen.text)
    assert not shown.screen.cursor
    shown.resize(90, 30)
    shown.until(lambda: "p95" in shown.screen.text)
    shown.process.send_signal(signal.SIGINT)
    assert shown.finish() == 130
    assert shown.screen.cursor
    lines = shown.screen.text.splitlines()
    assert lines[-2:] == ["wrote run", "interrupted; what was finished is kept. The same command goes on"]
    assert sum("models:Tiny" in line for line in lines) == 1
    assert sum(line.startswith(" total") for line in lines) == 1
    for gone in ("loading", "requests/s", "p95", "Mbit/s", "left", "finishing"):
        assert gone not in shown.screen.text


def test_the_cursor_is_back_when_the_second_ctrl_c_ends_it(tmp_path: Path) -> None:
    shown = Terminal([sys.executable, "-c", WATCHED], tmp_path, PYTHONPATH=PATHS)
    shown.until(lambda: "edge" in shown.screen.text)
    assert not shown.screen.cursor
    shown.process.send_signal(signal.SIGINT)
    shown.until(lambda: "noted" in shown.screen.text)  # and stands above the view
    assert not shown.screen.cursor
    shown.process.send_signal(signal.SIGINT)
    assert shown.finish() == 130
    assert shown.screen.cursor


def test_no_control_characters_elsewhere(
    folder: Path, edgecut: Edgecut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    code, said = edgecut(*DEPLOY, 3, "--metrics", 0)
    assert code == 0
    assert "total" in said
    assert "metrics: http://127.0.0.1:" in said
    assert not re.search(r"\x1b\[[^m]*[A-Za-ln-z]|\r", said)  # colours were asked for
