import pytest
import torch

from tuner.models import create_model_from_config
from tuner.training.ema import EMA_EPOCHS, WeightEMA
from tuner.training.flat_parameters import FlatParameters


def test_ema_starts_from_the_weights_and_its_time_constant_grows(tiny_config):
    model = create_model_from_config(tiny_config())
    ema = WeightEMA(model, FlatParameters(model), steps_per_epoch=100)
    average, weights = (next(iter(network.parameters())) for network in (ema.module, model))
    with torch.no_grad():
        weights.fill_(1.0)
        ema.update()
        assert torch.equal(average, weights)
        weights.fill_(0.0)
        expected = 1.0
        for steps in range(1, 600):
            ema.update()
            expected *= 1 - max(1 / (EMA_EPOCHS * 100), 9 / (10 + steps))
            if steps in (1, 5, 599):
                assert average.mean().item() == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_ema_includes_normalisation_statistics(tiny_config):
    model = create_model_from_config(tiny_config())
    ema = WeightEMA(model, FlatParameters(model), steps_per_epoch=10)
    names = [name for name, _ in model.named_buffers() if name.endswith("running_mean")]
    assert names
    for _ in range(3):
        model.train()(torch.rand(4, 1, 64, 128))
        ema.update()
    weights, average = dict(model.named_buffers()), dict(ema.module.named_buffers())
    assert all(not torch.equal(average[name], weights[name]) and average[name].abs().sum() > 0 for name in names)
    assert all(torch.equal(average[name], weights[name]) for name in weights if name.endswith("num_batches_tracked"))
