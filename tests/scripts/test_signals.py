"""`scripts/signal_harness.py` with few signals: no interrupted command prints a traceback."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "signal_harness.py"


def test_harness_interrupts_every_command(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    harness = importlib.import_module("signal_harness")
    lines = harness.commands(importlib.import_module("harness.fixture_study").FixtureStudy(tmp_path, 1))
    assert set(lines) == {command.name for command in COMMANDS}
    assert all(arguments[0] == name for name, arguments in lines.items())


@pytest.mark.slow
def test_interrupted_commands_print_no_traceback_and_keep_the_study(tmp_path):
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--signals", "40", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 x run, 2 x search" in done.stdout
    assert "study items changed by the signals: 0\nproblems: 0\n" in done.stdout
