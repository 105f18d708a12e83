import logging
import re
from dataclasses import asdict

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tuner.data.batches import TrainingData
from tuner.data.pixel_cache import open_pixel_cache
from tuner.data.vocabulary import Vocabulary
from tuner.training.recorder import TAGS, log_file

VOCABULARY = Vocabulary()
EOS, PAD, BLANK = VOCABULARY.special


# 32 images in batches of 8.
STEPS = 4


def curves(folder):
    """Return all curves that TensorBoard shows for an experiment: values keyed by step; steps must be unique."""
    events = events_of(folder)
    found = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        found[tag] = {point.step: point.value for point in points}
        assert len(found[tag]) == len(points), tag
    return found


def events_of(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def images(folder):
    """Return all plots that TensorBoard shows for an experiment, keyed by step; steps must be unique."""
    events = events_of(folder)
    found = {}
    for tag in events.Tags()["images"]:
        plots = events.Images(tag)
        found[tag] = {plot.step: plot.encoded_image_string for plot in plots}
        assert len(found[tag]) == len(plots), tag
    return found


def test_tensorboard_shows_every_documented_metric_and_the_final_readings_in_one_run(tiny_config, run, tmp_path):
    shown = []
    for _ in range(2):  # the second call trains nothing and adds no second readings
        result = run(tiny_config(use_tensorboard=True), tmp_path, on_plots=shown.append)
    assert {path.parent for path in tmp_path.rglob("*tfevents*")} == {tmp_path / "tensorboard"}
    assert images(tmp_path) == {
        "readings/worst": {2: shown[0]["worst_readings.png"]},
        "readings/confusion": {2: shown[0]["confusion_matrix.png"]},
    }
    found = curves(tmp_path)
    assert found.pop("model/parameters") == {0: result.parameters}
    assert found.keys() == {*TAGS.values(), "loss/train_step", "learning_rate_step"}
    for name, tag in TAGS.items():
        expected = {epoch.epoch: pytest.approx(epoch.value(name), rel=1e-6) for epoch in result.history}
        assert found[tag] == expected


def test_tensorboard_has_the_hyperparameters_and_the_end_of_the_run(tiny_config, run, tmp_path):
    config = tiny_config(use_tensorboard=True, num_epochs=1, learning_rate=0.00123, scheduler_type="steplr")
    run(config, tmp_path)
    contents = events_of(tmp_path).summary_metadata
    plugin = {
        tag: HParamsPluginData.FromString(data.plugin_data.content) for tag, data in contents.items() if "_hp" in tag
    }
    settings = plugin["_hparams_/session_start_info"].session_start_info.hparams
    assert settings["learning_rate"].number_value == pytest.approx(0.00123)
    assert settings["scheduler_type"].string_value == "steplr"
    assert "output_dir" not in settings
    compared = {metric.name.tag for metric in plugin["_hparams_/experiment"].experiment.metric_infos}
    assert compared == {"loss/val", "char_accuracy/val", "seq_accuracy/val"}
    assert "_hparams_/session_end_info" in plugin


def test_interruption_leaves_no_gap_and_no_duplicate_in_the_curves(tiny_config, run, interrupt, tmp_path):
    config = tiny_config(use_tensorboard=True, num_epochs=4, log_every_n_steps=1)
    interrupt(config, tmp_path, in_batch=3)
    interrupt(config, tmp_path, after_epoch=2)
    interrupt(config, tmp_path, in_batch=3)  # two steps of the unfinished epoch 3 are written
    result = run(config, tmp_path)
    found = curves(tmp_path)
    assert list(found.pop("model/parameters")) == [0]
    for tag in ("loss/train_step", "learning_rate_step"):
        assert list(found.pop(tag)) == list(range(4 * STEPS))
    for name, tag in TAGS.items():
        points = found.pop(tag)
        assert list(points) == [1, 2, 3, 4]
        assert list(points.values()) == pytest.approx([epoch.value(name) for epoch in result.history])
    assert not found


def test_epoch_without_events_is_added_when_the_training_is_resumed(tiny_config, run, interrupt, tmp_path):
    config = tiny_config(use_tensorboard=True, num_epochs=2)
    interrupt(config, tmp_path, after_epoch=1)
    for file in tmp_path.glob("tensorboard/events*"):
        file.unlink()
    (tmp_path / "metrics.jsonl").unlink()
    run(config, tmp_path)
    assert list(curves(tmp_path)["loss/val"]) == [1, 2]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3]), (3, [2, 3]), (100, [3])])
def test_steps_are_logged_every_n_steps_and_at_the_end_of_an_epoch(every, steps, tiny_config, run, tmp_path):
    run(tiny_config(use_tensorboard=True, num_epochs=1, log_every_n_steps=every), tmp_path)
    assert list(curves(tmp_path)["loss/train_step"]) == steps


def test_no_event_files_are_written_without_tensorboard(tiny_config, run, tmp_path):
    run(tiny_config(num_epochs=1, use_tensorboard=False), tmp_path)
    assert not (tmp_path / "tensorboard").exists()


def test_effective_configuration_is_saved_with_all_fields(tiny_config, run, tmp_path):
    config = tiny_config(num_epochs=1, experiment_name="ខ្មែរ")
    run(config, tmp_path)
    text = (tmp_path / "configs" / "training_config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == asdict(config)
    assert "ខ្មែរ" in text


@pytest.mark.parametrize("failing", [1, 2])
def test_epoch_that_ran_out_of_memory_leaves_no_duplicate_steps(failing, tiny_config, run, tmp_path):
    done_so_far = []

    def run_out_of_memory(done, total):
        done_so_far.append(done)
        if done == STEPS - 1 and done_so_far.count(done) == failing:
            raise MemoryError

    config = tiny_config(use_tensorboard=True, num_epochs=3, log_every_n_steps=1)
    assert run(config, tmp_path, on_batch=run_out_of_memory).micro_batch_size == config.batch_size // 2
    found = curves(tmp_path)
    assert list(found["model/parameters"]) == [0]
    assert list(found["loss/train_step"]) == list(range(3 * STEPS))
    assert list(found["loss/val"]) == [1, 2, 3]


def test_log_file_contains_the_messages_of_its_context(tmp_path):
    log = logging.getLogger("tuner.somewhere")
    for text in ("first", "second"):
        with log_file(tmp_path):
            log.info(text)
        log.info("in between")
    lines = (tmp_path / "logs" / "training.log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[2:] for line in lines] == [["INFO", "first"], ["INFO", "second"]]


def test_log_file_has_the_same_steps_as_tensorboard(tiny_config, run, tmp_path):
    config = tiny_config(use_tensorboard=True, num_epochs=2, log_every_n_steps=3)
    with log_file(tmp_path):
        run(config, tmp_path)
    found = curves(tmp_path)
    text = (tmp_path / "logs" / "training.log").read_text(encoding="utf-8")
    logged = re.findall(r"step (\d+): loss (\S+), lr (\S+)$", text, re.MULTILINE)
    # Every third step of an epoch, and the last step; TensorBoard counts from 0.
    assert [int(step) for step, _, _ in logged] == [3, 4, 7, 8]
    for tag, figures in (("loss/train_step", 1), ("learning_rate_step", 2)):
        expected = {int(line[0]) - 1: pytest.approx(float(line[figures]), rel=1e-2) for line in logged}
        assert found[tag] == expected


def test_log_file_escapes_file_names_that_are_not_utf8(tmp_path):
    with log_file(tmp_path):
        logging.getLogger("tuner.somewhere").info("cannot read %s", "image_\udcff.png")
    assert r"cannot read image_\udcff.png" in (tmp_path / "logs" / "training.log").read_text(encoding="utf-8")


def test_epoch_loss_is_the_mean_over_characters_not_over_batches(tiny_config, tiny_dataset, run, tmp_path):
    config = tiny_config(use_tensorboard=True, num_epochs=1, log_every_n_steps=1, batch_size=20)
    result = run(config, tmp_path)
    losses = list(curves(tmp_path)["loss/train_step"].values())
    cache = open_pixel_cache(tiny_dataset, ["train", "val"])
    batches = TrainingData.of(config, cache, torch.device("cpu")).train.epoch(1)
    counts = [int((labels != PAD).sum()) for _, labels in batches]
    mean = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert len(losses) == 2
    assert result.history[0].train_loss == pytest.approx(mean, rel=1e-5)
    assert result.history[0].train_loss != pytest.approx(sum(losses) / 2, rel=1e-6)


def test_full_disk_for_the_log_file_is_only_a_warning(disk, fill, caplog, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as the command line does
    log = logging.getLogger("tuner.somewhere")
    (disk / "logs").mkdir()
    (disk / "logs" / "training.log").touch()
    fill(disk, 0)
    with log_file(disk):
        log.info("not written")
    assert (
        f"{disk}/logs/training.log: the last log messages cannot be written ([Errno 28] No space left on device"
        in caplog.text
    )
