"""`scripts/fault_harness.py` with few faults: a study with a failing file-system call equals the reference."""

import importlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "fault_harness.py"
MEMORY = Path("/dev/shm")
CALL_LOG = """\
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

needs_compiler = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None,
    reason="faults can only be injected on Linux with a C compiler",
)


def module(name, monkeypatch):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    return importlib.import_module(name)


def run_harness(faults, *options):
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        command = [sys.executable, str(HARNESS), "--folder", folder, "--faults", str(faults), *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"studies that were complete and equal to the reference afterwards: {faults} of {faults}\n" in done.stdout


@needs_compiler
@pytest.mark.slow
def test_study_with_failing_file_system_call_is_completed_and_error_names_path():
    run_harness(20, "--only-sampled", "--seed", "6", "--jobs", "2")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    (tmp_path / "calls.txt").write_text(CALL_LOG.format(study=tmp_path))
    return module("faults.calls", monkeypatch).read_calls(tmp_path)


def test_calls_are_classified_by_kind_and_operation(calls):
    assert [call.number for call in calls] == list(range(1, 12))
    assert [call.kind for call in calls[:5]] == [
        "mkdir the output folder",
        "create study.db-journal",
        "write .study/leases/*",
        "create TRIAL/checkpoints/.last.pt.tmp",
        "rename TRIAL/checkpoints/last.pt",
    ]
    assert calls[3].kind == calls[8].kind
    assert [call.operation for call in calls[2:9:3]] == [None, ("tell", 1), ("checkpoint", 2)]


def test_plan_has_every_fault_for_every_call_during_checkpoint_and_tell(calls, monkeypatch):
    calls_module = module("faults.calls", monkeypatch)
    injections = calls_module.plan(calls, random.Random(1), 4, all_operations=True)
    # The second checkpoint repeats the first, and the write of the third page repeats that of the second.
    assert Counter(one.call.number for one in injections[:-4]) == dict.fromkeys((4, 5, 6, 8), 3)
    assert len(set(injections)) == len(injections)


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [
        (2, "error: {study}/out/a: No space left on device, 0 MB free; free some space on that disk", None),
        (0, "", None),
        (1, "error: {study}/out/a: No space left on device; free some space on that disk", "the process exited with 1"),
        (2, "Traceback (most recent call last):", "the process exited with 2"),
        (2, "error: No space left on device; free some space on that disk", "does not name the path"),
        (2, "error: {study}/out/a: something is wrong", "does not name the path"),
    ],
)
def test_wrong_exit_code_or_error_message_is_a_problem(code, output, problem, calls, tmp_path, monkeypatch):
    campaign, faults, forks = (
        module(name, monkeypatch) for name in ("faults.campaign", "faults.calls", "harness.forks")
    )
    injection, ending = faults.Injection(calls[4], faults.Fault.FULL), forks.Ending(0.0, 1.0, code)
    found = list(campaign.fault_problems(injection, ending, output.format(study=tmp_path), tmp_path))
    assert [problem in text for text in found] == ([] if problem is None else [True])
