"""`scripts/damage_harness.py` with few damages: each is reported and no undamaged trial is lost."""

import importlib
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "damage_harness.py"


def run_harness(*options):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(HARNESS), *options], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_damage_is_reported_and_undamaged_trials_are_kept():
    done = run_harness("--damages", "14", "--seed", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failures\n" in done.stdout


def test_unexpected_error_and_hanging_command_are_problems(monkeypatch):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    case = importlib.import_module("damages.case")
    outputs = {"status": (1, "error: unexpected TypeError"), "show": (None, ""), "best": (2, "error: damaged")}
    assert case.unexpected_errors(outputs) == [
        "status: exited with 1: error: unexpected TypeError",
        "show: did not exit within 30 s",
    ]


def test_same_seed_damages_same_value(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    kinds = importlib.import_module("damages.kinds")
    found = []
    for _ in range(2):
        with closing(sqlite3.connect(":memory:")) as database:
            database.execute("CREATE TABLE trials (trial_id INTEGER, state TEXT)")
            database.execute("INSERT INTO trials VALUES (3, 'COMPLETE')")
            done = kinds._damage_row(Random("1/4"), database, "trials")
            found.append((done, database.execute("SELECT * FROM trials").fetchall()))
    assert found[0] == found[1]
    assert found[0][0].trial == "search_0002"
    assert found[0][1] != [(3, "COMPLETE")]
