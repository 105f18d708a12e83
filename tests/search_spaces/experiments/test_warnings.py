"""Warnings about valid settings of an experiment that have no effect or are probably a mistake."""

import pytest

from search_spaces import create_training_config, load_experiments, parse_experiments


def warnings_of(experiment):
    file = parse_experiments({"experiments": {"a": experiment}})
    assert file.notes == ()
    return file.warnings


def plateau(patience):
    return {"type": "plateau", "patience": patience}


@pytest.mark.parametrize(
    ("experiment", "key", "message"),
    [
        (
            {"training": {"loss_type": "focal", "label_smoothing": 0.1}},
            "training.label_smoothing",
            "has no effect with training.loss_type focal, only with crossentropy",
        ),
        (
            {"model": {"name": "ctc"}, "training": {"loss_type": "ctc", "label_smoothing": 0.1}},
            "training.label_smoothing",
            "has no effect with training.loss_type ctc, only with crossentropy",
        ),
        ({"training": {"focal_gamma": 3.0}}, "training.focal_gamma", "has no effect with training.loss_type cross"),
        ({"training": {"focal_alpha": 3.0}}, "training.focal_alpha", "has no effect with training.loss_type cross"),
        ({"scheduler": {"warmup_epochs": 2}}, "scheduler.warmup_epochs", "has no effect with scheduler.type steplr"),
        ({"scheduler": {"type": "cosine", "step_size": 2}}, "scheduler.step_size", "only with steplr"),
        ({"scheduler": {"type": "cosine", "gamma": 0.2}}, "scheduler.gamma", "only with steplr"),
        ({"scheduler": {"patience": 2}}, "scheduler.patience", "only with plateau"),
        ({"scheduler": {"factor": 0.2}}, "scheduler.factor", "only with plateau"),
        (
            {"early_stopping": {"patience": 40}},
            "early_stopping.patience",
            "40 has no effect: training ends after 40 epochs, before it can stop early",
        ),
        ({"early_stopping": {"patience": 39}}, "early_stopping.patience", "39 has no effect: training ends after"),
        (
            {"early_stopping": {"min_delta": 1.0}},
            "early_stopping.min_delta",
            "1.0 is more than an accuracy can improve, so training always ends after 11 epochs",
        ),
        (
            {"scheduler": {"type": "cosine", "warmup_epochs": 50}},
            "scheduler.warmup_epochs",
            "50 is too long for 40 epochs: training ends before the cosine starts",
        ),
        (
            {"scheduler": {"step_size": 40}},
            "scheduler.step_size",
            "40 is too long for 40 epochs: training ends before gamma has an effect",
        ),
        (
            {"training": {"num_epochs": 10}, "scheduler": {"gamma": 0.1}},
            "scheduler.step_size",
            "10 is too long for 10 epochs",
        ),
        (
            {"training": {"num_epochs": 1}, "scheduler": {"gamma": 0.1}},
            "scheduler.step_size",
            "10 is too long for 1 epoch: training",
        ),
        (
            {"scheduler": {"gamma": 1.0}},
            "scheduler.gamma",
            "1 never changes the learning rate, so the schedule has no",
        ),
        ({"scheduler": plateau(60)}, "scheduler.patience", "60 is too long for 40 epochs: training ends before factor"),
        ({"scheduler": plateau(38)}, "scheduler.patience", "38 is too long for 40 epochs: training ends before factor"),
        (
            {"scheduler": plateau(9)},
            "scheduler.patience",
            "9 has no effect: early_stopping.patience (10) ends training first",
        ),
        (
            {"scheduler": {"min_lr": 0.001}},
            "scheduler.min_lr",
            "0.001 is also the initial learning rate (training.learning_rate), so the schedule has no effect",
        ),
        (
            {"training": {"num_epochs": 12, "save_every_n_epochs": 20}},
            "training.save_every_n_epochs",
            "20 is more than num_epochs (12), so no numbered snapshot is written",
        ),
        (
            {"early_stopping": {"monitor": "val_loss"}},
            "early_stopping.mode",
            "max would keep the worst epoch, because lower val_loss is better; did you mean 'min'?",
        ),
        ({"early_stopping": {"mode": "min"}}, "early_stopping.mode", "higher val_char_accuracy is better"),
        ({"training": {"learning_rate": 0.5}}, "training.learning_rate", "0.5 is far above usual learning rates"),
        (
            {"training": {"learning_rate": 1e-7}, "optimizer": {"learning_rate": 1e-3}},
            "training.learning_rate",
            "1e-07 has no effect: optimizer.learning_rate (0.001) overrides it",
        ),
        (
            {"training": {"weight_decay": 0.1}, "optimizer": {"weight_decay": 0.2}},
            "training.weight_decay",
            "0.1 has no effect: optimizer.weight_decay (0.2) overrides it",
        ),
        ({"data": {"num_workers": 8}}, "data.num_workers", "8 has no effect on training, which reads the pixel cache"),
        ({"data": {"pin_memory": True}}, "data.pin_memory", "true has no effect on training, which reads the pixel"),
    ],
)
def test_setting_without_effect_or_probable_mistake_is_only_a_warning(experiment, key, message):
    (warning,) = warnings_of(experiment)
    assert warning.startswith(f"experiments.a.{key}: ")
    assert message in warning
    create_training_config(experiment)


@pytest.mark.parametrize(
    "experiment",
    [
        {},
        {"training": {"num_epochs": 1}},
        {"training": {"loss_type": "focal", "focal_alpha": 0.5, "focal_gamma": 0.0, "label_smoothing": 0}},
        {"data": {"num_workers": 4, "pin_memory": False}},
        {"data": {"num_workers": 0}},
        {"early_stopping": {"patience": 38}},
        {"scheduler": {"type": "cosine", "warmup_epochs": 39}},
        {"scheduler": {"step_size": 39}},
        {"scheduler": plateau(8)},
        {"scheduler": plateau(37), "early_stopping": {"patience": 39}, "training": {"num_epochs": 41}},
        {"training": {"save_every_n_epochs": 40}},
        {"early_stopping": {"monitor": "val_loss", "mode": "min", "min_delta": 2.0}},
        {"training": {"learning_rate": 1e-3}, "optimizer": {"learning_rate": 1e-3}},
    ],
)
def test_setting_with_effect_causes_no_warning(experiment):
    assert warnings_of(experiment) == ()


def test_target_that_can_never_be_met_causes_a_warning():
    targets = {"convergence_epochs": 5}
    (warning,) = parse_experiments({"experiments": {"a": {}}, "targets": targets}).warnings
    assert warning.startswith("targets.convergence_epochs: can never be met without character_accuracy or")
    assert parse_experiments({"experiments": {"a": {}}, "targets": targets | {"sequence_accuracy": 1}}).warnings == ()


def test_warnings_have_file_and_line_and_come_before_the_notes(write):
    text = "common: 1\nexperiments:\n  a:\n    training: {focal_gamma: 2}\n    scheduler: {factor: 0.1}\n"
    messages = load_experiments(write(text)).messages
    assert [message.rpartition(": ")[0] for message in messages] == [
        "warning: config.yaml:4: experiments.a.training.focal_gamma",
        "warning: config.yaml:5: experiments.a.scheduler.factor",
        "note: config.yaml:1: common",
    ]
