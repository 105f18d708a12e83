"""`scripts/kill_harness.py` with few kills: a study whose processes are killed equals the reference study."""

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState, create_trial

from studies import MAX_CRASHES
from tuner.training.checkpoints import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "scripts" / "kill_harness.py"
# A folder in memory is faster than a disk; killed processes leave the same files there.
MEMORY = Path("/dev/shm")
# A plot of the first trial; the file name depends on the number of the trial and of the plot.
CURVES = "artifacts/49fd48b0-fd9e-553e-89ba-c8f1dbab21e8"
NOTHING_DIFFERS = (
    "trials missing: 0, duplicate: 0; studies with problems: 0",
    "finished epochs that were trained again: 0",
)
MARK = "STARTED_BY_A_TEST"
PASSWORD_NOT_FOUND = "password found: 0 times\n"


def run_harness(folder, *options):
    command = [sys.executable, str(HARNESS), "--folder", str(folder), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def check(done, kills):
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (f"{kills} kills, ", *NOTHING_DIFFERS):
        assert line in done.stdout


def module(name, monkeypatch):
    monkeypatch.syspath_prepend(str(HARNESS.parent))
    return importlib.import_module(name)


@pytest.fixture
def password(monkeypatch):
    """The password of the server that the harness starts."""
    return str(module("harness.postgresql", monkeypatch).PASSWORD)


@pytest.fixture(scope="module")
def work_folder():
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def killed(work_folder):
    """The folder of the reference study in a short run of the harness, and the completed process of the harness."""
    folder = work_folder / "short"
    return folder / "reference", run_harness(folder, "--kills", "12", "--seed", "1", "--trials", "3")


def test_study_with_killed_processes_equals_reference_study(killed):
    check(killed[1], 12)
    assert re.search(r"^most consecutive kills in one epoch: [3-9]$", killed[1].stdout, re.MULTILINE), killed[1].stdout


def check_on_a_server(done, kills, password):
    check(done, kills)
    assert PASSWORD_NOT_FOUND in done.stdout
    assert password not in done.stdout + done.stderr


@pytest.mark.slow
def test_study_on_postgresql_with_killed_processes_equals_reference_study(work_folder, password):
    folder = work_folder / "server"
    points = ("before second half of a claim", "after epoch", "before take-over")
    done = run_harness(folder, "--postgresql", "--kills", "4", "--seed", "1", "--trials", "3", "--at", *points)
    check_on_a_server(done, 4, password)
    assert re.search(r"^take-over +[12] +0$", done.stdout, re.MULTILINE), done.stdout
    # The dump of the database is in the study's folder, so the search for the password includes it.
    assert "CREATE TABLE public.trials" in (folder / "reference" / "study.sql").read_text()


def test_stopped_harness_removes_server_and_files(tmp_path):
    mark = str(tmp_path)
    command = [sys.executable, str(HARNESS), "--postgresql", "--trials", "3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), MARK: mark}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as harness:
        try:
            assert harness.stdout is not None
            folder = Path(next(harness.stdout).rpartition(", in ")[2].strip())
            assert folder.is_dir()
            next(line for line in harness.stdout if line.startswith("reference study: "))
            assert "postgres" in names_of_marked(mark)
            harness.send_signal(signal.SIGTERM)
            assert harness.wait(60) == 130
        finally:
            harness.kill()
    assert names_of_marked(mark) == set()
    assert not folder.exists()


def names_of_marked(mark):
    """Return the names of the processes with a mark in their environment, which children inherit."""
    names = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                names.add(process.name())
    return names


@pytest.mark.slow
def test_many_kills_on_postgresql(work_folder, password):
    done = run_harness(work_folder / "server, longer", "--postgresql", "--kills", "6", "--seed", "2", "--workers", "2")
    check_on_a_server(done, 6, password)


@pytest.mark.slow
def test_study_of_two_workers_that_are_killed_equals_reference_study_of_one(work_folder):
    options = ("--workers", "2", "--kills", "5", "--seed", "5", "--trials", "6")
    points = ("after claim", "after epoch", "before take-over", "after tell")
    done = run_harness(work_folder / "workers", *options, "--at", *points)
    check(done, 5)
    found = re.search(r"^5 kills, (\d+) processes, (\d+) studies$", done.stdout, re.MULTILINE)
    assert found is not None, done.stdout
    # Without kills while a study is created, no process is refused: two processes of each study exit by themselves.
    assert int(found[1]) == 5 + 2 * int(found[2])


def test_repeated_kills_at_a_takeover_do_not_change_the_study(work_folder):
    points = ("after outcome", "before take-over", "after take-over", "before second half of a claim")
    done = run_harness(work_folder / "take-over", "--kills", "6", "--seed", "1", "--trials", "3", "--at", *points)
    check(done, 6)
    assert re.search(r"^take-over +[1-9] +[1-9]$", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "options"),
    [
        (24, ("--seed", "2")),
        (5, ("--seed", "1", "--trials", "8", "--warm-start")),
        (4, ("--seed", "3", "--trials", "3", "--fresh")),
    ],
    ids=["forked", "warm start", "fresh interpreters"],
)
def test_many_kills(work_folder, kills, options):
    check(run_harness(work_folder / f"{kills} kills", "--kills", str(kills), *options), kills)


def change_metrics(study):
    path = study / "out" / "plain" / "metrics.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    metrics = json.loads(first)
    metrics["train_loss"] += 1e-14
    path.write_text("".join([json.dumps(metrics) + "\n", *others]))


def change_weight(study):
    path = study / "out" / "plain" / "checkpoints" / "best.pt"
    state = load_checkpoint(path)
    weights = next(iter(state["model"].values()))
    weights.view(-1)[0] += 1e-7 * weights.view(-1)[0]
    save_checkpoint(path, state)


def change_results(study):
    path = study / "results.json"
    path.write_text(path.read_text().replace('"total_epochs": 5', '"total_epochs": 4', 1))


def change_plot(study):
    path = study / "out" / CURVES
    path.write_bytes(path.read_bytes() + b"\0")


def in_database(statement):
    def change(study):
        with closing(sqlite3.connect(study / "out" / "study.db")) as database, database:
            assert database.execute(statement).rowcount == 1

    return change


def write_curve_point_twice(study):
    (curve,) = (study / "out" / "with_curves" / "tensorboard").glob("events.*")
    content, records = curve.read_bytes(), []
    while content:
        # A record: the length of its data, a checksum, the data, a checksum.
        end = struct.unpack_from("<Q", content)[0] + 16
        records.append(content[:end])
        content = content[end:]
    last = [record for record in records if b"loss/val" in record][-1]
    # The first record, which has no value, keeps TensorBoard from replacing the point.
    curve.write_bytes(b"".join([*records, records[0], last]))


def add_partial_file(study):
    (study / "out" / "plain" / "checkpoints" / ".best.pt.tmp").touch()


@pytest.mark.parametrize(
    ("change", "item"),
    [
        (change_metrics, "out/plain/metrics.jsonl"),
        (change_weight, "out/plain/checkpoints/best.pt"),
        (change_results, "results file"),
        (write_curve_point_twice, "out/with_curves/tensorboard (TensorBoard)"),
        (add_partial_file, "leftover files"),
        (
            in_database(
                "UPDATE trial_params SET param_value = param_value * 1.000000000000001 "
                "WHERE trial_id = 1 AND param_name = 'learning_rate'"
            ),
            "trial 0: parameters",
        ),
        (
            in_database("UPDATE trial_intermediate_values SET intermediate_value = 1 WHERE trial_id = 1 AND step = 2"),
            "trial 0: reports",
        ),
        (in_database("UPDATE trials SET state = 'RUNNING' WHERE number = 1"), "trial 1: state"),
        (change_plot, f"out/{CURVES}"),
        (
            in_database(
                "UPDATE study_system_attributes SET value_json = replace(value_json, 'best seq', 'worst seq') "
                "WHERE key = 'dashboard:1:note_str:0'"
            ),
            "trial 0: note",
        ),
    ],
    ids=["metrics", "weight", "results", "curve", "partial file", "parameter", "report", "state", "plot", "note"],
)
def test_changed_item_is_a_difference(change, item, killed, tmp_path, monkeypatch):
    snapshot = module("harness.snapshot", monkeypatch)
    study = tmp_path / "study"
    shutil.copytree(killed[0], study)
    before = snapshot.take_snapshot(study)
    change(study)
    assert [difference.item for difference in snapshot.differences(before, snapshot.take_snapshot(study))] == [item]


def test_password_in_file_or_output_is_found(password, tmp_path, monkeypatch):
    databases = module("harness.databases", monkeypatch)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights.pt").write_bytes(b"\0\xff" + 2 * f"u:{password}@".encode())
    assert databases.passwords_found(tmp_path, "nothing") == 2
    assert databases.passwords_found(tmp_path, f"u:{password}@") == 3


def test_process_at_the_crash_limit_is_not_killed_before_progress(tmp_path, monkeypatch):
    child, event_log = module("kills.child", monkeypatch), module("kills.event_log", monkeypatch)
    kills = []
    monkeypatch.setattr("os.kill", lambda pid, number: kills.append(number))
    point = "before training step"
    watcher = child._Watcher(child.Task([], 1, {point: 1}), event_log.EventLog(tmp_path, 1))
    watcher.taken_over(None, crashed_trial(MAX_CRASHES - 3))
    assert not event_log.is_at_crash_limit(event_log.read_events(tmp_path, 1))
    watcher.taken_over(None, crashed_trial(MAX_CRASHES - 2))
    watcher.passed(point)
    assert event_log.is_at_crash_limit(event_log.read_events(tmp_path, 1))
    assert kills == []
    watcher.progressed()
    watcher.passed(point)
    assert not event_log.is_at_crash_limit(event_log.read_events(tmp_path, 1))
    assert kills == [signal.SIGKILL]


def crashed_trial(crashes):
    """Return a running trial whose processes have crashed this number of times before and are about to crash again."""
    attempts = [{"began": "2026-01-01T00:00:00+00:00", "worker": "host:1", "epochs": 0, "after": "waiting"}]
    attempts += [{**attempts[0], "after": "crash"}] * crashes
    attributes = {"kind": "preset", "experiment_name": "plain", "attempts": attempts}
    return create_trial(state=TrialState.RUNNING, user_attrs=attributes)


def test_epochs_of_two_processes_at_the_same_time_are_counted(monkeypatch):
    campaign, event_log = module("kills.campaign", monkeypatch), module("kills.event_log", monkeypatch)
    one_after_another = [(1, "epoch started"), (1, "epoch saved"), (2, "epoch started"), (2, "epoch saved")]
    at_the_same_time = [(1, "epoch started"), (2, "epoch started"), (1, "epoch saved"), (2, "epoch saved")]

    def count(events):
        logged = [event_log.Event(start, 0.0, event_log.EventKind(kind)) for start, kind in events]
        return int(campaign.count_overlapping_epochs(logged))

    assert count(one_after_another) == 0
    assert count(at_the_same_time) == 2


def test_event_that_is_being_written_is_not_read(tmp_path, monkeypatch):
    event_log = module("kills.event_log", monkeypatch)
    event_log.EventLog(tmp_path, 1).append(event_log.EventKind.PROGRESS)
    with (tmp_path / event_log.FILE_NAME).open("a") as log:
        log.write('{"start": 1, "time_s"')
    assert [event.kind for event in event_log.read_events(tmp_path)] == [event_log.EventKind.PROGRESS]
