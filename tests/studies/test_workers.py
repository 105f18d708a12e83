"""Real worker processes that are started in parallel, killed, suspended or blocked, on SQLite and on PostgreSQL."""

import itertools
import json
import signal
import time
from collections import Counter

import pytest

from studies import RowState, load_study, render_results, study_status
from studies.trials.leases import LEASE_GRACE_AFTER_RESTART_S, LEASE_GRACE_S

ROUNDS = 10


@pytest.fixture(scope="session")
def database_numbers():
    return itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_variables(request, database_numbers):
    """Return a function that creates an empty database and returns the environment variables for child processes.

    SQLite needs none: the database is created in the output folder.
    """
    if request.param == "sqlite":
        return dict
    server = request.getfixturevalue("postgresql")
    return lambda: {"KHMER_TUNER_STORAGE": server.create_database(f"workers_{next(database_numbers)}")}


@pytest.fixture
def variables(new_variables):
    return new_variables()


def finish(process, timeout_s=120):
    """Wait for a child that must succeed without error output; return its standard output."""
    output, errors = process.communicate(timeout=timeout_s)
    # On a busy machine, a process that waits for the study's lock for more than three seconds prints a note.
    assert [line for line in errors.splitlines() if not line.startswith("waiting for process")] == []
    assert process.returncode == 0
    return output


def first_line(process):
    line = process.stdout.readline().strip()
    assert line, process.stderr.read() if process.stderr else ""
    return line


def json_lines(process):
    return [json.loads(line) for line in finish(process).splitlines()]


def trained(path):
    return Counter(line for log in path.glob("trained.*.log") for line in log.read_text().splitlines())


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("presets", "searches", "rounds"),
    [(12, 24, 1), (48, 0, 1), pytest.param(48, 0, ROUNDS, marks=pytest.mark.slow)],
)
def test_eight_parallel_workers_train_every_trial_once(presets, searches, rounds, tmp_path, child, new_variables):
    for number in range(rounds):
        path = tmp_path / str(number) / "out"
        finish(child("work", path, presets, searches, 8, **new_variables()))
        check_each_trial_was_trained_once(path, presets, searches)


def check_each_trial_was_trained_once(path, presets, searches):
    names = [f"preset {n:02d}" for n in range(presets)]
    names += [f"search_{n:04d}" for n in range(presets, presets + searches)]
    assert trained(path) == Counter({f"{number} {name}": 1 for number, name in enumerate(names)})
    study, folder = load_study(path)
    status = study_status(study, folder)
    assert [(row.number, row.name, row.state, row.attempts) for row in status.rows] == [
        (number, name, RowState.COMPLETED, 1) for number, name in enumerate(names)
    ]
    assert status.pending == 0
    results = render_results(study, timestamp="x")["all_results"]
    assert [entry["experiment_name"] for entry in results] == names
    # All search trials have different settings.
    assert len({entry["hyperparameters"]["learning_rate"] for entry in results}) == len(names)


def test_killed_worker_trial_is_resumed_under_its_number(tmp_path, child, variables):
    path = tmp_path / "out"
    holder = child("hold", path, 3, **variables)
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
    # A server detects the exit with a delay.
    wait_until(lambda: study_status(study, folder).rows[0].state is RowState.INTERRUPTED)
    assert study_status(study, folder).pending == 3

    started = time.monotonic()
    finish(child("work", path, 3, 0, **variables))
    # On a server, a worker whose connection was lost has a grace period.
    assert time.monotonic() - started < 30 + (max(LEASE_GRACE_S, LEASE_GRACE_AFTER_RESTART_S) if variables else 0)
    assert trained(path) == Counter({"0 preset 00": 1, "1 preset 01": 1, "2 preset 02": 1})
    rows = study_status(study, folder).rows
    assert [(row.number, row.state, row.attempts) for row in rows] == [
        (0, RowState.COMPLETED, 2),
        (1, RowState.COMPLETED, 1),
        (2, RowState.COMPLETED, 1),
    ]


def test_suspended_worker_keeps_its_trial(tmp_path, child, variables):
    path = tmp_path / "out"
    holder = child("hold", path, 2, **variables)
    assert first_line(holder) == "0"
    holder.send_signal(signal.SIGSTOP)
    finish(child("work", path, 2, 0, **variables))

    assert trained(path) == Counter({"1 preset 01": 1})
    study, folder = load_study(path)
    assert [row.state for row in study_status(study, folder).rows] == [RowState.RUNNING, RowState.COMPLETED]
    holder.send_signal(signal.SIGCONT)
    holder.kill()


def test_workers_wait_for_a_locked_database_file(tmp_path, child):
    path = tmp_path / "out"
    locker = child("lock_database", path, 2)
    assert first_line(locker) == "locked"
    finish(child("work", path, 2, 0))
    assert sum(trained(path).values()) == 2


def test_start_killed_at_any_commit_is_completed_by_the_next_start(tmp_path, child, variables):
    lines = json_lines(child("kill_start", tmp_path, 2, 1, **variables))
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert len(lines) > 10
    for line in lines:
        assert line["trials"] == ["preset 00", "preset 01", "search"]
        assert line["states"] == ["WAITING"]


def test_search_request_killed_at_any_commit_is_stored_completely_or_not_at_all(tmp_path, child, variables):
    lines = json_lines(child("kill_request", tmp_path, 3, **variables))
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert [line["budget"] for line in lines] == [0, 0] + [3] * (len(lines) - 2)
    assert len(lines) > 4
    for line in lines:
        assert line["numbers"] == list(range(1, 1 + line["budget"]))
        assert line["has_settings"] or line["budget"] == 0


def test_workers_killed_at_any_commit_train_every_trial_once(tmp_path, child, variables):
    assert int(finish(child("kill_workers", tmp_path, 2, 1, **variables))) > 5
    study, folder = load_study(tmp_path / "out")
    rows = study_status(study, folder).rows
    assert [(row.number, row.name, row.state) for row in rows] == [
        (number, name, RowState.COMPLETED) for number, name in enumerate(["preset 00", "preset 01", "search_0002"])
    ]
    assert [row.best_value for row in rows[:2]] == pytest.approx([0.001, 0.0011])
    reference, _ = load_study(tmp_path / "reference")
    assert [trial.params for trial in study.get_trials()] == [trial.params for trial in reference.get_trials()]


def test_reading_a_study_in_use_changes_no_file(tmp_path, child, variables):
    path = tmp_path / "out"
    holder = child("hold", path, 2, **variables)
    first_line(holder)
    holder.send_signal(signal.SIGSTOP)
    before = file_states(path)
    study, folder = load_study(path)
    study_status(study, folder)
    render_results(study, timestamp="x")
    assert file_states(path) == before


def file_states(path):
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_size, file.read_bytes()) for file in files}
