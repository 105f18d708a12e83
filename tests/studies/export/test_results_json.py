import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from optuna.trial import TrialState

import studies
from search_spaces.diagnostics.disk import write_json
from studies.trials.claims import claim_next

SCHEMA = json.loads((Path(__file__).parent / "results_schema.json").read_text())
TIMESTAMP = "20260131_235959"
DIVERGED = studies.TrialOutcome(
    why_ended=studies.WhyEnded.NONFINITE_LOSS,
    training_time_s=1.5,
    best_val_char_accuracy=0.0,
    best_val_seq_accuracy=0.0,
    final_train_loss=float("nan"),
    total_epochs=0,
    best_epoch=None,
    error_message="loss is nan",
)


def rendered(folder, tmp_path):
    """Write the results file of the study in a folder, check it against the schema, and return its content."""
    study, _ = studies.load_study(folder.path)
    path = tmp_path / studies.default_results_name(TIMESTAMP)
    write_json(path, studies.render_results(study, timestamp=TIMESTAMP))
    results = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    jsonschema.validate(results, SCHEMA)
    return results


def end(study, folder, outcome, value=0.5):
    claim = claim_next(study, folder)
    claim.trial.report(value, step=1)
    claim.finish(outcome, value)


def accurate(outcome, char, seq):
    return replace(outcome, best_val_char_accuracy=char, best_val_seq_accuracy=seq)


def test_empty_study_has_empty_results(start, tmp_path):
    _, folder = start()
    assert rendered(folder, tmp_path) == {
        "timestamp": TIMESTAMP,
        "experiments_completed": 0,
        "best_result": None,
        "all_results": [],
    }


def test_keys_are_in_the_documented_order(start, presets, outcome, tmp_path):
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


def test_failed_trial_has_its_best_values_and_no_nan(start, presets, outcome, tmp_path):
    study, folder = start(presets)
    end(study, folder, DIVERGED)
    end(study, folder, replace(outcome, why_ended=studies.WhyEnded.OUT_OF_MEMORY, error_type="MemoryError"))
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


def test_trial_that_was_ended_externally_is_reported_as_failed(start, presets, tmp_path):
    study, folder = start(presets)
    claim = claim_next(study, folder)
    study.tell(claim.trial, state=TrialState.FAIL)
    claim.release()
    entry = rendered(folder, tmp_path)["all_results"][0]
    assert (entry["status"], entry["error_message"]) == (
        "failed",
        "ended externally, no reason recorded",
    )


def test_pruned_trial_is_completed_but_never_the_best(start, presets, outcome, tmp_path):
    study, folder = start(presets)
    end(study, folder, replace(accurate(outcome, 0.99, 0.99), why_ended=studies.WhyEnded.PRUNED))
    assert rendered(folder, tmp_path)["best_result"] is None
    end(study, folder, accurate(outcome, 0.5, 0.5))
    results = rendered(folder, tmp_path)
    assert results["experiments_completed"] == 2
    assert results["best_result"]["experiment_name"] == "baseline"


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ([(0.8, 0.1), (0.9, 0.1), (0.7, 0.9)], 1),
        ([(0.9, 0.1), (0.9, 0.3), (0.9, 0.2)], 1),
        ([(0.9, 0.3), (0.9, 0.3), (0.9, 0.3)], 0),
        ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.1)], 2),
    ],
)
def test_best_result_has_the_highest_character_accuracy_then_sequence_accuracy_then_lowest_number(
    accuracies, best, start, presets, outcome, tmp_path
):
    study, folder = start(presets)
    for char, seq in accuracies:
        # The value of the monitored metric does not matter here.
        end(study, folder, accurate(outcome, char, seq), value=-char)
    assert rendered(folder, tmp_path)["best_result"]["experiment_name"] == list(presets)[best]


def test_ranking_excludes_pruned_and_failed_trials(start, presets, outcome):
    study, folder = start({f"{name} {number}": presets[name] for name in presets for number in (1, 2)})
    good, better = accurate(outcome, 0.8, 0.8), accurate(outcome, 0.9, 0.1)
    for ended in (good, replace(better, why_ended=studies.WhyEnded.PRUNED), better, DIVERGED, good):
        end(study, folder, ended)
    assert [record.number for record in studies.best_records(studies.ended_records(study))] == [2, 0, 4]


def test_results_have_presets_first_in_file_order_and_no_unfinished_trials(start, presets, outcome, tmp_path):
    study, folder = start({"high_rate": presets["high_rate"]})
    study.enqueue_trial({}, user_attrs={"kind": studies.TrialKind.SEARCH.value})
    start(presets)
    for _ in range(3):
        end(study, folder, outcome)
    running = claim_next(study, folder)
    names = [entry["experiment_name"] for entry in rendered(folder, tmp_path)["all_results"]]
    assert names == ["conservative_small", "high_rate", "search_0001"]
    running.release()


def test_retried_preset_is_reported_with_its_latest_trial(start, presets, outcome, tmp_path):
    study, folder = start(presets)
    for ending in (DIVERGED, outcome, outcome):
        end(study, folder, ending)
    assert rendered(folder, tmp_path)["experiments_completed"] == 2
    studies.retry_failed_trials(study, folder)
    # The preset has no result until its retry has finished.
    assert names(rendered(folder, tmp_path)) == ["baseline", "high_rate"]
    end(study, folder, outcome)
    results = rendered(folder, tmp_path)
    assert names(results) == list(presets)
    assert {entry["status"] for entry in results["all_results"]} == {"completed"}


def names(results):
    return [entry["experiment_name"] for entry in results["all_results"]]


def test_search_trials_come_after_presets_in_order_of_number(start, presets, outcome, tmp_path):
    first, *others = presets
    study, folder = start({first: presets[first]})
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=3))
    start(presets)
    claims = [claim_next(study, folder) for _ in range(6)]
    for claim in reversed(claims):
        claim.trial.report(0.5, 1)
        claim.finish(outcome, 0.5)
    assert names(rendered(folder, tmp_path)) == [first, *others, "search_0001", "search_0002", "search_0003"]


@pytest.mark.parametrize(
    ("why", "state", "status", "completed"),
    [
        (studies.WhyEnded.MAX_EPOCHS, TrialState.COMPLETE, "completed", 1),
        (studies.WhyEnded.EARLY_STOPPED, TrialState.COMPLETE, "completed", 1),
        (studies.WhyEnded.PRUNED, TrialState.PRUNED, "completed", 1),
        # Samplers ignore failed trials, but they must learn from divergence, so it is stored as pruned.
        (studies.WhyEnded.NONFINITE_LOSS, TrialState.PRUNED, "failed", 0),
        (studies.WhyEnded.OUT_OF_MEMORY, TrialState.FAIL, "failed", 0),
        (studies.WhyEnded.CRASHED, TrialState.FAIL, "failed", 0),
        (studies.WhyEnded.FAILED, TrialState.FAIL, "failed", 0),
    ],
)
def test_reason_of_a_search_trial_determines_its_optuna_state_and_its_status(
    why, state, status, completed, start, presets, outcome, tmp_path
):
    study, folder = start()
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    end(study, folder, replace(outcome, why_ended=why))
    results = rendered(folder, tmp_path)
    assert study.get_trials()[0].state == state
    assert (results["all_results"][0]["status"], results["experiments_completed"]) == (status, completed)
    can_be_best = why in (studies.WhyEnded.MAX_EPOCHS, studies.WhyEnded.EARLY_STOPPED)
    assert (results["best_result"] is not None) == can_be_best
    assert (studies.study_status(study, folder).best is not None) == can_be_best


def test_ten_best_search_trials_keep_their_checkpoints(start, presets, outcome):
    study, folder = start(presets)
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=15))
    for _ in presets:
        end(study, folder, accurate(outcome, 0.01, 0.0))
    accuracies = [0.5, 0.9, 0.8, 0.3, 0.31, 0.32, 0.33, 0.34, 0.35, 0.36, 0.37, 0.3, 0.95]
    pruned, failed = {1}, {12}
    for number, char in enumerate(accuracies):
        why = studies.WhyEnded.PRUNED if number in pruned else studies.WhyEnded.MAX_EPOCHS
        why = studies.WhyEnded.NONFINITE_LOSS if number in failed else why
        end(study, folder, replace(accurate(outcome, char, 0.0), why_ended=why))
        if number == 9:
            assert studies.records_beyond_retention(study) == []
    # Of two equal trials the earlier one keeps its checkpoints; a failed trial does not, however good it was.
    dropped = {record.experiment_name for record in studies.records_beyond_retention(study)}
    assert dropped == {"search_0006", "search_0014", "search_0015"}


@pytest.mark.parametrize(("seq", "dropped"), [([0.1] * 10 + [0.2], "search_0009"), ([0.1] * 11, "search_0010")])
def test_ties_in_retention_are_broken_by_sequence_accuracy_then_number(seq, dropped, start, outcome):
    study, folder = start()
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=11))
    for accuracy in seq:
        end(study, folder, accurate(outcome, 0.5, accuracy))
    assert [record.experiment_name for record in studies.records_beyond_retention(study)] == [dropped]


def test_best_trial_by_the_monitored_metric_keeps_its_checkpoints(start, outcome):
    study, folder = start()
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=12))
    for number in range(12):
        end(study, folder, accurate(outcome, 0.1 * (number > 1), 0.0), value=0.9 if number == 1 else 0.5)
    assert [record.experiment_name for record in studies.records_beyond_retention(study)] == ["search_0000"]
