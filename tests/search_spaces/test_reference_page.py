"""`search_spaces/README.md` lists every key with its values and default, and its examples are valid files."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from search_spaces import ConfigurationError, TrainingConfig, load_experiments, load_model_definitions
from search_spaces.diagnostics.validation import expected_text
from search_spaces.diagnostics.wording import as_written
from search_spaces.experiments.schema import FIELD_OF_KEY, KEY_OF_FIELD, ONLY_FOR, SECTIONS, Targets
from search_spaces.model_definitions import LOSSES_OF_DECODER, ModelDefinition
from search_spaces.space.file import load_search_space, parse_search_space
from tuner.data.generation.dataset import generate_dataset
from tuner.data.metadata import read_metadata

PAGE = Path(__file__).parents[2] / "search_spaces" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")


def table(heading):
    """Return the rows of the table below a heading."""
    section = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(f"{heading}\n")]
    return [line for line in found.splitlines() if line.startswith(("| `", "| - "))]


def meanings(owner):
    """Return the description of each attribute in the docstring of a class, as Markdown."""
    text = re.sub(r"\n {12}", " ", owner.__doc__ or "")
    return {name: meaning.replace("``", "`") for name, meaning in re.findall(r"^ {8}(\w+): (.+)$", text, re.MULTILINE)}


def values(field):
    """Return the text that describes the valid values of a field in error messages."""
    return expected_text(field).removeprefix("expected ").removeprefix("a ").replace("000000.0", "000000")


def row(*cells):
    return f"| {' | '.join(cells)} |"


def check(heading, expected):
    """Compare a table with the code; the message has the rows to add or delete."""
    rows = table(heading)
    missing = [line for line in expected if line not in rows]
    stale = [line for line in rows if line not in expected]
    assert not missing, f"add to the table '{heading}' of {PAGE}, and delete outdated rows:\n" + "\n".join(missing)
    assert not stale, f"delete from the table '{heading}' of {PAGE}:\n" + "\n".join(stale)
    assert rows == expected, f"write the table '{heading}' of {PAGE} in this order:\n" + "\n".join(expected)


def use_in_a_space(field):
    """Return whether a search space can sample a setting, only fix it, or neither."""
    refused = []
    for data in ({"space": {field: "x"}}, {"base": {field: "x"}}):
        with pytest.raises(ConfigurationError) as error:
            parse_search_space(data)
        refused.append(
            any(
                problem.startswith((f"space.{field}: not allowed here", f"base.{field}: not allowed here"))
                for problem in error.value.problems
            )
        )
    return {(False, False): "sample", (True, False): "fix", (True, True): "no"}[refused[0], refused[1]]


def setting_row(section, key):
    field, model_field = FIELD_OF_KEY[section, key], SECTIONS[section].model_fields[key]
    meaning, default = meanings(TrainingConfig)[field], f"`{as_written(model_field.default)}`"
    if (section, key) in ONLY_FOR:
        owner, kind, needed = ONLY_FOR[section, key]
        meaning += f" Only with `{owner}.{kind}: {needed}`."
    first = ".".join(KEY_OF_FIELD[field])
    if first != f"{section}.{key}":
        meaning, default = f"Overrides `{first}`.", f"`{first}`"
    return row(f"`{section}.{key}`", f"`{field}`", values(model_field), default, use_in_a_space(field), meaning)


def field_row(name):
    """Return the row of a field without a key."""
    return row("-", f"`{name}`", "-", f"`{getattr(TrainingConfig(), name)}`", "no", meanings(TrainingConfig)[name])


def target_row(name):
    return row(f"`targets.{name}`", "-", values(Targets.model_fields[name]), "none", "-", meanings(Targets)[name])


def test_every_key_of_an_experiment_has_a_row():
    keys = [(section, key) for section, model in SECTIONS.items() for key in model.model_fields]
    without_key = [item.name for item in fields(TrainingConfig) if item.name not in KEY_OF_FIELD]
    settings = [setting_row(section, key) for section, key in keys]
    check("Experiments", [*settings, *map(field_row, without_key), *map(target_row, Targets.model_fields)])


def test_every_key_of_a_model_has_a_row():
    texts = meanings(ModelDefinition)
    defaults = {
        name: "required" if item.is_required() else f"`{item.default}`"
        for name, item in ModelDefinition.model_fields.items()
    }
    expected = [
        row(f"`{name}`", values(item), defaults[name], texts[name])
        for name, item in ModelDefinition.model_fields.items()
    ]
    check("Models", expected)
    for decoder, losses in LOSSES_OF_DECODER.items():
        assert f"decoder `{decoder}`: {', '.join(f'`{loss}`' for loss in losses)}" in TEXT


@pytest.mark.parametrize("shape", [{"low": 1, "high": 2}, {"choices": [1, 2]}])
def test_every_key_of_a_parameter_has_a_row(shape):
    with pytest.raises(ConfigurationError) as error:
        parse_search_space({"space": {"batch_size": {**shape, "zzz": 1}}})
    (known,) = re.findall(r"valid keys here: (.+)$", "\n".join(error.value.problems), re.MULTILINE)
    documented = {re.findall(r"`(\w+)`", line)[0]: line for line in table("Search space")}
    for key in known.split(", "):
        assert key in documented, f"add a row `{key}` to the table 'Search space' of {PAGE}"


def examples(heading):
    section = next(part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE) if part.startswith(f"{heading}\n"))
    return re.findall(r"^```yaml\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def test_examples_are_valid_files_without_warnings(tmp_path):
    loaded = {}
    for heading in ("Experiments", "Search space", "Models"):
        (text,) = examples(heading)
        loaded[heading] = tmp_path / f"{heading}.yaml"
        loaded[heading].write_text(text.replace("my_models.yaml", str(tmp_path / "Models.yaml")), encoding="utf-8")
    definitions = load_model_definitions(loaded["Models"])
    assert load_search_space(loaded["Search space"], definitions).warnings == ()
    file = load_experiments(loaded["Experiments"])
    assert file.messages == ()
    assert {config.model_name for config in file.experiments.values()} <= definitions.keys()


def test_every_key_of_a_generated_dataset_is_documented(tmp_path):
    metadata = yaml.safe_load(generate_dataset(tmp_path / "data", samples=10, test_samples=1).read_text("utf-8"))
    documented = {name for line in table("Dataset") for name in re.findall(r"`([\w.\[\]]+)`", line.split("|")[1])}
    splits = {f"{split}_samples" for split in ("train", "val", "test")}
    info = {f"dataset_info.{key}" for key in metadata["dataset_info"] if key not in splits}
    samples = {f"samples[].{key}" for key in metadata["train"]["samples"][0]}
    missing = (info | samples) - documented
    assert not missing, f"add to the table 'Dataset' of {PAGE} rows for {', '.join(sorted(missing))}"


def test_dataset_example_can_be_read(tmp_path):
    folder = generate_dataset(tmp_path / "my_data", samples=10, test_samples=1).parent
    (text,) = examples("Dataset")
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    read = read_metadata(folder / "metadata.yaml", ["train", "val"])
    assert {name: len(split.labels) for name, split in read.splits.items()} == {"train": 2, "val": 1}
