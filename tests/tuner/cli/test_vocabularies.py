"""All commands on datasets with other characters, or with the digits in another order."""

import json
import shutil
from pathlib import Path

import matplotlib
import pytest
import yaml

from studies import load_study, study_invariants
from tuner.data.generation.dataset import generate_dataset
from tuner.data.vocabulary import KHMER_DIGITS
from tuner.inference.checkpoint_reader import reader_of_checkpoint
from tuner.training.history import best_checkpoint_path

LETTERS = "zyxwvutsrqponmlkjihgfedcba"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """The metadata file of 48 images of up to twelve Latin letters and 10 images of an unseen design."""
    fonts = tmp_path_factory.mktemp("fonts")
    for file in Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuSans*.ttf"):
        shutil.copy(file, fonts)
    return generate_dataset(
        tmp_path_factory.mktemp("letters") / "letters",
        samples=60,
        test_samples=10,
        characters=LETTERS,
        max_length=12,
        fonts_dir=fonts,
        hold_out_fonts=1,
    )


def with_dataset(config, tiny_dataset, metadata):
    config.write_text(config.read_text().replace(str(tiny_dataset), str(metadata)))
    return config


def test_every_command_works_with_other_characters(cli, write_config, write_space, tiny_dataset, letters):
    config = with_dataset(
        write_config({"one": {}, "two": {"training": {"learning_rate": 0.002}}}), tiny_dataset, letters
    )
    plan = cli("run", "--config", config, "--dry-run")
    assert f"characters: {LETTERS} (vocab_size 29, max_sequence_length 13)" in plan.out
    assert "vocab_size 29" in cli("validate", config).out
    ran = cli.ok("run", "--config", config, "--trials", "1", "--space", write_space())
    assert "; on unseen designs: char 0." in ran.out
    for command in (["search", "--trials", "1"], ["enqueue", "--trials", "1"], ["resume"], ["worker"]):
        cli.ok(*command)
    study, folder = load_study("training_output")
    assert study_invariants(study).dataset["vocab_size"] == 29
    shown = json.loads(cli("show", "one", "--json").out)
    assert (shown["config"]["vocab_size"], shown["config"]["max_sequence_length"]) == (29, 13)
    assert 0 <= shown["outcome"]["unseen_char_accuracy"] <= 1
    assert "on unseen designs: char 0." in cli("show", "one").out
    reader = reader_of_checkpoint(best_checkpoint_path(folder.trial_dir("one")))
    assert "".join(reader.vocabulary.characters) == LETTERS
    scored = json.loads(cli("evaluate", "--metadata", letters, "--split", "unseen", "--json").out)
    assert (list(scored["by_character"]), len(scored["confusion"])) == (list(LETTERS), 27)
    test = json.loads(cli("evaluate", "--metadata", letters, "--json").out)
    assert not scored["by_font"].keys() & test["by_font"].keys()
    table = cli("evaluate", "--metadata", letters).out
    assert "12 characters" in table
    assert [line.split()[0] for line in table.splitlines() if line[:1] in LETTERS and line[1:2] == " "] == list(LETTERS)
    readings = json.loads(cli("predict", "--json", letters.parent / "test").out)
    assert len(readings) == 10
    assert {character for reading in readings for character in reading["text"]} <= set(LETTERS)
    best = cli("best", "--out", "best.yaml")
    assert "unseen      char 0." in best.out
    # The preset takes the vocabulary from whatever dataset it is used with.
    assert "vocab_size" not in Path("best.yaml").read_text()
    cli.ok("run", "--config", "best.yaml", "--output-dir", "again")
    cli.ok("confirm", "--top", "2", "--seeds", "1")
    cli.ok("report", "--out", "report.html")
    assert "on unseen designs: char 0." in Path("report.html").read_text()
    cli.ok("export", "--format", "csv", "--results-file", "trials.csv")


def test_digits_in_another_order_are_read_as_the_same_text(cli, write_config, tiny_dataset, tmp_path):
    """A model trained on a dataset with reversed digits reads a dataset with the usual order equally well."""
    folder = shutil.copytree(
        tiny_dataset.parent, tmp_path / "other_tool" / "data", ignore=shutil.ignore_patterns(".pixel_cache")
    )
    metadata = folder / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text(encoding="utf-8"))
    content["dataset_info"]["character_set"] = list(reversed(KHMER_DIGITS))
    metadata.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    config = with_dataset(write_config({"one": {}}), tiny_dataset, metadata)
    cli.ok("run", "--config", config)
    own, usual = (json.loads(cli("evaluate", "--metadata", path, "--json").out) for path in (metadata, tiny_dataset))
    same = ("samples", "loss", "char_accuracy", "seq_accuracy", "by_length", "by_character")
    assert {key: own[key] for key in same} == {key: usual[key] for key in same}
    assert own["char_accuracy"] > 0
    # The study keeps its dataset: the same labels with other class numbers are another dataset.
    refused = cli("resume", "--metadata", tiny_dataset)
    assert (refused.code, "the dataset differs from the study's" in refused.err) == (2, True)


@pytest.mark.parametrize("command", [["validate"], ["run", "--config"], ["run", "--dry-run", "--config"]], ids=" ".join)
def test_sizes_that_differ_from_the_dataset_are_refused(command, cli, write_config, letters, tiny_dataset):
    model = {"vocab_size": 13, "max_sequence_length": 9}
    config = with_dataset(write_config({"one": {"data": {}}, "two": {}}), tiny_dataset, letters)
    content = yaml.safe_load(config.read_text())
    content["experiments"]["two"]["model"] |= model
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    refused = cli.error(*command, config)
    for key, right in (("vocab_size", 29), ("max_sequence_length", 13)):
        line = 1 + next(number for number, text in enumerate(config.read_text().splitlines()) if key in text)
        where = f"{config}:{line}: experiments.two.model.{key}: found {model[key]}; expected {right}, as in the dataset"
        assert f"{where} {letters}; use {right}, or remove this line" in refused
    assert not Path("training_output").exists()
    content["experiments"]["two"]["model"] |= {"vocab_size": 29, "max_sequence_length": 13}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    cli.ok("validate", config)


def test_model_is_not_scored_on_characters_that_it_does_not_read(cli, run_study, letters):
    refused = cli.error("evaluate", "--metadata", letters, "--output-dir", run_study.folder)
    assert f"{letters}: split 'test': the labels have 'a' (U+0061)" in refused
    assert f"the model reads up to 8 of the characters {KHMER_DIGITS}" in refused


def test_damaged_split_of_unseen_designs_is_refused_before_a_study_is_created(
    cli, write_config, tiny_dataset, letters, tmp_path
):
    folder = shutil.copytree(letters.parent, tmp_path / "letters", ignore=shutil.ignore_patterns(".pixel_cache"))
    config = with_dataset(write_config({"one": {}}), tiny_dataset, folder / "metadata.yaml")
    assert "all images read: train 48, val 12, unseen 10" in cli("validate", config).out
    (folder / "unseen" / "unseen_000003.png").unlink()
    for command in (["validate", config], ["run", "--config", config]):
        refused = cli(*command)
        assert (refused.code, "unseen.samples[3]: its image does not exist" in refused.err) == (2, True)
    assert not Path("training_output", "study.db").exists()


def test_labels_too_long_for_a_ctc_model_are_reported(cli, write_config, tiny_dataset, tmp_path):
    folder = tmp_path / "long"
    generate_dataset(folder, samples=20, test_samples=1, characters="1", max_length=24)
    metadata = folder / "metadata.yaml"
    models = ("tiny", "crossentropy"), ("tiny_ctc", "ctc")
    for model, loss in models:
        experiment = {"model": {"name": model}, "training": {"loss_type": loss, "num_epochs": 1}}
        config = with_dataset(write_config({model: experiment}, file_name=f"{model}.yaml"), tiny_dataset, metadata)
        content = yaml.safe_load(config.read_text())
        content["experiments"][model]["model"]["name"] = model
        content["experiments"][model]["training"] |= {"loss_type": loss, "num_epochs": 1}
        config.write_text(yaml.safe_dump(content))
        ran = cli.ok("run", "--config", config, "--output-dir", model)
        assert ("training labels have more than 32 characters" in ran.err) == (loss == "ctc")
