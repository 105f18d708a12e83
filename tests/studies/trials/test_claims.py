import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

import studies
from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.files import file_locks
from search_spaces.files.file_locks import read_note
from studies.trials import leases
from studies.trials.claims import claim_next, count_unclaimed, final_state
from studies.trials.record import StartedAfter, record_outcome

LIGHT_WORKER = Path(__file__).parents[1] / "light_worker.py"


def test_waiting_trials_are_claimed_once_each_in_number_order(start, presets):
    study, folder = start(presets)
    claims = [claim_next(study, folder) for _ in range(4)]
    assert [claim.record.experiment_name if claim else None for claim in claims] == [*presets, None]
    assert [claim.resumed for claim in claims if claim] == [False] * 3
    assert [[attempt.after for attempt in claim.record.attempts] for claim in claims if claim] == [["waiting"]] * 3
    for claim in claims:
        if claim is not None:
            claim.release()


def test_released_trials_are_resumed_first_under_their_numbers(start, presets):
    study, folder = start(presets)
    first, second = claim_next(study, folder), claim_next(study, folder)
    assert second is not None
    first.trial.report(0.5, step=1)
    for claim in (second, first):
        claim.release()
    # A second study object has no cached state, as in another process.
    again, folder = start(presets)
    for number in (0, 1):
        resumed = claim_next(again, folder)
        assert (resumed.record.number, resumed.resumed) == (number, True)
        assert [(attempt.after, attempt.epochs) for attempt in resumed.record.attempts] == [
            (StartedAfter.WAITING, 0),
            (StartedAfter.STOP, 1 - number),
        ]
    third = claim_next(again, folder)
    assert (third.record.number, third.resumed) == (2, False)
    assert again.get_trials()[0].intermediate_values == {1: 0.5}


def test_interrupted_trials_are_claimed_before_waiting_trials_with_lower_numbers(start, presets):
    study, folder = start(presets)
    for name in ("high_rate", "baseline"):
        claim = claim_next(study, folder, lambda record, name=name: record.experiment_name == name)
        claim.release()
    claims = [claim_next(study, folder) for _ in range(3)]
    assert [(claim.record.number, claim.resumed) for claim in claims if claim] == [(1, True), (2, True), (0, False)]
    for claim in claims:
        claim.release()


@pytest.mark.parametrize(
    ("matches", "names"),
    [
        (lambda record: True, ["conservative_small", "baseline", "high_rate", "search_0003"]),
        (lambda record: record.experiment_name in ("high_rate", "baseline"), ["baseline", "high_rate"]),
        (lambda record: record.kind is studies.TrialKind.SEARCH, ["search_0003"]),
        (lambda record: record.phase is studies.TrialPhase.RUNNING, ["conservative_small"]),
        (lambda record: record.training_config.learning_rate > 0.002, ["high_rate"]),
        (lambda record: False, []),
    ],
)
def test_only_trials_that_match_the_filter_are_claimed(matches, names, start, presets):
    study, folder = start(presets)
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    interrupted = claim_next(study, folder)
    interrupted.release()
    claimed = []
    while (claim := claim_next(study, folder, matches)) is not None:
        claimed.append(claim)
    assert [claim.record.experiment_name for claim in claimed] == names
    for claim in claimed:
        claim.release()


@pytest.mark.parametrize("name", ["baseline", "search_0003"])
def test_trial_is_not_claimed_if_its_folder_contains_foreign_files(name, start, presets):
    study, folder = start(presets)
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    (folder.path / name).mkdir()
    (folder.path / name / "metrics.jsonl").touch()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=rf"{name}: no trial of this study wrote the files"):
            claim_next(study, folder, lambda record: record.experiment_name == name)
    waiting = next(record for record in studies.own_records(study) if record.experiment_name == name)
    assert (waiting.phase, waiting.attempts) == (studies.TrialPhase.WAITING, ())
    (folder.path / name / "metrics.jsonl").unlink()  # an empty folder is accepted
    claim = claim_next(study, folder, lambda record: record.experiment_name == name)
    assert (claim.resumed, [attempt.after for attempt in claim.record.attempts]) == (False, ["waiting"])
    claim.release()


def test_trial_resumes_in_the_folder_of_its_earlier_attempts(start, presets, outcome):
    study, folder = start(presets)
    first = claim_next(study, folder)
    first.release()  # its attempt was stored before the first file was written
    (folder.path / first.record.experiment_name / "logs").mkdir(parents=True)
    resumed = claim_next(study, folder)
    assert resumed.resumed
    resumed.finish(replace(outcome, why_ended=studies.WhyEnded.FAILED))
    studies.retry_failed_trials(study, folder)
    again = claim_next(study, folder, lambda record: record.number == len(presets))
    assert again.record.experiment_name == first.record.experiment_name
    again.release()


def test_lease_is_held_until_the_trial_ends(start, presets, outcome):
    study, folder = start(presets)
    with pytest.raises(RuntimeError, match="boom"):
        claim_and_fail(study, folder)
    assert workers(study, folder) == [None, None, None]
    claim = claim_next(study, folder)
    assert workers(study, folder) == [os.getpid(), None, None]
    claim.finish(outcome, 0.9)
    assert workers(study, folder) == [None, None, None]
    assert study.get_trials()[0].value == 0.9


def workers(study, folder):
    return [row.worker_pid for row in studies.study_status(study, folder).rows]


def claim_and_fail(study, folder):
    claim = claim_next(study, folder)
    with claim:
        raise RuntimeError("boom")


@pytest.mark.parametrize("why", list(studies.WhyEnded))
@pytest.mark.parametrize("kind", list(studies.TrialKind))
def test_final_state_for_each_reason_to_end(why, kind):
    expected = {
        studies.WhyEnded.MAX_EPOCHS: TrialState.COMPLETE,
        studies.WhyEnded.EARLY_STOPPED: TrialState.COMPLETE,
        studies.WhyEnded.PRUNED: TrialState.PRUNED,
        studies.WhyEnded.NONFINITE_LOSS: TrialState.PRUNED if kind is studies.TrialKind.SEARCH else TrialState.FAIL,
    }
    assert final_state(kind, why) == expected.get(why, TrialState.FAIL)


@pytest.mark.parametrize("why", list(studies.WhyEnded))
def test_outcome_is_read_back_unchanged(why, start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    ended = replace(outcome, why_ended=why, error_type="Oops", error_message="it broke", converged_epoch=2)
    claim.trial.report(0.9, step=1)
    claim.finish(ended, 0.9)
    record = studies.read_record(studies.load_study(folder.path)[0].get_trials()[0])
    assert record.outcome == ended
    assert record.phase.value == ("completed" if ended.succeeded else "failed")


def test_completed_trial_requires_a_value(start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    with claim, pytest.raises(ValueError, match=r"found no value, although the trial ended as .*; pass the best value"):
        claim.finish(outcome)
    assert study.get_trials()[0].state == TrialState.RUNNING


def test_error_of_an_earlier_attempt_is_replaced(start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    record_outcome(claim.trial, replace(outcome, why_ended=studies.WhyEnded.CRASHED, error_message="boom"))
    claim.release()
    assert studies.read_record(study.get_trials()[0]).outcome is None
    again = claim_next(study, folder)
    again.finish(outcome, 0.9)
    assert studies.read_record(study.get_trials()[0]).outcome == outcome


def test_trials_of_other_programs_are_not_claimed(start, presets):
    study, folder = start()
    study.enqueue_trial({"x": 1.0})
    study.ask()
    study.enqueue_trial({"x": 2.0})
    assert claim_next(study, folder) is None
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "WAITING"]


# One letter per process that trained the trial, in order: k was killed, e was killed after finishing an epoch, s
# released the trial. Expected: `after` of each attempt, and the number of consecutive crashes.
HISTORIES = {
    "s": ("waiting stop", 0),
    "k": ("waiting crash", 1),
    "ss": ("waiting stop stop", 0),
    "kk": ("waiting crash crash", 2),
    "kkk": ("waiting crash crash crash", 3),
    "kkkkkkkkk": ("waiting" + 9 * " crash", 9),
    "kkkkkkkkkk": ("waiting" + 10 * " crash", 10),
    # Stops do not count as crashes, and do not reset the number of crashes ...
    "ksks": ("waiting crash stop crash stop", 2),
    "ksksk": ("waiting crash stop crash stop crash", 3),
    # ... but a finished epoch resets the number: the process crashed in the next epoch.
    "e": ("waiting crash", 1),
    "kke": ("waiting crash crash crash", 1),
    "kkek": ("waiting crash crash crash crash", 2),
    "eee": ("waiting crash crash crash", 1),
    "ekk": ("waiting crash crash crash", 3),
}


@pytest.fixture(scope="module")
def killed_study(tmp_path_factory):
    """A study with a preset for each history, created by real processes that are killed."""
    return run_histories(tmp_path_factory.mktemp("histories") / "out", *HISTORIES)


def run_histories(path, *histories):
    command = [sys.executable, str(LIGHT_WORKER), "attempts", str(path), *histories]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return opened_for_work(path)


def opened_for_work(path):
    owner, url = studies.find_study(path)
    return optuna.load_study(study_name=owner.study, storage=studies.open_storage(url)), studies.OutputFolder(path)


@pytest.mark.parametrize(("number", "history"), list(enumerate(HISTORIES)))
def test_record_lists_all_attempts_and_how_the_previous_ones_ended(number, history, killed_study):
    study, folder = killed_study
    after, crashes = HISTORIES[history]
    claim = claim_next(study, folder, lambda record: record.number == number)
    with claim:
        attempts = claim.record.attempts
        assert " ".join(attempt.after for attempt in attempts) == after
        assert claim.resumed
        assert claim.record.consecutive_crashes == crashes
        assert claim.crashed == (crashes >= 10)
        assert [attempt.epochs for attempt in attempts] == [history[:end].count("e") for end in range(len(attempts))]
        # Each attempt ran in another process, the last in this process, and the study stores all attempts.
        workers = [attempt.worker for attempt in attempts]
        assert len(set(workers)) == len(workers)
        assert workers[-1] == f"{socket.gethostname()}:{os.getpid()}"
        assert sorted(attempt.began for attempt in attempts) == [attempt.began for attempt in attempts]
        assert studies.read_record(study.get_trials()[number]).attempts == attempts


def test_crash_is_counted_even_if_the_first_takeover_fails(tmp_path, monkeypatch):
    study, folder = run_histories(tmp_path / "out", "k")

    def fail(*arguments):
        raise StorageInternalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr("studies.trials.claims.take_over_running", fail)
        with pytest.raises(StorageInternalError):
            claim_next(study, folder)
    claim = claim_next(study, folder)
    assert [attempt.after for attempt in claim.record.attempts] == ["waiting", "crash"]


def test_keyboard_interrupt_counts_as_a_stop(start, presets):
    study, folder = start(presets)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            claim_and_interrupt(study, folder)
    claim = claim_next(study, folder)
    assert [attempt.after for attempt in claim.record.attempts] == ["waiting", "stop", "stop", "stop"]
    assert not claim.crashed
    claim.release()


def claim_and_interrupt(study, folder):
    claim = claim_next(study, folder)
    with claim:
        raise KeyboardInterrupt


def test_config_of_a_search_trial_is_stored_once(start, outcome, monkeypatch):
    study, folder = start()
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    claim = claim_next(study, folder)
    assert claim.record.config == {}
    config = TrainingConfig(learning_rate=0.005, optimizer_betas=[0.8, 0.9])
    claim.record_config(config)
    claim.release()

    resumed = claim_next(*opened_for_work(folder.path))
    assert resumed.record.training_config == config
    written = []
    monkeypatch.setattr(resumed.trial, "set_user_attr", lambda key, _: written.append(key))
    resumed.record_config(config)
    assert written == []
    resumed.release()


def test_pruned_trial_requires_no_value(start, presets, outcome):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    with claim, pytest.raises(ValueError, match="trial 0: found no value, although the trial ended as max_epochs; "):
        claim.finish(outcome)
    assert study.get_trials()[0].state == TrialState.RUNNING
    # The value of a pruned trial is the last reported one.
    again = claim_next(study, folder)
    again.trial.report(0.25, 1)
    again.finish(replace(outcome, why_ended=studies.WhyEnded.PRUNED))
    assert (study.get_trials()[0].state, study.get_trials()[0].value) == (TrialState.PRUNED, 0.25)


def test_count_unclaimed_acquires_no_lease(start, presets, outcome):
    study, folder = start(presets)
    reader, _ = studies.load_study(folder.path)
    assert count_unclaimed(reader, folder) == 3
    held, done = claim_next(study, folder), claim_next(study, folder)
    done.finish(outcome, 0.5)
    assert count_unclaimed(reader, folder) == 1
    held.release()
    assert count_unclaimed(reader, folder) == 2
    assert count_unclaimed(reader, folder, lambda record: record.number == 0) == 1


@pytest.mark.sqlite
class TestOtherMachines:
    """A study in SQLite is trained on one machine at a time; lease files reveal a machine whose locks are invisible."""

    @pytest.fixture
    def other_machine_study(self, start, presets, monkeypatch):
        """A study whose first trial was claimed on another machine; its lease has no recent update and no lock here."""
        study, folder = start(presets)
        with monkeypatch.context() as machine:
            machine.setattr(socket, "gethostname", lambda: "other-host")
            machine.setattr(leases, "_kernel_id", lambda: "another kernel")
            claim = claim_next(study, folder)
        lock = file_locks._held[os.path.realpath(folder.lease_path(0))]
        set_age(folder, 1000)
        claim.touch()
        assert read_note(folder.lease_path(0))[1] < 100
        set_age(folder, 1000)
        claim.touch()  # ignored: at most one update per minute
        assert read_note(folder.lease_path(0))[1] >= 1000
        lock.release()
        return study, folder

    def test_study_with_a_recently_updated_lease_is_refused_and_unchanged(self, start, presets, other_machine_study):
        study, folder = other_machine_study
        set_age(folder, 120)
        message = (
            rf"process {os.getpid()} on machine other-host is training trial 0 \(last update 120 s ago\).*"
            "train a study in SQLite; stop that process, or use a PostgreSQL storage.*repeat the command in 480 s"
        )
        with pytest.raises(ConfigurationError, match=message):
            start(presets | {"new": TrainingConfig()})
        with pytest.raises(ConfigurationError, match=message):
            claim_next(study, folder)
        assert len(study.get_trials()) == len(presets)

    def test_trial_is_taken_over_without_a_recent_lease_update(self, start, presets, other_machine_study):
        set_age(other_machine_study[1], 601)
        study, folder = start(presets)
        claim = claim_next(study, folder)
        assert (claim.record.number, claim.resumed) == (0, True)
        claim.release()

    def test_trial_released_by_another_machine_is_claimed_at_once(self, start, presets, monkeypatch):
        study, folder = start(presets)
        with monkeypatch.context() as machine:
            machine.setattr(socket, "gethostname", lambda: "other-host")
            machine.setattr(leases, "_kernel_id", lambda: "another kernel")
            claim = claim_next(study, folder)
            claim.release()
        study, folder = start(presets)
        again = claim_next(study, folder)
        assert [attempt.worker.partition(":")[0] for attempt in again.record.attempts] == [
            "other-host",
            socket.gethostname(),
        ]
        again.release()

    def test_machine_with_a_new_host_name_trains_in_parallel_with_its_worker(self, tmp_path, monkeypatch):
        worker = [sys.executable, str(LIGHT_WORKER), "hold", str(tmp_path / "out"), "2"]
        environment = os.environ | {"PYTHONPATH": str(LIGHT_WORKER.parents[2])}
        with subprocess.Popen(worker, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout.readline() == "0\n"
            monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
            try:
                claim = claim_next(*opened_for_work(tmp_path / "out"))
            finally:
                process.kill()
        assert (claim.record.number, claim.resumed) == (1, False)
        claim.release()

    def test_stop_recorded_during_a_lease_update_is_kept(self, start, presets, monkeypatch):
        monkeypatch.setattr(leases, "_held_file_leases", set())
        study, folder = start(presets)
        claim = claim_next(study, folder)
        before = file_locks._held[os.path.realpath(folder.lease_path(0))].note
        leases.record_stop()
        with monkeypatch.context() as update:  # the update may have read the note before the stop
            update.setattr(file_locks.FileLock, "note", before)
            claim.check()
            claim.touch()
        file_locks._held[os.path.realpath(folder.lease_path(0))].release()  # as if the process were killed
        again = claim_next(study, folder)
        assert [attempt.after for attempt in again.record.attempts] == [StartedAfter.WAITING, StartedAfter.STOP]
        again.release()

    def test_container_on_this_machine_trains_in_parallel_with_this_process(self, tmp_path):
        if shutil.which("unshare") is None:
            pytest.skip("this system cannot give a process another host name")
        worker = [sys.executable, str(LIGHT_WORKER), "hold", str(tmp_path / "out"), "1"]
        script = 'hostname other-host && echo ready && exec "$@"'
        with subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", script, "sh", *worker],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(LIGHT_WORKER.parents[2])},
        ) as process:
            if process.stdout.readline() != "ready\n":
                pytest.skip("this system cannot give a process another host name")
            assert process.stdout.readline() == "0\n"
            study, folder = opened_for_work(tmp_path / "out")
            set_age(folder, 10_000)  # the lock is visible, so its age does not matter
            try:
                assert claim_next(study, folder) is None
            finally:
                process.kill()
        claim = claim_next(study, folder)
        assert claim.resumed
        claim.release()


def set_age(folder, seconds):
    """Set the age of the last update of the first trial's lease, in seconds."""
    then = time.time() - seconds
    os.utime(folder.lease_path(0), (then, then))
