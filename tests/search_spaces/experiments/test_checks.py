import pytest

from search_spaces import ConfigurationError, create_training_config, load_experiments, parse_experiments


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"model": {"name": "ctc"}, "training": {"loss_type": "focal"}}, "found 'focal'; .*only CTC loss; use ctc"),
        ({"data": {"train_split": "x", "val_split": "x"}}, r"data\.val_split: found 'x'"),
        ({"optimizer": {"learning_rate": 1e-7}}, r"min_lr: found 1e-06; .*optimizer\.learning_rate: 1e-07"),
    ],
)  # fmt: skip
def test_conflicting_keys_are_rejected(experiment, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        create_training_config(experiment)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "experiment",
    [
        {"model": {"name": "ctc"}, "training": {"loss_type": "ctc"}},
        {"training": {"loss_type": "focal"}},
        {"scheduler": {"min_lr": 0.001}},
    ],
)
def test_compatible_keys_are_accepted(experiment):
    assert list(parse_experiments({"experiments": {"a": experiment}}).experiments) == ["a"]


def test_invalid_key_is_reported_only_once():
    with pytest.raises(ConfigurationError) as caught:
        create_training_config({"model": {"name": "ctc"}, "training": {"loss_type": "CTC!", "learning_rate": -1}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "training.learning_rate",
        "training.loss_type",
    ]


STUDY_LEVEL = [
    ("data", "metadata_path", "mine/metadata.yaml"),
    ("data", "train_split", "other"),
    ("data", "val_split", "other"),
    ("early_stopping", "monitor", "val_seq_accuracy"),
    ("training", "seed", 7),
]


@pytest.mark.parametrize(("section", "key", "value"), STUDY_LEVEL)
def test_experiment_with_another_study_setting_is_reported(section, key, value):
    experiments = {"a": {}, "b": {section: {key: value}}, "c": {}}
    with pytest.raises(ConfigurationError) as caught:
        parse_experiments({"experiments": experiments})
    (problem,) = caught.value.problems
    assert problem.startswith(f"experiments.b.{section}.{key}: found {value!r}; ")
    assert "as in a, c" in problem
    assert "--output-dir" in problem


def test_experiment_with_another_default_for_a_study_setting_is_reported():
    experiments = {name: {"training": {"seed": 5}} for name in "abd"} | {"c": {}}
    with pytest.raises(ConfigurationError, match=r"experiments\.c\.training\.seed: found 0 \(the default\); .*use 5"):
        parse_experiments({"experiments": experiments})


def test_experiments_with_the_same_study_setting_are_accepted():
    experiments = {name: {"training": {"seed": 5}} for name in "abc"}
    assert [c.seed for c in parse_experiments({"experiments": experiments}).experiments.values()] == [5, 5, 5]


def test_invalid_model_file_is_reported_once_with_its_lines(write):
    write("models:\n  m: {decoder: lstm, stem_channels: [8, 8], stage_channels: [8], width: 8}\n", "m.yaml")
    text = "experiments:\n  a: &a {model: {name: m, config_path: m.yaml}}\n  b: *a\n"
    with pytest.raises(ConfigurationError) as caught:
        load_experiments(write(text))
    (problem,) = caught.value.problems
    assert problem.startswith("m.yaml:2: models.m.decoder: found 'lstm'; expected one of attention, ctc")


def test_model_file_that_is_not_yaml_is_reported_with_the_other_problems(write):
    write("models: [\n", "m.yaml")
    text = "experiments: {a: {model: {name: m, config_path: m.yaml}, training: {batch_size: 0}}}\n"
    with pytest.raises(ConfigurationError) as caught:
        load_experiments(write(text))
    first, second = caught.value.problems
    assert first.startswith("m.yaml:2:1: not valid YAML")
    assert second.startswith("config.yaml:1: experiments.a.training.batch_size")
