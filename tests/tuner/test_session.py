from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces import ConfigurationError, Targets, TrainingConfig, load_experiments
from studies import OutputFolder, TrialPhase, claim_next, default_storage_url, open_storage, study_terms
from tuner.display import Display
from tuner.session import Session, StudyPlace, with_overrides

WriteConfig = Callable[..., Path]
OUT = Path("training_output")


class Notes(Display):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.images: list[tuple[int, int]] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def dataset_progress(self, done: int, total: int) -> None:
        self.images.append((done, total))


def place(**changes: Any) -> StudyPlace:
    return StudyPlace(**{"output_dir": OUT, "study_name": "khmer-ocr", "storage": None, "device": "cpu"} | changes)


def opened(config: Path, display: Display, *, may_generate: bool = False) -> Session:
    file = load_experiments(config)
    return Session.open(
        place(),
        file.experiments,
        file.targets,
        file_order=list(file.experiments),
        may_generate=may_generate,
        display=display,
    )


def test_overrides_replace_what_is_given_and_leave_the_rest() -> None:
    experiments = {"one": TrainingConfig(seed=3, device="auto"), "two": TrainingConfig(seed=3, device="cpu")}
    assert with_overrides(experiments, seed=None, device=None) == experiments
    changed = with_overrides(experiments, seed=0, device="cuda")
    assert [(config.seed, config.device) for config in changed.values()] == [(0, "cuda")] * 2
    assert experiments["one"].seed == 3


@pytest.mark.usefixtures("in_tmp")
class TestStudyPlace:
    def test_a_place_that_can_be_used_is_checked_without_a_trace(self, tmp_path: Path) -> None:
        place().check()
        place(storage="sqlite:///training_output/other.db").check()
        assert list(tmp_path.iterdir()) == []

    def test_the_database_in_the_folder_is_checked_too(self) -> None:
        OUT.mkdir()
        (OUT / "study.db").write_text("no database, but long enough to be taken for one" * 100)
        with pytest.raises(ConfigurationError, match=r"study\.db is not a SQLite database"):
            place().check()

    def test_all_problems_come_at_once(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            place(storage="sqlite://", study_name="a/b", device="tpu").check()
        assert [problem.split(":")[0] for problem in caught.value.problems] == ["storage URL", "study name", "device"]


@pytest.mark.usefixtures("in_tmp")
class TestSession:
    def test_opening_enqueues_each_experiment_once(self, write_config: WriteConfig) -> None:
        config = write_config({"one": {}, "two": {"model": {"name": "tiny_ctc"}, "training": {"loss_type": "ctc"}}})
        for _ in range(2):
            session = opened(config, Notes())
        assert [trial.state.name for trial in session.study.get_trials()] == ["WAITING", "WAITING"]
        assert session.records() == []
        assert not session.failed()

    def test_work_ends_with_a_record_of_each_experiment(self, write_config: WriteConfig) -> None:
        (OUT / "two").mkdir(parents=True)
        (OUT / "two" / "checkpoints").write_text("a file where a folder should be")
        one_epoch = {"training": {"num_epochs": 1}}
        session = opened(write_config({"one": one_epoch, "two": one_epoch}), Notes())
        session.work()
        assert [(record.experiment_name, record.phase) for record in session.records()] == [
            ("one", TrialPhase.COMPLETED),
            ("two", TrialPhase.FAILED),
        ]
        assert session.failed()

    def test_only_the_experiments_of_the_run_are_worked_off(self, write_config: WriteConfig) -> None:
        opened(write_config({"one": {}}), Notes())
        later = opened(write_config({"two": {"training": {"num_epochs": 1}}}, file_name="two.yaml"), Notes())
        later.work()
        assert [trial.state.name for trial in later.study.get_trials()] == ["WAITING", "COMPLETE"]
        assert [record.experiment_name for record in later.records()] == ["two"]

    def test_what_another_process_trains_is_left_to_it_and_said(self, write_config: WriteConfig) -> None:
        notes = Notes()
        session = opened(write_config({"one": {}, "two": {"training": {"num_epochs": 1}}}), notes)
        held = claim_next(session.study, OutputFolder(OUT))
        assert held is not None
        with held:
            session.work()
        assert notes.texts == ["another process is training one"]
        assert [record.experiment_name for record in session.records()] == ["two"]

    def test_another_version_of_a_library_is_a_note(self, write_config: WriteConfig) -> None:
        config = write_config({"one": {}})
        study = opened(config, Notes()).study
        terms = study_terms(study).as_dict()
        terms["versions"]["torch"] = "1.0"
        study.set_user_attr("terms", terms)
        notes = Notes()
        opened(config, notes)
        (note,) = notes.texts
        assert note.startswith("the study was begun with torch 1.0")

    def test_a_dataset_may_move_between_runs(
        self, write_config: WriteConfig, tiny_dataset: Path, tmp_path: Path
    ) -> None:
        opened(write_config({"one": {}}), Notes())
        (tmp_path / "moved").symlink_to(tiny_dataset.parent)
        moved = write_config({"one": {"data": {"metadata_path": "moved/metadata.yaml"}}})
        session = opened(moved, Notes())
        session.work()
        assert [record.phase for record in session.records()] == [TrialPhase.COMPLETED]

    def test_targets_tell_when_an_experiment_converged(self, write_config: WriteConfig) -> None:
        config = write_config({"one": {}}, targets={"character_accuracy": 1e-9})
        assert load_experiments(config).targets == Targets(character_accuracy=1e-9)
        session = opened(config, Notes())
        session.work()
        outcome = session.records()[0].outcome
        assert outcome is not None
        assert outcome.converged_epoch == 1

    @pytest.mark.slow
    def test_the_default_dataset_is_made_where_it_is_missing(self, write_config: WriteConfig) -> None:
        notes = Notes()
        config = write_config({"one": {"data": {"metadata_path": "generated_data/metadata.yaml"}}})
        opened(config, notes, may_generate=True)
        assert Path("generated_data/metadata.yaml").is_file()
        assert notes.images[-1] == (6000, 6000)
        assert "no dataset at generated_data/metadata.yaml" in notes.texts[0]
        again = Notes()
        opened(config, again, may_generate=True)
        assert again.images == again.texts == []

    def test_the_study_can_be_opened_by_optuna_itself(self, write_config: WriteConfig) -> None:
        session = opened(write_config({"one": {"training": {"num_epochs": 1}}}), Notes())
        session.work()
        study = optuna.load_study(study_name="khmer-ocr", storage=open_storage(default_storage_url(OUT)))
        assert study.best_trial.user_attrs["experiment_name"] == "one"
        assert study.best_trial.params["learning_rate"] == 0.001
        # The space names its models; another stays an attribute.
        assert study.best_trial.user_attrs["outside_space"]["model_name"] == "tiny"
