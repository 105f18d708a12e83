from dataclasses import replace

import pytest
from optuna_dashboard import get_note

import studies
from search_spaces import Targets, TrainingConfig
from studies.trials.claims import claim_next


@pytest.fixture
def claimed(start):
    study, folder = start({"ខ្មែរ_one": TrainingConfig(experiment_name="ខ្មែរ_one", learning_rate=0.00123)})
    claim = claim_next(study, folder)
    assert claim is not None
    return claim, folder


def test_note_of_a_running_trial_shows_its_progress(claimed):
    claim, folder = claimed
    studies.write_running_note(claim.trial, claim.record, studies.Progress(), folder)
    assert get_note(claim.trial).startswith("### ខ្មែរ\\_one: running\n")
    studies.write_running_note(claim.trial, claim.record, studies.Progress(12, 0.98765, 9, 8.123), folder)
    note = get_note(claim.trial)
    assert "| epochs | 12 of at most 40 |" in note
    assert "| best val_char_accuracy | **0.9877** in epoch 9 |" in note
    assert "| seconds per epoch | 8.12 |" in note
    assert f"`{folder.path}/ខ្មែរ_one/logs/training.log`" in note
    assert "tensorboard --logdi" in note
    assert "learning_rate 0.00123" in note


def test_note_of_a_finished_trial_shows_its_results_and_targets(claimed, outcome):
    claim, folder = claimed
    studies.save_targets(claim.trial.study, Targets(character_accuracy=0.85, sequence_accuracy=0.95))
    ended = replace(
        outcome, why_ended=studies.WhyEnded.EARLY_STOPPED, epoch_seconds_median=8.0, images_per_s_batch_1=500.0
    )
    studies.write_ended_note(claim.trial, claim.record, ended, 0.9, folder)
    claim.finish(ended, 0.9)
    note = get_note(claim.trial)
    for line in (
        "### ខ្មែរ\\_one: early stopped",
        "| best val_char_accuracy | **0.9000** in epoch 2 |",
        "| best sequence accuracy | 0.8000 |",
        "| final training loss | 0.2500 |",
        "| size and speed | 2.00 ms per image (batch 1) |",
        "| seconds per epoch | 8 |",
        "| target character_accuracy | met |",
        "| target sequence_accuracy | not met |",
    ):
        assert line in note.splitlines()


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("shapes do not fit", "RuntimeError: shapes do not fit"),
        ("``` </b> <script>alert(1)</script>", "RuntimeError: ''' </b> <script>alert(1)</script>"),
        ("ខ្មែរ" * 2000, "RuntimeError: ខ្មែរខ្មែរ"),
        ("first\nsecond", "second"),
    ],
)
def test_note_of_a_failed_trial_shows_its_error_as_literal_text_and_stays_short(claimed, outcome, message, shown):
    claim, folder = claimed
    failed = replace(outcome, why_ended=studies.WhyEnded.FAILED, error_type="RuntimeError", error_message=message)
    studies.write_ended_note(claim.trial, claim.record, failed, None, folder)
    note = get_note(claim.trial)
    assert len(note) <= 2045
    block = note.split("```")[1]
    assert shown in block
    assert note.count("```") == 2
    assert "TensorBoard" in note
    assert "target" not in note


def test_later_notes_have_higher_versions(claimed, outcome):
    claim, folder = claimed
    versions = []
    for progress in (studies.Progress(), studies.Progress(1, 0.5, 1, 1.0), studies.Progress(3, 0.5, 1, 1.0)):
        studies.write_running_note(claim.trial, claim.record, progress, folder)
        versions.append(_version(claim))
    studies.write_ended_note(claim.trial, claim.record, outcome, 0.9, folder)
    versions.append(_version(claim))
    assert versions == sorted(set(versions))


def _version(claim):
    study = claim.trial.study
    version = study._storage.get_study_system_attrs(study._study_id)[f"dashboard:{claim.trial._trial_id}:note_ver"]
    return version


def test_note_of_the_study_is_written_only_if_it_changed(start):
    study, folder = start({"one": TrainingConfig()})
    studies.write_study_note(study, folder)
    studies.save_targets(study, Targets(character_accuracy=0.85))
    studies.write_study_note(study, folder)
    note = get_note(study)
    assert "| metric | val_char_accuracy (max) |" in note
    assert "| target character_accuracy | 0.85 |" in note
    assert f"khmer-tuner status --output-dir {folder.path}" in note
    before = (folder.path / "study.db").read_bytes()
    studies.write_study_note(study, folder)
    assert (folder.path / "study.db").read_bytes() == before
