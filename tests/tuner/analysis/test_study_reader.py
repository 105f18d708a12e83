import shutil

import numpy as np
import pytest
from PIL import Image

from studies import load_study
from tuner import ConfigurationError, HyperparameterTuner, RunOptions, load_reader
from tuner.analysis.best_trial import find_winner


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory, configs_in):
    """The output folder of a finished study with two experiments; tests must not change it."""
    folder = tmp_path_factory.mktemp("study")
    config = configs_in(folder)({"one": {}, "two": {"optimizer": {"type": "adamw"}}})
    options = RunOptions(output_dir=folder / "out", results_file=str(folder / "results.json"))
    HyperparameterTuner(str(config), options=options).run_experiments()
    return folder / "out"


@pytest.fixture(scope="module")
def image(tiny_dataset):
    return tiny_dataset.parent / "test" / "test_000003.png"


def test_reader_of_a_study_uses_the_best_trial_and_reader_of_a_checkpoint_uses_its_trial(output_dir):
    winner = find_winner(*load_study(output_dir)).name
    assert load_reader(output_dir).config.experiment_name == winner
    assert load_reader(str(output_dir)).config.experiment_name == winner
    for name in ("one", "two"):
        assert load_reader(output_dir / name / "checkpoints" / "best.pt").config.experiment_name == name


def test_checkpoint_file_may_have_any_name(output_dir, tmp_path):
    shutil.copy(output_dir / "one" / "checkpoints" / "best.pt", tmp_path / "model")
    assert load_reader(tmp_path / "model").config.experiment_name == "one"


@pytest.mark.parametrize(
    ("source", "options", "problem"),
    [
        ("nothing", {}, "output folder .*nothing: there is no such folder"),
        ("nothing.pt", {}, "checkpoint nothing.pt: there is no such file; use a checkpoint"),
        ("{}", {"device": "tpu"}, "device: found 'tpu'; use one of auto, cpu, cuda"),
    ],
)
def test_invalid_source_is_refused(source, options, problem, output_dir):
    with pytest.raises(ConfigurationError, match=problem):
        load_reader(source.format(output_dir), **options)


def test_images_in_memory_are_read_like_their_files(output_dir, image):
    reader = load_reader(output_dir)
    (of_file,) = reader.read([image])
    with Image.open(image) as opened:
        colour = opened.convert("RGB")
        images = [opened, colour, np.asarray(colour), np.asarray(colour.convert("L")), np.asarray(colour, np.uint8)]
        readings = reader.read(images)
    assert [(reading.text, reading.confidence) for reading in readings] == [(of_file.text, of_file.confidence)] * 5
    assert [reading.path for reading in readings] == [None] * 5
    assert of_file.path == image


def test_single_image_is_read_without_a_list(output_dir, image):
    reader = load_reader(output_dir)
    with Image.open(image) as opened:
        opened.load()
    confidences = [reader.read(source)[0].confidence for source in (image, str(image), opened, np.asarray(opened))]
    assert confidences == [reader.read([image])[0].confidence] * 4
    assert len(reader.read(image.parent)) == 10


def test_reading_does_not_change_an_image_in_memory(output_dir, image):
    with Image.open(image) as opened:
        rotated = opened.transpose(Image.Transpose.ROTATE_90)
    rotated.getexif()[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    before = rotated.tobytes()
    (reading,) = load_reader(output_dir).read(rotated)
    assert (rotated.size, rotated.tobytes()) == ((64, 128), before)
    assert reading.confidence == load_reader(output_dir).read(image)[0].confidence


@pytest.mark.parametrize(
    "value", [np.zeros((0, 0), np.uint8), np.zeros((4, 64, 128, 3), np.uint8), np.zeros((8, 8), object), 5, None]
)
def test_invalid_image_has_a_problem_and_the_others_are_read(value, output_dir, image):
    first, second = load_reader(output_dir).read([value, image])
    assert "cannot be read as an image" in first.problem
    assert "expected a PIL image, or an array" in first.problem
    assert (first.path, first.text, second.problem) == (None, "", "")


def test_reading_with_flags_is_flagged(output_dir, image):
    with Image.open(image) as opened:
        square = opened.resize((64, 64))
    reading = load_reader(output_dir).read(square)[0]
    assert reading.flagged
    assert any(flag.startswith("aspect ratio 1.00 is") for flag in reading.flags)
