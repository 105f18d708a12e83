from dataclasses import replace

import pytest

from search_spaces import ConfigurationError, TrainingConfig, load_model_definitions
from studies import OutputFolder, default_storage_url, study_invariants
from tuner.session.study_setup import current_invariants, invariants_of, join_study, with_overrides


def test_overrides_replace_only_the_given_settings():
    experiments = {"one": TrainingConfig(seed=3, device="auto"), "two": TrainingConfig(seed=3, device="cpu")}
    assert with_overrides(experiments, seed=None, device=None) == experiments
    changed = with_overrides(experiments, seed=0, device="cuda")
    assert [(config.seed, config.device) for config in changed.values()] == [(0, "cuda")] * 2
    assert experiments["one"].seed == 3


def test_joined_study_has_the_invariants_of_the_configuration(tiny_config, tmp_path):
    folder = OutputFolder(tmp_path / "out")
    invariants = invariants_of(tiny_config(seed=3), "f00d")
    study = join_study(default_storage_url(folder.path), "khmer-ocr", folder, invariants)
    original = study_invariants(study)
    assert (original.seed, original.monitor, original.dataset["fingerprint"]) == (3, "val_char_accuracy", "f00d")
    assert list(load_model_definitions(folder.model_definitions_path)) == ["tiny", "tiny_ctc"]
    with pytest.raises(ConfigurationError, match=r"training\.seed was 3 .* and is 4 now"):
        join_study(default_storage_url(folder.path), "khmer-ocr", folder, invariants_of(tiny_config(seed=4), "f00d"))


def test_added_models_are_written_to_the_study_copy_of_the_definitions(tiny_config, tmp_path):
    folder, url = OutputFolder(tmp_path / "out"), default_storage_url(tmp_path / "out")
    invariants = invariants_of(tiny_config(), "f00d")
    join_study(url, "khmer-ocr", folder, replace(invariants, models={"tiny": invariants.models["tiny"]}))
    assert list(load_model_definitions(folder.model_definitions_path)) == ["tiny"]
    join_study(url, "khmer-ocr", folder, invariants)
    assert set(load_model_definitions(folder.model_definitions_path)) == {"tiny", "tiny_ctc"}


def test_current_invariants_have_the_current_dataset_and_versions(tiny_config):
    original = replace(invariants_of(tiny_config(seed=3), "f00d"), versions={"torch": "1.0"})
    now = current_invariants(original, "beef", "/images")
    [change] = original.changes(now)
    assert change.startswith("the dataset differs from the study's (fingerprint 'beef' instead of 'f00d')")
    assert now.versions["torch"] != "1.0"
