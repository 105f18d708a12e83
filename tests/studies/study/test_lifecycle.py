import gc
import os
import warnings
from dataclasses import replace

import optuna
import pytest
from optuna.study import StudyDirection

import studies
from search_spaces import ConfigurationError, TrainingConfig

SMALL = {"decoder": "attention", "stem_channels": [4, 8], "stage_channels": [8], "width": 16}


def test_joining_again_returns_the_same_study(start, invariants):
    first, _ = start()
    second, _ = start()
    assert (first.study_name, first._study_id) == (second.study_name, second._study_id)
    assert studies.study_invariants(second) == invariants
    assert second.direction.name == "MAXIMIZE"
    assert second.metric_names == ["val_char_accuracy"]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"monitor": "val_loss"},
            "early_stopping.monitor was 'val_char_accuracy' when the study was created and is 'val_loss' now",
        ),
        ({"mode": "min"}, "early_stopping.mode was 'max' when the study was created and is 'min' now"),
        ({"seed": 7}, "training.seed was 0 when the study was created and is 7 now"),
        (
            {"models": {"small": SMALL | {"width": 96}, "large": SMALL}},
            "model 'small': width was 16 and is 96 now",
        ),
        (
            {"dataset": {"fingerprint": "beef", "train_split": "train", "val_split": "val"}},
            "the dataset differs from the study's (fingerprint 'beef' instead of 'f00d')",
        ),
        (
            {"dataset": {"fingerprint": "f00d", "train_split": "train", "val_split": "test"}},
            "the dataset's val_split was 'val' when the study was created and is 'test' now",
        ),
    ],
)
def test_other_invariants_are_refused_with_the_change_and_a_remedy(changes, message, start, invariants):
    study, _ = start()
    with pytest.raises(ConfigurationError) as caught:
        start(**changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith("study 'khmer-ocr': ")
    remedy = (
        "use the study's dataset (--metadata or 'data.metadata_path')"
        if "differs" in message
        else "restore the earlier value"
    )
    assert str(caught.value).endswith(f"; {remedy}, or start a new study with another --output-dir")
    assert studies.study_invariants(study) == invariants


def test_all_differences_are_reported_together(start):
    start()
    with pytest.raises(ConfigurationError) as caught:
        start(seed=1, mode="min", monitor="val_loss", models={"small": SMALL | {"width": 96, "decoder": "ctc"}})
    assert len(caught.value.problems) == 5


def test_new_models_are_added_to_the_study(start, invariants):
    start()
    study, _ = start(models={"mine": SMALL})
    assert studies.study_invariants(study).models == {"mine": SMALL, **invariants.models}
    # A later run may leave out models, but not change one that an earlier run added.
    start(models={})
    with pytest.raises(ConfigurationError, match=r"model 'mine': width was 16 and is 8 now"):
        start(models={"mine": SMALL | {"width": 8}})
    assert studies.study_invariants(study).definitions["mine"].width == 16


def test_equivalent_model_definition_is_accepted(start, invariants):
    start()
    study, _ = start(models={"small": SMALL | {"blocks_per_stage": 1, "stem_channels": (4, 8)}})
    assert studies.study_invariants(study).models == invariants.models


def test_dataset_may_be_moved_and_versions_may_change(start, invariants):
    start()
    moved = dict(invariants.dataset) | {"metadata_path": "/other/metadata.yaml"}
    newer = {"optuna": "5.0.0", "torch": "2.14.0"}
    study, folder = start(dataset=moved, versions=newer)
    # The study stores the latest location of the dataset.
    assert studies.study_invariants(study).dataset == moved
    assert studies.study_invariants(studies.load_study(folder.path)[0]).dataset == moved
    assert studies.version_notes(study, invariants) == ()
    assert studies.version_notes(study, replace(invariants, versions=newer)) == (
        "the study was created with torch 2.13.0 and now uses 2.14.0; results may differ slightly",
    )


@pytest.mark.sqlite
def test_joining_with_the_same_invariants_writes_nothing(start):
    _, folder = start()
    before = (folder.path / "study.db").read_bytes()
    start()
    assert (folder.path / "study.db").read_bytes() == before


@pytest.mark.parametrize("direction", list(StudyDirection)[1:])
def test_study_without_invariants_is_completed(tmp_path, start, direction):
    path = tmp_path / "out"
    path.mkdir()
    optuna.create_study(
        study_name="khmer-ocr", storage=studies.open_storage(studies.default_storage_url(path)), direction=direction
    )
    study, _ = start(path=path)
    assert study.direction.name == "MAXIMIZE"
    assert studies.study_invariants(study).monitor == study.metric_names[0] if study.metric_names else False


@pytest.mark.sqlite
def test_study_of_another_program_is_refused_and_unchanged(tmp_path, start):
    path = tmp_path / "out"
    path.mkdir()
    foreign = optuna.create_study(
        study_name="khmer-ocr", storage=studies.open_storage(studies.default_storage_url(path))
    )
    foreign.optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(ConfigurationError, match=r"another program, or by another version .*another --study name"):
        start(path=path)
    assert foreign.user_attrs == {}


@pytest.mark.sqlite
def test_study_that_another_process_completes_at_the_same_time_is_joined(tmp_path, start, monkeypatch):
    path = tmp_path / "out"
    path.mkdir()
    optuna.create_study(study_name="khmer-ocr", storage=studies.open_storage(studies.default_storage_url(path)))
    get_trials = optuna.Study.get_trials

    def get_trials_after_other_process(study, **options):
        monkeypatch.setattr(optuna.Study, "get_trials", get_trials)
        start({"one": TrainingConfig()}, path=path)
        return get_trials(study, **options)

    monkeypatch.setattr(optuna.Study, "get_trials", get_trials_after_other_process)
    study, _ = start({"one": TrainingConfig()}, path=path)
    assert optuna.Study.get_trials is get_trials
    assert [trial.user_attrs["experiment_name"] for trial in study.get_trials()] == ["one"]


def test_run_continues_after_a_kill_before_the_folder_was_claimed(tmp_path, start, monkeypatch):
    def kill(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studies.OutputFolder, "claim", kill)
        with pytest.raises(KeyboardInterrupt):
            start()
    assert studies.OutputFolder(tmp_path / "out").owner() is None
    study, folder = start()
    assert [found.study_name for found in optuna.get_all_study_summaries(study._storage)] == ["khmer-ocr"]
    assert studies.load_study(folder.path)[0].study_name == "khmer-ocr"
    # The study stores the id of its folder.
    assert study.user_attrs.get("folder", {"id": folder.owner().folder_id})["id"] == folder.owner().folder_id


def test_failed_creation_does_not_claim_the_folder(tmp_path, start, monkeypatch):
    def fail(*arguments, **options):
        raise optuna.exceptions.StorageInternalError("permission denied for sequence studies_study_id_seq")

    with monkeypatch.context() as patch:
        patch.setattr(optuna, "create_study", fail)
        with pytest.raises(optuna.exceptions.StorageInternalError):
            start()
    start(name="another")
    assert studies.load_study(tmp_path / "out")[0].study_name == "another"


def test_two_folders_cannot_share_a_study(tmp_path, start):
    url = studies.default_storage_url(tmp_path)
    start(path=tmp_path / "one", url=url)
    with pytest.raises(ConfigurationError) as caught:
        start(path=tmp_path / "two", url=url)
    assert f"belongs to the output folder {tmp_path}/one, not to {tmp_path}/two" in str(caught.value)
    assert not (tmp_path / "two").exists()
    start(path=tmp_path / "two", url=url, name="second")


def test_deleted_folder_can_be_replaced_at_the_same_path(tmp_path, start):
    url = studies.default_storage_url(tmp_path)
    _, folder = start(path=tmp_path / "one", url=url)
    (folder.internal / "owner.json").unlink()
    study, _ = start(path=tmp_path / "one", url=url)
    assert studies.load_study(tmp_path / "one")[0].study_name == study.study_name


def test_remedy_for_a_shared_storage_includes_the_study_name(tmp_path, start):
    url = studies.default_storage_url(tmp_path)
    start(url=url)
    with pytest.raises(ConfigurationError, match=r"another --output-dir and --study$"):
        start(url=url, seed=5)


class TestLoading:
    @pytest.mark.parametrize("exists", [False, True])
    def test_folder_without_a_study_is_refused_and_unchanged(self, tmp_path, exists):
        path = tmp_path / "out"
        if exists:
            path.mkdir()
        problem = (
            r"the folder contains no study \(the file .study/owner.json is missing\)"
            if exists
            else "there is no such folder"
        )
        with pytest.raises(ConfigurationError, match=rf"output folder {path}: {problem}; .*`khmer-tuner run`"):
            studies.load_study(path)
        assert path.exists() == exists
        assert not exists or os.listdir(path) == []

    def test_study_that_has_not_started_is_refused(self, tmp_path):
        folder = studies.OutputFolder(tmp_path)
        folder.claim("khmer-ocr", studies.default_storage_url(tmp_path))
        with pytest.raises(ConfigurationError, match=r"there is no study database"):
            studies.load_study(tmp_path)
        studies.open_storage(studies.default_storage_url(tmp_path))
        with pytest.raises(
            ConfigurationError, match=r"its study has not started yet; `khmer-tuner run` or `search` starts it"
        ):
            studies.load_study(tmp_path)

    def test_study_is_loaded_from_a_moved_folder(self, tmp_path, start):
        _, folder = start()
        moved = folder.path.rename(tmp_path / "moved")
        study, found = studies.load_study(moved)
        assert study.study_name == "khmer-ocr"
        assert found.path == moved

    @pytest.mark.sqlite
    def test_another_name_or_storage_is_refused(self, tmp_path, start):
        _, folder = start()
        with pytest.raises(ConfigurationError, match=r"belongs to the study 'khmer-ocr', not to 'mine'"):
            studies.load_study(folder.path, name="mine")
        with pytest.raises(ConfigurationError, match=r"is stored in sqlite:.*leave out --storage"):
            studies.load_study(folder.path, storage_url=studies.default_storage_url(tmp_path))
        assert studies.load_study(folder.path, name="khmer-ocr", storage_url=studies.default_storage_url(folder.path))

    def test_loaded_study_is_read_only(self, start):
        _, folder = start()
        study, _ = studies.load_study(folder.path)
        with pytest.raises(optuna.exceptions.StorageInternalError):
            study.set_user_attr("x", 1)


def test_no_warning_reaches_the_user(start, capfd):
    gc.collect()  # objects of other tests may warn when they are collected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start()
    assert capfd.readouterr() == ("", "")
