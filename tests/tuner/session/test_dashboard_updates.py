from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from optuna_dashboard import get_note
from PIL import Image

from studies import OutputFolder, load_study
from studies.dashboard.artifacts import trial_artifacts
from studies.storage.optuna_private import continue_trial
from tuner import HyperparameterTuner
from tuner.session import dashboard_updates
from tuner.training import plots

OUT = Path("training_output")
PLOTS = {"learning_curves.png", "confusion_matrix.png", "worst_readings.png"}

pytestmark = pytest.mark.usefixtures("in_tmp")


def run(config, display=None):
    HyperparameterTuner(str(config), display=display).run_experiments()


def page_of(number):
    """Return the note of a trial in the dashboard, and its files keyed by name."""
    study, folder = load_study(OUT)
    trial = study.get_trials()[number]
    return get_note(continue_trial(study, trial)), trial_artifacts(trial, OutputFolder(folder.path))


def test_finished_trial_has_a_note_plots_and_settings(write_config):
    run(write_config({"one": {"training": {"learning_rate": 0.0042}}}, targets={"character_accuracy": 0.99}))
    note, files = page_of(0)
    assert note.startswith("### one: max epochs\n")
    assert "| target character_accuracy | not met |" in note
    assert files.keys() == {*PLOTS, "training_config.yaml"}
    for name in PLOTS:
        with Image.open(files[name]) as plot:
            assert plot.format == "PNG"
    assert yaml.safe_load(files["training_config.yaml"].read_text())["learning_rate"] == 0.0042


def test_study_note_shows_metric_and_targets(write_config):
    run(write_config({"one": {}}, targets={"character_accuracy": 0.99}))
    study, _ = load_study(OUT)
    note = get_note(study)
    assert "| metric | val_char_accuracy (max) |" in note
    assert "| target character_accuracy | 0.99 |" in note


def test_running_trial_updates_its_note_and_plots(write_config, make_watcher, monkeypatch):
    monkeypatch.setattr(plots, "_FRACTION", 1e9)  # after each epoch
    seen = []

    def read_page():
        note, files = page_of(0)
        seen.append((note.splitlines()[0], "| epochs | 1 of at most 3 |" in note, files["learning_curves.png"]))

    class Watcher(make_watcher):
        def trial_started(self, *arguments, **named):
            super().trial_started(*arguments, **named)
            self.files = []

        def batch(self, number, done, total):
            if done == 0 and self.epochs:
                read_page()
                self.files.append(seen[-1][2].read_bytes())

    watcher = Watcher()
    run(write_config({"one": {"training": {"num_epochs": 3}}}), watcher)
    assert [line for line, *_ in seen] == ["### one: running"] * 2
    assert [is_first for _, is_first, _ in seen] == [True, False]
    assert len({path for *_, path in seen}) == 1
    assert len(set(watcher.files)) == 2


def test_note_of_a_running_trial_shows_its_epochs(write_config, make_watcher, monkeypatch):
    monkeypatch.setattr(dashboard_updates, "time", SimpleNamespace(monotonic=lambda: 0.0))  # notes take no time
    monkeypatch.setattr(dashboard_updates, "_NOTE_EVERY_S", 0.0)
    rows = []

    class Watcher(make_watcher):
        def batch(self, number, done, total):
            if done == 0:
                rows.extend(line for line in page_of(0)[0].splitlines() if line.startswith("| epochs"))

    run(write_config({"one": {"training": {"num_epochs": 3}}}), Watcher())
    assert rows == [f"| epochs | {epochs} of at most 3 |" for epochs in range(3)]


def test_resumed_trial_keeps_one_file_of_each_kind(write_config, make_watcher):
    config = write_config({"one": {}})
    with pytest.raises(KeyboardInterrupt):
        run(config, make_watcher(after_epoch=1))
    assert page_of(0)[0].startswith("### one: running")
    run(config)
    assert page_of(0)[1].keys() == {*PLOTS, "training_config.yaml"}
    assert len(list((OUT / "artifacts").iterdir())) == 4


def test_unwritable_artifacts_do_not_fail_a_trial(write_config, caplog):
    config = write_config({"one": {}})
    OUT.mkdir()
    (OUT / "artifacts").touch()
    run(config)
    note, files = page_of(0)
    assert note.startswith("### one: max epochs\n")
    assert files == {}
    assert "learning_curves.png: cannot be saved for the dashboard" in caplog.text


def test_unsaved_artifacts_are_saved_later(write_config, make_watcher):
    OUT.mkdir()
    (OUT / "artifacts").touch()
    run(write_config({"one": {}}), make_watcher(after_epoch=1, action=(OUT / "artifacts").unlink))
    assert page_of(0)[1].keys() == {*PLOTS, "training_config.yaml"}


def test_note_of_a_failed_trial_shows_the_error(write_config, make_watcher):
    def raise_error():
        raise RuntimeError("simulated error")

    run(write_config({"one": {}, "two": {}}), make_watcher(after_epoch=1, action=raise_error))
    note, files = page_of(0)
    assert note.startswith("### one: failed\n")
    assert "RuntimeError: simulated error" in note
    assert files.keys() == {"training_config.yaml"}
    assert page_of(1)[0].startswith("### two: max epochs\n")
