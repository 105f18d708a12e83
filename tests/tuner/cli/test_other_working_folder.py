"""Commands in a folder that has a dataset of its own read the images of the dataset that they are given."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies import load_study, study_invariants
from tuner.data.pixel_cache import open_pixel_cache


@pytest.fixture
def own_dataset(here: Path, tiny_dataset: Path) -> Path:
    """A dataset in the working directory, of the same names, whose images cannot be read."""
    own = here / "generated_data"
    shutil.copytree(tiny_dataset.parent, own, ignore=shutil.ignore_patterns(".pixel_cache"))
    for image in own.glob("*/*.png"):
        image.write_bytes(b"no image")
    return own


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Path:
    """The metadata file of a copy of the tiny dataset, of which nothing is cached yet."""
    folder = tmp_path / "elsewhere" / "generated_data"
    return shutil.copytree(tiny_dataset.parent, folder, ignore=shutil.ignore_patterns(".pixel_cache")) / "metadata.yaml"


@pytest.mark.usefixtures("own_dataset")
def test_every_command_that_reads_a_dataset_reads_its_own_images(cli, write_config, dataset, tiny_dataset, tmp_path):
    one_epoch = {"training": {"num_epochs": 1}}
    config = write_config({"one": one_epoch, "two": {"training": {"num_epochs": 1, "learning_rate": 0.002}}})
    config.write_text(config.read_text().replace(str(tiny_dataset), str(dataset)))
    link = tmp_path / "labels.yaml"
    link.symlink_to(dataset)
    for command in (
        ["validate", config],
        ["run", "--config", config, "--dry-run"],
        ["run", "--config", config],
        ["enqueue", "--trials", "1"],
        ["worker", "--metadata", link],
        ["search", "--trials", "1"],
        ["resume"],
        ["evaluate", "--metadata", dataset],
        ["evaluate", "--metadata", link],
        ["confirm", "--top", "2", "--seeds", "1"],
    ):
        shutil.rmtree(dataset.parent / ".pixel_cache", ignore_errors=True)
        done = cli(*command)
        assert done.code == 0, (command, done.err)
    study, _ = load_study("training_output")
    trained_on = study_invariants(study).dataset
    assert trained_on["fingerprint"] == open_pixel_cache(tiny_dataset, ["train", "val"]).fingerprint
    assert trained_on["image_folder"] == str(dataset.parent / "train")
