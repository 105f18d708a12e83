from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from search_spaces import TrainingConfig
from tuner.models import create_model_from_config
from tuner.training.ema import EMA_EPOCHS, WeightEMA
from tuner.training.flat_parameters import FlatParameters

MakeConfig = Callable[..., TrainingConfig]


def test_ema_starts_from_the_weights_and_its_time_constant_grows(tiny_config: MakeConfig) -> None:
    model = create_model_from_config(tiny_config())
    averaged = WeightEMA(model, FlatParameters(model), steps_per_epoch=100)
    ours, theirs = (next(iter(network.parameters())) for network in (averaged.module, model))
    with torch.no_grad():
        theirs.fill_(1.0)
        averaged.update()
        assert torch.equal(ours, theirs)
        theirs.fill_(0.0)
        expected = 1.0
        for steps in range(1, 600):
            averaged.update()
            expected *= 1 - max(1 / (EMA_EPOCHS * 100), 9 / (10 + steps))
            if steps in (1, 5, 599):
                assert ours.mean().item() == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_ema_includes_normalisation_statistics(tiny_config: MakeConfig) -> None:
    model = create_model_from_config(tiny_config())
    averaged = WeightEMA(model, FlatParameters(model), steps_per_epoch=10)
    names = [name for name, _ in model.named_buffers() if name.endswith("running_mean")]
    assert names
    for _ in range(3):
        model.train()(torch.rand(4, 1, 64, 128))
        averaged.update()
    theirs, ours = dict(model.named_buffers()), dict(averaged.module.named_buffers())
    assert all(not torch.equal(ours[name], theirs[name]) and ours[name].abs().sum() > 0 for name in names)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name.endswith("num_batches_tracked"))
