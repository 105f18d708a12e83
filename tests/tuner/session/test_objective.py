import errno
import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from search_spaces import Targets, TrainingConfig
from studies import (
    MAX_CRASHES,
    PrunerName,
    RowState,
    SamplerName,
    SearchRequest,
    TrialKind,
    ended_records,
    load_study,
    records_beyond_retention,
    study_status,
)
from studies.sampling.pruning import Pruning
from studies.trials.record import StartedAfter
from tuner import HyperparameterTuner
from tuner.session.checkpoint_retention import delete_unneeded_checkpoints
from tuner.session.outcome import _converged_epoch
from tuner.session.run_options import RunOptions
from tuner.signals import StopRequested, stop_on_signals
from tuner.training.checkpoints import load_checkpoint
from tuner.training.history import EpochMetrics

OUT = Path("training_output")

pytestmark = pytest.mark.usefixtures("in_tmp")


def raising(error):
    def fail():
        raise error

    return fail


def run(config, display=None):
    return HyperparameterTuner(str(config), display=display).run_experiments()


def record_of(name):
    return next(record for record in ended_records(load_study(OUT)[0]) if record.experiment_name == name)


def row_of(name):
    return next(row for row in study_status(*load_study(OUT)).rows if row.name == name)


def test_failed_trial_keeps_the_results_of_its_epochs(write_config, read_results, make_watcher):
    config = write_config({"one": {"training": {"num_epochs": 4}}, "two": {"training": {"num_epochs": 1}}})
    results = run(config, make_watcher(after_epoch=2, action=raising(RuntimeError("simulated error"))))
    first, second = results["all_results"]
    assert (first["status"], first["error_message"]) == ("failed", "simulated error")
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


def test_out_of_memory_has_its_own_outcome(write_config, make_watcher):
    run(write_config({"one": {}}), make_watcher(after_epoch=1, action=lambda: torch.empty(2**60, dtype=torch.uint8)))
    outcome = record_of("one").outcome
    assert outcome is not None
    assert outcome.why_ended == "out_of_memory"
    assert "DefaultCPUAllocator" in outcome.error_message
    assert outcome.error_message.endswith("; use a smaller model or fewer workers")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE])
def test_disk_error_stops_the_run_and_keeps_it_resumable(code, write_config, make_watcher):
    config = write_config({"one": {}, "two": {"training": {"num_epochs": 1}}})
    with pytest.raises(OSError, match="disk"):
        run(config, make_watcher(after_epoch=1, action=raising(OSError(code, "the disk has a problem"))))
    assert row_of("one").state is RowState.INTERRUPTED
    results = run(config)
    assert [entry["status"] for entry in results["all_results"]] == ["completed", "completed"]
    assert row_of("one").attempts == 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interrupted_trial_is_not_failed(interruption, write_config, make_watcher):
    with pytest.raises(interruption):
        run(write_config({"one": {}}), make_watcher(after_epoch=1, action=raising(interruption())))
    row = row_of("one")
    assert (row.state, row.epochs, row.worker_pid) == (RowState.INTERRUPTED, 1, None)
    assert (OUT / "one" / "checkpoints" / "last.pt").exists()


def test_resumed_trial_reports_epochs_that_are_missing_in_the_study(write_config, make_watcher):
    config = write_config({"one": {"training": {"num_epochs": 3}}})
    with pytest.raises(KeyboardInterrupt):
        run(config, make_watcher(after_epoch=2))
    # As if the process had been killed between the checkpoint and the report.
    with closing(sqlite3.connect(OUT / "study.db")) as database, database:
        database.execute("DELETE FROM trial_intermediate_values WHERE step = 2")
    run(config)
    (trial,) = load_study(OUT)[0].get_trials()
    assert list(trial.intermediate_values) == [1, 2, 3]
    assert trial.value == max(trial.intermediate_values.values())


def test_trial_killed_after_its_last_epoch_repeats_no_epoch(write_config, make_watcher):
    config = write_config({"one": {}})
    with pytest.raises(KeyboardInterrupt):
        run(config, make_watcher(after_epoch=2))
    # A repeated epoch would have another duration.
    best = OUT / "one" / "checkpoints" / "best.pt"
    before = load_checkpoint(best)["metrics"]
    (entry,) = run(config)["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 2)
    assert load_checkpoint(best)["metrics"] == before


def test_trial_stores_why_it_ended(write_config):
    stops = {"training": {"num_epochs": 9}, "early_stopping": {"patience": 1, "min_delta": 1.0}}
    run(write_config({"early": stops, "full": {}}))
    early, full = record_of("early").outcome, record_of("full").outcome
    assert early is not None
    assert full is not None
    assert (early.why_ended, early.total_epochs) == ("early_stopped", 2)
    assert (full.why_ended, full.total_epochs) == ("max_epochs", 2)
    assert full.epoch_seconds_median is not None
    assert full.epoch_seconds_median > 0


def test_trial_stores_the_size_and_the_speed_of_its_network(write_config):
    run(write_config({"one": {}}))
    outcome = record_of("one").outcome
    assert outcome is not None
    assert outcome.checkpoint_bytes == (OUT / "one" / "checkpoints" / "best.pt").stat().st_size
    assert outcome.parameters is not None
    assert outcome.checkpoint_bytes > 4 * outcome.parameters
    assert outcome.images_per_s_batch_1 is not None
    assert outcome.images_per_s_batch_64 is not None
    assert 0 < outcome.images_per_s_batch_1 < outcome.images_per_s_batch_64


def test_repeated_ctrl_c_in_the_same_epoch_is_not_a_crash(write_config, make_watcher):
    config = write_config({"one": {}})
    for _ in range(MAX_CRASHES):
        with pytest.raises(StopRequested), stop_on_signals():
            run(config, make_watcher(in_batch=3, action=lambda: os.kill(os.getpid(), signal.SIGINT)))
    (entry,) = run(config)["all_results"]
    assert (entry["status"], entry["total_epochs"]) == ("completed", 2)
    after = [attempt.after for attempt in record_of("one").attempts]
    assert after == [StartedAfter.WAITING, *[StartedAfter.STOP] * MAX_CRASHES]


def search(config, space, trials, display=None, **settings):
    """Train the experiments of a file, then search trials."""
    request = SearchRequest(at_least=trials, **settings)
    return HyperparameterTuner(
        str(config),
        options=RunOptions(space_file=str(space), search=request, results_file="results.json"),
        display=display,
    ).run_experiments()


def trial_of(name):
    return load_study(OUT)[0].get_trials()[record_of(name).number]


def best_so_far(folder, pick):
    losses = [json.loads(line)["val_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [pick(losses[:number]) for number in range(1, len(losses) + 1)]


BY_LOSS = {"early_stopping": {"monitor": "val_loss", "mode": "min", "min_delta": 0.0}}
QUICK = {"training": {"learning_rate": 0.01, "num_epochs": 4}} | BY_LOSS
# The learning rate is fixed, because its range would be widened to include that of `quick`.
SLOW = {
    "base": {"num_epochs": 4, "learning_rate": 1e-9},
    **dict.fromkeys(["model_name", "loss_type", "learning_rate"]),
}


def test_search_trial_that_is_worse_than_others_is_pruned(write_config, write_space, read_results):
    space = write_space(**SLOW)
    results = search(write_config({"quick": QUICK}), space, 2, prune_grace=2)
    assert read_results(Path("results.json")) == results
    assert results["best_result"]["experiment_name"] == "quick"
    quick, *pruned = results["all_results"]
    assert quick["total_epochs"] == 4
    for entry in pruned:
        assert (entry["status"], entry["total_epochs"], entry["error_message"]) == ("completed", 2, "")
        trial, folder = trial_of(entry["experiment_name"]), OUT / entry["experiment_name"]
        assert trial.state == TrialState.PRUNED
        assert list(trial.intermediate_values.values()) == best_so_far(folder, min)
        assert trial.value == best_so_far(folder, min)[-1]
        assert trial.user_attrs["outcome"]["why_ended"] == "pruned"
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.pt"]


@pytest.mark.parametrize("settings", [{"pruner": PrunerName.NONE}, {}], ids=str)
def test_nothing_is_pruned_without_a_pruner_or_within_the_grace_period(settings, write_config, write_space):
    # The default grace period is the early stopping patience, which is longer than these four epochs.
    space = write_space(**SLOW)
    search(write_config({"quick": QUICK}), space, 1, **settings)
    outcome = record_of("search_0001").outcome
    assert outcome is not None
    assert (outcome.why_ended, outcome.total_epochs) == ("max_epochs", 4)


class RecordingPruner(NopPruner):
    """Records the last reported epoch at each call."""

    def __init__(self):
        self.epochs = []

    def prune(self, study, trial):
        self.epochs.append(trial.last_step)
        return super().prune(study, trial)


def test_pruner_is_not_called_again_for_repeated_epochs(write_config, write_space, make_watcher, monkeypatch):
    pruner = RecordingPruner()
    monkeypatch.setattr(Pruning, "create_pruner", lambda *arguments: pruner)
    config, space = write_config({"one": {"training": {"num_epochs": 1}}}), write_space(base={"num_epochs": 5})
    with pytest.raises(KeyboardInterrupt):
        search(config, space, 1, make_watcher(after_epoch=3, of_trial=1))
    assert pruner.epochs == [1, 2]
    pruner.epochs.clear()
    # As on another machine with its own output folder.
    shutil.rmtree(OUT / "search_0001" / "checkpoints")
    watcher = make_watcher()
    search(config, space, 1, watcher)
    assert watcher.started == [("search_0001", 1, True)]
    assert watcher.epochs == [(1, epoch) for epoch in range(1, 6)]
    # The trial was interrupted before the pruner was called for the last reported epoch.
    assert pruner.epochs == [3, 4]


def test_presets_are_never_pruned(write_config, write_space):
    slow = {"training": {"learning_rate": 2e-9, "num_epochs": 4}, "scheduler": {"min_lr": 0.0}} | BY_LOSS
    space = write_space(**SLOW)
    search(write_config({"quick": QUICK}), space, 1, prune_grace=1)
    search(write_config({"slow": slow}), space, 1, prune_grace=1)
    ends = [record_of(name).outcome for name in ("search_0001", "slow")]
    assert [end and end.why_ended for end in ends] == ["pruned", "max_epochs"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory, configs_in, spaces_in):
    """Return the folder of a study with two presets and eleven search trials of one epoch; tests must not change it."""
    folder = tmp_path_factory.mktemp("searched")
    one = {"training": {"num_epochs": 1, "log_every_n_steps": 9, "seed": 4, "save_every_n_epochs": 1}}
    # Widens the range of the learning rate far below the initial `min_lr` of the search.
    two = {"training": one["training"] | {"learning_rate": 1e-9}, "scheduler": {"min_lr": 0.0}}
    space = spaces_in(folder)(base={"num_epochs": 1})
    for experiments, trials in (({"one": one}, 1), ({"two": two}, 11)):
        HyperparameterTuner(
            str(configs_in(folder)(experiments)),
            options=RunOptions(
                output_dir=str(folder / OUT),
                results_file=str(folder / "results.json"),
                space_file=str(space) if trials == 1 else None,
                search=SearchRequest(SamplerName.RANDOM, at_least=trials),
            ),
        ).run_experiments()
    return folder


def test_search_trial_stores_its_complete_configuration(searched):
    entries = {
        entry["experiment_name"]: entry for entry in json.loads((searched / "results.json").read_text())["all_results"]
    }
    study, _ = load_study(searched / OUT)
    records = [record for record in ended_records(study) if record.kind is TrialKind.SEARCH]
    assert [record.number for record in records] == [1, *range(3, 13)]
    for record in records:
        config, sampled = record.config, study.get_trials()[record.number].params
        assert config.keys() == {item.name for item in fields(TrainingConfig)}
        assert {name: config[name] for name in sampled} == sampled
        assert (config["num_epochs"], config["log_every_n_steps"], config["seed"]) == (1, 9, 4)
        assert config["min_lr"] <= config["learning_rate"]
        assert (config["loss_type"] == "ctc") == (config["model_name"] == "tiny_ctc")
        assert ("loss_type" in sampled) == (config["model_name"] == "tiny")
        assert ("warmup_epochs" in sampled) == (config["scheduler_type"] == "cosine")
        hyperparameters = entries[record.experiment_name]["hyperparameters"]
        assert hyperparameters == {name: config[name] for name in hyperparameters}
        path = searched / OUT / record.experiment_name / "configs" / "training_config.yaml"
        local_settings = {"experiment_name", "output_dir", "model_config_path"}
        trained = yaml.safe_load(path.read_text())
        assert {name: value for name, value in trained.items() if value != config[name]}.keys() <= local_settings
    # Ensures that the loop above covered all cases.
    assert {record.config["model_name"] for record in records} == {"tiny", "tiny_ctc"}
    assert {record.config["scheduler_type"] for record in records} == {"cosine", "steplr"}
    assert min(record.config["learning_rate"] for record in records) < TrainingConfig.min_lr


def test_ten_best_search_trials_and_all_presets_keep_their_models(searched):
    def rank(entry):
        return -entry["best_val_char_accuracy"], -entry["best_val_seq_accuracy"], entry["experiment_name"]

    entries = json.loads((searched / "results.json").read_text())["all_results"]
    searches = sorted((entry for entry in entries if entry["experiment_name"].startswith("search_")), key=rank)
    assert len(searches) == 11
    kept = {path.parents[1].name for path in (searched / OUT).glob("*/checkpoints/best.pt")}
    assert kept == {"one", "two", *(entry["experiment_name"] for entry in searches[:10])}
    # The eleventh search trial keeps only its metrics.
    other = searched / OUT / searches[10]["experiment_name"]
    assert list((other / "checkpoints").iterdir()) == []
    assert (other / "metrics.jsonl").exists()


def test_diverged_search_trial_is_pruned_in_optuna_and_failed_in_the_results(write_config, write_space, read_results):
    base = {"num_epochs": 20, "learning_rate": 10.0, "optimizer_type": "adamw", "weight_decay": 10.0}
    space = write_space(**SLOW | {"base": base})
    results = search(write_config({"stable": {"training": {"num_epochs": 1}}}), space, 2)
    assert read_results(Path("results.json")) == results
    stable, *diverged = results["all_results"]
    assert (stable["status"], results["experiments_completed"]) == ("completed", 1)
    for entry in diverged:
        assert entry["status"] == "failed"
        assert "lower learning_rate" in entry["error_message"]
        assert entry["total_epochs"] < 20
        trial = trial_of(entry["experiment_name"])
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["outcome"]["why_ended"] == "nonfinite_loss"
        assert not (OUT / entry["experiment_name"] / "checkpoints" / "last.pt").exists()
    with closing(sqlite3.connect(OUT / "study.db")) as database:
        for table, column in (("trial_values", "value_type"), ("trial_intermediate_values", "intermediate_value_type")):
            assert {kind for (kind,) in database.execute(f"SELECT {column} FROM {table}")} <= {"FINITE"}
        for (attribute,) in database.execute("SELECT value_json FROM trial_user_attributes"):
            json.loads(attribute, parse_constant=pytest.fail)


def test_failed_search_trial_does_not_stop_the_others(write_config, write_space, make_watcher):
    watcher = make_watcher(after_epoch=1, of_trial=1, action=raising(RuntimeError("simulated error")))
    results = search(write_config({"one": {"training": {"num_epochs": 1}}}), write_space(), 2, watcher)
    ends = [(entry["experiment_name"], entry["status"]) for entry in results["all_results"]]
    assert ends == [("one", "completed"), ("search_0001", "failed"), ("search_0002", "completed")]
    assert trial_of("search_0001").state == TrialState.FAIL


def epoch(number, characters, sequences):
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
    ids=["both", "characters", "sequences", "never", "no accuracy target"],
)
def test_converged_epoch_is_the_first_that_meets_both_targets(targets, converged):
    epochs = (epoch(1, 0.5, 0.1), epoch(2, 0.85, 0.6), epoch(3, 0.9, 0.7), epoch(4, 0.95, 0.9))
    assert _converged_epoch(epochs, targets) == converged


def test_deleted_checkpoints_are_not_searched_again(searched):
    study, folder = load_study(searched / OUT)
    (worst,) = records_beyond_retention(study)
    checkpoint = folder.trial_dir(worst.experiment_name) / "checkpoints" / "best.pt"
    deleted = set()
    try:
        for remains in (False, True):
            checkpoint.touch()
            delete_unneeded_checkpoints(study, folder, [], deleted)
            assert deleted == {worst.number}
            assert checkpoint.exists() == remains
    finally:
        checkpoint.unlink(missing_ok=True)
