"""Commands read the images of the named dataset, even if the working directory contains another dataset."""

import shutil

import pytest

from studies import load_study, study_invariants
from tuner import HyperparameterTuner
from tuner.data.pixel_cache import open_pixel_cache
from tuner.session.run_options import RunOptions


@pytest.fixture
def unreadable_dataset(working_dir, tiny_dataset):
    """A dataset in the working directory with the same file names, whose images are unreadable."""
    other = working_dir / "generated_data"
    shutil.copytree(tiny_dataset.parent, other, ignore=shutil.ignore_patterns(".pixel_cache"))
    for image in other.glob("*/*.png"):
        image.write_bytes(b"no image")
    return other


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    """The metadata file of a copy of the tiny dataset without cached pixels."""
    folder = tmp_path / "elsewhere" / "generated_data"
    return shutil.copytree(tiny_dataset.parent, folder, ignore=shutil.ignore_patterns(".pixel_cache")) / "metadata.yaml"


@pytest.mark.usefixtures("unreadable_dataset")
def test_every_command_reads_the_images_of_the_named_dataset(cli, write_config, dataset, tiny_dataset, tmp_path):
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
        cli.ok(*command)
    study, _ = load_study("training_output")
    trained_on = study_invariants(study).dataset
    assert trained_on["fingerprint"] == open_pixel_cache(tiny_dataset, ["train", "val"]).fingerprint
    assert trained_on["image_folder"] == str(dataset.parent / "train")


def test_models_in_the_folder_of_the_experiments_are_found_from_any_folder(
    cli, write_config, tiny_models, tmp_path, monkeypatch, working_dir
):
    models, config = tmp_path / "my_models.yaml", write_config({"one": {}, "two": {}})
    shutil.copy(tiny_models, models)
    config.write_text(config.read_text().replace(str(tiny_models), models.name))
    cli.ok("validate", config)
    cli.ok("run", "--config", "../experiments.yaml", "--experiments", "one")
    tuner = HyperparameterTuner(str(config), options=RunOptions(output_dir="of_a_program"))
    tuner.validate_config(tuner.config)
    assert tuner.run_single_experiment("one", tuner.config["experiments"]["one"])["status"] == "completed"
    (tmp_path / "third").mkdir()
    monkeypatch.chdir(tmp_path / "third")
    cli.ok("run", "--config", config, "--output-dir", working_dir / "training_output")
    models.unlink()
    added = cli("search", "--output-dir", working_dir / "training_output", "--trials", "1")
    assert (added.code, "search_0002" in added.out) == (0, True)
    assert f"looked for {tmp_path}/third/my_models.yaml and {models} and " in cli.error("validate", config)
