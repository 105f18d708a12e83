import json
from dataclasses import asdict

import pytest

from search_spaces import TrainingConfig
from tuner.training.history import EarlyStopping, EpochMetrics, read_metrics


def updated(values, *, mode="max", min_delta=0.0, patience=2):
    """Update early stopping with the values until training should stop."""
    stopping = EarlyStopping(mode=mode, min_delta=min_delta, patience=patience)
    for epoch, value in enumerate(values, start=1):
        stopping.update(epoch, value if mode == "max" else -value)
        if stopping.should_stop:
            break
    return stopping


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("values", "min_delta", "best_epoch", "waited"),
    [
        ([0.1, 0.2, 0.3], 0.0, 3, 0),
        ([0.3, 0.2, 0.1], 0.0, 1, 2),
        ([0.3, 0.3, 0.3, 0.9], 0.0, 1, 2),
        ([0.5, 0.4, 0.6, 0.5, 0.5], 0.0, 3, 2),
        ([0.50, 0.55, 0.58, 0.90], 0.1, 3, 2),
        ([0.50, 0.55, 0.61, 0.62], 0.1, 4, 1),
        ([0.50, 0.60, 0.70], 0.1000001, 3, 0),
    ],
    ids=["rising", "falling", "equal", "new best", "small gains", "small gains add up", "two gains add up"],
)
def test_patience_counts_gains_above_min_delta_and_best_counts_all_gains(mode, values, min_delta, best_epoch, waited):
    stopping = updated(values, mode=mode, min_delta=min_delta)
    assert stopping.best_epoch == best_epoch
    assert stopping.best == (values[best_epoch - 1] if mode == "max" else -values[best_epoch - 1])
    assert stopping.waited == waited
    assert stopping.should_stop == (waited == 2)


def test_update_returns_whether_the_epoch_is_the_best_so_far():
    stopping = EarlyStopping(mode="max", min_delta=0.1, patience=5)
    assert [stopping.update(epoch, value) for epoch, value in enumerate([0.5, 0.5, 0.51, 0.4, 0.7], 1)] == [
        True,
        False,  # not better than the first of equal values
        True,  # better by less than min_delta
        False,
        True,
    ]


def test_first_value_is_the_best_even_if_it_is_zero():
    stopping = EarlyStopping(mode="max", min_delta=0.0, patience=1)
    assert stopping.update(1, 0.0)
    assert (stopping.best, stopping.best_epoch, stopping.should_stop) == (0.0, 1, False)
    assert not stopping.update(2, 0.0)
    assert stopping.should_stop


def test_early_stopping_uses_the_settings_of_the_configuration():
    config = TrainingConfig(early_stopping_mode="min", early_stopping_min_delta=0.25, early_stopping_patience=3)
    assert EarlyStopping.of(config) == EarlyStopping(mode="min", min_delta=0.25, patience=3)
    assert EarlyStopping.of(config).best is None


EPOCHS = [EpochMetrics(number, 2.0, 2.0, 0.1, 0.1, 0.0, 0.0, 1e-3, 1.0, 100.0, 100.0) for number in (1, 2)]
WRONG_TYPES = json.dumps(asdict(EPOCHS[0]) | {"epoch": 3, "epoch_seconds": [1]}) + "\n"


@pytest.mark.parametrize(
    "damage",
    ['{"epoch": 3, "train', "\0\0\0}\n", "[1, 2]}\n", '{"epoch": 3}\n', "\n", WRONG_TYPES],
    ids=["half a line", "zeros after a power cut", "no object", "missing metrics", "empty", "wrong types"],
)
def test_damaged_lines_are_skipped(damage, tmp_path):
    first, second = (json.dumps(asdict(epoch)) + "\n" for epoch in EPOCHS)
    (tmp_path / "metrics.jsonl").write_text(first + damage + ("" if damage.endswith("\n") else "\n") + second)
    assert read_metrics(tmp_path) == EPOCHS


def test_missing_file_gives_no_epochs(tmp_path):
    assert read_metrics(tmp_path) == []
