"""The examples in the docstrings of the Python API run as written, one after another in the same folder."""

import inspect
import os
import re
import shutil
import textwrap
from pathlib import Path

import pytest

import tuner

# The output of each example as a regular expression; the other examples have tests of their own below.
PRINTED = {
    "ConfigurationError": r"experiments\.one\.training\.batch_size: found 0; .*\n",
    "DataLoaderError": r".*/missing/metadata\.yaml: .*\n",
    "ExperimentFailedError": r"experiment 'too_fast' failed: .* lower learning_rate.*\n",
    "ModelCreationError": r"model_name: found 'huge'; .*\n",
    "TrainingConfig": r"64 60 adam\n",
    "create_data_loaders": r"4 \(8, 1, 64, 128\) \(8, 9\)\n",
    "create_loss_function": r"\d\.\d+\n",
    "create_model_from_config": r"\(2, 9, 13\) \d{6,7}\n",
    "create_optimizer": r"AdamW 0\.002\n",
    "create_scheduler": r"0\.00025\n",
    "create_training_config": r"small 64 0\.002\n",
    "setup_training_environment": r"training on cpu, mixed precision: False\n",
}
TESTED_BELOW = ["HyperparameterTuner", "ProgressDisplay", "SearchRequest", "load_reader"]
WITHOUT_EXAMPLE = ["RunOptions"]  # the example of HyperparameterTuner uses it


def example(name):
    """Return the code below `Example::` in the docstring of an API name."""
    found = re.search(r"^Example::\n\n((?: .*\n|\n)+)", f"{inspect.getdoc(getattr(tuner, name))}\n", re.MULTILINE)
    assert found, f"the docstring of {name} has no example"
    return textwrap.dedent(found[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_dataset, configs_in, spaces_in):
    """A working directory with experiments, a search space and a dataset, in which the first example has run."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(tiny_dataset.parent, folder / "generated_data")
    configs_in(folder)({"one": {}, "two": {"optimizer": {"type": "adamw"}}})
    spaces_in(folder)(base={"num_epochs": 1})
    before = Path.cwd()
    os.chdir(folder)
    exec(example("HyperparameterTuner"), {})
    yield folder
    os.chdir(before)


@pytest.mark.parametrize("name", sorted({*tuner.__all__} - {*TESTED_BELOW, *WITHOUT_EXAMPLE}))
def test_example_runs_and_prints_as_expected(name, folder, capsys):
    exec(example(name), {})
    printed = capsys.readouterr().out
    assert re.fullmatch(PRINTED[name], printed), printed


def test_search_request_adds_that_number_of_search_trials(folder):
    exec(example("SearchRequest"), {})
    names = {path.parent.name for path in folder.glob("search_output/search_*/metrics.jsonl")}
    assert names == {"search_0002", "search_0003", "search_0004", "search_0005"}
    options = tuner.RunOptions(output_dir="search_output", search=tuner.SearchRequest(more=1))
    results = tuner.HyperparameterTuner("experiments.yaml", options=options).run_experiments()
    assert results["all_results"][-1]["experiment_name"] == "search_0006"


@pytest.mark.parametrize("name", ["sampler", "pruner"])
def test_unknown_sampler_or_pruner_is_refused(name):
    known = {"sampler": "tpe", "pruner": "quantile"}
    assert getattr(tuner.SearchRequest(**{name: known[name]}), name).value == known[name]
    with pytest.raises(tuner.ConfigurationError, match=rf"^{name}: found 'x{known[name]}'; did you mean"):
        tuner.SearchRequest(**{name: f"x{known[name]}"})


def test_display_example_prints_each_epoch(folder, capsys):
    code = example("ProgressDisplay").replace("epoch_seconds > 30", "epoch_seconds > 0")
    shutil.rmtree(folder / "training_output")
    exec(code.replace("took {metrics.epoch_seconds:.0f} s", "was slow"), {})
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.endswith("was slow")] == [
        f"trial {number}: epoch {epoch} was slow" for number in (0, 1) for epoch in (1, 2)
    ]
    assert sum(" 2/2  char " in line for line in lines) == 2


def test_reader_example_prints_one_line_per_image(folder, capsys):
    exec(example("load_reader"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert "generated_data/test/test_000000.png" in lines[0]
    assert "generated_data/val/val_000007.png" in lines[8]
