"""`validate`: experiments files and search spaces."""

import pytest

SPACE = """\
base: {num_epochs: 30, optimizer_betas: [0.8, 0.9]}
space:
  model_name: [tiny, tiny_ctc]
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  batch_size: {low: 16, high: 64, step: 16}
  loss_type: {choices: [crossentropy, focal], when: {model_name: tiny}}
  augmentation: {choices: [true, false], when: {loss_type: focal, batch_size: [16, 32]}}
"""


@pytest.fixture
def space(working_dir):
    path = working_dir / "space.yaml"
    path.write_text(SPACE)
    return path


def test_search_space_is_printed(cli, space, tiny_models, tree):
    before = tree(space.parent)
    shown = cli("validate", space, "--model-config", tiny_models)
    assert (shown.code, shown.err) == (0, "")
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert lines == [
        f"search space: {space}",
        f"models: {tiny_models} (tiny, tiny_ctc)",
        "",
        "setting       values                    only if",
        "model_name    tiny, tiny_ctc",
        "learning_rate 0.0001 to 0.01, log scale",
        "batch_size    16 to 64, step 16",
        "loss_type     crossentropy, focal       model_name: tiny",
        "augmentation  true, false               loss_type: focal; batch_size: 16, 32",
        "",
        "base: num_epochs 30, optimizer_betas [0.8, 0.9]",
        "the search space is valid",
    ]
    assert tree(space.parent) == before


def test_built_in_space_matches_the_built_in_models(cli):
    shown = cli.ok("validate", "config/search_space.yaml")
    assert "models: " in shown.out
    assert "(small, medium, large, ctc)" in shown.out
    assert shown.out.endswith("the search space is valid\n")


def test_space_without_a_base_is_shown(cli, working_dir):
    (working_dir / "s.yaml").write_text("space: {gamma: [0.1, 0.2]}")
    assert "base: none\n" in cli("validate", "s.yaml").out


def test_all_problems_of_a_space_are_reported_together(cli, working_dir):
    (working_dir / "s.yaml").write_text(
        "space:\n  model_name: [smal, ctc, large]\n  loss_type: [focal, crossentropy]\n  gama: [1, 2]"
    )
    refused = cli.error("validate", "s.yaml")
    assert refused.splitlines() == [
        "error: s.yaml:2: space.model_name.0: found 'smal'; expected a defined model; did you mean 'small'?",
        "error: s.yaml:3: space.loss_type: the model 'ctc' would get 'focal' or 'crossentropy'; CTC models support "
        "only CTC loss, which is set automatically; add when: {model_name: [large]}",
        "error: s.yaml:4: space.gama: unknown setting; did you mean 'gamma'?",
        "3 problems",
    ]


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("nope.yaml", "configuration file not found: nope.yaml"),
        ("space.yaml", "models: missing"),
        ("", "expected a value that is not empty"),
    ],
)
def test_unreadable_models_are_refused(cli, space, models, expected):
    assert expected in cli.error("validate", space, "--model-config", models)


def test_model_config_option_is_refused_for_experiments(cli, write_config, tiny_models):
    refused = cli.error("validate", write_config({"one": {}}), "--model-config", tiny_models)
    assert "--model-config: found with an experiments file" in refused


def test_missing_named_dataset_is_an_error_as_in_run(cli, working_dir, write_config, tiny_models):
    config = write_config({"one": {}})
    assert f"models: {tiny_models} (tiny, tiny_ctc)\n" in cli("validate", config).out
    config.write_text(config.read_text().replace("metadata.yaml", "nowhere.yaml"))
    refused = cli.error("validate", config)
    assert refused == cli("run", "--config", config, "--dry-run").err
    assert "nowhere.yaml" in refused
    # `run` generates only the default dataset.
    unnamed = cli("validate", "config/phase3_simple_configs.yaml")
    assert (unnamed.code, list(working_dir.iterdir())) == (0, [])
    assert (
        "generated_data/metadata.yaml does not exist; `khmer-tuner run` generates the default dataset first"
        in unnamed.out
    )


def test_file_with_experiments_and_space_is_an_experiments_file(cli, write_config):
    shown = cli.ok("validate", write_config({"one": {}}, space={"gamma": [0.1, 0.2]}))
    assert "space: not used" in shown.out
    assert shown.out.endswith("the configuration is valid\n")
