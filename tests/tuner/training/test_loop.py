import json
from dataclasses import asdict, replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from search_spaces import ModelDefinition, TrainingConfig
from tuner.data.batches import SplitBatches, TrainingData, validation_batches
from tuner.data.pixel_cache import open_pixel_cache
from tuner.models.network import build_model
from tuner.training.checkpoints import load_checkpoint
from tuner.training.device import setup_training_environment
from tuner.training.epoch import train_step
from tuner.training.history import EpochMetrics
from tuner.training.training_state import TrainingState
from tuner.training.validation import score_split

KINDS = {
    "plateau": {"scheduler_type": "plateau", "patience": 0, "early_stopping_min_delta": 0.5},
    "cosine": {"scheduler_type": "cosine", "warmup_epochs": 1, "optimizer_type": "adamw"},
    "steplr": {"scheduler_type": "steplr", "step_size": 1, "loss_type": "focal"},
    "ctc": {"model_name": "tiny_ctc", "loss_type": "ctc"},
    "two threads": {"threads": 2, "batch_size": 16},
}


def test_training_reduces_the_loss(tiny_config, run, tmp_path):
    result = run(
        tiny_config(num_epochs=40, early_stopping_patience=40, learning_rate=0.01, augmentation=False), tmp_path
    )
    assert result.why_ended == "max_epochs"
    assert [epoch.epoch for epoch in result.history] == list(range(1, 41))
    assert result.history[-1].train_loss < 0.85 * result.history[0].train_loss
    assert max(epoch.train_char_accuracy for epoch in result.history) > 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    kind, tiny_config, run, interrupt, last_state, tmp_path
):
    config = tiny_config(num_epochs=4, **KINDS[kind])
    uninterrupted = run(config, tmp_path / "uninterrupted")
    interrupted = tmp_path / "interrupted"
    interrupt(config, interrupted, in_batch=2)
    interrupt(config, interrupted, after_epoch=2)
    interrupt(config, interrupted, in_batch=5 + 3 if kind != "two threads" else 3 + 2)  # in the middle of epoch 4
    resumed = run(config, interrupted)
    assert last_state(interrupted) == last_state(tmp_path / "uninterrupted")
    assert (resumed.why_ended, resumed.best_epoch) == (uninterrupted.why_ended, uninterrupted.best_epoch)
    best, other = (
        load_checkpoint(folder / "checkpoints" / "best.pt") for folder in (interrupted, tmp_path / "uninterrupted")
    )
    assert best["metrics"]["epoch"] == other["metrics"]["epoch"] == uninterrupted.best_epoch
    assert all(torch.equal(best["model"][name], other["model"][name]) for name in other["model"])
    if "scheduler_type" in KINDS[kind]:  # the resumed training restored a changed rate
        assert len({epoch.learning_rate for epoch in resumed.history}) > 1


def test_different_seeds_give_different_weights(tiny_config, run, last_state, tmp_path):
    run(tiny_config(num_epochs=1, seed=1), tmp_path / "one")
    run(tiny_config(num_epochs=1, seed=2), tmp_path / "other")
    assert last_state(tmp_path / "one") != last_state(tmp_path / "other")


def test_epochs_before_an_interruption_are_reported_again(tiny_config, run, interrupt, tmp_path):
    reported = []

    def record(metrics, early_stopping):
        reported.append((metrics.epoch, early_stopping.best))

    config = tiny_config(num_epochs=3)
    uninterrupted = run(config, tmp_path / "uninterrupted", on_epoch_end=record)
    expected, reported = reported, []
    assert [epoch for epoch, _ in expected] == [1, 2, 3]
    assert expected[-1][1] == max(epoch.val_char_accuracy for epoch in uninterrupted.history)
    interrupt(config, tmp_path / "interrupted", after_epoch=2)
    run(config, tmp_path / "interrupted", on_epoch_end=record)
    assert reported == expected


@pytest.mark.parametrize(
    ("settings", "callbacks", "why"),
    [
        ({"num_epochs": 2}, {}, "max_epochs"),
        ({"num_epochs": 5, "early_stopping_patience": 1, "early_stopping_min_delta": 1.0}, {}, "early_stopped"),
        ({"num_epochs": 5}, {"should_prune": lambda epoch: epoch == 2}, "pruned"),
        ({"num_epochs": 2}, {"should_prune": lambda epoch: epoch == 2}, "max_epochs"),
        (
            {"num_epochs": 5, "early_stopping_patience": 1, "early_stopping_min_delta": 1.0},
            {"should_prune": lambda epoch: epoch == 2},
            "early_stopped",
        ),
    ],
    ids=["last epoch", "early stopping", "pruned", "last epoch before pruning", "early stopping before pruning"],
)
def test_training_ends_for_the_expected_reason_and_again_when_rerun(
    settings, callbacks, why, tiny_config, run, tmp_path
):
    config = tiny_config(**settings)
    first = run(config, tmp_path, **callbacks)
    assert (first.why_ended, len(first.history)) == (why, 2)
    # If a process is killed after the last epoch and before its report, the next process trains no epoch again.
    again = run(config, tmp_path, **callbacks)
    assert replace(again, best=first.best) == first  # the speed is measured again


def test_should_prune_is_called_after_the_epoch_is_saved_and_reported(tiny_config, run, tmp_path):
    calls = []

    def should_prune(epoch):
        saved = load_checkpoint(tmp_path / "checkpoints" / "last.pt")["history"]
        calls.append(f"should_prune {epoch}, {len(saved)} saved")
        return epoch == 2

    def on_epoch_end(metrics, early_stopping):
        calls.append(f"reported {metrics.epoch}")

    run(tiny_config(num_epochs=4), tmp_path, on_epoch_end=on_epoch_end, should_prune=should_prune)
    assert calls == ["reported 1", "should_prune 1, 1 saved", "reported 2", "should_prune 2, 2 saved"]


@pytest.mark.parametrize("when", [{"after_epoch": 3}, {"in_batch": 17}], ids=str)
def test_resumed_training_calls_should_prune_again_for_its_last_epoch(when, tiny_config, run, interrupt, tmp_path):
    config = tiny_config(num_epochs=5)
    interrupt(config, tmp_path, **when)
    calls = []

    def should_prune(epoch):
        calls.append(epoch)
        return True

    result = run(config, tmp_path, should_prune=should_prune)
    assert (result.why_ended, len(result.history), calls) == ("pruned", 3, [3])


def test_pruned_training_keeps_its_epochs_and_best_checkpoint(tiny_config, run, tmp_path):
    config = tiny_config(num_epochs=6)
    pruned = run(config, tmp_path / "pruned", should_prune=lambda epoch: epoch == 3)
    unpruned = run(config, tmp_path / "unpruned")
    assert [epoch.val_loss for epoch in pruned.history] == [epoch.val_loss for epoch in unpruned.history[:3]]
    assert len((tmp_path / "pruned" / "metrics.jsonl").read_text().splitlines()) == 3
    curve = [epoch.val_char_accuracy for epoch in pruned.history]
    assert pruned.best_epoch == 1 + curve.index(max(curve))
    best = load_checkpoint(tmp_path / "pruned" / "checkpoints" / "best.pt")
    assert best["metrics"]["epoch"] == pruned.best_epoch


def test_nonfinite_loss_ends_the_training(tiny_config, run, tmp_path):
    result = run(tiny_config(learning_rate=1e30), tmp_path)
    assert (result.why_ended, result.history, result.best_epoch) == ("nonfinite_loss", (), 0)
    assert set(asdict(result.best).values()) == {None}  # no measurements
    assert not list(tmp_path.glob("checkpoints/*"))


def test_monitored_metric_selects_the_best_epoch(tiny_config, run, tmp_path):
    result = run(tiny_config(num_epochs=4, early_stopping_monitor="val_loss", early_stopping_mode="min"), tmp_path)
    losses = [epoch.val_loss for epoch in result.history]
    assert result.best_epoch == 1 + losses.index(min(losses))


def test_best_checkpoint_suffices_to_reproduce_the_readings(tiny_config, tiny_dataset, run, tmp_path):
    config = tiny_config(num_epochs=3)
    result = run(config, tmp_path)
    state = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    training = TrainingState.create(config, steps_per_epoch=4)
    model = build_model(ModelDefinition.model_validate(state["definition"]), TrainingConfig(**state["config"]))
    model.load_state_dict(state["model"])
    split = open_pixel_cache(tiny_dataset, ["val"])["val"]
    batches = validation_batches(split, torch.device("cpu"))
    score, distorted = (
        score_split(model, training.loss, batches, training.autocast, distorted=distorted)
        for distorted in (False, True)
    )
    best = result.history[result.best_epoch - 1]
    assert (score.loss, score.accuracy.character_accuracy()) == (best.val_loss, best.val_char_accuracy)
    assert torch.equal(state["validation"]["rows"], score.rows)
    assert torch.equal(state["validation"]["confidence"], score.confidence)
    assert torch.equal(state["validation"]["tta_confidence"], distorted.confidence)
    assert not torch.equal(distorted.confidence, score.confidence)


def test_scores_do_not_depend_on_the_batch_size(tiny_config, tiny_dataset):
    training = TrainingState.create(tiny_config(), steps_per_epoch=4)
    split = open_pixel_cache(tiny_dataset, ["train"])["train"]
    scores = []
    for size in (5, 32):
        batches = SplitBatches(split, batch_size=size, device=torch.device("cpu"), shuffle_seed=None, augmented=False)
        scores.append(score_split(training.model, training.loss, batches, training.autocast))
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=1e-5)
    assert scores[0].accuracy.character_accuracy() == pytest.approx(scores[1].accuracy.character_accuracy())
    assert scores[0].rows.shape == (32, 9)
    assert torch.allclose(scores[0].confidence, scores[1].confidence, atol=1e-5)


@pytest.mark.parametrize(("limit", "norm"), [(0.01, 0.01), (1e6, None), (0.0, None)])
def test_gradients_are_clipped_to_the_norm(limit, norm, tiny_config, tiny_dataset):
    config = tiny_config(gradient_clip_norm=limit)
    training = TrainingState.create(config, steps_per_epoch=4)
    cache = open_pixel_cache(tiny_dataset, ["train", "val"])
    train_step(training, next(TrainingData.of(config, cache, torch.device("cpu")).train.epoch(1)))
    gradients = [flat.grad for flat in training.weights.values if flat.grad is not None]
    found = torch.cat(gradients).norm().item()
    if norm is None:
        assert found > 0.1
    else:
        assert found == pytest.approx(norm, rel=1e-3)


def test_on_batch_is_called_before_the_first_and_after_each_batch(tiny_config, run, tmp_path):
    counted = []
    run(tiny_config(num_epochs=1), tmp_path, on_batch=lambda done, total: counted.append((done, total)))
    assert counted == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_mixed_precision_trains_if_the_cpu_supports_it(tiny_config, run, tmp_path):
    config = tiny_config(mixed_precision=True)
    half = run(config, tmp_path / "half").history[-1].train_loss
    single = run(tiny_config(), tmp_path / "single").history[-1].train_loss
    assert half == pytest.approx(single, rel=0.02)
    assert (half != single) == setup_training_environment(config)[1]
    weights = load_checkpoint(tmp_path / "half" / "checkpoints" / "best.pt")["model"].values()
    assert all(tensor.dtype is torch.float32 for tensor in weights if tensor.is_floating_point())


def test_metrics_file_contains_every_epoch(tiny_config, run, tmp_path):
    result = run(tiny_config(num_epochs=3), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert tuple(EpochMetrics(**json.loads(line)) for line in lines) == result.history
    assert all(epoch.epoch_seconds > 0 and epoch.memory_mb > 10 for epoch in result.history)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        # Fractions of the initial rate in the four steps of each of three epochs.
        ({"scheduler_type": "steplr", "step_size": 1, "gamma": 0.5}, [0.25, 0.5, 0.75, 1] + [0.5] * 4 + [0.25] * 4),
        ({"scheduler_type": "plateau"}, [0.25, 0.5, 0.75] + [1] * 9),
        ({"scheduler_type": "cosine", "warmup_epochs": 0}, [0.25, 0.5, 0.75, 1] + [0.75] * 4 + [0.25] * 4),
        ({"scheduler_type": "cosine", "warmup_epochs": 1}, [0.25, 0.5, 0.75, 1] + [1] * 4 + [0.5] * 4),
        ({"scheduler_type": "cosine", "warmup_epochs": 2}, [step / 8 for step in range(1, 9)] + [1] * 4),
        ({"scheduler_type": "cosine", "warmup_epochs": 3}, [step / 12 for step in range(1, 13)]),
        ({"scheduler_type": "cosine", "warmup_epochs": 3, "min_lr": 4e-4}, [0.4] * 4 + [s / 12 for s in range(5, 13)]),
        ({"scheduler_type": "plateau", "min_lr": 6e-4}, [0.6, 0.6, 0.75] + [1] * 9),
    ],
)
def test_learning_rate_rises_step_by_step_in_the_warm_up(schedule, shares, tiny_config, run, tmp_path):
    config = tiny_config(
        **{"num_epochs": 3, "log_every_n_steps": 1, "use_tensorboard": True, "learning_rate": 1e-3, "min_lr": 0.0}
        | schedule
    )
    result = run(config, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rates = [event.value for event in events.Scalars("learning_rate_step")]
    assert rates == pytest.approx([1e-3 * share for share in shares])
    # An epoch has the rate of its last step.
    assert [epoch.learning_rate for epoch in result.history] == pytest.approx(rates[3::4])
