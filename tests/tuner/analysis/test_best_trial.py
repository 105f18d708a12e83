from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import optuna
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
from tuner.analysis.best_trial import best_checkpoint, find_winner


def start_study(path: Path, *names: str) -> tuple[optuna.Study, OutputFolder]:
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
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with two completed, one failed and one waiting trial; tests must not change it."""
    path = tmp_path_factory.mktemp("ended") / "training_output"
    study, folder = start_study(path, "good", "better", "failed", "waiting")
    outcomes = ((0.8, WhyEnded.MAX_EPOCHS), (0.9, WhyEnded.EARLY_STOPPED), (0.95, WhyEnded.FAILED))
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
        )
        claim.finish(outcome, accuracy)
    return path


@pytest.fixture
def ended(finished_once: Path, tmp_path: Path) -> Path:
    """The folder of a copy of the `finished_once` study; the test may change it."""
    return Path(shutil.copytree(finished_once, tmp_path / "moved"))


def test_best_checkpoint_is_that_of_the_best_trial_also_in_a_moved_folder(finished_once: Path, ended: Path) -> None:
    for path in (finished_once, ended):
        assert best_checkpoint(*load_study(path)) == path / "better" / "checkpoints" / "best.pt"
        winner = find_winner(*load_study(path))
        assert (winner.name, winner.record.number) == ("better", 1)


def test_study_without_a_completed_trial_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no trial of the study has completed yet"):
        best_checkpoint(*start_study(tmp_path, "waiting"))


def test_error_names_the_missing_checkpoint(ended: Path) -> None:
    checkpoint = best_checkpoint(*load_study(ended))
    checkpoint.unlink()
    with pytest.raises(ConfigurationError, match=r"best trial, 'better' \(number 1\), is missing") as caught:
        best_checkpoint(*load_study(ended))
    assert str(checkpoint) in str(caught.value)


def test_best_checkpoint_is_found_without_importing_torch(finished_once: Path) -> None:
    program = (
        "import sys; from studies import load_study; from tuner.analysis.best_trial import best_checkpoint\n"
        "print(best_checkpoint(*load_study(sys.argv[1])).name, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(finished_once)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["best.pt", "False"]
