from __future__ import annotations

from dataclasses import replace

import pytest

from search_spaces import TrainingConfig
from tuner.display.progress import Estimate, Leader, RunProgress, clock

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


def test_nothing_is_promised_before_an_epoch_was_timed(progress):
    progress.run_started({"a": SMALL}, [])
    assert progress.trial_started(0, "a", SMALL).seconds_left() is None
    assert progress.time_left() is None


def test_the_rest_of_a_trial_takes_its_median_epoch_times_what_is_left(progress, tell_epochs):
    trial = progress.trial_started(0, "a", TrainingConfig(num_epochs=10))
    tell_epochs(0, 90.0, 10.0, 10.0)
    assert trial.seconds_left() == pytest.approx(70.0)
    progress.batch(0, 1, 2)
    assert trial.seconds_left() == pytest.approx(65.0)


def test_waiting_presets_count_when_their_model_was_timed(progress, tell_epochs, make_record):
    ended = make_record("a", of=SMALL, epoch_seconds_median=1.0)
    progress.run_started({"a": SMALL, "b": MEDIUM, "c": MEDIUM}, [ended])
    progress.trial_started(1, "b", MEDIUM)
    assert progress.time_left() is None
    tell_epochs(1, 2.0)
    assert progress.time_left() == Estimate(4 * 2.0 + 5 * 2.0, at_most=True)
    progress.trial_ended(make_record("b", 1, of=MEDIUM, epoch_seconds_median=3.0))
    assert progress.ended == 2
    assert progress.time_left() == Estimate(5 * 3.0, at_most=True)


def test_waiting_search_trials_count_with_the_mean_of_those_that_ended(progress, make_record):
    progress.run_started({"a": SMALL, "search_0001": None, "search_0002": None}, [])
    progress.trial_started(0, "a", SMALL)
    assert progress.time_left() is None
    progress.trial_ended(make_record("a", training_time_s=100.0))
    assert progress.time_left() == Estimate(200.0, at_most=False)
    progress.trial_started(1, "search_0001", MEDIUM)
    progress.trial_ended(make_record("search_0001", 1, training_time_s=40.0))
    assert progress.time_left() == Estimate(70.0, at_most=False)


def test_trials_that_failed_before_an_epoch_do_not_count_as_quick(progress, make_record):
    at_once = make_record("a", 0, "failed", training_time_s=0.0, epoch_seconds_median=None)
    progress.run_started({"a": SMALL, "search_0001": None}, [at_once])
    assert progress.time_left() is None


def test_epochs_of_a_search_trial_promise_nothing_to_a_preset(progress, make_record):
    progress.run_started({"a": MEDIUM}, [])
    progress.trial_started(1, "search_0001", MEDIUM)
    progress.trial_ended(make_record("search_0001", 1, of=MEDIUM, epoch_seconds_median=2.0))
    assert progress.time_left() == Estimate(10.0, at_most=False)


def test_workers_share_what_is_waiting(progress, tell_epochs):
    ten = replace(SMALL, num_epochs=10)
    progress.run_started({name: ten for name in "abcde"}, [])
    for number, name in enumerate("ab"):
        progress.trial_started(number, name, ten)
    tell_epochs(0, *[1.0] * 2)  # 8 s left
    tell_epochs(1, *[1.0] * 6)  # 4 s left
    # Free after 8 and 4 s: c goes to the second one (4 to 14), d to the first (8 to 18), e to the second (14 to 24).
    assert progress.time_left() == Estimate(24.0, at_most=True)


def test_workers_that_cannot_help_a_long_trial_do_not_shorten_it(progress, tell_epochs):
    progress.trial_started(0, "a", replace(SMALL, num_epochs=101))
    progress.trial_started(1, "b", replace(SMALL, num_epochs=2))
    tell_epochs(0, 1.0)
    tell_epochs(1, 1.0)
    assert progress.time_left() == Estimate(100.0, at_most=True)


def test_trials_that_come_later_are_counted_in(progress):
    progress.run_started({"a": SMALL}, [])
    progress.trial_started(0, "a", SMALL)
    progress.trial_started(7, "search_0007", SMALL)
    assert (progress.ended, progress.waiting, progress.total) == (0, 0, 2)
    assert [trial.name for trial in progress.running.values()] == ["a", "search_0007"]


def test_a_trial_whose_worker_died_waits_until_another_one_takes_it(progress):
    progress.run_started({"a": SMALL, "b": SMALL}, [])
    progress.trial_started(0, "a", SMALL)
    lost = progress.trial_lost(0)
    assert lost is not None
    assert lost.name == "a"
    assert (len(progress.running), progress.waiting, progress.total) == (0, 2, 2)
    progress.trial_started(0, "a", SMALL)
    assert (len(progress.running), progress.waiting, progress.total) == (1, 1, 2)
    assert progress.trial_lost(5) is None


def test_a_failed_trial_that_is_tried_again_counts_once(progress, make_record):
    progress.run_started({"a": SMALL}, [make_record("a", 0, "failed")])
    progress.trial_started(4, "a", SMALL)
    assert (progress.ended, progress.total) == (0, 1)
    progress.trial_ended(make_record("a", 4))
    assert (progress.ended, progress.total) == (1, 1)


def test_a_trial_that_ends_before_it_trains_is_counted(progress, make_record):
    progress.run_started({"a": SMALL, "b": SMALL}, [])
    progress.trial_ended(make_record("a", 0, "crashed"))
    assert (progress.ended, progress.waiting) == (1, 1)


def test_the_best_is_among_the_completed_and_the_running(progress, tell_epochs, make_record):
    assert progress.best is None
    failed = make_record("b", 1, "failed", best_val_char_accuracy=0.99)
    progress.run_started({"a": SMALL}, [make_record("a", best_val_char_accuracy=0.9), failed])
    assert progress.best == Leader("a", 0.9)
    progress.trial_started(2, "c", SMALL)
    tell_epochs(2, 1.0, best=0.95)
    assert progress.best == Leader("c", 0.95)
    progress.trial_ended(make_record("c", 2, best_val_char_accuracy=0.95))
    assert progress.best == Leader("c", 0.95)


def test_by_loss_the_lowest_is_best_as_far_as_it_is_known(progress, tell_epochs, make_record):
    progress.run_started({"a": BY_LOSS}, [make_record("a", of=BY_LOSS)])
    assert (progress.monitor, progress.best) == ("val_loss", None)  # an earlier run leaves accuracies only
    for number, (name, loss) in enumerate({"b": 0.3, "c": 0.2, "d": float("nan")}.items(), start=1):
        progress.trial_started(number, name, BY_LOSS)
        tell_epochs(number, 1.0, best=loss)
    progress.trial_ended(make_record("c", 2, of=BY_LOSS))
    assert progress.best == Leader("c", 0.2)


def test_the_last_endings_are_kept(progress, make_record):
    for number in range(5):
        progress.trial_ended(make_record(f"search_{number:04d}", number))
    assert [record.number for record in progress.endings] == [4, 3, 2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
