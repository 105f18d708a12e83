import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from search_spaces import ConfigurationError, DataLoaderError, ExperimentFailedError
from studies import PrunerName, RowState, SamplerName, SearchRequest, load_study, study_status
from studies.trials.claims import claim_next
from tuner import HyperparameterTuner
from tuner.data.generation.dataset import generate_dataset
from tuner.display.events import Display
from tuner.session.run_options import RunOptions
from tuner.training.checkpoints import load_checkpoint

OUT = Path("training_output")


def without_times(results):
    entries = [{**entry, "training_time": 0} for entry in results["all_results"]]
    best = results["best_result"] and {**results["best_result"], "training_time": 0}
    return {**results, "timestamp": "", "best_result": best, "all_results": entries}


def rows():
    return {row.name: row for row in study_status(*load_study(OUT)).rows}


def epochs_of(name):
    lines = (OUT / name / "metrics.jsonl").read_text().splitlines()
    times = ("epoch_seconds", "memory_mb", "cpu_percent")
    return [{key: value for key, value in json.loads(line).items() if key not in times} for line in lines]


def modification_times(folder=OUT):
    """Return the modification time of each file of the trials; readers may touch the database and the locks."""
    files = [path for path in folder.glob("*/**/*") if path.is_file() and ".study" not in path.parts]
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.usefixtures("in_tmp")
class TestRunExperiments:
    def test_call_returns_its_experiments_and_writes_all_experiments_of_the_study(self, write_config, read_results):
        config = write_config({"good": {"training": {"num_epochs": 4}}, "poor": {"training": {"learning_rate": 1e-6}}})
        options = RunOptions(results_file="r.json")
        tuner = HyperparameterTuner(str(config), options=options)
        first = tuner.run_experiments(["good"])
        second = tuner.run_experiments(["poor"])
        for name, results in (("good", first), ("poor", second)):
            assert [entry["experiment_name"] for entry in results["all_results"]] == [name]
            assert results["best_result"]["experiment_name"] == name
            assert results["experiments_completed"] == 1
        assert [entry["experiment_name"] for entry in read_results(Path("r.json"))["all_results"]] == ["good", "poor"]
        complete = HyperparameterTuner(str(config), options=options).run_experiments()
        # Nothing was trained, so the file is unchanged.
        assert read_results(Path("r.json")) | {"timestamp": ""} == complete | {"timestamp": ""}
        tuner.save_results()
        assert read_results(Path("r.json"))["experiments_completed"] == 2

    def test_returned_results_equal_the_written_results(self, write_config, read_results):
        config = write_config(
            {
                "with_attention": {"training": {"learning_rate": 0.002}, "optimizer": {"type": "adamw"}},
                "ខ្មែរ ctc": {"model": {"name": "tiny_ctc"}, "training": {"loss_type": "ctc", "num_epochs": 1}},
            }
        )
        results = HyperparameterTuner(str(config)).run_experiments()
        (file,) = Path().glob("hyperparameter_tuning_results_*.json")
        assert read_results(file) == results
        assert file.name == f"hyperparameter_tuning_results_{results['timestamp']}.json"
        assert results["experiments_completed"] == 2
        first, second = results["all_results"]
        assert (first["experiment_name"], second["experiment_name"]) == ("with_attention", "ខ្មែរ ctc")
        assert (first["total_epochs"], second["total_epochs"]) == (2, 1)
        assert first["hyperparameters"] == {
            "model_name": "tiny",
            "batch_size": 8,
            "learning_rate": 0.002,
            "weight_decay": 1e-4,
            "loss_type": "crossentropy",
            "scheduler_type": "steplr",
            "optimizer_type": "adamw",
        }
        assert list(results["best_result"]) == [key for key in first if key != "error_message"]
        epochs = epochs_of("with_attention")
        assert first["best_val_char_accuracy"] == max(epoch["val_char_accuracy"] for epoch in epochs)
        assert first["final_train_loss"] == epochs[-1]["train_loss"]

    def test_documented_files_are_written(self, write_config):
        config = write_config(
            {"one": {"training": {"num_epochs": 1, "save_every_n_epochs": 1, "use_tensorboard": True}}}
        )
        HyperparameterTuner(str(config)).run_experiments()
        assert (OUT / "study.db").is_file()
        checkpoints = sorted(path.name for path in (OUT / "one" / "checkpoints").iterdir())
        assert checkpoints == ["best.pt", "epoch_0001.pt"]
        for file in ("metrics.jsonl", "logs/training.log", "configs/training_config.yaml"):
            assert (OUT / "one" / file).stat().st_size > 0
        assert list((OUT / "one" / "tensorboard").glob("events.out.tfevents.*"))
        effective = yaml.safe_load((OUT / "one" / "configs" / "training_config.yaml").read_text())
        assert (effective["experiment_name"], effective["output_dir"]) == ("one", str(OUT.absolute()))

    def test_repeated_call_trains_nothing(self, write_config, make_watcher):
        config = str(write_config({"one": {}, "two": {"training": {"seed": 0}}}))
        first = HyperparameterTuner(config).run_experiments()
        before = modification_times()
        watcher = make_watcher()
        again = HyperparameterTuner(config, display=watcher).run_experiments()
        assert watcher.started == []
        assert modification_times() == before
        assert again | {"timestamp": ""} == first | {"timestamp": ""}

    def test_names_select_experiments_and_results_are_in_file_order(self, write_config):
        one_epoch = {"training": {"num_epochs": 1}}
        config = str(write_config({"one": one_epoch, "two": one_epoch, "three": one_epoch}))
        results = HyperparameterTuner(config).run_experiments(["three"])
        assert [entry["experiment_name"] for entry in results["all_results"]] == ["three"]
        results = HyperparameterTuner(config).run_experiments(["two", "one"])
        assert [entry["experiment_name"] for entry in results["all_results"]] == ["one", "two"]
        results = HyperparameterTuner(config).run_experiments()
        assert [entry["experiment_name"] for entry in results["all_results"]] == ["one", "two", "three"]

    def test_experiment_with_an_error_at_its_start_stays_pending_and_the_next_one_runs(
        self, write_config, read_results, make_watcher, fail
    ):
        config = str(write_config({"first": {}, "second": {"training": {"num_epochs": 1}}}))
        options, watcher = RunOptions(results_file="results.json"), make_watcher(in_batch=2, action=fail)
        results = HyperparameterTuner(config, options=options, display=watcher).run_experiments()
        assert read_results(Path("results.json")) == results
        (second,) = results["all_results"]
        assert (second["status"], second["error_message"]) == ("completed", "")
        assert results["best_result"]["experiment_name"] == "second"
        assert (rows()["first"].state, rows()["first"].why_ended) == (RowState.INTERRUPTED, None)
        results = HyperparameterTuner(config).run_experiments()
        assert [entry["status"] for entry in results["all_results"]] == ["completed", "completed"]
        assert not (OUT / "second" / "checkpoints" / "last.pt").exists()

    def test_log_of_a_failed_experiment_contains_the_traceback(self, write_config, make_watcher, fail):
        watcher = make_watcher(after_epoch=1, action=fail)
        HyperparameterTuner(str(write_config({"one": {}})), display=watcher).run_experiments()
        log = (OUT / "one" / "logs" / "training.log").read_text()
        assert "Traceback (most recent call last)" in log
        assert "RuntimeError: simulated error" in log

    @pytest.mark.parametrize("decay", [1.0, 10.0], ids=["after some epochs", "in the first validation"])
    def test_diverging_loss_fails_the_experiment_with_a_remedy(self, decay, write_config, read_results):
        diverging = {
            "training": {"num_epochs": 30, "learning_rate": 10.0, "weight_decay": decay},
            "optimizer": {"type": "adamw"},
        }
        results = HyperparameterTuner(
            str(write_config({"diverging": diverging})), options=RunOptions(results_file="r.json")
        ).run_experiments()
        (entry,) = read_results(Path("r.json"))["all_results"]
        assert entry["status"] == "failed"
        assert "lower learning_rate" in entry["error_message"]
        assert entry["total_epochs"] == len(epochs_of("diverging")) < 30
        assert all(math.isfinite(epoch["val_loss"]) for epoch in epochs_of("diverging"))
        assert (entry["final_train_loss"] is None) == (entry["total_epochs"] == 0)
        assert rows()["diverging"].why_ended == "nonfinite_loss"
        assert results["best_result"] is None
        checkpoints = {path.name for path in (OUT / "diverging").glob("checkpoints/*")}
        assert not {"last.pt", "previous.pt"} & checkpoints

    def test_each_epoch_reports_the_best_value_so_far(self, write_config):
        HyperparameterTuner(str(write_config({"one": {"training": {"num_epochs": 4}}}))).run_experiments()
        study, _ = load_study(OUT)
        (trial,) = study.get_trials()
        curve = [epoch["val_char_accuracy"] for epoch in epochs_of("one")]
        assert trial.intermediate_values == {n: max(curve[:n]) for n in range(1, 5)}
        assert trial.value == max(curve)
        assert trial.user_attrs["config"]["learning_rate"] == 0.001

    def test_monitor_determines_direction_and_value_of_the_study(self, write_config):
        monitored = {"early_stopping": {"monitor": "val_loss", "mode": "min"}}
        HyperparameterTuner(str(write_config({"one": monitored}))).run_experiments()
        study, _ = load_study(OUT)
        assert study.best_value == min(epoch["val_loss"] for epoch in epochs_of("one"))
        best = load_checkpoint(OUT / "one" / "checkpoints" / "best.pt")
        assert best["metrics"]["val_loss"] == study.best_value

    def test_experiments_have_separate_settings(self, write_config, make_watcher):
        watcher = make_watcher()
        config = write_config({"one": {"training": {"device": "auto", "log_every_n_steps": 7}}, "two": {}})
        HyperparameterTuner(str(config), display=watcher).run_experiments()
        assert [(name, config.device) for name, config in watcher.configs.items()] == [("one", "auto"), ("two", "cpu")]
        assert watcher.configs["one"].log_every_n_steps == 7

    def test_device_and_seed_of_the_options_override_the_file(self, write_config, make_watcher):
        watcher = make_watcher()
        config = write_config({"one": {"training": {"device": "auto", "num_epochs": 1}}})
        HyperparameterTuner(str(config), options=RunOptions(device="cpu", seed=5), display=watcher).run_experiments()
        assert (watcher.configs["one"].device, watcher.configs["one"].seed) == ("cpu", 5)


@pytest.mark.usefixtures("in_tmp")
class TestInterruption:
    def test_interruption_is_raised_even_if_the_results_cannot_be_written(self, write_config, make_watcher):
        config = str(write_config({"one": {}}))
        watcher = make_watcher(in_batch=3)
        Path("results").mkdir()
        tuner = HyperparameterTuner(config, options=RunOptions(results_file="results/r.json"), display=watcher)
        watcher.trial_started = lambda *arguments, **named: Path("results").rmdir()
        with pytest.raises(KeyboardInterrupt):
            tuner.run_experiments()
        assert "results were not written" in watcher.notes[-1]
        assert watcher.notes[-1].endswith("; `khmer-tuner export` writes them")

    # An epoch has four batches and five `batch` events: one before the first batch and one after each.
    @pytest.mark.parametrize(
        ("at", "finished"),
        [(3, []), (5 + 3, []), (10 + 3, ["one"])],
        ids=["first epoch", "second epoch", "second trial"],
    )
    def test_resumed_run_equals_an_uninterrupted_run(self, at, finished, write_config, read_results, make_watcher):
        config = str(write_config({"one": {}, "two": {"scheduler": {"type": "plateau", "patience": 0}}}))
        uninterrupted = HyperparameterTuner(config, options=RunOptions(output_dir="uninterrupted")).run_experiments()
        interrupted = make_watcher(in_batch=at)
        with pytest.raises(KeyboardInterrupt):
            HyperparameterTuner(
                config, options=RunOptions(results_file="partial.json"), display=interrupted
            ).run_experiments()
        assert interrupted.notes[-1] == "the results so far are in partial.json"
        finished_entries = read_results(Path("partial.json"))["all_results"]
        assert [entry["experiment_name"] for entry in finished_entries] == finished
        name = "two" if finished else "one"
        assert rows()[name].state is RowState.INTERRUPTED

        watcher = make_watcher()
        resumed = HyperparameterTuner(config, display=watcher).run_experiments()
        assert watcher.started[0] == (name, rows()[name].number, True)
        assert without_times(resumed) == without_times(uninterrupted)
        for experiment in ("one", "two"):
            resumed_best, expected = (
                load_checkpoint(folder / experiment / "checkpoints" / "best.pt")
                for folder in (OUT, Path("uninterrupted"))
            )
            assert all(torch.equal(resumed_best["model"][key], expected["model"][key]) for key in expected["model"])
            assert not (OUT / experiment / "checkpoints" / "last.pt").exists()
        reported = [trial.intermediate_values for trial in load_study(OUT)[0].get_trials()]
        assert reported == [trial.intermediate_values for trial in load_study("uninterrupted")[0].get_trials()]

    def test_settings_without_effect_on_the_result_may_change_before_resuming(self, write_config, make_watcher):
        with pytest.raises(KeyboardInterrupt):
            HyperparameterTuner(str(write_config({"one": {}})), display=make_watcher(in_batch=8)).run_experiments()
        config = write_config({"one": {"training": {"use_tensorboard": True, "save_every_n_epochs": 1}}})
        HyperparameterTuner(str(config)).run_experiments()
        assert (OUT / "one" / "tensorboard").is_dir()
        assert (OUT / "one" / "checkpoints" / "epoch_0002.pt").exists()

    def test_run_waits_for_the_experiment_of_another_process_and_takes_it_over(self, write_config, make_watcher):
        config = str(write_config({"one": {}, "two": {"training": {"num_epochs": 1}}}))
        with pytest.raises(KeyboardInterrupt):
            HyperparameterTuner(config, display=make_watcher(in_batch=8)).run_experiments()
        claim = claim_next(*load_study_for_work())
        assert claim is not None
        watcher = make_watcher()
        note = watcher.note

        def release_when_noted(text):
            note(text)
            assert watcher.finished == ["two"]
            if text.startswith("waiting"):
                claim.release()

        watcher.note = release_when_noted
        results = HyperparameterTuner(config, display=watcher).run_experiments()
        assert [(entry["experiment_name"], entry["status"]) for entry in results["all_results"]] == [
            ("one", "completed"),
            ("two", "completed"),
        ]
        assert watcher.notes == [
            f"waiting for the trials of {claim.record.attempts[-1].worker}; see `khmer-tuner status`",
        ]
        assert watcher.finished == ["two", "one"]


def load_study_for_work():
    """Open the study as a worker does; `load_study` only reads."""
    from optuna import load_study as open_study

    from studies import DEFAULT_STUDY_NAME, OutputFolder, default_storage_url, open_storage

    storage = open_storage(default_storage_url(OUT))
    return open_study(study_name=DEFAULT_STUDY_NAME, storage=storage), OutputFolder(OUT)


@pytest.mark.usefixtures("in_tmp")
class TestRefusals:
    @pytest.fixture
    def config_with_study(self, write_config):
        """Train a study with one experiment; return the configuration file."""
        config = write_config({"one": {"training": {"num_epochs": 1}}})
        HyperparameterTuner(str(config)).run_experiments()
        return config

    def test_changed_preset_is_refused_with_difference_and_remedy(self, config_with_study, write_config):
        before = modification_times()
        changed = write_config({"one": {"training": {"num_epochs": 3}}, "new": {}}, file_name="changed.yaml")
        with pytest.raises(
            ConfigurationError, match=r"num_epochs.* was 1 and is 3 now.*rename the experiment.*--output-dir"
        ):
            HyperparameterTuner(str(changed)).run_experiments()
        assert modification_times() == before
        assert set(rows()) == {"one"}

    @pytest.mark.parametrize(
        ("sections", "difference"),
        [
            ({"training": {"seed": 1}}, "training.seed was 0 .* is 1 now"),
            ({"early_stopping": {"monitor": "val_loss"}}, "early_stopping.monitor was 'val_char_accuracy'"),
            ({"early_stopping": {"mode": "min"}}, "early_stopping.mode was 'max'"),
            ({"data": {"val_split": "test"}}, "the dataset's val_split was 'val'"),
        ],
    )
    def test_different_fixed_settings_are_refused(self, sections, difference, config_with_study, write_config):
        before = modification_times()
        with pytest.raises(ConfigurationError, match=f"(?s){difference}.*--output-dir"):
            HyperparameterTuner(str(write_config({"other": sections}, file_name="other.yaml"))).run_experiments()
        assert modification_times() == before
        assert set(rows()) == {"one"}

    def test_another_dataset_is_refused(self, config_with_study, write_config, tmp_path):
        other = generate_dataset(tmp_path / "other" / "generated_data", samples=20, test_samples=1, seed=9)
        config = write_config({"other": {"data": {"metadata_path": str(other)}}}, file_name="other.yaml")
        with pytest.raises(ConfigurationError, match="the dataset differs from the study's"):
            HyperparameterTuner(str(config)).run_experiments()

    def test_changed_model_definitions_are_refused(self, config_with_study, write_config, tiny_models, tmp_path):
        changed = tmp_path / "changed_models.yaml"
        changed.write_text(tiny_models.read_text().replace("width: 16", "width: 24"))
        config = write_config({"other": {"model": {"config_path": str(changed)}}}, file_name="other.yaml")
        with pytest.raises(ConfigurationError, match="model 'tiny': width was 16 and is 24 now"):
            HyperparameterTuner(str(config)).run_experiments()

    def test_another_study_name_is_refused_in_the_same_folder(self, config_with_study):
        with pytest.raises(ConfigurationError, match="belongs to the study 'khmer-ocr', not to 'mine'"):
            HyperparameterTuner(str(config_with_study), options=RunOptions(study_name="mine")).run_experiments()

    def test_folder_is_not_created_if_the_study_in_the_storage_has_another_folder(self, write_config, tmp_path):
        config = str(write_config({"one": {"training": {"num_epochs": 1}}}))
        shared = f"sqlite:///{tmp_path / 'shared.db'}"
        HyperparameterTuner(config, options=RunOptions(output_dir="a", storage=shared)).run_experiments()
        with pytest.raises(ConfigurationError, match="belongs to the output folder"):
            HyperparameterTuner(config, options=RunOptions(output_dir="b", storage=shared)).run_experiments()
        assert not Path("b").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"storage": "sqlite://"}, "an in-memory database is lost"),
            ({"storage": "sqlite:///no/such/folder/x.db"}, "no/such/folder does not exist"),
            ({"storage": "mysql://host/db"}, "does not begin with a known scheme"),
            ({"study_name": "../x"}, r"study name: found '\.\./x'"),
            ({"device": "gpu"}, "device: found 'gpu'"),
            ({"results_file": "no/such/results.json"}, "no folder .*no/such"),
            ({"results_file": "."}, "this is a folder"),
            ({"search": SearchRequest(SamplerName.GP, PrunerName.QUANTILE)}, "does not learn from pruned trials"),
            ({"output_dir": "experiments.yaml"}, "is a file"),
        ],
    )
    def test_invalid_options_create_nothing(self, arguments, message, write_config, tmp_path):
        tuner = HyperparameterTuner(str(write_config({"one": {}})), options=RunOptions(**arguments))
        with pytest.raises(ConfigurationError, match=message):
            tuner.run_experiments()
        assert [path.name for path in tmp_path.iterdir()] == ["experiments.yaml"]

    def test_all_problems_with_the_location_are_reported_together(self, write_config):
        tuner = HyperparameterTuner(
            str(write_config({"one": {}})), options=RunOptions(storage="sqlite://", study_name="..", device="gpu")
        )
        with pytest.raises(ConfigurationError) as caught:
            tuner.run_experiments()
        assert len(caught.value.problems) == 3

    def test_missing_dataset_is_reported_and_nothing_is_created(self, write_config, tmp_path):
        config = write_config({"one": {"data": {"metadata_path": "missing/metadata.yaml"}}})
        with pytest.raises(DataLoaderError, match=r"missing/metadata\.yaml"):
            HyperparameterTuner(str(config)).run_experiments()
        assert [path.name for path in tmp_path.iterdir()] == ["experiments.yaml"]

    def test_unreadable_image_is_reported_and_nothing_is_created(self, write_config, tmp_path):
        metadata = generate_dataset(tmp_path / "mine", samples=10, test_samples=1)
        (tmp_path / "mine" / "train" / "train_000003.png").write_bytes(b"not an image")
        config = write_config({"one": {"data": {"metadata_path": str(metadata)}}})
        with pytest.raises(DataLoaderError, match=r"train_000003\.png"):
            HyperparameterTuner(str(config)).run_experiments()
        assert not OUT.exists()

    def test_unknown_or_no_experiment_names_are_refused(self, write_config):
        tuner = HyperparameterTuner(str(write_config({"baseline": {}, "fast": {}})))
        with pytest.raises(ConfigurationError) as caught:
            tuner.run_experiments(["basline", "fsat"])
        assert len(caught.value.problems) == 2
        assert "'baseline'" in caught.value.problems[0]
        with pytest.raises(ConfigurationError, match="found an empty list of names"):
            tuner.run_experiments([])
        assert not OUT.exists()


@pytest.mark.usefixtures("in_tmp")
class TestSingleExperiment:
    def sections(self, config):
        sections = yaml.safe_load(config.read_text())["experiments"]["one"]
        return sections

    def test_entry_of_the_experiment_is_returned(self, write_config):
        config = write_config({"one": {"training": {"num_epochs": 1}}})
        entry = HyperparameterTuner(str(config)).run_single_experiment("mine", self.sections(config))
        assert (entry["experiment_name"], entry["status"], entry["total_epochs"]) == ("mine", "completed", 1)
        (file,) = Path().glob("hyperparameter_tuning_results_*.json")
        assert json.loads(file.read_text())["all_results"] == [entry]

    def test_errors_and_failures_are_raised_and_recorded(self, write_config, make_watcher, fail):
        config, watcher = write_config({"one": {}}), make_watcher(in_batch=2, action=fail)
        with pytest.raises(ExperimentFailedError, match=r"'mine': still pending after an error"):
            HyperparameterTuner(str(config), display=watcher).run_single_experiment("mine", self.sections(config))
        assert rows()["mine"].state is RowState.INTERRUPTED
        watcher = make_watcher(after_epoch=1, action=fail)
        with pytest.raises(ExperimentFailedError, match=r"'mine' failed: simulated error"):
            HyperparameterTuner(str(config), display=watcher).run_single_experiment("mine", self.sections(config))
        assert rows()["mine"].state is RowState.FAILED

    @pytest.mark.parametrize(
        ("name", "sections", "message"),
        [
            ("../mine", {}, r"'\.\./mine'"),
            ("mine", {"training": {"batch_size": "many"}}, "batch_size"),
            ("mine", {"optimiser": {}}, "did you mean 'optimizer'"),
            ("mine", {"experiment_name": "other"}, "experiment_name"),
        ],
    )
    def test_invalid_settings_are_refused(self, name, sections, message, write_config):
        tuner = HyperparameterTuner(str(write_config({"one": {}})))
        with pytest.raises(ConfigurationError, match=message):
            tuner.run_single_experiment(name, sections)
        assert not OUT.exists()


@pytest.mark.usefixtures("in_tmp")
class TestConfiguration:
    def test_default_file_is_the_built_in_file_and_nothing_is_created(self, tmp_path):
        tuner = HyperparameterTuner()
        assert list(tuner.config["experiments"]) == ["conservative_small", "baseline_optimized", "high_learning_rate"]
        assert tuner.config["targets"]["character_accuracy"] == 0.85
        assert tuner.load_config("config/phase3_simple_configs.yaml") == tuner.config
        tuner.validate_config(tuner.config)
        assert list(tmp_path.iterdir()) == []

    def test_missing_file_is_an_error(self):
        with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
            HyperparameterTuner("missing.yaml")

    def test_invalid_yaml_is_an_error(self, tmp_path):
        (tmp_path / "invalid.yaml").write_text("experiments: {one: [}")
        with pytest.raises(yaml.YAMLError, match=r"invalid\.yaml"):
            HyperparameterTuner("invalid.yaml")

    def test_invalid_configuration_is_a_value_error_with_all_problems(self):
        tuner = HyperparameterTuner()
        with pytest.raises(ValueError, match="experiments"):
            tuner.validate_config({})
        bad = {"experiments": {"one": {"training": {"batch_size": 0, "learning_rate": -1}}}}
        with pytest.raises(ConfigurationError) as caught:
            tuner.validate_config(bad)
        assert len(caught.value.problems) == 2

    def test_results_can_be_saved_without_a_run(self, write_config, read_results):
        config = str(write_config({"one": {"training": {"num_epochs": 1}}}))
        with pytest.raises(ConfigurationError, match="create one with `khmer-tuner run`"):
            HyperparameterTuner(config).save_results()
        results = HyperparameterTuner(config, options=RunOptions(results_file="first.json")).run_experiments()
        path = HyperparameterTuner(config, options=RunOptions(results_file="later.json")).save_results()
        assert path == str(Path("later.json").absolute())
        assert read_results(Path(path)) | {"timestamp": ""} == results | {"timestamp": ""}


@pytest.mark.usefixtures("in_tmp")
def test_summary_contains_the_number_of_training_images(write_config):
    class SummaryRecorder(Display):
        def run_ended(self, summary):
            self.images = summary.training_images

    display = SummaryRecorder()
    config = write_config({"one": {"training": {"num_epochs": 1}}})
    HyperparameterTuner(str(config), display=display).run_experiments()
    assert display.images == 32
