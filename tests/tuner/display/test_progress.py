from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces import TrainingConfig
from studies import RemainingTime, RowState
from tuner.display.progress import News, RunProgress, clock

SMALL, MEDIUM = TrainingConfig(model_name="small"), TrainingConfig(model_name="medium", num_epochs=5)
BY_LOSS = TrainingConfig(early_stopping_monitor="val_loss", early_stopping_mode="min")


@pytest.fixture
def progress() -> RunProgress:
    return RunProgress()


@pytest.fixture
def tell_epochs(progress, make_metrics, make_signal):
    def tell(number: int, *seconds: float, best: float = 0.91) -> None:
        for epoch, value in enumerate(seconds, start=1):
            progress.epoch_ended(number, make_metrics(epoch, value), make_signal(best))

    return tell


def counts(progress: RunProgress) -> tuple[int, int, int, int]:
    """Trials that have ended, are running, are still to be begun, and are in the study at all."""
    status = progress.status
    return status.ended, len(status.running), status.pending, status.total


def test_nothing_is_promised_before_an_epoch_was_timed(progress):
    progress.run_started({"a": SMALL}, [])
    progress.trial_started(0, "a", SMALL)
    assert progress.remaining_seconds(progress.row("a")) is None
    assert progress.remaining_time is None


def test_the_rest_of_a_trial_takes_its_median_epoch_times_what_is_left(progress, tell_epochs):
    progress.trial_started(0, "a", TrainingConfig(num_epochs=10))
    tell_epochs(0, 90.0, 10.0, 10.0)
    assert progress.remaining_seconds(progress.row("a")) == pytest.approx(70.0)
    progress.batch(0, 1, 2)
    assert progress.remaining_seconds(progress.row("a")) == pytest.approx(65.0)


def test_what_an_earlier_run_has_timed_counts(progress, tell_epochs, make_record):
    ended = make_record("a", of=SMALL, epoch_seconds_median=1.0)
    progress.run_started({"a": SMALL, "b": MEDIUM, "c": MEDIUM}, [ended])
    progress.trial_started(1, "b", MEDIUM)
    assert progress.remaining_time is None
    tell_epochs(1, 2.0)
    assert progress.remaining_time == RemainingTime(4 * 2.0 + 5 * 2.0, at_most=True)
    progress.trial_ended(make_record("b", 1, of=MEDIUM, epoch_seconds_median=3.0, total_epochs=5))
    assert progress.remaining_time == RemainingTime(5 * 3.0, at_most=True)


def test_trials_that_come_later_are_counted_in(progress):
    progress.run_started({"a": SMALL}, [])
    progress.trial_started(0, "a", SMALL)
    progress.trial_started(7, "search_0007", SMALL)
    assert counts(progress) == (0, 2, 0, 2)
    assert list(progress.own) == [0, 7]


def test_a_trial_whose_worker_died_waits_until_another_one_takes_it(progress, tell_epochs):
    progress.run_started({"a": SMALL, "b": SMALL}, [])
    progress.trial_started(0, "a", SMALL)
    tell_epochs(0, 1.0)
    lost = progress.worker_lost(0)
    assert lost is not None
    assert (lost.name, progress.row("a").state) == ("a", RowState.INTERRUPTED)
    assert counts(progress) == (0, 0, 2, 2)
    progress.trial_started(0, "a", SMALL)
    assert (progress.row("a").epochs, counts(progress)) == (1, (0, 1, 1, 2))
    assert progress.worker_lost(5) is None


def test_a_failed_trial_that_is_tried_again_counts_once(progress, make_record):
    progress.run_started({"a": SMALL}, [make_record("a", 0, "failed")])
    progress.trial_started(4, "a", SMALL)
    assert (progress.row("a").epochs, counts(progress)) == (0, (0, 1, 0, 1))
    progress.trial_ended(make_record("a", 4))
    assert counts(progress) == (1, 0, 0, 1)


def test_a_trial_that_ends_before_it_trains_is_counted(progress, make_record):
    progress.run_started({"a": SMALL, "b": SMALL}, [])
    progress.trial_ended(make_record("a", 0, "crashed"))
    assert counts(progress) == (1, 0, 1, 2)


def test_the_best_is_known_with_its_epochs(progress, tell_epochs, make_record):
    failed = make_record("b", 1, "failed", best_val_char_accuracy=0.99)
    progress.run_started({"a": SMALL, "b": SMALL}, [make_record("a", best_val_char_accuracy=0.9), failed])
    progress.trial_started(2, "c", SMALL)
    tell_epochs(2, 1.0, best=0.95)
    assert progress.status.best is progress.row("a")
    progress.trial_ended(make_record("c", 2, best_val_char_accuracy=0.95))
    assert progress.status.best is progress.row("c")


def test_by_loss_the_lowest_is_best_as_far_as_it_is_known(progress, tell_epochs, make_record):
    progress.run_started({"a": BY_LOSS}, [make_record("a", of=BY_LOSS)])
    # An earlier run leaves accuracies only; the study knows more as soon as it was looked at.
    assert (progress.status.monitor, progress.status.best) == ("val_loss", None)
    for number, (name, loss) in enumerate({"b": 0.3, "c": 0.2, "d": float("nan")}.items(), start=1):
        progress.trial_started(number, name, BY_LOSS)
        tell_epochs(number, 1.0, best=loss)
        progress.trial_ended(make_record(name, number, of=BY_LOSS))
    assert progress.status.best is progress.row("c")


def test_a_look_shows_what_the_run_itself_does_not_know(progress, make_row, make_status):
    progress.run_started({"a": SMALL}, [])
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
    assert (progress.workers, progress.row("search_0001").worker_pid) == (2, 77)


def test_a_look_that_is_older_than_what_was_heard_takes_nothing_back(
    progress, tell_epochs, make_row, make_status, make_record
):
    progress.run_started({"a": SMALL, "b": SMALL}, [])
    for number, name in enumerate("ab"):
        progress.trial_started(number, name, SMALL)
        tell_epochs(number, 1.0, 1.0, best=0.8)
    progress.trial_ended(make_record("b", 1))
    progress.trial_started(2, "search_0002", SMALL)
    progress.status_polled(make_status(make_row(0, "waiting", "a"), make_row(1, "running", "b", epochs=1)))
    assert counts(progress) == (1, 2, 0, 3)
    assert (progress.row("a").epochs, progress.row("a").best_value) == (2, 0.8)
    tell_epochs(2, 1.0)
    assert progress.row("search_0002").epochs == 1


def test_the_studys_word_is_final(progress, make_row, make_status):
    progress.trial_started(0, "a", SMALL)
    progress.status_polled(make_status(make_row(0, "completed", "a", best_value=0.9)))
    assert counts(progress) == (1, 0, 0, 1)
    assert progress.status.best is progress.row("a")


def test_work_that_is_added_is_news(progress, make_row, make_status):
    rows = [make_row(0, "running", "a"), *(make_row(number, "waiting") for number in (1, 2))]
    assert progress.status_polled(make_status(*rows, unenqueued=3)) == News(0, ())
    # One of those that were to come is enqueued: that adds nothing.
    rows.append(make_row(3, "waiting"))
    assert progress.status_polled(make_status(*rows, unenqueued=2)) == News(0, ())
    assert progress.status_polled(make_status(*rows, make_row(4, "waiting", "b"), unenqueued=3)) == News(2, ())


def test_a_failed_preset_that_is_enqueued_once_more_adds_nothing(progress, make_row, make_status):
    failed = make_row(0, "failed", "a")
    progress.status_polled(make_status(failed))
    again = make_status(replace(failed, superseded=True), make_row(1, "waiting", "a"))
    assert progress.status_polled(again) == News(0, ())
    assert counts(progress) == (0, 0, 1, 1)


def test_what_other_processes_end_is_news_once(progress, make_row, make_status, make_record):
    earlier = make_row(0)
    progress.status_polled(make_status(earlier, make_row(1, "running"), make_row(2, "running")))
    progress.trial_started(2, "search_0002", SMALL)
    progress.trial_ended(make_record("search_0002", 2))
    ended = make_status(earlier, make_row(1, "completed"), make_row(2, "completed"))
    # The words of an own worker may come a little later than a look at the study.
    assert progress.status_polled(ended) == News(0, ())
    assert progress.status_polled(ended) == News(0, (make_row(1, "completed"),))
    assert progress.status_polled(ended) == News(0, ())


def test_an_own_trial_is_no_news_even_if_the_study_knows_it_first(progress, make_row, make_status, make_record):
    progress.status_polled(make_status(make_row(0, "waiting")))
    seen = make_status(make_row(0, "completed"))
    assert progress.status_polled(seen) == News(0, ())
    progress.trial_started(0, "search_0000", SMALL)
    progress.trial_ended(make_record("search_0000", 0))
    assert progress.status_polled(seen) == News(0, ())


def test_a_worker_between_two_trials_is_still_one(progress, make_row, make_status, make_record):
    progress.trial_started(0, "search_0000", SMALL)
    progress.trial_started(1, "search_0001", SMALL)
    rows = make_row(0, "running"), make_row(1, "running")
    progress.status_polled(make_status(*rows, make_row(2, "waiting")))
    progress.trial_ended(make_record("search_0001", 1))
    assert progress.workers == 2
    # But not if there is nothing left for it.
    progress.trial_started(2, "search_0002", SMALL)
    progress.trial_ended(make_record("search_0002", 2))
    assert progress.workers == 1


def test_a_trial_begun_since_the_last_look_is_not_counted_twice(progress, make_row, make_status):
    progress.status_polled(make_status(make_row(0), unenqueued=2))
    progress.trial_started(1, "search_0001", SMALL)
    assert counts(progress) == (1, 1, 1, 3)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
