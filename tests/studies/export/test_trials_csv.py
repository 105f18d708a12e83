import csv
import io
import json
from dataclasses import fields, replace

import pytest

import studies
from search_spaces import Targets, TrainingConfig
from studies.trials.claims import claim_next


def read(text):
    """Read CSV in strict mode."""
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


@pytest.fixture
def study_in_all_states(start, outcome):
    """A study with a trial in every state; the failed trial is a preset that was retried."""
    study, folder = start({"ខ្មែរ ១": TrainingConfig(learning_rate=0.002), "two": TrainingConfig(batch_size=48)})
    studies.save_targets(study, Targets(character_accuracy=0.9, convergence_epochs=2))
    studies.add_search_trials(study, folder, studies.SearchRequest(at_least=4))
    completed, failed, pruned, running, interrupted = (claim_next(study, folder) for _ in range(5))
    completed.trial.report(0.95, 1)
    completed.finish(replace(outcome, converged_epoch=3), 0.95)
    message = '=HYPERLINK("http://example.com")\nCUDA said, "no"\udcff'
    failed.finish(
        replace(
            outcome, why_ended=studies.WhyEnded.FAILED, best_epoch=None, error_type="OSError", error_message=message
        )
    )
    pruned.record_config(TrainingConfig(model_name="medium", optimizer_betas=[0.5, 0.9]))
    pruned.finish(replace(outcome, why_ended=studies.WhyEnded.PRUNED, final_train_loss=None))
    running.trial.report(0.25, 1)
    interrupted.release()
    studies.retry_failed_trials(study, folder)
    return study, folder


def test_every_trial_has_a_row_in_any_state(study_in_all_states):
    reader, folder = studies.load_study(study_in_all_states[1].path)
    rows = read(studies.csv_text(studies.TRIAL_COLUMNS, studies.trial_rows(reader, folder)))
    assert [(row["number"], row["experiment_name"], row["kind"], row["state"], row["why_ended"]) for row in rows] == [
        ("0", "ខ្មែរ ១", "preset", "completed", "max_epochs"),
        ("1", "two", "preset", "failed", "failed"),
        ("2", "search_0002", "search", "pruned", "pruned"),
        ("3", "search_0003", "search", "running", ""),
        ("4", "search_0004", "search", "interrupted", ""),
        ("5", "search_0005", "search", "waiting", ""),
        ("6", "two", "preset", "waiting", ""),
    ]


def test_rows_have_results_settings_and_reasons(study_in_all_states):
    rows = read(studies.csv_text(studies.TRIAL_COLUMNS, studies.trial_rows(*study_in_all_states)))
    completed, failed, pruned, running, *_, waiting = rows
    assert {item.name for item in fields(TrainingConfig)} < set(completed)
    assert {item.name for item in fields(studies.TrialOutcome)} < set(completed)
    assert (completed["learning_rate"], failed["batch_size"], waiting["batch_size"]) == ("0.002", "48", "48")
    assert (completed["monitor"], completed["monitored_value"], completed["best_val_seq_accuracy"]) == (
        "val_char_accuracy",
        "0.95",
        "0.8",
    )
    assert (completed["training_time_s"], completed["total_epochs"], completed["best_epoch"]) == ("12.5", "3", "2")
    assert (completed["target_character_accuracy"], completed["target_convergence_epochs"]) == ("met", "missed")
    assert completed["target_sequence_accuracy"] == ""  # this target is not set
    assert failed["error_type"] == "OSError"
    assert failed["error_message"] == '\'=HYPERLINK("http://example.com")\nCUDA said, "no"\\udcff'
    assert (pruned["model_name"], json.loads(pruned["optimizer_betas"])) == ("medium", [0.5, 0.9])
    assert pruned["final_train_loss"] == ""
    assert (running["monitored_value"], running["total_epochs"], running["training_time_s"]) == ("0.25", "1", "")
    assert (running["attempts"], running["ended"]) == ("1", "")
    assert (waiting["attempts"], waiting["started"], waiting["worker"], waiting["total_epochs"]) == ("0", "", "", "0")


def test_rows_have_utc_times_and_the_worker(study_in_all_states):
    study, _ = study_in_all_states
    completed = read(studies.csv_text(studies.TRIAL_COLUMNS, studies.trial_rows(*study_in_all_states)))[0]
    trial = study.trials[0]
    (attempt,) = trial.user_attrs["attempts"]
    assert trial.datetime_complete is not None
    assert completed["started"].endswith("+00:00")
    assert completed["started"][:16] == attempt["began"][:16]
    assert completed["ended"] >= completed["started"]
    assert completed["worker"] == attempt["worker"]


def test_csv_of_an_empty_study_is_a_header(start):
    assert (
        studies.csv_text(studies.TRIAL_COLUMNS, studies.trial_rows(*start()))
        == ",".join(studies.TRIAL_COLUMNS) + "\r\n"
    )


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_that_looks_like_a_formula_gets_an_apostrophe(sign):
    (row,) = read(studies.csv_text(["cell"], [{"cell": f"{sign}1+1"}]))
    assert row["cell"] == f"'{sign}1+1"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-0.5, "-0.5"),
        (None, ""),
        (True, "True"),
        (1e-05, "1e-05"),
        ('a "b", ខ្មែរ', 'a "b", ខ្មែរ'),
        ("one\r\ntwo\nthree", "one\r\ntwo\nthree"),
        (["-1", "ក"], '["-1", "ក"]'),
        ("a=b", "a=b"),
    ],
)
def test_cell_is_read_back_as_written(value, cell):
    text = studies.csv_text(["before", "cell", "after"], [{"cell": value, "after": 1}])
    assert read(text) == [{"before": "", "cell": cell, "after": "1"}]
    assert text.startswith("before,cell,after\r\n")
    assert text.endswith(",1\r\n")
