import pytest

from search_spaces import (
    ConfigurationError,
    TrainingConfig,
    load_overridden,
    override,
    parse_overrides,
)
from search_spaces.experiments.schema import settings_by_field

FILE = """
experiments:
  one: {training: {learning_rate: 0.01, batch_size: 16}, scheduler: {min_lr: 1e-3}}
  two: {model: {name: ctc}, training: {loss_type: ctc}}
"""


def test_values_have_the_same_types_as_in_a_file():
    given = parse_overrides(
        ["training.num_epochs=5", "scheduler.min_lr=1e-6", "optimizer.betas=[0.8, 0.9]", "data.augmentation=off"]
    )
    assert settings_by_field(given) == {
        "num_epochs": 5,
        "min_lr": 1e-6,
        "optimizer_betas": [0.8, 0.9],
        "augmentation": False,
    }


def test_learning_rate_of_the_optimizer_overrides_that_of_training():
    given = parse_overrides(["optimizer.learning_rate=0.1", "training.learning_rate=0.2"])
    assert settings_by_field(given) == {"learning_rate": 0.1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.num_epoch=5", "--set training.num_epoch: unknown key; did you mean 'num_epochs'?"),
        ("optimiser.type=adam", "--set optimiser: unknown key; did you mean 'optimizer'?"),
        ("training.num_epochs=x", "--set training.num_epochs: found 'x'; expected a whole number from 1 to 100000;"),
        ("training.num_epochs=", "--set training.num_epochs: found nothing (null); expected a whole number"),
        ("training.num_epochs='5'", "remove the quotes: 5"),
        ("optimizer.betas=[0.9, 1]", "--set optimizer.betas.1: found 1; expected a number at least 0 and below 1;"),
        (
            "training.seed=[",
            "--set training.seed: found '['; expected a YAML value; put text with special",
        ),
        ("training.seed=!!set {}", "--set training.seed: the tag !!set is not allowed;"),
        ("num_epochs=5", "--set: found 'num_epochs=5'; expected section.key=value; use training.num_epochs"),
        ("training.num_epochs", "expected section.key=value; use a setting such as training.num_epochs=5"),
        ("", "--set: found ''; expected section.key=value;"),
    ],
)
def test_invalid_override_is_rejected(text, message):
    with pytest.raises(ConfigurationError) as caught:
        parse_overrides([text])
    [problem] = caught.value.problems
    assert message in problem


def test_all_problems_are_reported_together():
    with pytest.raises(ConfigurationError) as caught:
        parse_overrides(
            ["training.seed=1", "training.seed=2", "x", "data.num_workers=-1", "data.val_split=test"], for_trials=True
        )
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "--set training.seed: is the same for the whole study",
        "--set training.seed: is given twice",
        "--set: found 'x'",
        "--set data.val_split: is the same for the whole study",
        "--set data.num_workers: found -1",
    ]


def test_overrides_apply_to_the_named_experiments_in_the_order_of_the_file(write):
    file = load_overridden(write(FILE), ["one"], parse_overrides(["training.batch_size=8", "training.num_epochs=5"]))
    assert file.experiments == {
        "one": TrainingConfig(experiment_name="one", learning_rate=0.01, min_lr=1e-3, batch_size=8, num_epochs=5),
        "two": TrainingConfig(experiment_name="two", model_name="ctc", loss_type="ctc"),
    }


def test_override_that_conflicts_with_the_file_is_rejected(write):
    path = write(FILE)
    with pytest.raises(ConfigurationError) as caught:
        load_overridden(path, None, parse_overrides(["training.loss_type=focal", "training.learning_rate=1e-4"]))
    rate, loss = caught.value.problems
    assert rate.startswith(f"{path}:3: experiments.one.scheduler.min_lr: found 0.001; expected at most the initial")
    assert loss.startswith("--set experiments.two.training.loss_type: found 'focal'; the model 'ctc'")
    # The override is not applied to experiments that are not selected.
    load_overridden(path, ["one"], parse_overrides(["training.loss_type=focal"]))


def test_override_without_effect_causes_a_warning(write):
    file = load_overridden(write(FILE), ["one"], parse_overrides(["scheduler.warmup_epochs=2"]))
    [warning] = file.warnings
    assert warning.startswith("--set experiments.one.scheduler.warmup_epochs: has no effect with")


def test_dataset_can_be_overridden_for_all_experiments(write):
    path, given = write(FILE), parse_overrides(["data.metadata_path=mine/metadata.yaml"])
    assert not load_overridden(path, None, {}).names_dataset
    file = load_overridden(path, ["two"], given)
    assert file.names_dataset
    assert file.select(["two"])["two"].metadata_path == "mine/metadata.yaml"


def test_overrides_apply_to_configurations():
    config = TrainingConfig(experiment_name="one", learning_rate=0.01, seed=3)
    assert override({"one": config}, parse_overrides(["training.num_epochs=5"])) == {
        "one": TrainingConfig(experiment_name="one", learning_rate=0.01, seed=3, num_epochs=5)
    }
    with pytest.raises(ConfigurationError, match=r"--set experiments\.one\.scheduler\.min_lr: found 0\.1; expected"):
        override({"one": config}, parse_overrides(["scheduler.min_lr=0.1"]))
