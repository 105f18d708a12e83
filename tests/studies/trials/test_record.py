import json
from dataclasses import replace

import pytest

import studies
from search_spaces import TrainingConfig
from studies.trials.claims import claim_next
from studies.trials.record import StartedAfter, record_outcome


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_numbers_are_not_stored(value, start, outcome):
    study, folder = start({"one": TrainingConfig()})
    claim = claim_next(study, folder)
    non_finite = replace(
        outcome,
        final_train_loss=value,
        best_val_char_accuracy=value,
        best_val_seq_accuracy=value,
        training_time_s=value,
        epoch_seconds_median=value,
    )
    claim.finish(non_finite, 0.9)
    stored = studies.read_record(study.get_trials()[0]).outcome
    assert (stored.final_train_loss, stored.epoch_seconds_median) == (None, None)
    assert (stored.best_val_char_accuracy, stored.best_val_seq_accuracy, stored.training_time_s) == (0, 0, 0)


def test_search_trials_are_named_by_number(start):
    study, _ = start({f"preset {n}": TrainingConfig(seed=n) for n in range(2)})
    study.enqueue_trial({}, user_attrs={"kind": studies.TrialKind.SEARCH.value})
    assert studies.read_record(study.get_trials()[2]).experiment_name == "search_0002"


def test_config_fields_of_another_version_are_ignored(start):
    study, _ = start()
    attributes = {"kind": "preset", "experiment_name": "old", "config": {"batch_size": 8, "retired": 1}}
    study.enqueue_trial({}, user_attrs=attributes)
    assert studies.read_record(study.get_trials()[0]).training_config == TrainingConfig(batch_size=8)


def test_outcome_is_stored_in_one_attribute(start, outcome):
    study, folder = start({"one": TrainingConfig()})
    claim = claim_next(study, folder)
    before = set(study.get_trials()[0].user_attrs)
    record_outcome(claim.trial, outcome)
    stored = study.get_trials()[0].user_attrs
    assert set(stored) - before == {"outcome"}
    assert json.loads(json.dumps(stored["outcome"])) == vars(outcome)
    record_outcome(claim.trial, replace(outcome, total_epochs=9))
    assert study.get_trials()[0].user_attrs["outcome"] == vars(replace(outcome, total_epochs=9))
    claim.release()


def test_latest_records_contain_the_retry_of_a_failed_trial(start, outcome):
    study, folder = start({"one": TrainingConfig(), "two": TrainingConfig(seed=2)})
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=1))
    claim = claim_next(study, folder)
    claim.finish(replace(outcome, why_ended=studies.WhyEnded.FAILED))
    assert [record.number for record in studies.latest_records(study)] == [0, 1, 2]
    studies.retry_failed_trials(study, folder)
    assert [(record.number, record.experiment_name) for record in studies.latest_records(study)] == [
        (1, "two"),
        (2, "search_0002"),
        (3, "one"),
    ]


def attempts(*history):
    return tuple(studies.Attempt("2026-01-31T00:00:00+00:00", "host:1", epochs, after) for epochs, after in history)


@pytest.mark.parametrize(
    ("history", "crashes"),
    [
        ((), 0),
        (((0, StartedAfter.WAITING),), 0),
        (((0, StartedAfter.WAITING), (0, StartedAfter.CRASH), (0, StartedAfter.CRASH)), 2),
        # Stops, and crashes before the last new epoch, do not count.
        (((0, StartedAfter.WAITING), (0, StartedAfter.STOP), (0, StartedAfter.CRASH), (0, StartedAfter.STOP)), 1),
        (((0, StartedAfter.WAITING), (0, StartedAfter.CRASH), (4, StartedAfter.CRASH)), 1),
        (((0, StartedAfter.WAITING), (0, StartedAfter.CRASH), (4, StartedAfter.STOP), (4, StartedAfter.CRASH)), 1),
    ],
)
def test_consecutive_crashes_are_counted_in_the_same_epoch(history, crashes, start):
    study, _ = start({"one": TrainingConfig()})
    record = replace(studies.read_record(study.get_trials()[0]), attempts=attempts(*history))
    assert record.consecutive_crashes == crashes


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, ""),
        ({"parameters": 159_867}, "159,867 parameters"),
        (
            {
                "parameters": 159_867,
                "checkpoint_bytes": 761_234,
                "images_per_s_batch_1": 581.4,
                "images_per_s_batch_64": 4711.3,
            },
            "159,867 parameters, checkpoint 0.76 MB, 1.72 ms per image (batch 1), 4,711 images/s (batch 64)",
        ),
    ],
)
def test_size_and_speed_text_has_the_known_values(known, text, outcome):
    assert replace(outcome, **known).size_and_speed_text == text


def test_latency_is_known_if_the_speed_was_measured(outcome):
    assert outcome.latency_ms is None
    assert replace(outcome, images_per_s_batch_1=500.0).latency_ms == 2.0
