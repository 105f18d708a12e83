from dataclasses import replace

import pytest

from search_spaces import TrainingConfig
from studies import RemainingTime, RowState
from tuner.display.lines import clock
from tuner.display.progress import RunProgress

SMALL, MEDIUM = TrainingConfig(model_name="small"), TrainingConfig(model_name="medium", num_epochs=5)
BY_LOSS = TrainingConfig(early_stopping_monitor="val_loss", early_stopping_mode="min")


@pytest.fixture
def progress():
    return RunProgress()


@pytest.fixture
def run_epochs(progress, make_metrics, make_signal):
    def run(number, *seconds, best=0.91):
        for epoch, value in enumerate(seconds, start=1):
            progress.epoch_ended(number, make_metrics(epoch, value), make_signal(best))

    return run


def counts(progress):
    """Return the number of finished, running, pending and all trials."""
    status = progress.status
    return status.ended, len(status.running), status.pending, status.total


def row(progress, name):
    return next(row for row in progress.status.rows if row.name == name)


def test_before_the_first_poll_the_own_trials_are_shown(progress, run_epochs, make_record):
    progress.trial_started(0, "a", BY_LOSS)
    progress.trial_started(7, "search_0007", BY_LOSS)
    assert (counts(progress), list(progress.own_trials), progress.is_polled) == ((0, 2, 0, 2), [0, 7], False)
    run_epochs(7, 1.0, best=0.3)
    progress.trial_ended(make_record("search_0007", 7, of=BY_LOSS))
    assert counts(progress) == (1, 1, 0, 2)
    assert (progress.status.monitor, progress.status.mode) == ("val_loss", "min")
    assert progress.status.best is row(progress, "search_0007")


def test_remaining_time_is_unknown_before_an_epoch_was_timed(progress):
    progress.trial_started(0, "a", SMALL)
    assert progress.remaining_seconds(progress.own_trials[0].row) is None
    assert progress.remaining_time is None


def test_remaining_seconds_are_the_median_epoch_times_the_remaining_epochs(progress, run_epochs):
    progress.trial_started(0, "a", TrainingConfig(num_epochs=10))
    trial = progress.own_trials[0]
    run_epochs(0, 90.0, 10.0, 10.0)
    assert progress.remaining_seconds(trial.row) == pytest.approx(70.0)
    progress.batch(0, 1, 2)
    assert progress.remaining_seconds(trial.row) == pytest.approx(65.0)


def test_remaining_time_uses_the_epochs_of_finished_trials(progress, run_epochs, make_row, make_status, make_record):
    medium = {"model_name": "medium", "num_epochs": 5}
    progress.status_polled(
        make_status(
            make_row(0, "completed", "a", epoch_seconds=1.0),
            make_row(1, "waiting", "b", **medium),
            make_row(2, "waiting", "c", **medium),
        )
    )
    progress.trial_started(1, "b", MEDIUM)
    assert progress.remaining_time is None
    run_epochs(1, 2.0)
    assert progress.remaining_time == RemainingTime(4 * 2.0 + 5 * 2.0, at_most=True)
    progress.trial_ended(make_record("b", 1, of=MEDIUM, epoch_seconds_median=3.0, total_epochs=5))
    assert progress.remaining_time == RemainingTime(5 * 3.0, at_most=True)


def test_trial_of_a_lost_worker_is_interrupted_until_another_worker_resumes_it(
    progress, run_epochs, make_row, make_status
):
    progress.status_polled(make_status(make_row(0, "waiting", "a"), make_row(1, "waiting", "b")))
    progress.trial_started(0, "a", SMALL)
    run_epochs(0, 1.0)
    lost = progress.trial_interrupted(0)
    assert lost is not None
    assert (lost.row.name, row(progress, "a").state) == ("a", RowState.INTERRUPTED)
    assert counts(progress) == (0, 0, 2, 2)
    progress.trial_started(0, "a", SMALL)
    assert (row(progress, "a").epochs, counts(progress)) == (1, (0, 1, 1, 2))
    assert progress.trial_interrupted(5) is None


def test_poll_replaces_the_row_of_an_interrupted_trial(progress, make_row, make_status):
    progress.trial_started(0, "a", SMALL)
    progress.trial_interrupted(0)
    progress.status_polled(make_status(make_row(0, "running", "a", worker_pid=77)))
    assert row(progress, "a").worker_pid == 77


def test_retried_trial_counts_once(progress, make_row, make_status, make_record):
    progress.status_polled(make_status(make_row(0, "failed", "a")))
    progress.trial_started(4, "a", SMALL)
    assert (row(progress, "a").epochs, counts(progress)) == (0, (0, 1, 0, 1))
    progress.trial_ended(make_record("a", 4))
    assert counts(progress) == (1, 0, 0, 1)


def test_late_event_of_a_failed_trial_does_not_hide_its_retry(progress, make_row, make_status, make_record):
    progress.trial_started(0, "a", SMALL)
    failed = make_row(0, "failed", "a", superseded=True)
    progress.status_polled(make_status(failed, make_row(1, "waiting", "a")))
    progress.trial_ended(make_record("a", 0, "failed"))
    assert counts(progress) == (0, 0, 1, 1)


def test_trial_that_ends_before_it_starts_training_is_counted(progress, make_row, make_status, make_record):
    progress.status_polled(make_status(make_row(0, "waiting", "a"), make_row(1, "waiting", "b")))
    progress.trial_ended(make_record("a", 0, "crashed"))
    assert counts(progress) == (1, 0, 1, 2)
    assert progress.status.failed == 1


def test_best_trial_is_updated_when_a_trial_finishes(progress, run_epochs, make_row, make_status, make_record):
    rows = make_row(0, "completed", "a", best_value=0.9), make_row(1, "failed", "b", best_value=0.99)
    progress.status_polled(make_status(*rows))
    progress.trial_started(2, "c", SMALL)
    run_epochs(2, 1.0, best=0.95)
    assert progress.status.best is row(progress, "a")
    progress.trial_ended(make_record("c", 2))
    assert progress.status.best is row(progress, "c")


def test_lowest_loss_is_best(progress, run_epochs, make_row, make_status, make_record):
    progress.status_polled(make_status(make_row(0, "waiting", "b"), monitor="val_loss", mode="min"))
    for number, (name, loss) in enumerate({"b": 0.3, "c": 0.2, "d": float("nan")}.items()):
        progress.trial_started(number, name, BY_LOSS)
        run_epochs(number, 1.0, best=loss)
        progress.trial_ended(make_record(name, number, of=BY_LOSS))
    assert progress.status.best is row(progress, "c")


def test_polled_status_adds_the_trials_of_other_processes(progress, make_row, make_status):
    progress.trial_started(0, "a", SMALL)
    progress.status_polled(
        make_status(
            make_row(0, "running", "a"),
            make_row(1, "running", worker_pid=77, epochs=3, best_value=0.7),
            make_row(2, "completed"),
            make_row(3, "interrupted"),
            make_row(4, "waiting"),
            unenqueued=6,
        )
    )
    assert counts(progress) == (1, 2, 8, 11)
    assert (progress.workers, row(progress, "search_0001").worker_pid) == (2, 77)


def test_events_of_own_trials_update_the_last_status(progress, run_epochs, make_row, make_status, make_record):
    waiting = make_row(0, "waiting", "a"), make_row(1, "waiting", "b")
    progress.status_polled(make_status(*waiting, unenqueued=2))
    for number, name in enumerate("ab"):
        progress.trial_started(number, name, SMALL)
        run_epochs(number, 1.0, 1.0, best=0.8)
    progress.trial_ended(make_record("b", 1))
    progress.trial_started(2, "search_0002", SMALL)
    assert counts(progress) == (1, 2, 1, 4)
    assert (row(progress, "a").epochs, row(progress, "a").best_value) == (2, 0.8)
    run_epochs(2, 1.0)
    assert row(progress, "search_0002").epochs == 1


def test_late_epoch_event_does_not_reopen_a_finished_trial(progress, run_epochs, make_row, make_status):
    progress.trial_started(0, "a", SMALL)
    progress.status_polled(make_status(make_row(0, "completed", "a", best_value=0.9)))
    run_epochs(0, 1.0)
    assert counts(progress) == (1, 0, 0, 1)
    assert progress.status.best is row(progress, "a")


def test_added_trials_are_reported(progress, make_row, make_status):
    rows = [make_row(0, "running", "a"), *(make_row(number, "waiting") for number in (1, 2))]
    assert progress.status_polled(make_status(*rows, unenqueued=3)) == (0, [])
    # Enqueueing a search trial of the budget does not add a trial.
    rows.append(make_row(3, "waiting"))
    assert progress.status_polled(make_status(*rows, unenqueued=2)) == (0, [])
    assert progress.status_polled(make_status(*rows, make_row(4, "waiting", "b"), unenqueued=3)) == (2, [])


def test_retried_preset_is_not_an_added_trial(progress, make_row, make_status):
    failed = make_row(0, "failed", "a")
    progress.status_polled(make_status(failed))
    retried = make_status(replace(failed, superseded=True), make_row(1, "waiting", "a"))
    assert progress.status_polled(retried) == (0, [])
    assert counts(progress) == (0, 0, 1, 1)


def test_trials_finished_by_other_processes_are_reported_once(progress, make_row, make_status, make_record):
    earlier = make_row(0)
    progress.status_polled(make_status(earlier, make_row(1, "running"), make_row(2, "running")))
    progress.trial_started(2, "search_0002", SMALL)
    progress.trial_ended(make_record("search_0002", 2))
    ended = make_status(earlier, make_row(1, "completed"), make_row(2, "completed"))
    # The event of an own worker may arrive after a status in which its trial is finished.
    assert progress.status_polled(ended) == (0, [])
    assert progress.status_polled(ended) == (0, [make_row(1, "completed")])
    assert progress.status_polled(ended) == (0, [])


def test_own_trial_is_not_reported_if_the_status_shows_its_end_first(progress, make_row, make_status, make_record):
    progress.status_polled(make_status(make_row(0, "waiting")))
    ended = make_status(make_row(0, "completed"))
    assert progress.status_polled(ended) == (0, [])
    progress.trial_started(0, "search_0000", SMALL)
    progress.trial_ended(make_record("search_0000", 0))
    assert progress.status_polled(ended) == (0, [])


def test_worker_between_two_trials_is_counted(progress, make_row, make_status, make_record):
    progress.trial_started(0, "search_0000", SMALL)
    progress.trial_started(1, "search_0001", SMALL)
    rows = make_row(0, "running"), make_row(1, "running")
    progress.status_polled(make_status(*rows, make_row(2, "waiting")))
    progress.trial_ended(make_record("search_0001", 1))
    assert progress.workers == 2
    # It is not counted if no trial is pending.
    progress.trial_started(2, "search_0002", SMALL)
    progress.trial_ended(make_record("search_0002", 2))
    assert progress.workers == 1


def test_stopped_workers_are_not_counted(progress, make_row, make_status):
    waiting = [make_row(number, "waiting") for number in range(3, 9)]
    progress.status_polled(make_status(*(make_row(number, "running") for number in range(3)), *waiting))
    assert progress.workers == 3
    interrupted = [make_row(number, "interrupted") for number in (1, 2)]
    progress.status_polled(make_status(make_row(0, "running"), *interrupted, *waiting))
    assert progress.workers == 1


def test_search_trial_started_since_the_last_poll_is_counted_once(progress, make_row, make_status):
    progress.status_polled(make_status(make_row(0), unenqueued=2))
    progress.trial_started(1, "search_0001", SMALL)
    assert counts(progress) == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_clock_formats_a_duration(seconds, text):
    assert clock(seconds) == text
