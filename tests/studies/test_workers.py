"""Real processes: started together, killed, stopped, kept waiting."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import RowState, load_study, render_results, study_status

Child = Callable[..., "subprocess.Popen[str]"]


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> str:
    """Wait for a child that must succeed in silence; return what it printed."""
    output, errors = process.communicate(timeout=timeout_s)
    assert errors == ""
    assert process.returncode == 0
    return output


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, process.stderr.read() if process.stderr else ""
    return line


def trained(path: Path) -> Counter[str]:
    return Counter(line for log in path.glob("trained.*.log") for line in log.read_text().splitlines())


def test_eight_workers_started_together_train_every_preset_once(tmp_path: Path, child: Child) -> None:
    path, gate = tmp_path / "out", tmp_path / "gate"
    workers = [child("work", path, 48, gate) for _ in range(8)]
    for worker in workers:
        assert first_line(worker) == "ready"
    gate.touch()
    for worker in workers:
        finish(worker)

    assert trained(path) == Counter({f"{n} preset {n:02d}": 1 for n in range(48)})
    study, folder = load_study(path)
    assert study_status(study, folder).counts["completed"] == 48
    assert {row.attempts for row in study_status(study, folder).rows} == {1}
    names = [entry["experiment_name"] for entry in render_results(study, timestamp="x")["all_results"]]
    assert names == [f"preset {n:02d}" for n in range(48)]


def test_a_killed_worker_s_trial_is_adopted_at_once_under_its_number(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "out"
    holder = child("hold", path, 3)
    assert first_line(holder) == "0"
    study, folder = load_study(path)
    assert [row.state for row in study_status(study, folder).rows] == [
        RowState.RUNNING,
        RowState.WAITING,
        RowState.WAITING,
    ]
    assert study_status(study, folder).rows[0].worker_pid == holder.pid

    holder.kill()
    holder.wait()
    assert study_status(study, folder).rows[0].state is RowState.INTERRUPTED
    assert study_status(study, folder).owed == 3

    begun = time.monotonic()
    finish(child("work", path, 3))
    assert time.monotonic() - begun < 30
    assert trained(path) == Counter({"0 preset 00": 1, "1 preset 01": 1, "2 preset 02": 1})
    rows = study_status(study, folder).rows
    assert [(row.number, row.state, row.attempts) for row in rows] == [
        (0, RowState.COMPLETED, 2),
        (1, RowState.COMPLETED, 1),
        (2, RowState.COMPLETED, 1),
    ]


def test_a_stopped_worker_is_not_robbed(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "out"
    holder = child("hold", path, 2)
    assert first_line(holder) == "0"
    holder.send_signal(signal.SIGSTOP)
    finish(child("work", path, 2))

    assert trained(path) == Counter({"1 preset 01": 1})
    study, folder = load_study(path)
    assert [row.state for row in study_status(study, folder).rows] == [RowState.RUNNING, RowState.COMPLETED]
    holder.send_signal(signal.SIGCONT)
    holder.kill()


def test_a_locked_database_makes_workers_wait_not_fail(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "out"
    finish(child("work", path, 0))
    locker = child("database", path, 2)
    assert first_line(locker) == "locked"
    finish(child("work", path, 2))
    assert sum(trained(path).values()) == 2


def test_a_start_killed_at_any_commit_is_completed_by_the_next(tmp_path: Path, child: Child) -> None:
    lines = [json.loads(line) for line in finish(child("die", tmp_path, 2)).splitlines()]
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert len(lines) > 8
    for line in lines:
        assert line["names"] == ["preset 00", "preset 01"]
        assert line["states"] == ["WAITING"]


def test_workers_killed_at_any_commit_lose_and_double_nothing(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "out"
    workers = int(finish(child("struggle", path, 3)))
    study, folder = load_study(path)
    rows = study_status(study, folder).rows
    assert [(row.number, row.name, row.state) for row in rows] == [
        (n, f"preset {n:02d}", RowState.COMPLETED) for n in range(3)
    ]
    assert [row.best_value for row in rows] == pytest.approx([0.001, 0.0011, 0.0012])
    assert workers > 5


def test_reading_a_study_that_is_written_changes_no_file(tmp_path: Path, child: Child) -> None:
    path = tmp_path / "out"
    holder = child("hold", path, 2)
    first_line(holder)
    holder.send_signal(signal.SIGSTOP)
    before = file_states(path)
    study, folder = load_study(path)
    study_status(study, folder)
    render_results(study, timestamp="x")
    assert file_states(path) == before


def file_states(path: Path) -> dict[str, tuple[int, int, bytes]]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size, file.read_bytes()) for file in files}
