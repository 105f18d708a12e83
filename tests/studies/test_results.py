from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import TrainingConfig
from studies import (
    OutputFolder,
    TrialKind,
    TrialOutcome,
    WhyEnded,
    claim_next,
    default_results_name,
    load_study,
    render_results,
    write_json,
)

Start = Callable[..., tuple[optuna.Study, OutputFolder]]
Presets = dict[str, TrainingConfig]

SCHEMA = json.loads((Path(__file__).parent / "results_schema.json").read_text())
TIMESTAMP = "20260131_235959"
DIVERGED = TrialOutcome(
    why_ended=WhyEnded.NONFINITE_LOSS,
    training_time_s=1.5,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=float("nan"),
    total_epochs=0,
    best_epoch=None,
    error_message="loss is nan",
)


def rendered(folder: OutputFolder, tmp_path: Path) -> dict[str, Any]:
    """Render as another process would, check against the schema, and return what a reader sees."""
    study, _ = load_study(folder.path)
    path = tmp_path / default_results_name(TIMESTAMP)
    write_json(path, render_results(study, timestamp=TIMESTAMP))
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    jsonschema.validate(results, SCHEMA)
    return results


def end(study: optuna.Study, folder: OutputFolder, outcome: TrialOutcome, value: float = 0.5) -> None:
    claim = claim_next(study, folder)
    assert claim is not None
    claim.trial.report(value, step=1)
    claim.finish(outcome, value)


def accurate(outcome: TrialOutcome, char: float, seq: float) -> TrialOutcome:
    return replace(outcome, best_val_char_accuracy=char, best_val_seq_accuracy=seq)


def test_an_empty_study_has_empty_results(start: Start, tmp_path: Path) -> None:
    _, folder = start()
    assert rendered(folder, tmp_path) == {
        "timestamp": TIMESTAMP,
        "experiments_completed": 0,
        "best_result": None,
        "all_results": [],
    }


def test_keys_stand_in_the_documented_order(
    start: Start, presets: Presets, outcome: TrialOutcome, tmp_path: Path
) -> None:
    study, folder = start(presets)
    end(study, folder, outcome)
    results = rendered(folder, tmp_path)
    best, entry = results["best_result"], results["all_results"][0]
    assert list(results) == ["timestamp", "experiments_completed", "best_result", "all_results"]
    common = [
        "experiment_name",
        "status",
        "training_time",
        "best_val_char_accuracy",
        "best_val_seq_accuracy",
        "final_train_loss",
        "total_epochs",
    ]
    assert list(best) == [*common, "hyperparameters"]
    assert list(entry) == [*common, "error_message", "hyperparameters"]
    assert list(entry["hyperparameters"]) == [
        "model_name",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "loss_type",
        "scheduler_type",
        "optimizer_type",
    ]
    assert entry == best | {"error_message": "", "hyperparameters": best["hyperparameters"]}
    assert entry["hyperparameters"]["learning_rate"] == 0.001
    assert (entry["training_time"], entry["final_train_loss"], entry["total_epochs"]) == (12.5, 0.25, 3)


def test_a_failed_trial_has_what_it_reached_and_never_nan(
    start: Start, presets: Presets, outcome: TrialOutcome, tmp_path: Path
) -> None:
    study, folder = start(presets)
    end(study, folder, DIVERGED)
    end(study, folder, replace(outcome, why_ended=WhyEnded.OUT_OF_MEMORY, error_type="MemoryError"))
    results = rendered(folder, tmp_path)
    first, second = results["all_results"]
    assert (first["status"], first["final_train_loss"], first["error_message"]) == (
        "failed",
        None,
        "loss is nan",
    )
    assert (first["best_val_char_accuracy"], first["best_val_seq_accuracy"]) == (0.0, 0.0)
    assert (second["status"], second["best_val_char_accuracy"]) == ("failed", 0.9)
    assert second["error_message"] == "MemoryError"
    assert (results["best_result"], results["experiments_completed"]) == (None, 0)


def test_a_trial_failed_from_outside_is_told_as_such(start: Start, presets: Presets, tmp_path: Path) -> None:
    study, folder = start(presets)
    claim = claim_next(study, folder)
    assert claim is not None
    study.tell(claim.trial, state=TrialState.FAIL)
    claim.release()
    entry = rendered(folder, tmp_path)["all_results"][0]
    assert (entry["status"], entry["error_message"]) == (
        "failed",
        "ended from outside, without a reason given",
    )


def test_a_pruned_trial_is_completed_but_never_the_best(
    start: Start, presets: Presets, outcome: TrialOutcome, tmp_path: Path
) -> None:
    study, folder = start(presets)
    end(study, folder, replace(accurate(outcome, 0.99, 0.99), why_ended=WhyEnded.PRUNED))
    assert rendered(folder, tmp_path)["best_result"] is None
    end(study, folder, accurate(outcome, 0.5, 0.5))
    results = rendered(folder, tmp_path)
    assert results["experiments_completed"] == 2
    assert results["best_result"]["experiment_name"] == "baseline"


def test_a_diverged_search_trial_is_failed_though_optuna_prunes_it(start: Start, tmp_path: Path) -> None:
    study, folder = start()
    study.enqueue_trial({}, user_attrs={"kind": TrialKind.SEARCH.value})
    end(study, folder, DIVERGED)
    results = rendered(folder, tmp_path)
    assert study.get_trials()[0].state == TrialState.PRUNED
    assert (results["all_results"][0]["status"], results["experiments_completed"]) == ("failed", 0)
    assert results["all_results"][0]["experiment_name"] == "search_0000"


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([(0.8, 0.1), (0.9, 0.1), (0.7, 0.9)], 1),
        ([(0.9, 0.1), (0.9, 0.3), (0.9, 0.2)], 1),
        ([(0.9, 0.3), (0.9, 0.3), (0.9, 0.3)], 0),
        ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.1)], 2),
    ],
)
def test_the_best_has_the_best_characters_then_sequences_then_the_lower_number(
    accuracies: list[tuple[float, float]],
    best: int,
    start: Start,
    presets: Presets,
    outcome: TrialOutcome,
    tmp_path: Path,
) -> None:
    study, folder = start(presets)
    for char, seq in accuracies:
        # The value of the monitored metric is another thing and does not count here.
        end(study, folder, accurate(outcome, char, seq), value=-char)
    assert rendered(folder, tmp_path)["best_result"]["experiment_name"] == list(presets)[best]


def test_presets_come_first_in_file_order_and_unfinished_ones_not_at_all(
    start: Start, presets: Presets, outcome: TrialOutcome, tmp_path: Path
) -> None:
    study, folder = start({"high_rate": presets["high_rate"]})
    study.enqueue_trial({}, user_attrs={"kind": TrialKind.SEARCH.value})
    start(presets)
    for _ in range(3):
        end(study, folder, outcome)
    running = claim_next(study, folder)
    assert running is not None
    names = [entry["experiment_name"] for entry in rendered(folder, tmp_path)["all_results"]]
    assert names == ["conservative_small", "high_rate", "search_0001"]
    running.release()


def test_a_later_trial_of_a_preset_supersedes_the_failed_one(
    start: Start, presets: Presets, outcome: TrialOutcome, tmp_path: Path
) -> None:
    study, folder = start({"baseline": presets["baseline"]})
    end(study, folder, DIVERGED)
    study.enqueue_trial({}, user_attrs=study.get_trials()[0].user_attrs | {"why_ended": None, "attempts": 0})
    end(study, folder, outcome)
    results = rendered(folder, tmp_path)
    assert [entry["status"] for entry in results["all_results"]] == ["completed"]
