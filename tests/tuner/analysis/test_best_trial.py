import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces import ConfigurationError, TrainingConfig, load_search_space
from studies import (
    OutputFolder,
    StudyInvariants,
    TrialOutcome,
    WhyEnded,
    create_or_join_study,
    default_storage_url,
    enqueue_presets,
    load_study,
    open_storage,
)
from studies.trials.claims import claim_next
from tuner.analysis.best_trial import best_checkpoint, find_winner, winner_lines


def start_study(path, *names):
    invariants = StudyInvariants(
        monitor="val_char_accuracy",
        mode="max",
        seed=0,
        dataset={
            "fingerprint": "f00d",
            "train_split": "train",
            "val_split": "val",
            "metadata_path": "/data/metadata.yaml",
        },
        models={},
        versions={},
    )
    folder = OutputFolder(path)
    study = create_or_join_study(open_storage(default_storage_url(path)), "khmer-ocr", folder, invariants)
    experiments = {name: TrainingConfig(experiment_name=name) for name in names}
    enqueue_presets(study, folder, experiments, load_search_space("config/search_space.yaml"))
    return study, folder


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    """The folder of a study with two completed, one failed and one waiting trial; tests must not change it."""
    path = tmp_path_factory.mktemp("ended") / "training_output"
    study, folder = start_study(path, "good", "better", "failed", "waiting")
    outcomes = ((0.8, WhyEnded.MAX_EPOCHS), (0.9, WhyEnded.EARLY_STOPPED), (0.95, WhyEnded.FAILED))
    finish_next(study, folder, *outcomes)
    return path


def finish_next(study, folder, *outcomes, **known):
    """Finish the next trials with these accuracies; `known` are further fields of their outcomes."""
    for accuracy, why_ended in outcomes:
        claim = claim_next(study, folder)
        assert claim is not None
        checkpoint = folder.trial_dir(claim.record.experiment_name) / "checkpoints" / "best.pt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_text("weights")
        outcome = TrialOutcome(
            why_ended=why_ended,
            training_time_s=1.0,
            best_val_char_accuracy=accuracy,
            best_val_seq_accuracy=accuracy / 2,
            final_train_loss=0.1,
            total_epochs=3,
            best_epoch=2,
            **known,
        )
        # The monitored value is higher for trials with a lower accuracy.
        claim.finish(outcome, accuracy if not known else 1 - accuracy)


@pytest.fixture
def ended(finished_once, tmp_path):
    """The folder of a copy of the `finished_once` study; the test may change it."""
    return Path(shutil.copytree(finished_once, tmp_path / "moved"))


def test_best_checkpoint_is_that_of_the_best_trial_also_in_a_moved_folder(finished_once, ended):
    for path in (finished_once, ended):
        assert best_checkpoint(*load_study(path)) == path / "better" / "checkpoints" / "best.pt"
        winner = find_winner(*load_study(path))
        assert (winner.name, winner.record.number) == ("better", 1)


def test_study_without_a_completed_trial_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no trial of the study has completed yet"):
        best_checkpoint(*start_study(tmp_path, "waiting"))


def test_error_names_the_missing_checkpoint(ended):
    checkpoint = best_checkpoint(*load_study(ended))
    checkpoint.unlink()
    with pytest.raises(ConfigurationError, match=r"trial 'better' \(number 1, completed\) is missing") as caught:
        best_checkpoint(*load_study(ended))
    assert str(checkpoint) in str(caught.value)


def test_best_checkpoint_is_found_without_importing_torch(finished_once):
    program = (
        "import sys; from studies import load_study; from tuner.analysis.best_trial import best_checkpoint\n"
        "print(best_checkpoint(*load_study(sys.argv[1])).name, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(finished_once)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["best.pt", "False"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study whose more accurate trials are larger and slower; the last one was not measured."""
    study, folder = start_study(tmp_path_factory.mktemp("measured") / "out", "small", "medium", "large", "unmeasured")
    for accuracy, parameters, speed in ((0.7, 10_000, 1000.0), (0.8, 20_000, 400.25), (0.9, 40_000, 100.0)):
        known = {"parameters": parameters, "images_per_s_batch_1": speed}
        finish_next(study, folder, (accuracy, WhyEnded.MAX_EPOCHS), **known)
    finish_next(study, folder, (0.95, WhyEnded.MAX_EPOCHS), parameters=80_000)
    return study, folder


@pytest.mark.parametrize(
    ("limits", "name", "why", "leader"),
    [
        ({}, "unmeasured", "the highest validation character accuracy of 4 completed trials", "small"),
        (
            {"latency_ms": 10.0, "parameters": None},
            "large",
            "the highest validation character accuracy of 3 completed trials with at most 10 ms per image",
            "small",
        ),
        (
            {"latency_ms": 5.5, "parameters": 20_000},
            "medium",
            "the highest validation character accuracy of 2 completed trials with at most 5.5 ms per image and "
            "at most 20,000 parameters",
            "small",
        ),
        ({"parameters": 19_999}, "small", "the only completed trial with at most 19,999 parameters", None),
    ],
)
def test_winner_is_the_best_trial_within_the_limits(limits, name, why, leader, measured):
    winner = find_winner(*measured, **limits)
    assert (winner.name, winner.why, winner.leader) == (name, why, leader)
    shown = f"size        {winner.outcome.size_and_speed_text}"
    assert shown in winner_lines(winner)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"latency_ms": 0.5},
            r"found no completed trial with at most 0.5 ms per image; the lowest is 1 ms per image \(small\); "
            "use higher limits or none, or search among smaller models",
        ),
        ({"parameters": 9}, r"at most 9 parameters; the lowest is 10,000 parameters \(small\); use higher"),
        ({"latency_ms": 0.5, "parameters": 9}, r"\(small\); the lowest is 10,000 par"),
    ],
)
def test_limits_that_no_trial_meets_are_an_error_with_the_closest_trials(limits, message, measured):
    with pytest.raises(ConfigurationError, match=message):
        find_winner(*measured, **limits)


def test_lowest_value_of_the_error_is_accepted_as_a_limit(tmp_path):
    study = start_study(tmp_path, "one")
    finish_next(*study, (0.7, WhyEnded.MAX_EPOCHS), images_per_s_batch_1=581.4321)  # 1.719891...
    with pytest.raises(ConfigurationError, match=r"the lowest is 1.72 ms per image \(one\)"):
        find_winner(*study, latency_ms=1.0)
    assert find_winner(*study, latency_ms=1.72).name == "one"
    with pytest.raises(ConfigurationError, match="with at most 5 parameters; no trial has a measurement"):
        find_winner(*study, parameters=5)
