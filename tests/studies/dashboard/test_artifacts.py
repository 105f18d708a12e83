import io

import pytest
from optuna.artifacts import download_artifact, get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from search_spaces import TrainingConfig
from studies import load_study, save_artifact
from studies.dashboard.artifacts import ArtifactFolder, artifact_store, trial_artifacts
from studies.trials.claims import claim_next

IDENTIFIER = "0b9b51b1-6e5c-4b0e-8b0a-2f7f0c7f5a11"


def test_optuna_finds_saved_artifacts(start, tmp_path, outcome):
    study, folder = start({"one": TrainingConfig()})
    claim = claim_next(study, folder)
    save_artifact(claim.trial, folder, "learning_curves.png", b"first")
    save_artifact(claim.trial, folder, "training_config.yaml", b"seed: 0")
    save_artifact(claim.trial, folder, "learning_curves.png", b"second")
    claim.finish(outcome, 0.9)
    trial = study.get_trials()[0]
    meta = {item.filename: item for item in get_all_artifact_meta(study_or_trial=trial, storage=study._storage)}
    assert {name: item.mimetype for name, item in meta.items()} == {
        "learning_curves.png": "image/png",
        "training_config.yaml": "text/plain",
    }
    copy = tmp_path / "copy.png"
    identifier = meta["learning_curves.png"].artifact_id
    download_artifact(artifact_store=artifact_store(folder), artifact_id=identifier, file_path=str(copy))
    assert copy.read_bytes() == b"second"
    assert len(list((folder.path / "artifacts").iterdir())) == 2


def test_resumed_trial_replaces_its_artifacts(start):
    study, folder = start({"one": TrainingConfig()})
    for content in (b"before", b"after"):
        again, _ = load_study(folder.path)
        with claim_next(study if content == b"before" else start()[0], folder) or pytest.fail("nothing to do") as claim:
            save_artifact(claim.trial, folder, "worst_readings.png", content)
        (path,) = trial_artifacts(again.get_trials()[0], folder).values()
        assert path.read_bytes() == content
    assert len(study.get_trials()[0].system_attrs) == 1 + len(_fixed(study))


def _fixed(study):
    return [name for name in study.get_trials()[0].system_attrs if not name.startswith("artifacts:")]


def test_artifacts_of_the_same_name_are_separate_per_trial(start):
    study, folder = start({"one": TrainingConfig(), "two": TrainingConfig(learning_rate=0.5)})
    for content in (b"one", b"two"):
        claim = claim_next(study, folder)
        save_artifact(claim.trial, folder, "worst_readings.png", content)
    found = [trial_artifacts(trial, folder)["worst_readings.png"].read_bytes() for trial in study.get_trials()]
    assert found == [b"one", b"two"]


def test_artifact_without_its_file_is_not_listed(start):
    study, folder = start({"one": TrainingConfig()})
    claim = claim_next(study, folder)
    assert trial_artifacts(study.get_trials()[0], folder) == {}
    save_artifact(claim.trial, folder, "worst_readings.png", b"x")
    trial_artifacts(study.get_trials()[0], folder)["worst_readings.png"].unlink()
    assert trial_artifacts(study.get_trials()[0], folder) == {}


def test_artifact_uploaded_by_optuna_can_be_read_and_removed(start, tmp_path):
    study, folder = start({"one": TrainingConfig()})
    (tmp_path / "mine.png").write_bytes(b"mine")
    store = artifact_store(folder)
    identifier = upload_artifact(artifact_store=store, file_path=str(tmp_path / "mine.png"), study_or_trial=study)
    with store.open_reader(identifier) as file:
        assert file.read() == b"mine"
    store.remove(identifier)
    for access in (store.open_reader, store.remove):
        with pytest.raises(ArtifactNotFound):
            access(identifier)


@pytest.mark.parametrize(
    "identifier",
    [
        "../study.db",
        "/etc/passwd",
        "",
        ".",
        "study.db",
        IDENTIFIER.upper(),
        f"{{{IDENTIFIER}}}",
        f"{IDENTIFIER}/..",
        "\0",
    ],
)
def test_invalid_identifier_is_refused(identifier, tmp_path):
    store = ArtifactFolder(tmp_path / "artifacts")
    for access in (store.open_reader, store.remove, lambda name: store.write(name, io.BytesIO(b"x"))):
        with pytest.raises(ArtifactNotFound):
            access(identifier)
    assert list(tmp_path.iterdir()) == []


def test_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / IDENTIFIER).symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactNotFound):
        ArtifactFolder(tmp_path).open_reader(IDENTIFIER)
    ArtifactFolder(tmp_path).write(IDENTIFIER, io.BytesIO(b"new"))
    assert (tmp_path / "secret").read_text() == "secret"
