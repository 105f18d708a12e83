import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from optuna.exceptions import StorageInternalError

from search_spaces import ExperimentFailedError, load_experiments
from studies import (
    OutputFolder,
    RowState,
    SearchRequest,
    TrialPhase,
    add_search_trials,
    latest_records,
    load_study,
    load_study_for_changes,
    request_stop,
    study_status,
)
from studies.trials.claims import claim_next
from studies.trials.leases import this_worker
from tuner.display.events import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.trial_selection import trials_to_start
from tuner.workers import loop
from tuner.workers.loop import finished_trials, planned_trials, work, work_here
from tuner.workers.run_study import run_study

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}
# Met by every trial that finishes an epoch.
EASY_TARGETS = {"training_time_per_epoch": 1000}

pytestmark = pytest.mark.usefixtures("in_tmp")


def open_session(config, display, *, space=None, trials=0):
    options = RunOptions(space_file=None if space is None else str(space))
    session = Session.open(RunRequest.from_file(load_experiments(config), options=options), display)
    if trials:
        add_search_trials(session.study, session.context.folder, SearchRequest(at_least=trials))
    return session


def failing(error):
    def fail():
        raise error

    return fail


def rows():
    return {row.name: row for row in study_status(*load_study(OUT)).rows}


def test_all_trials_are_trained_although_one_fails(write_config, make_watcher, fail):
    watcher = make_watcher(after_epoch=1, action=fail)
    session = open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher)
    assert finished_trials(session, TrialFilter()) == []
    work(session, TrialFilter(), StopConditions())
    ends = [(record.experiment_name, record.phase) for record in finished_trials(session, TrialFilter())]
    assert ends == [("one", TrialPhase.FAILED), ("two", TrialPhase.COMPLETED)]
    assert (watcher.planned_trials, watcher.finished, watcher.notes) == (["one", "two"], ["one", "two"], [])


class TestErrors:
    """A trial stays pending after an error of its environment; the same error twice in a row stops the command."""

    @staticmethod
    def states():
        return [row.state.value for row in rows().values()]

    @pytest.mark.parametrize(
        ("when", "error"),
        [({"in_batch": 2}, ValueError("simulated error")), ({"after_epoch": 1}, OSError(74, "Bad message"))],
        ids=["before the first epoch", "operating system error after an epoch"],
    )
    def test_trial_stays_pending_and_the_next_command_resumes_it(self, when, error, write_config, make_watcher):
        config, trial_filter = write_config({"one": {}, "two": ONE_EPOCH}), TrialFilter()
        watcher = make_watcher(**when, action=failing(error))
        work(open_session(config, watcher), trial_filter, StopConditions())
        assert self.states() == ["interrupted", "completed"]
        assert (watcher.interrupted, watcher.finished, trial_filter.skipped) == ([0], ["two"], {0})
        reason = f"{type(error).__name__}: {error}"
        assert watcher.notes == [f"one stays pending: {reason}; `khmer-tuner resume` trains it again"]
        again = make_watcher()
        work(open_session(config, again), TrialFilter(), StopConditions())
        assert (again.started, self.states()) == ([("one", 0, True)], ["completed", "completed"])
        assert [attempt.after for attempt in latest_records(load_study(OUT)[0])[0].attempts] == ["waiting", "stop"]

    def test_memory_error_before_the_first_epoch_fails_the_trial(self, write_config, make_watcher):
        watcher = make_watcher()

        def fill(number, *rest):
            if number == 0:
                raise MemoryError

        watcher.batch = fill
        work(open_session(write_config({"one": {}, "two": ONE_EPOCH}), watcher), TrialFilter(), StopConditions())
        assert self.states() == ["failed", "completed"]

    def test_gpu_memory_error_at_the_start_leaves_the_trial_pending(self, write_config, make_watcher):
        watcher = make_watcher()

        def fill(number, *rest, **more):
            if number == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")

        watcher.trial_started = fill
        work(open_session(write_config({"one": {}, "two": ONE_EPOCH}), watcher), TrialFilter(), StopConditions())
        assert self.states() == ["interrupted", "completed"]

    @pytest.mark.parametrize("epochs", [0, 1], ids=["pending trials", "failed trials"])
    def test_same_error_twice_in_a_row_stops_the_command(self, epochs, write_config, make_watcher):
        watcher = make_watcher()

        def fail(number, *rest):
            raise RuntimeError(f"no space for /tmp/{number}.pt in slot {number}")

        setattr(watcher, "epoch_ended" if epochs else "batch", fail)
        session = open_session(write_config({"one": {}, "two": {}, "three": {}}), watcher)
        with pytest.raises(
            ExperimentFailedError, match=r"one and two failed with the same error, .*no space.*`.* resume`"
        ):
            work(session, TrialFilter(), StopConditions())
        assert self.states() == [*["failed" if epochs else "interrupted"] * 2, "waiting"]

    def test_different_errors_or_a_success_between_errors_do_not_stop_the_command(self, write_config, make_watcher):
        watcher, errors = make_watcher(), [ValueError("a"), ValueError("b"), None, ValueError("b"), KeyError("b")]

        def fail(number, *rest):
            if (error := errors[number]) is not None:
                raise error

        watcher.batch = fail
        config = write_config({f"preset {number}": ONE_EPOCH for number in range(5)})
        work(open_session(config, watcher), TrialFilter(), StopConditions(), wait_for_others=True)
        assert self.states() == ["interrupted", "interrupted", "completed", "interrupted", "interrupted"]
        assert len(watcher.started) == 5

    def test_each_worker_process_tries_a_pending_trial_once(self, write_config, make_watcher):
        session = open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), make_watcher(in_batch=2))
        with pytest.raises(KeyboardInterrupt):
            work(session, TrialFilter(), StopConditions())
        shutil.rmtree(OUT / "one" / "checkpoints", ignore_errors=True)
        (OUT / "one" / "checkpoints").write_text("a file instead of a folder")
        trial_filter = TrialFilter()
        work(session, trial_filter, StopConditions(), workers=2, wait_for_others=True)
        assert (self.states(), trial_filter.skipped) == (["interrupted", "completed"], {0})
        assert len(latest_records(session.study)[0].attempts) <= 3


def test_only_matching_trials_are_trained(write_config, write_space, make_watcher):
    open_session(write_config({"one": {}}), make_watcher(), space=write_space(), trials=1)
    watcher = make_watcher()
    session = open_session(write_config({"two": ONE_EPOCH}), watcher)
    trial_filter = TrialFilter(frozenset({"two"}), search=False)
    assert list(planned_trials(session, trial_filter)) == ["two"]
    work(session, trial_filter, StopConditions())
    assert {name: row.state for name, row in rows().items()} == {
        "one": RowState.WAITING,
        "search_0001": RowState.WAITING,
        "two": RowState.COMPLETED,
    }
    assert [record.experiment_name for record in finished_trials(session, trial_filter)] == ["two"]
    assert (watcher.planned_trials, watcher.notes) == (["two"], [])


def test_trial_of_another_process_is_not_trained_but_noted(write_config, make_watcher):
    watcher = make_watcher()
    session = open_session(write_config({"one": {}, "two": ONE_EPOCH}), watcher)
    claim = claim_next(session.study, OutputFolder(OUT))
    assert claim is not None
    with claim:
        work(session, TrialFilter(), StopConditions())
    assert watcher.notes == ["one: still pending, because another process is training it"]
    assert [record.experiment_name for record in finished_trials(session, TrialFilter())] == ["two"]


def test_interrupted_trials_come_first_then_presets_then_the_search(write_config, write_space, make_watcher):
    space = write_space(base={"num_epochs": 1})
    session = open_session(write_config({"one": ONE_EPOCH}), make_watcher(in_batch=8), space=space, trials=1)
    with pytest.raises(KeyboardInterrupt):
        work(session, TrialFilter(), StopConditions())
    watcher = make_watcher()
    session = open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher, trials=2)
    work(session, TrialFilter(), StopConditions())
    assert watcher.started == [
        ("search_0001", 1, True),
        ("two", 2, False),
        ("search_0003", 3, False),
    ]


def test_search_trials_of_the_budget_are_enqueued_after_a_kill(write_config, write_space, make_watcher):
    watcher = make_watcher()
    session = open_session(
        write_config({"one": ONE_EPOCH}), watcher, space=write_space(base={"num_epochs": 1}), trials=1
    )
    session.study.set_user_attr("search_trials", 3)  # the budget is stored before the trials
    names = ["one", "search_0001", "search_0002", "search_0003"]
    assert list(planned_trials(session, TrialFilter())) == names
    assert list(planned_trials(session, TrialFilter(search=False))) == ["one"]
    work(session, TrialFilter(), StopConditions())
    assert watcher.planned_trials == watcher.finished == names


def test_planned_trials_have_settings_unless_they_must_be_sampled(write_config, write_space, make_watcher):
    session = open_session(
        write_config({"one": {"training": {"log_every_n_steps": 3}}}), make_watcher(), space=write_space(), trials=1
    )
    configs = planned_trials(session, TrialFilter())
    assert configs["one"] is not None
    assert configs["one"].log_every_n_steps == 3
    assert configs["search_0001"] is None


def test_lease_is_updated_during_a_long_epoch(write_config, monkeypatch):
    monkeypatch.setattr("studies.trials.leases._SECONDS_BETWEEN_TOUCHES", 0.0)
    lease = OutputFolder(OUT).lease_path(0)
    ages = []

    class Aging(Display):
        def batch(self, number, done, total):
            ages.append(time.time() - lease.stat().st_mtime)
            os.utime(lease, (0, 0))

    work(open_session(write_config({"one": ONE_EPOCH}), Aging()), TrialFilter(), StopConditions())
    assert len(ages) == 1 + 4
    assert max(ages) < 1000


class TestWaitForOthers:
    """The test process claims a trial in place of another process, so that no worker can claim the trial."""

    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch):
        monkeypatch.setattr(loop, "_SECONDS_BETWEEN_POLLS", 0.01)
        monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CLAIMS", 0.01)
        monkeypatch.setattr(loop, "_SECONDS_BETWEEN_RETRIES", 0.0)

    @staticmethod
    def run(session, workers=1):
        run_study(session, TrialFilter(), StopConditions(), workers=workers, results_file="r.json")

    @staticmethod
    def claim_trial(session):
        claim = claim_next(session.study, OutputFolder(OUT))
        assert claim is not None
        return claim

    def test_trial_released_just_after_the_last_claim_is_taken_over(self, write_config, make_watcher, monkeypatch):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH}), watcher)
        claim = self.claim_trial(session)

        def work_then_release(*arguments):
            has_trained = work_here(*arguments)
            claim.release()
            return has_trained

        monkeypatch.setattr(loop, "work_here", work_then_release)
        self.run(session)
        assert (watcher.finished, watcher.notes) == (["one"], [])

    def test_command_waits_for_a_trial_that_another_process_claims_again(self, write_config, make_watcher, monkeypatch):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH}), watcher)
        claims = [self.claim_trial(session)]

        def count_then_claim(*arguments):
            if len(claims) == 1:
                claims[0].release()
                found = trials_to_start(session, TrialFilter())
                claims.append(self.claim_trial(session))
                return found
            claims[1].release()
            return trials_to_start(session, TrialFilter())

        monkeypatch.setattr(loop, "trials_to_start", count_then_claim)
        self.run(session)
        assert watcher.finished == ["one"]

    def test_command_waits_for_a_trial_added_and_claimed_between_two_reads(
        self, write_config, make_watcher, monkeypatch
    ):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH}), watcher)
        more = write_config({"two": ONE_EPOCH}, file_name="more.yaml")
        claims = []

        def latest_records_then_claim(study):
            if watcher.finished != ["one"] or claims:
                return latest_records(study)
            open_session(more, make_watcher())
            records = latest_records(study)
            claims.append(self.claim_trial(session))
            return records

        def release_when_noted(text):
            assert text.startswith("waiting for ")
            claims[0].release()

        watcher.note = release_when_noted
        monkeypatch.setattr(loop, "latest_records", latest_records_then_claim)
        self.run(session)
        assert watcher.finished == ["one", "two"]

    def test_short_database_error_does_not_end_the_wait(self, write_config, make_watcher, monkeypatch):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH}), watcher)
        claim = self.claim_trial(session)
        errors = [StorageInternalError("database is locked")]

        def fail_once(*arguments):
            if errors:
                raise errors.pop()
            claim.release()
            return trials_to_start(session, TrialFilter())

        monkeypatch.setattr(loop, "trials_to_start", fail_once)
        self.run(session)
        assert watcher.finished == ["one"]
        (note,) = watcher.notes
        assert note.endswith("trying again in 0 s")

    @pytest.mark.slow
    def test_worker_process_trains_a_taken_over_trial(self, write_config, make_watcher):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher)
        claim = self.claim_trial(session)
        watcher.note = lambda text: claim.release()
        self.run(session, workers=2)
        assert watcher.finished == ["two", "one"]
        one, two = latest_records(session.study)
        assert one.attempts[0].worker == this_worker()
        assert this_worker() not in {one.attempts[1].worker, two.attempts[0].worker}

    def test_study_is_read_only_when_the_display_polls_it_and_a_stop_request_ends_the_wait(
        self, write_config, make_watcher, monkeypatch
    ):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH}), watcher)
        monkeypatch.setattr(loop, "_SECONDS_BETWEEN_POLLS", 3600.0)
        events = []

        def count(*arguments):
            events.append("read")
            return trials_to_start(session, TrialFilter())

        def sleep(seconds):
            events.append("sleep")
            if len(events) == 5:
                request_stop(load_study_for_changes(OUT)[0])

        monkeypatch.setattr(loop, "trials_to_start", count)
        monkeypatch.setattr(loop, "time", SimpleNamespace(sleep=sleep))
        with self.claim_trial(session) as claim:
            self.run(session)
        assert events == ["read", *["sleep"] * 4]
        assert watcher.notes == [
            f"waiting for the trials of {claim.record.attempts[-1].worker}; see `khmer-tuner status`",
            "one: still pending, because a stop was requested",
        ]


class TestTimeLimit:
    @pytest.mark.parametrize(
        "when", [{"after_epoch": 2}, {"in_batch": 5 + 3}], ids=["after an epoch", "in the middle of an epoch"]
    )
    def test_running_trial_is_interrupted_after_its_epoch_and_resumed(
        self, when, write_config, make_watcher, monkeypatch
    ):
        config = write_config({"one": {"training": {"num_epochs": 4}}, "two": ONE_EPOCH})

        def advance_clock():
            monkeypatch.setattr(
                "tuner.session.run_options.time", SimpleNamespace(monotonic=lambda: time.monotonic() + 7200)
            )

        watcher = make_watcher(action=advance_clock, **when)
        work(open_session(config, watcher), TrialFilter(), StopConditions(deadline=time.monotonic() + 3600))
        assert watcher.notes == ["one, two: still pending, because the time limit was reached"]
        assert watcher.epochs == [(0, 1), (0, 2)]
        assert watcher.finished == []
        one, two = rows().values()
        assert (one.state, one.epochs, two.state) == (RowState.INTERRUPTED, 2, RowState.WAITING)

        again = make_watcher()
        work(open_session(config, again), TrialFilter(), StopConditions())
        assert again.started == [("one", 0, True), ("two", 1, False)]
        (one, _) = finished_trials(open_session(config, again), TrialFilter())
        assert [attempt.after for attempt in one.attempts] == ["waiting", "stop"]
        assert one.outcome is not None
        assert one.outcome.total_epochs == 4

    def test_no_trial_starts_after_the_time_limit(self, write_config, make_watcher):
        watcher = make_watcher()
        work(open_session(write_config({"one": {}}), watcher), TrialFilter(), StopConditions(deadline=time.monotonic()))
        assert watcher.started == []
        assert watcher.notes == ["one: still pending, because the time limit was reached"]


class TestStopRequest:
    def test_running_trial_is_interrupted_after_its_epoch_and_resumed(self, write_config, make_watcher):
        config = write_config({"one": {"training": {"num_epochs": 4}}, "two": ONE_EPOCH})
        watcher = make_watcher(in_batch=5 + 3, action=lambda: request_stop(load_study_for_changes(OUT)[0]))
        session = open_session(config, watcher)
        work(session, TrialFilter(), StopConditions())
        assert watcher.epochs == [(0, 1), (0, 2)]
        assert (watcher.interrupted, watcher.finished) == ([0], [])
        assert watcher.notes == ["one, two: still pending, because a stop was requested"]
        one, two = rows().values()
        assert (one.state, one.epochs, two.state) == (RowState.INTERRUPTED, 2, RowState.WAITING)
        # The request stops only the sessions that were open.
        work(session, TrialFilter(), StopConditions())
        assert watcher.epochs == [(0, 1), (0, 2)]
        again = make_watcher()
        work(open_session(config, again), TrialFilter(), StopConditions())
        assert again.started == [("one", 0, True), ("two", 1, False)]
        assert again.finished == ["one", "two"]
        (one_record, _) = finished_trials(open_session(config, again), TrialFilter())
        assert [attempt.after for attempt in one_record.attempts] == ["waiting", "stop"]

    def test_no_other_trial_starts(self, write_config, make_watcher):
        watcher = make_watcher(after_epoch=1, action=lambda: request_stop(load_study_for_changes(OUT)[0]))
        work(open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), watcher), TrialFilter(), StopConditions())
        assert (watcher.finished, watcher.interrupted) == (["one"], [])
        assert watcher.notes == ["two: still pending, because a stop was requested"]


class StatusRecorder(Display):
    """A display that records the trial states of each polled status, keyed by name."""

    def __init__(self):
        self.statuses = []
        self.events = []

    def run_started(self, planned_trials, finished):
        self.events.append("started")

    def trial_ended(self, record):
        self.events.append("finished")

    def status_polled(self, status):
        self.events.append("polled")
        self.statuses.append({row.name: row.state for row in status.rows})


def test_status_is_polled_at_the_start_and_after_each_trial(write_config):
    display = StatusRecorder()
    work(open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}), display), TrialFilter(), StopConditions())
    assert display.events == ["started", "polled", "finished", "polled", "finished", "polled"]
    assert [list(status.values()) for status in display.statuses] == [
        [RowState.WAITING, RowState.WAITING],
        [RowState.COMPLETED, RowState.WAITING],
        [RowState.COMPLETED, RowState.COMPLETED],
    ]


def test_status_is_polled_during_training(write_config, monkeypatch):
    monkeypatch.setattr("tuner.workers.loop._SECONDS_BETWEEN_POLLS", 0.0)
    monkeypatch.setattr("tuner.session.status_poller._MAX_FRACTION", 1e9)
    display = StatusRecorder()
    work(open_session(write_config({"one": ONE_EPOCH}), display), TrialFilter(), StopConditions())
    assert {"one": RowState.RUNNING} in display.statuses


class TestUntilTargets:
    def test_no_trial_starts_once_a_trial_has_met_the_targets(self, write_config, write_space, make_watcher):
        watcher = make_watcher()
        config = write_config({"one": ONE_EPOCH, "two": {}, "three": {}}, targets=EASY_TARGETS)
        session = open_session(config, watcher, space=write_space(), trials=2)
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.finished == ["one"]
        assert watcher.notes == [
            "search_0003, search_0004, three and 1 more: still pending, because one has met the targets"
        ]
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.finished == ["one"]

    def test_all_trials_are_trained_without_until_targets(self, write_config, make_watcher):
        watcher = make_watcher()
        work(
            open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets=EASY_TARGETS), watcher),
            TrialFilter(),
            StopConditions(),
        )
        assert watcher.finished == ["one", "two"]

    @pytest.mark.parametrize("targets", [{}, EASY_TARGETS | {"character_accuracy": 1.0}], ids=["none", "missed"])
    def test_all_trials_are_trained_if_none_meets_the_targets(self, targets, write_config, make_watcher):
        watcher = make_watcher()
        session = open_session(write_config({"one": ONE_EPOCH, "two": ONE_EPOCH}, targets=targets), watcher)
        work(session, TrialFilter(), StopConditions(until_targets=True))
        assert watcher.finished == ["one", "two"]
