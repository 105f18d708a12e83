import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml

from search_spaces import (
    ConfigurationError,
    DataLoaderError,
    Targets,
    load_experiments,
    load_model_definitions,
)
from studies import (
    PrunerName,
    SamplerName,
    SearchRequest,
    TrialKind,
    TrialPhase,
    add_search_trials,
    default_storage_url,
    latest_records,
    open_storage,
    request_stop,
    search_budget,
    search_settings,
    study_invariants,
    study_space,
)
from studies.sampling.pruning import Pruning
from tuner.data.generation.dataset import generate_dataset
from tuner.display.events import Display
from tuner.session.run_options import RunOptions, StopConditions, TrialFilter
from tuner.session.run_request import RunRequest
from tuner.session.session import Session
from tuner.session.study_setup import ExistingStudy
from tuner.workers.loop import finished_trials, work

OUT = Path("training_output")
ONE_EPOCH = {"training": {"num_epochs": 1}}


def opened(config, display=None, *, may_generate=False, space=None, **options):
    run_options = RunOptions(space_file=None if space is None else str(space), **options)
    request = RunRequest.from_file(load_experiments(config), options=run_options)
    return Session.open(replace(request, may_generate=may_generate), display or Display())


def reopened(display=None, *, output_dir=OUT, name=None, **more):
    return Session.reopen(ExistingStudy.load(output_dir, name=name), display or Display(), **more)


def states(session):
    return [trial.state.name for trial in session.study.get_trials()]


@pytest.mark.usefixtures("in_tmp")
class TestOpen:
    def test_enqueues_each_experiment_once(self, write_config):
        config = write_config({"one": {}, "two": {"model": {"name": "tiny_ctc"}, "training": {"loss_type": "ctc"}}})
        for _ in range(2):
            session = opened(config)
        assert states(session) == ["WAITING", "WAITING"]
        assert search_settings(session.study) is None

    def test_studies_on_the_same_server_are_independent(self, write_config, new_database):
        url = new_database()
        sessions = []
        for number, name in enumerate(("khmer-ocr", "second")):
            config = write_config({"one": {"training": {"num_epochs": 1 + number}}})
            request = SearchRequest(sampler=[SamplerName.RANDOM, SamplerName.TPE][number], at_least=1)
            sessions.append(opened(config, output_dir=name, study_name=name, storage=url, search=request))
            if number == 0:
                request_stop(sessions[0].study)
        first, second = sessions
        assert first.stop_requested
        assert not second.stop_requested
        assert [record.training_config.num_epochs for record in latest_records(second.study)][:1] == [2]
        with pytest.raises(ConfigurationError, match="the study contains it with other settings"):
            opened(config, output_dir="khmer-ocr", storage=url)

    def test_changed_library_version_is_noted(self, write_config, make_watcher):
        config = write_config({"one": {}})
        study = opened(config).study
        invariants = study_invariants(study).as_dict()
        invariants["versions"]["torch"] = "1.0"
        study.set_user_attr("invariants", invariants)
        watcher = make_watcher()
        opened(config, watcher)
        (note,) = watcher.notes
        assert note.startswith("the study was created with torch 1.0")

    def test_dataset_can_move_between_runs(self, write_config, tiny_dataset, tmp_path):
        opened(write_config({"one": ONE_EPOCH}))
        (tmp_path / "moved").symlink_to(tiny_dataset.parent)
        session = opened(write_config({"one": ONE_EPOCH | {"data": {"metadata_path": "moved/metadata.yaml"}}}))
        work(session, TrialFilter(), StopConditions())
        assert states(session) == ["COMPLETE"]
        assert study_invariants(session.study).dataset["metadata_path"] == str(tmp_path / "moved" / "metadata.yaml")

    def test_targets_determine_the_converged_epoch(self, write_config):
        session = opened(write_config({"one": ONE_EPOCH}, targets={"character_accuracy": 1e-9}))
        assert session.context.targets == Targets(character_accuracy=1e-9)
        work(session, TrialFilter(), StopConditions())
        outcome = finished_trials(session, TrialFilter())[0].outcome
        assert outcome is not None
        assert outcome.converged_epoch == 1

    @pytest.mark.slow
    def test_missing_default_dataset_is_generated(self, write_config, make_watcher):
        watcher = make_watcher()
        config = write_config({"one": {"data": {"metadata_path": "generated_data/metadata.yaml"}}})
        opened(config, watcher, may_generate=True)
        assert Path("generated_data/metadata.yaml").is_file()
        assert watcher.images[-1] == (6000, 6000)
        assert "no dataset at generated_data/metadata.yaml" in watcher.notes[0]
        second_watcher = make_watcher()
        opened(config, second_watcher, may_generate=True)
        assert second_watcher.images == second_watcher.notes == []

    @pytest.mark.parametrize("changed", ["experiment", "space"])
    def test_conflict_with_the_study_is_reported_before_a_dataset_is_generated(
        self, changed, write_config, write_space, tmp_path
    ):
        opened(write_config({"one": {}}), space=write_space())
        default_dataset = {"data": {"metadata_path": "generated_data/metadata.yaml"}}
        more = {"training": {"batch_size": 4}} if changed == "experiment" else {}
        config = write_config({"one": default_dataset | more, "new": default_dataset})
        space = write_space(batch_size={"low": 8, "high": 32, "step": 8}) if changed == "space" else None
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        message = "batch_size was 8 and is 4 now" if changed == "experiment" else "batch_size was .* and is .* now"
        with pytest.raises(ConfigurationError, match=message):
            opened(config, may_generate=True, space=space)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    def test_study_can_be_loaded_by_optuna(self, write_config):
        work(opened(write_config({"one": ONE_EPOCH})), TrialFilter(), StopConditions())
        study = optuna.load_study(study_name="khmer-ocr", storage=open_storage(default_storage_url(OUT)))
        assert study.best_trial.user_attrs["experiment_name"] == "one"
        assert study.best_trial.user_attrs["config"]["learning_rate"] == 0.001

    def test_default_search_space_has_the_defined_models(self, write_config, make_watcher):
        session = opened(config := write_config({"one": ONE_EPOCH}))
        space = study_space(session.study)
        assert space.values_of("model_name") == ("tiny", "tiny_ctc")
        assert {"learning_rate", "warmup_epochs", "label_smoothing"} <= set(space.names)
        opened(config, display := make_watcher(), search=SearchRequest(at_least=1))
        assert display.notes == [
            "preset 'one': batch_size 8 is outside the search space (16 to 128, step 16); "
            "no search trial gets this value"
        ]
        work(session, TrialFilter(search=False), StopConditions())
        assert session.study.get_trials()[0].params["model_name"] == "tiny"

    def test_search_space_of_a_study_cannot_be_changed(self, write_config, write_space):
        config, space = write_config({"one": {"training": {"learning_rate": 0.02}}}), write_space()
        assert study_space(opened(config, space=space).study).values_of("learning_rate") == (1e-4, 0.02)  # widened
        for repeated in (None, space):
            assert study_space(opened(config, space=repeated).study).base == {"num_epochs": 2}
        other = write_space(base={"num_epochs": 3}, learning_rate={"low": 1e-4, "high": 1e-2}, scheduler_type=None)
        with pytest.raises(ConfigurationError) as caught:
            opened(config, space=other)
        message = "\n".join(caught.value.problems)
        for change in ("base num_epochs was 2 and is 3 now", "learning_rate was ", "scheduler_type was removed"):
            assert change in message
        assert "leave out --space" in message

    def test_model_definitions_can_be_added_but_not_changed(self, write_config, tiny_models, tmp_path):
        session = opened(write_config({"one": {}}))
        models = yaml.safe_load(tiny_models.read_text())["models"]

        def with_models(**changes):
            path = tmp_path / "models.yaml"
            path.write_text(yaml.safe_dump({"models": {**models, **changes}}))
            return write_config({"new": {"model": {"name": "tiny", "config_path": str(path)}}}, file_name="new.yaml")

        copy = session.context.folder.model_definitions_path
        before = copy.read_text()
        with pytest.raises(ConfigurationError, match=r"model 'tiny': width was 16 and is 20 now") as caught:
            opened(with_models(tiny=models["tiny"] | {"width": 20}, wide=models["tiny"]))
        assert "--output-dir" in str(caught.value)
        assert copy.read_text() == before
        opened(with_models(wide=models["tiny"] | {"width": 20}))
        assert load_model_definitions(copy)["wide"].width == 20
        assert list(study_invariants(reopened().study).definitions) == ["tiny", "tiny_ctc", "wide"]


@pytest.mark.usefixtures("in_tmp")
class TestReopen:
    def test_output_folder_suffices_to_reopen_a_study(self, write_config, write_space, tmp_path, monkeypatch):
        created = opened(write_config({"one": {}}, targets={"character_accuracy": 0.5}), space=write_space())
        add_search_trials(created.study, created.context.folder, SearchRequest(sampler=SamplerName.RANDOM, at_least=2))
        (tmp_path / "other_folder").mkdir()
        monkeypatch.chdir(tmp_path / "other_folder")
        session = reopened(output_dir=tmp_path / OUT)
        assert session.context.targets == Targets(character_accuracy=0.5)
        assert session.context.cache.metadata_path == created.context.cache.metadata_path
        settings = search_settings(session.study)
        assert settings is not None
        assert (settings.sampler, settings.start.num_epochs) == (SamplerName.RANDOM, 2)
        assert states(session) == ["WAITING"] * 3
        assert list((tmp_path / "other_folder").iterdir()) == []

    def test_output_folder_can_move(self, write_config, tmp_path):
        opened(write_config({"one": ONE_EPOCH}))
        shutil.move(tmp_path / OUT, tmp_path / "moved")
        session = reopened(output_dir=Path("moved"))
        work(session, TrialFilter(), StopConditions())
        assert states(session) == ["COMPLETE"]
        assert not OUT.exists()

    def test_without_a_study_nothing_is_created(self, tmp_path):
        message = "no such folder; choose the --output-dir of a study, or create one with `khmer-tuner run`"
        with pytest.raises(ConfigurationError, match=message):
            reopened()
        assert list(tmp_path.iterdir()) == []

    def test_unknown_device_is_rejected(self, write_config):
        opened(write_config({"one": {}}))
        with pytest.raises(ConfigurationError, match="device: found 'gpu'"):
            reopened(device="gpu")

    def test_name_of_another_study_is_rejected(self, write_config):
        opened(write_config({"one": {}}))
        with pytest.raises(ConfigurationError, match="belongs to the study 'khmer-ocr', not to 'mine'"):
            reopened(name="mine")
        assert reopened(name="khmer-ocr").study.study_name == "khmer-ocr"

    def test_missing_dataset_is_reported_with_a_remedy(self, write_config, tmp_path):
        metadata = generate_dataset(tmp_path / "mine", samples=10, test_samples=1)
        opened(write_config({"one": {"data": {"metadata_path": str(metadata)}}}))
        shutil.rmtree(metadata.parent)
        with pytest.raises(DataLoaderError, match=r"mine/metadata\.yaml: the dataset .* is missing; .*--config"):
            reopened()

    def test_changed_dataset_is_rejected(self, write_config, tmp_path):
        metadata = generate_dataset(tmp_path / "mine", samples=10, test_samples=1)
        config = write_config({"one": {"data": {"metadata_path": str(metadata)}}})
        opened(config)
        images = sorted((metadata.parent / "train").glob("*.png"))
        images[0].write_bytes(images[1].read_bytes())
        for open_again in (reopened, lambda: opened(config)):
            with pytest.raises(
                ConfigurationError, match=r"the dataset differs .* instead of .*; use the study's dataset"
            ):
                open_again()

    @pytest.mark.parametrize("is_known", [True, False])
    def test_changed_image_folder_is_named_if_its_images_differ(self, is_known, write_config, tmp_path, make_watcher):
        original, other = tmp_path / "generated_data", tmp_path / "set" / "generated_data"
        metadata = generate_dataset(original, samples=10, test_samples=1)
        other.mkdir(parents=True)
        shutil.copy(metadata, other)  # its images are those of the working directory as long as it has none
        config = write_config({"one": {"data": {"metadata_path": str(other / "metadata.yaml")}}})
        study = opened(config).study
        invariants = study_invariants(study)
        assert invariants.dataset["image_folder"] == str(original / "train")
        shutil.copytree(original / "train", other / "train")
        shutil.copytree(original / "val", other / "val")
        watcher = make_watcher()
        moved = study_invariants(reopened(watcher).study).dataset
        assert (watcher.notes, moved) == ([], {**invariants.dataset, "image_folder": str(other / "train")})
        known = {name: value for name, value in invariants.dataset.items() if is_known or name != "image_folder"}
        study.set_user_attr("invariants", invariants.as_dict() | {"dataset": known})
        images = sorted((other / "train").glob("*.png"))
        images[0].write_bytes(images[1].read_bytes())
        before = f"{original}/train" if is_known else "another folder (probably the working directory)"
        for open_again in (reopened, lambda: opened(config)):
            with pytest.raises(ConfigurationError) as caught:
                open_again()
            message = f"its images are in {other}/train, earlier in {before}; use the study's dataset"
            assert message in str(caught.value)

    def test_reopening_notes_changed_library_versions(self, write_config, make_watcher):
        study = opened(write_config({"one": {}})).study
        invariants = study_invariants(study).as_dict()
        study.set_user_attr("invariants", invariants | {"versions": invariants["versions"] | {"optuna": "4.0"}})
        watcher = make_watcher()
        reopened(watcher)
        assert [note.split(" and ")[0] for note in watcher.notes] == ["the study was created with optuna 4.0"]

    def test_copy_of_the_model_definitions_is_restored(self, write_config):
        copy = opened(write_config({"one": {}})).context.folder.model_definitions_path
        before = copy.read_text()
        copy.write_text("models: {}")
        reopened()
        assert copy.read_text() == before
        copy.unlink()
        reopened()
        assert copy.read_text() == before


@pytest.mark.usefixtures("in_tmp")
class TestSearch:
    def test_requested_number_of_search_trials_is_added(self, write_config, write_space):
        session = opened(write_config({"one": {}}), space=write_space())
        for request, expected in [
            (SearchRequest(at_least=2), 2),
            (SearchRequest(at_least=2), 2),
            (SearchRequest(at_least=1), 2),
            (SearchRequest(more=3), 5),
            (SearchRequest(at_least=6), 6),
        ]:
            add_search_trials(session.study, session.context.folder, request)
            assert search_budget(session.study) == expected
            kinds = [record.kind for record in latest_records(session.study)]
            assert kinds.count(TrialKind.SEARCH) == expected

    def test_search_starts_from_the_common_settings_of_the_presets(self, write_config):
        both = {"training": {"log_every_n_steps": 7}, "early_stopping": {"patience": 3}}
        session = opened(write_config({"one": both, "two": both | {"optimizer": {"type": "adamw"}}}))
        add_search_trials(session.study, session.context.folder, SearchRequest(at_least=1))
        settings = search_settings(session.study)
        assert settings is not None
        start = settings.start
        assert (start.early_stopping_patience, start.log_every_n_steps, start.optimizer_type) == (3, 7, "adam")
        assert start.num_epochs == 30  # from the built-in search space

    @pytest.mark.parametrize(
        ("search", "message"),
        [
            (SearchRequest(sampler=SamplerName.GP, more=1), "sampler random, not gp"),
            (SearchRequest(pruner=PrunerName.NONE, more=1), "pruner quantile, not none"),
            (SearchRequest(prune_share=0.25, more=1), f"prune_share {Pruning.prune_share}, not 0.25"),
            (SearchRequest(prune_grace=3, more=1), "prune_grace 2, not 3"),
        ],
    )
    def test_changed_search_settings_are_rejected(self, search, message, write_config, write_space):
        created = opened(write_config({"one": {}}), space=write_space())
        first = SearchRequest(sampler=SamplerName.RANDOM, prune_grace=2, at_least=1)
        add_search_trials(created.study, created.context.folder, first)
        session = reopened()
        with pytest.raises(ConfigurationError, match=f"(?s){message}.*--output-dir"):
            add_search_trials(session.study, session.context.folder, search)
        assert search_budget(session.study) == 1
        add_search_trials(session.study, session.context.folder, replace(first, at_least=0, more=1))
        assert search_budget(session.study) == 2


@pytest.mark.usefixtures("in_tmp")
@pytest.mark.parametrize("given", ["when created", "when reopened"])
def test_device_option_applies_to_search_trials(given, write_config, write_space, make_watcher):
    config = write_config({"one": ONE_EPOCH})
    created = opened(config, space=write_space(base={"num_epochs": 1}))
    add_search_trials(created.study, created.context.folder, SearchRequest(at_least=1))
    watcher = make_watcher()
    session = opened(config, watcher, device="auto") if given == "when created" else reopened(watcher, device="auto")
    work(session, TrialFilter(), StopConditions())
    assert {name: config.device for name, config in watcher.configs.items()} == {"one": "auto", "search_0001": "auto"}


@pytest.mark.usefixtures("in_tmp")
def test_trial_that_this_machine_cannot_train_stays_pending(write_config, write_space, monkeypatch):
    # As after moving from a machine with CUDA to one without.
    session = opened(write_config({"one": ONE_EPOCH}))
    (trial,) = session.study.get_trials()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = trial.user_attrs["config"] | {"device": "cuda"}
    session.study._storage.set_trial_user_attr(trial._trial_id, "config", config)
    with pytest.raises(ConfigurationError, match="device: found 'cuda'"):
        work(reopened(), TrialFilter(), StopConditions())
    (record,) = latest_records(reopened().study)
    assert record.phase is TrialPhase.RUNNING
    work(reopened(device="cpu"), TrialFilter(), StopConditions())
    (record,) = latest_records(reopened().study)
    assert record.phase is TrialPhase.COMPLETED
