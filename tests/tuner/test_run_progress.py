from __future__ import annotations

from dataclasses import asdict

import pytest

from search_spaces import TrainingConfig
from studies import TrialKind, TrialOutcome, TrialPhase, TrialRecord, WhyEnded
from tuner.run_progress import RunProgress, clock
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

SIGNAL = EarlyStopping("max", 0.0, 10)


def metrics(epoch: int, seconds: float) -> EpochMetrics:
    return EpochMetrics(epoch, 1.0, 1.0, 0.5, 0.5, 0.1, 0.1, 1e-3, seconds, 100.0, 100.0)


def record(name: str, config: TrainingConfig, seconds: float) -> TrialRecord:
    outcome = TrialOutcome(
        why_ended=WhyEnded.MAX_EPOCHS,
        training_time_s=1.0,
        best_val_char_accuracy=0.9,
        best_val_seq_accuracy=0.8,
        final_train_loss=0.1,
        total_epochs=3,
        best_epoch=3,
        epoch_seconds_median=seconds,
    )
    return TrialRecord(0, TrialKind.PRESET, TrialPhase.COMPLETED, name, asdict(config), "", 1, outcome)


def test_nothing_is_promised_before_an_epoch_was_timed():
    progress = RunProgress()
    progress.run_started({"a": TrainingConfig()}, [])
    progress.trial_started("a", TrainingConfig())
    assert progress.seconds_left() is None
    assert progress.seconds_left_in_all() is None


def test_the_rest_of_an_experiment_takes_its_median_epoch_times_what_is_left():
    progress = RunProgress()
    progress.run_started({"a": TrainingConfig()}, [])
    progress.trial_started("a", TrainingConfig(num_epochs=10))
    for epoch, seconds in [(1, 90.0), (2, 10.0), (3, 10.0)]:
        progress.epoch_ended(metrics(epoch, seconds), SIGNAL)
    assert progress.seconds_left() == pytest.approx(70.0)
    progress.batches = (1, 2)
    assert progress.seconds_left() == pytest.approx(65.0)


def test_waiting_experiments_count_when_their_model_was_timed():
    small, medium = TrainingConfig(model_name="small"), TrainingConfig(model_name="medium", num_epochs=5)
    progress = RunProgress()
    progress.run_started({"a": small, "b": medium, "c": medium}, [record("a", small, 1.0)])
    progress.trial_started("b", medium)
    assert progress.seconds_left_in_all() is None
    progress.epoch_ended(metrics(1, 2.0), SIGNAL)
    assert progress.seconds_left_in_all() == pytest.approx(4 * 2.0 + 5 * 2.0)
    progress.trial_ended(record("b", medium, 3.0))
    assert progress.ended == 2
    assert progress.seconds_left_in_all() == pytest.approx(5 * 3.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text
