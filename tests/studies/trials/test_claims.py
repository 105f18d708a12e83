from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from search_spaces import ConfigurationError, TrainingConfig
from search_spaces.files import file_locks
from search_spaces.files.file_locks import read_note
from studies import (
    OutputFolder,
    SearchRequest,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    add_search_trials,
    find_study,
    load_study,
    open_storage,
    own_records,
    read_record,
    retry_failed_trials,
    study_status,
)
from studies.trials import leases
from studies.trials.claims import claim_next, count_unclaimed, final_state
from studies.trials.record import StartedAfter, record_outcome

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Presets = dict[str, TrainingConfig]
LIGHT_WORKER = Path(__file__).parents[1] / "light_worker.py"


def test_waiting_trials_are_claimed_in_number_order_each_once(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    claims = [claim_next(study, folder) for _ in range(4)]
    assert [claim.record.experiment_name if claim else None for claim in claims] == [*presets, None]
    assert [claim.resumed for claim in claims if claim] == [False] * 3
    assert [[attempt.after for attempt in claim.record.attempts] for claim in claims if claim] == [["waiting"]] * 3
    for claim in claims:
        if claim is not None:
            claim.release()


def test_what_was_let_go_is_adopted_first_under_its_number(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    first, second = claim_next(study, folder), claim_next(study, folder)
    assert first is not None
    assert second is not None
    first.trial.report(0.5, step=1)
    for claim in (second, first):
        claim.release()
    # As another process would: from the folder's database, without this one's memory.
    again, folder = start(presets)
    for number in (0, 1):
        resumed = claim_next(again, folder)
        assert resumed is not None
        assert (resumed.record.number, resumed.resumed) == (number, True)
        assert [(attempt.after, attempt.epochs) for attempt in resumed.record.attempts] == [
            (StartedAfter.WAITING, 0),
            (StartedAfter.STOP, 1 - number),
        ]
    third = claim_next(again, folder)
    assert third is not None
    assert (third.record.number, third.resumed) == (2, False)
    assert again.get_trials()[0].intermediate_values == {1: 0.5}


def test_what_was_begun_comes_before_what_waits_even_under_a_lower_number(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    for name in ("high_rate", "baseline"):
        claim = claim_next(study, folder, lambda record, name=name: record.experiment_name == name)
        assert claim is not None
        claim.release()
    claims = [claim_next(study, folder) for _ in range(3)]
    assert [(claim.record.number, claim.resumed) for claim in claims if claim] == [(1, True), (2, True), (0, False)]
    for claim in claims:
        assert claim is not None
        claim.release()


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (lambda record: True, ["conservative_small", "baseline", "high_rate", "search_0003"]),
        (lambda record: record.experiment_name in ("high_rate", "baseline"), ["baseline", "high_rate"]),
        (lambda record: record.kind is TrialKind.SEARCH, ["search_0003"]),
        (lambda record: record.phase is TrialPhase.RUNNING, ["conservative_small"]),
        (lambda record: record.training_config.learning_rate > 0.002, ["high_rate"]),
        (lambda record: False, []),
    ],
)
def test_only_wanted_trials_are_claimed(
    wanted: Callable[[TrialRecord], bool], names: list[str], start: Start, presets: Presets
) -> None:
    study, folder = start(presets)
    add_search_trials(study, folder, SearchRequest(at_least=1))
    begun = claim_next(study, folder)
    assert begun is not None
    begun.release()
    claimed = []
    while (claim := claim_next(study, folder, wanted)) is not None:
        claimed.append(claim)
    assert [claim.record.experiment_name for claim in claimed] == names
    for claim in claimed:
        claim.release()


@pytest.mark.parametrize("name", ["baseline", "search_0003"])
def test_a_folder_with_files_of_others_keeps_its_trial_waiting(name: str, start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    add_search_trials(study, folder, SearchRequest(at_least=1))
    (folder.path / name).mkdir()
    (folder.path / name / "metrics.jsonl").touch()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=rf"{name}: no undamaged trial of this study wrote the files"):
            claim_next(study, folder, lambda record: record.experiment_name == name)
    waiting = next(record for record in own_records(study) if record.experiment_name == name)
    assert (waiting.phase, waiting.attempts) == (TrialPhase.WAITING, ())
    (folder.path / name / "metrics.jsonl").unlink()  # an empty folder is fine
    claim = claim_next(study, folder, lambda record: record.experiment_name == name)
    assert claim is not None
    assert (claim.resumed, [attempt.after for attempt in claim.record.attempts]) == (False, ["waiting"])
    claim.release()


def test_a_trial_resumes_in_the_folder_of_its_earlier_attempts(
    start: Start, presets: Presets, outcome: TrialOutcome
) -> None:
    study, folder = start(presets)
    first = claim_next(study, folder)
    assert first is not None
    first.release()  # an attempt is stored before the first file is written
    (folder.path / first.record.experiment_name / "logs").mkdir(parents=True)
    resumed = claim_next(study, folder)
    assert resumed is not None
    assert resumed.resumed
    resumed.finish(replace(outcome, why_ended=WhyEnded.FAILED))
    retry_failed_trials(study, folder)
    again = claim_next(study, folder, lambda record: record.number == len(presets))
    assert again is not None
    assert again.record.experiment_name == first.record.experiment_name
    again.release()


def test_the_lease_is_held_until_the_end(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    with pytest.raises(RuntimeError, match="boom"):
        fail_inside(study, folder)
    assert workers(study, folder) == [None, None, None]
    claim = claim_next(study, folder)
    assert claim is not None
    assert workers(study, folder) == [os.getpid(), None, None]
    claim.finish(outcome, 0.9)
    assert workers(study, folder) == [None, None, None]
    assert study.get_trials()[0].value == 0.9


def workers(study: optuna.Study, folder: OutputFolder) -> list[int | None]:
    return [row.worker_pid for row in study_status(study, folder).rows]


def fail_inside(study: optuna.Study, folder: OutputFolder) -> None:
    claim = claim_next(study, folder)
    assert claim is not None
    with claim:
        raise RuntimeError("boom")


@pytest.mark.parametrize("why", list(WhyEnded))
@pytest.mark.parametrize("kind", list(TrialKind))
def test_optuna_is_told_what_the_end_means(why: WhyEnded, kind: TrialKind) -> None:
    expected = {
        WhyEnded.MAX_EPOCHS: TrialState.COMPLETE,
        WhyEnded.EARLY_STOPPED: TrialState.COMPLETE,
        WhyEnded.PRUNED: TrialState.PRUNED,
        WhyEnded.NONFINITE_LOSS: TrialState.PRUNED if kind is TrialKind.SEARCH else TrialState.FAIL,
    }
    assert final_state(kind, why) == expected.get(why, TrialState.FAIL)


@pytest.mark.parametrize("why", list(WhyEnded))
def test_every_end_is_recorded_as_it_was(why: WhyEnded, start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    ended = replace(outcome, why_ended=why, error_type="Oops", error_message="it broke", converged_epoch=2)
    claim.trial.report(0.9, step=1)
    claim.finish(ended, 0.9)
    record = read_record(load_study(folder.path)[0].get_trials()[0])
    assert record.outcome == ended
    assert record.phase.value == ("completed" if ended.succeeded else "failed")


def test_a_completed_trial_needs_its_value(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    with claim, pytest.raises(ValueError, match="but without a value; pass one"):
        claim.finish(outcome)
    assert study.get_trials()[0].state == TrialState.RUNNING


def test_an_earlier_attempt_s_error_does_not_stick(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    record_outcome(claim.trial, replace(outcome, why_ended=WhyEnded.CRASHED, error_message="boom"))
    claim.release()
    assert read_record(study.get_trials()[0]).outcome is None
    again = claim_next(study, folder)
    assert again is not None
    again.finish(outcome, 0.9)
    assert read_record(study.get_trials()[0]).outcome == outcome


def test_trials_of_others_are_left_alone(start: Start, presets: Presets) -> None:
    study, folder = start()
    study.enqueue_trial({"x": 1.0})
    study.ask()
    study.enqueue_trial({"x": 2.0})
    assert claim_next(study, folder) is None
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING", "WAITING"]


# One letter for each process that worked on the trial, in order: killed (k), killed after a new epoch (e), let go of it
# (s), killed while it claimed the trial (c). Then: what each attempt came after, and the deaths in a row at the next.
STORIES = {
    "s": ("waiting stop", 0),
    "k": ("waiting crash", 1),
    "ss": ("waiting stop stop", 0),
    "kk": ("waiting crash crash", 2),
    "kkk": ("waiting crash crash crash", 3),
    "kkkkkkkkk": ("waiting" + 9 * " crash", 9),
    "kkkkkkkkkk": ("waiting" + 10 * " crash", 10),
    # Stops neither count nor interrupt the row ...
    "ksks": ("waiting crash stop crash stop", 2),
    "ksksk": ("waiting crash stop crash stop crash", 3),
    # ... but an epoch does: whoever finished one died in the next.
    "e": ("waiting crash", 1),
    "kke": ("waiting crash crash crash", 1),
    "kkek": ("waiting crash crash crash crash", 2),
    "eee": ("waiting crash crash crash", 1),
    "ekk": ("waiting crash crash crash", 3),
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, OutputFolder]:
    """A study with a preset for each story, told by real processes that really are killed."""
    return tell(tmp_path_factory.mktemp("stories") / "out", *STORIES)


def tell(path: Path, *stories: str) -> tuple[optuna.Study, OutputFolder]:
    command = [sys.executable, str(LIGHT_WORKER), "attempts", str(path), *stories]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return opened_for_work(path)


def opened_for_work(path: Path) -> tuple[optuna.Study, OutputFolder]:
    owner, url = find_study(path)
    return optuna.load_study(study_name=owner.study, storage=open_storage(url)), OutputFolder(path)


@pytest.mark.parametrize(("number", "story"), list(enumerate(STORIES)))
def test_a_trial_remembers_who_worked_on_it_and_what_became_of_them(
    number: int, story: str, told: tuple[optuna.Study, OutputFolder]
) -> None:
    study, folder = told
    after, deaths = STORIES[story]
    claim = claim_next(study, folder, lambda record: record.number == number)
    assert claim is not None
    with claim:
        attempts = claim.record.attempts
        assert " ".join(attempt.after for attempt in attempts) == after
        assert claim.resumed
        assert claim.record.consecutive_crashes == deaths
        assert claim.crashed == (deaths >= 10)
        assert not claim.exceeds_memory
        assert [attempt.epochs for attempt in attempts] == [story[:begun].count("e") for begun in range(len(attempts))]
        # Each was a process of its own, this one is the last, and all of it is in the study.
        workers = [attempt.worker for attempt in attempts]
        assert len(set(workers)) == len(workers)
        assert workers[-1] == f"{socket.gethostname()}:{os.getpid()}"
        assert sorted(attempt.began for attempt in attempts) == [attempt.began for attempt in attempts]
        assert read_record(study.get_trials()[number]).attempts == attempts


def test_a_death_is_a_death_also_if_the_first_take_over_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, folder = tell(tmp_path / "out", "k")

    def fail(*arguments: object) -> bool:
        raise StorageInternalError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr("studies.trials.claims.take_over_running", fail)
        with pytest.raises(StorageInternalError):
            claim_next(study, folder)
    claim = claim_next(study, folder)
    assert claim is not None
    assert [attempt.after for attempt in claim.record.attempts] == ["waiting", "crash"]


def test_a_stop_in_the_middle_of_the_claimed_work_is_a_stop(start: Start, presets: Presets) -> None:
    study, folder = start(presets)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupt_inside(study, folder)
    claim = claim_next(study, folder)
    assert claim is not None
    assert [attempt.after for attempt in claim.record.attempts] == ["waiting", "stop", "stop", "stop"]
    assert not claim.crashed
    claim.release()


def interrupt_inside(study: optuna.Study, folder: OutputFolder) -> None:
    claim = claim_next(study, folder)
    assert claim is not None
    with claim:
        raise KeyboardInterrupt


def test_what_a_search_trial_trains_is_written_down_once(
    start: Start, outcome: TrialOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = start()
    add_search_trials(study, folder, SearchRequest(at_least=1))
    claim = claim_next(study, folder)
    assert claim is not None
    assert claim.record.config == {}
    config = TrainingConfig(learning_rate=0.005, optimizer_betas=[0.8, 0.9])
    claim.record_config(config)
    claim.release()

    resumed = claim_next(*opened_for_work(folder.path))
    assert resumed is not None
    assert resumed.record.training_config == config
    written: list[str] = []
    monkeypatch.setattr(resumed.trial, "set_user_attr", lambda key, _: written.append(key))
    resumed.record_config(config)
    assert written == []
    resumed.release()


def test_a_trial_that_ended_well_needs_its_value(start: Start, presets: Presets, outcome: TrialOutcome) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    with claim, pytest.raises(ValueError, match="trial 0 ended as max_epochs, but without a value; pass one"):
        claim.finish(outcome)
    assert study.get_trials()[0].state == TrialState.RUNNING
    # A pruned one has the value that it reported last, its best.
    again = claim_next(study, folder)
    assert again is not None
    again.trial.report(0.25, 1)
    again.finish(replace(outcome, why_ended=WhyEnded.PRUNED))
    assert (study.get_trials()[0].state, study.get_trials()[0].value) == (TrialState.PRUNED, 0.25)


def test_what_could_be_claimed_is_counted_without_taking_anything(
    start: Start, presets: Presets, outcome: TrialOutcome
) -> None:
    study, folder = start(presets)
    reader, _ = load_study(folder.path)
    assert count_unclaimed(reader, folder) == 3
    held, done = claim_next(study, folder), claim_next(study, folder)
    assert held is not None
    assert done is not None
    done.finish(outcome, 0.5)
    assert count_unclaimed(reader, folder) == 1
    held.release()
    assert count_unclaimed(reader, folder) == 2
    assert count_unclaimed(reader, folder, lambda record: record.number == 0) == 1


@pytest.mark.sqlite
class TestOtherMachines:
    """SQLite is for one machine at a time; lease files tell of another one, to which file locks may not reach."""

    @pytest.fixture
    def elsewhere(
        self, start: Start, presets: Presets, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[optuna.Study, OutputFolder]:
        """A study whose first trial a machine trains whose locks are invisible here; its last update is old."""
        study, folder = start(presets)
        with monkeypatch.context() as machine:
            machine.setattr(socket, "gethostname", lambda: "elsewhere")
            machine.setattr(leases, "_kernel_id", lambda: "another kernel")
            claim = claim_next(study, folder)
        assert claim is not None
        lock = file_locks._held[os.path.realpath(folder.lease_path(0))]
        set_age(folder, 1000)
        claim.touch()
        assert read_note(folder.lease_path(0))[1] < 100
        set_age(folder, 1000)
        claim.touch()  # at most once a minute
        assert read_note(folder.lease_path(0))[1] >= 1000
        lock.release()
        return study, folder

    def test_a_recent_update_refuses_all_work_and_changes_nothing(
        self, start: Start, presets: Presets, elsewhere: tuple[optuna.Study, OutputFolder]
    ) -> None:
        study, folder = elsewhere
        set_age(folder, 120)
        told = (
            rf"process {os.getpid()} on machine elsewhere trains trial 0 \(last update 120 s ago\).*"
            "train a study in SQLite; stop that process, or use a PostgreSQL storage.*repeat the command in 480 s"
        )
        with pytest.raises(ConfigurationError, match=told):
            start(presets | {"new": TrainingConfig()})
        with pytest.raises(ConfigurationError, match=told):
            claim_next(study, folder)
        assert len(study.get_trials()) == len(presets)

    def test_without_a_recent_update_the_trial_is_taken_over(
        self, start: Start, presets: Presets, elsewhere: tuple[optuna.Study, OutputFolder]
    ) -> None:
        set_age(elsewhere[1], 601)
        study, folder = start(presets)
        claim = claim_next(study, folder)
        assert claim is not None
        assert (claim.record.number, claim.resumed) == (0, True)
        claim.release()

    def test_a_folder_that_was_released_elsewhere_is_free_at_once(
        self, start: Start, presets: Presets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study, folder = start(presets)
        with monkeypatch.context() as machine:
            machine.setattr(socket, "gethostname", lambda: "elsewhere")
            machine.setattr(leases, "_kernel_id", lambda: "another kernel")
            claim = claim_next(study, folder)
            assert claim is not None
            claim.release()
        study, folder = start(presets)
        again = claim_next(study, folder)
        assert again is not None
        assert [attempt.worker.partition(":")[0] for attempt in again.record.attempts] == [
            "elsewhere",
            socket.gethostname(),
        ]
        again.release()

    def test_after_its_host_name_has_changed_a_machine_works_beside_its_own_worker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        worker = [sys.executable, str(LIGHT_WORKER), "hold", str(tmp_path / "out"), "2"]
        environment = os.environ | {"PYTHONPATH": str(LIGHT_WORKER.parents[2])}
        with subprocess.Popen(worker, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
            monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
            try:
                claim = claim_next(*opened_for_work(tmp_path / "out"))
            finally:
                process.kill()
        assert claim is not None
        assert (claim.record.number, claim.resumed) == (1, False)
        claim.release()

    def test_a_stop_that_is_noted_during_an_update_is_kept(
        self, start: Start, presets: Presets, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "_held_file_leases", set())
        study, folder = start(presets)
        claim = claim_next(study, folder)
        assert claim is not None
        before = file_locks._held[os.path.realpath(folder.lease_path(0))].note
        leases.record_stop()
        with monkeypatch.context() as update:  # it may have read the note just before
            update.setattr(file_locks.FileLock, "note", before)
            claim.check()
            claim.touch()
        file_locks._held[os.path.realpath(folder.lease_path(0))].release()  # as if the process were killed
        again = claim_next(study, folder)
        assert again is not None
        assert [attempt.after for attempt in again.record.attempts] == [StartedAfter.WAITING, StartedAfter.STOP]
        again.release()

    def test_a_container_of_this_machine_works_beside_this_process(self, tmp_path: Path) -> None:
        if shutil.which("unshare") is None:
            pytest.skip("no host name of its own can be given to a process here")
        worker = [sys.executable, str(LIGHT_WORKER), "hold", str(tmp_path / "out"), "1"]
        script = 'hostname elsewhere && echo ready && exec "$@"'
        with subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", script, "sh", *worker],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(LIGHT_WORKER.parents[2])},
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                pytest.skip("no host name of its own can be given to a process here")
            assert process.stdout.readline() == "0\n"
            study, folder = opened_for_work(tmp_path / "out")
            set_age(folder, 10_000)  # the lock is visible, so its age does not matter
            try:
                assert claim_next(study, folder) is None
            finally:
                process.kill()
        claim = claim_next(study, folder)
        assert claim is not None
        assert claim.resumed
        claim.release()


def set_age(folder: OutputFolder, seconds: float) -> None:
    """Let the last update of the first trial's lease be some seconds old."""
    then = time.time() - seconds
    os.utime(folder.lease_path(0), (then, then))
