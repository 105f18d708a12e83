"""Settings without effect: every command that reads them prints a warning and continues."""

import pytest

WITHOUT_EFFECT = {
    "training": {"num_epochs": 1, "focal_gamma": 2.0},
    "scheduler": {"type": "cosine", "warmup_epochs": 3},
    "early_stopping": {"patience": 5},
}
EXPERIMENT_WARNINGS = {
    "one.training.focal_gamma: ": "no effect",
    "one.scheduler.warmup_epochs: ": "3 is too long",
    "one.early_stopping.patience: ": "no effect",
}
SPACE_WARNINGS = {"space.label_smoothing: ": "no effect"}


@pytest.fixture
def config(write_config):
    return write_config({"one": WITHOUT_EFFECT})


@pytest.fixture
def space(write_space):
    smoothing = {"low": 0.0, "high": 0.1}
    return write_space(base={"loss_type": "focal"}, label_smoothing=smoothing, loss_type=None, model_name=None)


def warnings_in(text):
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def assert_warned(lines, reasons):
    assert len(lines) == len(reasons)
    assert [key for key, reason in reasons.items() if not any(key in line and reason in line for line in lines)] == []


def test_validate_prints_the_warning_for_experiments_and_spaces(cli, config, space, tiny_models):
    of_experiments, of_space = cli("validate", config), cli("validate", space, "--model-config", tiny_models)
    assert (of_experiments.code, of_space.code) == (0, 0)
    assert_warned(warnings_in(of_experiments.out), EXPERIMENT_WARNINGS)
    assert_warned(warnings_in(of_space.out), SPACE_WARNINGS)


def test_dry_run_prints_the_warning(cli, config, space):
    shown = cli.ok("run", "--config", config, "--space", space, "--trials", "1", "--dry-run")
    assert_warned(warnings_in(shown.out), EXPERIMENT_WARNINGS | SPACE_WARNINGS)


def test_run_and_enqueue_print_the_warning_and_continue(cli, config, space):
    ran = cli.ok("run", "--config", config, "--space", space)
    assert_warned(warnings_in(ran.err), EXPERIMENT_WARNINGS | SPACE_WARNINGS)
    enqueued = cli.ok("enqueue", "--config", config)
    assert_warned(warnings_in(enqueued.err), EXPERIMENT_WARNINGS)
