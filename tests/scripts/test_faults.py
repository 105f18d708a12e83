"""A study whose disk fails is completed later and equals an undisturbed one: `scripts/fault_harness.py`, with few."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "fault_harness.py"
MEMORY = Path("/dev/shm")
NOTES = """\
1 mkdir {study}/out
2 create {study}/out/study.db-journal
3 write {study}/out/.study/leases/0001.lock
+ checkpoint
4 create {study}/out/plain/checkpoints/.last.pt.tmp
5 rename {study}/out/plain/checkpoints/last.pt
-
+ tell
6 write {study}/out/study.db-journal
7 write {study}/out/study.db-journal
8 write {study}/out/study.db-journal
-
+ checkpoint
9 create {study}/out/search_0002/checkpoints/.last.pt.tmp
10 rename {study}/out/search_0002/checkpoints/last.pt
-
11 rename {study}/results.json
"""

needs_a_compiler = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="calls of a process are only made to fail on Linux, with a C compiler",
)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    return importlib.import_module(name)


def check(faults: int, *options: str) -> None:
    """Let calls fail, as the options say."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        command = [sys.executable, str(HARNESS), "--folder", folder, "--faults", str(faults), *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"studies complete and equal afterwards: {faults} of {faults}\n" in done.stdout


@needs_a_compiler
def test_whatever_call_fails_nothing_is_lost_and_it_is_said_where() -> None:
    check(6, "--only-sampled", "--seed", "5")


@needs_a_compiler
@pytest.mark.slow
def test_more_calls_that_fail() -> None:
    check(75, "--only-sampled", "--seed", "6", "--jobs", "2")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "calls.txt").write_text(NOTES.format(study=tmp_path))
    return module("faults.calls", monkeypatch).read_calls(tmp_path)


def test_calls_are_told_apart_by_what_they_are_for(calls: Any) -> None:
    assert [call.number for call in calls] == list(range(1, 12))
    assert [call.kind for call in calls[:5]] == [
        "mkdir the output folder",
        "create study.db-journal",
        "write .study/leases/*",
        "create TRIAL/checkpoints/.last.pt.tmp",
        "rename TRIAL/checkpoints/last.pt",
    ]
    assert calls[3].kind == calls[8].kind
    assert [call.moment for call in calls[2:9:3]] == [None, ("tell", 1), ("checkpoint", 2)]


def test_every_call_around_checkpoint_and_tell_fails_in_every_way(calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = module("faults.calls", monkeypatch)
    injections = plan.plan(calls, random.Random(1), 4, all_moments=True)
    # The second checkpoint does what the first did, and SQLite's third page is as good as its second.
    assert Counter(one.call.number for one in injections[:-4]) == dict.fromkeys((4, 5, 6, 8), 3)
    assert len(set(injections)) == len(injections)


@pytest.mark.parametrize(
    ("code", "said", "problem"),
    [
        (2, "error: {study}/out/a: No space left on device, 0 MB free; make room on that disk", None),
        (0, "", None),
        (1, "error: {study}/out/a: No space left on device; make room on that disk", "it ended with 1"),
        (2, "Traceback (most recent call last):", "it ended with 2"),
        (2, "error: No space left on device; make room on that disk", "does not say"),
        (2, "error: {study}/out/a: something is wrong", "does not say"),
    ],
)
def test_the_harness_notices_what_a_command_does_not_say(
    code: int, said: str, problem: str | None, calls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign, faults, forks = (
        module(name, monkeypatch) for name in ("faults.campaign", "faults.calls", "harness.forks")
    )
    injection, ending = faults.Injection(calls[4], faults.Fault.FULL), forks.Ending(0.0, 1.0, code)
    found = list(campaign.fault_problems(injection, ending, said.format(study=tmp_path), tmp_path))
    assert [problem in text for text in found] == ([] if problem is None else [True])
