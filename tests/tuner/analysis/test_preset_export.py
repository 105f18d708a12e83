"""Export of the winner as a preset, which reproduces its training bit for bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search_spaces import (
    ConfigurationError,
    TrainingConfig,
    config_digest,
    load_experiments,
    load_model_definitions,
    name_problem,
)
from studies import OutputFolder, PrunerName, SearchRequest, TrialKind, ended_records, load_study
from tuner.analysis.best_trial import (
    best_preset,
    check_preset_path,
    find_winner,
    preset_name,
    winner_lines,
    write_preset,
)
from tuner.hyperparameter_tuner import HyperparameterTuner, RunOptions

TIMES = ("epoch_seconds", "memory_mb", "cpu_percent")
KINDS = ("preset", "search attention", "search ctc")


@pytest.fixture(scope="module")
def searched(tmp_path_factory, configs_in, spaces_in):
    """The output folder of a study with a preset and attention and CTC search trials; tests must not change it."""
    folder = tmp_path_factory.mktemp("searched")
    config = configs_in(folder)({"one": {"training": {"seed": 7, "learning_rate": 0.01}}}, targets=TARGETS)
    space = spaces_in(folder)(base={"num_epochs": 3, "early_stopping_patience": 2})
    HyperparameterTuner(
        str(config),
        options=RunOptions(
            output_dir=str(folder / "out"),
            results_file=str(folder / "results.json"),
            space_file=str(space),
            search=SearchRequest(pruner=PrunerName.NONE, at_least=5),
        ),
    ).run_experiments()
    return folder / "out"


TARGETS = {"character_accuracy": 0.5, "convergence_epochs": 2}


def winner_of_kind(output_dir, kind):
    """Return a winner of the study that is a trial of the given kind."""
    study, _ = load_study(output_dir)
    record = next(record for record in ended_records(study) if kind == kind_of(record))
    return replace(find_winner(*load_study(output_dir)), record=record)


def kind_of(record):
    if record.kind is TrialKind.PRESET:
        return "preset"
    return f"search {'ctc' if record.training_config.loss_type == 'ctc' else 'attention'}"


def epochs(folder):
    """Return the metrics of all epochs of a training run, without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]


@pytest.mark.parametrize("kind", KINDS)
def test_retraining_the_preset_gives_the_same_bits(kind, searched, tmp_path, monkeypatch):
    winner = winner_of_kind(searched, kind)
    (tmp_path / "copy").mkdir()
    preset = best_preset(winner, tmp_path / "copy" / "best.yaml")
    write_preset(preset, tmp_path / "copy" / "best.yaml", searched)
    monkeypatch.chdir(tmp_path)
    tuner = HyperparameterTuner("copy/best.yaml", options=RunOptions(output_dir="again", results_file="again.json"))
    tuner.run_experiments()
    assert epochs(tmp_path / "again" / preset.name) == epochs(searched / winner.name)
    assert preset.name == f"best_{winner.name}"


def test_preset_file_describes_the_winner_and_has_no_keys_without_effect(searched, tmp_path):
    winner = winner_of_kind(searched, "search ctc")
    out = tmp_path / "best.yaml"
    preset = best_preset(winner, out)
    write_preset(preset, out, searched)
    text = out.read_text(encoding="utf-8")
    assert [line for line in winner_lines(winner) if f"# {line}\n" not in text] == []
    assert str(winner.checkpoint) in text
    file = load_experiments(out)
    assert [note for note in file.notes if "no effect" in note] == []
    assert file.targets.model_dump(exclude_none=True) == TARGETS
    config = file.experiments[preset.name]
    assert config.seed == 7
    assert config.experiment_name == preset.name
    old, new = winner.record.training_config, config
    assert (new.learning_rate, new.batch_size, new.loss_type) == (old.learning_rate, old.batch_size, "ctc")


def test_preset_file_keeps_every_setting(searched, tmp_path):
    """Every field with an effect is in the file, with any value."""
    winner = winner_of_kind(searched, "preset")
    settings = TrainingConfig(
        model_name="tiny",
        batch_size=3,
        augmentation=False,
        mixed_precision=True,
        num_epochs=7,
        learning_rate=1e-5,
        weight_decay=0.0,
        gradient_clip_norm=0.25,
        loss_type="focal",
        focal_alpha=0.5,
        focal_gamma=1.5,
        optimizer_type="adamw",
        optimizer_betas=[0.8, 0.99],
        scheduler_type="plateau",
        min_lr=3e-7,
        patience=2,
        factor=0.3,
        early_stopping_patience=4,
        early_stopping_min_delta=0.01,
        early_stopping_monitor="val_loss",
        early_stopping_mode="min",
        seed=2**32 - 1,
    )
    record = replace(winner.record, config={name: getattr(settings, name) for name in vars(settings)})
    out = tmp_path / "preset.yaml"
    write_preset(best_preset(replace(winner, record=record), out), out, searched)
    (config,) = load_experiments(out).experiments.values()
    assert config_digest(config) == config_digest(replace(settings, threads=winner.outcome.threads))


def test_model_definitions_of_the_study_are_written_to_the_folder_of_the_preset(searched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    winner = winner_of_kind(searched, "preset")
    preset = best_preset(winner, Path("mine.yaml"))
    write_preset(preset, Path("mine.yaml"), searched)
    assert preset.models_path == tmp_path / "mine_models.yaml"
    assert load_model_definitions(tmp_path / "mine_models.yaml") == winner.invariants.definitions
    assert preset.config.model_config_path == str(tmp_path / "mine_models.yaml")
    printed = best_preset(winner, None)
    assert printed.models_path is None
    assert load_model_definitions(printed.config.model_config_path) == winner.invariants.definitions


def with_built_in_models(winner):
    built_in = load_model_definitions(TrainingConfig.model_config_path)
    models = {name: definition.model_dump(mode="json") for name, definition in built_in.items()}
    record = replace(winner.record, config=winner.record.config | {"model_name": "medium"})
    return replace(winner, record=record, invariants=replace(winner.invariants, models=models))


def test_built_in_models_need_no_file(searched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    winner = with_built_in_models(winner_of_kind(searched, "preset"))
    preset = best_preset(winner, Path("best.yaml"))
    assert preset.models_path is None
    assert preset.config.model_config_path == TrainingConfig.model_config_path
    # A file of that name in the working directory would take precedence over the built-in one.
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "model_config.yaml").write_text("models: {}\n")
    assert best_preset(winner, Path("best.yaml")).models_path == tmp_path / "best_models.yaml"


def test_changed_model_with_a_built_in_name_needs_a_file(searched, tmp_path):
    winner = with_built_in_models(winner_of_kind(searched, "preset"))
    models = {name: definition | {"width": 8} for name, definition in winner.invariants.models.items()}
    changed = replace(winner, invariants=replace(winner.invariants, models=models))
    assert best_preset(changed, tmp_path / "best.yaml").models_path == tmp_path / "best_models.yaml"


@pytest.mark.parametrize(
    ("experiment", "name"),
    [
        ("search_0007", "best_search_0007"),
        ("ខ្មែរ", "best_ខ្មែរ"),
        ("x" * 64, "best_" + "x" * 59),
        ("x" * 58 + " y", "best_" + "x" * 58),
        ("ខ" * 64, "best_" + "ខ" * 59),
    ],
)
def test_preset_names_are_valid(experiment, name):
    assert preset_name("best", experiment) == name
    assert name_problem(name) is None


def test_existing_file_of_another_program_is_not_overwritten(searched, tmp_path):
    out = tmp_path / "best.yaml"
    preset = best_preset(find_winner(*load_study(searched)), out)
    for _ in range(2):  # replaces its own files
        write_preset(preset, out, searched)
    for path in (out, tmp_path / "best_models.yaml"):
        own, other = path.read_bytes(), b"\xff\xfe of another program"
        path.write_bytes(other)
        with pytest.raises(ConfigurationError, match="so it is not overwritten"):
            write_preset(preset, out, searched)
        assert path.read_bytes() == other
        path.write_bytes(own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.yaml", "best_models.yaml"]


@pytest.mark.parametrize(("out", "message"), [(".", "this is a folder"), ("no/best.yaml", "there is no folder")])
def test_path_that_cannot_be_written_is_refused(out, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        check_preset_path(Path(out), "training_output")


def test_folder_name_with_line_breaks_stays_in_the_comments(searched, tmp_path):
    winner = replace(find_winner(*load_study(searched)), folder=OutputFolder(tmp_path / "a\nexperiments: {}\n# \udcff"))
    preset = best_preset(winner, tmp_path / "best.yaml")
    assert list(yaml.safe_load(preset.text)["experiments"]) == [preset.name]
    preset.text.encode("utf-8")
