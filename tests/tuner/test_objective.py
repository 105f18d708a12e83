from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces import Targets
from studies import RowState, StatusRow, TrialRecord, ended_records, load_study, study_status
from tuner import HyperparameterTuner
from tuner.display import Display
from tuner.objective import _converged_epoch
from tuner.training.early_stopping import EarlyStopping
from tuner.training.history import EpochMetrics

WriteConfig = Callable[..., Path]
OUT = Path("training_output")

pytestmark = pytest.mark.usefixtures("in_tmp")


class Accident(Display):
    """Something happens after an epoch of the first trial."""

    def __init__(self, epoch: int, accident: Callable[[], object]) -> None:
        self._epoch = epoch
        self._accident: Callable[[], object] | None = accident

    def epoch_ended(self, metrics: EpochMetrics, early_stopping: EarlyStopping) -> None:
        if metrics.epoch == self._epoch and self._accident is not None:
            accident, self._accident = self._accident, None
            accident()


def raising(error: BaseException) -> Callable[[], object]:
    def accident() -> None:
        raise error

    return accident


def run(config: Path, display: Display | None = None) -> dict[str, Any]:
    return HyperparameterTuner(str(config), display=display).run_experiments()


def record_of(name: str) -> TrialRecord:
    return next(record for record in ended_records(load_study(OUT)[0]) if record.experiment_name == name)


def row_of(name: str) -> StatusRow:
    return next(row for row in study_status(*load_study(OUT)).rows if row.name == name)


def test_a_failure_after_some_epochs_keeps_what_they_reached(write_config: WriteConfig, read_results: Any) -> None:
    config = write_config({"one": {"training": {"num_epochs": 4}}, "two": {"training": {"num_epochs": 1}}})
    results = run(config, Accident(2, raising(RuntimeError("the roof fell in"))))
    first, second = results["all_results"]
    assert (first["status"], first["error_message"]) == ("failed", "the roof fell in")
    assert first["total_epochs"] == 2
    assert first["best_val_char_accuracy"] > 0
    assert first["final_train_loss"] > 0
    assert first["training_time"] > 0
    assert second["status"] == "completed"
    outcome = record_of("one").outcome
    assert outcome is not None
    assert (outcome.why_ended, outcome.error_type) == ("failed", "RuntimeError")
    assert sorted(path.name for path in (OUT / "one" / "checkpoints").iterdir()) == ["best.pt"]
    (file,) = Path().glob("hyperparameter_tuning_results_*.json")
    assert read_results(file) == results


def test_memory_that_is_not_there_is_told_apart(write_config: WriteConfig) -> None:
    run(write_config({"one": {}}), Accident(1, lambda: torch.empty(2**60, dtype=torch.uint8)))
    outcome = record_of("one").outcome
    assert outcome is not None
    assert outcome.why_ended == "out_of_memory"
    assert "DefaultCPUAllocator" in outcome.error_message


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_stops_the_run_and_leaves_it_resumable(code: int, write_config: WriteConfig) -> None:
    config = write_config({"one": {}, "two": {"training": {"num_epochs": 1}}})
    with pytest.raises(OSError, match="disk"):
        run(config, Accident(1, raising(OSError(code, "the disk has a problem"))))
    assert row_of("one").state is RowState.INTERRUPTED
    results = run(config)
    assert [entry["status"] for entry in results["all_results"]] == ["completed", "completed"]
    assert row_of("one").attempts == 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure(interruption: type[BaseException], write_config: WriteConfig) -> None:
    with pytest.raises(interruption):
        run(write_config({"one": {}}), Accident(1, raising(interruption())))
    row = row_of("one")
    assert (row.state, row.epochs, row.worker_pid) == (RowState.INTERRUPTED, 1, None)
    assert (OUT / "one" / "checkpoints" / "last.pt").exists()


def test_epochs_that_the_study_lacks_are_reported_when_the_trial_is_taken_up(write_config: WriteConfig) -> None:
    config = write_config({"one": {"training": {"num_epochs": 3}}})
    with pytest.raises(KeyboardInterrupt):
        run(config, Accident(2, raising(KeyboardInterrupt())))
    # As if the process had died between the checkpoint and the report.
    with closing(sqlite3.connect(OUT / "study.db")) as database, database:
        database.execute("DELETE FROM trial_intermediate_values WHERE step = 2")
    run(config)
    (trial,) = load_study(OUT)[0].get_trials()
    assert list(trial.intermediate_values) == [1, 2, 3]
    assert trial.value == max(trial.intermediate_values.values())


def test_a_death_after_the_last_epoch_trains_nothing_again(write_config: WriteConfig) -> None:
    config = write_config({"one": {}})
    with pytest.raises(KeyboardInterrupt):
        run(config, Accident(2, raising(KeyboardInterrupt())))
    before = (OUT / "one" / "checkpoints" / "best.pt").stat().st_mtime_ns
    (entry,) = run(config)["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 2)
    assert (OUT / "one" / "checkpoints" / "best.pt").stat().st_mtime_ns == before


def test_why_an_experiment_ended_is_on_its_trial(write_config: WriteConfig) -> None:
    stops = {"training": {"num_epochs": 9}, "early_stopping": {"patience": 1, "min_delta": 1.0}}
    run(write_config({"early": stops, "full": {}}))
    early, full = record_of("early").outcome, record_of("full").outcome
    assert early is not None
    assert full is not None
    assert (early.why_ended, early.total_epochs) == ("early_stopped", 2)
    assert (full.why_ended, full.total_epochs) == ("max_epochs", 2)
    assert full.epoch_seconds_median is not None
    assert full.epoch_seconds_median > 0


def epoch(number: int, characters: float, sequences: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        train_loss=1.0,
        val_loss=1.0,
        train_char_accuracy=0.0,
        val_char_accuracy=characters,
        train_seq_accuracy=0.0,
        val_seq_accuracy=sequences,
        learning_rate=0.001,
        epoch_seconds=1.0,
        memory_mb=1.0,
        cpu_percent=1.0,
    )


@pytest.mark.parametrize(
    ("targets", "converged"),
    [
        (Targets(character_accuracy=0.85, sequence_accuracy=0.7), 3),
        (Targets(character_accuracy=0.85), 2),
        (Targets(sequence_accuracy=0.7), 3),
        (Targets(character_accuracy=0.99), None),
        (Targets(convergence_epochs=15), None),
    ],
    ids=["both", "characters", "sequences", "never", "no accuracy to reach"],
)
def test_converged_means_the_first_epoch_that_meets_both_targets(targets: Targets, converged: int | None) -> None:
    epochs = (epoch(1, 0.5, 0.1), epoch(2, 0.85, 0.6), epoch(3, 0.9, 0.7), epoch(4, 0.95, 0.9))
    assert _converged_epoch(epochs, targets) == converged
