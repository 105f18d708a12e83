from dataclasses import asdict

import pytest
import yaml

from search_spaces import (
    ConfigurationError,
    TrainingConfig,
    create_training_config,
    load_experiments,
    parse_experiments,
)


def problems_of(text, write):
    with pytest.raises(ConfigurationError) as caught:
        load_experiments(write(text))
    return caught.value.problems


def changed(config):
    defaults = asdict(TrainingConfig())
    return {name: value for name, value in asdict(config).items() if value != defaults[name]}


def test_default_experiments_match_the_api_reference():
    file = load_experiments("config/phase3_simple_configs.yaml")
    assert {name: changed(config) for name, config in file.experiments.items()} == {
        "conservative_small": {
            "experiment_name": "conservative_small",
            "model_name": "small",
            "scheduler_type": "plateau",
        },
        "baseline_optimized": {
            "experiment_name": "baseline_optimized",
            "batch_size": 64,
            "learning_rate": 0.002,
            "num_epochs": 30,
            "optimizer_type": "adamw",
            "scheduler_type": "cosine",
            "warmup_epochs": 3,
        },
        "high_learning_rate": {
            "experiment_name": "high_learning_rate",
            "batch_size": 96,
            "learning_rate": 0.003,
            "num_epochs": 25,
            "step_size": 8,
        },
    }
    assert list(file.experiments) == ["conservative_small", "baseline_optimized", "high_learning_rate"]
    assert file.targets.model_dump() == {
        "character_accuracy": 0.85,
        "sequence_accuracy": 0.70,
        "training_time_per_epoch": 30,
        "convergence_epochs": 15,
    }
    assert file.notes == ()


# The dictionary of the reference's "Custom Experiment Script".
INTEGRATION_EXAMPLE = {
    "experiments": {
        "my_experiment": {
            "experiment_name": "my_experiment",
            "model": {"name": "medium"},
            "training": {"batch_size": 48, "learning_rate": 0.0015, "num_epochs": 35},
            "optimizer": {"type": "adamw"},
            "scheduler": {"type": "cosine", "warmup_epochs": 2},
        }
    },
    "targets": {"character_accuracy": 0.85, "sequence_accuracy": 0.70},
}


def test_integration_example_of_the_api_reference_is_accepted(write):
    file = load_experiments(write(yaml.dump(INTEGRATION_EXAMPLE)))
    config = file.select(["my_experiment"])["my_experiment"]
    assert (config.batch_size, config.warmup_epochs, config.optimizer_type) == (48, 2, "adamw")
    assert file.targets.convergence_epochs is None
    assert file.config == INTEGRATION_EXAMPLE
    assert parse_experiments(INTEGRATION_EXAMPLE).experiments == file.experiments


EVERY_KEY = """\
experiments:
  all_keys:
    experiment_name: all_keys
    model: {name: large, config_path: config/model_config.yaml}
    data:
      metadata_path: d/metadata.yaml
      train_split: a
      val_split: b
      num_workers: 0
      pin_memory: true
      augmentation: false
    training:
      device: cpu
      mixed_precision: true
      gradient_clip_norm: 2
      log_every_n_steps: 3
      save_every_n_epochs: 4
      keep_n_checkpoints: 5
      use_tensorboard: false
      batch_size: 6
      learning_rate: 1e-2
      weight_decay: 1e-3
      num_epochs: 70
      loss_type: focal
      label_smoothing: 0
      seed: 8
      focal_alpha: 0.25
      focal_gamma: 3
    optimizer: {type: adamw, learning_rate: 2e-2, weight_decay: 2e-3, betas: [0.8, 0.99]}
    scheduler:
      {type: plateau, warmup_epochs: 1, min_lr: 1e-5, step_size: 9, gamma: 0.4, patience: 6, factor: 0.3}
    early_stopping: {patience: 11, min_delta: 1e-3, monitor: val_loss, mode: min}
"""


def test_every_documented_key_sets_its_field(write):
    config = load_experiments(write(EVERY_KEY)).experiments["all_keys"]
    assert config == TrainingConfig(
        model_name="large",
        metadata_path="d/metadata.yaml",
        train_split="a",
        val_split="b",
        batch_size=6,
        num_workers=0,
        pin_memory=True,
        augmentation=False,
        device="cpu",
        mixed_precision=True,
        num_epochs=70,
        learning_rate=0.02,
        weight_decay=0.002,
        gradient_clip_norm=2.0,
        log_every_n_steps=3,
        save_every_n_epochs=4,
        keep_n_checkpoints=5,
        use_tensorboard=False,
        loss_type="focal",
        label_smoothing=0.0,
        optimizer_type="adamw",
        optimizer_betas=[0.8, 0.99],
        scheduler_type="plateau",
        warmup_epochs=1,
        min_lr=1e-5,
        step_size=9,
        gamma=0.4,
        patience=6,
        factor=0.3,
        early_stopping_patience=11,
        early_stopping_min_delta=1e-3,
        early_stopping_monitor="val_loss",
        early_stopping_mode="min",
        experiment_name="all_keys",
        seed=8,
        focal_alpha=0.25,
        focal_gamma=3.0,
    )
    assert isinstance(config.gradient_clip_norm, float)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training: {batch_size: 32.5}", "use, for example, 32"),
        ("training: {batch_size: many}", "found 'many'; expected a whole number"),
        ("training: {batch_size: }", "found nothing (null)"),
        ("training: {learning_rate: true}", "found true; expected a number above 0 and at most 10"),
        ("training: {learning_rate: '1e-3'}", "remove the quotes: 1e-3"),
        ("training: {learning_rate: 0}", "found 0; expected a number above 0"),
        ("training: {use_tensorboard: 1}", "found 1; expected true or false; use true or false"),
        ("training: {use_tensorboard: 'true'}", "remove the quotes: true"),
        ("training: {device: 0}", "expected one of auto, cpu, cuda; use one of auto, cpu, cuda"),
        ("training: {seed: -1}", "at least 0 and below 4294967296"),
        ("optimizer: {betas: 0.9}", "found 0.9; expected a list of 2 values"),
        ("scheduler: {gamma: 0}", "above 0 and at most 1"),
        ("early_stopping: {patience: 0}", "a whole number from 1"),
        ("data: {metadata_path: 5}", "found 5; expected text; put the value in quotes: '5'"),
        ('data: {metadata_path: ""}', "expected text; use one line of text that is not blank"),
        ("data: {num_workers: -1}", "from 0 to 256"),
        ("data: {vocab_size: 13}", "unknown key; use 'model.vocab_size'"),
        ("training: {batchsize: 1}", "did you mean 'batch_size'?"),
        ("training: {zzz: 1}", "valid keys here: device,"),
        ("trainin: {}", "did you mean 'training'?"),
        ("training: [a]", "found the list ['a']; expected a mapping of keys to values; use 'key: value' lines"),
        ("training: fast", "found 'fast'; expected a mapping of keys to values"),
        ("experiment_name: other", "found 'other'; expected 'my', the key of this experiment; use 'my'"),
    ],
)  # fmt: skip
def test_invalid_value_is_rejected(write, line, message):
    problems = problems_of(f"experiments:\n  my:\n    {line}\n", write)
    assert len(problems) == 1
    assert problems[0].startswith("config.yaml:3: experiments.my.")
    assert message in problems[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiments: {}", "config.yaml:1: experiments: found an empty mapping"),
        ("experiments: [a]", "found the list ['a']"),
        ("experiments: all", "found 'all'; expected a mapping of experiment names to settings"),
        ("experiments: {a: [1]}", "experiments.a: found the list [1]"),
        ("experiments: {../../x: {}}", "experiments.'../../x': a name has only letters"),
        ("experiments: {no: {}}", "found a name that is not text"),
        (
            "experiments: {a: {}, A: {}}",
            "experiments.A: the name differs from 'a' only in case, so both may get the same folder",
        ),
        ("experiments: {a: {}}\ntargets: ", "targets: found nothing (null)"),
        ("experiments: {a: {}}\ntargets: [0.9]", "targets: found the list [0.9]; expected a mapping"),
        ("experiments: {a: {}}\ntargets: {sequence_accuracy: 70}", "use a fraction, not a percentage: 0.7"),
        ("experiments: {a: {}}\ntargets: {convergence_epochs: '9'}", "a whole number from 1"),
        ("experiments: {a: {}}\ntargets: {convergence_epochs: '9'}", "remove the quotes: 9"),
    ],
)
def test_file_with_the_wrong_structure_is_rejected(write, text, message):
    problems = problems_of(text, write)
    assert len(problems) == 1
    assert message in problems[0]


MANY_PROBLEMS = """\
experiments:
  a:
    model: {name: medum}
    training: {batch_size: "64", loss_type: ctx, momentum: 1}
    scheduler: {min_lr: 0.5}
  b:
  c/d:
    model: {name: ctc}
targets: {sequence_acc: 1}
"""


def test_all_problems_are_reported_in_the_order_of_the_file(write):
    locations = [problem.split(": ")[:2] for problem in problems_of(MANY_PROBLEMS, write)]
    assert locations == [
        ["config.yaml:3", "experiments.a.model.name"],
        ["config.yaml:4", "experiments.a.training.batch_size"],
        ["config.yaml:4", "experiments.a.training.loss_type"],
        ["config.yaml:4", "experiments.a.training.momentum"],
        ["config.yaml:5", "experiments.a.scheduler.min_lr"],
        ["config.yaml:6", "experiments.b"],
        ["config.yaml:7", "experiments.'c/d'"],
        ["config.yaml:7", "experiments.'c/d'.training.loss_type"],
        ["config.yaml:9", "targets.sequence_acc"],
    ]


ANCHORED = """\
defaults: &defaults
  training: &training {num_epochs: 7, batch_size: "64"}
experiment: {}
experiments:
  a: {<<: *defaults}
  b: {training: {<<: *training, batch_size: 16}}
"""


def test_problem_in_an_anchor_is_reported_at_the_anchor(write):
    (problem,) = problems_of(ANCHORED, write)
    assert problem.startswith("config.yaml:2: experiments.a.training.batch_size: found '64'")


def test_unused_top_level_keys_are_allowed_with_a_note(write):
    file = load_experiments(write(ANCHORED.replace('"64"', "64")))
    assert [config.batch_size for config in file.experiments.values()] == [64, 16]
    assert file.notes == (
        "config.yaml:1: defaults: not used",
        "config.yaml:3: experiment: not used; did you mean 'experiments'?",
    )


def test_khmer_name_is_accepted(write):
    file = load_experiments(write("experiments:\n  ខ្មែរ: {model: {name: small}}\n"))
    assert file.experiments["ខ្មែរ"].experiment_name == "ខ្មែរ"


def test_select_returns_each_name_once_in_the_order_of_the_file():
    file = load_experiments("config/phase3_simple_configs.yaml")
    wanted = ["high_learning_rate", "conservative_small", "high_learning_rate"]
    assert list(file.select(wanted)) == ["conservative_small", "high_learning_rate"]
    assert list(file.select(None)) == list(file.experiments)
    assert file.select([]) == {}


def test_select_reports_all_unknown_names():
    file = load_experiments("config/phase3_simple_configs.yaml")
    with pytest.raises(ConfigurationError) as caught:
        file.select(["baseline", "conservative_small", "zzz"])
    assert len(caught.value.problems) == 2
    assert "no experiment 'baseline'; did you mean 'baseline_optimized'?" in caught.value.problems[0]
    assert "use one of conservative_small, baseline_optimized, high_learning_rate" in caught.value.problems[1]


def test_create_training_config_accepts_the_example_of_the_api_reference():
    config = create_training_config(
        {
            "training": {"batch_size": 64, "learning_rate": 0.002},
            "model": {"name": "medium"},
            "optimizer": {"type": "adamw"},
        }
    )
    assert config == TrainingConfig(batch_size=64, learning_rate=0.002, optimizer_type="adamw")
    assert create_training_config({}) == TrainingConfig()
    assert create_training_config({"experiment_name": "x"}).experiment_name == "x"


def test_create_training_config_accepts_a_tuple():
    assert create_training_config({"optimizer": {"betas": (0.8, 0.9)}}).optimizer_betas == [0.8, 0.9]


_NUMBERS_AS_TEXT = """
experiments:
  '1e5':
    model: {name: small}
    training: {learning_rate: 1e-2, weight_decay: 1e-5, num_epochs: 5}
    optimizer: {betas: [9e-1, 0.99]}
    scheduler: {min_lr: +1E-6, gamma: 1.5e-1}
targets: {character_accuracy: 9e-1}
"""


def test_numbers_that_pyyaml_reads_as_text_are_converted_in_a_dictionary(write):
    config = yaml.safe_load(_NUMBERS_AS_TEXT)
    assert config["experiments"]["1e5"]["scheduler"]["min_lr"] == "+1E-6"  # otherwise, this test would test nothing
    from_file = load_experiments(write(_NUMBERS_AS_TEXT))

    parsed = parse_experiments(config)

    assert parsed.experiments == from_file.experiments
    assert parsed.targets == from_file.targets
    [experiment] = config["experiments"].values()
    assert create_training_config({**experiment, "experiment_name": "1e5"}) == parsed.experiments["1e5"]


@pytest.mark.parametrize("text", ["0.001", "64", "1e-3x", "", "nan", ".Nan", "1,5"])
def test_other_text_is_not_converted_to_a_number(text):
    with pytest.raises(ConfigurationError, match="learning_rate: found"):
        create_training_config({"training": {"learning_rate": text}})


def test_whole_number_with_an_exponent_is_rejected():
    with pytest.raises(ConfigurationError, match=r"num_epochs: found 10.0; .*; use 10"):
        create_training_config({"training": {"num_epochs": "1e1"}})


def test_create_training_config_reports_all_problems():
    with pytest.raises(ConfigurationError) as caught:
        create_training_config({"training": {"batch_size": "64"}, "model": {"name": "ctc"}, "optimiser": {}})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "training.batch_size",
        "optimiser",
        "training.loss_type",
    ]


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_configuration_that_is_not_a_mapping_is_rejected(data):
    with pytest.raises(ConfigurationError, match=r"configuration: found the type .*; expected a dict; use"):
        parse_experiments(data)
    with pytest.raises(ConfigurationError, match="expected a mapping"):
        create_training_config(data)


@pytest.mark.parametrize("name", ["../../x", "study.db", ""])
def test_create_training_config_rejects_invalid_folder_names(name):
    with pytest.raises(ConfigurationError, match="experiment_name: "):
        create_training_config({"experiment_name": name})


def test_message_has_the_path_of_a_file_in_another_folder(write):
    with pytest.raises(ConfigurationError, match=r"deep/er/mine\.yaml:1: experiments: found"):
        load_experiments(write("experiments: []", "deep/er/mine.yaml"))
